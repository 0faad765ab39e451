//! From fronts to one router. Every route is named by a front; whatever is not named is refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONNECTION, HOST, ORIGIN, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::FutureExt;
use serde_json::json;
use tracing::Instrument;

use crate::access::Line;
use crate::app::App;
use crate::body;
use crate::client::{self, Client, Peer};
use crate::deadline::Deadline;
use crate::front;
use crate::openapi;
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
        .route("/openapi.json", get(openapi::serve))
        .fallback(unknown);
    for front in front::offered(&app.config) {
        let render = front.render;
        let routes =
            front.routes.into_iter().fold(Router::new(), |routes, Route { path, methods, handler }| {
                let refuse = move |method: Method| async move { wrong_method(&method, methods) };
                routes.route(path, handler.fallback(refuse))
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

/// The gated routes' door: who asks, until when, and for what. No front waits for a client's bytes: the body is here
/// before the front is asked.
async fn enter(State(app): State<Arc<App>>, peer: Peer, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let client = app.authenticator.client(&parts.headers, peer, app.config.anonymous.as_deref());
    let client = match client.and_then(|client| app.live.refuse_suspended(client)) {
        Ok(client) => client,
        Err(problem) => {
            body::discard(body).await;
            return problem.into_response();
        }
    };
    if let Err(problem) = same_site(&parts.headers) {
        body::discard(body).await;
        return problem.into_response();
    }
    let deadline = Deadline::of(&parts.headers, app.config.limits.request_timeout);
    let mut response = match app.room.read(body, deadline).await {
        Ok(body::Read { bytes, room }) => {
            parts.extensions.insert(client.clone());
            parts.extensions.insert(deadline);
            parts.extensions.insert(room.clone());
            let answer = next.run(Request::from_parts(parts, Body::from(bytes)));
            // Whatever the front had in its hands is dropped, which calls its drawing off.
            let answer = AssertUnwindSafe(answer).catch_unwind().await;
            drop(room);
            answer.unwrap_or_else(|_| {
                tracing::error!("a route's handler panicked; its request is answered with an error");
                Problem::new(ProblemKind::Internal, "the gate failed while it answered").into_response()
            })
        }
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(client);
    response
}

/// Refuses what a page of another site sends through a browser that knows a key, or needs none. A browser sends some
/// bodies, and WebSockets, without asking; and it adds what it remembers of HTTP Basic by itself, but no other key.
fn same_site(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(origin) = text(ORIGIN) else { return Ok(()) };
    let basic = |value: &str| value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic "));
    let own_key =
        headers.contains_key(client::KEY_HEADER) || text(AUTHORIZATION).is_some_and(|key| !basic(key));
    let host = origin.split_once("://").map(|(_, host)| host);
    if own_key || (host.is_some() && host == text(HOST)) {
        return Ok(());
    }
    let message = "the headers `Origin` and `Host` differ; requests of other sites' pages are refused unless they bring \
                   a key of their own";
    Err(Problem::new(ProblemKind::Forbidden, message))
}

/// Names every request, and says the name in the answer.
pub(crate) async fn name_request(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let value = HeaderValue::try_from(id.as_str());
    let line = Line::begin(&request, id.clone());
    // A request with a `Content-Length` beside is taken by its `Transfer-Encoding`, as RFC 9112 (6.1) has it; then what
    // follows must not be read as another request. hyper removes the length before anybody sees it.
    let chunked = request.headers().contains_key(TRANSFER_ENCODING);
    request.extensions_mut().insert(id);
    let mut response = next.run(request).instrument(line.span().clone()).await;
    if let Ok(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if chunked {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    line.answer(response)
}

/// A problem that a front rewrote keeps the headers of others, such as those of a layer, and what the door noted.
fn keep_headers(mut rendered: Response, original: &Response) -> Response {
    if let Some(client) = original.extensions().get::<Client>() {
        rendered.extensions_mut().insert(client.clone());
    }
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
    if !app.upstream_is_ready().await {
        // Why not is for the log: anybody may ask here.
        let message = "the upstream would not draw now";
        return Problem::new(ProblemKind::UpstreamFailed, message).into_response();
    }
    axum::Json(json!({ "status": "ready", "in_work": app.admission.in_work() })).into_response()
}

pub(crate) async fn unknown(request: Request) -> Problem {
    body::discard(request.into_body()).await;
    let message = "there is no such route; what is not named in /openapi.json is refused and not passed on";
    Problem::new(ProblemKind::NotFound, message)
}

pub(crate) fn wrong_method(method: &Method, methods: &[&str]) -> Response {
    let methods = methods.join(", ");
    let message = format!("this route has no method {method}; it has {methods}");
    let mut response = Problem::new(ProblemKind::MethodNotAllowed, message).into_response();
    if let Ok(value) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}
