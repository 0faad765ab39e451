//! The policy file as it is written: TOML read with serde, nothing checked beyond types and key names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::regenerate::{RawPromptCheck, RawRegenerate};
use super::service::{Mode, RawCanary, RawQuota, RawRetention};

/// A policy file: one table for each tenant, and one for each template that tenants build on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cluegate policy")]
pub struct RawPolicies {
    /// Templates by name: keys that tenants and other templates take over with `extends`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub template: BTreeMap<String, RawPolicy>,
    /// The tenants by name. A request that names no tenant listed here is refused.
    #[serde(default)]
    pub tenant: BTreeMap<String, RawPolicy>,
}

/// What one tenant allows, and what happens to a picture that breaks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawPolicy {
    /// Name of the template whose keys hold wherever this table does not name its own. Tables are merged key by key;
    /// lists and values are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// A shipped constitution's name, or the path of a constitution file, relative to the policy file;
    /// with a store, the name of one of its constitutions.
    pub constitution: String,
    /// Ids of the constitution's rules that hold for this tenant; none means all. The tenant is judged by a
    /// constitution of these rules alone, with a revision of its own.
    pub rules: Vec<String>,
    /// Whether the policy acts on verdicts or only watches.
    pub mode: Mode,
    /// What happens when no verdict can be had: the judge fails, panics or is too slow.
    pub on_error: OnError,
    /// Most attempts to draw one picture, the first included. 1 or more.
    pub tries: u32,
    /// What happens to a picture whose action is still `regenerate` after the last try.
    pub after_tries: AfterTries,
    /// How a picture whose action is `regenerate` is drawn again.
    pub regenerate: RawRegenerate,
    /// Whether the rules are asked of the prompt before anything is drawn.
    pub prompt_check: RawPromptCheck,
    /// When to judge a preview: fractions of the steps (numbers with a point, between 0 and 1) or numbers of finished
    /// steps (whole numbers from 1).
    pub previews: Vec<PreviewPoint>,
    /// How previews are judged. Where the requester may see them (`client.previews`), by the whole method whatever stands here.
    pub preview_judgment: PreviewJudgment,
    /// A file that `cluegate calibrate previews` wrote, relative to the policy file: a preview gives a picture up only if its
    /// score is above the threshold for its step. Every point of `previews` must then be a fraction that the file names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_thresholds: Option<String>,
    /// What stands in for a withheld picture.
    pub placeholder: PlaceholderKind,
    /// What the file of a released picture says of where it comes from.
    pub provenance: Provenance,
    /// Whether the decision log holds the prompt itself beside its hash.
    pub log_prompts: bool,
    /// How violating objects are hidden.
    pub redact: RawRedaction,
    /// What happens to a picture that violates a rule. The strictest action among the violated rules wins.
    pub action: RawActions,
    /// Thresholds that replace the constitution's own.
    pub thresholds: RawThresholds,
    /// Values of the rules' parameters that replace the constitution's own, within the bounds that it states:
    /// `"spread-legs.angle" = 60`, or `spread-legs.angle = 60`.
    pub parameter: BTreeMap<String, RawSetting>,
    /// What a request may ask for.
    pub limits: RawLimits,
    /// What the requester may see beside released pictures.
    pub client: RawClient,
    /// Another constitution that judges a share of the requests too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<RawCanary>,
    /// What is kept of pictures and decisions, and for how long.
    pub retention: RawRetention,
    /// How much the tenant may ask for over time, and what judging costs.
    pub quota: RawQuota,
    /// Whether the judge's pre-filter, if the models file names one, may clear a picture without the whole method.
    pub prefilter: bool,
    /// Who goes first where requests wait: 0 to 9, the higher the sooner.
    pub priority: u8,
    /// Whether the tenant's requests are refused; everything about it is kept.
    pub suspended: bool,
    /// Keys that replace the ones outside for a generation model, by its name: `*` stands for any characters, `?` for
    /// one. Of several patterns that fit, the most specific holds: a name without either, else the one with more
    /// characters of its own. Any key of a policy but `extends`, `model` and `suspended`.
    pub model: BTreeMap<String, RawPolicy>,
}

impl Default for RawPolicy {
    fn default() -> Self {
        Self {
            extends: None,
            constitution: "scene".to_owned(),
            rules: Vec::new(),
            mode: Mode::Enforce,
            on_error: OnError::Block,
            tries: 3,
            after_tries: AfterTries::Block,
            regenerate: RawRegenerate::default(),
            prompt_check: RawPromptCheck::default(),
            previews: Vec::new(),
            preview_judgment: PreviewJudgment::Cheap,
            preview_thresholds: None,
            placeholder: PlaceholderKind::Picture,
            provenance: Provenance::None,
            log_prompts: false,
            redact: RawRedaction::default(),
            action: RawActions::default(),
            thresholds: RawThresholds::default(),
            parameter: BTreeMap::new(),
            limits: RawLimits::default(),
            client: RawClient::default(),
            canary: None,
            retention: RawRetention::default(),
            quota: RawQuota::default(),
            prefilter: true,
            priority: 5,
            suspended: false,
            model: BTreeMap::new(),
        }
    }
}

/// What happens when no verdict can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Fail closed: the picture is withheld.
    Block,
    /// Fail open: the picture is released and marked as unjudged. Meant for tenants who would rather see an unjudged
    /// picture than none; the long name is on purpose.
    ReleaseUnjudged,
}

/// What happens after the last try of `regenerate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AfterTries {
    /// The picture is withheld.
    Block,
    /// The last picture is redacted and judged again.
    Redact,
}

/// When a preview is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PreviewPoint {
    /// After this many finished steps.
    Step(u32),
    /// After this fraction of the steps, rounded to the nearest step.
    Fraction(f64),
}

/// How a preview is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PreviewJudgment {
    /// At a glance: one view, no reasoning, no region comparison; only the rules whose violation gives the picture up, those
    /// first that were violated before.
    Cheap,
    /// By the whole method, as finished pictures are.
    Whole,
}

/// What stands in for a withheld picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceholderKind {
    /// A neutral picture of the same size.
    Picture,
    /// Nothing: the caller gets the reason only.
    None,
}

/// What the file of a released picture says of where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Nothing: pixels only.
    None,
    /// PNG and JPEG files state the gate, the revision of the constitution and the decision's id, as a text that anybody can
    /// read and remove.
    Text,
    /// Files hold content credentials (C2PA) that state the same and are signed. A picture whose file cannot be signed is
    /// withheld. Needs a build with them, and a certificate and key to sign with.
    C2pa,
}

/// What happens to a picture that violates a rule, from the mildest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Released as it is; the violation is logged.
    Allow,
    /// The central objects of the violated rules are hidden, and the result is judged again.
    Redact,
    /// Drawn again with another seed.
    Regenerate,
    /// Kept back for a person to look at.
    Hold,
    /// Withheld.
    Block,
}

impl Action {
    /// Name as in the policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Redact => "redact",
            Self::Regenerate => "regenerate",
            Self::Hold => "hold",
            Self::Block => "block",
        }
    }
}

/// Actions by rule, by severity, and for all others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawActions {
    /// For rules that neither `rule` nor `severity` names.
    pub default: Action,
    /// By the rule's severity.
    pub severity: RawSeverityActions,
    /// By rule id; stronger than `severity`.
    pub rule: BTreeMap<String, Action>,
}

impl Default for RawActions {
    fn default() -> Self {
        Self { default: Action::Block, severity: RawSeverityActions::default(), rule: BTreeMap::new() }
    }
}

/// Actions by severity; a severity that is not named takes the default action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawSeverityActions {
    /// For rules of low severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<Action>,
    /// For rules of medium severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<Action>,
    /// For rules of high severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<Action>,
    /// For rules of critical severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<Action>,
}

/// Thresholds that replace the constitution's own; one that is not named stays as the constitution has it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawThresholds {
    /// Cosine between picture and rule text from which the rule is relevant, -1 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relevance: Option<f64>,
    /// `a1 = -alpha1 * M(None, c)`, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha1: Option<f64>,
    /// `a2 = alpha2 * (1 - M(None, c))`, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha2: Option<f64>,
    /// How far the score must fall when the central objects are removed, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// A detection counts above this confidence, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection_confidence: Option<f64>,
    /// Share of the picture's area under which an object is small, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small_object_area: Option<f64>,
}

/// One value, or the values of one rule's parameters: TOML reads `rule.parameter = 1` without quotes as a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number, as in \"rule.parameter\" = 60, or a table of numbers by parameter"
)]
pub enum RawSetting {
    /// The value of `rule.parameter`.
    Value(f64),
    /// Values by parameter; the key outside is the rule.
    Rule(BTreeMap<String, f64>),
}

/// How an object is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedactionMethod {
    /// A Gaussian blur far wider than the object's details.
    Blur,
    /// A few flat cells.
    Pixelate,
    /// The mean colour of the rest of the picture. Nothing of the object remains.
    Fill,
    /// Drawn anew by whoever draws, from the prompt without what is violated, once; filled where there is nobody, where that
    /// fails, or where what was drawn violates a rule again.
    Inpaint,
}

/// Which central objects of a violated rule are hidden at first. All of them are where that does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedactedObjects {
    /// Those of the chain's last precondition, which completes the violation: the cigarette, not the smoker.
    Decisive,
    /// Those of every precondition.
    All,
}

/// How violating objects are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawRedaction {
    /// How an object is hidden.
    pub method: RedactionMethod,
    /// Which objects are hidden at the first two tries; the third hides all.
    pub objects: RedactedObjects,
    /// By how much a box is widened on each side, as a fraction of its own width and height. 0 to 2.
    pub grow: f64,
    /// What is added to `grow` for the second try, which also hides every other place where the detector finds one of the
    /// objects. 0 to 2.
    pub widen: f64,
    /// Detections of less confidence are not hidden. 0 to 1.
    pub min_confidence: f64,
    /// Largest share of the picture that may be hidden; a try that would hide more is left out. Over 0, at most 1.
    pub max_share: f64,
}

impl Default for RawRedaction {
    fn default() -> Self {
        Self {
            method: RedactionMethod::Fill,
            objects: RedactedObjects::Decisive,
            grow: 0.1,
            widen: 0.25,
            min_confidence: 0.05,
            max_share: 0.8,
        }
    }
}

/// What a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// Most pictures in one request.
    pub max_pictures: u32,
    /// Most pixels of one picture.
    pub max_pixels: u64,
    /// Longest prompt in bytes.
    pub max_prompt_bytes: usize,
    /// Longest wait for one verdict in milliseconds.
    pub judge_deadline_ms: u64,
    /// Longest life of a request in milliseconds; members without a decision by then are withheld.
    pub request_deadline_ms: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            max_pictures: 16,
            max_pixels: 16_777_216,
            max_prompt_bytes: 16_384,
            judge_deadline_ms: 60_000,
            request_deadline_ms: 3_600_000,
        }
    }
}

/// What the requester may see beside released pictures and the reasons for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawClient {
    /// Which rules were violated, and the judge's evidence.
    pub evidence: bool,
    /// How to draw again, for clients that draw by themselves in a session: the violated statements, to be kept out, and a
    /// rewritten prompt. Without it, and without `evidence`, their further attempts have another seed and nothing else.
    pub instructions: bool,
    /// Previews, each one after it was judged and found to violate nothing.
    pub previews: bool,
}
