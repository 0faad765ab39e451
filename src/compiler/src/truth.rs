//! Whether a compiled chain says what its rule says: a truth table, checked by hand, against the chain's.
//!
//! A compiler may put a rule in many chains that are all right: with the subject asked first or left to be understood,
//! with one link or three. So a chain is not compared with another chain. For each rule a file names *atoms*, facts that
//! a picture shows or not; says by a formula over them when the rule is violated, and which facts go together (`given`:
//! nobody burns who is not there); and lists wordings of statements with what they mean as formulas. A chain is right if
//! it comes out as the rule does for every combination of atoms that can be.
//!
//! ```toml
//! [[statement]]                       # known to every rule
//! means = "person"
//! wordings = ["{person|human} is {visible|shown}"]
//!
//! [[rule]]
//! id = "body-on-fire"
//! violated = "burning-person or burning-animal"
//! given = ["burning-person implies person", "burning-animal implies animal"]
//! [[rule.statement]]
//! means = "burning-person"
//! wordings = ["the body of a person is {on fire|burning}"]
//! ```
//!
//! Statements are looked up without case, punctuation and articles, and without `in the image` at their end; `{a|b}`
//! stands for either. What is not listed is no mistake of the chain: it is reported as [`Difference::Unknown`], for a
//! person to add or to call wrong.

mod expression;

use std::collections::{BTreeMap, BTreeSet};

use cluegate_constitution::{Precondition, Rule};
use serde::Deserialize;
use thiserror::Error;

use crate::grammar::Formula;
use expression::Expression;

/// Most atoms of a rule, those of the statements of a chain included: 65,536 combinations.
pub const MAX_ATOMS: usize = 16;

/// Most bytes of a file.
const MAX_BYTES: usize = 1 << 20;

/// Most spellings that one wording with `{a|b}` stands for.
const MAX_SPELLINGS: usize = 4096;

/// A file of truth tables that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: expected {expected}, got {came}")]
pub struct TruthError {
    place: String,
    expected: String,
    came: String,
}

impl TruthError {
    fn new(place: &str, expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self { place: place.to_owned(), expected: expected.into(), came: came.into() }
    }
}

/// How a chain differs from its rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Difference {
    /// Statements that stand in no list of wordings.
    #[error("wordings that nobody has looked at yet: {}", .0.join("; "))]
    Unknown(Vec<String>),
    /// More atoms than are tried.
    #[error("expected at most {MAX_ATOMS} atoms, got {0}")]
    TooManyAtoms(usize),
    /// A combination of facts for which the chain says something else than the rule.
    #[error(
        "the chain says {}, the rule {} where {}; {worlds} of {of} combinations differ",
        says(!expected), says(*expected), facts(world)
    )]
    Table {
        /// The first combination, each atom with whether it holds.
        world: Vec<(String, bool)>,
        /// What the rule says of it: whether it is violated.
        expected: bool,
        /// How many combinations differ.
        worlds: usize,
        /// How many there are that can be.
        of: usize,
    },
}

fn says(violated: bool) -> &'static str {
    if violated { "violated" } else { "not violated" }
}

fn facts(world: &[(String, bool)]) -> String {
    let fact = |(atom, holds): &(String, bool)| format!("{}{atom}", if *holds { "" } else { "not " });
    world.iter().map(fact).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    statement: Vec<RawStatement>,
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    violated: String,
    #[serde(default)]
    given: Vec<String>,
    #[serde(default)]
    statement: Vec<RawStatement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStatement {
    means: String,
    wordings: Vec<String>,
}

/// The truth table of one rule, and the wordings of statements over its atoms.
#[derive(Debug, Clone)]
pub struct Truth {
    id: String,
    violated: Expression,
    given: Vec<Expression>,
    wordings: BTreeMap<String, Expression>,
}

/// Reads a file of truth tables, one for each rule, in its order.
///
/// # Errors
/// What cannot be read, names nothing, contradicts itself, or gives one wording two meanings.
pub fn parse(text: &str, origin: &str) -> Result<Vec<Truth>, TruthError> {
    if text.len() > MAX_BYTES {
        return Err(TruthError::new(origin, format!("at most {MAX_BYTES} bytes"), text.len().to_string()));
    }
    let raw: RawFile = toml::from_str(text)
        .map_err(|error| TruthError::new(origin, "truth tables in TOML", error.to_string()))?;
    let shared = wordings(origin, &raw.statement)?;
    let mut ids = BTreeSet::new();
    let build = |rule: RawRule| {
        let place = format!("{origin}, rule `{}`", rule.id);
        if !ids.insert(rule.id.clone()) {
            return Err(TruthError::new(&place, "ids to differ", "it a second time"));
        }
        let read = |text: &String| Expression::parse(text).map_err(|e| e.at(&place));
        let mut wordings = wordings(&place, &rule.statement)?;
        for (wording, means) in &shared {
            wordings.entry(wording.clone()).or_insert_with(|| means.clone());
        }
        let truth = Truth {
            violated: read(&rule.violated)?,
            given: rule.given.iter().map(read).collect::<Result<_, _>>()?,
            id: rule.id,
            wordings,
        };
        truth.check(&place)?;
        Ok(truth)
    };
    raw.rule.into_iter().map(build).collect()
}

/// What each spelling means.
fn wordings(place: &str, raw: &[RawStatement]) -> Result<BTreeMap<String, Expression>, TruthError> {
    let mut all: BTreeMap<String, Expression> = BTreeMap::new();
    for statement in raw {
        let means = Expression::parse(&statement.means).map_err(|error| error.at(place))?;
        for wording in &statement.wordings {
            for spelling in spellings(wording).map_err(|error| error.at(place))? {
                let known = all.insert(normal(&spelling), means.clone());
                if known.is_some_and(|known| known != means) {
                    return Err(TruthError::new(
                        place,
                        "one meaning for each wording",
                        format!("two for {spelling:?}"),
                    ));
                }
            }
        }
    }
    Ok(all)
}

impl TruthError {
    fn at(mut self, place: &str) -> Self {
        self.place = place.to_owned();
        self
    }
}

/// Everything that a wording with `{a|b}` stands for.
fn spellings(wording: &str) -> Result<Vec<String>, TruthError> {
    let refuse = |expected: &str| TruthError::new("", expected, format!("{wording:?}"));
    let mut all = vec![String::new()];
    let mut rest = wording;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, behind) = after.split_once('}').ok_or_else(|| refuse("a } for every {"))?;
        let choices: Vec<&str> = inside.split('|').collect();
        if before.contains('}') || inside.contains('{') {
            return Err(refuse("alternatives as {a|b}, none within another"));
        }
        if all.len() * choices.len() > MAX_SPELLINGS {
            return Err(refuse(&format!("a wording of at most {MAX_SPELLINGS} spellings")));
        }
        let add = |start: &String| {
            choices.iter().map(move |choice| format!("{start}{before}{choice}")).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(add).collect();
        rest = behind;
    }
    if rest.contains('}') || wording.trim().is_empty() {
        return Err(refuse("a wording, with a { for every }"));
    }
    all.iter_mut().for_each(|spelling| spelling.push_str(rest));
    Ok(all)
}

/// What spellings of one statement have in common.
fn normal(statement: &str) -> String {
    let lower = statement.replace('’', "'").to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
    let mut words: Vec<&str> = words.filter(|word| !["a", "an", "the"].contains(word)).collect();
    if let [.., verb, "in", "image" | "picture" | "photo" | "photograph" | "scene"] = words.as_slice()
        && !["is", "are"].contains(verb)
    {
        words.truncate(words.len() - 2);
    }
    words.join(" ")
}

impl Truth {
    /// The rule's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Compares a chain, whose exception is part of it.
    ///
    /// # Errors
    /// The first difference, or what keeps both from being compared.
    pub fn compare(&self, chain: &Formula) -> Result<(), Difference> {
        let means = |statement: &String| self.wordings.get(&normal(statement));
        let unknown: BTreeSet<&str> =
            chain.statements().filter(|statement| means(&(*statement).to_owned()).is_none()).collect();
        if !unknown.is_empty() {
            return Err(Difference::Unknown(unknown.into_iter().map(str::to_owned).collect()));
        }
        let read = |chain: &[Vec<String>]| -> Vec<Vec<&Expression>> {
            chain.iter().map(|any| any.iter().filter_map(means).collect()).collect()
        };
        let (preconditions, unless) = (read(&chain.preconditions), read(&chain.unless));
        let statements = preconditions.iter().chain(&unless).flatten().copied();
        let atoms = atoms(statements.chain([&self.violated]).chain(&self.given));
        if atoms.len() > MAX_ATOMS {
            return Err(Difference::TooManyAtoms(atoms.len()));
        }
        let (mut of, mut differing, mut first) = (0, 0, None);
        for bits in 0..1_u32 << atoms.len() {
            let world = |atom: &str| {
                atoms.iter().position(|known| *known == atom).is_some_and(|at| bits >> at & 1 == 1)
            };
            if !self.given.iter().all(|given| given.holds(&world)) {
                continue;
            }
            of += 1;
            let holds = |chain: &[Vec<&Expression>]| {
                chain.iter().all(|any| any.iter().any(|statement| statement.holds(&world)))
            };
            let excepted = !unless.is_empty() && holds(&unless);
            let compiled = holds(&preconditions) && !excepted;
            let expected = self.violated.holds(&world);
            if compiled != expected {
                differing += 1;
                first.get_or_insert((bits, expected));
            }
        }
        match first {
            None => Ok(()),
            Some((bits, expected)) => {
                let fact = |(at, atom): (usize, &&str)| ((*atom).to_owned(), bits >> at & 1 == 1);
                let world = atoms.iter().enumerate().map(fact).collect();
                Err(Difference::Table { world, expected, worlds: differing, of })
            }
        }
    }

    /// Refuses a table over which nothing can be tried or whose rule says the same of every picture.
    fn check(&self, place: &str) -> Result<(), TruthError> {
        let atoms = atoms(self.given.iter().chain([&self.violated]));
        if atoms.len() > MAX_ATOMS {
            return Err(TruthError::new(
                place,
                format!("at most {MAX_ATOMS} atoms"),
                atoms.len().to_string(),
            ));
        }
        let (mut violated, mut safe) = (0_u32, 0_u32);
        for bits in 0..1_u32 << atoms.len() {
            let world = |atom: &str| {
                atoms.iter().position(|known| *known == atom).is_some_and(|at| bits >> at & 1 == 1)
            };
            if self.given.iter().all(|given| given.holds(&world)) {
                *(if self.violated.holds(&world) { &mut violated } else { &mut safe }) += 1;
            }
        }
        if violated == 0 || safe == 0 {
            let came = format!("{violated} of {} possible ones", violated + safe);
            return Err(TruthError::new(place, "some combinations to violate the rule and some not", came));
        }
        Ok(())
    }
}

/// The names in expressions, each once.
fn atoms<'a>(expressions: impl Iterator<Item = &'a Expression>) -> Vec<&'a str> {
    let mut atoms = BTreeSet::new();
    expressions.for_each(|expression| expression.atoms(&mut atoms));
    atoms.into_iter().collect()
}

/// The chain of a rule that has been built, for comparison.
pub fn chain_of(rule: &Rule) -> Formula {
    let read = |chain: &[Precondition]| {
        let link = |link: &Precondition| link.any.iter().map(|statement| statement.text.clone()).collect();
        chain.iter().map(link).collect()
    };
    Formula { preconditions: read(&rule.preconditions), unless: read(&rule.unless) }
}

#[cfg(test)]
mod tests;
