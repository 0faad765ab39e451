//! Before an endpoint gets its first question, and again whenever it has failed: is this the model, does it give
//! log-probabilities for pictures, does it look at them?
//!
//! Whatever is missing is found here and said in words: an engine that drops the picture would otherwise answer every
//! question, and wrongly.

use std::sync::{Arc, OnceLock};

use cluegate_perception::{AnswerScore, Picture, Prefix, Prompt};
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::answers::Listed;
use crate::body::Body;
use crate::chat::{self, Ask, Chat};
use crate::client::{Answer, Client, Link, Request};
use crate::error::{RemoteError, RemoteErrorKind};
use crate::options::{Dialect, RemoteOptions};
use crate::picture::DataUrls;
use crate::spellings::spellings;

/// Edge of the probe picture in pixels.
const EDGE: u32 = 224;
/// Passes with and without a picture differ by more than two passes over one prompt do, and by more than this.
const SAME: f64 = 1e-4;
/// Endpoints with the same weights answer the probe alike to this.
const ALIKE: f64 = 0.05;

/// What is needed of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Log-probabilities of questions about pictures.
    Pictures,
    /// Answers to texts; log-probabilities where there are some.
    Texts,
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) chat: Chat,
    /// Identity of the model for caches: its name, what it was made from, and what it answered.
    pub(crate) fingerprint: String,
    /// What it answered to the probe.
    answer: Vec<f64>,
}

/// Opens a client whose endpoints all are what is needed, and the same thing, before they are asked.
///
/// # Errors
/// What the first endpoint lacks if none has all; two endpoints that answer differently.
pub(crate) fn handshake(options: &RemoteOptions, need: Need) -> Result<(Client, Found), RemoteError> {
    let known: Arc<OnceLock<Found>> = Arc::default();
    let (wanted, first) = (options.clone(), Arc::clone(&known));
    let check = move |link: &Link, endpoint: usize| {
        let found = look(link, endpoint, &wanted, need, first.get().map(|found| &found.chat))?;
        let expected = first.get_or_init(|| found.clone());
        let gap = expected.answer.iter().zip(&found.answer).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if gap.is_nan() || gap > ALIKE {
            let message = format!(
                "expected the same weights as at the first endpoint, its answer to the probe differs by {gap:.3}; serve \
                 the same model and revision everywhere"
            );
            return Err(RemoteError::new(RemoteErrorKind::Mixed, link.address(endpoint), message));
        }
        Ok(())
    };
    let client = Client::open(options, check)?;
    let found = known
        .get()
        .cloned()
        .ok_or_else(|| RemoteError::new(RemoteErrorKind::Options, "urls", "expected at least one address"))?;
    Ok((client, found))
}

/// What an endpoint is, asked in the way that is known to work if there is one.
fn look(
    link: &Link,
    endpoint: usize,
    options: &RemoteOptions,
    need: Need,
    known: Option<&Chat>,
) -> Result<Found, RemoteError> {
    let root = listed_model(link, endpoint, &options.model)?;
    let chat = match known {
        Some(chat) => chat.clone(),
        None => choose(link, endpoint, options, need)?,
    };
    let (named, answer) = match need {
        Need::Pictures => probe(link, endpoint, &chat)?,
        Need::Texts => probe_text(link, endpoint, &chat)?,
    };
    let mut hasher = blake3::Hasher::new();
    for part in [options.model.as_str(), &root] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    // Other weights under the same name answer otherwise; the same ones to two digits alike.
    for value in &answer {
        hasher.update(format!("{value:.2} ").as_bytes());
    }
    let fingerprint = format!("remote:{}", hasher.finalize().to_hex());
    Ok(Found { chat: Chat { named, ..chat }, fingerprint, answer })
}

/// What the endpoint's model was made from, if the endpoint serves it.
pub(crate) fn listed_model(link: &Link, endpoint: usize, name: &str) -> Result<String, RemoteError> {
    let request = Request { path: "/v1/models", body: None, picture: None };
    let wanted = name.to_owned();
    link.ask(endpoint, request, move |answer| {
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
fn choose(link: &Link, endpoint: usize, options: &RemoteOptions, need: Need) -> Result<Chat, RemoteError> {
    let chat = |ask| Chat {
        model: options.model.clone(),
        template_options: options.template_options.clone(),
        ask,
        named: false,
    };
    let lacks = |error: &RemoteError| {
        matches!(error.kind(), RemoteErrorKind::NoProbabilities | RemoteErrorKind::Refused)
    };
    // Older engines ignore or refuse the field of ids.
    let answers = |chat: Chat| match ask_once(link, endpoint, &chat, &question(None)) {
        Ok(_) => Ok(Some(chat)),
        Err(error) if lacks(&error) => Ok(None),
        Err(error) => Err(error),
    };
    let words = chat(Ask::Words { top: options.top_tokens, uncertainty: options.uncertainty });
    // Texts are read all the same where log-probabilities cannot be had; for pictures the probe says what is missing.
    let without_ids = || match need {
        Need::Pictures => Ok(words.clone()),
        Need::Texts => Ok(answers(words.clone())?.unwrap_or_else(|| chat(Ask::Never))),
    };
    if options.dialect == Dialect::TopTokens {
        return without_ids();
    }
    let ids = match spellings(link, endpoint, &options.model) {
        Ok(Some(ids)) => chat(Ask::Ids(ids)),
        Ok(None) if options.dialect == Dialect::Auto => return without_ids(),
        Ok(None) => {
            let message =
                "expected POST /tokenize, which the dialect token-ids needs; use dialect = \"auto\"";
            return Err(RemoteError::new(RemoteErrorKind::NoProbabilities, &options.model, message));
        }
        Err(error) if need == Need::Texts && lacks(&error) => return without_ids(),
        Err(error) => return Err(error),
    };
    if options.dialect == Dialect::TokenIds {
        return Ok(ids);
    }
    answers(ids)?.map_or_else(without_ids, Ok)
}

/// Asks about a picture, its mirror image and none: an engine may put words in the place of every picture, which differ
/// from no words. Each is asked twice: what a pass differs from its repetition by (in bf16, or because a part was
/// remembered) tells nothing. Whether answers are named, and the log-probabilities with and without a picture.
fn probe(link: &Link, endpoint: usize, chat: &Chat) -> Result<(bool, Vec<f64>), RemoteError> {
    let twice = |prompt: Prompt| {
        Ok::<_, RemoteError>([
            ask_once(link, endpoint, chat, &prompt)?,
            ask_once(link, endpoint, chat, &prompt)?,
        ])
    };
    let seen = twice(question(Some(picture(false))))?;
    let mirrored = twice(question(Some(picture(true))))?;
    let text = twice(question(None))?;
    let noise = [&seen, &mirrored, &text].map(|[one, again]| gap(&one.listed, &again.listed).unwrap_or(0.0));
    let limit = noise.into_iter().fold(SAME, |limit, noise| limit.max(2.0 * noise));
    for (other, what) in [(&text, "the same question without"), (&mirrored, "its mirror image")] {
        if gap(&seen[0].listed, &other[0].listed).is_some_and(|gap| gap <= limit) {
            let message = format!(
                "the model answers a question about a picture as {what}, up to the {limit:.1e} by which its answers to \
                 one question differ: the engine drops the picture; serve a vision-language model, and see \
                 --limit-mm-per-prompt at vLLM"
            );
            return Err(RemoteError::new(RemoteErrorKind::Blind, &chat.model, message));
        }
    }
    let ([with, _], [without, _]) = (seen, text);
    let masses = [with.score.yes, with.score.no, without.score.yes, without.score.no];
    Ok((with.named, masses.map(f64::ln).to_vec()))
}

/// Asks for a word. Whether answers are named, and the log-probabilities where there are some.
fn probe_text(link: &Link, endpoint: usize, chat: &Chat) -> Result<(bool, Vec<f64>), RemoteError> {
    if chat.ask != Ask::Never {
        let Probed { score, named, .. } = ask_once(link, endpoint, chat, &question(None))?;
        return Ok((named, [score.yes, score.no].map(f64::ln).to_vec()));
    }
    let reader = chat.clone();
    let request = Request::new(chat::PATH, chat.answer_request(&question(None), None, None, 16))?;
    link.ask(endpoint, request, move |answer| {
        refuse_thoughts(&reader.choice(answer)?, answer)?;
        reader.read_answer(answer)?;
        Ok((answer.is_named(), Vec::new()))
    })
}

/// By how much the log-probabilities of two answers differ at most, over the tokens that both list.
fn gap(one: &[Listed], other: &[Listed]) -> Option<f64> {
    let gaps = one.iter().filter_map(|a| {
        let same = other.iter().find(|b| b.token == a.token)?;
        Some((a.logprob - same.logprob).abs())
    });
    gaps.reduce(f64::max)
}

/// An answer to a question of the handshake.
struct Probed {
    listed: Vec<Listed>,
    score: AnswerScore,
    /// Whether it carries the request's name.
    named: bool,
}

fn ask_once(link: &Link, endpoint: usize, chat: &Chat, prompt: &Prompt) -> Result<Probed, RemoteError> {
    let url = prompt.prefix.picture.as_ref().map(|picture| DataUrls::new().of(picture)).transpose()?;
    let body = Body::new(url.as_ref(), |url| chat.score_request(prompt, url, None))?;
    let reader = chat.clone();
    let request = Request { path: chat::PATH, body: Some(body), picture: None };
    link.ask(endpoint, request, move |answer| {
        let choice = reader.choice(answer)?;
        refuse_thoughts(&choice, answer)?;
        let score = reader.read_score(answer)?;
        Ok(Probed { listed: chat::listed(choice, answer)?, score, named: answer.is_named() })
    })
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
