//! The OpenAPI document, `/openapi.json`. Each front has a file with its paths and schemas; the document is made of those
//! that the configuration offers, so that it names what is there and nothing else.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::config::{Config, FrontName};
use crate::problem::{Problem, ProblemKind};

/// What all fronts share.
const COMMON: &str = include_str!("openapi/common.json");

/// Paths and components of a front.
fn part(front: FrontName) -> &'static str {
    match front {
        FrontName::A1111 => include_str!("openapi/a1111.json"),
        FrontName::OpenAi => include_str!("openapi/openai.json"),
        FrontName::ComfyUi => include_str!("openapi/comfyui.json"),
        FrontName::SdCpp => include_str!("openapi/sdcpp.json"),
        FrontName::Judge => include_str!("openapi/judge.json"),
        FrontName::Sessions => include_str!("openapi/sessions.json"),
        FrontName::Moderations => include_str!("openapi/moderations.json"),
        FrontName::Guardrail => include_str!("openapi/guardrail.json"),
    }
}

/// `GET /openapi.json`.
pub(crate) async fn serve(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    let broken = |error| Problem::new(ProblemKind::Internal, format!("the document is broken: {error}"));
    document(&app.config).map(Json).map_err(broken)
}

/// The document for the fronts that `config` offers.
pub(crate) fn document(config: &Config) -> Result<Value, serde_json::Error> {
    let mut document: Value = serde_json::from_str(COMMON)?;
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    for front in FrontName::ALL.into_iter().filter(|front| config.offers(*front)) {
        let mut part: Value = serde_json::from_str(part(front))?;
        move_into(&mut document["tags"], part["tags"].take());
        move_into(&mut document["paths"], part["paths"].take());
        for kind in ["schemas", "responses", "parameters"] {
            move_into(&mut document["components"][kind], part["components"][kind].take());
        }
    }
    if config.anonymous.is_some()
        && let Some(schemes) = document["security"].as_array_mut()
    {
        // Nobody needs a key here.
        schemes.push(Value::Object(Map::new()));
    }
    Ok(document)
}

fn move_into(target: &mut Value, source: Value) {
    match (target, source) {
        (Value::Array(target), Value::Array(source)) => target.extend(source),
        (Value::Object(target), Value::Object(source)) => target.extend(source),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
