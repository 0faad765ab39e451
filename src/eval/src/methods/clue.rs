//! The whole method, or what is left of it in an ablation.

use std::sync::Arc;

use cluegate_judge::{InspectOptions, Judge, PerStage, Prepared, Stages, Verdict};
use cluegate_perception::Call;

use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// CLUE, by a judge and a constitution that was prepared for it.
#[derive(Debug)]
pub struct Clue {
    name: String,
    revision: String,
    judge: Arc<Judge>,
    prepared: Prepared,
    stages: Stages,
}

impl Clue {
    /// Judges with these stages. `prepared` was made by `judge`, which keeps no verdicts: every picture is to cost what
    /// it costs.
    pub fn new(name: impl Into<String>, judge: Arc<Judge>, prepared: Prepared, stages: Stages) -> Self {
        let models = judge.models();
        let revision = revision(&[
            "clue",
            &models.relevance,
            &models.detector,
            &models.judge,
            &judge.templates().hash(),
            &prepared.constitution().revision().to_string(),
            &prepared.relevance_threshold().to_bits().to_string(),
            &format!("{stages:?}"),
        ]);
        Self { name: name.into(), revision, judge, prepared, stages }
    }
}

impl Method for Clue {
    fn name(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let options = InspectOptions { stages: self.stages, call: call.clone(), ..InspectOptions::default() };
        let report = self.judge.inspect(subject.picture, &self.prepared, &options)?;
        let stages = report.passes().stages;
        let PerStage { relevance, detection, projection, statements, regions, .. } = stages;
        let decoded = stages.reasoning + stages.rating + stages.rationale;
        Ok(Outcome::Judged(Judgment {
            flagged: report.verdict() == Verdict::Unsafe,
            violated: Some(report.violated().to_vec()),
            score: None,
            passes: relevance + detection + projection + statements + regions + decoded,
            words: None,
            evidence: report.rules().to_vec(),
        }))
    }
}
