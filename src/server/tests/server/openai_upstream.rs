//! A server of OpenAI's Images API behind the gate: a server on loopback that replays conversations in the published
//! shapes, and other gates.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{picture, violated};
use cluegate_server::{
    Config, Dialect, Native, PictureRequest, Source, Upstream, UpstreamErrorKind, upstream::open,
};
use futures_util::future::BoxFuture;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Drawn, Gateway, Scripted, Setup, png};

/// A request as the server got it.
#[derive(Clone)]
struct Seen {
    path: String,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A server on a free port that answers by script.
struct Replay {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Replay {
    async fn start(
        answer: impl Fn(Seen) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let app = Router::new().fallback(move |request: Request| {
            let (record, answer) = (Arc::clone(&record), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
                let seen = Seen { path: parts.uri.path().to_owned(), headers: parts.headers, body };
                record.lock().unwrap().push(seen.clone());
                answer(seen).await
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, seen }
    }

    /// Answers everything with this.
    async fn always(status: u16, kind: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::start(move |_| {
            let answer = answer(status, kind, body.clone());
            Box::pin(async { answer })
        })
        .await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(status: u16, kind: &'static str, body: impl Into<Body>) -> Response {
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    (status, [("content-type", kind)], body.into()).into_response()
}

/// The upstream of a configuration.
fn upstream(url: &str, more: &str) -> Arc<dyn Upstream> {
    let text = format!("[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"openai\"\nurl = \"{url}\"\n{more}\n");
    let config = Config::parse(&text, "gate.toml", std::path::Path::new("")).unwrap();
    open(&config.upstream.unwrap(), None).unwrap()
}

async fn gateway(url: &str, more: &str, setup: Setup) -> Gateway {
    Gateway::start(Setup { upstream: Some(upstream(url, more)), ..setup }).await
}

async fn generate(gateway: &Gateway, body: Value) -> (StatusCode, Value) {
    let url = format!("{}/v1/images/generations", gateway.url);
    let response = gateway.client().post(url).json(&body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn base64(objects: &[usize], salt: u8) -> String {
    BASE64_STANDARD.encode(png(&picture(objects, salt)))
}

fn pixels(text: &Value) -> image::RgbImage {
    let bytes = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
    image::load_from_memory(&bytes).unwrap().into_rgb8()
}

#[tokio::test]
async fn a_request_is_passed_on_in_the_api_s_words_and_each_picture_judged() {
    let body = json!({ "created": 1, "data": [
        { "b64_json": base64(&[3], 0), "revised_prompt": "other words" },
        { "b64_json": format!("data:image/png;base64,{}", base64(&[2], 1)) },
    ] });
    let server = Replay::always(200, "application/json", body.to_string()).await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "sk-upstream\n").unwrap();
    let more = format!("model = \"dall-e-2\"\nkey_file = {:?}", key.display().to_string());
    let gateway = gateway(&server.url, &more, Setup::default()).await;
    let asked = json!({
        "prompt": "a person", "n": 2, "size": "64x64", "quality": "hd", "style": "vivid", "user": "u",
        "background": "opaque", "moderation": "low", "output_format": "webp",
    });
    let (status, told) = generate(&gateway, asked).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(pixels(&told["data"][0]["b64_json"]), *picture(&[3], 0).pixels());
    assert_eq!(told["data"][1]["cluegate"]["reason"], "violation");
    assert_eq!(violated(&pixels(&told["data"][1]["b64_json"])), [""; 0]);
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/images/generations");
    assert_eq!(seen.headers["authorization"], "Bearer sk-upstream");
    let expected = json!({
        "prompt": "a person", "n": 2, "size": "64x64", "quality": "hd", "style": "vivid", "user": "u",
        "background": "opaque", "moderation": "low", "model": "dall-e-2", "response_format": "b64_json",
    });
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_gpt_image_model_is_not_asked_for_base64_and_an_address_may_end_with_v1() {
    let body = json!({ "created": 1, "data": [{ "b64_json": base64(&[3], 0) }] });
    let server = Replay::always(200, "application/json", body.to_string()).await;
    let gateway = gateway(&format!("{}/v1", server.url), "", Setup::default()).await;
    let (status, _) = generate(&gateway, json!({ "prompt": "p", "model": "gpt-image-2" })).await;
    assert_eq!(status, StatusCode::OK);
    let seen = &server.seen()[0];
    assert_eq!(seen.path, "/v1/images/generations");
    assert_eq!(seen.json(), json!({ "prompt": "p", "n": 1, "model": "gpt-image-2" }));
}

#[tokio::test]
async fn an_address_is_fetched_from_the_server_itself_and_from_nobody_else() {
    let other = Replay::always(200, "image/png", "never asked").await;
    let elsewhere = other.url.clone();
    let server = Replay::start(move |seen| {
        let elsewhere = elsewhere.clone();
        Box::pin(async move {
            if seen.path == "/files/1.png" {
                return answer(200, "image/png", png(&picture(&[3], 7)));
            }
            if seen.path == "/files/moved.png" {
                return (StatusCode::FOUND, [("location", format!("{elsewhere}/x.png"))]).into_response();
            }
            let own = format!("http://{}/files/1.png", seen.headers["host"].to_str().unwrap());
            let data: Vec<Value> = [
                own.clone(),
                "/files/1.png".to_owned(),
                format!("{elsewhere}/x.png"),
                own.replace("http://", "http://user@"),
                "file:///etc/passwd".to_owned(),
                "/files/moved.png".to_owned(),
            ]
            .into_iter()
            .map(|url| json!({ "url": url }))
            .collect();
            answer(200, "application/json", json!({ "data": data }).to_string())
        })
    })
    .await;
    let gateway = gateway(&server.url, "batch = 8", Setup::default()).await;
    let (status, told) = generate(&gateway, json!({ "prompt": "p", "n": 6 })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let reasons: Vec<&Value> = (0..6).map(|index| &told["data"][index]["cluegate"]["reason"]).collect();
    let failed = "generator-failure";
    assert_eq!(reasons, ["safe", "safe", failed, failed, failed, failed]);
    assert_eq!(pixels(&told["data"][1]["b64_json"]), *picture(&[3], 7).pixels());
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn pictures_to_edit_are_sent_as_a_form() {
    let body = json!({ "data": [{ "b64_json": base64(&[3], 0) }] });
    let server = Replay::always(200, "application/json", body.to_string()).await;
    let gateway = gateway(&server.url, "", Setup::default()).await;
    let mut mask = std::io::Cursor::new(Vec::new());
    image::RgbaImage::new(4, 4).write_to(&mut mask, image::ImageFormat::Png).unwrap();
    let file = |bytes: Vec<u8>| reqwest::multipart::Part::bytes(bytes).file_name("x.png");
    for names in [&["image"][..], &["image[]", "image[]"]] {
        let form = names.iter().fold(reqwest::multipart::Form::new(), |form, name| {
            form.part(*name, file(png(&picture(&[0], 5))))
        });
        let form =
            form.part("mask", file(mask.get_ref().clone())).text("prompt", "a hat").text("quality", "low");
        let url = format!("{}/v1/images/edits", gateway.url);
        let response = gateway.client().post(url).multipart(form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let seen = server.seen().pop().unwrap();
        assert_eq!(seen.path, "/v1/images/edits");
        let text = seen.text();
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count(&format!("name=\"{}\"; filename=\"image.png\"", names[0])), names.len());
        assert_eq!(count("name=\"mask\"; filename=\"image.png\"\r\nContent-Type: image/png"), 1);
        assert_eq!(count("name=\"prompt\"\r\n\r\na hat\r\n"), 1);
        assert_eq!(count("name=\"quality\"\r\n\r\nlow\r\n"), 1);
        assert_eq!(count("name=\"n\"\r\n\r\n1\r\n"), 1);
    }
}

#[tokio::test]
async fn what_the_api_cannot_say_is_refused_by_name_before_anything_is_drawn() {
    let upstream = upstream("http://127.0.0.1:1", "");
    let native = |dialect, name: &str| {
        let parameters = serde_json::Map::from_iter([(name.to_owned(), json!(1))]);
        Some(Native { dialect, parameters })
    };
    let base = || PictureRequest { prompt: "p".to_owned(), count: 1, ..PictureRequest::default() };
    let source = |source| PictureRequest { source: Some(source), ..base() };
    let pictures = vec![bytes::Bytes::from_static(b"x")];
    for (request, name) in [
        (PictureRequest { negative_prompt: Some("x".to_owned()), ..base() }, "negative prompt"),
        (PictureRequest { seed: Some(1), ..base() }, "seed"),
        (PictureRequest { steps: Some(1), ..base() }, "steps"),
        (PictureRequest { guidance: Some(1.0), ..base() }, "guidance"),
        (PictureRequest { sampler: Some("x".to_owned()), ..base() }, "sampler"),
        (PictureRequest { scheduler: Some("x".to_owned()), ..base() }, "scheduler"),
        (PictureRequest { native: native(Dialect::A1111, "hr_scale"), ..base() }, "hr_scale"),
        (source(Source { strength: Some(0.5), pictures: pictures.clone(), mask: None }), "strength"),
        (source(Source::default()), "a picture"),
    ] {
        let error = upstream.check(&request).unwrap_err();
        assert_eq!(error.kind(), UpstreamErrorKind::Inexpressible);
        assert!(error.to_string().contains(name), "{error}");
    }
    for request in [
        base(),
        PictureRequest { negative_prompt: Some(String::new()), ..base() },
        PictureRequest { native: native(Dialect::OpenAi, "quality"), ..base() },
        source(Source { pictures, ..Source::default() }),
    ] {
        upstream.check(&request).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_fails_is_quoted_and_nothing_comes_of_it() {
    let error = |code: &str| {
        json!({ "error": { "message": "Your request was rejected.", "code": code } }).to_string()
    };
    let (ok, json) = (200, "application/json");
    // A picture in lines of base64, behind words that bring its beginning near the place where they are cut.
    let picture = base64(&[2], 1);
    let lines: Vec<&str> =
        picture.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let lines = format!("cannot draw this: {}", lines.join("\n"));
    for (status, kind, body, expected, code, words) in [
        (400, json, error("moderation_blocked"), 400, "upstream_refused", "Your request was rejected."),
        (429, json, error("rate_limit_exceeded"), 502, "upstream_failed", "429"),
        (400, json, json!({ "detail": lines }).to_string(), 400, "upstream_refused", "cannot draw this: ["),
        (
            ok,
            json,
            json!({ "data": "your request was rejected" }).to_string(),
            502,
            "upstream_failed",
            "not what was",
        ),
        (500, "image/png", "\u{89}PNG not JSON".to_owned(), 502, "upstream_failed", "500"),
        (ok, "text/html", "<html>".to_owned(), 502, "upstream_failed", "not what was expected"),
        (ok, json, "{\"data\":".to_owned(), 502, "upstream_failed", "not what was expected"),
        (ok, json, "{}".to_owned(), 502, "upstream_failed", "not what was expected"),
        (ok, json, "x".repeat(5000), 502, "upstream_failed", "larger than the 4000 bytes"),
        (ok, json, "{\"data\":[]}".to_owned(), 502, "upstream_failed", "no usable picture"),
        (ok, json, "{\"data\":[{}]}".to_owned(), 502, "upstream_failed", "no usable picture"),
        (
            ok,
            json,
            "{\"data\":[{\"b64_json\":\"%\"}]}".to_owned(),
            502,
            "upstream_failed",
            "no usable picture",
        ),
        (
            ok,
            json,
            "{\"data\":[{\"b64_json\":\"AAAA\"}]}".to_owned(),
            502,
            "upstream_failed",
            "no usable picture",
        ),
    ] {
        let server = Replay::always(status, kind, body.clone()).await;
        let gateway = gateway(&server.url, "answer_bytes = 4000", Setup::default()).await;
        let (got, told) = generate(&gateway, json!({ "prompt": "p" })).await;
        assert_eq!((got.as_u16(), &told["error"]["code"]), (expected, &json!(code)), "{body:.80}: {told}");
        assert!(told["error"]["message"].as_str().unwrap().contains(words), "{told}");
        let told = told.to_string();
        let address = server.url.trim_start_matches("http://");
        assert!(!told.contains(address) && !told.contains("iVBORw0K"), "{told}");
        // What the server says is told where it blames the request.
        assert_eq!(told.contains("request was rejected"), words.starts_with("Your request"), "{told}");
    }
}

/// A stream of events in the published shape.
fn stream(events: &[(&str, Value)]) -> String {
    let event = |(kind, data): &(&str, Value)| {
        let mut data = data.clone();
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n")
    };
    events.iter().map(event).collect()
}

fn partial(index: u32, objects: &[usize]) -> (&'static str, Value) {
    let data =
        json!({ "b64_json": base64(objects, index as u8), "partial_image_index": index, "size": "64x64" });
    ("image_generation.partial_image", data)
}

fn completed(objects: &[usize]) -> (&'static str, Value) {
    ("image_generation.completed", json!({ "b64_json": base64(objects, 40), "usage": { "total_tokens": 1 } }))
}

/// Types, partial index, and what the picture violates, of each event that the gate streams.
async fn streamed(gateway: &Gateway, body: Value) -> Vec<Value> {
    let url = format!("{}/v1/images/generations", gateway.url);
    let response = gateway.client().post(url).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    text.lines()
        .filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()))
        .collect()
}

const PREVIEWS: &str = "[tenant.t.client]\npreviews = true";

#[tokio::test]
async fn partial_images_go_out_judged_and_those_that_violate_do_not() {
    let text = stream(&[partial(0, &[3]), partial(1, &[1]), partial(2, &[0]), completed(&[3])]);
    let server = Replay::always(200, "text/event-stream; charset=utf-8", text).await;
    // A beer is only hidden in the finished picture, so that a preview of it ends nothing and is not shown.
    let tables = "[tenant.t.action.rule]\nbeer = \"redact\"\n[tenant.t.client]\npreviews = true";
    // Previews that the policy asks for are judged however fast they come.
    let setup = Setup { head: "previews = [1, 2, 3]", tables, ..Setup::default() };
    let gateway = gateway(&server.url, "", setup).await;
    let told = streamed(&gateway, json!({ "prompt": "p", "stream": true, "partial_images": 3 })).await;
    let kinds: Vec<(&str, u64)> = told
        .iter()
        .map(|data| (data["type"].as_str().unwrap(), data["partial_image_index"].as_u64().unwrap_or(9)))
        .collect();
    let partial = "image_generation.partial_image";
    assert_eq!(kinds, [(partial, 0), (partial, 1), ("image_generation.completed", 9)]);
    let shown = [picture(&[3], 0), picture(&[0], 2), picture(&[3], 40)];
    for (data, expected) in told.iter().zip(shown) {
        assert_eq!(pixels(&data["b64_json"]), *expected.pixels());
    }
    assert_eq!(told[1]["cluegate"], json!({ "member": 0, "step": 3, "steps": 4 }));
    let seen = server.seen()[0].json();
    assert_eq!((&seen["stream"], &seen["partial_images"], &seen["n"]), (&json!(true), &json!(3), &json!(1)));
    // Fewer than the server sends.
    let few = streamed(&gateway, json!({ "prompt": "p", "stream": true, "partial_images": 1 })).await;
    assert_eq!(few.iter().filter(|data| data["type"] == partial).count(), 1);
}

#[tokio::test]
async fn as_many_partial_images_are_asked_for_as_the_client_wants() {
    let server = Replay::always(200, "text/event-stream", stream(&[completed(&[3])])).await;
    let gateway = gateway(&server.url, "", Setup { tables: PREVIEWS, ..Setup::default() }).await;
    for wanted in [1, 2] {
        let told =
            streamed(&gateway, json!({ "prompt": "p", "stream": true, "partial_images": wanted })).await;
        assert_eq!(told[0]["type"], "image_generation.completed");
    }
    let (status, _) = generate(&gateway, json!({ "prompt": "p" })).await;
    // None without a stream: then the answer is to come at once, and this server's makes no sense.
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let asked: Vec<Value> = server.seen().iter().map(|seen| seen.json()["partial_images"].clone()).collect();
    assert_eq!(asked, [json!(1), json!(2), Value::Null]);
}

#[tokio::test]
async fn without_leave_no_partial_image_is_asked_for_or_shown() {
    let body = json!({ "data": [{ "b64_json": base64(&[3], 0) }, { "b64_json": base64(&[3], 1) }] });
    let server = Replay::always(200, "application/json", body.to_string()).await;
    let gateway = gateway(&server.url, "", Setup::default()).await;
    let asked = json!({ "prompt": "p", "n": 2, "stream": true, "partial_images": 3 });
    let told = streamed(&gateway, asked).await;
    assert_eq!(told.iter().map(|data| &data["type"]).collect::<Vec<_>>(), ["image_generation.completed"; 2]);
    assert_eq!(server.seen()[0].json().get("stream"), None);
}

#[tokio::test]
async fn a_partial_image_of_a_number_that_makes_no_sense_is_a_preview_like_any_other() {
    let text = stream(&[partial(u32::MAX, &[2]), partial(u32::MAX, &[3]), completed(&[3])]);
    let server = Replay::always(200, "text/event-stream", text).await;
    // A sword is only hidden in the finished picture, so that it ends nothing.
    let tables = "[tenant.t.action.rule]\nsword = \"redact\"\n[tenant.t.client]\npreviews = true";
    let gateway = gateway(&server.url, "", Setup { tables, ..Setup::default() }).await;
    let told = streamed(&gateway, json!({ "prompt": "p", "stream": true, "partial_images": 2 })).await;
    assert_eq!(told.last().unwrap()["type"], "image_generation.completed");
    for data in &told {
        assert_eq!(violated(&pixels(&data["b64_json"])), [""; 0]);
    }
}

#[tokio::test]
async fn a_server_that_cannot_stream_may_answer_at_once() {
    let body = json!({ "data": [{ "b64_json": base64(&[3], 0) }] });
    let server = Replay::always(200, "application/json", body.to_string()).await;
    let gateway = gateway(&server.url, "", Setup { tables: PREVIEWS, ..Setup::default() }).await;
    let told =
        streamed(&gateway, json!({ "prompt": "p", "n": 2, "stream": true, "partial_images": 2 })).await;
    assert_eq!(told.iter().map(|data| &data["type"]).collect::<Vec<_>>(), ["image_generation.completed"; 2]);
    // Each picture is a stream of its own.
    let counts: Vec<Value> = server.seen().iter().map(|seen| seen.json()["n"].clone()).collect();
    assert_eq!(counts, [json!(1), json!(1)]);
}

#[tokio::test]
async fn a_stream_that_fails_is_a_failure() {
    let error = |code: &str, kind: &str| {
        let error = json!({ "message": "Your words were rejected.", "code": code, "type": kind });
        stream(&[partial(0, &[3]), ("error", json!({ "error": error }))])
    };
    for (text, code, words) in [
        (
            error("moderation_blocked", "image_generation_user_error"),
            "upstream_refused",
            "Your words were rejected.",
        ),
        (
            error("server_error", "image_generation_server_error"),
            "upstream_failed",
            "the upstream: it failed",
        ),
        (stream(&[partial(0, &[3])]), "upstream_failed", "ended before"),
        ("data: {\"type\":\n\n".to_owned(), "upstream_failed", "not what was expected"),
        (
            stream(&[("image_generation.completed", json!({ "b64_json": "%" }))]),
            "upstream_failed",
            "no usable",
        ),
    ] {
        let server = Replay::always(200, "text/event-stream", text.clone()).await;
        let gateway = gateway(&server.url, "", Setup { tables: PREVIEWS, ..Setup::default() }).await;
        let told = streamed(&gateway, json!({ "prompt": "p", "stream": true, "partial_images": 1 })).await;
        let error = &told.last().unwrap()["error"];
        assert_eq!(error["code"], code, "{text:.80}: {error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_preview_that_is_blocked_ends_the_drawing() {
    let text = stream(&[partial(0, &[2]), partial(1, &[3]), completed(&[3])]);
    let server = Replay::always(200, "text/event-stream", text).await;
    let setup = Setup { head: "previews = [0.25]", ..Setup::default() };
    let gateway = gateway(&server.url, "", setup).await;
    let (status, told) = generate(&gateway, json!({ "prompt": "p" })).await;
    assert_eq!((status, &told["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("moderation_blocked")));
    // The policy's own looks need all partial images, though the client wants none.
    assert_eq!(server.seen()[0].json()["partial_images"], 3);
}

#[tokio::test]
async fn a_client_that_goes_away_closes_the_connection_to_the_server() {
    struct Gone(watch::Sender<u8>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.send_replace(2);
        }
    }
    let (send, mut state) = watch::channel(0);
    let server = Replay::start(move |_| {
        let gone = Gone(send.clone());
        Box::pin(async move {
            gone.0.send_replace(1);
            std::future::pending().await
        })
    })
    .await;
    let gateway = gateway(&server.url, "", Setup::default()).await;
    let url = format!("{}/v1/images/generations", gateway.url);
    let asking = tokio::spawn(gateway.client().post(url).json(&json!({ "prompt": "p" })).send());
    state.wait_for(|state| *state == 1).await.unwrap();
    asking.abort();
    state.wait_for(|state| *state == 2).await.unwrap();
}

#[tokio::test]
async fn a_gate_over_a_gate_takes_no_stand_in_for_a_picture() {
    let scripted = Scripted::new(|order, index| {
        let member = order.first + index;
        Drawn::Picture(picture(if member == 1 { &[2] } else { &[3] }, member as u8))
    });
    let inner = Gateway::start(Setup { upstream: Some(scripted), ..Setup::default() }).await;
    let key = inner.folder.path().join("inner-key");
    std::fs::write(&key, inner.key.reveal()).unwrap();
    let more = format!("key_file = {:?}", key.display().to_string());
    let outer = gateway(&inner.url, &more, Setup::default()).await;
    let (status, told) = generate(&outer, json!({ "prompt": "p", "n": 3 })).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let reasons: Vec<&Value> = (0..3).map(|index| &told["data"][index]["cluegate"]["reason"]).collect();
    assert_eq!(reasons, ["safe", "generator-failure", "safe"]);
    let records = outer.log.records();
    assert!(records.iter().any(|record| record.message.contains("a gate before this one withheld")));
    // Models are those of the inner one, which names none.
    let models = outer.client().get(format!("{}/v1/models", outer.url)).send().await.unwrap();
    assert_eq!(models.json::<Value>().await.unwrap()["data"], json!([]));
}

#[tokio::test]
async fn a_server_is_ready_if_it_answers_and_takes_the_key() {
    for (status, ready) in [(200, 200), (404, 200), (401, 502), (500, 502)] {
        let server = Replay::always(status, "application/json", "{\"data\":[{\"id\":\"m\"}]}").await;
        let gateway = gateway(&server.url, "", Setup::default()).await;
        let client = gateway.client();
        let response = client.get(format!("{}/readyz", gateway.url)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), ready, "{status}");
        let models = client.get(format!("{}/v1/models", gateway.url)).send().await.unwrap();
        assert_eq!(models.status().as_u16(), ready, "{status}");
        if status == 200 {
            assert_eq!(models.json::<Value>().await.unwrap()["data"][0]["id"], "m");
        }
    }
}
