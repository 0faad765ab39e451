//! The web UI's API, `/sdapi/v1`, as AUTOMATIC1111 and Forge serve it (`modules/api/api.py` at 0050a35 and dfdcbab).
//!
//! ```text
//! POST txt2img, img2img   drawn and judged; what a picture became is told in `info.cluegate`
//! GET  progress           the tenant's oldest request; `current_image` only after it was judged
//! POST interrupt, skip    end that request
//! GET, POST options       those that the gateway allows, for the tenant alone
//! GET  sd-models, ...     built anew from the fields of `lists`
//! ```
//!
//! What writes files on the server, runs its scripts, changes it for others or reads pictures by address is refused by
//! name, and so is every parameter that is not known here.

mod lists;
mod parameters;
mod reply;
mod request;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::request::Reading;
use self::work::{Work, Working};
use crate::app::App;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::json::Json;
use crate::outcome::{DECISION_HEADER, decision_header};
use crate::pictures::Format;
use crate::problem::{Problem, ProblemKind};
use crate::request::Dialect;
use crate::request_id::RequestId;
use crate::router::{Front, Route};

/// The front end.
pub(crate) fn front() -> Front {
    let desk = Extension(Arc::<Desk>::default());
    let route = |path, methods, handler: MethodRouter<Arc<App>>| Route {
        path,
        methods,
        handler: handler.layer(desk.clone()),
    };
    let mut routes = vec![
        route("/sdapi/v1/txt2img", &["POST"] as &[_], post(txt2img)),
        route("/sdapi/v1/img2img", &["POST"], post(img2img)),
        route("/sdapi/v1/progress", &["GET"], get(work::progress)),
        route("/sdapi/v1/interrupt", &["POST"], post(work::interrupt)),
        route("/sdapi/v1/skip", &["POST"], post(work::skip)),
        route("/sdapi/v1/options", &["GET", "POST"], get(lists::options).post(lists::set_options)),
    ];
    routes.extend(lists::routes());
    Front { routes, render }
}

/// What this front keeps for its tenants.
#[derive(Debug, Default)]
struct Desk {
    work: Work,
    options: Mutex<HashMap<Arc<str>, Map<String, Value>>>,
}

impl Desk {
    fn options_of(&self, tenant: &Arc<str>) -> Map<String, Value> {
        // Nothing that runs under the lock panics.
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        options.get(tenant).cloned().unwrap_or_default()
    }

    /// Sets options that were checked; null leaves one to the server again.
    fn set_options(&self, tenant: &Arc<str>, asked: Map<String, Value>) {
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        let own = options.entry(Arc::clone(tenant)).or_default();
        own.extend(asked);
        own.retain(|_, value| !value.is_null());
    }
}

/// A problem as the web UI writes it: what it finds wrong with a request is 422.
fn render(problem: &Problem) -> Response {
    let mut response = problem.respond(json!({
        "error": problem.kind().code(),
        "detail": problem.message(),
        "body": "",
        "errors": problem.message(),
    }));
    match problem.kind() {
        ProblemKind::BadRequest | ProblemKind::Inexpressible => {
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        }
        ProblemKind::Unauthenticated => {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
        _ => {}
    }
    response
}

fn object(body: &Bytes) -> Result<Map<String, Value>, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body must be a JSON object: {error}")))
}

/// A request, and who it is from.
struct Caller {
    app: Arc<App>,
    desk: Arc<Desk>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
}

async fn txt2img(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    body: Bytes,
) -> Result<Response, Problem> {
    draw(Caller { app, desk, client, id, deadline }, "txt2img", &body).await
}

async fn img2img(
    State(app): State<Arc<App>>,
    Extension(desk): Extension<Arc<Desk>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    body: Bytes,
) -> Result<Response, Problem> {
    draw(Caller { app, desk, client, id, deadline }, "img2img", &body).await
}

async fn draw(caller: Caller, job: &'static str, body: &Bytes) -> Result<Response, Problem> {
    let Caller { app, desk, client, id, deadline } = caller;
    let reading = Reading {
        img2img: job == "img2img",
        allowed: &app.config.a1111,
        options: &desk.options_of(&client.tenant),
        speaks_a1111: app.upstream()?.dialect() == Dialect::A1111,
    };
    let asked = request::read(object(body)?, reading)?;
    let request = asked.request.clone();
    let ordered = app.order(&client, asked.request).await?;
    let drawing = app.draw(&client, id.as_str(), deadline, ordered, Format::Png).await?;
    let working = Working::begin(&desk, &client.tenant, drawing.request_id(), job);
    let finished = drawing.finish_with(|preview| working.show(preview)).await?;
    // Who interrupts a request wants what there is of it, and no error.
    if !working.is_interrupted()
        && let Some(problem) = finished.problem()
    {
        return Err(problem);
    }
    let reply = reply::reply(&request, asked.parameters, &finished.outcomes);
    let mut response = Json(reply).into_response();
    if let Some(value) = decision_header(&finished.outcomes) {
        response.headers_mut().insert(DECISION_HEADER, value);
    }
    Ok(response)
}
