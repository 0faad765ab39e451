//! Ways to say whether a picture is unsafe, behind one trait: the whole method and what it is compared with.

mod classifier;
mod clip;
mod clue;
mod constant;
mod error;
mod guard;
mod questions;
mod student;
mod zero_shot;

use cluegate_perception::{Call, Picture};

use crate::data::Policy;
use crate::outcome::Outcome;

pub use classifier::Classifier;
pub use clip::{ClipPair, ClipRules};
pub use clue::Clue;
pub use constant::Constant;
pub use error::MethodError;
pub use guard::{AnswerForm, Guard};
pub use questions::{QuestionError, Questions};
pub use student::StudentAlone;
pub use zero_shot::{Knowledge, ZeroShot};

/// What a method is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The picture.
    pub picture: &'a Picture,
    /// What the row asks to judge it by, if it says so. Methods that judge by a constitution do not look at it.
    pub policy: Option<&'a Policy>,
}

/// A way to say whether a picture is unsafe. The same subject has the same outcome, whatever was asked before.
pub trait Method {
    /// How tables call it.
    fn name(&self) -> &str;

    /// Hash over everything but the subject that the outcome depends on: models, prompts, rules, thresholds, stages.
    fn revision(&self) -> &str;

    /// Whether the outcome depends on the policy of the row.
    fn reads_policy(&self) -> bool {
        false
    }

    /// Judges one picture.
    ///
    /// # Errors
    /// A model failed. Words that are no answer are an outcome, not an error.
    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError>;
}

/// Hash over parts, each with its length, so that no two lists of parts run together; 64 hexadecimal digits.
pub(crate) fn revision(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
