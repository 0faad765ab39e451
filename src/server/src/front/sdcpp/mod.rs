//! stable-diffusion.cpp's own jobs: `/sdcpp/v1`.
//!
//! Routes, shapes and statuses are those of `examples/server/routes_sdcpp.cpp`, `async_jobs.cpp` and `api.md` of
//! leejet/stable-diffusion.cpp at commit 97d2990807fe, with these differences: a tenant sees its own jobs only; a job that
//! is being drawn can be cancelled; a job of which nothing was released has failed, with the code `moderation_blocked` where that is why; what became of each picture stands in `cluegate`.

mod jobs;
mod parse;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use bytes::Bytes;
use cluegate_perception::Picture;
use futures_util::FutureExt as _;
use image::RgbImage;
use serde_json::{Value, json};

use self::jobs::{Job, Jobs, Unended};
use crate::app::App;
use crate::body::Taken;
use crate::client::Client;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::outcome::DECISION_HEADER;
use crate::problem::{Problem, ProblemKind};
use crate::request::{Dialect, PictureRequest, Source};
use crate::request_id::RequestId;
use crate::router::{Front, Route};
use crate::upstream::Upstream;
use crate::upstream::sdcpp::{SAMPLERS, SCHEDULERS};

/// The front end.
pub(crate) fn front(config: &Config) -> Front {
    let jobs = Arc::new(Jobs::new(config.limits.keep, config.limits.keep_bytes));
    let routes = vec![
        Route {
            path: "/sdcpp/v1/img_gen",
            methods: &["POST"],
            handler: post(submit).layer(Extension(Arc::clone(&jobs))),
        },
        Route {
            path: "/sdcpp/v1/jobs/{id}",
            methods: &["GET"],
            handler: get(show).layer(Extension(Arc::clone(&jobs))),
        },
        Route {
            path: "/sdcpp/v1/jobs/{id}/cancel",
            methods: &["POST"],
            handler: post(cancel).layer(Extension(jobs)),
        },
        Route { path: "/sdcpp/v1/capabilities", methods: &["GET"], handler: get(capabilities) },
    ];
    Front { routes, render }
}

/// `{"error": code, "message": ...}`, as the server answers where it has something to say beside the code.
fn render(problem: &Problem) -> Response {
    problem.respond(json!({ "error": problem.kind().code(), "message": problem.message() }))
}

async fn submit(
    State(app): State<Arc<App>>,
    Extension(jobs): Extension<Arc<Jobs>>,
    client: Client,
    (id, deadline, taken): (RequestId, Deadline, Taken),
    body: Bytes,
) -> Result<Response, Problem> {
    let (request, format) = parse::request(&body, &app.config.pictures.decode)?;
    let ordered = app.order(&client, request).await?;
    let job = jobs.open(&client.tenant);
    let submitted = job.submitted();
    let (cancel, copy) = (job.cancel.clone(), Arc::clone(&app));
    let mut begun = Box::pin(async move {
        tokio::select! {
            begun = copy.draw(&client, id.as_str(), deadline, ordered, format) => begun.map(Some),
            () = cancel.cancelled() => Ok(None),
        }
    });
    // One look: whether it begins at once or waits. What is refused at once is refused here, and not in a job that the
    // client would have to ask for first.
    let first = (&mut begun).now_or_never();
    if let Some(Err(problem)) = first {
        jobs.forget(&job);
        return Err(problem);
    }
    tokio::spawn(async move {
        // Also if anything here panics: nobody waits for ever for a job that nobody works on.
        let job = Unended(job);
        let drawing = match first {
            Some(drawing) => drawing,
            None => begun.await,
        };
        jobs.finish(&job.0, drawing).await;
        // Until now it held the pictures to start from.
        drop(taken);
    });
    Ok((StatusCode::ACCEPTED, Json(submitted)).into_response())
}

async fn show(
    Extension(jobs): Extension<Arc<Jobs>>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = find(&jobs, &client, &id)?;
    Ok(answer(&job, jobs.position(&job)))
}

async fn cancel(
    Extension(jobs): Extension<Arc<Jobs>>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = find(&jobs, &client, &id)?;
    job.cancel();
    Ok(answer(&job, 0))
}

fn find(jobs: &Jobs, client: &Client, id: &str) -> Result<Arc<Job>, Problem> {
    jobs.get(&client.tenant, id).ok_or_else(|| match jobs.was_given(&client.tenant, id) {
        true => Problem::new(ProblemKind::Gone, "job expired"),
        false => Problem::new(ProblemKind::NotFound, "job not found"),
    })
}

fn answer(job: &Job, position: usize) -> Response {
    let (body, decisions) = job.describe(position);
    let mut response = crate::json::Json(body).into_response();
    if let Some(decisions) = decisions {
        response.headers_mut().insert(HeaderName::from_static(DECISION_HEADER), decisions);
    }
    response
}

/// What this gateway can do. Nothing is passed on from a server behind it, which would tell its folders.
async fn capabilities(State(app): State<Arc<App>>, client: Client) -> Result<Json<Value>, Problem> {
    let upstream = app.upstream()?;
    let own = upstream.dialect() == Dialect::SdCpp;
    let (samplers, schedulers): (&[&str], &[&str]) = if own { (&SAMPLERS, &SCHEDULERS) } else { (&[], &[]) };
    let model = app.config.upstream.as_ref().and_then(|config| config.model.as_deref()).unwrap_or_default();
    let most = app.policy(&client.tenant, None)?.limits.max_pictures;
    let features = json!({
        "init_image": draws_from(upstream.as_ref(), false),
        "mask_image": draws_from(upstream.as_ref(), true),
        "control_image": own,
        "ip_adapter_image": own,
        "ref_images": own,
        "lora": own,
        "vae_tiling": own,
        "hires": own,
        "cache": own,
        "cancel_queued": true,
        "cancel_generating": true,
    });
    let defaults = json!({ "prompt": "", "negative_prompt": "", "seed": -1, "batch_count": 1,
                           "output_format": "png", "output_compression": 100 });
    let formats = json!(["png", "jpeg", "webp"]);
    Ok(Json(json!({
        "model": { "name": model, "stem": model, "path": "" },
        "current_mode": "img_gen",
        "supported_modes": ["img_gen"],
        "defaults": defaults,
        "defaults_by_mode": { "img_gen": defaults },
        "limits": {
            "min_width": 64, "max_width": 4096, "min_height": 64, "max_height": 4096,
            "max_batch_count": most, "max_queue_size": app.config.limits.queue,
        },
        "samplers": samplers,
        "schedulers": schedulers,
        "output_formats": formats,
        "output_formats_by_mode": { "img_gen": formats },
        "features": features,
        "features_by_mode": { "img_gen": features },
        "loras": [],
        "upscalers": [],
    })))
}

/// Whether the upstream takes a picture to start from, with a mask or without. Asked as a request would ask: nobody looks at
/// pixels before they are drawn from.
fn draws_from(upstream: &dyn Upstream, masked: bool) -> bool {
    let Ok(black) = Picture::new(RgbImage::new(64, 64)).png() else { return false };
    let source = Source { mask: masked.then(|| black.clone()), pictures: vec![black], strength: None };
    upstream.check(&PictureRequest { count: 1, source: Some(source), ..PictureRequest::default() }).is_ok()
}

/// Ids and reason codes of a job's decisions, for [`DECISION_HEADER`].
type Decisions = Option<HeaderValue>;
