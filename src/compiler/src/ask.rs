//! Asking the model: from the record, from the cache, or anew; once more where the answer has the wrong form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cluegate_cache::{Cache, Scope};
use cluegate_perception::{
    Call, CompletionRequest, FinishReason, PerceptionError, PerceptionErrorKind, Prompt, VisionLanguageModel,
};
use serde::{Deserialize, Serialize};

use crate::grammar::{AnswerError, Read, Repair};
use crate::templates::{Step, Templates, prompt_text};

/// Attempts at one question.
const ATTEMPTS: usize = 2;
/// Failures of the model in a row after which it is asked nothing more.
const MOST_TROUBLES: usize = 5;
/// Characters of a refused answer that are told to the model again.
const TOLD_AGAIN: usize = 400;

/// What was asked and answered, as it is kept in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Which question.
    pub step: Step,
    /// The whole prompt; its place in the record is taken by its hash.
    #[serde(skip)]
    pub prompt: String,
    /// BLAKE3 of the prompt, 64 hexadecimal digits.
    pub prompt_hash: String,
    /// The whole answer.
    pub answer: String,
    /// Whether the model ended its answer; else the limit of tokens did.
    pub ended: bool,
    /// What was mended in it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub repairs: BTreeSet<Repair>,
    /// Why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Why a rule was not compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The rule speaks to the model, hides characters or is too long; nothing was asked.
    Refused,
    /// The answer had the wrong form, and so had the second one.
    WrongForm,
    /// The model refused to answer.
    ModelRefused,
    /// The answer did not end within its limit of tokens, and neither did the second one.
    NoEnd,
    /// There was no answer in time.
    Timeout,
    /// A recording lacks the answer.
    Unanswered,
    /// The model failed.
    Model,
    /// A setting for a parameter that the rule does not have, or of a value that it cannot have.
    Setting,
}

impl FailureKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::WrongForm => "wrong-form",
            Self::ModelRefused => "model-refused",
            Self::NoEnd => "no-end",
            Self::Timeout => "timeout",
            Self::Unanswered => "unanswered",
            Self::Model => "model",
            Self::Setting => "setting",
        }
    }
}

/// What kept a rule from being compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// At which question; `None` if before the first.
    pub step: Option<Step>,
    /// What was expected and what came.
    pub problem: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Some(step) => write!(f, "{}: {} ({})", step.as_str(), self.problem, self.kind.as_str()),
            None => write!(f, "{} ({})", self.problem, self.kind.as_str()),
        }
    }
}

/// Most tokens of an answer.
fn max_tokens(step: Step) -> usize {
    match step {
        Step::Objectiveness => 256,
        Step::Revise => 384,
        Step::Preconditions => 512,
        Step::Central => 64,
    }
}

/// Answers of an earlier compilation, by the hashes of their prompts.
pub(crate) type Known = BTreeMap<String, (String, bool)>;

/// Asks one model with one set of templates.
pub(crate) struct Asker<'a> {
    pub(crate) model: &'a dyn VisionLanguageModel,
    pub(crate) templates: &'a Templates,
    pub(crate) cache: &'a Cache,
    pub(crate) timeout: Duration,
    pub(crate) known: &'a Known,
    /// Failures in a row.
    pub(crate) troubles: AtomicUsize,
}

impl Asker<'_> {
    /// Asks `step` until `read` accepts the answer, at most twice. All that was asked is added to `log`.
    pub(crate) fn ask<T>(
        &self,
        step: Step,
        values: &[(&str, &str)],
        log: &mut Vec<Asked>,
        read: impl Fn(&str) -> Result<Read<T>, AnswerError>,
    ) -> Result<T, Failure> {
        let failed = |kind, problem: String| Failure { kind, step: Some(step), problem };
        let first = self.templates.prompt(step, values);
        let mut prompt = first.clone();
        let mut last = failed(FailureKind::WrongForm, String::new());
        for _ in 0..ATTEMPTS {
            let text = prompt_text(&prompt);
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            let (answer, ended) = self
                .answer(step, &prompt, &text, &hash)
                .map_err(|error| failed(kind(&error), error.to_string()))?;
            let mut asked = Asked {
                step,
                prompt: text,
                prompt_hash: hash,
                answer,
                ended,
                repairs: BTreeSet::new(),
                problem: None,
            };
            let outcome = if ended {
                read(&asked.answer).map_err(|error| {
                    let kind = if refuses(&asked.answer) {
                        FailureKind::ModelRefused
                    } else {
                        FailureKind::WrongForm
                    };
                    (kind, error.to_string())
                })
            } else {
                let limit = max_tokens(step);
                Err((
                    FailureKind::NoEnd,
                    format!("expected an answer that ends within {limit} tokens, got one that goes on"),
                ))
            };
            match outcome {
                Ok(read) => {
                    asked.repairs = read.repairs;
                    log.push(asked);
                    return Ok(read.value);
                }
                Err((kind, problem)) => {
                    let told: String = asked.answer.chars().take(TOLD_AGAIN).collect();
                    prompt = self.templates.retry(&first, told.trim(), &problem);
                    asked.problem = Some(problem.clone());
                    log.push(asked);
                    last = failed(kind, problem);
                }
            }
        }
        Err(last)
    }

    /// The answer to a prompt and whether it ended.
    fn answer(
        &self,
        step: Step,
        prompt: &Prompt,
        text: &str,
        hash: &str,
    ) -> Result<(String, bool), PerceptionError> {
        let template = self.templates.step_hash(step);
        let scope = Scope {
            kind: "answer of the constitution compiler",
            model: self.model.fingerprint(),
            template: &template,
            width: 0,
        };
        if let Some((answer, ended)) = self.known.get(hash) {
            return Ok((answer.clone(), *ended));
        }
        if let Some(kept) = self.cache.text(&scope, text)
            && let Some((answer, ended)) = unpack(&kept)
        {
            return Ok((answer, ended));
        }
        if self.troubles.load(Ordering::Relaxed) >= MOST_TROUBLES {
            let message = format!("not asked, after the model had failed {MOST_TROUBLES} times in a row");
            return Err(PerceptionError::new(PerceptionErrorKind::Backend, message));
        }
        let (answer, ended) = self.complete(step, prompt)?;
        self.cache.put_text(&scope, text, &pack(&answer, ended));
        Ok((answer, ended))
    }

    fn complete(&self, step: Step, prompt: &Prompt) -> Result<(String, bool), PerceptionError> {
        let request = CompletionRequest { prompt: prompt.clone(), max_tokens: max_tokens(step) };
        let call = Call::default().until(Instant::now() + self.timeout);
        let answered = self.model.complete(&[request], &call).and_then(|answers| {
            answers.into_iter().next().ok_or_else(|| {
                let message =
                    "expected one answer to one question, got none; the model implementation is wrong";
                PerceptionError::new(PerceptionErrorKind::Model, message)
            })
        });
        match &answered {
            Ok(_) => self.troubles.store(0, Ordering::Relaxed),
            // These are the prompt's fault.
            Err(error)
                if matches!(
                    error.kind(),
                    PerceptionErrorKind::MissingAnswer | PerceptionErrorKind::Request
                ) => {}
            Err(_) => {
                self.troubles.fetch_add(1, Ordering::Relaxed);
            }
        }
        answered.map(|answer| (answer.text, answer.finish == FinishReason::Stop))
    }
}

fn kind(error: &PerceptionError) -> FailureKind {
    match error.kind() {
        PerceptionErrorKind::Timeout => FailureKind::Timeout,
        PerceptionErrorKind::MissingAnswer => FailureKind::Unanswered,
        _ => FailureKind::Model,
    }
}

/// Whether an answer that has the wrong form declines to give one.
fn refuses(answer: &str) -> bool {
    const STARTS: [&str; 14] = [
        "i'm sorry",
        "i am sorry",
        "sorry",
        "i apologize",
        "i cannot",
        "i can't",
        "i can not",
        "i won't",
        "i will not",
        "i'm unable",
        "i am unable",
        "i'm not able",
        "as an ai",
        "i must decline",
    ];
    let answer = answer.trim_start().to_lowercase().replace('\u{2019}', "'");
    STARTS.iter().any(|start| answer.starts_with(start))
}

/// An answer as the cache keeps it: whether it ended, and its text.
fn pack(answer: &str, ended: bool) -> String {
    format!("{}\n{answer}", if ended { "ended" } else { "cut" })
}

fn unpack(kept: &str) -> Option<(String, bool)> {
    let (state, answer) = kept.split_once('\n')?;
    match state {
        "ended" => Some((answer.to_owned(), true)),
        "cut" => Some((answer.to_owned(), false)),
        _ => None,
    }
}
