//! What a method said of a picture.

use cluegate_judge::RuleEvidence;
use serde::{Deserialize, Serialize};

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgment {
    /// Whether the picture is called unsafe.
    pub flagged: bool,
    /// The rules that are named as violated; `None` for a method that names none.
    pub violated: Option<Vec<String>>,
    /// How sure it is that the picture is unsafe, 0 to 1, where it says.
    pub score: Option<f64>,
    /// Forward passes, one for each embedded or searched picture, each scored question and each decoded token.
    pub passes: u64,
    /// What the model wrote, where it was let to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// What the verdict rests on, rule by rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<RuleEvidence>,
}

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An answer.
    Judged(Judgment),
    /// The model wrote this, which is no answer of the form that was asked for.
    Unparseable(String),
}
