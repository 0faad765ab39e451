//! Clients of the gate under faults: every front end, all kinds of requests, and some that go away.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::tungstenite::{self, WebSocket};

use super::checker::{Seen, pictures_in};
use super::http::{Connection, Message, get, post};
use super::process::Faults;
use super::upstream::numbered;

/// Longer than the gate lets any request live.
const PATIENCE: Duration = Duration::from_secs(20);
/// Share of requests whose client goes away before the answer.
const GOES: f64 = 0.06;
/// Questions after a job, and the time between two.
const POLLS: usize = 60;
const BETWEEN: Duration = Duration::from_millis(50);

type Socket = WebSocket<TcpStream>;

/// What became of the requests of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) good: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    pub(super) silent: u64,
    pub(super) pictures: u64,
    /// Beginnings of pictures that cannot be read.
    pub(super) parts: u64,
}

/// What all callers saw.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<(Vec<Seen>, BTreeMap<&'static str, Count>)>);

impl Tally {
    fn note(&self, what: &'static str, answer: Option<&Message>) {
        let status = answer.map(Message::status);
        self.look(what, answer.map(|answer| answer.body.as_slice()), |count| match status {
            None => count.silent += 1,
            Some(200..300) => count.good += 1,
            Some(400..500) => count.refused += 1,
            Some(_) => count.failed += 1,
        });
        // A header is a place for words of others, too.
        self.look(what, answer.map(Message::head).as_ref().map(String::as_bytes), |_| {});
    }

    /// Notes a frame of a WebSocket.
    fn note_frame(&self, frame: &[u8]) {
        self.look("ComfyUI frame", Some(frame), |count| count.good += 1);
    }

    fn look(&self, what: &'static str, bytes: Option<&[u8]>, count_answer: impl FnOnce(&mut Count)) {
        let held = bytes.map(pictures_in).unwrap_or_default();
        let seen: Vec<Seen> = held.pictures.into_iter().map(|pixels| Seen::new(pixels, what)).collect();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inner.1.entry(what).or_default();
        count_answer(count);
        count.pictures += seen.len() as u64;
        count.parts += held.parts;
        inner.0.extend(seen);
    }

    /// All pictures, and the counts by kind of request.
    pub(super) fn into_parts(self) -> (Vec<Seen>, BTreeMap<&'static str, Count>) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that asks for one thing after another.
pub(super) struct Caller<'a> {
    address: SocketAddr,
    keys: &'a [String],
    chance: SmallRng,
    connection: Option<Connection>,
}

impl<'a> Caller<'a> {
    /// A client of the gate at `address`, with one of `keys` for each request.
    pub(super) fn new(address: SocketAddr, keys: &'a [String], seed: u64) -> Self {
        Self { address, keys, chance: SmallRng::seed_from_u64(seed), connection: None }
    }

    /// Asks for one thing, after a pause.
    pub(super) fn call(&mut self, tally: &Tally, faults: &Faults) {
        thread::sleep(Duration::from_millis(self.chance.random_range(0..60)));
        let key = self.keys[self.chance.random_range(0..self.keys.len())].clone();
        let mut head = format!("authorization: Bearer {key}\r\n");
        if self.chance.random_bool(0.1) {
            let patience = self.chance.random_range(1..400);
            head += &format!("x-cluegate-timeout-ms: {patience}\r\n");
        }
        let some = self.chance.random_range(1..4u32);
        let steps = 20;
        let prompt = "a picture of the scripted world";
        match self.chance.random_range(0..10) {
            0..3 => {
                let n_iter = self.chance.random_range(1..3u32);
                let body = json!({ "prompt": prompt, "batch_size": some, "n_iter": n_iter, "steps": steps });
                self.ask(
                    "A1111 txt2img",
                    &post("/sdapi/v1/txt2img", &head, &body.to_string()),
                    tally,
                    faults,
                );
            }
            3..5 => {
                let body = json!({ "prompt": prompt, "model": "m", "n": some });
                self.ask("OpenAI images", &openai(&head, &body), tally, faults);
            }
            5 => {
                let body =
                    json!({ "prompt": prompt, "model": "m", "n": 1, "stream": true, "partial_images": 2 });
                self.ask("OpenAI images, streamed", &openai(&head, &body), tally, faults);
            }
            6 => {
                self.ask("A1111 progress", &get("/sdapi/v1/progress", &head), tally, faults);
                if self.chance.random_bool(0.2) {
                    self.ask("A1111 interrupt", &post("/sdapi/v1/interrupt", &head, ""), tally, faults);
                }
            }
            7 => self.judge(&head, tally, faults),
            8 => self.job(&head, &json!({ "prompt": prompt, "batch_count": some }), tally, faults),
            _ => self.workflow(&head, tally, faults),
        }
    }

    /// Sends a request and notes its answer, or goes away.
    fn ask(&mut self, what: &'static str, request: &[u8], tally: &Tally, faults: &Faults) -> Option<Message> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.address, PATIENCE).ok()?,
        };
        if self.chance.random_bool(GOES) {
            let _ = connection.send(request);
            thread::sleep(Duration::from_millis(self.chance.random_range(0..60)));
            faults.count("client goes away");
            return None;
        }
        let answer = connection.call(request).ok();
        tally.note(what, answer.as_ref());
        let closes = answer.as_ref().is_none_or(|answer| answer.header("connection") == Some("close"));
        self.connection = (!closes).then_some(connection);
        answer
    }

    fn judge(&mut self, head: &str, tally: &Tally, faults: &Faults) {
        let objects: &[usize] = match self.chance.random_range(0..4) {
            0 | 1 => &[],
            2 => &[2],
            _ => &[0, 3],
        };
        // Far above what the upstreams number.
        let number = self.chance.random_range(1 << 62..u64::MAX);
        let Ok(file) = cluegate_perception::encode_png(&numbered(objects, number)) else { return };
        let body = json!({ "image": BASE64_STANDARD.encode(file), "return_image": true });
        self.ask("judge", &post("/v1/judge", head, &body.to_string()), tally, faults);
    }

    /// A job of stable-diffusion.cpp, until it is done or nobody cares.
    fn job(&mut self, head: &str, body: &Value, tally: &Tally, faults: &Faults) {
        let request = post("/sdcpp/v1/img_gen", head, &body.to_string());
        let Some(answer) = self.ask("sd.cpp job", &request, tally, faults) else { return };
        let Some(id) = text_at(&answer, "/id") else { return };
        let path = format!("/sdcpp/v1/jobs/{id}");
        if self.chance.random_bool(0.1) {
            self.ask("sd.cpp cancel", &post(&format!("{path}/cancel"), head, ""), tally, faults);
        }
        for _ in 0..POLLS {
            let Some(answer) = self.ask("sd.cpp poll", &get(&path, head), tally, faults) else { return };
            let ended = text_at(&answer, "/status")
                .is_none_or(|status| !["queued", "generating"].contains(&&*status));
            if ended {
                return;
            }
            thread::sleep(BETWEEN);
        }
    }

    /// A workflow of ComfyUI, its events, its history, and the files that it names.
    fn workflow(&mut self, head: &str, tally: &Tally, faults: &Faults) {
        let client = format!("soak-{}", self.chance.random_range(0..u64::MAX));
        // Not every client listens.
        let socket = match self.chance.random_bool(0.7) {
            true => open_socket(self.address, head, &client, self.chance.random_bool(0.5)),
            false => None,
        };
        let body = json!({ "prompt": graph(self.chance.random_range(1..1 << 30)), "client_id": client });
        let request = post("/prompt", head, &body.to_string());
        let Some(answer) = self.ask("ComfyUI prompt", &request, tally, faults) else { return };
        let Some(id) = text_at(&answer, "/prompt_id") else { return };
        if let Some(socket) = socket {
            listen(socket, &id, tally);
        }
        for _ in 0..POLLS {
            let history = get(&format!("/history/{id}"), head);
            let Some(answer) = self.ask("ComfyUI history", &history, tally, faults) else { return };
            let history: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let Some(entry) = history.get(&id) else {
                thread::sleep(BETWEEN);
                continue;
            };
            let outputs = entry["outputs"].as_object().into_iter().flatten();
            let images = outputs.filter_map(|(_, output)| output["images"].as_array()).flatten();
            for image in images {
                let field = |name: &str| image[name].as_str().unwrap_or_default().to_owned();
                let query =
                    ["filename", "subfolder", "type"].map(|name| format!("{name}={}", field(name))).join("&");
                self.ask("ComfyUI view", &get(&format!("/view?{query}"), head), tally, faults);
            }
            return;
        }
    }
}

/// A WebSocket for the events of `client`, which may know that previews have metadata.
fn open_socket(address: SocketAddr, head: &str, client: &str, metadata: bool) -> Option<Socket> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request = format!("ws://{address}/ws?clientId={client}").into_client_request().ok()?;
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        request.headers_mut().insert(HeaderName::try_from(name).ok()?, value.parse().ok()?);
    }
    let (mut socket, _) = tungstenite::client(request, stream).ok()?;
    if metadata {
        let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
        socket.send(tungstenite::Message::text(flags.to_string())).ok()?;
    }
    Some(socket)
}

/// Notes all frames until the prompt `id` has ended, or nothing more is told.
fn listen(mut socket: Socket, id: &str, tally: &Tally) {
    while let Ok(frame) = socket.read() {
        tally.note_frame(&frame.clone().into_data());
        let event: Value =
            frame.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let ours = event["data"]["prompt_id"] == id;
        if ours && event["type"] == "executing" && event["data"]["node"].is_null() {
            return;
        }
    }
}

fn openai(head: &str, body: &Value) -> Vec<u8> {
    post("/v1/images/generations", head, &body.to_string())
}

fn text_at(answer: &Message, place: &str) -> Option<String> {
    let json: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(json.pointer(place)?.as_str()?.to_owned())
}

/// ComfyUI's own first workflow, in API form.
fn graph(seed: u64) -> Value {
    json!({
        "3": { "class_type": "KSampler", "inputs": {
            "seed": seed, "steps": 20, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0] } },
        "4": { "class_type": "CheckpointLoaderSimple", "inputs": { "ckpt_name": "m" } },
        "5": { "class_type": "EmptyLatentImage", "inputs": { "width": 64, "height": 64, "batch_size": 1 } },
        "6": { "class_type": "CLIPTextEncode", "inputs": { "text": "the scripted world", "clip": ["4", 1] } },
        "7": { "class_type": "CLIPTextEncode", "inputs": { "text": "", "clip": ["4", 1] } },
        "8": { "class_type": "VAEDecode", "inputs": { "samples": ["3", 0], "vae": ["4", 2] } },
        "9": { "class_type": "SaveImage", "inputs": { "filename_prefix": "soak", "images": ["8", 0] } },
    })
}
