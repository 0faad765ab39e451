//! `GET /ws`: a client hears what becomes of its prompts. ComfyUI `server.py`, `websocket_handler`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Desk, lookups, same_site};
use crate::app::App;
use crate::client::Client;
use crate::comfyui::frames;
use crate::config::RawComfyUi;
use crate::pictures::Shown;
use crate::problem::{Problem, ProblemKind};

/// Longest message of a client in bytes: it has little to say.
const LONGEST_MESSAGE: usize = 64 << 10;
/// Longest client id in bytes.
const LONGEST_ID: usize = 128;
/// Messages that wait for a client at most when a preview is put to them: each is a whole picture, and a newer one comes.
const PREVIEWS: usize = 4;
/// How often a stopping server looks whether everything has been told.
const BREATH: Duration = Duration::from_millis(50);

/// Whose socket: a tenant and a client id. A client id alone leads nowhere.
type Owner = (Arc<str>, String);

/// The open WebSockets.
#[derive(Debug)]
pub(super) struct Sockets {
    open: Mutex<HashMap<Owner, Socket>>,
    next: AtomicU64,
    /// Most of one tenant.
    most: usize,
    idle: Duration,
    queue: usize,
}

#[derive(Debug)]
struct Socket {
    /// Tells it from another of the same owner that took its place.
    number: u64,
    out: mpsc::Sender<Out>,
}

/// What waits for a client.
#[derive(Debug)]
enum Out {
    Event(String),
    Preview { png: Bytes, node: String, prompt_id: String },
}

#[derive(Debug, Deserialize)]
pub(super) struct Params {
    #[serde(rename = "clientId", default)]
    client_id: String,
}

impl Sockets {
    /// No sockets yet.
    pub(super) fn new(config: &RawComfyUi) -> Self {
        Self {
            open: Mutex::default(),
            next: AtomicU64::new(0),
            most: config.sockets,
            idle: Duration::from_millis(config.socket_idle_ms),
            queue: config.socket_queue,
        }
    }

    /// Sends an event to one client of the tenant.
    pub(super) fn tell(&self, tenant: &Arc<str>, client_id: &str, kind: &str, data: &Value) {
        self.put((Arc::clone(tenant), client_id.to_owned()), event(kind, data));
    }

    /// Sends a preview that the client may see.
    pub(super) fn preview(
        &self,
        tenant: &Arc<str>,
        client_id: &str,
        shown: &Shown,
        node: &str,
        prompt_id: &str,
    ) {
        let owner = (Arc::clone(tenant), client_id.to_owned());
        let (node, prompt_id) = (node.to_owned(), prompt_id.to_owned());
        self.put(owner, Out::Preview { png: shown.bytes().clone(), node, prompt_id });
    }

    /// Sends an event to all clients of the tenant.
    pub(super) fn tell_all(&self, tenant: &Arc<str>, kind: &str, data: &Value) {
        let owners: Vec<Owner> = self.lock().keys().filter(|(owner, _)| owner == tenant).cloned().collect();
        for owner in owners {
            self.put(owner, event(kind, data));
        }
    }

    fn put(&self, owner: Owner, out: Out) {
        let mut open = self.lock();
        let Some(socket) = open.get(&owner) else { return };
        let waiting = socket.out.max_capacity() - socket.out.capacity();
        if matches!(out, Out::Preview { .. }) && waiting >= PREVIEWS {
            return;
        }
        // Previews may be missed. A client that misses events would wait for ever: it is cut off, and may come again.
        if let Err(mpsc::error::TrySendError::Full(Out::Event(_))) = socket.out.try_send(out) {
            tracing::info!(tenant = %owner.0, "a WebSocket's client is too slow; it is cut off");
            open.remove(&owner);
        }
    }

    fn is_full(&self, owner: &Owner) -> bool {
        let open = self.lock();
        !open.contains_key(owner) && open.keys().filter(|(tenant, _)| *tenant == owner.0).count() >= self.most
    }

    /// Takes a socket up, in place of an older one of the same owner.
    fn add(&self, owner: &Owner) -> (u64, mpsc::Receiver<Out>) {
        let (out, queue) = mpsc::channel(self.queue);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(owner.clone(), Socket { number, out });
        (number, queue)
    }

    fn remove(&self, owner: &Owner, number: u64) {
        let mut open = self.lock();
        if open.get(owner).is_some_and(|socket| socket.number == number) {
            open.remove(owner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, Socket>> {
        // Nothing that runs under the lock leaves it half-changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(kind: &str, data: &Value) -> Out {
    Out::Event(json!({ "type": kind, "data": data }).to_string())
}

impl Desk {
    /// Tells all clients of the tenant how many of its prompts have not ended.
    pub(super) fn tell_queue(&self, tenant: &Arc<str>) {
        let data = json!({ "status": self.queue_info(tenant) });
        self.sockets.tell_all(tenant, "status", &data);
    }

    /// `server.py`, `get_queue_info`, of one tenant.
    pub(super) fn queue_info(&self, tenant: &str) -> Value {
        json!({ "exec_info": { "queue_remaining": self.jobs.of(tenant).len() } })
    }
}

/// `GET /ws?clientId=`.
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    headers: HeaderMap,
    params: Result<Query<Params>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    same_site(&headers)?;
    let Query(Params { client_id }) = params.map_err(|e| Problem::bad_request(e.body_text()))?;
    let upgrade = upgrade.map_err(|e| {
        Problem::bad_request(format!("expected the opening of a WebSocket: {}", e.body_text()))
    })?;
    if client_id.len() > LONGEST_ID {
        return Err(Problem::bad_request(format!("expected a clientId of at most {LONGEST_ID} bytes")));
    }
    let client_id = if client_id.is_empty() { uuid::Uuid::now_v7().simple().to_string() } else { client_id };
    let owner = (Arc::clone(&client.tenant), client_id);
    if desk.sockets.is_full(&owner) {
        let message =
            format!("{} WebSockets are open, which is all that a tenant may have", desk.sockets.most);
        return Err(Problem::new(ProblemKind::Overloaded, message).retry_after(app.config.limits.retry_after));
    }
    let upgrade = upgrade.max_message_size(LONGEST_MESSAGE).max_frame_size(LONGEST_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| serve(app, desk, owner, socket)))
}

/// A client at the other end of a WebSocket.
struct Line {
    socket: WebSocket,
    /// Longest wait for the client to take a message.
    idle: Duration,
    /// Whether it knows previews with metadata.
    metadata: bool,
}

impl Line {
    async fn send(&mut self, out: Out) -> Result<(), ()> {
        let message = match out {
            Out::Event(text) => Message::text(text),
            Out::Preview { png, node, prompt_id } if self.metadata => {
                Message::Binary(frames::preview_with_metadata(&png, &node, &prompt_id))
            }
            Out::Preview { png, .. } => Message::Binary(frames::preview(&png)),
        };
        self.message(message).await
    }

    async fn message(&mut self, message: Message) -> Result<(), ()> {
        match tokio::time::timeout(self.idle, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(()),
        }
    }
}

async fn serve(app: Arc<App>, desk: Arc<Desk>, owner: Owner, socket: WebSocket) {
    let (number, mut queue) = desk.sockets.add(&owner);
    let idle = desk.sockets.idle;
    let mut line = Line { socket, idle, metadata: false };
    if greet(&desk, &owner, &mut line).await.is_ok() {
        talk(&app, &desk, &owner, &mut line, &mut queue).await;
    }
    desk.sockets.remove(&owner, number);
    let _ = line.message(Message::Close(None)).await;
}

async fn greet(desk: &Desk, (tenant, client_id): &Owner, line: &mut Line) -> Result<(), ()> {
    line.send(event("status", &json!({ "status": desk.queue_info(tenant), "sid": client_id }))).await?;
    // Who comes again hears where its prompt is.
    for (asked, runs) in desk.jobs.of(tenant) {
        if runs && asked.client_id.as_ref() == Some(client_id) {
            let data = json!({ "node": asked.sampler.0, "prompt_id": asked.prompt_id });
            line.send(event("executing", &data)).await?;
        }
    }
    Ok(())
}

async fn talk(app: &App, desk: &Desk, (tenant, _): &Owner, line: &mut Line, queue: &mut mpsc::Receiver<Out>) {
    let mut heard = Instant::now();
    let mut beat = tokio::time::interval(line.idle / 3);
    let (over, mut closing, mut first) = (app.over(), false, true);
    tokio::pin!(over);
    loop {
        let ended = tokio::select! {
            out = queue.recv() => match out {
                Some(out) => line.send(out).await.is_err(),
                None => true,
            },
            message = line.socket.recv() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(text))) if std::mem::take(&mut first) => {
                        flags(app, line, &text).await.is_err()
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => true,
                    Some(Ok(_)) => false,
                }
            }
            _ = beat.tick() => {
                heard.elapsed() > line.idle || line.message(Message::Ping(Bytes::new())).await.is_err()
            }
            () = &mut over, if !closing => {
                closing = true;
                false
            }
            // The server is stopping: the last events are still heard.
            () = tokio::time::sleep(BREATH), if closing => desk.jobs.are_over(tenant) && queue.is_empty(),
        };
        if ended {
            return;
        }
    }
}

/// The first message may say what the client knows: `comfy_api/feature_flags.py`.
async fn flags(app: &App, line: &mut Line, text: &str) -> Result<(), ()> {
    let Ok(said) = serde_json::from_str::<Value>(text) else { return Ok(()) };
    if said.get("type").and_then(Value::as_str) != Some("feature_flags") {
        return Ok(());
    }
    let knows = said.pointer("/data/supports_preview_metadata").and_then(Value::as_bool);
    line.metadata = knows == Some(true);
    line.send(event("feature_flags", &lookups::server_features(app))).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use cluegate_gate::fakes::{World, gate, picture};
    use cluegate_gate::{Instruction, RequestInfo};

    use super::*;
    use crate::pictures::Format;

    #[test]
    fn few_previews_wait_for_a_client_and_every_event_does() {
        let (gate, _) = gate(&World::new([]), "", "");
        let mut session = gate.session(RequestInfo::new("t", "a shop", 1, 1)).unwrap();
        let Instruction::Release(released) = session.finished(0, picture(&[], 0)).unwrap() else {
            unreachable!("a clean picture is released")
        };
        let shown = Shown::released(&released, Format::Png).unwrap();
        let (sockets, tenant) = (Sockets::new(&RawComfyUi::default()), Arc::from("t"));
        let (_, mut queue) = sockets.add(&(Arc::clone(&tenant), "desk".to_owned()));
        for _ in 0..50 {
            sockets.preview(&tenant, "desk", &shown, "3", "p");
            sockets.tell(&tenant, "desk", "progress", &json!({}));
        }
        let mut waiting = Vec::new();
        while let Ok(out) = queue.try_recv() {
            waiting.push(matches!(out, Out::Preview { .. }));
        }
        assert_eq!(waiting.iter().filter(|preview| !**preview).count(), 50);
        assert!((1..=PREVIEWS).contains(&waiting.iter().filter(|preview| **preview).count()));
    }
}
