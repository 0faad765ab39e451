//! Answers and errors: `types/images_response.py`, `types/image.py`, `types/shared/error_object.py`.

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::params::Shape;
use crate::front::verdict::with_decisions;
use crate::json::Json;
use crate::outcome::{Finished, Outcome};
use crate::pictures::{Format, Shown};
use crate::problem::{Problem, ProblemKind};

/// A problem, and the parameter that it is about.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Problem,
    param: Option<String>,
}

impl Refusal {
    /// A parameter that is not what it should be.
    pub(super) fn param(name: &str, message: impl std::fmt::Display) -> Self {
        let problem = Problem::bad_request(format!("`{name}`: {message}"));
        Self { problem, param: Some(name.to_owned()) }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, param: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.respond(json!({ "error": error(&self.problem, self.param) }));
        // It is written in this dialect already: nothing is left to render.
        response.extensions_mut().remove::<Problem>();
        response
    }
}

/// A problem in this dialect.
pub(crate) fn render(problem: &Problem) -> Response {
    problem.respond(json!({ "error": error(problem, None) }))
}

/// The error object. Its `code` is the gate's own: what is no verdict is never called `moderation_blocked`.
pub(super) fn error(problem: &Problem, param: Option<String>) -> Value {
    let kind = match problem.kind().status().as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "message": problem.message(), "type": kind, "param": param, "code": problem.kind().code() })
}

/// Why nothing of a request is released.
pub(super) enum Nothing {
    /// Every picture was withheld for what it shows.
    Blocked(Value),
    /// Something failed.
    Failed(Problem, Value),
}

impl Nothing {
    /// The error object, with the decisions.
    pub(super) fn error(&self) -> Value {
        match self {
            Self::Blocked(error) | Self::Failed(_, error) => error.clone(),
        }
    }

    fn respond(self) -> Response {
        match self {
            Self::Blocked(error) => {
                (axum::http::StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
            }
            Self::Failed(problem, error) => {
                let mut response = problem.respond(json!({ "error": error }));
                response.extensions_mut().remove::<Problem>();
                response
            }
        }
    }
}

/// Why nothing is released; none if something is. One picture without a verdict makes the whole a failure: that a
/// request is `moderation_blocked` is said only where each of its pictures was.
pub(super) fn nothing(finished: &Finished) -> Option<Nothing> {
    let outcomes = &finished.outcomes;
    if outcomes.iter().any(Outcome::is_released) {
        return None;
    }
    let decisions: Vec<Value> = outcomes.iter().map(Outcome::report).collect();
    let failed = outcomes.iter().find(|outcome| !outcome.reason().is_violation());
    let Some(failed) = failed else {
        let words = outcomes.first().map(Outcome::message).unwrap_or_default();
        let message = match outcomes.len() {
            1 => words,
            all => format!("all {all} pictures were withheld; the first: {words}"),
        };
        return Some(Nothing::Blocked(json!({
            "message": message,
            "type": "image_generation_user_error",
            "param": null,
            "code": "moderation_blocked",
            "cluegate": decisions,
        })));
    };
    let problem = finished.problem().unwrap_or_else(|| {
        Problem::new(failed.problem().unwrap_or(ProblemKind::UpstreamFailed), failed.message())
    });
    let mut error = error(&problem, None);
    error["cluegate"] = json!(decisions);
    Some(Nothing::Failed(problem, error))
}

/// The answer to a request that was not streamed. `hand_over` says under which name an entry of `data` holds a picture,
/// and as what.
pub(super) fn respond(
    finished: &Finished,
    shape: &Shape,
    mut hand_over: impl FnMut(&Shown, &str) -> (&'static str, String),
) -> Response {
    let response = match nothing(finished) {
        Some(nothing) => nothing.respond(),
        None => {
            let entries = finished.outcomes.iter().map(|outcome| {
                let mut entry = json!({ "b64_json": null, "cluegate": outcome.report() });
                if let Some(shown) = outcome.shown() {
                    let (name, value) = hand_over(shown, outcome.decision_id());
                    entry[name] = Value::from(value);
                }
                entry
            });
            let data: Vec<Value> = entries.collect();
            let shown = finished.outcomes.iter().find(|outcome| outcome.is_released());
            let mut body = json!({
                "created": now(),
                "background": "opaque",
                "output_format": format_name(shape.format),
                "size": shown.and_then(Outcome::shown).map(size),
            });
            // Moved, which the macro would not: they are nearly all of the answer.
            body["data"] = Value::from(data);
            if let Some(quality) = &shape.quality {
                body["quality"] = json!(quality);
            }
            if let Some(identifier) = &shape.safety_identifier {
                body["safety_identifier"] = json!(identifier);
            }
            Json(body).into_response()
        }
    };
    with_decisions(response, &finished.outcomes)
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// `WIDTHxHEIGHT`.
pub(super) fn size(shown: &Shown) -> String {
    let (width, height) = shown.size();
    format!("{width}x{height}")
}

/// The format's name in this dialect.
pub(super) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Png => "png",
        Format::Jpeg(_) => "jpeg",
        Format::WebP => "webp",
    }
}
