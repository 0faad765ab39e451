//! What Prometheus scrapes.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cluegate_telemetry::{Metrics, catalogue};

use super::route;
use crate::app::App;
use crate::problem::{Problem, ProblemKind};
use crate::router::Route;

/// Version of the text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn routes() -> Vec<Route> {
    vec![route("/metrics", &["GET"], get(metrics))]
}

/// All metrics: of all tenants, so the door refuses a key that is limited to one.
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let Some(metrics) = Metrics::installed() else {
        let message = "this process records no metrics";
        return Err(Problem::new(ProblemKind::NotFound, message));
    };
    if app.upstream.is_some() {
        let ready = app.upstream_is_ready().await;
        metrics.within(|| catalogue::UPSTREAM_UP.set(f64::from(u8::from(ready)), &[]));
    }
    // Ten thousand series take a while to write, in which this thread has others to serve.
    let text = tokio::task::spawn_blocking(move || metrics.render()).await;
    let text = text.map_err(|_| Problem::new(ProblemKind::Internal, "the metrics could not be rendered"))?;
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}
