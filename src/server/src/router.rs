//! From fronts to one router. Every route is named by a front; whatever is not named is refused.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::json;

use crate::app::App;
use crate::client::Peer;
use crate::deadline::Deadline;
use crate::front;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;

/// Name of a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A route of a front.
pub(crate) struct Route {
    /// Path as axum writes it.
    pub(crate) path: &'static str,
    /// Methods that it has, in upper case: for the OpenAPI document's test, and for people.
    pub(crate) methods: &'static [&'static str],
    /// What answers.
    pub(crate) handler: MethodRouter<Arc<App>>,
}

/// A front end: its routes, and how it writes problems.
pub(crate) struct Front {
    /// Its routes.
    pub(crate) routes: Vec<Route>,
    /// A problem in its dialect, made with [`Problem::respond`].
    pub(crate) render: fn(&Problem) -> Response,
}

/// The router of all fronts that the configuration offers.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .fallback(unknown);
    for front in front::offered(&app.config) {
        let render = front.render;
        let routes = front.routes.into_iter().fold(Router::new(), |routes, Route { path, handler, .. }| {
            routes.route(path, handler.fallback(wrong_method))
        });
        let routes = routes.layer(middleware::from_fn_with_state(Arc::clone(app), enter)).layer(
            middleware::map_response(move |response: Response| async move {
                match response.extensions().get::<Problem>() {
                    Some(problem) => keep_headers(render(problem), &response),
                    None => response,
                }
            }),
        );
        router = router.merge(routes);
    }
    router
        .layer(DefaultBodyLimit::max(app.config.limits.body_bytes))
        .layer(middleware::from_fn(name_request))
        .with_state(Arc::clone(app))
}

/// The gated routes' door: who asks, and until when.
async fn enter(State(app): State<Arc<App>>, peer: Peer, mut request: Request, next: Next) -> Response {
    match app.authenticator.client(request.headers(), peer) {
        Ok(client) => {
            let deadline = Deadline::of(request.headers(), app.config.limits.request_timeout);
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(deadline);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Names every request, and says the name in the answer.
async fn name_request(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let value = HeaderValue::try_from(id.as_str());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begin = std::time::Instant::now();
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Ok(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, ms) = (response.status().as_u16(), begin.elapsed().as_secs_f64() * 1e3);
    tracing::info!(request = id.as_str(), %method, path, status, ms, "answered");
    response
}

/// A problem that a front rewrote keeps the headers of others, such as those of a layer.
fn keep_headers(mut rendered: Response, original: &Response) -> Response {
    for (name, value) in original.headers() {
        if !rendered.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.admission.is_draining() {
        let message = "the server is stopping";
        return Problem::new(ProblemKind::Draining, message).into_response();
    }
    if let Some(upstream) = &app.upstream
        && let Err(error) = upstream.ready().await
    {
        return Problem::from(error).into_response();
    }
    axum::Json(json!({ "status": "ready", "in_work": app.admission.in_work() })).into_response()
}

async fn unknown(request: Request) -> Problem {
    tracing::info!(method = %request.method(), path = request.uri().path(), "an unknown route was refused");
    let message = format!(
        "there is no route {}; what is not named in /openapi.json is refused and not passed on",
        request.uri().path()
    );
    Problem::new(ProblemKind::NotFound, message)
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("the route {} has no method {}", request.uri().path(), request.method());
    Problem::new(ProblemKind::MethodNotAllowed, message)
}
