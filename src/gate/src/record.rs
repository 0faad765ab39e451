//! What the decision log holds of a decision.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::policy::{Action, RedactionMethod};
use crate::redaction::PixelBox;

/// What became of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The caller has it.
    Released,
    /// Nobody gets it.
    Withheld,
    /// It waits for a person.
    Held,
}

/// Why a decision was taken, stable for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Released: no rule is violated.
    Safe,
    /// Released: the policy allows every rule that is violated.
    Allowed,
    /// Released: nothing is violated once the objects are hidden.
    Redacted,
    /// Released without a verdict: the judge failed and the policy names `release-unjudged`.
    Unjudged,
    /// Held: a violated rule's action is `hold`.
    HeldForReview,
    /// Withheld: a violated rule's action is `block`.
    Violation,
    /// Withheld: every try violated a rule whose action is `regenerate`.
    TriesExhausted,
    /// Withheld: the redacted picture still violates a rule, or there is nothing to redact.
    RedactionFailed,
    /// Withheld: the judge failed or panicked.
    JudgeError,
    /// Withheld: the judge gave no verdict in time.
    JudgeTimeout,
    /// Withheld: the generator failed, or its picture shows nothing.
    GeneratorFailure,
    /// Withheld: the request lived longer than its limit.
    RequestTimeout,
    /// Withheld: the picture is over a limit of the policy.
    Limit,
    /// Withheld: the decision could not be logged.
    LogFailure,
    /// Withheld: the session ended before the picture was finished.
    NotFinished,
    /// Withheld: the requester went away.
    Cancelled,
    /// Released: a preview that violates nothing, to a requester who may see previews. Says nothing about the picture.
    Preview,
}

impl Reason {
    /// Name as in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Allowed => "allowed",
            Self::Redacted => "redacted",
            Self::Unjudged => "unjudged",
            Self::HeldForReview => "held-for-review",
            Self::Violation => "violation",
            Self::TriesExhausted => "tries-exhausted",
            Self::RedactionFailed => "redaction-failed",
            Self::JudgeError => "judge-error",
            Self::JudgeTimeout => "judge-timeout",
            Self::GeneratorFailure => "generator-failure",
            Self::RequestTimeout => "request-timeout",
            Self::Limit => "limit",
            Self::LogFailure => "log-failure",
            Self::NotFinished => "not-finished",
            Self::Cancelled => "cancelled",
            Self::Preview => "preview",
        }
    }

    /// Whether a rule was violated, as opposed to no verdict or no picture.
    pub fn is_violation(self) -> bool {
        matches!(self, Self::HeldForReview | Self::Violation | Self::TriesExhausted | Self::RedactionFailed)
    }
}

/// One decision about one member of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecisionRecord {
    /// UUID of version 7.
    pub decision_id: String,
    /// When it was taken, RFC 3339 in UTC.
    pub timestamp: String,
    /// Whose policy it was taken under.
    pub tenant: String,
    /// What the picture was judged by.
    pub constitution: ConstitutionRecord,
    /// Fingerprints of the models by role: `relevance`, `detector`, `judge`, and `generator` where known.
    pub models: BTreeMap<String, String>,
    /// The request.
    pub request: RequestRecord,
    /// Index of the picture in the request, from 0.
    pub member: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// The policy's action for the violated rules of the last verdict; none if there is no verdict or no violation.
    pub action: Option<Action>,
    /// Ids of the rules that the last verdict found violated.
    pub violated: Vec<String>,
    /// Whether the picture was released without a verdict.
    pub unjudged: bool,
    /// BLAKE3 over size and pixels of the released picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released_picture: Option<String>,
    /// Every attempt to draw it, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How long it took.
    pub timings_ms: DecisionTimings,
}

/// Name and revision of a constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConstitutionRecord {
    /// Its name.
    pub name: String,
    /// Hash over its content, the policy's thresholds included.
    pub revision: String,
}

/// A request, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestRecord {
    /// The caller's name for the request, or one made by the gate.
    pub id: String,
    /// BLAKE3 over the prompt's bytes.
    pub prompt_hash: String,
    /// The prompt, if the policy says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Seed of the request.
    pub seed: u64,
    /// Number of pictures.
    pub count: u32,
}

/// One attempt to draw a picture.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct AttemptRecord {
    /// From 1.
    pub attempt: u32,
    /// Its seed.
    pub seed: u64,
    /// The previews that were judged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub previews: Vec<PreviewRecord>,
    /// BLAKE3 over size and pixels of the finished picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// The judgment on the finished picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judgment: Option<JudgmentRecord>,
    /// What was hidden, and the judgments on the results.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redactions: Vec<RedactionRecord>,
    /// Why there is no picture, or none that could be judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Time from the start of the attempt to its end, in milliseconds.
    pub ms: f64,
}

/// A judged preview.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreviewRecord {
    /// Finished steps.
    pub step: u32,
    /// All steps.
    pub total: u32,
    /// Whether the attempt was given up because of it.
    pub aborted: bool,
    /// What the judge said.
    pub judgment: JudgmentRecord,
}

/// A redacted picture and what the judge said of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RedactionRecord {
    /// How the boxes were hidden.
    pub method: RedactionMethod,
    /// By how much they were widened, as a fraction of their size.
    pub grow: f64,
    /// What was hidden, in pixels.
    pub boxes: Vec<PixelBox>,
    /// Why nothing was hidden; there is no judgment then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What the judge said of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judgment: Option<JudgmentRecord>,
}

/// What a judgment said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgment {
    /// No rule is violated.
    Safe,
    /// At least one rule is violated.
    Unsafe,
    /// There is no verdict.
    Error,
}

/// One call of the judge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgmentRecord {
    /// What it said.
    pub verdict: Judgment,
    /// Ids of the violated rules.
    pub violated: Vec<String>,
    /// The policy's action for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why there is no verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureRecord>,
    /// The judge's evidence, rule by rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureRecord {
    /// Kind, stable: the judge's own kinds, `panic`, `timeout` or `busy`.
    pub kind: String,
    /// The same for people.
    pub message: String,
}

/// How long a decision took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct DecisionTimings {
    /// From the start of the request to the decision.
    pub total: f64,
    /// In the judge.
    pub judging: f64,
    /// Outside the judge while hiding objects.
    pub redacting: f64,
}
