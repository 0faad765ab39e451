//! The OpenAPI document of the administration.

use axum::Json;
use serde_json::{Value, json};

use crate::problem::{Problem, ProblemKind};

const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /openapi.json` on the administration's port.
pub(super) async fn serve() -> Result<Json<Value>, Problem> {
    let broken = |error| Problem::new(ProblemKind::Internal, format!("the document is broken: {error}"));
    document().map(Json).map_err(broken)
}

/// The document.
pub(super) fn document() -> Result<Value, serde_json::Error> {
    let mut document: Value = serde_json::from_str(DOCUMENT)?;
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    Ok(document)
}
