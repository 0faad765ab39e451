//! The A1111 upstream against a server that answers as the web UI does, with the A1111 front before it.

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{picture, shows};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::a1111_server::{Answer, soon, start};
use crate::support::{Gateway, Setup, png};

const SWORD: usize = 2;

async fn post(client: &reqwest::Client, gateway: &Gateway, path: &str, body: Value) -> (StatusCode, Value) {
    let sent = client.post(format!("{}{path}", gateway.url)).json(&body).send().await.unwrap();
    let status = sent.status();
    let text = sent.text().await.unwrap();
    assert!(!text.contains("secret"), "{text}");
    (status, serde_json::from_str(&text).unwrap())
}

async fn get(gateway: &Gateway, path: &str) -> Value {
    let sent = gateway.client().get(format!("{}{path}", gateway.url)).send().await.unwrap();
    let text = sent.text().await.unwrap();
    assert!(!text.contains("secret"), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn reasons(reply: &Value) -> Vec<Value> {
    let info: Value = serde_json::from_str(reply["info"].as_str().unwrap()).unwrap();
    info["cluegate"]["pictures"].as_array().unwrap().iter().map(|told| told["reason"].clone()).collect()
}

fn shows_sword(base64: &Value) -> bool {
    let bytes = BASE64_STANDARD.decode(base64.as_str().unwrap()).unwrap();
    shows(&image::load_from_memory(&bytes).unwrap().to_rgb8(), SWORD)
}

/// As many pictures as are asked for, the second with a sword unless the negative prompt knows of it.
fn honest(body: &Value) -> Answer {
    let warned = body["negative_prompt"].as_str().unwrap().contains("sword");
    let count = body["batch_size"].as_u64().unwrap();
    let draw = |i| if i == 1 && !warned { vec![SWORD] } else { vec![] };
    Answer::Pictures((0..count).map(|i| picture(&draw(i), i as u8)).collect())
}

#[tokio::test]
async fn a_batch_is_drawn_without_grid_files_or_prompts() {
    let (fake, upstream) = start(true, honest).await;
    let setup = Setup {
        tables: "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.regenerate]\nstrategies = [\"avoid\"]",
        upstream: Some(upstream),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    let body = json!({
        "prompt": "two", "seed": 7, "batch_size": 2, "steps": 20, "scheduler": "Karras", "eta": 0.3, "clip": null,
        "override_settings": { "sd_model_checkpoint": "fine", "CLIP_stop_at_last_layers": 2 },
    });
    let (status, reply) = post(&gateway.client(), &gateway, "/sdapi/v1/txt2img", body).await;
    assert_eq!((status, reasons(&reply)), (StatusCode::OK, vec![json!("safe"), json!("safe")]));
    assert!(!reply["images"].as_array().unwrap().iter().any(shows_sword));
    let calls = fake.calls.lock().unwrap().clone();
    let (first, again) = (&calls[0].1, &calls[1].1);
    for (name, value) in [
        ("prompt", json!("two")),
        ("seed", json!(7)),
        ("batch_size", json!(2)),
        ("n_iter", json!(1)),
        ("steps", json!(20)),
        ("scheduler", json!("Karras")),
        ("eta", json!(0.3)),
        ("send_images", json!(true)),
        ("save_images", json!(false)),
        ("do_not_save_samples", json!(true)),
        ("do_not_save_grid", json!(true)),
        ("override_settings", json!({ "CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "fine" })),
        ("override_settings_restore_afterwards", json!(true)),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    // Only the bad one is drawn again, and the server is told what to avoid.
    assert_eq!((calls.len(), &again["batch_size"]), (2, &json!(1)));
    assert!(again["negative_prompt"].as_str().unwrap().contains("sword"));
}

#[tokio::test]
async fn a_picture_to_start_from_goes_there_and_never_back() {
    let (fake, upstream) = start(true, honest).await;
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let source = BASE64_STANDARD.encode(png(&picture(&[SWORD], 9)));
    let body = json!({
        "init_images": [format!("data:image/png;base64,{source}")], "mask": source, "denoising_strength": 0.4,
        "inpainting_mask_invert": 1, "mask_blur": 8,
    });
    let sent =
        gateway.client().post(format!("{}/sdapi/v1/img2img", gateway.url)).json(&body).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::OK);
    assert!(!sent.text().await.unwrap().contains(&source));
    let (path, call) = fake.calls.lock().unwrap()[0].clone();
    assert_eq!((path, &call["init_images"], &call["mask"]), ("img2img", &json!([source]), &json!(source)));
    assert_eq!(
        (&call["width"], &call["inpainting_mask_invert"], &call["mask_blur"]),
        (&json!(64), &json!(1), &json!(8))
    );
    assert_eq!(call["override_settings"], json!({ "return_mask": false, "return_mask_composite": false }));
    let two = json!({ "init_images": [source, source] });
    let (status, reply) = post(&gateway.client(), &gateway, "/sdapi/v1/img2img", two).await;
    assert_eq!((status, &reply["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("not_expressible")));
}

#[tokio::test]
async fn answers_that_make_no_sense_release_nothing() {
    let bad = [
        (StatusCode::OK, "no JSON".to_owned(), 502, "upstream_failed"),
        (StatusCode::OK, "{}".to_owned(), 502, "upstream_failed"),
        (StatusCode::OK, json!({ "images": ["?"], "info": "" }).to_string(), 502, "upstream_failed"),
        (StatusCode::OK, json!({ "images": "iVBORw0KGgo=", "info": "" }).to_string(), 502, "upstream_failed"),
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({ "error": "OutOfMemoryError" }).to_string(),
            502,
            "upstream_failed",
        ),
        (
            StatusCode::NOT_FOUND,
            json!({ "detail": "Sampler not found" }).to_string(),
            400,
            "upstream_refused",
        ),
    ];
    for (status, text, expected, error) in bad {
        let answer = text.clone();
        let (_fake, upstream) = start(true, move |_| Answer::Raw(status, answer.clone())).await;
        let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
        let (status, reply) =
            post(&gateway.client(), &gateway, "/sdapi/v1/txt2img", json!({ "prompt": "x" })).await;
        assert_eq!((status.as_u16(), &reply["error"]), (expected, &json!(error)), "{text}: {reply}");
        assert!(reply.get("images").is_none());
    }
}

#[tokio::test]
async fn what_the_server_would_silently_replace_is_refused() {
    let (fake, upstream) = start(true, honest).await;
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    for (body, named) in [
        (json!({ "override_settings": { "sd_model_checkpoint": "other" } }), "other"),
        (json!({ "scheduler": "sideways" }), "sideways"),
        (json!({ "batch_size": 2, "subseed_strength": 0.5 }), "subseed_strength"),
    ] {
        let (status, reply) = post(&gateway.client(), &gateway, "/sdapi/v1/txt2img", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{reply}");
        assert!(reply["detail"].as_str().unwrap().contains(named), "{reply}");
    }
    assert!(fake.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_the_call_that_nobody_waits_for_is_interrupted() {
    let script = |body: &Value| match body["prompt"].as_str().unwrap() {
        "theirs" => Answer::UntilTold,
        _ => Answer::UntilInterrupted(picture(&[], 0)),
    };
    let (fake, upstream) = start(true, script).await;
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let send = |client: reqwest::Client, prompt: &'static str| {
        let url = format!("{}/sdapi/v1/txt2img", gateway.url);
        tokio::spawn(async move { client.post(url).json(&json!({ "prompt": prompt })).send().await.unwrap() })
    };
    let theirs = send(gateway.other_client(), "theirs");
    fake.draws(true).await;
    let ours = send(gateway.client(), "ours");
    fake.received(2).await;
    post(&gateway.client(), &gateway, "/sdapi/v1/interrupt", json!({})).await;
    let ended = ours.await.unwrap();
    assert_eq!(reasons(&ended.json().await.unwrap()), ["cancelled"]);
    // The other tenant's picture is drawn to its end; only then is the one stopped that was called off.
    assert_eq!(fake.interrupts.load(Ordering::SeqCst), 0);
    fake.go_on();
    let theirs = theirs.await.unwrap();
    assert_eq!(reasons(&theirs.json().await.unwrap()), ["safe"]);
    let interrupted = async {
        while fake.interrupts.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon(interrupted).await;
    fake.draws(false).await;
    assert_eq!(fake.interrupts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_without_names_for_tasks_is_interrupted_while_the_call_is_alone() {
    let (fake, upstream) = start(false, |_| Answer::UntilInterrupted(picture(&[], 0))).await;
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let send = || {
        let (client, url) = (gateway.client(), format!("{}/sdapi/v1/txt2img", gateway.url));
        tokio::spawn(async move { client.post(url).json(&json!({})).send().await.unwrap() })
    };
    let first = send();
    fake.draws(true).await;
    post(&gateway.client(), &gateway, "/sdapi/v1/interrupt", json!({})).await;
    assert_eq!(reasons(&first.await.unwrap().json().await.unwrap()), ["cancelled"]);
    fake.draws(false).await;
    assert_eq!(fake.interrupts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bad_preview_ends_its_picture_and_a_good_one_is_shown() {
    for named in [true, false] {
        let script = |body: &Value| match body["prompt"].as_str().unwrap() {
            "sword" if !body["negative_prompt"].as_str().unwrap().contains("sword") => {
                Answer::UntilInterrupted(picture(&[SWORD], 3))
            }
            "slow" => Answer::UntilInterrupted(picture(&[], 3)),
            _ => Answer::Pictures(vec![picture(&[], 4)]),
        };
        let (fake, upstream) = start(named, script).await;
        let setup = Setup {
            head: "previews = [0.5]",
            tables: "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.client]\npreviews = true",
            upstream: Some(upstream),
            ..Setup::default()
        };
        let gateway = Gateway::start(setup).await;
        let client = gateway.client();
        let body = json!({ "prompt": "sword", "steps": 20 });
        let (status, reply) = post(&client, &gateway, "/sdapi/v1/txt2img", body).await;
        assert_eq!((status, reasons(&reply)), (StatusCode::OK, vec![json!("safe")]), "{named}");
        assert_eq!(fake.interrupts.load(Ordering::SeqCst), 1);
        let (other, url) = (gateway.client(), format!("{}/sdapi/v1/txt2img", gateway.url));
        let slow =
            tokio::spawn(
                async move { other.post(url).json(&json!({ "prompt": "slow" })).send().await.unwrap() },
            );
        let shown = async {
            loop {
                let told = get(&gateway, "/sdapi/v1/progress").await;
                if told["current_image"].is_string() {
                    break told;
                }
            }
        };
        let preview = soon(shown).await;
        assert!(!shows_sword(&preview["current_image"]));
        assert!(preview["progress"].as_f64().unwrap() >= 0.5);
        let skipped = get(&gateway, "/sdapi/v1/progress?skip_current_image=true").await;
        assert_eq!(skipped["current_image"], Value::Null);
        post(&client, &gateway, "/sdapi/v1/skip", json!({})).await;
        assert_eq!(slow.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn lists_are_built_anew_and_options_narrowed() {
    let (_fake, upstream) = start(true, honest).await;
    let setup = Setup {
        upstream: Some(upstream),
        config_tables: "[a1111]\nscripts = [\"ADetailer\"]".to_owned(),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    let models = get(&gateway, "/sdapi/v1/sd-models").await;
    assert_eq!(
        (&models[0]["title"], &models[0]["filename"]),
        (&json!("fine.safetensors [abcd]"), &json!("fine.safetensors"))
    );
    assert_eq!(
        get(&gateway, "/sdapi/v1/options").await,
        json!({ "sd_model_checkpoint": "fine.safetensors [abcd]" })
    );
    assert_eq!(get(&gateway, "/sdapi/v1/cmd-flags").await, json!({}));
    assert_eq!(get(&gateway, "/sdapi/v1/memory").await["ram"], json!({ "free": 1 }));
    assert_eq!(get(&gateway, "/sdapi/v1/scripts").await["txt2img"], json!(["adetailer"]));
    // The server has no such list.
    assert_eq!(get(&gateway, "/sdapi/v1/upscalers").await, json!([]));
}

/// Real clients from PyPI, unmodified: `tests/clients/run` makes their environment and runs these.
mod clients {
    use super::*;
    use crate::clients::run;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs webuiapi from PyPI: tests/clients/run"]
    async fn webuiapi() {
        let script = |body: &Value| match body["prompt"].as_str().unwrap() {
            "slow" => Answer::UntilInterrupted(picture(&[], 3)),
            // Where previews are judged each picture has a call of its own.
            "a cat, then a sword" if body["seed"] == 6 => Answer::Pictures(vec![picture(&[SWORD], 6)]),
            _ => honest(body),
        };
        let (fake, upstream) = start(true, script).await;
        let setup = Setup {
            head: "previews = [0.5]",
            tables: "[tenant.t.client]\npreviews = true",
            config_tables: "[a1111]\nscripts = [\"ADetailer\"]".to_owned(),
            upstream: Some(upstream),
            ..Setup::default()
        };
        let gateway = Gateway::start(setup).await;
        run("webuiapi_client.py", &[&gateway.url, gateway.key.reveal()]).await;
        assert_eq!(fake.interrupts.load(Ordering::SeqCst), 1);
        let calls = fake.calls.lock().unwrap();
        assert!(calls.iter().all(|(_, body)| body["save_images"] == false && body["n_iter"] == 1));
        assert!(calls.iter().any(|(_, body)| body["alwayson_scripts"]["ADetailer"]["args"].is_array()));
    }
}
