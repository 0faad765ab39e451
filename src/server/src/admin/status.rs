//! Where the gateway stands, and reloading.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::door::Admin;
use super::route;
use crate::app::App;
use crate::problem::Problem;
use crate::router::Route;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route("/admin/v1/status", &["GET"], get(status)),
        route("/admin/v1/health", &["GET"], get(health)),
        route("/admin/v1/reload", &["POST"], post(reload)),
    ]
}

/// Policies and keys: where from, since when, and what was refused.
async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "policies": app.live.status(),
        "tenants": app.live.policies().tenants().count(),
        "in_work": app.admission.in_work(),
        "waiting": app.admission.waiting(),
        "draining": app.admission.is_draining(),
    }))
}

/// Whether everything is there that a request needs: 200 if so, 503 if not.
async fn health(State(app): State<Arc<App>>) -> Response {
    let status = app.live.status();
    let checks = [
        ("taking_requests", !app.admission.is_draining()),
        ("upstream", app.upstream_is_ready().await),
        ("store", !status.store_gone),
        ("policies", status.refused.is_none()),
    ];
    // A refused policy is somebody's mistake, and the last good one is in use.
    let healthy = checks.iter().all(|(name, fine)| *fine || *name == "policies");
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks: serde_json::Map<String, Value> =
        checks.into_iter().map(|(name, fine)| (name.to_owned(), fine.into())).collect();
    (code, Json(json!({ "healthy": healthy, "checks": checks }))).into_response()
}

/// Reads policies and keys again, whether they look changed or not.
async fn reload(State(app): State<Arc<App>>, admin: Admin) -> Result<Json<Value>, Problem> {
    app.reload(&admin.name()).await?;
    Ok(Json(json!({ "policies": app.live.status() })))
}
