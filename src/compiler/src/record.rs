//! The record of a compilation: prose, model, every question and answer, every wording, and what a reviewer decided. It lies
//! beside the constitution as JSON, so that every rule can be traced, and so that compiling again asks only what is new.

use std::collections::BTreeMap;

use cluegate_constitution::{Constitution, ConstitutionError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ask::Asked;
use crate::compilation::{Compilation, Compiled, CompiledStatement, Link, Options};
use crate::grammar::Formula;
use crate::write;

/// Largest record that is read, in bytes.
pub const MAX_RECORD_BYTES: u64 = 256 << 20;
/// Raised whenever what the record says changes its meaning.
const FORMAT: u32 = 1;

/// What a reviewer decided about a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// As it was proposed.
    Accepted,
    /// In the reviewer's words.
    Edited,
    /// Not at all.
    Rejected,
}

/// A decision, and about what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// What was decided.
    pub decision: Decision,
    /// [`Compiled::digest`] of the proposal; about another one nothing was decided.
    pub proposal: String,
    /// The rule in the reviewer's words, as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<String>,
}

/// Decisions by the ids of their rules. A rule that is not there was not reviewed.
pub type Reviews = BTreeMap<String, Review>;

/// The model as the record names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// What the user called it, or the recording does.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// The prose as the record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ProseRecord {
    file: String,
    /// BLAKE3 of its text.
    hash: String,
    text: String,
}

/// What the record says of the options.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OptionsRecord<'a> {
    name: &'a str,
    rounds: usize,
    target: u8,
    severity: &'a str,
    settings: Vec<String>,
    allowed: Vec<&'a str>,
}

/// A record that is to be written.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    format: u32,
    program: &'static str,
    prose: ProseRecord,
    model: ModelName,
    templates: String,
    options: OptionsRecord<'a>,
    reviews: &'a Reviews,
    #[serde(flatten)]
    compilation: &'a Compilation,
}

impl<'a> Record<'a> {
    /// The record of a compilation of `prose`, read from `file`, with the templates of that hash.
    pub fn new(
        (file, prose): (&str, &str),
        model: ModelName,
        templates: String,
        options: &'a Options,
        (compilation, reviews): (&'a Compilation, &'a Reviews),
    ) -> Self {
        let hash = blake3::hash(prose.as_bytes()).to_hex().to_string();
        Self {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION"),
            prose: ProseRecord { file: file.to_owned(), hash, text: prose.to_owned() },
            model,
            templates,
            options: OptionsRecord {
                name: &options.name,
                rounds: options.rounds,
                target: options.target,
                severity: options.severity.as_str(),
                settings: options.settings.iter().map(ToString::to_string).collect(),
                allowed: options.allowed.iter().map(String::as_str).collect(),
            },
            reviews,
            compilation,
        }
    }
}

/// What an earlier record gives to a new compilation.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Earlier {
    #[serde(default)]
    format: u32,
    model: Option<ModelName>,
    #[serde(default)]
    templates: String,
    #[serde(default)]
    reviews: Reviews,
    #[serde(default)]
    compiled: Vec<EarlierRule>,
    #[serde(default)]
    failed: Vec<EarlierRule>,
}

#[derive(Debug, Clone, Deserialize)]
struct EarlierRule {
    #[serde(default)]
    asked: Vec<Asked>,
}

/// A file that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: expected the record of an earlier compilation, got: {problem}; move it away to begin anew")]
pub struct RecordError {
    path: String,
    problem: String,
}

impl Earlier {
    /// Reads the record in `text`; `path` is its file's name for messages.
    ///
    /// # Errors
    /// No JSON, or of another form or format.
    pub fn parse(text: &str, path: &str) -> Result<Self, RecordError> {
        let refused = |problem| RecordError { path: path.to_owned(), problem };
        let earlier: Self = serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
        if earlier.format != FORMAT {
            return Err(refused(format!("format {}, where this version knows {FORMAT}", earlier.format)));
        }
        Ok(earlier)
    }

    /// The answers that hold for this model and these templates; none for others.
    pub fn answers(&self, fingerprint: &str, templates: &str) -> Vec<Asked> {
        let same = self.templates == templates
            && self.model.as_ref().is_some_and(|model| model.fingerprint == fingerprint);
        let rules = self.compiled.iter().chain(&self.failed).filter(|_| same);
        rules.flat_map(|rule| rule.asked.iter().cloned()).collect()
    }

    /// The decisions about rules that are proposed as they were then.
    pub fn reviews(&self, compilation: &Compilation) -> Reviews {
        let same = |rule: &Compiled| {
            let review = self.reviews.get(&rule.id)?;
            (review.proposal == rule.digest()).then(|| (rule.id.clone(), review.clone()))
        };
        compilation.compiled.iter().filter_map(same).collect()
    }
}

impl Compiled {
    /// Hash over what a reviewer sees of the rule as a proposal, 64 hexadecimal digits: the rule itself and its source, not
    /// the place in the prose.
    pub fn digest(&self) -> String {
        let toml = self.to_toml();
        let rule = toml.split_once('\n').map_or("", |(_, rule)| rule);
        blake3::hash(format!("{}\n{rule}", self.source.text).as_bytes()).to_hex().to_string()
    }

    /// The same rule with another chain; statements that it had keep their central words.
    #[must_use]
    pub fn with_formula(&self, formula: &Formula) -> Self {
        let known: Vec<&CompiledStatement> =
            self.preconditions.iter().chain(&self.unless).flatten().collect();
        let statement = |text: &String| {
            let central = known.iter().find(|statement| statement.text == *text);
            CompiledStatement {
                text: text.clone(),
                central: central.map(|statement| statement.central.clone()).unwrap_or_default(),
            }
        };
        let chain = |links: &[Vec<String>]| -> Vec<Link> {
            links.iter().map(|any| any.iter().map(statement).collect()).collect()
        };
        Self { preconditions: chain(&formula.preconditions), unless: chain(&formula.unless), ..self.clone() }
    }

    /// Reads one rule in TOML, as a reviewer wrote it.
    ///
    /// # Errors
    /// What a constitution refuses, or another number of rules than one.
    pub fn check_edited(text: &str) -> Result<(), ConstitutionError> {
        Constitution::parse(&format!("{}\n{text}", write::head("edited", "", &[])), "the edited rule")
            .map(drop)
    }
}

/// A constitution of the rules that were accepted or edited, in their order; `proposed` adds those that were not reviewed.
/// `notes` become the comment at its head. `None` if no rule is left.
pub fn constitution(
    options: &Options,
    notes: &[String],
    compilation: &Compilation,
    reviews: &Reviews,
    proposed: bool,
) -> Option<String> {
    let mut rules = Vec::new();
    for rule in &compilation.compiled {
        match reviews.get(&rule.id) {
            Some(Review { decision: Decision::Rejected, .. }) => {}
            Some(Review { decision: Decision::Edited, edited: Some(text), .. }) => {
                rules.push(format!("{}\n", text.trim_end()));
            }
            Some(_) => rules.push(rule.to_toml()),
            None if proposed => rules.push(rule.to_toml()),
            None => {}
        }
    }
    if rules.is_empty() {
        return None;
    }
    let description = format!("Compiled from prose: {} rules.", rules.len());
    Some(format!("{}\n{}", write::head(&options.name, &description, notes), rules.join("\n")))
}
