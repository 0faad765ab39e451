//! A ComfyUI that replays its published conversation: `server.py`, `execution.py` (`execute_async`, `task_done`) and `main.py`
//! (`prompt_worker`, `hijack_progress`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc};

/// What becomes of a prompt.
pub(crate) enum Act {
    /// Its pictures: files by output node.
    Pictures(Vec<(&'static str, Vec<Vec<u8>>)>),
    /// The same, with these previews of the node, one a step.
    Previews(&'static str, Vec<Vec<u8>>, Vec<(&'static str, Vec<Vec<u8>>)>),
    /// A node fails.
    Error,
    /// The prompt is refused.
    Refused,
    /// It waits in the queue, for ever.
    Waits,
    /// It is drawn for ever.
    Hangs,
    /// The WebSocket closes while it is drawn.
    Closes,
    /// The WebSocket sends nonsense, and then the picture comes.
    Noise(&'static str, Vec<u8>),
}

type Script = Box<dyn Fn(&Value, usize) -> Act + Send + Sync>;

/// The server.
pub(crate) struct Comfy {
    script: Script,
    /// Whether it is of the time before `prompt_id` and previews with metadata.
    old: bool,
    state: Mutex<Record>,
    /// Rings when a prompt came, or anything else was asked of it.
    pub(crate) rings: Notify,
}

/// What it was asked.
#[derive(Default)]
pub(crate) struct Record {
    sockets: HashMap<String, mpsc::UnboundedSender<Message>>,
    metadata: HashMap<String, bool>,
    pub(crate) prompts: Vec<Value>,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    pub(crate) history: Map<String, Value>,
    files: HashMap<String, Vec<u8>>,
    pub(crate) viewed: Vec<String>,
    pub(crate) running: Vec<String>,
    pub(crate) queued: Vec<String>,
    pub(crate) interrupts: Vec<Value>,
    pub(crate) unqueued: Vec<Value>,
}

impl Comfy {
    /// Starts it; returns its address too.
    pub(crate) async fn start(
        script: impl Fn(&Value, usize) -> Act + Send + Sync + 'static,
    ) -> (Arc<Self>, String) {
        Self::start_aged(script, false).await
    }

    pub(crate) async fn start_aged(
        script: impl Fn(&Value, usize) -> Act + Send + Sync + 'static,
        old: bool,
    ) -> (Arc<Self>, String) {
        let comfy =
            Arc::new(Self { script: Box::new(script), old, state: Mutex::default(), rings: Notify::new() });
        let routes = Router::new()
            .route("/ws", get(socket))
            .route(
                "/prompt",
                get(|| async { Json(json!({ "exec_info": { "queue_remaining": 0 } })) }).post(prompt),
            )
            .route("/history/{id}", get(history))
            .route("/history", post(forget))
            .route("/view", get(view))
            .route("/queue", get(queue).post(unqueue))
            .route("/interrupt", post(interrupt))
            .route("/upload/image", post(upload))
            .route("/object_info", get(object_info))
            .route("/embeddings", get(|| async { Json(json!(["badhands", 3])) }))
            .with_state(Arc::clone(&comfy));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (comfy, url)
    }

    pub(crate) fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.state.lock().unwrap()
    }

    /// Waits until what was asked of it fulfils `done`.
    pub(crate) async fn until(&self, done: impl Fn(&Record) -> bool) {
        loop {
            let rung = self.rings.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if done(&self.record()) {
                return;
            }
            rung.await;
        }
    }

    fn tell(&self, client: &str, kind: &str, data: Value) {
        self.send(client, Message::text(json!({ "type": kind, "data": data }).to_string()));
    }

    fn send(&self, client: &str, message: Message) {
        if let Some(socket) = self.record().sockets.get(client) {
            let _ = socket.send(message);
        }
    }

    /// The worker's part: all events of a prompt, and its history.
    fn work(&self, client: &str, id: &str, workflow: &Value, act: Act) {
        let at = |extra: Value| {
            let mut data = json!({ "prompt_id": id });
            data.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            data
        };
        self.tell(client, "status", json!({ "status": { "exec_info": { "queue_remaining": 1 } } }));
        self.tell(client, "execution_start", at(json!({})));
        self.tell(client, "execution_cached", at(json!({ "nodes": [] })));
        let mut outputs = Map::new();
        let mut messages = Vec::new();
        let files = match act {
            Act::Waits => {
                self.record().queued.push(id.to_owned());
                return;
            }
            Act::Hangs => {
                self.record().running.push(id.to_owned());
                return;
            }
            Act::Closes => {
                self.record().running.push(id.to_owned());
                return self.send(client, Message::Close(None));
            }
            Act::Refused => Vec::new(),
            Act::Error => {
                let data = at(json!({
                    "node_id": "3", "node_type": "KSampler", "exception_type": "RuntimeError",
                    "exception_message": "CUDA out of memory", "traceback": ["secret path"],
                }));
                self.tell(client, "execution_error", data.clone());
                messages.push(json!(["execution_error", data]));
                Vec::new()
            }
            Act::Noise(node, file) => {
                self.send(client, Message::text("not JSON"));
                self.send(client, Message::text("{\"type\": 3}"));
                self.send(client, Message::Binary(Bytes::from_static(b"\0\0\0\x04\xff\xff\xff\xff")));
                self.tell(client, "executing", json!({ "node": null, "prompt_id": "another" }));
                self.tell(client, "progress", at(json!({ "value": -1e300, "max": 1e300, "node": [] })));
                vec![(node, vec![file])]
            }
            Act::Pictures(files) => files,
            Act::Previews(node, previews, files) => {
                self.previews(client, id, node, previews);
                files
            }
        };
        for (node, files) in files {
            let mut images = Vec::new();
            for (index, file) in files.into_iter().enumerate() {
                let name = format!("ComfyUI_temp_{id}_{node}_{index:05}_.png");
                images.push(json!({ "filename": name, "subfolder": "a b", "type": "temp" }));
                self.record().files.insert(name, file);
            }
            let output = json!({ "images": images });
            self.tell(client, "executed", at(json!({ "node": node, "output": output })));
            outputs.insert(node.to_owned(), output);
        }
        let done = messages.is_empty();
        if done {
            self.tell(client, "execution_success", at(json!({})));
        }
        let entry = json!({
            "prompt": [0, id, workflow, {}, []], "outputs": outputs,
            "status": { "status_str": if done { "success" } else { "error" }, "completed": done, "messages": messages },
        });
        self.record().history.insert(id.to_owned(), entry);
        self.tell(client, "executing", at(json!({ "node": null })));
    }

    fn previews(&self, client: &str, id: &str, node: &str, previews: Vec<Vec<u8>>) {
        let total = previews.len();
        let metadata = !self.old && self.record().metadata.get(client) == Some(&true);
        for (step, preview) in previews.into_iter().enumerate() {
            let step = step + 1;
            let state =
                json!({ node: { "value": step as f64, "max": total, "state": "running", "node_id": node } });
            if !self.old {
                self.tell(client, "progress_state", json!({ "prompt_id": id, "nodes": state }));
            }
            let head = if metadata {
                let words =
                    json!({ "node_id": node, "prompt_id": id, "image_type": "image/png" }).to_string();
                let mut head = 4_u32.to_be_bytes().to_vec();
                head.extend((words.len() as u32).to_be_bytes());
                head.extend(words.as_bytes());
                head
            } else {
                [1_u32.to_be_bytes(), 2_u32.to_be_bytes()].concat()
            };
            let progress = json!({ "value": step, "max": total, "prompt_id": id, "node": node });
            if !metadata {
                self.tell(client, "progress", progress.clone());
            }
            self.send(client, Message::Binary([head, preview].concat().into()));
            if metadata {
                self.tell(client, "progress", progress);
            }
        }
    }
}

async fn socket(
    State(comfy): State<Arc<Comfy>>,
    Query(query): Query<HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let client = query["clientId"].clone();
    upgrade.on_upgrade(move |socket| listen(comfy, client, socket))
}

async fn listen(comfy: Arc<Comfy>, client: String, mut socket: WebSocket) {
    let (send, mut queue) = mpsc::unbounded_channel();
    comfy.record().sockets.insert(client.clone(), send);
    let status = json!({ "status": { "exec_info": { "queue_remaining": 0 } }, "sid": client });
    comfy.tell(&client, "status", status);
    loop {
        tokio::select! {
            message = queue.recv() => {
                let Some(message) = message else { return };
                let closes = matches!(message, Message::Close(_));
                if socket.send(message).await.is_err() || closes {
                    return;
                }
            }
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let said: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(said["type"], "feature_flags");
                    comfy.record().metadata.insert(client.clone(), said["data"]["supports_preview_metadata"] == true);
                }
                Some(Ok(_)) => {}
                _ => return,
            }
        }
    }
}

async fn prompt(State(comfy): State<Arc<Comfy>>, Json(body): Json<Value>) -> Response {
    let index = {
        let mut record = comfy.record();
        record.prompts.push(body.clone());
        record.prompts.len() - 1
    };
    let act = (comfy.script)(&body["prompt"], index);
    if matches!(act, Act::Refused) {
        let error = json!({ "type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
            "details": "Value not in list: ckpt_name", "extra_info": {} });
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": error, "node_errors": {} }))).into_response();
    }
    let id = if comfy.old { format!("own-{index}") } else { body["prompt_id"].as_str().unwrap().to_owned() };
    let client = body["client_id"].as_str().unwrap().to_owned();
    comfy.work(&client, &id, &body["prompt"], act);
    comfy.rings.notify_waiters();
    Json(json!({ "prompt_id": id, "number": index, "node_errors": {} })).into_response()
}

async fn history(State(comfy): State<Arc<Comfy>>, Path(id): Path<String>) -> Json<Value> {
    let found = comfy.record().history.get(&id).cloned();
    Json(found.map_or_else(|| json!({}), |entry| json!({ id: entry })))
}

async fn forget(State(comfy): State<Arc<Comfy>>, Json(body): Json<Value>) {
    for id in body["delete"].as_array().unwrap() {
        comfy.record().history.remove(id.as_str().unwrap());
    }
    comfy.rings.notify_waiters();
}

async fn view(State(comfy): State<Arc<Comfy>>, Query(query): Query<HashMap<String, String>>) -> Response {
    assert_eq!((query["subfolder"].as_str(), query["type"].as_str()), ("a b", "temp"));
    let mut record = comfy.record();
    record.viewed.push(query["filename"].clone());
    record.files[&query["filename"]].clone().into_response()
}

async fn queue(State(comfy): State<Arc<Comfy>>) -> Json<Value> {
    let record = comfy.record();
    let items = |ids: &[String]| -> Vec<Value> { ids.iter().map(|id| json!([0, id, {}, {}, []])).collect() };
    Json(json!({ "queue_running": items(&record.running), "queue_pending": items(&record.queued) }))
}

async fn unqueue(State(comfy): State<Arc<Comfy>>, Json(body): Json<Value>) {
    {
        let mut record = comfy.record();
        record.queued.retain(|id| !body["delete"].as_array().unwrap().contains(&json!(id)));
        record.unqueued.push(body);
    }
    comfy.rings.notify_waiters();
}

async fn interrupt(State(comfy): State<Arc<Comfy>>, Json(body): Json<Value>) {
    let clients: Vec<String> = {
        let mut record = comfy.record();
        record.running.clear();
        record.interrupts.push(body.clone());
        record.sockets.keys().cloned().collect()
    };
    for client in clients {
        comfy.tell(&client, "executing", json!({ "node": null, "prompt_id": body["prompt_id"] }));
    }
    comfy.rings.notify_waiters();
}

async fn upload(State(comfy): State<Arc<Comfy>>, mut form: axum::extract::Multipart) -> Json<Value> {
    let (mut file, mut words) = (None, HashMap::new());
    while let Some(field) = form.next_field().await.unwrap() {
        let name = field.name().unwrap().to_owned();
        if name == "image" {
            file = Some((field.file_name().unwrap().to_owned(), field.bytes().await.unwrap()));
        } else {
            words.insert(name, field.text().await.unwrap());
        }
    }
    let (name, bytes) = file.unwrap();
    comfy
        .record()
        .uploads
        .insert(format!("{}/{name} [{}]", words["subfolder"], words["type"]), bytes.to_vec());
    Json(json!({ "name": name, "subfolder": words["subfolder"], "type": words["type"] }))
}

async fn object_info() -> Json<Value> {
    Json(json!({
        "LoadImage": { "input": { "required": { "image": [["secret.png"], { "image_upload": true }] } }, "name": "LoadImage" },
        "KSampler": { "input": { "required": { "seed": ["INT", {}] } }, "name": "KSampler" },
        "RunPython": { "input": { "required": {} }, "name": "RunPython" },
    }))
}
