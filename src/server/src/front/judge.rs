//! `POST /v1/judge`: a picture in, a verdict and its evidence out. The dialect is this server's own; docs/gateway-judging.md
//! and `/openapi.json` describe it.

use std::sync::Arc;

use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use cluegate_gate::Judgment;
use serde::Deserialize;
use serde_json::{Value, json};

use super::verdict::{Asking, Failed, is_of_type, judgment, read_json, verdict, with_decisions};
use crate::app::{App, Brought};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::json::Json;
use crate::outcome::Outcome;
use crate::pictures::Format;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::router::{Front, Route};
use crate::upstream::Unjudged;

/// Quality of returned JPEG files.
const JPEG_QUALITY: u8 = 90;
/// Most bytes of a text field of a form.
const TEXT_BYTES: usize = 64 << 10;

/// The front end.
pub(crate) fn front() -> Front {
    let routes = vec![Route { path: "/v1/judge", methods: &["POST"], handler: post(judge) }];
    Front { routes, render: |problem| problem.clone().into_response() }
}

/// What a client asks.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The picture in base64 or as a data URL.
    image: Option<String>,
    /// Its address; a data URL is taken too.
    image_url: Option<String>,
    /// What it was drawn for.
    prompt: Option<String>,
    /// The model that drew it.
    model: Option<String>,
    /// The client's name for the request.
    request_id: Option<String>,
    /// How a returned picture is encoded.
    #[serde(default)]
    format: ImageFormat,
    /// Whether a released picture is to be returned as it was judged: redacted, where the policy redacts.
    #[serde(default)]
    return_image: bool,
    /// The picture as a part of a form.
    #[serde(skip)]
    file: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ImageFormat {
    #[default]
    Png,
    Jpeg,
    WebP,
}

impl From<ImageFormat> for Format {
    fn from(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Png => Self::Png,
            ImageFormat::Jpeg => Self::Jpeg(JPEG_QUALITY),
            ImageFormat::WebP => Self::WebP,
        }
    }
}

async fn judge(
    State(app): State<Arc<App>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    request: Request,
) -> Result<Response, Failed> {
    let asked = if is_of_type(request.headers(), "multipart/form-data") {
        read_form(request).await?
    } else if is_of_type(request.headers(), "application/json") {
        read_json::<Asked>(request).await?
    } else {
        let message = "expected a body with `Content-Type: application/json` or `multipart/form-data`";
        return Err(Problem::new(ProblemKind::UnsupportedType, message).into());
    };
    let id = match asked.request_id.as_deref() {
        None => id,
        Some(name) => RequestId::named(name).ok_or_else(RequestId::expected)?,
    };
    let asking = Asking { app: &app, client: &client, id: &id, deadline, subject: None };
    let picture = picture(&asking, &asked).await?;
    let evidence = asking.policy(asked.model.as_deref())?.client.evidence;
    let (prompt, format) = (asked.prompt.unwrap_or_default(), asked.format.into());
    let brought = Brought { picture, prompt, model: asked.model, subject: None, format };
    let outcome = asking.judge(brought).await?;
    let answer = Json(answer(&outcome, evidence, asked.return_image));
    Ok(with_decisions(answer.into_response(), [&outcome]))
}

/// The one picture of a request.
async fn picture(asking: &Asking<'_>, asked: &Asked) -> Result<Unjudged, Problem> {
    let fetcher = &asking.app.fetcher;
    match (&asked.file, asked.image.as_deref(), asked.image_url.as_deref()) {
        (Some(file), None, None) => Ok(Unjudged::encoded(file.clone())),
        (None, Some(image), None) if crate::fetch::is_address(image) => Err(Problem::bad_request(
            "`image` must be base64 or a data URL; an address belongs into `image_url`",
        )),
        (None, Some(named), None) | (None, None, Some(named)) => fetcher.read(named, asking.deadline).await,
        (None, None, None) => Err(Problem::bad_request(
            "expected a picture: `image` (base64, a data URL, or a file part of a form) or `image_url`",
        )),
        _ => Err(Problem::bad_request("expected one picture, got both `image` and `image_url`")),
    }
}

fn answer(outcome: &Outcome, evidence: bool, return_image: bool) -> Value {
    let (decision, judged) = (outcome.decision(), judgment(outcome));
    let mut answer = json!({
        "decision_id": outcome.decision_id(),
        "request_id": decision.request.id,
        "outcome": decision.outcome,
        "reason": outcome.reason(),
        "message": outcome.message(),
        "verdict": verdict(outcome).unwrap_or(Judgment::Error),
        "constitution": decision.constitution,
        "timings_ms": decision.timings_ms,
    });
    if evidence {
        answer["violated"] = json!(judged.map_or(&[][..], |judged| &judged.violated));
        answer["action"] = json!(judged.and_then(|judged| judged.action));
        answer["evidence"] = json!(judged.and_then(|judged| judged.evidence.as_ref()));
        if let Some(attempt) = decision.attempts.last().filter(|attempt| !attempt.plugins.is_empty()) {
            answer["plugins"] = json!(attempt.plugins);
        }
    }
    if return_image
        && outcome.is_released()
        && let Some(shown) = outcome.shown()
    {
        answer["image"] = Value::from(shown.base64());
    }
    answer
}

/// Reads a form: the picture is the file part `image`, and other fields are as in JSON.
async fn read_form(request: Request) -> Result<Asked, Problem> {
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (mut asked, mut seen) = (Asked::default(), Vec::new());
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if seen.contains(&name) {
            return Err(Problem::bad_request(format!("the form has several parts named {name:.40?}")));
        }
        match name.as_str() {
            "image" if field.file_name().is_some() => {
                asked.file = Some(field.bytes().await.map_err(|error| broken(&error))?);
            }
            // A picture in base64 is longer than a text.
            "image" => asked.image = Some(field.text().await.map_err(|error| broken(&error))?),
            "image_url" => asked.image_url = Some(field.text().await.map_err(|error| broken(&error))?),
            "prompt" => asked.prompt = Some(text(field, &name).await?),
            "model" => asked.model = Some(text(field, &name).await?),
            "request_id" => asked.request_id = Some(text(field, &name).await?),
            "format" => asked.format = word(field, &name).await?,
            "return_image" => asked.return_image = word::<String>(field, &name).await? == "true",
            _ => {
                return Err(Problem::bad_request(format!(
                    "the form has a part named {name:.40?}; known are image, image_url, prompt, model, request_id, format and \
                     return_image"
                )));
            }
        }
        seen.push(name);
    }
    Ok(asked)
}

async fn text(field: Field<'_>, name: &str) -> Result<String, Problem> {
    let text = field.text().await.map_err(|error| broken(&error))?;
    if text.len() <= TEXT_BYTES {
        return Ok(text);
    }
    let message = format!("the part `{name}` has {} bytes, more than {TEXT_BYTES}", text.len());
    Err(Problem::new(ProblemKind::TooLarge, message))
}

async fn word<T: serde::de::DeserializeOwned>(field: Field<'_>, name: &str) -> Result<T, Problem> {
    let text = text(field, name).await?;
    if name == "return_image" && !["true", "false"].contains(&text.as_str()) {
        return Err(Problem::bad_request("the part `return_image` must be `true` or `false`"));
    }
    let word = serde_json::from_value(Value::String(text));
    word.map_err(|error| Problem::bad_request(format!("the part `{name}`: {error:.200}")))
}

fn broken(error: &MultipartError) -> Problem {
    let kind = if error.status().as_u16() == 413 { ProblemKind::TooLarge } else { ProblemKind::BadRequest };
    Problem::new(kind, format!("the form could not be read: {}", error.body_text()))
}
