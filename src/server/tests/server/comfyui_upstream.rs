//! ComfyUI as the upstream: over the conversation that it publishes, by itself and behind its own front end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_gate::Policies;
use cluegate_gate::fakes::{picture, shows};
use cluegate_server::{
    Config, Dialect, Event, Order, PictureRequest, Source, Upstream, UpstreamError, UpstreamErrorKind,
    upstream,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::comfyui::{Client, pixels, workflow};
use crate::comfyui_server::{Act, Comfy};
use crate::support::{Gateway, Rewriter, Setup, png};

fn open(url: &str, more: &str) -> Arc<dyn Upstream> {
    let text =
        format!("[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"comfyui\"\nurl = \"{url}\"\n{more}\n");
    let config = Config::parse(&text, "gate.toml", Path::new("/nowhere")).unwrap();
    upstream::open(&config.upstream.unwrap(), None).unwrap()
}

const MODEL: &str = "model = \"m.safetensors\"";

fn order(request: PictureRequest, count: u32) -> Order {
    Order {
        request: Arc::new(PictureRequest { count, ..request }),
        first: 0,
        count,
        seed: 40,
        attempt: 1,
        avoid: Vec::new(),
        safety: Default::default(),
        previews: Default::default(),
        show_previews: false,
        deadline: Instant::now() + Duration::from_secs(60),
        cancel: CancellationToken::new(),
    }
}

fn words(prompt: &str) -> PictureRequest {
    PictureRequest { prompt: prompt.to_owned(), ..PictureRequest::default() }
}

async fn drawn(upstream: &Arc<dyn Upstream>, order: &Order) -> (Result<(), UpstreamError>, Vec<Event>) {
    let (send, mut events) = mpsc::channel(64);
    let ended = upstream.draw(order, send).await;
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        told.push(event);
    }
    (ended, told)
}

fn one(salt: u8) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    vec![("picture", vec![png(&picture(&[], salt))])]
}

#[tokio::test]
async fn a_request_of_another_dialect_is_drawn_with_the_shipped_workflow_picture_by_picture() {
    let (comfy, url) = Comfy::start(|_, index| Act::Pictures(one(index as u8))).await;
    let upstream = open(&url, MODEL);
    let request = PictureRequest {
        negative_prompt: Some("rain".to_owned()),
        size: Some((640, 512)),
        sampler: Some("Euler a".to_owned()),
        ..words("a %seed% cat")
    };
    upstream.check(&request).unwrap();
    let mut order = order(request, 2);
    order.avoid = vec!["a sword".to_owned()];
    let (ended, events) = drawn(&upstream, &order).await;
    ended.unwrap();
    let indices: Vec<u32> = events
        .iter()
        .filter_map(|e| if let Event::Picture { index, .. } = e { Some(*index) } else { None })
        .collect();
    assert_eq!(indices, [0, 1]);
    let record = comfy.record();
    for (prompt, seed) in record.prompts.iter().zip([40, 41]) {
        let nodes = &prompt["prompt"];
        let sampler = &nodes["sampler"]["inputs"];
        assert_eq!(
            (&sampler["seed"], &sampler["sampler_name"], &sampler["steps"]),
            (&json!(seed), &json!("euler_ancestral"), &json!(20))
        );
        assert_eq!(nodes["positive"]["inputs"]["text"], "a %seed% cat");
        assert_eq!(nodes["negative"]["inputs"]["text"], "rain, a sword");
        assert_eq!(nodes["checkpoint"]["inputs"]["ckpt_name"], "m.safetensors");
        assert_eq!(
            (&nodes["latent"]["inputs"]["width"], &nodes["picture"]["class_type"]),
            (&json!(640), &json!("PreviewImage"))
        );
        assert_eq!(prompt["extra_data"], json!({ "preview_method": "none" }));
    }
    assert_eq!(record.prompts[0]["client_id"], record.prompts[1]["client_id"]);
    assert_eq!(record.history.len(), 0, "its history holds our prompts no longer");
}

#[tokio::test]
async fn pictures_to_start_from_are_uploaded_to_what_is_temporary() {
    let (comfy, url) = Comfy::start(|_, _| Act::Pictures(one(1))).await;
    let upstream = open(&url, MODEL);
    let (source, mask) = (png(&picture(&[], 1)), png(&picture(&[], 2)));
    let source = Source { pictures: vec![source.into()], mask: Some(mask.into()), strength: Some(0.5) };
    let request = PictureRequest { source: Some(source), ..words("a cat") };
    upstream.check(&request).unwrap();
    drawn(&upstream, &order(request, 1)).await.0.unwrap();
    let record = comfy.record();
    let nodes = &record.prompts[0]["prompt"];
    assert_eq!(
        (&nodes["sampler"]["inputs"]["denoise"], &nodes["scaled"]["inputs"]["width"]),
        (&json!(0.5), &json!(64))
    );
    for (node, salt) in [("source", 1), ("mask", 2)] {
        let name = nodes[node]["inputs"]["image"].as_str().unwrap();
        assert!(name.starts_with("cluegate/") && name.ends_with(".png [temp]"), "{name}");
        assert_eq!(record.uploads[name], png(&picture(&[], salt)));
    }
}

#[tokio::test]
async fn what_the_workflow_has_no_place_for_is_refused() {
    let (_comfy, url) = Comfy::start(|_, _| Act::Refused).await;
    let upstream = open(&url, MODEL);
    let refused = |request: PictureRequest| {
        let error = upstream.check(&request).unwrap_err();
        assert_eq!(error.kind(), UpstreamErrorKind::Inexpressible);
        error.to_string()
    };
    assert!(refused(PictureRequest { size: Some((60, 64)), ..words("x") }).contains("multiples of 8"));
    let two = Source { pictures: vec![Default::default(), Default::default()], ..Source::default() };
    assert!(refused(PictureRequest { source: Some(two), ..words("x") }).contains("got 2"));
    let parameters = serde_json::Map::from_iter([("hires_fix".to_owned(), json!(true))]);
    let native = cluegate_server::Native { dialect: Dialect::A1111, parameters };
    assert!(refused(PictureRequest { native: Some(native), ..words("x") }).contains("hires_fix"));
    let nameless = open(&url, "");
    let error = nameless.check(&words("x")).unwrap_err().to_string();
    assert!(error.contains("upstream.model"), "{error}");
    nameless.check(&PictureRequest { model: Some("m".to_owned()), ..words("x") }).unwrap();
    nameless.ready().await.unwrap();
    assert!(open("http://127.0.0.1:9", "").ready().await.is_err());
    // A workflow of the operator's that has fewer places.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    let mut own = workflow(1);
    own["6"]["inputs"]["text"] = json!("best, %prompt%");
    own["3"]["inputs"]["seed"] = json!("%seed%");
    std::fs::write(&path, own.to_string()).unwrap();
    let own = open(&url, &format!("workflow = {:?}", path.display().to_string()));
    own.check(&words("x")).unwrap();
    let error = own.check(&PictureRequest { steps: Some(4), ..words("x") }).unwrap_err().to_string();
    assert!(error.contains("%steps%"), "{error}");
}

#[tokio::test]
async fn previews_belong_to_the_step_and_the_node_that_the_server_names() {
    let policies = Policies::from_toml("[tenant.t]\npreviews = [1, 2]\n", "policy.toml").unwrap();
    for old in [false, true] {
        let previews = || (0..3).map(|salt| png(&picture(&[], salt))).collect();
        let script = move |_: &Value, _| Act::Previews("sampler", previews(), one(9));
        let (comfy, url) = Comfy::start_aged(script, old).await;
        let upstream = open(&url, MODEL);
        let mut order = order(words("x"), 1);
        (order.previews, order.show_previews) = (policies.get("t").unwrap().previews.clone(), true);
        let (ended, events) = drawn(&upstream, &order).await;
        ended.unwrap();
        let steps: Vec<(u32, u32, u32)> = events
            .iter()
            .filter_map(|event| match event {
                Event::Preview { index, step, total, .. } => Some((*index, *step, *total)),
                _ => None,
            })
            .collect();
        // The policy asks for two. The third, and further progress, finds no room here: nobody listens before the end.
        assert_eq!(steps, [(0, 1, 3), (0, 2, 3)], "old: {old}");
        let first =
            events.iter().find_map(|e| if let Event::Progress(p) = e { Some(*p) } else { None }).unwrap();
        assert_eq!((first.step, first.steps), (Some(1), Some(3)));
        assert!((first.fraction - 1.0 / 3.0).abs() < 1e-9, "{first:?}");
        assert!(matches!(events.last(), Some(Event::Picture { index: 0, .. })));
        assert_eq!(comfy.record().prompts[0]["extra_data"]["preview_method"], "auto");
    }
}

#[tokio::test]
async fn nonsense_is_passed_over_and_failures_are_named() {
    let fails = async |act: fn() -> Act, more: &str| {
        let (comfy, url) = Comfy::start(move |_, _| act()).await;
        let (ended, events) = drawn(&open(&url, &format!("{MODEL}\n{more}")), &order(words("x"), 1)).await;
        let error = ended.unwrap_err();
        assert!(events.is_empty());
        assert_eq!(comfy.record().history.len(), 0);
        (error.kind(), error.to_string())
    };
    let (kind, message) = fails(|| Act::Error, "").await;
    assert_eq!(kind, UpstreamErrorKind::Failed);
    assert!(message.contains("CUDA out of memory") && !message.contains("secret path"), "{message}");
    let (kind, message) = fails(|| Act::Refused, "").await;
    assert_eq!(kind, UpstreamErrorKind::Refused);
    assert!(message.contains("failed validation"), "{message}");
    assert_eq!(fails(|| Act::Closes, "").await.0, UpstreamErrorKind::Unreachable);
    assert_eq!(fails(|| Act::Waits, "timeout_ms = 200").await.0, UpstreamErrorKind::Timeout);
    let huge = || Act::Previews("sampler", vec![vec![0; 100_000]], Vec::new());
    assert_eq!(fails(huge, "answer_bytes = 10000").await.0, UpstreamErrorKind::Malformed);

    let (_comfy, url) = Comfy::start(|_, _| Act::Noise("picture", png(&picture(&[], 1)))).await;
    let (ended, events) = drawn(&open(&url, MODEL), &order(words("x"), 1)).await;
    ended.unwrap();
    assert!(matches!(events.last(), Some(Event::Picture { index: 0, .. })));
    // A prompt that gives nothing out costs its picture only.
    let (_comfy, url) = Comfy::start(|_, _| Act::Pictures(Vec::new())).await;
    let (ended, events) = drawn(&open(&url, MODEL), &order(words("x"), 1)).await;
    ended.unwrap();
    assert!(matches!(events.last(), Some(Event::Failed { index: 0, .. })));
}

#[tokio::test]
async fn an_order_that_is_called_off_stops_its_own_prompt_only() {
    for (act, others) in [((|| Act::Hangs) as fn() -> Act, false), (|| Act::Waits, true)] {
        let (comfy, url) = Comfy::start(move |_, _| act()).await;
        if others {
            comfy.record().running.push("another's".to_owned());
        }
        let (upstream, order) = (open(&url, MODEL), order(words("x"), 1));
        let cancel = order.cancel.clone();
        let drawing = tokio::spawn(async move { drawn(&upstream, &order).await.0 });
        comfy
            .until(|record| !(record.queued.is_empty() && record.running.iter().all(|id| id == "another's")))
            .await;
        cancel.cancel();
        assert_eq!(drawing.await.unwrap().unwrap_err().kind(), UpstreamErrorKind::Cancelled);
        let record = comfy.record();
        let ours = &record.prompts[0]["prompt_id"];
        assert_eq!(record.unqueued, [json!({ "delete": [ours] })]);
        let interrupts = if others { vec![] } else { vec![json!({ "prompt_id": ours })] };
        assert_eq!((record.interrupts.clone(), record.queued.len()), (interrupts, 0));
        assert_eq!(record.running.len(), usize::from(others));
    }
}

/// Shows a sword in the second picture of the first prompt, and waits for none.
fn second_is_bad(workflow: &Value, index: usize) -> Act {
    let batch = workflow["5"]["inputs"]["batch_size"].as_u64().unwrap() as u8;
    let show = |i: u8| png(&picture(if index == 0 && i == 1 { &[2] } else { &[] }, 10 * index as u8 + i));
    Act::Pictures(vec![("9", (0..batch).map(show).collect())])
}

#[tokio::test]
async fn a_clients_own_workflow_is_drawn_whole_and_its_bad_picture_again() {
    let (comfy, url) = Comfy::start(second_is_bad).await;
    let setup = Setup {
        tables: "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.regenerate]\nstrategies = [\"avoid\"]",
        upstream: Some(open(&url, "")),
        extensions: Some(Arc::new(Rewriter(|prompt, attempt| format!("{attempt}: {prompt}")))),
        ..Setup::default()
    };
    let gateway = Gateway::start(setup).await;
    let mut client = Client::open(&gateway).await;
    let id = client.queue(&workflow(2)).await;
    client.events(&id).await;
    {
        let record = comfy.record();
        let first = &record.prompts[0]["prompt"];
        assert_eq!((&first["3"], &first["5"]), (&workflow(2)["3"], &workflow(2)["5"]));
        assert_eq!(first["9"], json!({ "class_type": "PreviewImage", "inputs": { "images": ["8", 0] } }));
        assert_ne!(record.prompts[0]["client_id"], "desk");
        assert_ne!(record.prompts[0]["prompt_id"], json!(id));
        let again = &record.prompts[1]["prompt"];
        assert_eq!((record.prompts.len(), &again["5"]["inputs"]["batch_size"]), (2, &json!(1)));
        assert_ne!(again["3"]["inputs"]["seed"], first["3"]["inputs"]["seed"]);
        assert!(again["7"]["inputs"]["text"].as_str().unwrap().starts_with("bad hands, "));
        let prompt = first["6"]["inputs"]["text"].as_str().unwrap();
        assert_eq!(again["6"]["inputs"]["text"], format!("2: {prompt}"));
    }
    comfy.until(|record| record.history.is_empty()).await;
    let entry = client.entry(&id).await;
    let reports = entry["status"]["cluegate"]["pictures"].as_array().unwrap();
    let seeds: Vec<&Value> = reports.iter().map(|report| &report["seed"]).collect();
    let again = &comfy.record().prompts[1]["prompt"]["3"]["inputs"]["seed"].clone();
    assert_eq!(seeds, [&json!(8566257), again]);
    for (image, salt) in entry["outputs"]["9"]["images"].as_array().unwrap().iter().zip([0, 10]) {
        assert_eq!(image["type"], "output");
        let bytes = client.view(image).await.bytes().await.unwrap();
        assert_eq!(&pixels(&bytes), picture(&[], salt).pixels());
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}

#[tokio::test]
async fn nodes_that_are_not_allowed_reach_no_server() {
    let (comfy, url) = Comfy::start(second_is_bad).await;
    let config_tables = "[comfyui]\nmax_nodes = 8\n".to_owned();
    let gateway =
        Gateway::start(Setup { upstream: Some(open(&url, "batch = 2")), config_tables, ..Setup::default() })
            .await;
    let client = Client::open(&gateway).await;
    let refused = async |workflow: Value| {
        let (status, answer) = client.post("/api/prompt", json!({ "prompt": workflow })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        answer
    };
    for class in ["SaveImageWebsocket", "LoadImageFromUrl", "RunPython", "SaveLatent", "VHS_VideoCombine"] {
        let mut workflow = workflow(1);
        workflow["10"] = json!({ "class_type": class, "inputs": {} });
        let answer = refused(workflow).await;
        assert_eq!(answer["node_errors"]["10"]["errors"][0]["type"], "node_not_allowed");
        assert_eq!(answer["node_errors"]["10"]["class_type"], class);
    }
    let mut foreign = workflow(1);
    foreign["10"] = json!({ "class_type": "LoadImage", "inputs": { "image": "another.png" } });
    assert_eq!(
        refused(foreign.clone()).await["node_errors"]["10"]["errors"][0]["type"],
        "custom_validation_failed"
    );
    foreign["11"] = foreign["10"].clone();
    assert_eq!(refused(foreign).await["error"]["type"], "invalid_prompt");
    assert_eq!(refused(workflow(3)).await["error"]["type"], "not_expressible");
    assert!(comfy.record().prompts.is_empty());
    let classes: Value = client.get("/object_info").await.json().await.unwrap();
    let mut names: Vec<&str> = classes.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["KSampler", "LoadImage"]);
    assert_eq!(classes["LoadImage"]["input"]["required"]["image"][0], json!([]));
    let embeddings: Value = client.get("/embeddings").await.json().await.unwrap();
    assert_eq!(embeddings, json!(["badhands"]));
}

#[tokio::test]
async fn previews_reach_the_client_if_the_policy_allows_it_and_the_judge_finds_nothing() {
    // The second preview shows a sword; the finished picture does not.
    let previews =
        || vec![png(&picture(&[], 1)), png(&picture(&[2], 2)), png(&picture(&[], 3)), png(&picture(&[], 4))];
    for (tables, metadata) in [
        ("[tenant.t.client]\npreviews = true", false),
        ("[tenant.t.client]\npreviews = true", true),
        ("", true),
    ] {
        let script =
            move |_: &Value, _| Act::Previews("3", previews(), vec![("9", vec![png(&picture(&[], 9))])]);
        let (_comfy, url) = Comfy::start(script).await;
        let gateway = Gateway::start(Setup {
            head: "previews = [1, 2]",
            tables,
            upstream: Some(open(&url, "")),
            ..Setup::default()
        })
        .await;
        let mut client = Client::open(&gateway).await;
        if metadata {
            client
                .say(json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } }))
                .await;
            assert_eq!(client.event().await["type"], "feature_flags");
        }
        let id = client.queue(&workflow(1)).await;
        client.events(&id).await;
        for frame in &client.frames {
            let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
            let png = if metadata {
                let end = 8 + number(4) as usize;
                let words: Value = serde_json::from_slice(&frame[8..end]).unwrap();
                assert_eq!((&words["node_id"], &words["prompt_id"]), (&json!("3"), &json!(id)));
                &frame[end..]
            } else {
                assert_eq!((number(0), number(4)), (1, 2));
                &frame[8..]
            };
            assert!(!shows(&pixels(png), 2));
        }
        // Without the policy's word there are none. With it the first is clean, and the second ends the attempt.
        assert_eq!(client.frames.is_empty(), tables.is_empty(), "{tables} {metadata}");
    }
}

#[tokio::test]
async fn a_loaded_picture_goes_to_the_server_under_a_name_of_ours() {
    let (comfy, url) = Comfy::start(|_, _| Act::Pictures(vec![("9", vec![png(&picture(&[], 9))])])).await;
    let gateway = Gateway::start(Setup { upstream: Some(open(&url, "")), ..Setup::default() }).await;
    let mut client = Client::open(&gateway).await;
    let part = reqwest::multipart::Part::bytes(png(&picture(&[], 5))).file_name("me.png");
    let form = reqwest::multipart::Form::new().part("image", part);
    let answer =
        client.http.post(format!("{}/api/upload/image", client.url)).multipart(form).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(comfy.record().uploads.len(), 0, "an upload that no prompt uses stays here");
    let mut from_picture = workflow(1);
    from_picture["5"] =
        json!({ "class_type": "VAEEncode", "inputs": { "pixels": ["10", 0], "vae": ["4", 2] } });
    from_picture["10"] = json!({ "class_type": "LoadImage", "inputs": { "image": answer["name"] } });
    let id = client.queue(&from_picture).await;
    client.events(&id).await;
    let record = comfy.record();
    let name = record.prompts[0]["prompt"]["10"]["inputs"]["image"].as_str().unwrap();
    assert!(name.starts_with("cluegate/") && !name.contains(answer["name"].as_str().unwrap()));
    assert_eq!(record.uploads[name], png(&picture(&[], 5)));
}
