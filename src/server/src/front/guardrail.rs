//! LiteLLM's generic guardrail: `POST /beta/litellm_basic_guardrail_api`.
//!
//! Request and answer as in `litellm` 1.106.2, `types/proxy/guardrails/guardrail_hooks/generic_guardrail_api.py`
//! (`GenericGuardrailAPIRequest`, `GenericGuardrailAPIResponse`), and as
//! `proxy/guardrails/guardrail_hooks/generic_guardrail_api/generic_guardrail_api.py` uses them. Of what comes, texts are
//! left as they are: this server judges pictures.
//!
//! A picture that must not go on as it came (hidden regions, converted, or named by an address that may lead elsewhere
//! the next time) is replaced. LiteLLM writes the answer's `images` back nowhere, whatever the contract says: only
//! `texts`, `tools` and `structured_messages` (`llms/openai/chat/guardrail_translation/handler.py`,
//! `process_input_messages`). So a replaced picture is put into both, and where LiteLLM sent no message that holds it,
//! the call is blocked: the alternative is the unredacted picture under the name of a guardrail that ran.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use cluegate_gate::Reason;
use cluegate_perception::DecodeOptions;
use serde::Deserialize;
use serde_json::{Value, json};

use super::verdict::{Asking, Failed, read_json, with_decisions};
use crate::app::App;
use crate::client::{Client, subject_of};
use crate::deadline::Deadline;
use crate::fetch::is_address;
use crate::json::Json;
use crate::outcome::Outcome;
use crate::problem::{Problem, ProblemKind};
use crate::request_id::RequestId;
use crate::router::{Front, Route};

/// The front end.
pub(crate) fn front() -> Front {
    let path = "/beta/litellm_basic_guardrail_api";
    let routes = vec![Route { path, methods: &["POST"], handler: post(guard) }];
    Front { routes, render: |problem| problem.clone().into_response() }
}

/// What is read of a request. Others of its keys come and go with LiteLLM's versions and have no say here.
#[derive(Debug, Deserialize)]
struct Asked {
    input_type: InputType,
    #[serde(default)]
    texts: Option<Vec<String>>,
    #[serde(default)]
    images: Option<Vec<String>>,
    /// Chat messages, which hold the pictures of `images` and perhaps more.
    #[serde(default)]
    structured_messages: Option<Value>,
    #[serde(default)]
    litellm_call_id: Option<String>,
    #[serde(default)]
    litellm_trace_id: Option<String>,
    #[serde(default)]
    litellm_version: Option<String>,
    /// What LiteLLM knows of who asked it.
    #[serde(default)]
    request_data: RequestData,
}

#[derive(Debug, Default, Deserialize)]
struct RequestData {
    #[serde(default)]
    user_api_key_end_user_id: Option<String>,
    #[serde(default)]
    user_api_key_user_id: Option<String>,
}

impl RequestData {
    /// On behalf of whom the call was made: LiteLLM's own user names its end user, or is the user.
    fn end_user(&self) -> Option<&str> {
        self.user_api_key_end_user_id.as_deref().or(self.user_api_key_user_id.as_deref())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InputType {
    Request,
    Response,
}

impl Asked {
    /// Whether LiteLLM asks, as opposed to a program that speaks its contract and writes `images` back itself.
    fn is_from_litellm(&self) -> bool {
        self.litellm_call_id.is_some() || self.litellm_trace_id.is_some() || self.litellm_version.is_some()
    }

    /// Every picture once, `images` first.
    fn pictures(&mut self) -> Result<Vec<String>, Problem> {
        let (mut pictures, mut seen): (Vec<String>, _) = (Vec::new(), HashSet::new());
        let mut add = |named: &str| {
            if seen.insert(named.to_owned()) {
                pictures.push(named.to_owned());
            }
        };
        self.images.iter().flatten().for_each(|image| add(image));
        let mut odd = None;
        visit_pictures(self.structured_messages.as_mut(), &mut |picture| match picture {
            Some(named) => add(named),
            None => odd = Some("expected `image_url` of a message to be a text or to have a `url`"),
        });
        match odd {
            Some(expected) => Err(Problem::bad_request(expected)),
            None => Ok(pictures),
        }
    }
}

async fn guard(
    State(app): State<Arc<App>>,
    client: Client,
    id: RequestId,
    deadline: Deadline,
    request: Request,
) -> Result<Response, Failed> {
    let mut asked: Asked = read_json(request).await?;
    let pictures = asked.pictures()?;
    // The call's id, so that LiteLLM's logs and the decisions can be brought together.
    let id = asked.litellm_call_id.as_deref().and_then(RequestId::named).unwrap_or(id);
    tracing::debug!(request = id.as_str(), input = ?asked.input_type, pictures = pictures.len(), "a guardrail call");
    let subject = subject_of(asked.request_data.end_user());
    let asking = Asking { app: &app, client: &client, id: &id, deadline, subject };
    let named: Vec<&str> = pictures.iter().map(String::as_str).collect();
    let outcomes = asking.judge_all(&named).await?;
    let answer = match blocked(&outcomes) {
        Some(reason) => json!({ "action": "BLOCKED", "blocked_reason": reason }),
        None => passed(&app, asked, &pictures, &outcomes).await?,
    };
    Ok(with_decisions(Json(answer).into_response(), &outcomes))
}

/// Why the call is blocked, if any picture is withheld.
fn blocked(outcomes: &[Outcome]) -> Option<String> {
    let withheld = outcomes.iter().enumerate().filter(|(_, outcome)| !outcome.is_released());
    let told: Vec<String> = withheld
        .map(|(index, outcome)| {
            format!(
                "picture {} of {}: {} (decision {})",
                index + 1,
                outcomes.len(),
                outcome.message(),
                outcome.decision_id()
            )
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The answer where all pictures may go on, some of them perhaps as others than they came.
async fn passed(
    app: &App,
    mut asked: Asked,
    pictures: &[String],
    outcomes: &[Outcome],
) -> Result<Value, Problem> {
    let mut replaced = BTreeMap::new();
    for (named, outcome) in pictures.iter().zip(outcomes) {
        if let Some(replacement) = replacement(app, named, outcome).await? {
            replaced.insert(named.clone(), replacement);
        }
    }
    if replaced.is_empty() {
        return Ok(json!({ "action": "NONE", "texts": asked.texts, "images": asked.images }));
    }
    let mut written: Vec<String> = Vec::new();
    visit_pictures(asked.structured_messages.as_mut(), &mut |picture| {
        if let Some(picture) = picture
            && let Some(replacement) = replaced.get(picture)
        {
            written.push(std::mem::replace(picture, replacement.clone()));
        }
    });
    if asked.is_from_litellm() && !replaced.keys().all(|named| written.contains(named)) {
        let reason = "a picture may go on only in another form than it came (redacted, converted or fetched), and \
                      LiteLLM has no place to put that form here";
        return Ok(json!({ "action": "BLOCKED", "blocked_reason": reason }));
    }
    let replace = |image: String| replaced.get(&image).cloned().unwrap_or(image);
    let images: Option<Vec<String>> = asked.images.map(|images| images.into_iter().map(replace).collect());
    let mut answer = json!({ "action": "GUARDRAIL_INTERVENED", "texts": asked.texts, "images": images });
    if let Some(messages) = asked.structured_messages {
        answer["structured_messages"] = messages;
    }
    Ok(answer)
}

/// What stands in for a picture that was released but must not go on as it came; none if it may.
async fn replacement(app: &App, named: &str, outcome: &Outcome) -> Result<Option<String>, Problem> {
    let as_it_came = outcome.reason() != Reason::Redacted
        && !is_address(named)
        && is_unconverted(app, named, outcome).await?;
    match outcome.shown() {
        _ if as_it_came => Ok(None),
        Some(shown) => Ok(Some(format!("data:{};base64,{}", shown.format().media_type(), shown.base64()))),
        None => Err(Problem::new(ProblemKind::Internal, "a released picture could not be encoded")),
    }
}

/// Whether a file looks the same to every viewer, so that what was judged is what others will see of it.
async fn is_unconverted(app: &App, named: &str, outcome: &Outcome) -> Result<bool, Problem> {
    if !app.config.pictures.decode.convert {
        // It would have been refused.
        return Ok(true);
    }
    let options = DecodeOptions { convert: false, ..app.config.pictures.decode };
    let picture = app.fetcher.read(named, Deadline(std::time::Instant::now())).await?;
    let size = outcome.shown().map(crate::pictures::Shown::size);
    let strict = tokio::task::spawn_blocking(move || picture.decode(&options)).await;
    Ok(matches!(strict, Ok(Ok(picture)) if Some((picture.width(), picture.height())) == size))
}

/// Calls `visit` for every picture in chat messages: the parts `{"type": "image_url", "image_url": URL | {"url": URL}}`,
/// `input_image` likewise, and data URLs of pictures anywhere else in a part but in its text. What has the type but not
/// the form is visited as `None`.
fn visit_pictures(messages: Option<&mut Value>, visit: &mut dyn FnMut(Option<&mut String>)) {
    let messages = messages.and_then(Value::as_array_mut).into_iter().flatten();
    let contents = messages.filter_map(|message| message.get_mut("content")?.as_array_mut());
    for part in contents.flatten() {
        if !matches!(part["type"].as_str(), Some("image_url" | "input_image")) {
            visit_data_urls(part, visit);
            continue;
        }
        visit(match part.get_mut("image_url") {
            Some(Value::String(named)) => Some(named),
            Some(Value::Object(image)) => match image.get_mut("url") {
                Some(Value::String(named)) => Some(named),
                _ => None,
            },
            _ => None,
        });
    }
}

fn visit_data_urls(value: &mut Value, visit: &mut dyn FnMut(Option<&mut String>)) {
    match value {
        Value::String(text) if is_data_url_of_picture(text) => visit(Some(text)),
        Value::Array(values) => values.iter_mut().for_each(|value| visit_data_urls(value, visit)),
        Value::Object(fields) => {
            for (_, value) in fields.iter_mut().filter(|(name, _)| *name != "text") {
                visit_data_urls(value, visit);
            }
        }
        _ => {}
    }
}

fn is_data_url_of_picture(text: &str) -> bool {
    text.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("data:image/"))
}
