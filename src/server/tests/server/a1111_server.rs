//! A server on loopback that answers as the web UI does: one call after another, an `/interrupt` that ends whatever is
//! drawn, pictures with their prompt inside, a grid before them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cluegate_gate::fakes::picture;
use cluegate_perception::Picture;
use cluegate_server::{Config, Upstream, upstream};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::support::png;

/// Waits for `what`, and fails where it hangs.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(60), what).await.unwrap()
}

/// What a script makes of a call.
pub(crate) enum Answer {
    /// These pictures, after a grid that shows a sword.
    Pictures(Vec<Picture>),
    /// This body.
    Raw(StatusCode, String),
    /// Draws until it is interrupted, with this preview at half of the way; then pictures with a sword.
    UntilInterrupted(Picture),
    /// Draws until [`Fake::go_on`], then a picture of nothing.
    UntilTold,
}

/// What the server was asked and is at.
pub(crate) struct Fake {
    script: Box<dyn Fn(&Value) -> Answer + Send + Sync>,
    /// Bodies of `txt2img` and `img2img`, in order, with their path.
    pub(crate) calls: Mutex<Vec<(&'static str, Value)>>,
    pub(crate) interrupts: AtomicUsize,
    /// Whether it serves `/internal/progress`.
    named: bool,
    /// Draws one call at a time.
    turn: tokio::sync::Mutex<()>,
    current: watch::Sender<Option<(String, Option<Picture>)>>,
    waiting: Mutex<Vec<String>>,
    interrupt: Notify,
    told: Notify,
}

impl Fake {
    /// Lets a call end that draws until it is told.
    pub(crate) fn go_on(&self) {
        self.told.notify_one();
    }

    /// Waits until it draws, or has drawn everything.
    pub(crate) async fn draws(&self, draws: bool) {
        let mut current = self.current.subscribe();
        soon(current.wait_for(|current| current.is_some() == draws)).await.unwrap();
    }

    /// Waits until `count` calls were received.
    pub(crate) async fn received(&self, count: usize) {
        let received = async {
            while self.calls.lock().unwrap().len() < count {
                tokio::task::yield_now().await;
            }
        };
        soon(received).await;
    }

    async fn draw(&self, path: &'static str, body: Value) -> Response {
        let task = body["force_task_id"].as_str().unwrap_or_default().to_owned();
        self.waiting.lock().unwrap().push(task.clone());
        self.calls.lock().unwrap().push((path, body.clone()));
        let _turn = self.turn.lock().await;
        self.waiting.lock().unwrap().retain(|waiting| *waiting != task);
        let answer = (self.script)(&body);
        let preview =
            if let Answer::UntilInterrupted(preview) = &answer { Some(preview.clone()) } else { None };
        self.current.send_replace(Some((task, preview)));
        let response = match answer {
            Answer::Pictures(pictures) => drawn(&body, pictures),
            Answer::Raw(status, text) => {
                (status, [("content-type", "application/json")], text).into_response()
            }
            Answer::UntilInterrupted(_) => {
                self.interrupt.notified().await;
                drawn(&body, vec![picture(&[2], 1)])
            }
            Answer::UntilTold => {
                self.told.notified().await;
                drawn(&body, vec![picture(&[], 1)])
            }
        };
        self.current.send_replace(None);
        response
    }
}

fn drawn(body: &Value, pictures: Vec<Picture>) -> Response {
    let seed = body["seed"].as_u64().unwrap();
    let grid = picture(&[2], 200);
    let images: Vec<String> =
        std::iter::once(&grid).chain(&pictures).map(|picture| BASE64_STANDARD.encode(png(picture))).collect();
    let info = json!({
        "seed": seed, "all_seeds": (0..pictures.len() as u64).map(|i| seed + i).collect::<Vec<_>>(),
        "index_of_first_image": 1, "infotexts": ["secret prompt of the upstream"],
    });
    Json(json!({ "images": images, "parameters": body, "info": info.to_string() })).into_response()
}

fn router(fake: Arc<Fake>) -> Router {
    let call = |path: &'static str| {
        post(move |State(fake): State<Arc<Fake>>, Json(body): Json<Value>| async move {
            // A server goes on when its client has gone.
            tokio::spawn(async move { fake.draw(path, body).await }).await.unwrap()
        })
    };
    let mut router = Router::new()
        .route("/sdapi/v1/txt2img", call("txt2img"))
        .route("/sdapi/v1/img2img", call("img2img"))
        .route(
            "/sdapi/v1/interrupt",
            post(|State(fake): State<Arc<Fake>>| async move {
                fake.interrupts.fetch_add(1, Ordering::SeqCst);
                fake.interrupt.notify_waiters();
                Json(json!({}))
            }),
        )
        .route("/sdapi/v1/progress", get(progress))
        .route("/sdapi/v1/samplers", get(|| async { Json(json!([{ "name": "Euler", "aliases": ["euler"], "options": {} }])) }))
        .route("/sdapi/v1/schedulers", get(|| async { Json(json!([{ "name": "karras", "label": "Karras" }])) }))
        .route(
            "/sdapi/v1/sd-models",
            get(|| async { Json(json!([{ "title": "fine.safetensors [abcd]", "model_name": "fine", "filename": "/secret/fine.safetensors" }])) }),
        )
        .route(
            "/sdapi/v1/options",
            get(|| async { Json(json!({ "sd_model_checkpoint": "fine.safetensors [abcd]", "outdir_samples": "/secret" })) }),
        )
        .route("/sdapi/v1/cmd-flags", get(|| async { Json(json!({ "api_auth": "user:secret" })) }))
        .route("/sdapi/v1/memory", get(|| async { Json(json!({ "ram": { "free": 1, "error": "/secret" }, "cuda": {} })) }));
    if fake.named {
        router = router.route("/internal/progress", post(task));
    }
    router.with_state(fake)
}

async fn task(State(fake): State<Arc<Fake>>, Json(asked): Json<Value>) -> Json<Value> {
    let task = asked["id_task"].as_str().unwrap();
    let current = fake.current.borrow().clone();
    let Some((_, preview)) = current.filter(|(current, _)| current == task) else {
        let queued = fake.waiting.lock().unwrap().iter().any(|waiting| waiting == task);
        return Json(json!({ "active": false, "queued": queued, "completed": false, "id_live_preview": -1 }));
    };
    let wanted = asked["live_preview"] == true && asked["id_live_preview"] != 1;
    let live = preview
        .filter(|_| wanted)
        .map(|preview| format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png(&preview))));
    Json(json!({
        "active": true, "queued": false, "completed": false, "progress": 0.5, "eta": 1.0, "live_preview": live,
        "id_live_preview": 1, "textinfo": null,
    }))
}

#[derive(serde::Deserialize)]
struct Skip {
    skip_current_image: bool,
}

async fn progress(State(fake): State<Arc<Fake>>, Query(skip): Query<Skip>) -> Json<Value> {
    let current = fake.current.borrow().clone();
    let image =
        current.as_ref().and_then(|(_, preview)| preview.clone()).filter(|_| !skip.skip_current_image);
    Json(json!({
        "progress": if current.is_some() { 0.5 } else { 0.0 }, "eta_relative": 1.0, "state": { "job_count": 1 },
        "current_image": image.map(|image| BASE64_STANDARD.encode(png(&image))), "textinfo": null,
    }))
}

/// Starts a server; `named` says whether it names its tasks. The upstream is this gateway's side of it.
pub(crate) async fn start(
    named: bool,
    script: impl Fn(&Value) -> Answer + Send + Sync + 'static,
) -> (Arc<Fake>, Arc<dyn Upstream>) {
    let fake = Arc::new(Fake {
        script: Box::new(script),
        calls: Mutex::default(),
        interrupts: AtomicUsize::new(0),
        named,
        turn: tokio::sync::Mutex::default(),
        current: watch::Sender::new(None),
        waiting: Mutex::default(),
        interrupt: Notify::new(),
        told: Notify::new(),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = axum::serve(listener, router(Arc::clone(&fake)));
    tokio::spawn(async move { served.await.unwrap() });
    let text =
        format!("[keys]\nanonymous = \"t\"\n[upstream]\nkind = \"a1111\"\nurl = \"{url}\"\npoll_ms = 10\n");
    let config = Config::parse(&text, "gate.toml", std::path::Path::new("")).unwrap();
    (fake, upstream::open(&config.upstream.unwrap(), None).unwrap())
}
