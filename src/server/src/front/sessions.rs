//! `/v1/sessions`: for hosts that draw by themselves. They open a session, offer previews and finished pictures, and do what
//! they are told. The dialect is this server's own; docs/gateway-sessions.md and `/openapi.json` describe it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use cluegate_gate::{DrawAgain, Instruction, PreviewInstruction};
use serde::Deserialize;
use serde_json::{Value, json};

use super::verdict::{read_json, with_decisions};
use crate::app::{App, Opening};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::json::Json;
use crate::outcome::Outcome;
use crate::pictures::{Format, Shown};
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::router::{Front, Route};
use crate::upstream::Unjudged;

/// Most steps of a loop that a host may name.
const MAX_STEPS: u32 = 10_000;

/// The front end.
pub(crate) fn front() -> Front {
    let route = |path, methods, handler| Route { path, methods, handler };
    let routes = vec![
        route("/v1/sessions", &["POST"], post(open)),
        route("/v1/sessions/{id}", &["DELETE"], delete(close)),
        route("/v1/sessions/{id}/pictures/{member}", &["POST"], post(finished)),
        route("/v1/sessions/{id}/pictures/{member}/preview", &["POST"], post(preview)),
        route("/v1/sessions/{id}/pictures/{member}/failure", &["POST"], post(failed)),
    ];
    Front { routes, render: |problem| problem.clone().into_response() }
}

/// What a host says of the request that it is about to draw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// What is drawn.
    prompt: String,
    /// Number of pictures.
    #[serde(default = "one")]
    count: u32,
    /// Seed of the first picture, where the host names seeds.
    seed: Option<u64>,
    /// Steps of its loop, for which the answer names those of which a preview is wanted.
    steps: Option<u32>,
    width: Option<u32>,
    height: Option<u32>,
    /// The model that draws.
    model: Option<String>,
    /// Identity of the generator, for the log.
    generator: Option<String>,
    /// Most attempts at one picture, where the host can make fewer than the policy allows.
    max_tries: Option<u32>,
    /// The host's name for the request.
    request_id: Option<String>,
}

fn one() -> u32 {
    1
}

/// After how many of how many steps a preview was made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtStep {
    step: u32,
    total: u32,
}

/// Why the host made no picture.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    why: String,
}

async fn open(
    State(app): State<Arc<App>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    request: Request,
) -> Result<Response, Problem> {
    let asked = read_json::<Asked>(request).await?;
    let id = match asked.request_id.as_deref() {
        None => id,
        Some(name) => RequestId::named(name).ok_or_else(RequestId::expected)?,
    };
    let size = match (asked.width, asked.height) {
        (None, None) => None,
        (Some(width), Some(height)) => Some((width, height)),
        _ => return Err(Problem::bad_request("expected both `width` and `height`, or neither")),
    };
    let steps = asked.steps.unwrap_or(0);
    if steps > MAX_STEPS {
        return Err(Problem::bad_request(format!("expected at most {MAX_STEPS} `steps`, got {steps}")));
    }
    let opening = Opening {
        prompt: asked.prompt,
        count: asked.count,
        seed: asked.seed,
        size,
        model: asked.model,
        generator: asked.generator,
        max_tries: asked.max_tries,
        steps: asked.steps,
    };
    let opened = app.open_session(&client, id.as_str(), deadline, opening).await?;
    let previews: Vec<u32> = (1..steps).filter(|step| opened.policy.previews.is_due(*step, steps)).collect();
    let answer = json!({
        "id": opened.id,
        "request_id": id.as_str(),
        "seeds": opened.seeds,
        "tries": opened.tries,
        "strategies": opened.strategies,
        "preview_steps": previews,
        "expires_in_ms": u64::try_from(opened.lasts.as_millis()).unwrap_or(u64::MAX),
        "idle_ms": u64::try_from(app.config.limits.session_idle.as_millis()).unwrap_or(u64::MAX),
    });
    Ok(Json(answer).into_response())
}

async fn finished(
    State(app): State<Arc<App>>,
    client: Client,
    path: Result<Path<(String, usize)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, member) = place(path)?;
    let picture = read_picture(request).await?;
    let act = move |work: &mut crate::sessions::Work| {
        let instruction = work.finished(member, picture)?;
        Ok(Told::new(instruction, work.session.policy().client.evidence))
    };
    let told = app.sessions.with(&client.tenant, &id, act).await?;
    Ok(told.answer(|instruction| instruction))
}

async fn preview(
    State(app): State<Arc<App>>,
    client: Client,
    path: Result<Path<(String, usize)>, PathRejection>,
    at: Result<Query<AtStep>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, member) = place(path)?;
    let Query(AtStep { step, total }) =
        at.map_err(|rejection| Problem::bad_request(format!("the query: {}", rejection.body_text())))?;
    if !(1..total).contains(&step) || total > MAX_STEPS {
        let message = format!(
            "expected `step` from 1 and under `total`, and `total` of at most {MAX_STEPS}; got {step} of {total}"
        );
        return Err(Problem::bad_request(message));
    }
    let picture = read_picture(request).await?;
    let act = move |work: &mut crate::sessions::Work| {
        let evidence = work.session.policy().client.evidence;
        Ok(match work.preview(member, (step, total), picture)? {
            PreviewInstruction::Continue(shown) => {
                let shown = shown.map(|preview| Shown::released(&preview, Format::Png)).transpose()?;
                Err(shown.map(|shown| shown.base64()))
            }
            PreviewInstruction::Abort(then) => Ok(Told::new(then, evidence)),
        })
    };
    Ok(match app.sessions.with(&client.tenant, &id, act).await? {
        Ok(told) => told.answer(|then| json!({ "instruction": "abort", "then": then })),
        Err(None) => Json(json!({ "instruction": "continue" })).into_response(),
        Err(Some(shown)) => Json(json!({ "instruction": "continue", "preview": shown })).into_response(),
    })
}

async fn failed(
    State(app): State<Arc<App>>,
    client: Client,
    path: Result<Path<(String, usize)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, member) = place(path)?;
    let Failed { why } = read_json::<Failed>(request).await?;
    let act = move |work: &mut crate::sessions::Work| {
        let instruction = work.failed(member, &why)?;
        Ok(Told::new(instruction, work.session.policy().client.evidence))
    };
    let told = app.sessions.with(&client.tenant, &id, act).await?;
    Ok(told.answer(|instruction| instruction))
}

async fn close(
    State(app): State<Arc<App>>,
    client: Client,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (report, evidence) = app.sessions.close(&client.tenant, &id).await?;
    let outcomes: Vec<Outcome> =
        report.decisions.iter().map(|decision| Outcome::decided(Arc::clone(decision), evidence)).collect();
    let told: Vec<Value> = outcomes.iter().map(Outcome::report).collect();
    Ok(with_decisions(Json(json!({ "outcomes": told })).into_response(), &outcomes))
}

/// The session and the picture that a path names.
fn place(path: Result<Path<(String, usize)>, PathRejection>) -> Result<(String, usize), Problem> {
    let Path(place) = path.map_err(|_| {
        Problem::new(ProblemKind::NotFound, "expected the index of a picture in the path, counted from 0")
    })?;
    Ok(place)
}

/// The picture that is a request's body.
async fn read_picture(request: Request) -> Result<Unjudged, Problem> {
    use axum::extract::FromRequest as _;
    let stated =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !stated.starts_with("image/") && stated != "application/octet-stream" {
        let message =
            "expected the file of a picture as body, with `Content-Type: image/png` or another of its kind";
        return Err(Problem::new(ProblemKind::UnsupportedType, message));
    }
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(Unjudged::encoded(body))
}

/// An instruction as the host may know it.
enum Told {
    Outcome(Outcome),
    Again(DrawAgain),
}

impl Told {
    fn new(instruction: Instruction, evidence: bool) -> Self {
        match instruction.into_outcome() {
            Ok(outcome) => Self::Outcome(Outcome::new(&outcome, Format::Png, evidence)),
            Err(again) if evidence => Self::Again(again),
            // Which rules were violated is evidence. What to avoid and the prompt are there if the policy lets clients draw
            // by them.
            Err(again) => Self::Again(DrawAgain {
                message: "the picture is against the policy; draw it again".to_owned(),
                ..again
            }),
        }
    }

    /// The answer, of which `wrap` makes a body.
    fn answer(&self, wrap: impl FnOnce(Value) -> Value) -> Response {
        match self {
            Self::Outcome(outcome) => with_decisions(Json(wrap(decided(outcome))).into_response(), [outcome]),
            Self::Again(again) => {
                let told = json!({
                    "instruction": "draw_again",
                    "attempt": again.attempt,
                    "seed": again.seed,
                    "strategy": again.strategy.as_str(),
                    "prompt": again.prompt,
                    "avoid": again.avoid,
                    "message": again.message,
                });
                Json(wrap(told)).into_response()
            }
        }
    }
}

/// A final decision. A picture is in `image`, and only one that was released; what stands in for another is in
/// `placeholder`.
fn decided(outcome: &Outcome) -> Value {
    let shown = outcome.shown().map(Shown::base64);
    let (instruction, name) = match outcome.decision().outcome {
        _ if outcome.is_released() => ("release", "image"),
        cluegate_gate::Outcome::Held => ("hold", "placeholder"),
        _ => ("withhold", "placeholder"),
    };
    let mut told = json!({ "instruction": instruction, "outcome": outcome.report() });
    if let Some(shown) = shown {
        told[name] = Value::from(shown);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_a_prompt_or_with_more_than_is_known_is_refused() {
        assert!(serde_json::from_str::<Asked>(r#"{"count": 2}"#).is_err());
        assert!(serde_json::from_str::<Asked>(r#"{"prompt": "a cat", "colour": 1}"#).is_err());
        let asked: Result<Asked, _> = serde_json::from_str(r#"{"prompt": "a cat"}"#);
        assert!(asked.is_ok_and(|asked| asked.count == 1 && asked.seed.is_none()));
    }
}
