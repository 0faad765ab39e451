//! The A1111 front over scripted upstreams.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{picture, shows};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::a1111_server::soon;
use crate::support::{Drawn, Gateway, Scripted, Setup, png};

const SWORD: usize = 2;

async fn post(gateway: &Gateway, path: &str, body: &Value) -> (StatusCode, Value) {
    let sent = gateway.client().post(format!("{}{path}", gateway.url)).json(body).send().await.unwrap();
    (sent.status(), sent.json().await.unwrap())
}

async fn get(client: &reqwest::Client, gateway: &Gateway, path: &str) -> Value {
    client.get(format!("{}{path}", gateway.url)).send().await.unwrap().json().await.unwrap()
}

fn info(reply: &Value) -> Value {
    serde_json::from_str(reply["info"].as_str().unwrap()).unwrap()
}

fn shows_sword(base64: &Value) -> bool {
    let bytes = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    shows(&image::load_from_memory(&bytes).unwrap().to_rgb8(), SWORD)
}

/// The second of four pictures shows a sword, and the third is no picture.
fn mixed(_: &cluegate_server::Order, index: u32) -> Drawn {
    match index {
        1 => Drawn::Picture(picture(&[SWORD], 1)),
        2 => Drawn::Failed("out of memory"),
        salt => Drawn::Bytes(png(&picture(&[], salt as u8))),
    }
}

#[tokio::test]
async fn a_bad_picture_costs_only_itself_and_the_answer_says_why() {
    let setup = Setup { upstream: Some(Scripted::new(mixed)), ..Setup::default() };
    let gateway = Gateway::start(setup).await;
    let body = json!({ "prompt": "four", "seed": 40, "batch_size": 2, "n_iter": 2, "steps": 9 });
    let sent =
        gateway.client().post(format!("{}/sdapi/v1/txt2img", gateway.url)).json(&body).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
    let header = sent.headers()["x-cluegate-decision"].to_str().unwrap().to_owned();
    let text = sent.text().await.unwrap();
    assert!(!text.contains("secret prompt of the upstream"));
    let reply: Value = serde_json::from_str(&text).unwrap();
    let (images, info) = (reply["images"].as_array().unwrap().clone(), info(&reply));
    assert_eq!(images.len(), 4);
    assert!(!images.iter().any(shows_sword));
    let told = |name: &str| {
        info["cluegate"]["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|told| told[name].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("outcome"), ["released", "withheld", "withheld", "released"]);
    assert_eq!(told("reason"), ["safe", "violation", "generator-failure", "safe"]);
    assert_eq!(told("placeholder"), [json!(false), json!(true), json!(true), json!(false)]);
    assert_eq!(told("image"), [0, 1, 2, 3]);
    // Evidence is not this tenant's to see.
    assert_eq!(told("evidence"), vec![Value::Null; 4]);
    assert_eq!((&info["all_seeds"], &info["index_of_first_image"]), (&json!([40, 41, 42, 43]), &json!(0)));
    assert!(info["infotexts"][1].as_str().unwrap().starts_with("four\nSteps: 9, Seed: 41"));
    assert_eq!(
        (reply["parameters"]["batch_size"].clone(), header.matches("outcome=").count()),
        (json!(2), 4)
    );
    for id in told("decision_id") {
        assert!(header.contains(id.as_str().unwrap()));
    }
}

#[tokio::test]
async fn without_placeholders_every_picture_keeps_its_place_in_the_report() {
    let setup = Setup {
        head: "placeholder = \"none\"",
        tables: "[tenant.t.client]\nevidence = true",
        upstream: Some(Scripted::new(mixed)),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    let (status, reply) = post(&gateway, "/sdapi/v1/txt2img", &json!({ "seed": 40, "batch_size": 4 })).await;
    let info = info(&reply);
    assert_eq!((status, reply["images"].as_array().unwrap().len()), (StatusCode::OK, 2));
    assert_eq!(info["all_seeds"], json!([40, 43]));
    let told = &info["cluegate"]["pictures"];
    assert_eq!(
        (&told[0]["image"], &told[1]["image"], &told[3]["image"]),
        (&json!(0), &Value::Null, &json!(1))
    );
    assert_eq!(told[1]["violated"], json!(["sword"]));
    assert!(!told[1]["evidence"].is_null());
}

#[tokio::test]
async fn what_does_not_pass_is_refused_in_the_web_uis_words() {
    let upstream = Scripted::new(|_, _| Drawn::Picture(picture(&[], 0)));
    let gateway = Gateway::start(Setup { upstream: Some(upstream.clone()), ..Setup::default() }).await;
    for (path, body, named) in [
        ("/sdapi/v1/txt2img", json!({ "save_images": true }), "save_images"),
        ("/sdapi/v1/txt2img", json!({ "script_name": "X/Y/Z plot" }), "script_name"),
        ("/sdapi/v1/txt2img", json!({ "alwayson_scripts": { "Reactor": { "args": [] } } }), "Reactor"),
        ("/sdapi/v1/txt2img", json!({ "override_settings": { "outdir_samples": "/" } }), "outdir_samples"),
        (
            "/sdapi/v1/txt2img",
            json!({ "prompt": "<sd_cpp_extra_args>{}</sd_cpp_extra_args>" }),
            "sd_cpp_extra_args",
        ),
        ("/sdapi/v1/txt2img", json!({ "outpath_grids": "/" }), "outpath_grids"),
        ("/sdapi/v1/txt2img", json!([]), "JSON object"),
        ("/sdapi/v1/img2img", json!({ "init_images": ["http://127.0.0.1/x.png"] }), "init_images"),
        (
            "/sdapi/v1/img2img",
            json!({ "init_images": ["YQ=="], "include_init_images": true }),
            "include_init_images",
        ),
        ("/sdapi/v1/options", json!({ "outdir_samples": "/" }), "outdir_samples"),
        ("/sdapi/v1/options", json!({ "sd_vae": ["x"] }), "sd_vae"),
    ] {
        let (status, reply) = post(&gateway, path, &body).await;
        assert_eq!(
            (status, &reply["error"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("bad_request")),
            "{body}"
        );
        assert!(reply["detail"].as_str().unwrap().contains(named), "{body}: {reply}");
        assert_eq!((&reply["body"], &reply["errors"]), (&json!(""), &reply["detail"]));
    }
    assert!(upstream.orders.lock().unwrap().is_empty());
    for path in [
        "/sdapi/v1/extra-single-image",
        "/sdapi/v1/png-info",
        "/sdapi/v1/server-kill",
        "/sdapi/v1/refresh-checkpoints",
    ] {
        assert_eq!(post(&gateway, path, &json!({})).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let nobody =
        reqwest::Client::new().get(format!("{}/sdapi/v1/sd-models", gateway.url)).send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(nobody.headers()["www-authenticate"], "Basic");
}

#[tokio::test]
async fn what_clients_send_by_habit_needs_no_web_ui() {
    let upstream = Scripted::new(|_, _| Drawn::Picture(picture(&[], 0)));
    let setup = Setup {
        upstream: Some(upstream.clone()),
        config_tables: "[a1111.fixed]\nsteps = 4\nsampler_name = \"\"\nsampler_index = \"\"".to_owned(),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    let habit = json!({
        "prompt": "a cat", "negative_prompt": "", "seed": -1, "steps": 150, "cfg_scale": 7.0, "width": 64, "height": 64,
        "enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_prompt": "", "denoising_strength": 0.7,
        "styles": [], "subseed": -1, "subseed_strength": 0.0, "eta": 1.0, "s_noise": 1, "sampler_name": "Euler a",
        "sampler_index": "Euler a", "scheduler": "automatic", "script_args": [], "script_name": null,
        "send_images": true, "save_images": false, "alwayson_scripts": {}, "override_settings": {},
    });
    assert_eq!(post(&gateway, "/sdapi/v1/txt2img", &habit).await.0, StatusCode::OK);
    let order = upstream.orders.lock().unwrap()[0].clone();
    assert!(order.request.native.as_ref().is_none_or(|native| native.parameters.is_empty()));
    assert_eq!(
        (order.request.steps, order.request.sampler.as_deref(), order.request.size),
        (Some(4), None, Some((64, 64)))
    );
    // Without a web UI behind there is nothing to list, and clients start all the same.
    for (path, expected) in [
        ("/sdapi/v1/sd-models", json!([])),
        ("/sdapi/v1/cmd-flags", json!({})),
        ("/sdapi/v1/scripts", json!({ "txt2img": [], "img2img": [] })),
        ("/sdapi/v1/embeddings", json!({ "loaded": {}, "skipped": {} })),
        ("/sdapi/v1/options", json!({})),
        ("/internal/ping", json!({})),
    ] {
        assert_eq!(get(&gateway.client(), &gateway, path).await, expected, "{path}");
    }
}

#[tokio::test]
async fn options_are_the_tenants_own_and_go_with_its_requests() {
    let upstream = Scripted::new(|_, _| Drawn::Picture(picture(&[], 0)));
    let gateway = Gateway::start(Setup { upstream: Some(upstream.clone()), ..Setup::default() }).await;
    let set =
        post(&gateway, "/sdapi/v1/options", &json!({ "sd_model_checkpoint": "fine", "sd_vae": "None" }))
            .await;
    assert_eq!(set, (StatusCode::OK, Value::Null));
    assert_eq!(post(&gateway, "/sdapi/v1/options", &json!({ "sd_vae": null })).await.0, StatusCode::OK);
    let (own, other) = (gateway.client(), gateway.other_client());
    assert_eq!(get(&own, &gateway, "/sdapi/v1/options").await, json!({ "sd_model_checkpoint": "fine" }));
    assert_eq!(get(&other, &gateway, "/sdapi/v1/options").await, json!({}));
    assert_eq!(post(&gateway, "/sdapi/v1/txt2img", &json!({})).await.0, StatusCode::OK);
    let other =
        other.post(format!("{}/sdapi/v1/txt2img", gateway.url)).json(&json!({})).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    let models: Vec<_> =
        upstream.orders.lock().unwrap().iter().map(|order| order.request.model.clone()).collect();
    assert_eq!(models, [Some("fine".to_owned()), None]);
}

#[tokio::test]
async fn progress_and_interrupt_know_the_tenants_own_requests_only() {
    let upstream = Scripted::new(|_, _| Drawn::Hangs);
    let gateway = Gateway::start(Setup { upstream: Some(upstream.clone()), ..Setup::default() }).await;
    let (own, other) = (gateway.client(), gateway.other_client());
    let idle = get(&own, &gateway, "/sdapi/v1/progress").await;
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let asked =
        own.post(format!("{}/sdapi/v1/txt2img", gateway.url)).json(&json!({ "batch_size": 2 })).send();
    let asked = tokio::spawn(asked);
    let begun = async {
        loop {
            let told = get(&own, &gateway, "/sdapi/v1/progress?skip_current_image=true").await;
            if told["state"]["job"] == "txt2img" {
                break told;
            }
        }
    };
    let begun = soon(begun).await;
    assert_eq!((&begun["state"]["job_count"], &begun["current_image"]), (&json!(2), &Value::Null));
    assert!(begun["progress"].as_f64().unwrap() > 0.0);
    assert_eq!(get(&other, &gateway, "/sdapi/v1/progress").await["state"]["job"], "");
    let interrupt = format!("{}/sdapi/v1/interrupt", gateway.url);
    assert_eq!(other.post(&interrupt).send().await.unwrap().status(), StatusCode::OK);
    assert!(!asked.is_finished());
    assert_eq!(get(&own, &gateway, "/sdapi/v1/progress").await["state"]["interrupted"], false);
    assert_eq!(own.post(&interrupt).send().await.unwrap().text().await.unwrap(), "{}");
    let ended = asked.await.unwrap().unwrap();
    assert_eq!(ended.status(), StatusCode::OK);
    let told = info(&ended.json().await.unwrap());
    assert_eq!(told["cluegate"]["pictures"][1]["reason"], "cancelled");
    assert_eq!(get(&own, &gateway, "/sdapi/v1/progress").await["state"]["job"], "");
}

#[tokio::test]
async fn a_request_of_which_nothing_came_is_an_error_without_a_picture() {
    let upstream = Scripted::new(|_, _| Drawn::Bytes(b"\x89PNG\r\n\x1a\nbroken".to_vec()));
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let (status, reply) = post(&gateway, "/sdapi/v1/txt2img", &json!({ "prompt": "x" })).await;
    assert_eq!((status, &reply["error"]), (StatusCode::BAD_GATEWAY, &json!("upstream_failed")));
    assert!(reply.get("images").is_none());
}
