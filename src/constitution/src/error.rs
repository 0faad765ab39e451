//! Why a constitution was refused.

use thiserror::Error;

/// A refused constitution: where it came from, which line, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{origin}{}: {problem}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct ConstitutionError {
    origin: String,
    line: Option<usize>,
    // On the heap, so that a result with this error stays small.
    problem: Box<Problem>,
}

impl ConstitutionError {
    pub(crate) fn new(origin: &str, line: Option<usize>, problem: Problem) -> Self {
        Self { origin: origin.to_owned(), line, problem: Box::new(problem) }
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
    /// A lint that does not exist, or cannot be set aside.
    #[error("expected names of lints in `allow`, got {name:?}; {}`cluegate constitution explain lints` lists them",
        nearest.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default())]
    UnknownLint {
        /// As written.
        name: String,
        /// The most similar lint, if one is similar.
        nearest: Option<&'static str>,
    },
    /// A brace that belongs to no parameter.
    #[error(
        "expected {{name}} of a parameter in {text:?} of rule `{rule}`, but {problem}; for a brace itself write {{{{ or }}}}"
    )]
    Brace {
        /// The rule's id.
        rule: String,
        /// The text or statement.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A text that names a parameter which its rule does not have.
    #[error("unknown parameter `{{{name}}}` in a text of rule `{rule}`; {}{}",
        nearest.as_ref().map(|near| format!("did you mean `{{{near}}}`? ")).unwrap_or_default(),
        if known.is_empty() {
            format!("the rule has none: add [rule.parameter.{name}], or write {{{{ and }}}} for braces")
        } else {
            format!("parameters of the rule: {}", known.join(", "))
        })]
    UnknownParameter {
        /// The rule's id.
        rule: String,
        /// The parameter's name.
        name: String,
        /// The most similar parameter of the rule, if one is similar.
        nearest: Option<String>,
        /// All parameters of the rule.
        known: Vec<String>,
    },
    /// A parameter that no text of its rule names: setting it would change nothing.
    #[error(
        "expected `{{{name}}}` in the text or a statement of rule `{rule}`, which has a parameter of that name, got none; use it or remove it"
    )]
    UnusedParameter {
        /// The rule's id.
        rule: String,
        /// The parameter's name.
        name: String,
    },
    /// A kind of parameter that does not exist.
    #[error(
        "expected kind angle, count, share or age of parameter `{name}` of rule `{rule}`, got {value:?}; choose one of them"
    )]
    UnknownKind {
        /// The rule's id.
        rule: String,
        /// The parameter's name.
        name: String,
        /// As written.
        value: String,
    },
    /// A parameter's value or bound outside its range.
    #[error("expected {} between {min} and {max} ({unit}), got {value}; {}",
        if *key == "value" { format!("`{rule}.{name}`") } else { format!("`{key}` of `{rule}.{name}`") },
        if *key == "value" { "the constitution states these bounds" } else { "correct the parameter's bounds" })]
    ParameterValue {
        /// The rule's id.
        rule: String,
        /// The parameter's name.
        name: String,
        /// `value`, `min` or `max`.
        key: &'static str,
        /// What values are, in words.
        unit: &'static str,
        /// As given.
        value: f64,
        /// Least allowed.
        min: f64,
        /// Most allowed.
        max: f64,
    },
    /// A setting that is not of the form `rule.parameter=value`.
    #[error(
        "expected RULE.PARAMETER=VALUE, such as spread-legs.angle=60, got {written:?}; correct the setting"
    )]
    Setting {
        /// As written.
        written: String,
    },
    /// A setting for a parameter that the constitution does not have.
    #[error("expected a parameter of the constitution, got `{path}`; {}{}",
        nearest.as_ref().map(|near| format!("did you mean `{near}`? ")).unwrap_or_default(),
        if known.is_empty() { "it has no parameters".to_owned() } else { format!("its parameters: {}", known.join(", ")) })]
    UnknownSetting {
        /// The rule and the parameter as asked for.
        path: String,
        /// The most similar parameter, if one is similar.
        nearest: Option<String>,
        /// All parameters of the constitution.
        known: Vec<String>,
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
    /// A file that cannot be brought into the canonical form.
    #[error("expected a file whose form can be changed alone: {message}; leave it as it is and report it")]
    Format {
        /// What stands against it.
        message: String,
    },
    /// A rule that the constitution does not have.
    #[error("expected a rule of the constitution, got `{id}`; {}its rules: {}",
        nearest.as_ref().map(|near| format!("did you mean `{near}`? ")).unwrap_or_default(), known.join(", "))]
    UnknownRule {
        /// As asked for.
        id: String,
        /// The most similar rule, if one is similar.
        nearest: Option<String>,
        /// All rules.
        known: Vec<String>,
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
