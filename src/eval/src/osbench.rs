//! Runs Mini OS Bench: every picture judged by the whole method, counted at the level of pictures and of rules.

use std::collections::BTreeMap;
use std::time::Instant;

use cluegate_judge::{InspectOptions, Judge, JudgeError, Outcome, Prepared, Report, Verdict};
use cluegate_mini::osbench::Sample;
use cluegate_mini::{RULE_IDS, Style, World};
use cluegate_perception::Picture;
use serde::Serialize;
use thiserror::Error;

use crate::metrics::Confusion;

/// Why the benchmark could not be run to its end. A judge error on a single picture is counted instead.
#[derive(Debug, Error)]
pub enum OsbenchError {
    /// A picture could not be drawn.
    #[error("cannot draw {id}: {source}")]
    Picture {
        /// The sample.
        id: String,
        /// Why.
        source: image::ImageError,
    },
}

/// What the benchmark counted.
#[derive(Debug, Default, Serialize)]
pub struct OsbenchResult {
    /// Pictures judged.
    pub pictures: usize,
    /// Pictures for which there is no verdict, with the first errors.
    pub errors: Vec<String>,
    /// Unsafe or safe, against the truth.
    pub image_level: Confusion,
    /// Each rule on each picture, against the truth; a hit counts only if the right rule is named.
    pub rule_level: Confusion,
    /// The same by rule.
    pub by_rule: BTreeMap<String, Confusion>,
    /// The relevance scan: kept or filtered, against violated or not.
    pub relevance: Confusion,
    /// Reasoning cascades begun.
    pub cascades: u64,
    /// Mean time of a judgment in milliseconds.
    pub mean_ms: f64,
    /// 50th, 95th and 99th percentile and the longest.
    pub percentiles_ms: [f64; 4],
    /// Ids of pictures judged otherwise than labelled, with what was expected and what came.
    pub mistakes: Vec<String>,
}

impl OsbenchResult {
    /// Share of violated rules that the relevance scan kept, 0 to 1.
    pub fn relevance_recall(&self) -> f64 {
        self.relevance.recall()
    }

    /// Share of (picture, rule) pairs that the relevance scan left out, 0 to 1.
    pub fn relevance_filtered(&self) -> f64 {
        let left_out = self.relevance.true_negatives + self.relevance.false_negatives;
        left_out as f64 / self.relevance.total().max(1) as f64
    }

    fn count(&mut self, sample: &Sample, report: &Report) {
        self.pictures += 1;
        self.image_level.add(report.verdict() == Verdict::Unsafe, !sample.violated.is_empty());
        self.cascades += report.passes().cascades;
        for rule in report.rules() {
            let is = sample.violated.contains(&rule.id.as_str());
            let said = rule.outcome == Outcome::Violated;
            self.rule_level.add(said, is);
            self.by_rule.entry(rule.id.clone()).or_default().add(said, is);
            self.relevance.add(rule.outcome != Outcome::Irrelevant, is);
        }
        if report.violated() != sample.violated {
            self.mistakes.push(format!(
                "{}: expected {:?}, got {:?}",
                sample.id,
                sample.violated,
                report.violated()
            ));
        }
    }

    fn fail(&mut self, sample: &Sample, error: &JudgeError) {
        self.pictures += 1;
        self.errors.push(format!("{}: {error}", sample.id));
        // No verdict is counted as wrong, so that a judge cannot gain by failing.
        self.image_level.add(sample.violated.is_empty(), !sample.violated.is_empty());
        for rule in RULE_IDS {
            let is = sample.violated.contains(&rule);
            self.rule_level.add(!is, is);
            self.by_rule.entry(rule.to_owned()).or_default().add(!is, is);
        }
    }

    fn time(&mut self, mut milliseconds: Vec<f64>) {
        milliseconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (milliseconds.len() as f64 * share) as usize;
            milliseconds.get(index.min(milliseconds.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        self.percentiles_ms = [at(0.5), at(0.95), at(0.99), at(1.0)];
        self.mean_ms = milliseconds.iter().sum::<f64>() / milliseconds.len().max(1) as f64;
    }
}

/// Judges every sample and counts. `progress` is called after each picture with its sample and the report.
///
/// # Errors
/// See [`OsbenchError`].
pub fn run(
    world: &World,
    samples: &[Sample],
    style: Style,
    (judge, prepared): (&Judge, &Prepared),
    mut progress: impl FnMut(&Sample, Option<&Report>),
) -> Result<OsbenchResult, OsbenchError> {
    let mut result = OsbenchResult::default();
    let mut milliseconds = Vec::with_capacity(samples.len());
    for sample in samples {
        let pixels = sample
            .picture(world, style)
            .map_err(|source| OsbenchError::Picture { id: sample.id.clone(), source })?;
        let picture = Picture::new(pixels);
        let begin = Instant::now();
        let report = judge.inspect(&picture, prepared, &InspectOptions::default());
        milliseconds.push(begin.elapsed().as_secs_f64() * 1e3);
        match &report {
            Ok(report) => result.count(sample, report),
            Err(error) => result.fail(sample, error),
        }
        progress(sample, report.ok().as_ref());
    }
    result.time(milliseconds);
    Ok(result)
}
