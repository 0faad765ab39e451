//! Every route of every front over an upstream of which no picture may get out: not its file, not its pixels, not its
//! text, in no answer, header, event, frame or line of the log.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::{picture, shows};
use cluegate_server::{
    Dialect, Event, Order, PictureRequest, Unjudged, Upstream, UpstreamError, UpstreamErrorKind,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{Drawn, Gateway, Scripted, Setup, log_lines, png, within};

/// The object that no policy here allows.
const SWORD: usize = 2;
/// What the text chunk of every picture says.
const TEXT: &str = "secret prompt of the upstream";

/// Draws swords only, shows them in previews too, and puts them into its errors.
#[derive(Default)]
struct Marked {
    files: Arc<Mutex<Vec<Vec<u8>>>>,
    orders: Mutex<u8>,
}

impl Marked {
    fn file(&self, salt: u8) -> Vec<u8> {
        let file = png(&picture(&[SWORD], salt));
        self.files.lock().unwrap().push(file.clone());
        file
    }
}

impl Upstream for Marked {
    fn dialect(&self) -> Dialect {
        Dialect::BuiltIn
    }

    fn fingerprint(&self) -> &str {
        "marked"
    }

    fn batch_size(&self) -> u32 {
        4
    }

    fn check(&self, _: &PictureRequest) -> Result<(), UpstreamError> {
        Ok(())
    }

    fn draw<'a>(
        &'a self,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async move {
            let salt = {
                let mut orders = self.orders.lock().unwrap();
                *orders = orders.wrapping_add(1);
                *orders
            };
            for index in 0..order.count {
                let file = self.file(salt.wrapping_add(index as u8));
                let words = format!("out of memory: {}", BASE64_STANDARD.encode(&file));
                for step in 1..4 {
                    let picture = Unjudged::encoded(file.clone());
                    let _ = events.send(Event::Preview { index, step, total: 4, picture }).await;
                }
                match salt % 4 {
                    0 => drop(events.send(Event::Failed { index, why: words }).await),
                    1 => return Err(UpstreamError::new(UpstreamErrorKind::Failed, words)),
                    // The file behind a page, which is no picture.
                    2 if index == 0 => {
                        let page = [b"<html>", file.as_slice()].concat();
                        let _ = events.send(Event::Picture { index, picture: Unjudged::encoded(page) }).await;
                    }
                    _ => drop(events.send(Event::Picture { index, picture: Unjudged::encoded(file) }).await),
                }
            }
            Ok(())
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), UpstreamError>> {
        let words = BASE64_STANDARD.encode(self.file(200));
        Box::pin(async { Err(UpstreamError::new(UpstreamErrorKind::Failed, words)) })
    }
}

/// What must not be found, and how to look for it.
struct Search {
    /// Parts of the files and of their base64, by their first bytes.
    parts: HashMap<[u8; 8], Vec<(Vec<u8>, &'static str)>>,
}

impl Search {
    fn new(files: &[Vec<u8>]) -> Self {
        let mut search = Self { parts: HashMap::new() };
        search.add(&TEXT.as_bytes()[..18], "the text");
        for file in files {
            // Behind the header and the text chunk, which clean files share in part.
            let data = &file[file.len() / 2..file.len() / 2 + 48];
            search.add(data, "the file");
            for shift in 0..3 {
                search.add(BASE64_STANDARD.encode(&data[shift..shift + 36]).as_bytes(), "the file in base64");
            }
        }
        search
    }

    fn add(&mut self, part: &[u8], what: &'static str) {
        self.parts.entry(part[..8].try_into().unwrap()).or_default().push((part.to_vec(), what));
    }

    fn known(&self, bytes: &[u8]) -> Option<&'static str> {
        bytes.windows(8).enumerate().find_map(|(at, window)| {
            let parts = self.parts.get(<&[u8; 8]>::try_from(window).ok()?)?;
            parts.iter().find(|(part, _)| bytes[at..].starts_with(part)).map(|(_, what)| *what)
        })
    }

    /// What of a marked picture is in `bytes`, if anything: as a file, in base64, in JSON, in events, or as pixels.
    fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        if let Some(known) = self.known(bytes) {
            return Some(known);
        }
        if image::load_from_memory(bytes).is_ok_and(|image| shows(&image.to_rgb8(), SWORD)) {
            return Some("the pixels");
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let documents = [text].into_iter().chain(text.lines().filter_map(|line| line.strip_prefix("data: ")));
        documents
            .filter_map(|document| serde_json::from_str::<Value>(document).ok())
            .find_map(|json| self.within(&json))
    }

    fn within(&self, json: &Value) -> Option<&'static str> {
        match json {
            Value::String(text) => {
                let encoded = text.rsplit_once("base64,").map_or(text.as_str(), |(_, data)| data);
                let decoded = BASE64_STANDARD.decode(encoded).ok().filter(|bytes| bytes.len() > 30);
                let inner = serde_json::from_str::<Value>(text).ok().filter(|inner| !inner.is_string());
                decoded.and_then(|bytes| self.find(&bytes)).or_else(|| self.within(&inner?))
            }
            Value::Array(values) => values.iter().find_map(|value| self.within(value)),
            Value::Object(values) => values.values().find_map(|value| self.within(value)),
            _ => None,
        }
    }
}

#[test]
fn the_search_finds_what_leaks() {
    let file = png(&picture(&[SWORD], 5));
    let search = Search::new(std::slice::from_ref(&file));
    let encoded = BASE64_STANDARD.encode(&file);
    let clean = png(&picture(&[3], 5));
    let mut pixels = Vec::new();
    let drawn = picture(&[SWORD], 9);
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut pixels);
    encoder.encode(drawn.pixels().as_raw(), 64, 64, image::ExtendedColorType::Rgb8).unwrap();
    let inner = json!({ "info": json!({ "image": BASE64_STANDARD.encode(&pixels) }).to_string() });
    for leak in [
        file.clone(),
        [b"x", file.as_slice()].concat(),
        encoded.clone().into_bytes(),
        json!({ "images": [encoded] }).to_string().into_bytes(),
        pixels.clone(),
        inner.to_string().into_bytes(),
        format!("event: x\ndata: {inner}\n\n").into_bytes(),
        format!("\"data:image/webp;base64,{}\"", BASE64_STANDARD.encode(&pixels)).into_bytes(),
        clean,
    ] {
        assert!(search.find(&leak).is_some(), "{}", String::from_utf8_lossy(&leak));
    }
    for harmless in [&b"{\"images\":[]}"[..], b"", b"event: x\ndata: {}\n\n"] {
        assert_eq!(search.find(harmless), None);
    }
}

fn data_url(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(file))
}

/// A workflow of ComfyUI for two pictures.
fn workflow() -> Value {
    json!({
        "3": { "class_type": "KSampler", "inputs": {
            "cfg": 8, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0],
            "sampler_name": "euler", "scheduler": "normal", "seed": 85, "steps": 20 } },
        "4": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "v1-5.ckpt" } },
        "5": { "class_type": "EmptyLatentImage", "inputs": { "batch_size": 2, "height": 64, "width": 64 } },
        "6": { "class_type": "CLIPTextEncode", "inputs": { "clip": ["4", 1], "text": "a man" } },
        "7": { "class_type": "CLIPTextEncode", "inputs": { "clip": ["4", 1], "text": "bad hands" } },
        "8": { "class_type": "VAEDecode", "inputs": { "samples": ["3", 0], "vae": ["4", 2] } },
        "9": { "class_type": "SaveImage", "inputs": { "filename_prefix": "ComfyUI", "images": ["8", 0] } },
    })
}

/// What is sent to a route that reads a body. A route that is not named here gets an empty object.
fn bodies(path: &str, brought: &[u8]) -> Vec<Value> {
    let url = data_url(brought);
    let plain = BASE64_STANDARD.encode(brought);
    match path.trim_start_matches("/api") {
        "/sdapi/v1/txt2img" => vec![json!({ "prompt": "two", "batch_size": 2, "n_iter": 2, "steps": 4 })],
        "/sdapi/v1/img2img" => vec![json!({ "prompt": "two", "batch_size": 2, "init_images": [plain] })],
        "/v1/images/generations" => vec![
            json!({ "prompt": "two", "n": 2 }),
            json!({ "prompt": "two", "n": 2, "response_format": "url" }),
            json!({ "prompt": "two", "n": 2, "stream": true, "partial_images": 3 }),
        ],
        "/sdcpp/v1/img_gen" => vec![json!({ "prompt": "two", "batch_count": 2 })],
        "/prompt" => vec![json!({ "prompt": workflow(), "client_id": "desk" })],
        "/v1/judge" => vec![
            json!({ "image": plain, "return_image": true }),
            json!({ "image_url": url, "return_image": true, "format": "webp" }),
        ],
        "/v1/moderations" => vec![json!({ "input": [{ "type": "image_url", "image_url": { "url": url } }] })],
        "/beta/litellm_basic_guardrail_api" => vec![
            json!({ "input_type": "request", "texts": [], "images": [url], "request_data": {} }),
            json!({ "input_type": "response", "texts": [], "images": [url], "request_data": {} }),
        ],
        _ => vec![json!({})],
    }
}

/// Words of answers that may be names of things: ids, files, jobs.
fn names(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::String(text) => {
            let name = text.rsplit('/').next().unwrap_or(text);
            if (8..=80).contains(&name.len()) && name.chars().any(|c| c.is_ascii_digit()) {
                found.insert(name.to_owned());
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        Value::Object(values) => values.iter().for_each(|(key, value)| {
            names(&Value::String(key.clone()), found);
            names(value, found);
        }),
        _ => {}
    }
}

/// Walks all routes of the OpenAPI document, which is tested against the routes that there are.
struct Walk<'a> {
    gateway: &'a Gateway,
    client: reqwest::Client,
    paths: Vec<(String, Vec<String>)>,
    names: BTreeSet<String>,
    answers: Vec<(String, u16, Vec<u8>)>,
}

impl<'a> Walk<'a> {
    async fn new(gateway: &'a Gateway, client: reqwest::Client) -> Self {
        let document = client.get(format!("{}/openapi.json", gateway.url)).send().await.unwrap();
        let document: Value = document.json().await.unwrap();
        let methods = |item: &Value| {
            let known = ["get", "post", "put", "patch", "delete", "head"];
            known
                .iter()
                .filter(|method| item.get(*method).is_some())
                .map(|method| method.to_uppercase())
                .collect()
        };
        let paths = document["paths"].as_object().unwrap().iter();
        let paths: Vec<(String, Vec<String>)> =
            paths.map(|(path, item)| (path.clone(), methods(item))).collect();
        assert!(paths.len() > 10, "{paths:?}");
        Self { gateway, client, paths, names: BTreeSet::from(["nothing-7".to_owned()]), answers: Vec::new() }
    }

    async fn keep(&mut self, what: String, response: Response) {
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        for (name, value) in response.headers() {
            bytes.extend_from_slice(
                format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())).as_bytes(),
            );
        }
        self.answers.push((format!("the headers of {what}"), status, bytes));
        let body = within(response.bytes()).await.unwrap_or_default().to_vec();
        if let Ok(json) = serde_json::from_slice(&body) {
            names(&json, &mut self.names);
        }
        self.answers.push((what, status, body));
    }

    async fn send(&mut self, method: &str, path: &str, body: Option<Value>) {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.gateway.url));
        let request = match &body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = within(request.timeout(Duration::from_secs(20)).send()).await.unwrap();
        self.keep(format!("{method} {path}"), response).await;
    }

    /// Routes without a name in their path, and then those with one, for every name that was heard of.
    async fn all(&mut self, brought: &[u8]) {
        let paths = self.paths.clone();
        let is_socket = |path: &str| path.ends_with("/ws");
        for (path, methods) in paths.iter().filter(|(path, _)| !path.contains('{') && !is_socket(path)) {
            for method in methods {
                if method == "POST" {
                    for body in bodies(path, brought) {
                        self.send(method, path, Some(body)).await;
                    }
                } else {
                    self.send(method, path, None).await;
                }
            }
        }
        let form = reqwest::multipart::Form::new().text("prompt", "two").part(
            "image",
            reqwest::multipart::Part::bytes(brought.to_vec())
                .file_name("a.png")
                .mime_str("image/png")
                .unwrap(),
        );
        let edit = self.client.post(format!("{}/v1/images/edits", self.gateway.url)).multipart(form);
        let response = within(edit.send()).await.unwrap();
        self.keep("an edit".to_owned(), response).await;
        // Jobs have ended, or are waited for: what is asked for below is asked for twice.
        for _ in 0..2 {
            for name in self.names.clone() {
                self.named(&name).await;
            }
        }
    }

    /// Everything that can be asked about `name`.
    async fn named(&mut self, name: &str) {
        let paths = self.paths.clone();
        for (path, methods) in paths.iter().filter(|(path, _)| path.contains('{')) {
            let place = path.split('{').next().unwrap_or_default();
            let rest = path.split_once('}').map_or("", |(_, rest)| rest);
            for method in methods {
                let body = (method == "POST").then(|| json!({}));
                self.send(method, &format!("{place}{name}{rest}"), body).await;
            }
        }
        for (view, _) in paths.iter().filter(|(path, _)| path.ends_with("/view")) {
            for kind in ["output", "temp", "input"] {
                self.send("GET", &format!("{view}?filename={name}&subfolder=&type={kind}"), None).await;
            }
        }
    }

    /// Frames of the WebSocket while a workflow is drawn, if there is such a route.
    async fn frames(&mut self) {
        if !self.paths.iter().any(|(path, _)| path == "/ws") {
            return;
        }
        let address = format!("{}/ws?clientId=desk", self.gateway.url.replace("http", "ws"));
        let mut request = address.into_client_request().unwrap();
        let key = format!("Bearer {}", self.gateway.key.reveal()).parse().unwrap();
        request.headers_mut().insert("authorization", key);
        let (mut socket, _) = within(tokio_tungstenite::connect_async(request)).await.unwrap();
        for _ in 0..4 {
            self.send("POST", "/prompt", Some(json!({ "prompt": workflow(), "client_id": "desk" }))).await;
            let mut ended = false;
            while !ended {
                let bytes = match within(socket.next()).await.unwrap().unwrap() {
                    Message::Text(text) => text.as_bytes().to_vec(),
                    // Behind the header of eight bytes there is a picture.
                    Message::Binary(frame) => frame.get(8..).unwrap_or_default().to_vec(),
                    _ => continue,
                };
                let event: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                ended = event["type"] == "execution_error"
                    || event["type"] == "execution_success"
                    || (event["type"] == "executing" && event["data"]["node"].is_null());
                self.answers.push(("a frame".to_owned(), 0, bytes));
            }
        }
    }
}

#[tokio::test]
async fn no_answer_holds_anything_of_a_picture_that_was_not_released() {
    let upstream = Arc::new(Marked::default());
    let files = Arc::clone(&upstream.files);
    let tables = "[tenant.t.client]\nevidence = true\npreviews = true\n";
    let head = "previews = [1]";
    let gateway = Gateway::start(Setup { head, tables, upstream: Some(upstream), ..Setup::default() }).await;
    let brought = png(&picture(&[SWORD], 77));
    files.lock().unwrap().push(brought.clone());
    let mut walk = Walk::new(&gateway, gateway.client()).await;
    // Every kind of failure that the upstream has, on every route that draws.
    for _ in 0..4 {
        walk.all(&brought).await;
    }
    walk.frames().await;
    let files = files.lock().unwrap().clone();
    assert!(files.len() > 30, "{}", files.len());
    let search = Search::new(&files);
    for (what, status, bytes) in &walk.answers {
        let found = search.find(bytes);
        assert_eq!(
            found,
            None,
            "{what} ({status}): {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(2000)])
        );
    }
    let lines = log_lines().join("\n");
    assert_eq!(search.find(lines.as_bytes()), None);
    for line in log_lines() {
        assert!(!line.contains(gateway.key.reveal()), "{line}");
    }
    let released = gateway.log.records().iter().filter(|record| record.released_picture.is_some()).count();
    assert_eq!(released, 0);
    assert!(gateway.log.records().len() > 30);
}

#[tokio::test]
async fn a_tenant_finds_nothing_of_another() {
    let upstream = Scripted::new(|_, index| Drawn::Bytes(png(&picture(&[3], index as u8))));
    let gateway = Gateway::start(Setup { upstream: Some(upstream), ..Setup::default() }).await;
    let brought = png(&picture(&[3], 77));
    let mut own = Walk::new(&gateway, gateway.client()).await;
    own.all(&brought).await;
    let fetched =
        own.answers.iter().filter(|(what, status, _)| *status == 200 && what.starts_with("GET")).count();
    assert!(fetched > 3, "{fetched}");
    let heard = own.names.clone();
    let decisions: Vec<String> =
        gateway.log.records().iter().map(|record| record.decision_id.clone()).collect();
    let mut other = Walk::new(&gateway, gateway.other_client()).await;
    for (path, methods) in other.paths.clone() {
        if methods.iter().any(|method| method == "GET") && !path.contains('{') && !path.ends_with("/ws") {
            other.send("GET", &path, None).await;
        }
    }
    for name in heard.iter().chain(&decisions) {
        other.named(name).await;
    }
    // The document holds examples of its own.
    for (what, status, bytes) in other.answers.iter().filter(|(what, ..)| !what.ends_with("/openapi.json")) {
        let text = String::from_utf8_lossy(bytes);
        assert!(image::load_from_memory(bytes).is_err(), "{what} ({status})");
        assert!(!text.contains("a man") && !text.contains("b64_json"), "{what} ({status}): {text}");
        for decision in &decisions {
            // What was asked for may be named in the refusal.
            assert!(*status >= 400 || !text.contains(decision), "{what} ({status}): {text}");
        }
    }
}
