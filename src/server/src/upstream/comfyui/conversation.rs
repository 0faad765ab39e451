//! One order's talk with a ComfyUI server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::{StatusCode, Upgraded, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::ComfyUi;
use super::plan::{Plan, Shown};
use crate::comfyui::frames;
use crate::upstream::{
    Event, Order, Progress, Unjudged, UpstreamError, UpstreamErrorKind as Kind, send_if_room,
};

/// How long the server may take for each step of stopping our work. An order that is called off has longer.
const STOP: Duration = Duration::from_secs(3);
/// Most nodes whose steps are remembered, and the longest id of one, in bytes.
const STEPPING: usize = 256;
const LONGEST_ID: usize = 128;

/// What the server says over the WebSocket: ComfyUI `server.py`, `send_json`.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

/// Answer to `POST /prompt`.
#[derive(Deserialize)]
struct Queued {
    prompt_id: String,
}

/// A file that a prompt made.
#[derive(Deserialize)]
struct File {
    filename: String,
    #[serde(default)]
    subfolder: String,
    #[serde(rename = "type")]
    folder: String,
}

/// A prompt that the server works on.
#[derive(Debug, Default)]
struct Steps {
    /// Last finished step and number of steps, by node.
    nodes: BTreeMap<String, (u32, u32)>,
    /// The node of the last step.
    last: Option<String>,
}

/// An order's talk with the server.
pub(super) struct Conversation<'a> {
    server: &'a ComfyUi,
    order: &'a Order,
    events: mpsc::Sender<Event>,
    client_id: String,
    socket: WebSocketStream<Upgraded>,
    /// The prompt that waits or is drawn.
    open: Option<String>,
    /// Prompts that are in the server's history because of us.
    ended: Vec<String>,
}

impl<'a> Conversation<'a> {
    /// Opens the WebSocket, with a client id of the order's own, so that nobody else's events come.
    ///
    /// # Errors
    /// If the server cannot be reached or does not speak WebSocket.
    pub(super) async fn open(
        server: &'a ComfyUi,
        order: &'a Order,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, UpstreamError> {
        let client_id = uuid::Uuid::now_v7().simple().to_string();
        let deadline = order.deadline.min(Instant::now() + server.timeout);
        let opened = tokio::time::timeout_at(deadline.into(), connect(server, &client_id)).await;
        let late = |_| server.http.error(Kind::Timeout, "it did not open a WebSocket in time");
        let mut socket = opened.map_err(late)??;
        if order.wants_previews() {
            // `comfy_api/feature_flags.py`: previews come with the node that they belong to. Older servers ignore it.
            let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
            let sent = socket.send(Message::text(flags.to_string())).await;
            sent.map_err(|error| broken(server, &error))?;
        }
        Ok(Self { server, order, events, client_id, socket, open: None, ended: Vec::new() })
    }

    /// Draws a prompt, the `index`-th of `count` of the order, and sends its pictures.
    ///
    /// # Errors
    /// If the server refuses it, fails, or is too slow.
    pub(super) async fn draw(&mut self, plan: &Plan, part: (u32, u32)) -> Result<(), UpstreamError> {
        let deadline = self.order.deadline.min(Instant::now() + self.server.timeout);
        let id = self.queue(plan, deadline).await?;
        let followed = self.follow(plan, &id, part, deadline).await;
        if self.open.is_none() {
            self.ended.push(id.clone());
        }
        followed?;
        self.collect(plan, &id, deadline).await
    }

    async fn queue(&mut self, plan: &Plan, deadline: Instant) -> Result<String, UpstreamError> {
        // Known before the server answers, so that it can be stopped if the order is called off meanwhile.
        let ours = uuid::Uuid::now_v7().to_string();
        self.open = Some(ours.clone());
        let preview = if self.order.wants_previews() { "auto" } else { "none" };
        let body = json!({
            "prompt": plan.workflow.to_json(),
            "client_id": self.client_id,
            "prompt_id": ours,
            "extra_data": { "preview_method": preview },
        });
        let server = self.server;
        let http = &server.http;
        let queued = http.json::<Queued>(http.post("/prompt").json(&body), deadline).await;
        let Queued { prompt_id } = match queued {
            Ok(queued) => queued,
            Err(error) => {
                if error.kind() == Kind::Refused {
                    self.open = None;
                }
                return Err(error);
            }
        };
        // It becomes part of an address.
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if prompt_id.is_empty() || prompt_id.len() > 64 || !prompt_id.bytes().all(harmless) {
            return Err(http.error(Kind::Malformed, "it names the prompt with what is no word"));
        }
        self.open = Some(prompt_id.clone());
        Ok(prompt_id)
    }

    /// Waits until the prompt has ended, and tells how far it is meanwhile.
    async fn follow(
        &mut self,
        plan: &Plan,
        id: &str,
        part: (u32, u32),
        deadline: Instant,
    ) -> Result<(), UpstreamError> {
        let server = self.server;
        let http = &server.http;
        let mut steps = Steps::default();
        let mut failure = None;
        loop {
            let message = tokio::time::timeout_at(deadline.into(), self.socket.next()).await;
            let message = match message {
                Err(_) => {
                    return Err(failure.unwrap_or_else(|| http.error(Kind::Timeout, "it took too long")));
                }
                Ok(None) => {
                    let closed = || http.error(Kind::Unreachable, "it closed the WebSocket before the end");
                    return Err(failure.unwrap_or_else(closed));
                }
                Ok(Some(message)) => message.map_err(|error| broken(server, &error))?,
            };
            match message {
                Message::Text(text) => {
                    let Ok(Told { kind, data }) = serde_json::from_str(&text) else { continue };
                    if data.get("prompt_id").and_then(Value::as_str) != Some(id) {
                        continue;
                    }
                    match kind.as_str() {
                        "progress" | "progress_state" => self.step(plan, &mut steps, &data, part),
                        "execution_error" => failure = Some(self.failed(&data)),
                        "execution_interrupted" => {
                            failure = Some(http.error(Kind::Failed, "somebody interrupted its work"));
                        }
                        // The prompt has left the queue, and its history is written (`main.py`, `prompt_worker`).
                        "executing" if data.get("node").is_some_and(Value::is_null) => {
                            self.open = None;
                            return failure.map_or(Ok(()), Err);
                        }
                        _ => {}
                    }
                }
                Message::Binary(frame) => self.preview(plan, &steps, id, &frame).await,
                _ => {}
            }
        }
    }

    fn failed(&self, data: &Value) -> UpstreamError {
        let word = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
        let said =
            format!("{} node: {}: {}", word("node_type"), word("exception_type"), word("exception_message"));
        self.server.http.error_with(Kind::Failed, "it failed at a node", &said)
    }

    /// Notes a step: `main.py`, `hijack_progress`, and `comfy_execution/progress.py`.
    fn step(&self, plan: &Plan, steps: &mut Steps, data: &Value, (index, count): (u32, u32)) {
        let mut note = |node: Option<&str>, state: &Value| {
            let number =
                |name: &str| state.get(name).and_then(Value::as_f64).map(|n| n.clamp(0.0, 1e6) as u32);
            let (Some(node), Some(step), Some(total)) = (node, number("value"), number("max")) else {
                return;
            };
            // Nodes without steps of their own count from 0 to 1.
            if total > 1
                && node.len() <= LONGEST_ID
                && (steps.nodes.len() < STEPPING || steps.nodes.contains_key(node))
            {
                steps.nodes.insert(node.to_owned(), (step.min(total), total));
                steps.last = Some(node.to_owned());
            }
        };
        match data.get("nodes").and_then(Value::as_object) {
            Some(nodes) => nodes
                .iter()
                .filter(|(_, state)| state.get("state").and_then(Value::as_str) == Some("running"))
                .for_each(|(node, state)| note(Some(node), state)),
            None => note(data.get("node").and_then(Value::as_str), data),
        }
        let Some((step, total)) = steps.last.as_ref().and_then(|node| steps.nodes.get(node)).copied() else {
            return;
        };
        let done = (steps.nodes.len() - 1) as f64 + f64::from(step) / f64::from(total);
        let fraction = done / (plan.samplers().max(steps.nodes.len()) as f64);
        let fraction = (f64::from(index) + fraction) / f64::from(count.max(1));
        // Who waits for pictures does not wait for this.
        let progress = Progress { fraction, step: Some(step), steps: Some(total) };
        send_if_room(&self.events, Event::Progress(progress));
    }

    async fn preview(&mut self, plan: &Plan, steps: &Steps, id: &str, frame: &Bytes) {
        if !self.order.wants_previews() {
            return;
        }
        let Some(frame) = frames::read(frame) else { return };
        let node = match frame.of {
            Some((_, prompt)) if prompt != id => return,
            Some((node, _)) => Some(node),
            None => steps.last.clone(),
        };
        let Some(node) = node else { return };
        let (Some((step, total)), Some(index)) = (steps.nodes.get(&node).copied(), plan.previewed(&node))
        else {
            return;
        };
        let event = Event::Preview { index, step, total, picture: Unjudged::encoded(frame.picture) };
        self.order.send_preview(&self.events, event).await;
    }

    /// Fetches the pictures of a prompt that has ended, and no others.
    async fn collect(&mut self, plan: &Plan, id: &str, deadline: Instant) -> Result<(), UpstreamError> {
        let server = self.server;
        let http = &server.http;
        let history: Value = http.json(http.get(&format!("/history/{id}")), deadline).await?;
        let outputs = history.get(id).and_then(|entry| entry.get("outputs"));
        let outputs =
            outputs.ok_or_else(|| http.error(Kind::Malformed, "its history has no entry of the prompt"))?;
        for Shown { node, skip, first, count } in &plan.shown {
            let files = outputs.get(node).and_then(|output| output.get("images")).and_then(Value::as_array);
            for i in 0..*count {
                let index = first + i;
                let file = files.and_then(|files| files.get((skip + i) as usize));
                let file = file.and_then(|file| File::deserialize(file).ok());
                let event = match file {
                    Some(file) => match fetch(server, &file, deadline).await {
                        Ok(bytes) => Event::Picture { index, picture: Unjudged::encoded(bytes) },
                        Err(error) => {
                            tracing::warn!(%error, "a picture could not be fetched");
                            Event::Failed { index, why: error.told().to_owned() }
                        }
                    },
                    None => Event::Failed { index, why: "the upstream gave no such picture out".to_owned() },
                };
                if self.events.send(event).await.is_err() {
                    return Err(http.error(Kind::Cancelled, "nobody waits for its pictures"));
                }
            }
        }
        Ok(())
    }

    /// Stops what is still open, and takes our prompts out of the server's history: nobody else is to find their pictures
    /// there.
    pub(super) async fn close(mut self) {
        if let Some(id) = self.open.take() {
            self.stop(&id).await;
            self.ended.push(id);
        }
        if !self.ended.is_empty() {
            tell(self.server, "/history", json!({ "delete": self.ended })).await;
        }
        let _ = tokio::time::timeout(STOP, self.socket.close(None)).await;
    }

    /// Takes our prompt out of the queue; if it is the one that the server works on, interrupts it. Never anybody else's:
    /// a server that knows no `prompt_id` here interrupts whatever it works on.
    async fn stop(&mut self, id: &str) {
        tell(self.server, "/queue", json!({ "delete": [id] })).await;
        let server = self.server;
        let http = &server.http;
        let queue = http.json::<Value>(http.get("/queue"), Instant::now() + STOP).await;
        let running = queue.ok().and_then(|queue| {
            let running = queue.get("queue_running")?.as_array()?;
            Some(running.iter().any(|item| item.get(1).and_then(Value::as_str) == Some(id)))
        });
        if running != Some(true) {
            return;
        }
        tell(self.server, "/interrupt", json!({ "prompt_id": id })).await;
        // Its entry in the history comes at its end.
        let ends = async {
            while let Some(Ok(message)) = self.socket.next().await {
                let Message::Text(text) = message else { continue };
                let Ok(Told { kind, data }) = serde_json::from_str(&text) else { continue };
                let ours = data.get("prompt_id").and_then(Value::as_str) == Some(id);
                if ours && kind == "executing" && data.get("node").is_some_and(Value::is_null) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(STOP, ends).await;
    }
}

/// Opens a WebSocket over the upstream's HTTP client, with its key and certificates (RFC 6455, section 4.1).
async fn connect(server: &ComfyUi, client_id: &str) -> Result<WebSocketStream<Upgraded>, UpstreamError> {
    let http = &server.http;
    let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
    let request = http
        .get(&format!("/ws?clientId={client_id}"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key);
    let unreachable = |error: reqwest::Error| {
        http.error_with(Kind::Unreachable, "no WebSocket could be opened", &error.to_string())
    };
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let message = format!("expected a WebSocket at /ws, got status {status}");
        return Err(http.error(Kind::Failed, &message));
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT).and_then(|value| value.to_str().ok());
    if accept != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(http.error(Kind::Malformed, "its answer to the WebSocket's key is wrong"));
    }
    let upgraded = response.upgrade().await.map_err(unreachable)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(server.answer_bytes))
        .max_frame_size(Some(server.answer_bytes));
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

fn broken(server: &ComfyUi, error: &tokio_tungstenite::tungstenite::Error) -> UpstreamError {
    use tokio_tungstenite::tungstenite::Error;
    let kind = match error {
        Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_) => Kind::Malformed,
        _ => Kind::Unreachable,
    };
    server.http.error_with(kind, "the WebSocket broke", &error.to_string())
}

/// Fetches a file that a prompt made.
async fn fetch(server: &ComfyUi, file: &File, deadline: Instant) -> Result<Bytes, UpstreamError> {
    let http = &server.http;
    let named = [("filename", &file.filename), ("subfolder", &file.subfolder), ("type", &file.folder)];
    let url = Url::parse_with_params(&http.url("/view"), named)
        .map_err(|_| http.error(Kind::Malformed, "it names a file that no address can hold"))?;
    let request = http.get(&format!("/view?{}", url.query().unwrap_or_default()));
    http.bytes(http.send(request, deadline).await?).await
}

/// Tells the server something that it answers with nothing.
async fn tell(server: &ComfyUi, path: &str, body: Value) {
    let http = &server.http;
    let told = http.send(http.post(path).json(&body), Instant::now() + STOP).await;
    if let Err(error) = told {
        tracing::warn!(%error, path, "the upstream did not clean up after an order");
    }
}
