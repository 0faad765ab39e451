//! One question as a chat request, and what comes back.
//!
//! `POST /v1/chat/completions` as OpenAI documents it, with what vLLM and SGLang add: `logprob_token_ids` and
//! `return_tokens_as_token_ids`, `continue_final_message`, `cache_salt`, `chat_template_kwargs`
//! (`vllm/entrypoints/openai/chat_completion/protocol.py` of vLLM 0.32).

use cluegate_perception::{AnswerScore, Completion, FinishReason, Prompt};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::answers::{Listed, Spellings, by_ids, by_words};
use crate::client::Answer;
use crate::error::{RemoteError, RemoteErrorKind};

/// Path of the request.
pub(crate) const PATH: &str = "/v1/chat/completions";

/// Said of a score that was asked of an engine without log-probabilities.
pub(crate) const NO_SCORES: &str = "expected log-probabilities, which the engine did not have when it was opened; it can be \
                                    asked for free answers only";

/// How log-probabilities are asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// Of these tokens.
    Ids(Spellings),
    /// Of the most probable ones.
    Words { top: u32, uncertainty: f64 },
    /// Not at all: the engine has none, and only its texts are wanted.
    Never,
}

/// What is the same in all requests to a model.
#[derive(Debug, Clone)]
pub(crate) struct Chat {
    pub(crate) model: String,
    pub(crate) template_options: Map<String, Value>,
    pub(crate) ask: Ask,
    /// Whether answers carry the name of their request.
    pub(crate) named: bool,
}

impl Chat {
    /// A question whose next token's log-probabilities are wanted. `url` is the picture's data URL.
    pub(crate) fn score_request(&self, prompt: &Prompt, url: Option<&str>, salt: Option<&str>) -> Value {
        let mut body = self.body(prompt, url, salt, 1);
        body.insert("logprobs".to_owned(), (self.ask != Ask::Never).into());
        match &self.ask {
            Ask::Ids(Spellings { yes, no }) => {
                body.insert("logprob_token_ids".to_owned(), [yes.as_slice(), no].concat().into());
                body.insert("return_tokens_as_token_ids".to_owned(), true.into());
            }
            Ask::Words { top, .. } => {
                body.insert("top_logprobs".to_owned(), (*top).into());
            }
            Ask::Never => {}
        }
        body.into()
    }

    /// A question with a free answer of up to `max_tokens` tokens.
    pub(crate) fn answer_request(
        &self,
        prompt: &Prompt,
        url: Option<&str>,
        salt: Option<&str>,
        max_tokens: usize,
    ) -> Value {
        self.body(prompt, url, salt, max_tokens).into()
    }

    fn body(
        &self,
        prompt: &Prompt,
        url: Option<&str>,
        salt: Option<&str>,
        tokens: usize,
    ) -> Map<String, Value> {
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
        set("model", self.model.as_str().into());
        set("messages", messages(prompt, url));
        set("max_tokens", tokens.into());
        set("temperature", 0.into());
        // Engines take what is not said from the checkpoint's generation_config.json; penalties change what is likely.
        set("top_p", 1.into());
        set("presence_penalty", 0.into());
        set("frequency_penalty", 0.into());
        set("repetition_penalty", 1.into());
        if !prompt.answer_start.is_empty() {
            // The last message is the answer's beginning, which goes on where it stops.
            set("continue_final_message", true.into());
            set("add_generation_prompt", false.into());
        }
        if let Some(salt) = salt {
            set("cache_salt", salt.into());
        }
        if !self.template_options.is_empty() {
            set("chat_template_kwargs", self.template_options.clone().into());
        }
        body
    }

    /// The masses of Yes and No in an answer.
    pub(crate) fn read_score(&self, answer: &Answer) -> Result<AnswerScore, RemoteError> {
        let choice = self.choice(answer)?;
        let listed = listed(choice, answer)?;
        let score = match &self.ask {
            Ask::Ids(spellings) => by_ids(&listed, spellings),
            Ask::Words { uncertainty, .. } => by_words(&listed, *uncertainty),
            Ask::Never => Err(NO_SCORES.to_owned()),
        };
        score.map_err(|missing| RemoteError::new(RemoteErrorKind::NoProbabilities, &answer.endpoint, missing))
    }

    /// A free answer.
    pub(crate) fn read_answer(&self, answer: &Answer) -> Result<Completion, RemoteError> {
        let tokens = answer.json.pointer("/usage/completion_tokens").and_then(Value::as_u64).unwrap_or(0);
        let choice = self.choice(answer)?;
        let text = choice.message.content.unwrap_or_default();
        let finish = match choice.finish_reason.as_deref() {
            Some("stop") => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            other => {
                return Err(malformed(
                    answer,
                    format!("expected finish_reason stop or length, got {other:?}"),
                ));
            }
        };
        Ok(Completion { text, tokens: tokens as usize, finish })
    }

    /// The one choice of an answer to our request from our model.
    pub(crate) fn choice(&self, answer: &Answer) -> Result<Choice, RemoteError> {
        answer.refuse_mixed(&self.model, self.named)?;
        let parsed = Reply::deserialize(&answer.json)
            .map_err(|e| malformed(answer, format!("expected a chat completion, got another JSON: {e}")))?;
        let count = parsed.choices.len();
        let mut choices = parsed.choices.into_iter();
        match (choices.next(), choices.next()) {
            (Some(choice), None) => Ok(choice),
            _ => Err(malformed(answer, format!("expected one choice, got {count}"))),
        }
    }
}

/// Where a picture is shown comes first, so that an engine computes it once for all questions.
fn messages(prompt: &Prompt, url: Option<&str>) -> Value {
    let text = format!("{}{}", prompt.prefix.text, prompt.suffix);
    let first: Value = match url {
        Some(url) => json!([
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": text},
        ]),
        None => text.into(),
    };
    let mut messages = vec![json!({"role": "user", "content": first})];
    for turn in &prompt.turns {
        messages.push(json!({"role": "assistant", "content": turn.assistant}));
        messages.push(json!({"role": "user", "content": turn.user}));
    }
    if !prompt.answer_start.is_empty() {
        messages.push(json!({"role": "assistant", "content": prompt.answer_start}));
    }
    messages.into()
}

/// The tokens that an answer lists for its first place, each of them once. Several may have the same text: engines decode
/// each by itself, which drops the space of some tokenizers.
pub(crate) fn listed(choice: Choice, answer: &Answer) -> Result<Vec<Listed>, RemoteError> {
    let first = choice.logprobs.and_then(|logprobs| logprobs.content?.into_iter().next()).ok_or_else(|| {
        let advice = "start the engine with log-probabilities, or use one that has them for pictures (vLLM, SGLang)";
        let message = format!("expected log-probabilities, got an answer without; {advice}");
        RemoteError::new(RemoteErrorKind::NoProbabilities, &answer.endpoint, message)
    })?;
    let number = |RawListed { token, logprob }: RawListed| match logprob.filter(|value| !value.is_nan()) {
        Some(logprob) => Ok(Listed { token, logprob }),
        None => Err(malformed(answer, format!("expected a number for token {token:?}, got none"))),
    };
    let mut listed = first.top_logprobs.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let own = number(first.own)?;
    if !listed.iter().any(|one| one.token == own.token) {
        listed.push(own);
    }
    Ok(listed)
}

fn malformed(answer: &Answer, message: String) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Malformed, &answer.endpoint, message)
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

/// One answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: Message,
    logprobs: Option<Logprobs>,
    finish_reason: Option<String>,
}

/// What the assistant said.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) content: Option<String>,
    #[serde(alias = "reasoning_content")]
    pub(crate) reasoning: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Logprobs {
    content: Option<Vec<Place>>,
}

#[derive(Debug, Deserialize)]
struct Place {
    #[serde(flatten)]
    own: RawListed,
    #[serde(default)]
    top_logprobs: Vec<RawListed>,
}

#[derive(Debug, Deserialize)]
struct RawListed {
    token: String,
    logprob: Option<f64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_with_the_same_text_all_count() {
        let one = |token: &str, p: f64| json!({"token": token, "logprob": p.ln()});
        let mut place = one("Yes", 0.4);
        place["top_logprobs"] = json!([one("Yes", 0.4), one("Yes", 0.3), one("No", 0.2), one("a", 1e-6)]);
        let json = json!({"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [place]}}]});
        let answer = Answer { json, request_id: "1".to_owned(), endpoint: "http://h".to_owned() };
        let ask = Ask::Words { top: 4, uncertainty: 1e-3 };
        let chat = Chat { model: "m".to_owned(), template_options: Map::new(), ask, named: false };
        let score = chat.read_score(&answer).unwrap();
        assert!((score.yes - 0.7).abs() < 1e-12 && (score.no - 0.2).abs() < 1e-12, "{score:?}");
    }
}
