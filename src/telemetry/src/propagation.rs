//! The trace context of W3C (`traceparent`, `tracestate`; <https://www.w3.org/TR/trace-context/>) from and to other servers.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Set once there is somebody to export to.
static ENABLED: AtomicBool = AtomicBool::new(false);

pub(crate) fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// Makes `span`, which is new, a child of what the headers of a request name. A context that is malformed counts for none.
pub fn continue_from(span: &Span, headers: &HeaderMap) {
    if ENABLED.load(Ordering::Relaxed) && !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Refused only for a span that has begun, or that nobody exports.
        let _ = span.set_parent(parent);
    }
}

/// Names the span that is in work on this thread in the headers of a request to another server.
pub fn pass_on(headers: &mut HeaderMap) {
    if ENABLED.load(Ordering::Relaxed) {
        let context = Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }
}
