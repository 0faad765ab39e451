//! Whether ours and the independent implementation say the same, picture by picture.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use cluegate::judge::{Report, RuleEvidence, StatementEvidence};
use serde::Serialize;
use serde_json::Value;

use crate::reference::{self, ClueOutput, PictureOutput};
use crate::streams::Run;

/// Where ours and the reference agree and where not.
pub(super) struct Comparison {
    pub(super) pictures: usize,
    /// What differs, one line each.
    pub(super) differences: Vec<String>,
    /// Pictures whose rules came out otherwise without a change of the verdict or of the violated rules.
    pub(super) other_outcomes: usize,
    /// The largest difference of a score, a prior and a cosine that both have.
    pub(super) score: f64,
    pub(super) prior: f64,
    pub(super) relevance: f64,
}

impl Comparison {
    /// Whether verdict and violated rules agree on every picture.
    pub(super) fn same(&self) -> bool {
        self.differences.is_empty()
    }
}

/// A stable name as it stands in JSON.
fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name,
        _ => "?".to_owned(),
    }
}

/// Holds runs of ours, each with what it is called, against the reference.
///
/// # Errors
/// A picture without a verdict, or not the same pictures and rules.
pub(super) fn compare<'a>(
    runs: impl Iterator<Item = (&'a str, &'a Run)>,
    theirs: &ClueOutput,
    paths: &[PathBuf],
) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison {
        pictures: paths.len(),
        differences: Vec::new(),
        other_outcomes: 0,
        score: 0.0,
        prior: 0.0,
        relevance: 0.0,
    };
    let expected = paths.len();
    let came = theirs.pictures.len();
    ensure!(came == expected, "expected {expected} pictures of the reference, got {came}");
    for (run, served) in runs {
        let reports = served.reports()?;
        ensure!(reports.len() == expected, "expected {expected} answers, got {}", reports.len());
        for ((report, theirs), path) in reports.into_iter().zip(&theirs.pictures).zip(paths) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            comparison.picture(&format!("{name}, {run}"), report, theirs)?;
        }
    }
    Ok(comparison)
}

impl Comparison {
    /// Adds one picture, called `name`.
    fn picture(&mut self, name: &str, ours: &Report, theirs: &PictureOutput) -> anyhow::Result<()> {
        let verdict = name_of(&ours.verdict());
        let mut other_outcome = false;
        for rule in ours.rules() {
            let their = theirs.rules.iter().find(|their| their.id == rule.id);
            let their = their.with_context(|| format!("the reference has no rule {}", rule.id))?;
            if let (Some(a), Some(b)) = (rule.relevance, their.relevance) {
                self.relevance = self.relevance.max((f64::from(a) - b).abs());
            }
            for (ours, their) in pairs(rule, &their.statements) {
                if let (Some(a), Some(b)) = (ours.score, their.score) {
                    self.score = self.score.max((a - b).abs());
                }
                if let Some(b) = their.prior {
                    self.prior = self.prior.max((ours.score_without_image - b).abs());
                }
            }
            other_outcome |= name_of(&rule.outcome) != their.outcome;
        }
        if verdict == theirs.verdict && ours.violated() == theirs.violated {
            self.other_outcomes += usize::from(other_outcome);
            return Ok(());
        }
        self.differences.push(format!(
            "{name}: ours {verdict} {:?}, the reference {} {:?}{}",
            ours.violated(),
            theirs.verdict,
            theirs.violated,
            explain(ours, theirs)
        ));
        Ok(())
    }
}

/// The statements of a rule that both have, by text and in order.
fn pairs<'a>(
    rule: &'a RuleEvidence,
    theirs: &'a [reference::StatementOutput],
) -> impl Iterator<Item = (&'a StatementEvidence, &'a reference::StatementOutput)> {
    let ours = rule.preconditions.iter().chain(&rule.unless).flat_map(|link| &link.statements);
    ours.filter_map(|ours| {
        theirs.iter().find(|their| their.statement == ours.text).map(|their| (ours, their))
    })
}

/// The scores behind every rule that came out otherwise.
fn explain(ours: &Report, theirs: &PictureOutput) -> String {
    let mut text = String::new();
    for rule in ours.rules() {
        let Some(their) = theirs.rules.iter().find(|their| their.id == rule.id) else { continue };
        if name_of(&rule.outcome) == their.outcome {
            continue;
        }
        text += &format!(
            "\n  {}: ours {} (cosine {:?}), the reference {} (cosine {:?})",
            rule.id,
            name_of(&rule.outcome),
            rule.relevance,
            their.outcome,
            their.relevance
        );
        for (ours, their) in pairs(rule, &their.statements) {
            let line = their.line.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            text += &format!(
                "\n    {:?}: {:?} by {} against {:?} by {line}",
                ours.text,
                ours.score,
                name_of(&ours.decided_by),
                their.score
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cluegate::judge::{Outcome, Verdict};

    use super::*;

    #[test]
    fn names_are_those_of_the_evidence() {
        assert_eq!(name_of(&Verdict::Unsafe), "unsafe");
        assert_eq!(name_of(&Outcome::NotViolated), "not_violated");
    }
}
