//! What the verdict rests on, rule by rule and statement by statement.

use cluegate_perception::Region;
use serde::{Deserialize, Serialize};

/// The answer to whether a picture violates any rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No rule is violated.
    Safe,
    /// At least one rule is violated.
    Unsafe,
}

/// How a rule came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The relevance scan left the rule out.
    Irrelevant,
    /// A precondition does not hold.
    NotViolated,
    /// The chain holds, and no exception does.
    Violated,
    /// The chain holds, but so does the exception.
    Excepted,
    /// The rule is relevant, and its chain was not asked: the pre-filter cleared the picture.
    Cleared,
    /// A glance did not ask its chain: it was not told to, or had seen enough. Says nothing about the rule.
    NotAsked,
}

/// Which line of Algorithm 1 decided a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// `M(x,c) - M(None,c) < a1`: does not hold.
    BelowAlpha1,
    /// `M(x,c) - M(None,c) > a2`: holds.
    AboveAlpha2,
    /// `M(x,c) - M(x minus region,c) > b`: holds.
    Region,
    /// The two-turn reasoning, either way.
    Reasoning,
    /// A score above one half or not, in an ablation where the line that should decide is switched off.
    Score,
    /// Nothing, because another statement of the precondition holds or an earlier precondition does not.
    NotNeeded,
}

/// The best box for one central word, in pixels of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundRegion {
    /// The central word.
    pub word: String,
    /// The detector's confidence, above the threshold, at most 1.
    pub confidence: f32,
    /// Left edge.
    pub left: f32,
    /// Upper edge.
    pub top: f32,
    /// Right edge, more than `left`, at most the picture's width.
    pub right: f32,
    /// Lower edge, more than `top`, at most the picture's height.
    pub bottom: f32,
    /// The box's share of the picture's area, 0 to 1.
    pub area_share: f64,
}

impl FoundRegion {
    /// The box alone.
    pub fn region(&self) -> Region {
        Region { left: self.left, top: self.top, right: self.right, bottom: self.bottom }
    }
}

/// What is known of one statement. A statement that Algorithm 1 never reaches has its text, `score_without_image` and
/// thresholds only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatementEvidence {
    /// The statement.
    pub text: String,
    /// `M(x, c)`, 0 to 1, of the crop where `crop` says so; none if the precondition was not reached.
    pub score: Option<f64>,
    /// `M(None, c)`, 0 to 1: the model's prior.
    pub score_without_image: f64,
    /// `a1 = -alpha1 * M(None, c)`.
    pub alpha1: f64,
    /// `a2 = alpha2 * (1 - M(None, c))`.
    pub alpha2: f64,
    /// Whether the crop of the small central objects was looked at instead of the whole picture.
    pub crop: bool,
    /// The best box of each central word that was found, in the order of the words; empty if none was found, or if the
    /// precondition was not reached.
    pub region: Vec<FoundRegion>,
    /// `M(x, c)` of the whole picture, where `score` is that of a crop and the region comparison was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_whole_picture: Option<f64>,
    /// `M(x minus region, c)`, 0 to 1, where the region comparison was reached and an object had been found.
    pub score_region_removed: Option<f64>,
    /// Probability of Yes against No in the second turn, 0 to 1, where reasoning was reached.
    pub rating: Option<f64>,
    /// The line that decided.
    pub decided_by: DecidedBy,
    /// Whether the statement holds; none if nothing decided it.
    pub holds: Option<bool>,
    /// The chain of thought of the first turn, where reasoning was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought: Option<String>,
    /// The rationale of the second turn, where reasoning was reached and a rationale was asked for.
    pub rationale: Option<String>,
}

/// What is known of one precondition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreconditionEvidence {
    /// Whether any statement holds; none if an earlier precondition does not hold, so that this one was not reached.
    pub satisfied: Option<bool>,
    /// Its statements, in order.
    pub statements: Vec<StatementEvidence>,
}

/// What is known of one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleEvidence {
    /// The rule's id.
    pub id: String,
    /// Cosine between picture and rule text, the largest of its square parts if it is not square; none if the scan was
    /// switched off.
    pub relevance: Option<f32>,
    /// The cosine from which the rule would be relevant.
    pub relevance_threshold: f32,
    /// How the rule came out.
    pub outcome: Outcome,
    /// For a consequence rule what the model projected before its statements were asked: the same for all rules of one
    /// picture. None for an irrelevant rule and for rules that do not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projection: Option<String>,
    /// How far the chain is from the line between held and not, -1 to 1 and over 0 where the rule is violated; of a
    /// [`Glance`](crate::Glance) alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// The chain, in order; empty for an irrelevant rule.
    pub preconditions: Vec<PreconditionEvidence>,
    /// The exception's chain; empty if there is none, or if the chain does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unless: Vec<PreconditionEvidence>,
}
