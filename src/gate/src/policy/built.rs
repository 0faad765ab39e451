//! Policies whose every value has been checked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use cluegate_constitution::{Constitution, Rule, Setting, Severity};

use super::glob::Glob;
use super::raw::{
    Action, AfterTries, OnError, PlaceholderKind, PreviewJudgment, PreviewPoint, Provenance, RawActions,
    RawClient, RawThresholds, RedactedObjects, RedactionMethod,
};
use super::regenerate::{RawPromptCheck, RawRegenerate};
use super::service::{CanaryDecides, Mode, RawQuota, RawRetention};

/// What one tenant allows with one kind of generation model, and what happens to a picture that breaks it. The terms are
/// shared with every tenant whose policy says the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The tenant's name.
    pub tenant: Arc<str>,
    /// The pattern of the `model` table that these terms come from; none for the tenant's own keys.
    pub model: Option<Arc<str>>,
    pub(crate) terms: Arc<Terms>,
}

impl fmt::Display for Policy {
    /// The tenant's name, and the pattern of the `model` table if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.model {
            None => f.write_str(&self.tenant),
            Some(model) => write!(f, "{} (model {model:?})", self.tenant),
        }
    }
}

impl Policy {
    /// Ids of the rules of `constitution` whose violation can give a picture up while it is drawn: those that are blocked or
    /// drawn again.
    pub fn rules_that_end(&self, constitution: &Constitution) -> Vec<String> {
        self.rules_with(&[Action::Block, Action::Regenerate], constitution)
    }

    /// Ids of the rules of `constitution` that have one of these actions.
    pub(crate) fn rules_with(&self, actions: &[Action], constitution: &Constitution) -> Vec<String> {
        let ends = |rule: &&Rule| actions.contains(&self.actions.of(&rule.id, rule.severity));
        constitution.rules().iter().filter(ends).map(|rule| rule.id.clone()).collect()
    }
}

impl Deref for Policy {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// What a policy says, whoever's it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Which constitution judges.
    pub constitution: ConstitutionSource,
    /// Ids of the rules that hold; empty if all do.
    pub rules: Vec<String>,
    /// Whether the policy acts on verdicts.
    pub mode: Mode,
    /// What happens when no verdict can be had.
    pub on_error: OnError,
    /// Most attempts to draw one picture, at least 1.
    pub tries: u32,
    /// What happens after the last try of `regenerate`.
    pub after_tries: AfterTries,
    /// How a picture is drawn again.
    pub regenerate: RawRegenerate,
    /// Whether the rules are asked of the prompt before anything is drawn.
    pub prompt_check: RawPromptCheck,
    /// When previews are judged.
    pub previews: PreviewSchedule,
    /// How previews are judged.
    pub preview_judgment: PreviewJudgment,
    /// Path of the file that says how sure a preview must be to give a picture up.
    pub preview_thresholds: Option<String>,
    /// What stands in for a withheld picture.
    pub placeholder: PlaceholderKind,
    /// What the file of a released picture says of where it comes from.
    pub provenance: Provenance,
    /// Whether the log holds prompts.
    pub log_prompts: bool,
    /// How objects are hidden.
    pub redaction: Redaction,
    /// What follows from a violation.
    pub actions: Actions,
    /// Thresholds that replace the constitution's own.
    pub thresholds: RawThresholds,
    /// Values that replace those of the constitution's parameters.
    pub parameters: Vec<Setting>,
    /// What a request may ask for.
    pub limits: Limits,
    /// What the requester may see.
    pub client: RawClient,
    /// Another constitution that judges a share of the requests too.
    pub canary: Option<Canary>,
    /// What is kept of pictures and decisions.
    pub retention: RawRetention,
    /// How much the tenant may ask for over time, and what judging costs.
    pub quota: RawQuota,
    /// Whether the judge's pre-filter may clear a picture without the whole method.
    pub prefilter: bool,
    /// Who goes first where requests wait: 0 to 9, the higher the sooner.
    pub priority: u8,
    /// Whether the tenant's requests are refused.
    pub suspended: bool,
}

/// The policies of one tenant: one for each kind of generation model that the tenant names, and one for all others.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantPolicy {
    pub(super) policy: Arc<Policy>,
    /// The most specific pattern first.
    pub(super) models: Vec<(Glob, Arc<Policy>)>,
}

impl TenantPolicy {
    /// The policy of the tenant's own keys.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The policy for a generation model of this name, or for one without a name.
    pub fn for_model(&self, model: Option<&str>) -> &Arc<Policy> {
        let fits = model.and_then(|model| self.models.iter().find(|(pattern, _)| pattern.matches(model)));
        fits.map_or(&self.policy, |(_, policy)| policy)
    }

    /// All of them, the tenant's own keys first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Policy>> {
        std::iter::once(&self.policy).chain(self.models.iter().map(|(_, policy)| policy))
    }
}

/// Where a constitution comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConstitutionSource {
    /// One that ships with the program.
    Shipped(String),
    /// One that is looked up by this name: the path of a file beside the policy, or a name in the store.
    Named(String),
}

impl ConstitutionSource {
    /// A shipped name, or else one to be looked up.
    pub(super) fn new(name: &str) -> Self {
        if cluegate_constitution::shipped_names().any(|known| known == name) {
            Self::Shipped(name.to_owned())
        } else {
            Self::Named(name.to_owned())
        }
    }
}

/// Another constitution that judges a share of the requests too.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// The constitution.
    pub constitution: ConstitutionSource,
    /// Share of the requests, over 0, at most 1.
    pub share: f64,
    /// Which of the two acts.
    pub decides: CanaryDecides,
}

/// When previews are judged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PreviewSchedule(pub(super) Vec<PreviewPoint>);

/// How violating objects are hidden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Redaction {
    /// How.
    pub method: RedactionMethod,
    /// Which objects at the first two tries; all of them at the third.
    pub objects: RedactedObjects,
    /// By how much a box is widened on each side, as a fraction of its size, 0 to 2.
    pub grow: f64,
    /// What is added to `grow` for the second try, 0 to 2.
    pub widen: f64,
    /// Detections of less confidence are not hidden, 0 to 1.
    pub min_confidence: f64,
    /// Largest share of the picture that may be hidden, over 0, at most 1.
    pub max_share: f64,
}

/// What follows from a violation.
#[derive(Debug, Clone, PartialEq)]
pub struct Actions {
    default: Action,
    severity: BTreeMap<Severity, Action>,
    rule: BTreeMap<String, Action>,
}

/// What a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pictures in one request.
    pub max_pictures: u32,
    /// Most pixels of one picture.
    pub max_pixels: u64,
    /// Longest prompt in bytes.
    pub max_prompt_bytes: usize,
    /// Longest wait for one verdict.
    pub judge_deadline: Duration,
    /// Longest life of a request.
    pub request_deadline: Duration,
}

impl Actions {
    pub(super) fn new(raw: RawActions) -> Self {
        let named = [
            (Severity::Low, raw.severity.low),
            (Severity::Medium, raw.severity.medium),
            (Severity::High, raw.severity.high),
            (Severity::Critical, raw.severity.critical),
        ];
        let severity = named.into_iter().filter_map(|(severity, action)| Some((severity, action?))).collect();
        Self { default: raw.default, severity, rule: raw.rule }
    }

    /// Ids of the rules that have an action of their own.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &String> {
        self.rule.keys()
    }

    /// The action for one rule: by its id, else by its severity, else the default.
    pub fn of(&self, rule: &str, severity: Severity) -> Action {
        self.rule.get(rule).or_else(|| self.severity.get(&severity)).copied().unwrap_or(self.default)
    }
}

impl PreviewSchedule {
    /// Whether a preview is due after `step` of `total` steps. The last step makes the picture itself and no preview.
    pub fn is_due(&self, step: u32, total: u32) -> bool {
        (1..total).contains(&step)
            && self.0.iter().any(|point| match point {
                PreviewPoint::Step(at) => *at == step,
                PreviewPoint::Fraction(share) => Self::step_at(*share, total) == step,
            })
    }

    /// The step after which a preview at `share` of `total` steps is judged: the nearest, but neither before the first
    /// nor the last.
    pub fn step_at(share: f64, total: u32) -> u32 {
        ((share * f64::from(total)).round() as u32).clamp(1, total.saturating_sub(1).max(1))
    }

    /// The points.
    pub(crate) fn points(&self) -> &[PreviewPoint] {
        &self.0
    }

    /// The most previews of one picture.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no preview is ever judged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
