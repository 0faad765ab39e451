//! The ComfyUI front end, over an upstream that is none.

use std::sync::Arc;

use cluegate_gate::fakes::{picture, shows};
use cluegate_server::{Dialect, Source};
use futures_util::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{Drawn, Gateway, Scripted, Setup, png};

/// A client of the tenant `t`.
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Frames that were no events.
    pub(crate) frames: Vec<Vec<u8>>,
}

impl Client {
    /// Opens the WebSocket `desk`, and hears the first status.
    pub(crate) async fn open(gateway: &Gateway) -> Self {
        let address = format!("{}/ws?clientId=desk", gateway.url.replace("http", "ws"));
        let mut request = address.into_client_request().unwrap();
        let key = format!("Bearer {}", gateway.key.reveal()).parse().unwrap();
        request.headers_mut().insert("authorization", key);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let mut client =
            Self { http: gateway.client(), url: gateway.url.clone(), socket, frames: Vec::new() };
        let status = client.event().await;
        assert_eq!(
            status["data"],
            json!({ "status": { "exec_info": { "queue_remaining": 0 } }, "sid": "desk" })
        );
        client
    }

    pub(crate) async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub(crate) async fn event(&mut self) -> Value {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Binary(frame) => self.frames.push(frame.to_vec()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// All events until the prompt has ended, by type, without those about the queue.
    pub(crate) async fn events(&mut self, prompt_id: &str) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        loop {
            let event = self.event().await;
            let (kind, data) = (event["type"].as_str().unwrap().to_owned(), event["data"].clone());
            if kind == "status" {
                continue;
            }
            assert_eq!(data["prompt_id"], prompt_id, "{kind}");
            let last = kind == "executing" && data["node"].is_null();
            events.push((kind, data));
            if last {
                return events;
            }
        }
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let response =
            self.http.post(format!("{}{path}", self.url)).body(body.to_string()).send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or_default())
    }

    /// Queues a workflow, which must be taken; returns the id.
    pub(crate) async fn queue(&self, workflow: &Value) -> String {
        let (status, answer) = self.post("/prompt", json!({ "prompt": workflow, "client_id": "desk" })).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["node_errors"], json!({}));
        answer["prompt_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub(crate) async fn entry(&self, prompt_id: &str) -> Value {
        let history: Value = self.get(&format!("/api/history/{prompt_id}")).await.json().await.unwrap();
        history[prompt_id].clone()
    }

    pub(crate) async fn view(&self, image: &Value) -> reqwest::Response {
        let word = |name: &str| image[name].as_str().unwrap();
        let (name, folder, kind) = (word("filename"), word("subfolder"), word("type"));
        self.get(&format!("/view?filename={name}&subfolder={folder}&type={kind}")).await
    }
}

/// The workflow of `script_examples/websockets_api_example.py`.
pub(crate) fn workflow(batch: u32) -> Value {
    json!({
        "3": { "class_type": "KSampler", "inputs": {
            "cfg": 8, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0],
            "sampler_name": "euler", "scheduler": "normal", "seed": 8566257_u64, "steps": 20 } },
        "4": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "v1-5.ckpt" } },
        "5": { "class_type": "EmptyLatentImage", "inputs": { "batch_size": batch, "height": 64, "width": 64 } },
        "6": { "class_type": "CLIPTextEncode", "inputs": { "clip": ["4", 1], "text": "a man" } },
        "7": { "class_type": "CLIPTextEncode", "inputs": { "clip": ["4", 1], "text": "bad hands" } },
        "8": { "class_type": "VAEDecode", "inputs": { "samples": ["3", 0], "vae": ["4", 2] } },
        "9": { "class_type": "SaveImage", "inputs": { "filename_prefix": "../ComfyUI", "images": ["8", 0] },
            "_meta": { "title": "out" } },
    })
}

pub(crate) fn pixels(bytes: &[u8]) -> image::RgbImage {
    image::load_from_memory(bytes).unwrap().to_rgb8()
}

fn kinds(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(kind, _)| kind.as_str()).collect()
}

/// Shows a sword where `bad` says so.
fn artist(bad: impl Fn(u32) -> bool + Send + Sync + 'static) -> Arc<Scripted> {
    Scripted::new(move |order, index| {
        let objects: &[usize] = if bad(order.first + index) { &[2] } else { &[] };
        Drawn::Picture(picture(objects, (order.first + index) as u8))
    })
}

#[tokio::test]
async fn a_batch_comes_back_in_comfyuis_words_without_its_bad_picture() {
    let upstream = artist(|member| member == 1);
    let head = "placeholder = \"none\"";
    let gateway = Gateway::start(Setup { head, upstream: Some(upstream.clone()), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(3)).await;
    let events = client.events(&id).await;
    let told: Vec<&str> = kinds(&events).into_iter().filter(|kind| *kind != "progress").collect();
    let expected = [
        "execution_start",
        "execution_cached",
        "executing",
        "executing",
        "executed",
        "execution_success",
        "executing",
    ];
    assert_eq!(told, expected);
    let (request, first) = {
        let orders = upstream.orders.lock().unwrap();
        ((*orders[0].request).clone(), (orders[0].first, orders[0].count, orders[0].seed))
    };
    assert_eq!(first, (0, 3, 8566257));
    assert_eq!((request.prompt.as_str(), request.negative_prompt.as_deref()), ("a man", Some("bad hands")));
    assert_eq!((request.size, request.steps, request.guidance), (Some((64, 64)), Some(20), Some(8.0)));
    assert_eq!((request.sampler.as_deref(), request.scheduler.as_deref()), (Some("euler"), Some("normal")));
    assert_eq!((request.model.as_deref(), request.native), (Some("v1-5.ckpt"), None));

    let entry = client.entry(&id).await;
    assert_eq!(
        (&entry["prompt"][1], &entry["prompt"][2], &entry["prompt"][4]),
        (&json!(id), &workflow(3), &json!(["9"]))
    );
    assert_eq!(
        (&entry["status"]["status_str"], &entry["status"]["completed"]),
        (&json!("success"), &json!(true))
    );
    let told = entry["status"]["cluegate"]["pictures"].as_array().unwrap();
    let outcomes: Vec<&str> = told.iter().map(|report| report["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["released", "withheld", "released"]);
    assert_eq!(
        (&told[1]["filename"], &told[1]["reason"], &told[1]["evidence"]),
        (&Value::Null, &json!("violation"), &Value::Null)
    );
    let images = entry["outputs"]["9"]["images"].as_array().unwrap().clone();
    assert_eq!(images.len(), 2);
    for (image, member) in images.iter().zip([0, 2]) {
        let response = client.view(image).await;
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"image/png".parse().unwrap())
        );
        assert!(response.headers()["x-cluegate-decision"].to_str().unwrap().contains("outcome=released"));
        assert_eq!(&pixels(&response.bytes().await.unwrap()), picture(&[], member).pixels());
    }
    // Another tenant finds nothing, and neither do tricks.
    let stranger = gateway.other_client();
    let name = images[0]["filename"].as_str().unwrap();
    for path in
        [format!("/view?filename={name}&type=output"), format!("/history/{id}"), "/history".to_owned()]
    {
        let response = stranger.get(format!("{}{path}", gateway.url)).send().await.unwrap();
        let found = response.status();
        let body = response.bytes().await.unwrap();
        assert!(found == StatusCode::NOT_FOUND || &body[..] == b"{}", "{path}: {found}");
    }
    for query in [
        format!("filename=../{name}"),
        format!("filename={name}&subfolder=.."),
        format!("filename={name}&type=temp"),
        format!("filename={name}&channel=a"),
        "filename=%2fetc%2fpasswd".to_owned(),
        String::new(),
    ] {
        let status = client.get(&format!("/view?{query}")).await.status();
        assert!(status.is_client_error(), "{query}: {status}");
    }
    // A server that stops says goodbye.
    drop(gateway);
    while !matches!(client.socket.next().await, Some(Ok(Message::Close(_)))) {}
}

#[tokio::test]
async fn what_is_not_the_standard_workflow_is_refused_by_node() {
    let upstream = artist(|_| false);
    let gateway = Gateway::start(Setup { upstream: Some(upstream.clone()), ..Setup::default() }).await;
    let client = Client::open(&gateway).await;
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut workflow = workflow(1);
        change(&mut workflow);
        let (status, answer) = client.post("/prompt", json!({ "prompt": workflow })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"]["message"].is_string() && answer["error"]["details"].is_string(), "{answer}");
        let named = answer["node_errors"].as_object().unwrap();
        let first = named.iter().next().map(|(id, errors)| (id.clone(), errors["errors"][0]["type"].clone()));
        first.unwrap_or_else(|| (String::new(), answer["error"]["type"].clone()))
    };
    let named = |node: &str, kind: &str| (node.to_owned(), json!(kind));
    assert_eq!(refused(&|w| w["10"] = w["9"].clone()).await, named("", "prompt_not_supported"));
    let extra = json!({ "class_type": "RunPython", "inputs": { "code": "1" } });
    assert_eq!(refused(&|w| w["10"] = extra.clone()).await, named("10", "prompt_not_supported"));
    assert_eq!(
        refused(&|w| w["3"]["class_type"] = json!("KSamplerAdvanced")).await,
        named("8", "value_not_supported")
    );
    assert_eq!(
        refused(&|w| w["3"]["inputs"]["denoise"] = json!(0.5)).await,
        named("3", "value_not_supported")
    );
    assert_eq!(refused(&|w| w["3"]["inputs"]["seed"] = json!(-1)).await, named("3", "value_not_supported"));
    assert_eq!(refused(&|w| w["3"]["inputs"]["eta"] = json!(1)).await, named("3", "value_not_supported"));
    assert_eq!(
        refused(&|w| w["8"]["inputs"]["vae"] = json!(["4", 1])).await,
        named("8", "value_not_supported")
    );
    assert_eq!(
        refused(&|w| w["6"]["inputs"]["clip"] = json!(["x", 1])).await,
        named("6", "bad_linked_input")
    );
    assert_eq!(refused(&|w| *w = json!({})).await, named("", "invalid_prompt"));
    let (status, answer) = client.post("/prompt", json!({})).await;
    assert_eq!((status, &answer["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("no_prompt")));
    let (status, answer) = client.post("/prompt", json!([])).await;
    assert_eq!((status, &answer["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    for prompt_id in [json!("../x"), json!(3), json!("0191B2C3-0000-7000-8000-000000000000")] {
        let (status, answer) =
            client.post("/prompt", json!({ "prompt": workflow(1), "prompt_id": prompt_id })).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_prompt_id"))
        );
    }
    assert!(upstream.orders.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_prompt_of_which_nothing_may_be_shown_ends_as_an_error() {
    let head = "placeholder = \"none\"";
    let gateway = Gateway::start(Setup { head, upstream: Some(artist(|_| true)), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(1)).await;
    let events = client.events(&id).await;
    let (kind, data) = &events[events.len() - 2];
    assert_eq!((kind.as_str(), &data["exception_type"]), ("execution_error", &json!("cluegate.withheld")));
    assert_eq!(data["exception_message"], "the picture is against the policy and was withheld");
    let entry = client.entry(&id).await;
    assert_eq!(
        (&entry["outputs"]["9"]["images"], &entry["status"]["status_str"]),
        (&json!([]), &json!("error"))
    );
    let response = client.get(&format!("/history/{id}")).await;
    assert!(
        response.headers()["x-cluegate-decision"]
            .to_str()
            .unwrap()
            .contains("outcome=withheld;reason=violation")
    );
}

#[tokio::test]
async fn what_stands_in_for_a_withheld_picture_is_a_file_where_the_policy_wants_it() {
    let head = "placeholder = \"picture\"";
    let gateway = Gateway::start(Setup { head, upstream: Some(artist(|_| true)), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(1)).await;
    client.events(&id).await;
    let entry = client.entry(&id).await;
    let response = client.view(&entry["outputs"]["9"]["images"][0]).await;
    assert!(response.headers()["x-cluegate-decision"].to_str().unwrap().contains("outcome=withheld"));
    assert!(!shows(&pixels(&response.bytes().await.unwrap()), 2));
    assert_eq!(entry["status"]["cluegate"]["pictures"][0]["outcome"], "withheld");
}

#[tokio::test]
async fn a_generator_that_fails_is_an_error_of_another_kind() {
    let upstream = Scripted::new(|_, _| Drawn::Failed("out of memory"));
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(1)).await;
    let events = client.events(&id).await;
    assert_eq!(events[events.len() - 2].1["exception_type"], "cluegate.upstream_failed");
    assert_eq!(client.entry(&id).await["status"]["cluegate"]["error"], "upstream_failed");
}

#[tokio::test]
async fn a_tenant_interrupts_its_own_prompt_and_no_other() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let config_tables = "[limits]\nin_work = 1\n".to_owned();
    let gateway = Gateway::start(Setup { upstream: Some(upstream), config_tables, ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = "0191b2c3-0000-7000-8000-000000000000";
    let (status, answer) =
        client.post("/prompt", json!({ "prompt": workflow(1), "client_id": "desk", "prompt_id": id })).await;
    assert_eq!((status, &answer["prompt_id"]), (StatusCode::OK, &json!(id)));
    let (status, _) = client.post("/prompt", json!({ "prompt": workflow(1), "prompt_id": id })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    while client.event().await["type"] != "execution_start" {}
    // There is one place: a second prompt waits.
    let second = client.queue(&workflow(1)).await;
    let queue: Value = client.get("/queue").await.json().await.unwrap();
    assert_eq!((&queue["queue_running"][0][1], &queue["queue_pending"][0][1]), (&json!(id), &json!(second)));
    let stranger = gateway.other_client();
    let ask = |path: &str, body: Value| {
        stranger.post(format!("{}{path}", gateway.url)).body(body.to_string()).send()
    };
    for (path, body) in [
        ("/interrupt", json!({ "prompt_id": id })),
        ("/interrupt", json!({})),
        ("/queue", json!({ "delete": [second] })),
        ("/queue", json!({ "clear": true })),
    ] {
        assert_eq!(ask(path, body).await.unwrap().status(), StatusCode::OK);
    }
    let theirs: Value =
        stranger.get(format!("{}/queue", gateway.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!(theirs, json!({ "queue_running": [], "queue_pending": [] }));
    let counts: Value = client.get("/prompt").await.json().await.unwrap();
    assert_eq!(counts["exec_info"]["queue_remaining"], 2);
    assert_eq!(client.post("/queue", json!({ "delete": [second] })).await.0, StatusCode::OK);
    while client.event().await["type"] != "execution_interrupted" {}
    assert_eq!(client.entry(&second).await["status"]["messages"][0][0], "execution_interrupted");
    // An id that waits no more, or another's, interrupts nothing.
    assert_eq!(client.post("/interrupt", json!({ "prompt_id": second })).await.0, StatusCode::OK);
    assert_eq!(client.post("/interrupt", json!({ "client_id": "nobody" })).await.0, StatusCode::OK);
    let counts: Value = client.get("/prompt").await.json().await.unwrap();
    assert_eq!(counts["exec_info"]["queue_remaining"], 1);
    assert_eq!(client.post("/api/interrupt", json!({ "prompt_id": id })).await.0, StatusCode::OK);
    while client.event().await["type"] != "execution_interrupted" {}
    while client.event().await["data"]["node"] != Value::Null {}
    let entry = client.entry(id).await;
    assert_eq!(
        (&entry["status"]["status_str"], &entry["status"]["cluegate"]["pictures"][0]["reason"]),
        (&json!("error"), &json!("cancelled"))
    );
}

#[tokio::test]
async fn an_upload_is_its_tenants_and_only_to_start_from() {
    let upstream = artist(|_| false);
    let gateway = Gateway::start(Setup { upstream: Some(upstream.clone()), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let file = png(&picture(&[], 9));
    let upload = |http: &reqwest::Client, file: Vec<u8>, folder: &str| {
        let part = reqwest::multipart::Part::bytes(file).file_name("../../x.png");
        let form = reqwest::multipart::Form::new().part("image", part).text("type", folder.to_owned());
        http.post(format!("{}/upload/image", gateway.url)).multipart(form.text("subfolder", "..")).send()
    };
    let answer: Value = upload(&client.http, file.clone(), "input").await.unwrap().json().await.unwrap();
    let name = answer["name"].as_str().unwrap().to_owned();
    assert_eq!((&answer["subfolder"], &answer["type"], name.len()), (&json!(""), &json!("input"), 40));
    assert_eq!(
        upload(&client.http, b"GIF89a....".to_vec(), "input").await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(upload(&client.http, file.clone(), "output").await.unwrap().status(), StatusCode::BAD_REQUEST);
    let mut from_picture = workflow(1);
    from_picture["5"] =
        json!({ "class_type": "VAEEncode", "inputs": { "pixels": ["10", 0], "vae": ["4", 2] } });
    from_picture["10"] =
        json!({ "class_type": "LoadImage", "inputs": { "image": format!("sub/{name} [input]") } });
    from_picture["3"]["inputs"]["denoise"] = json!(0.5);
    let id = client.queue(&from_picture).await;
    client.events(&id).await;
    let request = Arc::clone(&upstream.orders.lock().unwrap()[0].request);
    let source = Source { pictures: vec![file.into()], mask: None, strength: Some(0.5) };
    assert_eq!((request.source.clone(), request.size), (Some(source), None));
    // Not another's, not a name of the server's, and not to be looked at.
    let body = json!({ "prompt": from_picture }).to_string();
    let theirs =
        gateway.other_client().post(format!("{}/prompt", gateway.url)).body(body).send().await.unwrap();
    assert_eq!(theirs.status(), StatusCode::BAD_REQUEST);
    let answer: Value = theirs.json().await.unwrap();
    assert_eq!(answer["node_errors"]["10"]["errors"][0]["type"], "custom_validation_failed");
    for kind in ["input", "output", "temp"] {
        let status = client.get(&format!("/view?filename={name}&type={kind}")).await.status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{kind}");
    }
}

#[tokio::test]
async fn a_client_learns_what_there_is_and_nothing_of_the_machine() {
    let gateway = Gateway::start(Setup { upstream: Some(artist(|_| false)), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    client.say(json!({ "type": "feature_flags", "data": {} })).await;
    let flags = client.event().await;
    assert_eq!(
        (&flags["type"], &flags["data"]["supports_preview_metadata"]),
        (&json!("feature_flags"), &json!(true))
    );
    let features: Value = client.get("/api/features").await.json().await.unwrap();
    assert_eq!(features, flags["data"]);
    let stats: Value = client.get("/system_stats").await.json().await.unwrap();
    assert_eq!((&stats["system"]["argv"], &stats["devices"]), (&json!([]), &json!([])));
    let classes: Value = client.get("/object_info").await.json().await.unwrap();
    assert_eq!(classes["KSampler"]["output"], json!(["LATENT"]));
    let class: Value = client.get("/api/object_info/SaveImage").await.json().await.unwrap();
    assert_eq!(class, json!({ "SaveImage": classes["SaveImage"] }));
    let embeddings: Value = client.get("/embeddings").await.json().await.unwrap();
    assert_eq!(embeddings, json!([]));
    for path in [
        "/free",
        "/api/jobs",
        "/internal/logs",
        "/models/checkpoints",
        "/userdata",
        "/view_metadata/x",
        "/upload/mask",
    ] {
        assert_eq!(client.get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    // Pages of other sites, and those without a key.
    for origin in ["http://evil.example", "null", ""] {
        let request = client.http.post(format!("{}/prompt", gateway.url)).header("origin", origin);
        let refused = request.body(json!({ "prompt": workflow(1) }).to_string()).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{origin}");
    }
    let socket = tokio_tungstenite::connect_async(format!("{}/ws", gateway.url.replace("http", "ws"))).await;
    assert!(socket.unwrap_err().to_string().contains("401"));
    assert_eq!(client.get("/ws").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(Dialect::ComfyUi.as_str(), "comfyui");
}

#[tokio::test]
async fn a_tenant_has_so_many_sockets_and_the_same_client_one() {
    let config_tables = "[comfyui]\nsockets = 1\n".to_owned();
    let gateway =
        Gateway::start(Setup { upstream: Some(artist(|_| false)), config_tables, ..Setup::default() }).await;
    let mut first = Client::open(&gateway).await;
    // The same client comes again: the old socket closes.
    let mut second = Client::open(&gateway).await;
    while !matches!(first.socket.next().await, None | Some(Ok(Message::Close(_)) | Err(_))) {}
    let mut request =
        format!("{}/ws?clientId=b", gateway.url.replace("http", "ws")).into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", gateway.key.reveal().parse().unwrap());
    assert!(tokio_tungstenite::connect_async(request).await.unwrap_err().to_string().contains("429"));
    let id = second.queue(&workflow(1)).await;
    assert_eq!(second.events(&id).await.last().unwrap().1["node"], Value::Null);
    // What is far too long is not listened to.
    second.say(json!("x".repeat(70_000))).await;
    while !matches!(second.socket.next().await, None | Some(Ok(Message::Close(_)) | Err(_))) {}
}

#[tokio::test]
async fn a_history_that_is_too_large_for_one_answer_shows_the_newest() {
    let gateway = Gateway::start(Setup { upstream: Some(artist(|_| false)), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let mut large = workflow(1);
    large["9"]["_meta"]["title"] = json!("t".repeat(9 << 20));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = client.queue(&large).await;
        client.events(&id).await;
        ids.push(id);
    }
    let history: Value = client.get("/history").await.json().await.unwrap();
    let told: Vec<&String> = history.as_object().unwrap().keys().collect();
    assert_eq!(told, [&ids[1]]);
    let older: Value = client.get("/history?max_items=1&offset=0").await.json().await.unwrap();
    assert_eq!(older.as_object().unwrap().keys().collect::<Vec<_>>(), [&ids[0]]);
}

#[tokio::test]
async fn an_open_socket_hears_the_end_of_its_prompt_while_the_server_stops() {
    let go_on = tokio_util::sync::CancellationToken::new();
    let upstream = Scripted::gated(go_on.clone(), |_, index| Drawn::Picture(picture(&[], index as u8)));
    let orders = Arc::clone(&upstream);
    let mut gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(1)).await;
    crate::support::found(|| (orders.orders.lock().unwrap().len() == 1).then_some(())).await;
    gateway.stop();
    crate::support::logged("stopping: no further request is taken").await;
    go_on.cancel();
    let events = crate::support::within(client.events(&id)).await;
    assert!(kinds(&events).contains(&"execution_success"), "{events:?}");
    let closed = crate::support::within(async {
        loop {
            match client.socket.next().await {
                None | Some(Err(_)) => break false,
                Some(Ok(Message::Close(_))) => break true,
                Some(Ok(_)) => {}
            }
        }
    });
    assert!(closed.await, "the connection broke without a word");
    gateway.stopped().await;
}
