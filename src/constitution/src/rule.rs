//! The built constitution: values that have been checked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nearest::nearest;
use crate::parameter::{Parameter, Written};
use crate::{ConstitutionError, Problem, Revision};

/// How bad a violation is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Undesired, hardly harmful.
    Low,
    /// Harmful to some.
    Medium,
    /// Harmful.
    High,
    /// Never to be shown to anyone.
    Critical,
}

impl Severity {
    /// All severities, rising.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name used in files and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Thresholds of the method (CLUE, Algorithm 1; the defaults are those of s 4.1). Every number is finite and in range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Thresholds {
    /// Cosine from which a rule is relevant, -1 to 1; `None` leaves it to the encoder.
    pub relevance: Option<f32>,
    /// `a1 = -alpha1 * M(None, c)`, 0 to 1.
    pub alpha1: f64,
    /// `a2 = alpha2 * (1 - M(None, c))`, 0 to 1.
    pub alpha2: f64,
    /// How far the score must fall when the central objects are removed, 0 to 1.
    pub beta: f64,
    /// A detection counts above this confidence, 0 to 1.
    pub detection_confidence: f32,
    /// Share of the picture's area under which an object is small, 0 to 1.
    pub small_object_area: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            relevance: None,
            alpha1: 0.3,
            alpha2: 0.8,
            beta: 0.6,
            detection_confidence: 0.05,
            small_object_area: 0.01,
        }
    }
}

/// Something that a picture shows or does not show.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Statement {
    /// The statement: never blank, without white space around it.
    pub text: String,
    /// The objects that it turns on, as a detector should look for them; may be empty.
    pub central: Vec<String>,
}

/// One link of a chain: it holds if any of its statements holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Precondition {
    /// The statements, at least one.
    pub any: Vec<Statement>,
}

/// One rule: violated if every precondition holds and the exception does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Unique name: a-z, 0-9 and -.
    pub id: String,
    /// The objectified rule; never blank.
    pub text: String,
    /// How objective the rule is, 1 to 10 (CLUE s 3.1).
    pub objectiveness: u8,
    /// How bad a violation is.
    pub severity: Severity,
    /// The chain, at least one link, asked in this order.
    pub preconditions: Vec<Precondition>,
    /// The exception, a chain of the same form; empty if there is none.
    pub unless: Vec<Precondition>,
    /// Whether the statements may speak of what is likely to follow from what the picture shows (OOD-MMSafe): the judge
    /// then lets the model project consequences before it asks them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub consequence: bool,
    /// The numbers in text and statements, each in its place there; in the order of their names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// Names of the lints that are set aside for this rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// The texts before the parameters were put in.
    #[serde(skip)]
    pub(crate) written: Written,
}

/// A checked set of rules with its thresholds and revision. Made only by [`Constitution::parse`],
/// [`Constitution::shipped`] and, from one of those, [`Constitution::with_parameters`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Constitution {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) thresholds: Thresholds,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) revision: Revision,
}

impl Constitution {
    /// Short name, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the constitution is for; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Thresholds, defaults filled in.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Names of the lints that are set aside for all rules.
    pub fn allow(&self) -> &[String] {
        &self.allow
    }

    /// The rules in the order of the file, at least one.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of that id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.id == id)
    }

    /// The rule of that id, or an error that names the nearest.
    ///
    /// # Errors
    /// [`Problem::UnknownRule`] if there is none.
    pub fn require_rule(&self, id: &str) -> Result<&Rule, ConstitutionError> {
        self.rule(id).ok_or_else(|| {
            let known: Vec<String> = self.rules.iter().map(|rule| rule.id.clone()).collect();
            let nearest = nearest(id, known.iter().map(String::as_str)).map(str::to_owned);
            let problem = Problem::UnknownRule { id: id.to_owned(), nearest, known };
            ConstitutionError::new(&self.name, None, problem)
        })
    }

    /// The same constitution with this rule alone, and a revision of its own.
    ///
    /// # Errors
    /// [`Problem::UnknownRule`] if there is none of that id.
    pub fn with_only(&self, id: &str) -> Result<Self, ConstitutionError> {
        let rules = vec![self.require_rule(id)?.clone()];
        let mut only = Self { rules, ..self.clone() };
        only.revision = Revision::of(&only);
        Ok(only)
    }

    /// Hash over the content, the parameters' values in their places; the same for two files that differ in formatting,
    /// comments or spelt-out defaults, and for two that say the same by a parameter and without one.
    pub fn revision(&self) -> Revision {
        self.revision
    }
}
