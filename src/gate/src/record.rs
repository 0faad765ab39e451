//! What the decision log holds of a decision.

use std::collections::BTreeMap;

use cluegate_judge::Passes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{Action, CanaryDecides, Mode, PromptReader, RedactionMethod, Strategy};
use crate::redaction::PixelBox;

/// What became of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Released: no rule is violated.
    Safe,
    /// Released: the policy allows every rule that is violated.
    Allowed,
    /// Released: nothing is violated once the objects are hidden.
    Redacted,
    /// Released although it violates a rule that the policy does not allow: mode `shadow` only watches.
    Shadow,
    /// Released without a verdict: the judge failed and the policy names `release-unjudged`.
    Unjudged,
    /// Held: a violated rule's action is `hold`.
    HeldForReview,
    /// Withheld: a violated rule's action is `block`, or the prompt asks for such a violation and the policy refuses that.
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
    /// Withheld: its file could not be signed, and the policy asks for that (`provenance = "c2pa"`). No violation.
    SigningFailure,
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
            Self::Shadow => "shadow",
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
            Self::SigningFailure => "signing-failure",
            Self::NotFinished => "not-finished",
            Self::Cancelled => "cancelled",
            Self::Preview => "preview",
        }
    }

    /// Whether the picture was kept back for a rule that is violated, as opposed to no verdict or no picture.
    pub fn is_violation(self) -> bool {
        matches!(self, Self::HeldForReview | Self::Violation | Self::TriesExhausted | Self::RedactionFailed)
    }
}

/// One decision about one member of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// UUID of version 7.
    pub decision_id: String,
    /// When it was taken, RFC 3339 in UTC.
    pub timestamp: String,
    /// Whose policy it was taken under.
    pub tenant: String,
    /// Whether the policy was enforced, or only watched.
    #[serde(default)]
    pub mode: Mode,
    /// What the picture was judged by; of the two constitutions of a canary, the one that decided.
    pub constitution: ConstitutionRecord,
    /// Fingerprints of the models by role: `relevance`, `detector`, `judge`, and `generator` where known.
    pub models: BTreeMap<String, String>,
    /// The generation model, as the request names it. By this name the policy's `model` tables are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Id of the API key that the request came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The end user on whose behalf the request was made, as the client names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
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
    /// What mode `enforce` would have begun to do, where mode `shadow` released the picture all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would: Option<WouldRecord>,
    /// What the prompt was found to ask for, where the policy has it checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_check: Option<PromptCheckRecord>,
    /// The comparison with another constitution, where the request fell into the canary's share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRecord>,
    /// What judging took: every judgment of every attempt, previews, redactions and comparisons included.
    #[serde(default)]
    pub cost: Cost,
    /// How well the released picture fits the request's prompt: their cosine by the relevance encoder, -1 to 1. Only where
    /// the policy asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<f64>,
    /// BLAKE3 over size and pixels of the released picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_picture: Option<String>,
    /// Every attempt to draw it, in order.
    pub attempts: Vec<AttemptRecord>,
    /// How long it took.
    pub timings_ms: DecisionTimings,
}

/// What a policy in mode `enforce` would have begun to do with a picture that mode `shadow` released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldRecord {
    /// The action for the violated rules. Where no try was left for `regenerate`, what the policy does after the last.
    pub action: Action,
    /// How the picture would have ended; none for `regenerate` and `redact`, whose end turns on pictures that were not
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The same for people.
    pub message: String,
}

/// The rules, asked of the prompt before anything was drawn. Once for all pictures of a request, and counted in the cost of the
/// first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptCheckRecord {
    /// Who read it.
    pub by: PromptReader,
    /// What was found.
    pub judgment: JudgmentRecord,
    /// Whether the verdict on the first picture is the same, safe or not; none if there are not two of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agrees: Option<bool>,
}

/// How two constitutions compare on one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRecord {
    /// The tenant's constitution.
    pub stable: ConstitutionRecord,
    /// The one on trial.
    pub canary: ConstitutionRecord,
    /// Which of the two the decision rests on.
    pub decides: CanaryDecides,
    /// Whether they agree on the last picture that both judged.
    pub agreement: Agreement,
}

/// Whether two constitutions say the same of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// The same rules are violated, or none.
    Same,
    /// Other rules, but the policy's action for them is the same.
    SameAction,
    /// The policy's action differs.
    Different,
    /// There is no pair of verdicts: no picture was finished, or one of the judges failed.
    Unknown,
}

/// What judging and drawing took, and their price.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Calls of the judge, failed ones included.
    pub judgments: u64,
    /// Forward passes of the models, as one at a time would need them. A failed judgment's are not known and not counted.
    pub passes: u64,
    /// Time in the judge in seconds, failed judgments included.
    pub judge_seconds: f64,
    /// Denoising steps of all attempts, as far as they are known.
    #[serde(default)]
    pub steps: u64,
    /// Price by the policy's `quota.price_per_1000_passes`, `quota.price_per_judge_second` and `quota.price_per_step`, in
    /// whatever currency these are.
    pub amount: f64,
}

/// Name and revision of a constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstitutionRecord {
    /// Its name.
    pub name: String,
    /// Hash over its content, the policy's thresholds included.
    pub revision: String,
}

/// A request, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The caller's name for the request, or one made by the gate.
    pub id: String,
    /// BLAKE3 over the prompt's bytes.
    pub prompt_hash: String,
    /// The prompt, if the policy says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Seed of the request.
    pub seed: u64,
    /// Number of pictures.
    pub count: u32,
}

/// One attempt to draw a picture.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// From 1.
    pub attempt: u32,
    /// Its seed.
    pub seed: u64,
    /// What was changed beside the seed.
    #[serde(default, skip_serializing_if = "is_first")]
    pub strategy: Strategy,
    /// The chance that it would pass, as earlier attempts at the same prompt let expect, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// The prompt, if it was not the request's own, and if the policy says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Denoising steps that are known to have been carried out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps: u32,
    /// The previews that were judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previews: Vec<PreviewRecord>,
    /// BLAKE3 over size and pixels of the finished picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// The judgment on the finished picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgment: Option<JudgmentRecord>,
    /// The judgment on the finished picture by the constitution of a canary that did not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<JudgmentRecord>,
    /// What plugins say of the finished picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<FindingRecord>,
    /// What was hidden, and the judgments on the results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redactions: Vec<RedactionRecord>,
    /// Why there is no picture, or none that could be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Time from the start of the attempt to its end, in milliseconds.
    pub ms: f64,
}

/// A judged preview.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewRecord {
    /// Finished steps.
    pub step: u32,
    /// All steps.
    pub total: u32,
    /// Whether the attempt was given up because of it; never in mode `shadow`.
    pub aborted: bool,
    /// Whether mode `enforce` would have given the attempt up, where mode `shadow` drew on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub would_abort: bool,
    /// How near it comes to a violation that gives the picture up: the largest margin of a rule at a glance, -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// What the score has to be above, where the policy names calibrated thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// What the judge said.
    pub judgment: JudgmentRecord,
}

/// A box of a picture that was hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenBox {
    /// Where, in pixels.
    #[serde(flatten)]
    pub area: PixelBox,
    /// The statements that it answers for; none where a plugin alone wanted it hidden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<String>,
}

/// A redacted picture and what the judge said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RedactionRecord {
    /// How the boxes were hidden.
    pub method: RedactionMethod,
    /// By how much they were widened, as a fraction of their size.
    pub grow: f64,
    /// What was hidden.
    pub boxes: Vec<HiddenBox>,
    /// Why nothing was hidden; there is no judgment then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What the judge said of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgment: Option<JudgmentRecord>,
    /// What plugins say of the result, if the judge let it pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<FindingRecord>,
}

/// What becomes of a picture that a plugin calls unsafe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnsafe {
    /// It is withheld before the judge sees it.
    #[default]
    Withhold,
    /// What the plugin found is hidden, unless the judge keeps the picture back, and the result is judged and looked at
    /// like any other.
    Redact,
    /// The log says so, and nothing else comes of it.
    Note,
}

/// What a plugin says of a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// The plugin, by its name in the configuration.
    pub plugin: String,
    /// Its library, its configuration and its models, hashed.
    pub fingerprint: String,
    /// Whether it calls the picture unsafe.
    pub flagged: bool,
    /// What that leads to.
    pub on_unsafe: OnUnsafe,
    /// How sure it is that the picture is unsafe, or that the likeliest statement holds; 0 to 1.
    pub score: f64,
    /// What it found or looked for, the surest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelRecord>,
    /// How many labels more it gave, which are not written down.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub labels_omitted: u32,
    /// The share of Yes in its answers to statements, 0 to 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerRecord>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// One thing that a plugin found or looked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelRecord {
    /// Its name.
    pub name: String,
    /// How sure the plugin is, 0 to 1.
    pub score: f32,
    /// Left, upper, right and lower edge in pixels, for a plugin that finds boxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<[f32; 4]>,
    /// Whether the box is hidden where something is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hide: bool,
}

/// A plugin's answer to a statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// The statement.
    pub statement: String,
    /// The share of Yes, 0 to 1.
    pub share: f64,
}

/// What a judgment said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgmentRecord {
    /// What it said.
    pub verdict: Judgment,
    /// Ids of the violated rules.
    pub violated: Vec<String>,
    /// The policy's action for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// Why there is no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FailureRecord>,
    /// The judge's evidence, rule by rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
    /// Forward passes by stage; none for a failed judgment, and 0 for one that was found in the judge's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<Passes>,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// Kind, stable: the judge's own kinds, `panic`, `timeout` or `busy`.
    pub kind: String,
    /// The same for people.
    pub message: String,
}

/// How long a decision took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct DecisionTimings {
    /// From the start of the request to the decision.
    pub total: f64,
    /// In the judge.
    pub judging: f64,
    /// Outside the judge while hiding objects.
    pub redacting: f64,
}

impl DecisionRecord {
    /// Every judgment that the decision rests on or was compared with, in order; that of the prompt with the first picture.
    pub fn judgments(&self) -> impl Iterator<Item = &JudgmentRecord> {
        let prompt = self.prompt_check.as_ref().filter(|_| self.member == 0).map(|check| &check.judgment);
        prompt.into_iter().chain(self.attempts.iter().flat_map(AttemptRecord::judgments))
    }
}

impl AttemptRecord {
    /// Every judgment of the attempt, in order.
    pub fn judgments(&self) -> impl Iterator<Item = &JudgmentRecord> {
        let previews = self.previews.iter().map(|preview| &preview.judgment);
        let redactions = self.redactions.iter().filter_map(|redaction| redaction.judgment.as_ref());
        previews.chain(&self.judgment).chain(&self.compared).chain(redactions)
    }
}

fn is_first(strategy: &Strategy) -> bool {
    *strategy == Strategy::First
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
