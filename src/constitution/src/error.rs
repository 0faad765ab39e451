//! Why a constitution was refused.

use thiserror::Error;

/// A refused constitution: where it came from, which line, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{origin}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConstitutionError {
    origin: String,
    line: Option<usize>,
    problem: Problem,
}

impl ConstitutionError {
    pub(crate) fn new(origin: &str, line: Option<usize>, problem: Problem) -> Self {
        Self { origin: origin.to_owned(), line, problem }
    }

    /// The file, or whatever the caller named as the text's origin.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The line of the text, counted from 1, where one can be named.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What is wrong with a constitution: what was expected, what came, what to do.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text is longer than any constitution should be.
    #[error(
        "expected at most {limit} bytes, got {bytes}; split the rules over several constitutions, or check that this is the right file"
    )]
    TooLarge {
        /// Length of the text.
        bytes: usize,
        /// The most that is read.
        limit: usize,
    },
    /// The text is not TOML, or a value is missing or of the wrong type.
    #[error("expected a constitution in TOML: {message}; correct the file (column {column})")]
    Toml {
        /// What the TOML reader found.
        message: String,
        /// Column, counted from 1.
        column: usize,
    },
    /// A key that this version does not know. Never ignored, for it may have been meant as a safeguard.
    #[error("unknown key `{key}` in {place}; {}known keys here: {}",
        nearest.as_ref().map(|near| format!("did you mean `{near}`? ")).unwrap_or_default(), known.join(", "))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The kind of table that holds it.
        place: &'static str,
        /// The most similar known key, if one is similar.
        nearest: Option<&'static str>,
        /// All keys known in this place.
        known: Vec<&'static str>,
    },
    /// There is not one rule.
    #[error(
        "expected at least one [[rule]], got none; a constitution without rules would call every picture safe"
    )]
    NoRules,
    /// An identifier with other characters than the allowed ones, or of the wrong length.
    #[error(
        "expected {what} of 1 to 64 characters out of a-z, 0-9 and -, starting with a letter or digit, got {value:?}; rename it"
    )]
    InvalidId {
        /// What the identifier names.
        what: &'static str,
        /// As written.
        value: String,
    },
    /// Two rules of one id.
    #[error("expected rule ids to differ, got `{id}` a second time (first at line {first_line}); rename one")]
    DuplicateId {
        /// The id.
        id: String,
        /// Line of the first rule of that id.
        first_line: usize,
    },
    /// A rule text that is empty or blank.
    #[error("expected a text for rule `{rule}`, got a blank one; write the rule as one sentence")]
    EmptyText {
        /// The rule's id.
        rule: String,
    },
    /// A rule without preconditions: it would hold for every picture.
    #[error(
        "expected at least one [[rule.precondition]] in rule `{rule}`, got none; add the chain of statements that make up a violation"
    )]
    EmptyChain {
        /// The rule's id.
        rule: String,
    },
    /// A precondition without statements.
    #[error(
        "expected at least one statement in `any` of a {link} of rule `{rule}`, got none; add a statement or remove the {link}"
    )]
    EmptyPrecondition {
        /// The rule's id.
        rule: String,
        /// `precondition` or `unless`.
        link: &'static str,
    },
    /// A statement that is empty or blank.
    #[error(
        "expected a statement in a {link} of rule `{rule}`, got a blank one; write what must be visible, such as \"a person is visible\""
    )]
    EmptyStatement {
        /// The rule's id.
        rule: String,
        /// `precondition` or `unless`.
        link: &'static str,
    },
    /// A central word that is empty or blank.
    #[error(
        "expected words in `central` of statement {statement:?} of rule `{rule}`, got a blank one; name the object a detector should find, or leave the list empty"
    )]
    EmptyCentralWord {
        /// The rule's id.
        rule: String,
        /// The statement.
        statement: String,
    },
    /// A severity that does not exist.
    #[error(
        "expected severity low, medium, high or critical in rule `{rule}`, got {value:?}; choose one of them"
    )]
    UnknownSeverity {
        /// The rule's id.
        rule: String,
        /// As written.
        value: String,
    },
    /// An objectiveness outside 1 to 10.
    #[error(
        "expected an objectiveness of 1 to 10 in rule `{rule}`, got {value}; rate how objective the rule is, 10 being a plain fact"
    )]
    Objectiveness {
        /// The rule's id.
        rule: String,
        /// As written.
        value: i64,
    },
    /// A threshold outside its range, or not a number.
    #[error(
        "expected `{key}` in [thresholds] between {min} and {max}, got {value}; leave it out for the default"
    )]
    Threshold {
        /// The threshold's key.
        key: &'static str,
        /// As written.
        value: f64,
        /// Least allowed.
        min: f64,
        /// Most allowed.
        max: f64,
    },
    /// No constitution of that name is shipped.
    #[error("expected the name of a shipped constitution ({}), got {name:?}; for a file of your own give its path", known.join(", "))]
    UnknownName {
        /// As asked for.
        name: String,
        /// All shipped names.
        known: Vec<&'static str>,
    },
}
