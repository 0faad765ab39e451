//! The access log: one line for each request, written when its answer is sent or the client has gone.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use cluegate_telemetry::{Metrics, catalogue, propagation};
use hyper::body::{Frame, SizeHint};
use tracing::Span;
use tracing::field::Empty;

use crate::client::{Client, Peer};
use crate::outcome::DECISION_HEADER;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;

/// Most characters of an unknown path that are logged.
const SHOWN: usize = 120;

/// The line of one request. Holds no query, no prompt, no key, and of a path only the route that it was taken for.
pub(crate) struct Line {
    request: RequestId,
    peer: IpAddr,
    method: Method,
    route: String,
    begin: Instant,
    answer: Option<Answer>,
    bytes: u64,
    whole: bool,
    /// Lasts as long as the request.
    span: Span,
}

struct Answer {
    status: StatusCode,
    client: Option<Client>,
    decisions: String,
    refusal: Option<ProblemKind>,
    /// The limit of the policy that was reached.
    limit: Option<&'static str>,
}

impl Line {
    /// Begins the line of a request.
    pub(crate) fn begin(request: &Request, id: RequestId) -> Self {
        let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let span = begin_span(request, matched.as_deref(), &id);
        let unknown = || request.uri().path().chars().take(SHOWN).collect();
        Self {
            span,
            request: id,
            peer: request.extensions().get::<Peer>().copied().unwrap_or_default().0,
            method: request.method().clone(),
            route: matched.unwrap_or_else(unknown),
            begin: Instant::now(),
            answer: None,
            bytes: 0,
            whole: false,
        }
    }

    /// The span of the request.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Notes the head of the answer; the line is written when the body has been sent.
    pub(crate) fn answer(mut self, response: Response) -> Response {
        let decisions = response.headers().get(DECISION_HEADER).and_then(|value| value.to_str().ok());
        self.answer = Some(Answer {
            status: response.status(),
            client: response.extensions().get::<Client>().cloned(),
            decisions: decisions.unwrap_or_default().to_owned(),
            refusal: response.extensions().get::<Problem>().map(Problem::kind),
            limit: response.extensions().get::<Problem>().and_then(Problem::limit),
        });
        self.whole = response.body().is_end_stream();
        response.map(|body| Body::new(Counted { body, line: self }))
    }
}

/// The span of a request: a child of the client's own, if it names one. Like the line it holds no query, no prompt, no key.
fn begin_span(request: &Request, route: Option<&str>, id: &RequestId) -> Span {
    let (method, route) = (request.method().as_str(), route.unwrap_or("unknown"));
    let span = tracing::info_span!(
        target: cluegate_telemetry::TARGET,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        cluegate.request = id.as_str(),
        cluegate.tenant = Empty,
        cluegate.decisions = Empty,
    );
    propagation::continue_from(&span, request.headers());
    span
}

/// Whether whoever watches for attacks wants to see it: no key or a wrong one, what the key may not do, bodies that are
/// too slow or too large, and too much of anything.
fn is_suspicious(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
    )
}

impl Drop for Line {
    fn drop(&mut self) {
        let ms = (self.begin.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let (request, peer, method, route) = (self.request.as_str(), self.peer, &self.method, &*self.route);
        let Some(Answer { status, client, decisions, refusal, limit }) = &self.answer else {
            tracing::info!(request, %peer, %method, route, ms, "the client went away before it was answered");
            catalogue::HTTP_REQUESTS.add(1, &["none"]);
            return;
        };
        let (tenant, key) = client.as_ref().map_or(("-", "-"), |client| (&*client.tenant, &*client.key));
        let (bytes, whole, suspicious) = (self.bytes, self.whole, is_suspicious(*status));
        // A front may refuse by itself.
        let plain = if status.is_success() { None } else { status.canonical_reason() };
        catalogue::HTTP_REQUESTS.add(1, &[status.as_str()]);
        if let (Some(limit), Some(metrics)) = (limit, Metrics::installed()) {
            catalogue::QUOTA_REFUSED.add(1, &[metrics.tenant(tenant), *limit]);
        }
        self.span.record("http.response.status_code", status.as_u16());
        self.span.record("cluegate.tenant", tenant);
        self.span.record("cluegate.decisions", decisions.as_str());
        if status.is_server_error() {
            self.span.record("otel.status_code", "ERROR");
        }
        let (status, reason) = (status.as_u16(), refusal.map(ProblemKind::code).or(plain).unwrap_or("-"));
        // Macros fix the level where they stand.
        macro_rules! line {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    request, %peer, %method, route, tenant, key, status, reason, decisions, bytes, whole, ms, $text
                )
            };
        }
        if suspicious {
            line!(warn, "refused");
        } else {
            line!(info, "answered");
        }
    }
}

/// A body that counts what is taken of it.
struct Counted {
    body: Body,
    line: Line,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.line.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.line.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
