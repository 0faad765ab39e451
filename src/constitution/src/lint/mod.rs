//! What is allowed in a constitution and still probably a mistake.
//!
//! Every lint has a stable code and stands in the catalogue ([`LINTS`]) with what it finds, why that matters, an example
//! and how to mend it. Those of the `C0` and `C1` groups are found here, from the constitution alone. Those of the `C2`
//! group need models; whoever has them adds their findings by [`Finding::new`]. A constitution or a rule sets a lint
//! aside by naming it in `allow`.

mod catalogue;
mod chains;
mod place;
mod wording;
mod words;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::Constitution;
use crate::rule::{Precondition, Rule};

pub use catalogue::LINTS;
pub use place::{Region, SourceMap};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth a look; often meant as it is.
    Note,
    /// Probably a mistake.
    Warning,
    /// The constitution cannot be used.
    Error,
}

impl Level {
    /// The name used in reports and in SARIF.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lint {
    /// Stable: never given to another lint.
    pub code: &'static str,
    /// In kebab-case, for `allow`.
    pub name: &'static str,
    /// How much its findings matter.
    pub level: Level,
    /// What it finds, one sentence.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What is found.
    pub example: &'static str,
    /// How to mend it.
    pub mend: &'static str,
}

impl Lint {
    /// The lint of a file that is not a constitution.
    pub const INVALID: Self = LINTS[0];

    /// The lint of this code or name.
    pub fn find(code_or_name: &str) -> Option<&'static Self> {
        LINTS.iter().find(|lint| lint.name == code_or_name || lint.code.eq_ignore_ascii_case(code_or_name))
    }
}

impl Serialize for Lint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

/// Which of a rule's two chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// What makes up a violation.
    Precondition,
    /// The exception.
    Unless,
}

impl Chain {
    /// The key in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Precondition => "precondition",
            Self::Unless => "unless",
        }
    }

    /// The links of this chain of a rule.
    pub fn of(self, rule: &Rule) -> &[Precondition] {
        match self {
            Self::Precondition => &rule.preconditions,
            Self::Unless => &rule.unless,
        }
    }
}

/// What a finding is about; indices count from 0, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A rule as a whole.
    Rule(usize),
    /// A rule's text.
    Text(usize),
    /// A rule's objectiveness.
    Objectiveness(usize),
    /// A link of a chain: rule, chain, link.
    Link(usize, Chain, usize),
    /// A statement: rule, chain, link, statement.
    Statement(usize, Chain, usize, usize),
}

impl Subject {
    /// The index of the rule.
    pub fn rule(self) -> usize {
        match self {
            Self::Rule(rule)
            | Self::Text(rule)
            | Self::Objectiveness(rule)
            | Self::Link(rule, ..)
            | Self::Statement(rule, ..) => rule,
        }
    }
}

/// Something found in a constitution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The kind.
    #[serde(rename = "code")]
    pub lint: &'static Lint,
    /// The lint's name.
    name: &'static str,
    /// The lint's level.
    level: Level,
    /// Id of the rule.
    pub rule: String,
    /// What was found, one sentence without the rule's id.
    pub message: String,
    /// Where in the file, if the text is known.
    pub region: Option<Region>,
}

impl Finding {
    /// A finding of `lint` about a part of `constitution`.
    pub fn new(
        lint: &'static Lint,
        constitution: &Constitution,
        subject: Subject,
        source: Option<&SourceMap<'_>>,
        message: String,
    ) -> Self {
        let rule = constitution.rules().get(subject.rule());
        Self {
            lint,
            name: lint.name,
            level: lint.level,
            rule: rule.map(|rule| rule.id.clone()).unwrap_or_default(),
            message,
            region: source.and_then(|source| source.region(subject)),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lint { code, name, level, .. } = self.lint;
        write!(f, "{} {code} {name}: rule `{}`: {}", level.as_str(), self.rule, self.message)
    }
}

impl Constitution {
    /// What the lints of the groups `C0` and `C1` find, by rule and then by code. `source` is the file's text, if it is
    /// at hand. What the constitution allows is left out.
    pub fn lint(&self, source: Option<&SourceMap<'_>>) -> Vec<Finding> {
        let mut found = Found { constitution: self, source, findings: Vec::new() };
        for (index, rule) in self.rules().iter().enumerate() {
            chains::check(index, rule, &mut found);
            wording::check(index, rule, &mut found);
        }
        chains::check_duplicates(&mut found);
        let mut findings = found.findings;
        findings.sort_by_key(|(subject, finding)| (subject.rule(), finding.lint.code));
        findings.into_iter().map(|(_, finding)| finding).filter(|finding| !self.allows(finding)).collect()
    }

    /// Whether the constitution or the finding's rule sets its lint aside.
    pub fn allows(&self, finding: &Finding) -> bool {
        let of_rule = self.rule(&finding.rule).map(|rule| rule.allow.as_slice()).unwrap_or_default();
        self.allow.iter().chain(of_rule).any(|name| name == finding.lint.name)
    }
}

/// Findings in the making.
struct Found<'a> {
    constitution: &'a Constitution,
    source: Option<&'a SourceMap<'a>>,
    findings: Vec<(Subject, Finding)>,
}

impl Found<'_> {
    /// Adds a finding of the lint of this code.
    fn add(&mut self, code: &str, subject: Subject, message: String) {
        let Some(lint) = Lint::find(code) else { return };
        let finding = Finding::new(lint, self.constitution, subject, self.source, message);
        self.findings.push((subject, finding));
    }
}
