//! stable-diffusion.cpp's jobs, on both sides of the gate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::picture;
use cluegate_server::{Config, PictureRequest, Source, Upstream, UpstreamErrorKind, upstream};
use reqwest::Client;
use serde_json::{Value, json};

use crate::support::{Drawn, Gateway, Scripted, Setup, nobody, png};

/// A server that answers as written: submissions and questions from lists, of which the last is repeated.
struct Replay {
    submit: Mutex<VecDeque<(u16, Value)>>,
    job: Mutex<VecDeque<(u16, Value)>>,
    bodies: Mutex<Vec<Value>>,
    cancelled: Mutex<Vec<String>>,
    url: String,
}

type Answers = Vec<(u16, Value)>;

fn next(answers: &Mutex<VecDeque<(u16, Value)>>) -> (StatusCode, Json<Value>) {
    let mut answers = answers.lock().unwrap();
    let (status, body) =
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers.front().unwrap().clone() };
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

impl Replay {
    async fn start(submit: Answers, job: Answers) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replay = Arc::new(Self {
            submit: Mutex::new(submit.into()),
            job: Mutex::new(job.into()),
            bodies: Mutex::default(),
            cancelled: Mutex::default(),
            url: format!("http://{}", listener.local_addr().unwrap()),
        });
        let submit = async |State(replay): State<Arc<Self>>, Json(body): Json<Value>| {
            replay.bodies.lock().unwrap().push(body);
            next(&replay.submit)
        };
        let job = async |State(replay): State<Arc<Self>>, Path(_): Path<String>| next(&replay.job);
        let cancel = async |State(replay): State<Arc<Self>>, Path(id): Path<String>| {
            replay.cancelled.lock().unwrap().push(id);
            (StatusCode::CONFLICT, Json(json!({"error": "job is currently generating"})))
        };
        let capabilities = async || Json(json!({"supported_modes": ["img_gen"], "model": {"path": "/x"}}));
        let routes = Router::new()
            .route("/sdcpp/v1/img_gen", post(submit))
            .route("/sdcpp/v1/jobs/{id}", get(job))
            .route("/sdcpp/v1/jobs/{id}/cancel", post(cancel))
            .route("/sdcpp/v1/capabilities", get(capabilities))
            .with_state(Arc::clone(&replay));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        replay
    }

    fn upstream(&self) -> Arc<dyn Upstream> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = format!(
            "[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"sdcpp\"\nurl = \"{}\"\npoll_ms = 1\nmodel = \"sd15\"\n",
            self.url
        );
        let config = Config::parse(&text, "gate.toml", std::path::Path::new("")).unwrap();
        upstream::open(&config.upstream.unwrap(), None).unwrap()
    }
}

fn accepted() -> Answers {
    let body = json!({"id": "job_65_00000000", "kind": "img_gen", "status": "queued", "created": 1_775_401_200,
                      "poll_url": "/sdcpp/v1/jobs/job_65_00000000"});
    vec![(202, body)]
}

fn job(status: &str) -> (u16, Value) {
    let body = json!({"id": "job_65_00000000", "kind": "img_gen", "status": status, "created": 1_775_401_200,
                      "started": null, "completed": null, "queue_position": 1, "result": null, "error": null});
    (200, body)
}

fn completed(pictures: &[&[usize]]) -> (u16, Value) {
    let (status, mut body) = job("completed");
    let images = pictures.iter().enumerate().map(
        |(index, shows)| json!({"index": index, "b64_json": BASE64_STANDARD.encode(png(&picture(shows, index as u8)))}),
    );
    body["result"] = json!({"output_format": "png", "images": images.collect::<Vec<_>>()});
    (status, body)
}

async fn submit(gateway: &Gateway, client: &Client, body: &Value) -> (StatusCode, Value) {
    let answer = client.post(format!("{}/sdcpp/v1/img_gen", gateway.url)).json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Asks for a job until it has this status, or has ended; with the header of its decisions.
async fn wait(gateway: &Gateway, client: &Client, submitted: &Value, status: &str) -> (Value, String) {
    let url = format!("{}{}", gateway.url, submitted["poll_url"].as_str().unwrap());
    let begin = Instant::now();
    loop {
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let decisions = answer.headers().get("x-cluegate-decision").cloned();
        let job: Value = answer.json().await.unwrap();
        if job["status"] == status || !job["completed"].is_null() {
            assert_eq!(job["status"], status, "{job:#}");
            return (job, decisions.map_or(String::new(), |value| value.to_str().unwrap().to_owned()));
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the job does not become {status}: {job:#}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Draws swords for prompts with "sword", for the picture of an uneven seed where the prompt says "mixed".
fn painter() -> Arc<Scripted> {
    Scripted::new(|order, index| {
        let sword = match order.request.prompt.as_str() {
            "mixed" => (order.seed + u64::from(index)) % 2 == 1,
            prompt => prompt.contains("sword"),
        };
        match order.request.prompt.as_str() {
            "hangs" => Drawn::Hangs,
            "fails" => Drawn::Failed("out of paint"),
            _ => Drawn::Picture(picture(if sword { &[2] } else { &[] }, index as u8)),
        }
    })
}

#[tokio::test]
async fn a_job_is_submitted_drawn_judged_and_fetched_by_its_tenant_alone() {
    let gateway = Gateway::start(Setup { upstream: Some(painter()), ..Setup::default() }).await;
    let client = gateway.client();
    let (status, submitted) = submit(&gateway, &client, &json!({"prompt": "a cat", "seed": 4})).await;
    assert_eq!(
        (status, &submitted["kind"], &submitted["status"]),
        (StatusCode::ACCEPTED, &json!("img_gen"), &json!("queued"))
    );
    let (job, decisions) = wait(&gateway, &client, &submitted, "completed").await;
    assert_eq!(
        (&job["id"], &job["created"], &job["error"]),
        (&submitted["id"], &submitted["created"], &Value::Null)
    );
    assert!(job["started"].as_i64() <= job["completed"].as_i64());
    let image = &job["result"]["images"][0];
    assert_eq!(
        (&job["result"]["output_format"], &image["index"], &image["released"]),
        (&json!("png"), &json!(0), &json!(true))
    );
    let bytes = BASE64_STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap();
    let shown = image::load_from_memory(&bytes).unwrap().to_rgb8();
    assert_eq!(&shown, picture(&[], 0).pixels());
    let outcome = &job["cluegate"]["outcomes"][0];
    assert_eq!(
        (&outcome["outcome"], &outcome["reason"], &outcome["seed"]),
        (&json!("released"), &json!("safe"), &json!(4))
    );
    assert_eq!(
        decisions,
        format!("{};outcome=released;reason=safe", outcome["decision_id"].as_str().unwrap())
    );
    // Nobody else's.
    let url = format!("{}{}", gateway.url, submitted["poll_url"].as_str().unwrap());
    let other = gateway.other_client();
    for request in [other.get(&url), other.post(format!("{url}/cancel")), client.get(format!("{url}0"))] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(
            answer.json::<Value>().await.unwrap(),
            json!({"error": "not_found", "message": "job not found"})
        );
    }
}

#[tokio::test]
async fn one_bad_picture_costs_only_itself_and_a_job_of_bad_ones_has_failed() {
    for (placeholder, left) in [("picture", 3), ("none", 2)] {
        let head = if placeholder == "none" { "placeholder = \"none\"" } else { "" };
        let gateway = Gateway::start(Setup { head, upstream: Some(painter()), ..Setup::default() }).await;
        let client = gateway.client();
        let body = json!({"prompt": "mixed", "seed": 10, "batch_count": 3, "output_format": "jpeg"});
        let (_, submitted) = submit(&gateway, &client, &body).await;
        let (job, decisions) = wait(&gateway, &client, &submitted, "completed").await;
        let images = job["result"]["images"].as_array().unwrap();
        let told: Vec<_> = images
            .iter()
            .map(|image| (image["index"].as_u64().unwrap(), image["released"] == true))
            .collect();
        let expected = [(0, true), (1, false), (2, true)];
        assert_eq!(
            told,
            expected.into_iter().filter(|(_, released)| *released || left == 3).collect::<Vec<_>>()
        );
        assert_eq!(job["result"]["output_format"], "jpeg");
        for image in images {
            let bytes = BASE64_STANDARD.decode(image["b64_json"].as_str().unwrap()).unwrap();
            let shown =
                image::load_from_memory_with_format(&bytes, image::ImageFormat::Jpeg).unwrap().to_rgb8();
            // A placeholder is of one kind everywhere: in the sword's place there is nothing blue.
            let blue = shown.pixels().filter(|pixel| pixel.0[2] > 200 && pixel.0[0] < 80).count();
            assert_eq!(blue, 0, "the sword shows");
        }
        assert_eq!(decisions.matches("outcome=released").count(), 2);
        assert_eq!(decisions.matches("outcome=withheld;reason=violation").count(), 1);

        let (_, submitted) = submit(&gateway, &client, &json!({"prompt": "a sword"})).await;
        let (job, decisions) = wait(&gateway, &client, &submitted, "failed").await;
        assert_eq!((&job["error"]["code"], &job["result"]), (&json!("moderation_blocked"), &Value::Null));
        let words = job["error"]["message"].as_str().unwrap();
        assert_eq!(words, "the picture is against the policy and was withheld");
        assert!(decisions.ends_with("outcome=withheld;reason=violation"), "{decisions}");
        assert!(!job.to_string().contains("sword"), "what the rules say is evidence: {job:#}");
    }
}

#[tokio::test]
async fn a_job_can_be_cancelled_while_it_waits_and_while_it_is_drawn() {
    let config_tables = "[limits]\nin_work = 1\nqueue = 1\n".to_owned();
    let gateway =
        Gateway::start(Setup { config_tables, upstream: Some(painter()), ..Setup::default() }).await;
    let client = gateway.client();
    let (_, drawn) = submit(&gateway, &client, &json!({"prompt": "hangs"})).await;
    wait(&gateway, &client, &drawn, "generating").await;
    let (_, waits) = submit(&gateway, &client, &json!({"prompt": "a cat"})).await;
    let (job, _) = wait(&gateway, &client, &waits, "queued").await;
    assert_eq!(job["queue_position"], 1);
    // The queue is full: said at once, and not in a job.
    let answer =
        client.post(format!("{}/sdcpp/v1/img_gen", gateway.url)).json(&json!({"prompt": "a cat"})).send();
    let answer = answer.await.unwrap();
    assert_eq!(
        (answer.status(), answer.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "5")
    );
    for submitted in [&waits, &drawn] {
        let url = format!("{}{}/cancel", gateway.url, submitted["poll_url"].as_str().unwrap());
        let answer = client.post(&url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let job: Value = answer.json().await.unwrap();
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));
        let (job, _) = wait(&gateway, &client, submitted, "cancelled").await;
        assert_eq!(job["result"], Value::Null);
    }
    // Their places are free again, and one that has ended stays as it is.
    let (_, submitted) = submit(&gateway, &client, &json!({"prompt": "a cat"})).await;
    wait(&gateway, &client, &submitted, "completed").await;
    let url = format!("{}{}/cancel", gateway.url, submitted["poll_url"].as_str().unwrap());
    let job: Value = client.post(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(job["status"], "completed");
}

#[tokio::test]
async fn what_is_wrong_or_dangerous_is_refused_by_name() {
    let gateway = Gateway::start(Setup { upstream: Some(painter()), ..Setup::default() }).await;
    let client = gateway.client();
    let with = |key: &str, value: Value| {
        let mut body = json!({"prompt": "a cat"});
        body[key] = value;
        body
    };
    let hidden = "a cat <sd_cpp_extra_args>{\"steps\": 1}</sd_cpp_extra_args>";
    for (body, named) in [
        (json!([]), "a JSON object"),
        (json!({}), "`prompt`"),
        (json!({"prompt": hidden}), "sd_cpp_extra_args"),
        (json!({"prompt": "a cat", "negative_prompt": hidden.to_uppercase()}), "sd_cpp_extra_args"),
        (with("batch_count", json!(0)), "`batch_count`"),
        (with("batch_count", json!(17)), "17"),
        (with("seed", json!(1.5)), "`seed`"),
        (with("width", json!(512)), "`height`"),
        (with("stpes", json!(3)), "`stpes`"),
        (with("sample_params", json!({"sample_steps": 0})), "`sample_params.sample_steps`"),
        (with("sample_params", json!({"sampler": "x"})), "`sample_params.sampler`"),
        (with("ad_model", json!("/etc/passwd")), "`ad_model`"),
        (with("lora", json!([{"path": "../../secret.safetensors"}])), "`lora`"),
        (with("lora", json!([{"path": "/abs.safetensors"}])), "`lora`"),
        (with("hires", json!({"enabled": true, "upscaler": "../x"})), "`hires.upscaler`"),
        (with("init_image", json!("http://169.254.169.254/latest")), "`init_image`"),
        (with("mask_image", json!("aGFsbG8=")), "`init_image`"),
        (with("output_format", json!("avi")), "`output_format`"),
        (with("qwen_image_layers", json!(3)), "`qwen_image_layers`"),
    ] {
        let (status, answer) = submit(&gateway, &client, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(named), "{named}: {answer}");
    }
    let (_, submitted) = submit(&gateway, &client, &json!({"prompt": "fails"})).await;
    let (job, _) = wait(&gateway, &client, &submitted, "failed").await;
    assert_eq!(job["error"]["code"], "upstream_failed");
    let unknown =
        client.post(format!("{}/sdcpp/v1/vid_gen", gateway.url)).json(&json!({})).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let (status, _) = submit(&gateway, &nobody(), &json!({"prompt": "a cat"})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

/// The request of `api.md` with all its defaults, which change nothing.
fn whole_request() -> Value {
    json!({
        "prompt": "a cat sitting on a chair", "negative_prompt": "", "clip_skip": -1, "width": 64, "height": 64,
        "strength": 0.75, "seed": -1, "batch_count": 1, "auto_resize_ref_image": true, "increase_ref_index": false,
        "control_strength": 0.9, "ip_adapter_strength": 1.0, "embed_image_metadata": true, "init_image": null,
        "ref_images": [], "mask_image": null, "control_image": null, "ip_adapter_image": null,
        "sample_params": {
            "scheduler": "discrete", "sample_method": "euler_a", "sample_steps": 28, "shifted_timestep": 0,
            "custom_sigmas": [], "guidance": {"txt_cfg": 7.0, "slg": {"layers": [7, 8, 9], "layer_start": 0.01,
            "layer_end": 0.2, "scale": 0.0}},
        },
        "lora": [],
        "hires": {"enabled": false, "upscaler": "Latent", "scale": 2.0, "target_width": 0, "target_height": 0,
                  "steps": 0, "denoising_strength": 0.7, "custom_sigmas": [], "upscale_tile_size": 128},
        "vae_tiling_params": {"enabled": false, "temporal_tiling": false, "tile_size_x": 0, "tile_size_y": 0,
                              "target_overlap": 0.5, "rel_size_x": 0.0, "rel_size_y": 0.0, "extra_tiling_args": ""},
        "cache_mode": "disabled", "cache_option": "", "scm_mask": "", "scm_policy_dynamic": true,
        "output_format": "png", "output_compression": 100,
    })
}

#[tokio::test]
async fn a_request_with_all_defaults_says_nothing_that_another_server_could_not_do() {
    let painter = painter();
    let gateway =
        Gateway::start(Setup { upstream: Some(Arc::clone(&painter) as _), ..Setup::default() }).await;
    let client = gateway.client();
    let (_, submitted) = submit(&gateway, &client, &whole_request()).await;
    wait(&gateway, &client, &submitted, "completed").await;
    let request = (*painter.orders.lock().unwrap()[0].request).clone();
    let expected = PictureRequest {
        prompt: "a cat sitting on a chair".to_owned(),
        count: 1,
        size: Some((64, 64)),
        steps: Some(28),
        guidance: Some(7.0),
        sampler: Some("euler_a".to_owned()),
        scheduler: Some("discrete".to_owned()),
        ..PictureRequest::default()
    };
    assert_eq!(request, expected);
    let told: Value = client
        .get(format!("{}/sdcpp/v1/capabilities", gateway.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&told["limits"]["max_batch_count"], &told["supported_modes"]),
        (&json!(16), &json!(["img_gen"]))
    );
    assert_eq!((&told["samplers"], &told["model"]["path"]), (&json!([]), &json!("")));
}

#[tokio::test]
async fn a_request_goes_through_the_gate_to_a_server_of_the_same_dialect() {
    let replay =
        Replay::start(accepted(), vec![job("queued"), job("generating"), completed(&[&[], &[2]])]).await;
    let gateway = Gateway::start(Setup { upstream: Some(replay.upstream()), ..Setup::default() }).await;
    let client = gateway.client();
    let ready = client.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    let mut body = whole_request();
    let start = BASE64_STANDARD.encode(png(&picture(&[], 1)));
    for (key, value) in [
        ("batch_count", json!(2)),
        ("seed", json!(40)),
        ("negative_prompt", json!("blurry")),
        ("clip_skip", json!(2)),
        ("init_image", json!(format!("data:image/png;base64,{start}"))),
        ("lora", json!([{"path": "style/ink.safetensors", "multiplier": 0.5}])),
    ] {
        body[key] = value;
    }
    body["sample_params"]["guidance"]["distilled_guidance"] = json!(3.5);
    body["hires"]["enabled"] = json!(true);
    let (status, submitted) = submit(&gateway, &client, &body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{submitted}");
    let (job, decisions) = wait(&gateway, &client, &submitted, "completed").await;
    assert_ne!(job["id"], "job_65_00000000", "the server's own names are not passed on");
    assert!(decisions.contains("outcome=released") && decisions.contains("outcome=withheld"), "{decisions}");
    assert_eq!(job["result"]["images"][1]["released"], false);
    // Of the upstream's file nothing but pixels is left.
    let released = BASE64_STANDARD.decode(job["result"]["images"][0]["b64_json"].as_str().unwrap()).unwrap();
    assert!(!String::from_utf8_lossy(&released).contains("secret prompt"));
    let sent = replay.bodies.lock().unwrap()[0].clone();
    for (path, value) in [
        ("/prompt", json!("a cat sitting on a chair")),
        ("/negative_prompt", json!("blurry")),
        ("/batch_count", json!(2)),
        ("/seed", json!(40)),
        ("/clip_skip", json!(2)),
        ("/strength", json!(0.75)),
        ("/init_image", json!(start)),
        ("/embed_image_metadata", json!(false)),
        ("/output_format", json!("png")),
        ("/sample_params/sample_steps", json!(28)),
        ("/sample_params/sample_method", json!("euler_a")),
        ("/sample_params/guidance/txt_cfg", json!(7.0)),
        ("/sample_params/guidance/distilled_guidance", json!(3.5)),
        ("/hires/enabled", json!(true)),
        ("/hires/upscaler", json!("Latent")),
        ("/lora/0/path", json!("style/ink.safetensors")),
    ] {
        assert_eq!(sent.pointer(path), Some(&value), "{path}: {sent:#}");
    }
    assert!(sent.get("vae_tiling_params").is_none() && sent.get("control_image").is_none(), "{sent:#}");
}

#[tokio::test]
async fn a_server_that_fails_or_answers_nonsense_releases_nothing() {
    let bad_file = || {
        let (status, mut body) = completed(&[&[]]);
        body["result"]["images"][0]["b64_json"] = json!("AAAA");
        (status, body)
    };
    let failed = || {
        let (status, mut body) = job("failed");
        body["error"] = json!({"code": "generation_failed", "message": "out of\nmemory"});
        (status, body)
    };
    let renumbered = || {
        let (status, mut body) = completed(&[&[]]);
        body["result"]["images"][0]["index"] = json!(1);
        (status, body)
    };
    let cases: Vec<(Answers, Answers, &str)> = vec![
        (vec![(429, json!({"error": "job queue is full"}))], vec![job("queued")], "upstream_failed"),
        (
            vec![(400, json!({"error": "invalid generation parameters"}))],
            vec![job("queued")],
            "upstream_refused",
        ),
        (vec![(202, json!({"id": "../../options"}))], vec![job("queued")], "upstream_failed"),
        (vec![(202, json!("job"))], vec![job("queued")], "upstream_failed"),
        (accepted(), vec![(404, json!({"error": "job not found"}))], "upstream_failed"),
        (accepted(), vec![(410, json!({"error": "job expired"}))], "upstream_failed"),
        (accepted(), vec![failed()], "upstream_failed"),
        (accepted(), vec![job("cancelled")], "upstream_failed"),
        (accepted(), vec![job("paused")], "upstream_failed"),
        (accepted(), vec![job("completed")], "upstream_failed"),
        (accepted(), vec![completed(&[&[], &[]])], "upstream_failed"),
        (accepted(), vec![renumbered()], "upstream_failed"),
        (accepted(), vec![bad_file()], "upstream_failed"),
    ];
    for (number, (submitted, answers, code)) in cases.into_iter().enumerate() {
        let replay = Replay::start(submitted, answers).await;
        let gateway = Gateway::start(Setup { upstream: Some(replay.upstream()), ..Setup::default() }).await;
        let client = gateway.client();
        let (_, submitted) = submit(&gateway, &client, &json!({"prompt": "a cat"})).await;
        let (job, _) = wait(&gateway, &client, &submitted, "failed").await;
        assert_eq!(
            (&job["error"]["code"], &job["result"]),
            (&json!(code), &Value::Null),
            "case {number}: {job:#}"
        );
    }
}

#[tokio::test]
async fn a_cancelled_job_is_cancelled_at_the_server() {
    let replay = Replay::start(accepted(), vec![job("generating")]).await;
    let gateway = Gateway::start(Setup { upstream: Some(replay.upstream()), ..Setup::default() }).await;
    let client = gateway.client();
    let (_, submitted) = submit(&gateway, &client, &json!({"prompt": "a cat"})).await;
    wait(&gateway, &client, &submitted, "generating").await;
    let begin = Instant::now();
    while replay.bodies.lock().unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing was ordered");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let url = format!("{}{}/cancel", gateway.url, submitted["poll_url"].as_str().unwrap());
    client.post(&url).send().await.unwrap();
    while replay.cancelled.lock().unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the server was not told");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(*replay.cancelled.lock().unwrap(), ["job_65_00000000"]);
}

#[tokio::test]
async fn the_upstream_refuses_what_the_server_would_pass_over() {
    let replay = Replay::start(accepted(), vec![job("queued")]).await;
    let upstream = replay.upstream();
    let plain = PictureRequest { prompt: "a cat".to_owned(), count: 1, ..PictureRequest::default() };
    let one = Source { pictures: vec![vec![1].into()], ..Source::default() };
    let two = Source { pictures: vec![vec![1].into(), vec![2].into()], ..Source::default() };
    let named = |sampler: &str| PictureRequest { sampler: Some(sampler.to_owned()), ..plain.clone() };
    for fine in [
        plain.clone(),
        named("Euler a"),
        named("DPM++ 2M"),
        named("k_euler"),
        named("lcm"),
        PictureRequest { scheduler: Some("SGM Uniform".to_owned()), ..plain.clone() },
        PictureRequest { model: Some("sd15".to_owned()), ..plain.clone() },
        PictureRequest { source: Some(one), ..plain.clone() },
    ] {
        upstream.check(&fine).unwrap();
    }
    for (request, word) in [
        (named("UniPC"), "UniPC"),
        (PictureRequest { scheduler: Some("turbo".to_owned()), ..plain.clone() }, "turbo"),
        (PictureRequest { model: Some("flux".to_owned()), ..plain.clone() }, "flux"),
        (PictureRequest { source: Some(two), ..plain.clone() }, "2 pictures"),
        (PictureRequest { seed: Some(u64::MAX), ..plain }, "2^63"),
    ] {
        let error = upstream.check(&request).unwrap_err();
        assert_eq!(error.kind(), UpstreamErrorKind::Inexpressible);
        assert!(error.to_string().contains(word), "{error}");
    }
}
