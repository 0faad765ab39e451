//! How prose is compiled, and what comes out.

use std::collections::BTreeSet;
use std::time::Duration;

use cluegate_constitution::{Parameter, Setting, Severity};
use serde::Serialize;
use thiserror::Error;

use crate::ask::{Asked, Failure};
use crate::grammar::Formula;
use crate::split::{LeftOut, ProseError, Source};
use crate::write;

/// How prose is compiled.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the constitution: a-z, 0-9 and -, at most 64 characters.
    pub name: String,
    /// Revisions of a rule at most. Default 5 (CLUE s 3.1).
    pub rounds: usize,
    /// Rating from which a rule is objective enough, 1 to 10. Default 9.
    pub target: u8,
    /// Severity of every rule; a reviewer may change each. Default medium.
    pub severity: Severity,
    /// Values that people chose for numbers inside rules.
    pub settings: Vec<Setting>,
    /// Ids of rules that are compiled though they seem to speak to the model.
    pub allowed: BTreeSet<String>,
    /// How long one answer is waited for. Default 120 s.
    pub timeout: Duration,
    /// Rules in work at a time, at least 1. Default 8.
    pub parallel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "constitution".to_owned(),
            rounds: 5,
            target: 9,
            severity: Severity::Medium,
            settings: Vec::new(),
            allowed: BTreeSet::new(),
            timeout: Duration::from_secs(120),
            parallel: 8,
        }
    }
}

/// Why nothing was compiled at all.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The prose.
    #[error("the prose: {0}")]
    Prose(#[from] ProseError),
    /// An option names a rule that there is not.
    #[error("expected the id of a rule in {option}, got {id:?}; {}the rules: {}",
        nearest.as_ref().map(|near| format!("did you mean {near:?}? ")).unwrap_or_default(), known.join(", "))]
    UnknownRule {
        /// Which option.
        option: &'static str,
        /// The id.
        id: String,
        /// The most similar id.
        nearest: Option<String>,
        /// All ids.
        known: Vec<String>,
    },
}

/// Where a wording of a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It is the prose.
    Source,
    /// The model revised it.
    Revised,
    /// A person set a parameter.
    Set,
}

/// One wording of a rule, with what the model said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wording {
    /// Where it comes from.
    pub cause: Cause,
    /// The text.
    pub text: String,
    /// Why it is or is not objective.
    pub explanation: String,
    /// How objective it is, 1 to 10.
    pub rating: u8,
}

/// Something that a reviewer should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// The best wording is rated under the target.
    BelowTarget,
    /// Most words that carry the subject of the source are not in the wording.
    LostSubject,
    /// A number of the source is not in the wording.
    LostNumber,
    /// A statement has a number that the rule does not have.
    NewNumber,
    /// The source has letters or words that English has not, or none by which English can be told.
    NotEnglish,
    /// The source seems to speak to the model, and was let through.
    Addresses,
    /// The model repeated a wording.
    Repeated,
    /// An answer was mended.
    Repaired,
}

/// A note for the reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Which kind.
    pub kind: NoteKind,
    /// In words.
    pub text: String,
}

/// A statement with `{name}` where a parameter stands, and its central words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompiledStatement {
    /// The statement; braces of its own are doubled.
    pub text: String,
    /// What a detector should look for.
    pub central: Vec<String>,
}

/// A precondition: statements of which one is enough.
pub type Link = Vec<CompiledStatement>;

/// A rule that was compiled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compiled {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub source: Source,
    /// Every wording, in the order in which it was rated; the source first.
    pub history: Vec<Wording>,
    /// Index of the wording that was kept.
    pub kept: usize,
    /// The wording with `{name}` where a parameter stands; braces of its own are doubled.
    pub text: String,
    /// How objective it is, 1 to 10.
    pub objectiveness: u8,
    /// How bad a violation is.
    pub severity: Severity,
    /// The numbers that can be set.
    pub parameters: Vec<Parameter>,
    /// The chain.
    pub preconditions: Vec<Link>,
    /// The exception.
    pub unless: Vec<Link>,
    /// What a reviewer should know.
    pub notes: Vec<Note>,
    /// All that was asked and answered.
    pub asked: Vec<Asked>,
}

impl Compiled {
    /// The rule as it stands in a constitution file, with a comment that names its source.
    pub fn to_toml(&self) -> String {
        write::rule(self)
    }

    /// The chain as a formula, parameters filled in by their names.
    pub fn formula(&self) -> Formula {
        let chain = |links: &[Link]| -> Vec<Vec<String>> {
            links.iter().map(|any| any.iter().map(|statement| statement.text.clone()).collect()).collect()
        };
        Formula { preconditions: chain(&self.preconditions), unless: chain(&self.unless) }
    }
}

/// A rule that was not compiled, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failed {
    /// Its id.
    pub id: String,
    /// Where it comes from.
    pub source: Source,
    /// What kept it.
    pub failure: Failure,
    /// The wordings that were rated before.
    pub history: Vec<Wording>,
    /// All that was asked and answered.
    pub asked: Vec<Asked>,
}

/// What became of prose: every rule of it is in `compiled` or in `failed`, in its order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compilation {
    /// Rules that were compiled.
    pub compiled: Vec<Compiled>,
    /// Rules that were not.
    pub failed: Vec<Failed>,
    /// Parts of the prose that are no rules.
    pub left_out: Vec<LeftOut>,
}

impl Compilation {
    /// Number of rules that the prose has.
    pub fn rules(&self) -> usize {
        self.compiled.len() + self.failed.len()
    }

    /// Every question and answer of the compilation, rule after rule.
    pub fn asked(&self) -> impl Iterator<Item = &Asked> {
        let compiled = self.compiled.iter().flat_map(|rule| &rule.asked);
        compiled.chain(self.failed.iter().flat_map(|rule| &rule.asked))
    }
}
