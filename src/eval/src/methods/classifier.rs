//! A classifier with a fixed idea of what is unsafe, such as Q16: it names no rules.

use std::sync::Arc;

use cluegate_perception::{Call, PictureClassifier};

use super::error::only;
use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// Labels of a picture that are kept as its words.
const NAMED: usize = 8;

/// A classifier's answers, by its own thresholds.
pub struct Classifier {
    name: String,
    revision: String,
    model: Arc<dyn PictureClassifier>,
}

impl Classifier {
    /// `name` is how tables call it.
    pub fn new(name: impl Into<String>, model: Arc<dyn PictureClassifier>) -> Self {
        let revision = revision(&["classifier", model.fingerprint()]);
        Self { name: name.into(), revision, model }
    }
}

impl Method for Classifier {
    fn name(&self) -> &str {
        &self.name
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let said = only(self.model.classify(std::slice::from_ref(subject.picture), call)?)?;
        let score = f64::from(said.score);
        if !(0.0..=1.0).contains(&score) {
            return Err(MethodError::Answer { expected: "a score of 0 to 1", came: score.to_string() });
        }
        let mut labels: Vec<_> = said.labels.iter().collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        let words: Vec<String> =
            labels.iter().take(NAMED).map(|label| format!("{} {:.3}", label.name, label.score)).collect();
        Ok(Outcome::Judged(Judgment {
            flagged: said.flagged,
            violated: None,
            score: Some(score),
            passes: 1,
            words: (!words.is_empty()).then(|| words.join(", ")),
            evidence: Vec::new(),
        }))
    }
}
