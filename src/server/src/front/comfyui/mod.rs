//! The ComfyUI front end: prompts, history, files, the queue and the WebSocket, each also below `/api`. ComfyUI `server.py`.
//!
//! A prompt is answered at once and drawn in a task of its own, whose client learns of it over the WebSocket and from the
//! history. Both are the tenant's own, and hold what was released and nothing else. Over a ComfyUI upstream the workflow is
//! passed on if its nodes are allowed; over another, the workflow of plain text-to-image is understood.

mod jobs;
mod lookups;
mod prompt;
mod sockets;
mod standard;
mod task;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::http::HeaderMap;
use axum::http::header::{HOST, ORIGIN};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use serde_json::json;

use self::jobs::Jobs;
use self::sockets::Sockets;
use self::task::{Entry, File};
use crate::app::App;
use crate::config::Config;
use crate::kept::Kept;
use crate::problem::{Problem, ProblemKind};
use crate::router::{Front, Route};

/// The front end's memory.
#[derive(Debug)]
struct Desk {
    /// Classes of nodes that may be used.
    nodes: BTreeSet<String>,
    max_nodes: usize,
    /// Prompts that wait or are drawn.
    jobs: Jobs,
    sockets: Sockets,
    /// Prompts that have ended.
    history: Kept<Arc<Entry>>,
    /// Files of prompts that have ended: released, or what the policy shows in their place.
    files: Kept<Arc<File>>,
    /// Pictures that clients uploaded. They go to the upstream, and never back.
    uploads: Kept<Bytes>,
}

/// The front end.
pub(crate) fn front(config: &Config) -> Front {
    let (keep, bytes) = (config.limits.keep, config.limits.keep_bytes);
    let desk = Arc::new(Desk {
        nodes: config.comfyui.nodes.iter().cloned().collect(),
        max_nodes: config.comfyui.max_nodes,
        jobs: Jobs::default(),
        sockets: Sockets::new(&config.comfyui),
        history: Kept::new(keep, bytes),
        files: Kept::new(keep, bytes),
        uploads: Kept::new(keep, bytes),
    });
    let (both, reads, writes): (_, &'static [_], &'static [_]) = (&["GET", "POST"], &["GET"], &["POST"]);
    type Answers = fn() -> MethodRouter<Arc<App>>;
    let routes: [(&str, &str, &'static [&'static str], Answers); 13] = [
        ("/prompt", "/api/prompt", both, || get(lookups::counts).post(prompt::queue)),
        ("/history", "/api/history", reads, || get(lookups::history)),
        ("/history/{prompt_id}", "/api/history/{prompt_id}", reads, || get(lookups::entry)),
        ("/view", "/api/view", reads, || get(lookups::view)),
        ("/queue", "/api/queue", both, || get(lookups::queue).post(lookups::unqueue)),
        ("/interrupt", "/api/interrupt", writes, || post(lookups::interrupt)),
        ("/ws", "/api/ws", reads, || get(sockets::open)),
        ("/system_stats", "/api/system_stats", reads, || get(lookups::system)),
        ("/features", "/api/features", reads, || get(lookups::features)),
        ("/embeddings", "/api/embeddings", reads, || get(lookups::embeddings)),
        ("/object_info", "/api/object_info", reads, || get(lookups::classes)),
        ("/object_info/{class}", "/api/object_info/{class}", reads, || get(lookups::class)),
        ("/upload/image", "/api/upload/image", writes, || post(lookups::upload)),
    ];
    let routes = routes.into_iter().flat_map(|(short, long, methods, answers)| {
        [short, long].map(|path| Route {
            path,
            methods,
            handler: answers().layer(Extension(Arc::clone(&desk))),
        })
    });
    Front { routes: routes.collect(), render }
}

/// A problem in ComfyUI's shape: `server.py`, `post_prompt`.
fn render(problem: &Problem) -> Response {
    let (code, message) = (problem.kind().code(), problem.message());
    let error = json!({ "type": code, "message": message, "details": message, "extra_info": {} });
    problem.respond(json!({ "error": error, "node_errors": {} }))
}

/// Refuses what a page of another site sends through a browser: bodies are read whatever type they say they have, as
/// ComfyUI does, and browsers send such, and WebSockets, without asking.
fn same_site(headers: &HeaderMap) -> Result<(), Problem> {
    let text =
        |name| headers.get(name).map(|value: &axum::http::HeaderValue| value.to_str().unwrap_or_default());
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let origin = origin.split_once("://").map(|(_, host)| host);
    if origin.is_some() && origin == text(HOST) {
        return Ok(());
    }
    let message = "the headers `Origin` and `Host` differ; requests of other sites' pages are refused";
    Err(Problem::new(ProblemKind::Forbidden, message))
}
