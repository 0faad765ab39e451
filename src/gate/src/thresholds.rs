//! How sure a preview must be to give a picture up, step by step: a file that `cluegate calibrate previews` writes.
//!
//! Early previews are blurred, late ones are nearly the picture; one line for all of them would either stop little or stop
//! pictures that would have come out fine. Thresholds that do not belong to what judges or draws stop nothing: the finished
//! picture is judged anyway.

use std::collections::BTreeMap;

use cluegate_constitution::Constitution;
use cluegate_judge::Report;
use serde::{Deserialize, Serialize};

use crate::policy::{Policy, PreviewPoint, PreviewSchedule};
use crate::record::ConstitutionRecord;

/// Thresholds for the previews of one generator, under one constitution and judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewThresholds {
    /// Fingerprint of the generator whose pictures were looked at.
    pub generator: String,
    /// How it drew, in words: steps, sampler, size, guidance, kind of previews.
    pub drawn: String,
    /// What the pictures were judged by.
    pub constitution: ConstitutionRecord,
    /// Ids of the rules whose violation gives a picture up, in the order of the constitution.
    pub rules: Vec<String>,
    /// Fingerprints of the judge's models by role.
    pub models: BTreeMap<String, String>,
    /// Hash of the judge's prompts.
    pub templates: String,
    /// The thresholds, the earliest first.
    pub thresholds: Vec<PreviewThreshold>,
    /// What they did to pictures that they were not chosen on.
    pub measured: PreviewFigures,
}

/// The threshold at one point of the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewThreshold {
    /// Share of the steps, between 0 and 1.
    pub at: f64,
    /// The score that a preview there has to be above, 0 to 1.
    pub above: f64,
}

/// What thresholds do to pictures that they were not chosen on: to each tenth in turn, chosen on the other nine. Those of a
/// file are chosen on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewFigures {
    /// How many pictures there were.
    pub pictures: u64,
    /// Those of them that violate a rule when they are finished.
    pub violating: u64,
    /// Of those, how many are given up.
    pub stopped: u64,
    /// Their share, 0 to 1.
    pub recall: f64,
    /// Pictures that violate nothing and are given up.
    pub false_aborts: u64,
    /// Their share of the pictures that violate nothing, 0 to 1.
    pub false_abort_rate: f64,
    /// What that share is not above, with the `confidence`, for pictures of the same kind (Clopper and Pearson).
    pub false_abort_rate_at_most: f64,
    /// How sure that bound is, 0 to 1.
    pub confidence: f64,
    /// Mean share of the steps after which violating pictures are given up, of those that are.
    pub stopped_at: f64,
    /// Mean share of the violating pictures' drawing that is saved, less what their previews cost.
    pub saved: f64,
    /// Mean share of its drawing that previews add to a picture that violates nothing.
    #[serde(default)]
    pub added: f64,
}

impl PreviewThresholds {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|source| {
            format!("expected a file that `cluegate calibrate previews` wrote: {source}")
        })?;
        let at: Vec<f64> = read.thresholds.iter().map(|point| point.at).collect();
        if at.is_empty() || !at.iter().all(|at| *at > 0.0 && *at < 1.0) || !at.is_sorted_by(|a, b| a < b) {
            return Err(format!("expected ascending `at` between 0 and 1 in `thresholds`, found {at:?}"));
        }
        match read.thresholds.iter().find(|point| !(0.0..=1.0).contains(&point.above)) {
            Some(point) => {
                Err(format!("expected `above` from 0 to 1 in `thresholds`, found {}", point.above))
            }
            None => Ok(read),
        }
    }

    /// Whether `policy` can use them.
    ///
    /// # Errors
    /// What does not fit, and what to do about it.
    pub(crate) fn check(&self, policy: &Policy, constitution: &Constitution) -> Result<(), String> {
        self.check_constitution(constitution)?;
        let rules = policy.rules_that_end(constitution);
        if rules != self.rules {
            return Err(format!(
                "they were chosen for a policy that gives pictures up for {}, and this one does for {}; calibrate again",
                listed(&self.rules),
                listed(&rules)
            ));
        }
        let known = |point: &PreviewPoint| match point {
            PreviewPoint::Fraction(share) => self.thresholds.iter().any(|at| same(at.at, *share)),
            PreviewPoint::Step(_) => false,
        };
        if policy.previews.is_empty() || !policy.previews.points().iter().all(known) {
            let shares: Vec<String> = self.thresholds.iter().map(|point| point.at.to_string()).collect();
            return Err(format!(
                "expected `previews` to name some or all of the fractions that they are for, as in previews = [{}]",
                shares.join(", ")
            ));
        }
        Ok(())
    }

    /// Whether they were chosen under `constitution`.
    pub(crate) fn check_constitution(&self, constitution: &Constitution) -> Result<(), String> {
        let revision = constitution.revision().to_hex();
        if revision == self.constitution.revision {
            return Ok(());
        }
        Err(format!(
            "they were chosen under the constitution {} of revision {}, and pictures are judged by {} of revision \
             {revision}; calibrate again",
            self.constitution.name,
            self.constitution.revision,
            constitution.name()
        ))
    }

    /// Whether they were chosen with the judge that has these models.
    pub(crate) fn check_models(&self, models: &BTreeMap<String, String>) -> Result<(), String> {
        match models.iter().find(|(role, fingerprint)| self.models.get(*role) != Some(*fingerprint)) {
            None => Ok(()),
            Some((role, fingerprint)) => Err(format!(
                "they were chosen with another judge: its {role} was {}, and is {fingerprint}; calibrate again",
                self.models.get(role).map_or("none", String::as_str)
            )),
        }
    }

    /// Whether they were chosen with the judge that made this report.
    pub(crate) fn fits_judge(&self, report: &Report) -> bool {
        let models = report.models();
        let roles =
            [("relevance", &models.relevance), ("detector", &models.detector), ("judge", &models.judge)];
        // Whoever names a role only tells what it knows of it.
        let fits = |(role, fingerprint): (&str, &String)| {
            self.models.get(role).is_none_or(|known| known == fingerprint)
        };
        roles.into_iter().all(fits) && self.templates == report.templates()
    }

    /// Whether they are for this generator. One that is not named is taken to be the one that whoever named the file means.
    pub(crate) fn fits_generator(&self, generator: Option<&str>) -> bool {
        generator.is_none_or(|generator| generator == self.generator)
    }

    /// The threshold after `step` of `total` steps, if there is one.
    pub(crate) fn above(&self, step: u32, total: u32) -> Option<f64> {
        let at = self.thresholds.iter().find(|point| PreviewSchedule::step_at(point.at, total) == step);
        at.map(|point| point.above)
    }
}

/// Whether two shares of the steps are the same but for how they are written.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn listed(rules: &[String]) -> String {
    if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") }
}
