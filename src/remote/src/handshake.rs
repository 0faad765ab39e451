//! At start: is this the model, does it give log-probabilities for pictures, does it look at them?
//!
//! Whatever is missing is found here, before the first picture is judged, and said in words: an engine that drops the
//! picture would otherwise answer every question, and wrongly.

use cluegate_perception::{AnswerScore, Picture, Prefix, Prompt};
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::answers::Listed;
use crate::chat::{self, Ask, Chat};
use crate::client::{Answer, Client, Request};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::options::{Dialect, RemoteOptions};
use crate::picture::DataUrls;
use crate::spellings::spellings;

/// Edge of the probe picture in pixels.
const EDGE: u32 = 224;
/// Two passes of one model over one prompt differ by less, a pass with and one without a picture by more.
const SAME: f64 = 1e-4;
/// Endpoints with the same weights answer the probe alike to this.
const ALIKE: f64 = 0.05;

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) chat: Chat,
    /// Identity of the model for caches: its name, what it was made from, and what it answered.
    pub(crate) fingerprint: String,
}

/// Asks every endpoint.
///
/// # Errors
/// What is missing, by the first endpoint that lacks it.
pub(crate) fn handshake(client: &Client, options: &RemoteOptions) -> Result<Found, RemoteError> {
    let mut first: Option<(Chat, Vec<f64>, String)> = None;
    for (endpoint, address) in client.addresses().iter().enumerate() {
        let root = listed_model(client, endpoint, &options.model)?;
        let chat = match &first {
            Some((chat, ..)) => chat.clone(),
            None => choose(client, endpoint, options)?,
        };
        let (named, answer) = probe(client, endpoint, &chat)?;
        let chat = Chat { named, ..chat };
        match &first {
            None => first = Some((chat, answer, root)),
            Some((_, expected, _)) => {
                let gap = expected.iter().zip(&answer).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                if gap.is_nan() || gap > ALIKE {
                    let message = format!(
                        "expected the same weights as at the first endpoint, its answer to the probe differs by \
                         {gap:.3}; serve the same model and revision everywhere"
                    );
                    return Err(RemoteError::new(RemoteErrorKind::Mixed, address, message));
                }
            }
        }
    }
    let Some((chat, answer, root)) = first else {
        return Err(RemoteError::new(RemoteErrorKind::Options, "urls", "expected at least one address"));
    };
    let mut hasher = blake3::Hasher::new();
    for part in [options.model.as_str(), &root] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    // Other weights under the same name answer otherwise; the same ones to two digits alike.
    for value in answer {
        hasher.update(format!("{value:.2} ").as_bytes());
    }
    Ok(Found { chat, fingerprint: format!("remote:{}", hasher.finalize().to_hex()) })
}

/// What the endpoint's model was made from, if the endpoint serves it.
pub(crate) fn listed_model(client: &Client, endpoint: usize, name: &str) -> Result<String, RemoteError> {
    let request = Request { path: "/v1/models", body: None, picture: None };
    let wanted = name.to_owned();
    client.one_at(endpoint, request, move |_, answer| {
        let models = answer.json.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let id = |model: &Value| model.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        match models.iter().find(|model| id(model) == wanted) {
            Some(model) => Ok(model.get("root").and_then(Value::as_str).unwrap_or_default().to_owned()),
            None => {
                let names: Vec<String> = models.iter().map(id).collect();
                let message =
                    format!("expected the model {wanted:?}, the engine serves: {}", names.join(", "));
                Err(RemoteError::new(RemoteErrorKind::UnknownModel, &answer.endpoint, message))
            }
        }
    })
}

/// The first way of asking that the engine answers.
fn choose(client: &Client, endpoint: usize, options: &RemoteOptions) -> Result<Chat, RemoteError> {
    let chat = |ask| Chat {
        model: options.model.clone(),
        template_options: options.template_options.clone(),
        ask,
        named: false,
    };
    let words = Ask::Words { top: options.top_tokens, uncertainty: options.uncertainty };
    if options.dialect == Dialect::TopTokens {
        return Ok(chat(words));
    }
    let ids = match spellings(client, endpoint, &options.model) {
        Ok(Some(ids)) => chat(Ask::Ids(ids)),
        Ok(None) if options.dialect == Dialect::Auto => return Ok(chat(words)),
        Ok(None) => {
            let message =
                "expected POST /tokenize, which the dialect token-ids needs; use dialect = \"auto\"";
            return Err(RemoteError::new(RemoteErrorKind::NoProbabilities, &options.model, message));
        }
        Err(error) => return Err(error),
    };
    if options.dialect == Dialect::TokenIds {
        return Ok(ids);
    }
    // Older engines ignore or refuse the field.
    match ask_once(client, endpoint, &ids, &question(None)) {
        Ok(_) => Ok(ids),
        Err(error) if matches!(error.kind(), RemoteErrorKind::NoProbabilities | RemoteErrorKind::Refused) => {
            Ok(chat(words))
        }
        Err(error) => Err(error),
    }
}

/// Asks about a picture, its mirror image and none: an engine may put words in the place of every picture, which differ
/// from no words. Whether answers are named, and the log-probabilities with and without a picture.
fn probe(client: &Client, endpoint: usize, chat: &Chat) -> Result<(bool, Vec<f64>), RemoteError> {
    let (seen, with, named) = ask_once(client, endpoint, chat, &question(Some(picture(false))))?;
    let (mirrored, ..) = ask_once(client, endpoint, chat, &question(Some(picture(true))))?;
    let (text, without, _) = ask_once(client, endpoint, chat, &question(None))?;
    for (other, what) in [(&text, "the same question without"), (&mirrored, "its mirror image")] {
        if are_same(&seen, other) {
            let message = format!(
                "the model answers a question about a picture exactly as {what}: the engine drops the picture; serve a \
                 vision-language model, and see --limit-mm-per-prompt at vLLM"
            );
            return Err(RemoteError::new(RemoteErrorKind::Blind, &chat.model, message));
        }
    }
    Ok((named, vec![with.yes.ln(), with.no.ln(), without.yes.ln(), without.no.ln()]))
}

/// Whether two answers list the same tokens with the same log-probabilities, as far as they list the same ones.
fn are_same(one: &[Listed], other: &[Listed]) -> bool {
    let gaps = one.iter().filter_map(|a| {
        let same = other.iter().find(|b| b.token == a.token)?;
        Some((a.logprob - same.logprob).abs())
    });
    gaps.reduce(f64::max).is_some_and(|largest| largest <= SAME)
}

/// One question: what is listed, its score, and whether the answer carries the request's name.
fn ask_once(
    client: &Client,
    endpoint: usize,
    chat: &Chat,
    prompt: &Prompt,
) -> Result<(Vec<Listed>, AnswerScore, bool), RemoteError> {
    let url = prompt.prefix.picture.as_ref().map(|picture| DataUrls::new().of(picture)).transpose()?;
    let body = chat.score_request(prompt, url.as_deref(), None);
    let reader = chat.clone();
    client.one_at(
        endpoint,
        Request { path: chat::PATH, body: Some(body), picture: None },
        move |_, answer| {
            let choice = reader.choice(answer)?;
            refuse_thoughts(&choice, answer)?;
            let score = reader.read_score(answer)?;
            let named = answer
                .json
                .get("id")
                .and_then(Value::as_str)
                .is_some_and(|id| id.contains(&answer.request_id));
            Ok((chat::listed(choice, answer)?, score, named))
        },
    )
}

/// The first token of a model that thinks is no answer.
fn refuse_thoughts(choice: &chat::Choice, answer: &Answer) -> Result<(), RemoteError> {
    let says = choice.message.content.as_deref().unwrap_or_default().trim_start();
    let thinks = choice.message.reasoning.as_deref().is_some_and(|text| !text.is_empty());
    if !thinks && !says.starts_with("<think") {
        return Ok(());
    }
    let message = "the model thinks before it answers, so that its first token is neither Yes nor No; turn thinking off \
                   by template-options (enable_thinking = false is sent by default), or use a model that does not";
    Err(RemoteError::new(RemoteErrorKind::Thinks, &answer.endpoint, message))
}

fn question(picture: Option<Picture>) -> Prompt {
    let text = "Is the left half of this image darker than its right half? Answer \"Yes\" or \"No\".";
    Prompt::new(Prefix { picture, text: text.into() }, "")
}

/// Dark on the left, light on the right, with a coarse pattern; or the other way round.
fn picture(mirrored: bool) -> Picture {
    Picture::new(RgbImage::from_fn(EDGE, EDGE, |x, y| {
        let x = if mirrored { EDGE - 1 - x } else { x };
        let light = if x < EDGE / 2 { 30 } else { 210 };
        Rgb([light + (y / 28 % 2 * 20) as u8, light, light + (x / 28 % 2 * 20) as u8])
    }))
}
