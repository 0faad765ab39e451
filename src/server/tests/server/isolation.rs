//! No tenant sees another's data by any route, key or guessed id. Every operation of every front has a row in the table
//! below; one that has none fails the test.

use cluegate_gate::fakes::picture;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::comfyui::workflow;
use crate::judge_api::data_url;
use crate::support::{Drawn, Gateway, Scripted, Setup, within};

/// Words that only `t` knows.
const SECRET: &str = "a lighthouse that nobody else asked for";

/// What `t` has, by the names under which another may look for it.
struct Mine {
    job: String,
    prompt: String,
    /// The query that shows a picture of the prompt.
    view: String,
    file: String,
    upload: String,
    /// A session that it has open.
    session: String,
    /// Ids of decisions.
    decisions: Vec<String>,
}

/// How a stranger asks: with the names of what is not theirs wherever one fits.
enum Ask {
    /// Path with its query, and a body; empty for none.
    Json(String, Value),
    /// A form, which is made for the route; a part `image` of another's name.
    Form(Value),
    /// The file of a picture.
    Picture(String),
    /// It opens a WebSocket in another's name.
    Socket,
}

/// Routes that are read as they stand: they name nothing that is somebody's.
const PLAIN: &[&str] = &[
    "/sdapi/v1/progress",
    "/sdapi/v1/options",
    "/sdapi/v1/sd-models",
    "/sdapi/v1/samplers",
    "/sdapi/v1/schedulers",
    "/sdapi/v1/upscalers",
    "/sdapi/v1/latent-upscale-modes",
    "/sdapi/v1/sd-vae",
    "/sdapi/v1/sd-modules",
    "/sdapi/v1/hypernetworks",
    "/sdapi/v1/loras",
    "/sdapi/v1/face-restorers",
    "/sdapi/v1/realesrgan-models",
    "/sdapi/v1/prompt-styles",
    "/sdapi/v1/embeddings",
    "/sdapi/v1/memory",
    "/sdapi/v1/scripts",
    "/sdapi/v1/cmd-flags",
    "/internal/ping",
    "/v1/models",
    "/prompt",
    "/history",
    "/queue",
    "/system_stats",
    "/features",
    "/embeddings",
    "/object_info",
    "/sdcpp/v1/capabilities",
];

fn row(method: &str, path: &str, mine: &Mine) -> Ask {
    let plain = |path: &str| Ask::Json(path.to_owned(), Value::Null);
    let comfy = path.strip_prefix("/api").unwrap_or(path);
    let own = json!({ "prompt": "a shop", "width": 64, "height": 64 });
    match (method, comfy) {
        ("POST", "/sdapi/v1/txt2img") => Ask::Json(path.into(), own),
        ("POST", "/sdapi/v1/img2img") => {
            Ask::Json(path.into(), json!({ "prompt": "a shop", "init_images": [data_url(&[3])] }))
        }
        ("POST", "/sdapi/v1/interrupt" | "/sdapi/v1/skip") => Ask::Json(path.into(), json!({})),
        ("POST", "/sdapi/v1/options") => Ask::Json(path.into(), json!({ "sd_vae": "strange" })),
        ("GET", route) if PLAIN.contains(&route) => plain(path),
        ("POST", "/v1/images/generations") => Ask::Json(path.into(), json!({ "prompt": "a shop" })),
        ("POST", "/v1/images/edits") => Ask::Form(json!({ "prompt": "a shop", "image": &mine.upload })),
        ("POST", "/v1/images/variations") => Ask::Form(json!({ "image": &mine.upload })),
        ("GET", "/v1/images/files/{name}") => plain(&mine.file),
        ("GET", "/v1/models/{model}") => plain(&path.replace("{model}", &mine.job)),
        ("POST", "/prompt") => {
            // A workflow that loads what the other has uploaded, under the other's id.
            let mut graph = workflow(1);
            graph["1"] = json!({ "class_type": "LoadImage", "inputs": { "image": &mine.upload } });
            Ask::Json(path.into(), json!({ "prompt": graph, "prompt_id": &mine.prompt, "client_id": "desk" }))
        }
        ("GET", "/history/{prompt_id}") => plain(&path.replace("{prompt_id}", &mine.prompt)),
        ("GET", "/view") => plain(&format!("{path}?{}", mine.view)),
        ("POST", "/queue") => Ask::Json(path.into(), json!({ "delete": [&mine.prompt], "clear": true })),
        ("POST", "/interrupt") => Ask::Json(path.into(), json!({ "prompt_id": &mine.prompt })),
        ("GET", "/ws") => Ask::Socket,
        ("GET", "/object_info/{class}") => plain(&path.replace("{class}", "LoadImage")),
        ("POST", "/upload/image") => Ask::Form(json!({ "image": &mine.upload, "overwrite": "true" })),
        ("POST", "/sdcpp/v1/img_gen") => Ask::Json(path.into(), json!({ "prompt": "a shop" })),
        ("GET", "/sdcpp/v1/jobs/{id}") => plain(&path.replace("{id}", &mine.job)),
        ("POST", "/sdcpp/v1/jobs/{id}/cancel") => Ask::Json(path.replace("{id}", &mine.job), json!({})),
        ("POST", "/v1/sessions") => Ask::Json(path.into(), json!({ "prompt": "a shop" })),
        ("DELETE", "/v1/sessions/{id}") => plain(&path.replace("{id}", &mine.session)),
        ("POST", "/v1/sessions/{id}/pictures/{member}/failure") => {
            let path = path.replace("{id}", &mine.session).replace("{member}", "0");
            Ask::Json(path, json!({ "why": "it is a stranger's" }))
        }
        ("POST", "/v1/sessions/{id}/pictures/{member}" | "/v1/sessions/{id}/pictures/{member}/preview") => {
            let path = path.replace("{id}", &mine.session).replace("{member}", "0");
            Ask::Picture(format!("{path}?step=1&total=2"))
        }
        ("POST", "/v1/judge") => {
            Ask::Json(path.into(), json!({ "image": data_url(&[3]), "request_id": &mine.prompt }))
        }
        ("POST", "/v1/moderations") => Ask::Json(
            path.into(),
            json!({ "input": [{ "type": "image_url", "image_url": { "url": data_url(&[3]) } }] }),
        ),
        ("POST", "/beta/litellm_basic_guardrail_api") => Ask::Json(
            path.into(),
            json!({ "input_type": "request", "images": [data_url(&[3])], "litellm_call_id": &mine.prompt }),
        ),
        _ => panic!(
            "{method} {path} is a new route: say in this table how another tenant would ask it for what is not theirs"
        ),
    }
}

/// Has `t` draw, upload and keep something through every front that keeps anything.
async fn prepare(gateway: &Gateway) -> Mine {
    let client = gateway.client();
    let url = |path: &str| format!("{}{path}", gateway.url);
    let answer =
        client.post(url("/sdcpp/v1/img_gen")).json(&json!({ "prompt": SECRET })).send().await.unwrap();
    let job: Value = answer.json().await.unwrap();
    let job = job["id"].as_str().unwrap().to_owned();
    let mut graph = workflow(1);
    graph["6"]["inputs"]["text"] = SECRET.into();
    let answer = client
        .post(url("/prompt"))
        .json(&json!({ "prompt": graph, "client_id": "desk" }))
        .send()
        .await
        .unwrap();
    let prompt: Value = answer.json().await.unwrap();
    let prompt = prompt["prompt_id"].as_str().unwrap().to_owned();
    let entry = within(async {
        loop {
            let history = client.get(url(&format!("/history/{prompt}"))).send().await.unwrap();
            let history: Value = history.json().await.unwrap();
            if history[&prompt]["outputs"]["9"]["images"].is_array() {
                break history[&prompt].clone();
            }
        }
    })
    .await;
    let image = &entry["outputs"]["9"]["images"][0];
    let word = |name: &str| image[name].as_str().unwrap();
    let view = format!("filename={}&subfolder={}&type={}", word("filename"), word("subfolder"), word("type"));
    let asked = json!({ "prompt": SECRET, "response_format": "url" });
    let answer = client.post(url("/v1/images/generations")).json(&asked).send().await.unwrap();
    let drawn: Value = answer.json().await.unwrap();
    let file = drawn["data"][0]["url"].as_str().unwrap().replace(&gateway.url, "");
    let form = reqwest::multipart::Form::new().part(
        "image",
        reqwest::multipart::Part::bytes(crate::support::png(&picture(&[3], 77))).file_name("mine.png"),
    );
    let answer = client.post(url("/upload/image")).multipart(form).send().await.unwrap();
    let upload: Value = answer.json().await.unwrap();
    let upload = upload["name"].as_str().unwrap().to_owned();
    within(async {
        loop {
            let job: Value =
                client.get(url(&format!("/sdcpp/v1/jobs/{job}"))).send().await.unwrap().json().await.unwrap();
            if job["status"] == "completed" {
                break;
            }
        }
    })
    .await;
    let decisions = gateway.log.records().iter().map(|record| record.decision_id.clone()).collect();
    let opened = client.post(url("/v1/sessions")).json(&json!({ "prompt": SECRET })).send().await.unwrap();
    let opened: Value = opened.json().await.unwrap();
    let session = opened["id"].as_str().unwrap().to_owned();
    Mine { job, prompt, view, file, upload, session, decisions }
}

/// What another tenant's question brings.
async fn ask(gateway: &Gateway, method: &str, path: &str, mine: &Mine) -> (StatusCode, String) {
    let client = gateway.other_client();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let asked = match row(method.as_str(), path, mine) {
        Ask::Json(path, Value::Null) => client.request(method, format!("{}{path}", gateway.url)),
        Ask::Json(path, body) => client.request(method, format!("{}{path}", gateway.url)).json(&body),
        Ask::Picture(path) => {
            let picture = crate::support::png(&picture(&[3], 5));
            client
                .request(method, format!("{}{path}", gateway.url))
                .header("content-type", "image/png")
                .body(picture)
        }
        Ask::Form(fields) => {
            let mut form = reqwest::multipart::Form::new();
            for (name, value) in fields.as_object().unwrap() {
                let value = value.as_str().unwrap().to_owned();
                form = match name.as_str() {
                    "image" => {
                        let bytes = crate::support::png(&picture(&[3], 5));
                        form.part("image", reqwest::multipart::Part::bytes(bytes).file_name(value))
                    }
                    _ => form.text(name.clone(), value),
                };
            }
            client.request(method, format!("{}{path}", gateway.url)).multipart(form)
        }
        Ask::Socket => {
            let upgrade = client.get(format!("{}{path}?clientId=desk", gateway.url));
            let upgrade = upgrade.header("connection", "upgrade").header("upgrade", "websocket");
            let upgrade = upgrade
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
            // Its events are the tests' of ComfyUI; here it is that it opens, and says nothing of the other's.
            return (upgrade.send().await.unwrap().status(), String::new());
        }
    };
    let answer = asked.send().await.unwrap();
    (answer.status(), String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned())
}

#[tokio::test]
async fn no_route_shows_or_touches_what_is_another_tenants() {
    let upstream = Some(Scripted::new(|order, index| {
        Drawn::Picture(picture(&[3], order.seed.wrapping_add(u64::from(index)) as u8))
    }) as _);
    let gateway = Gateway::start(Setup { upstream, ..Setup::default() }).await;
    let mine = prepare(&gateway).await;
    let document: Value = gateway
        .client()
        .get(format!("{}/openapi.json", gateway.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let open = ["/healthz", "/readyz", "/openapi.json"];
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if open.contains(&path.as_str()) {
            continue;
        }
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "put", "delete"].contains(&key.as_str()))
        {
            let (status, body) = ask(&gateway, &method.to_uppercase(), path, &mine).await;
            assert!(!status.is_server_error(), "{method} {path}: {status} {body}");
            assert!(!body.contains(SECRET), "{method} {path}: {body}");
            for decision in &mine.decisions {
                assert!(
                    !body.contains(decision),
                    "{method} {path} tells of another tenant's decision: {body}"
                );
            }
            let guesses = ["{name}", "{id}", "{model}", "/view"];
            if guesses.iter().any(|guess| path.contains(guess)) {
                assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}: {body}");
            }
            if path.ends_with("{prompt_id}") {
                assert_eq!(body, "{}", "{method} {path}");
            }
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
    // All of it is where it was, for whoever it belongs to.
    let client = gateway.client();
    for path in [mine.file.clone(), format!("/view?{}", mine.view), format!("/sdcpp/v1/jobs/{}", mine.job)] {
        let found = client.get(format!("{}{path}", gateway.url)).send().await.unwrap();
        assert_eq!(found.status(), StatusCode::OK, "{path}");
    }
    let closed = client.delete(format!("{}/v1/sessions/{}", gateway.url, mine.session)).send().await.unwrap();
    assert_eq!(closed.status(), StatusCode::OK);
    let history = client.get(format!("{}/history/{}", gateway.url, mine.prompt)).send().await.unwrap();
    assert!(history.text().await.unwrap().contains(SECRET));
}
