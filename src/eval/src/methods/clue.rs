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
    without_prefilter: bool,
}

impl Clue {
    /// Judges with these stages. `prepared` was made by `judge`, which keeps no verdicts: every picture is to cost what
    /// it costs.
    pub fn new(name: impl Into<String>, judge: Arc<Judge>, prepared: Prepared, stages: Stages) -> Self {
        Self::build(name.into(), judge, prepared, (stages, false))
    }

    /// The whole method, also where `judge` has a pre-filter: what a student is to learn from.
    pub fn whole(judge: Arc<Judge>, prepared: Prepared) -> Self {
        Self::build("clue".to_owned(), judge, prepared, (Stages::ALL, true))
    }

    fn build(
        name: String,
        judge: Arc<Judge>,
        prepared: Prepared,
        (stages, without_prefilter): (Stages, bool),
    ) -> Self {
        let models = judge.models();
        let student = judge.prefilter().filter(|_| !without_prefilter).map(|student| student.fingerprint());
        let mut parts = vec![
            "clue".to_owned(),
            models.relevance.clone(),
            models.detector.clone(),
            models.judge.clone(),
            judge.templates().hash(),
            prepared.constitution().revision().to_string(),
            prepared.relevance_threshold().to_bits().to_string(),
            format!("{stages:?}"),
        ];
        parts.extend(student.map(str::to_owned));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let revision = revision(&parts);
        Self { name, revision, judge, prepared, stages, without_prefilter }
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
        let options = InspectOptions {
            stages: self.stages,
            without_prefilter: self.without_prefilter,
            call: call.clone(),
            ..InspectOptions::default()
        };
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
