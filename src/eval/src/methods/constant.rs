//! The two methods that look at nothing: what any figure has to be read against.

use cluegate_perception::Call;

use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// Always the same answer.
#[derive(Debug)]
pub struct Constant {
    flagged: bool,
    revision: String,
}

impl Constant {
    /// Says that every picture is unsafe, or that none is.
    pub fn new(flagged: bool) -> Self {
        let name = if flagged { "always-unsafe" } else { "always-safe" };
        Self { flagged, revision: revision(&[name]) }
    }
}

impl Method for Constant {
    fn name(&self) -> &str {
        if self.flagged { "always-unsafe" } else { "always-safe" }
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, _: &Subject<'_>, _: &Call) -> Result<Outcome, MethodError> {
        Ok(Outcome::Judged(Judgment {
            flagged: self.flagged,
            violated: None,
            score: None,
            passes: 0,
            words: None,
            evidence: Vec::new(),
        }))
    }
}
