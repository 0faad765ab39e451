//! The chain of preconditions: a conjunction of disjunctions of statements, and the exception in the same form.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::repair::{unfence, unlabel, unquote};
use super::{
    AnswerError, MAX_ALTERNATIVES, MAX_LINKS, MAX_STATEMENT_CHARS, Read, Repair, check_length, shown,
};

/// Brackets within brackets at most.
const MAX_DEPTH: usize = 8;

type Chain = Vec<Vec<String>>;

/// A chain of preconditions and its exception (CLUE s 3.3, fig 10). It is printed as `[[a] or [b]] and [c]`, and what
/// is printed is read as the same formula.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formula {
    /// Each precondition as the statements of which one is enough; all of them must hold. At least one, none empty.
    pub preconditions: Vec<Vec<String>>,
    /// The exception; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unless: Vec<Vec<String>>,
}

impl Formula {
    /// Reads a formula and refuses everything that would have to be repaired, but for white space.
    ///
    /// # Errors
    /// The first place that is not in the grammar.
    pub fn parse(text: &str) -> Result<Self, AnswerError> {
        let read = Parser::read(text)?;
        match read.repairs.first() {
            None => Ok(read.value),
            Some(repair) => Err(AnswerError::new("a formula in its plain form", repair.as_str())),
        }
    }

    /// Every statement, those of the chain first.
    pub fn statements(&self) -> impl Iterator<Item = &str> {
        self.preconditions.iter().chain(&self.unless).flatten().map(String::as_str)
    }

    /// Whether every precondition can hold by what is missing alone: such a rule is broken by an empty image.
    pub fn only_denies(&self) -> bool {
        self.preconditions.iter().all(|any| any.iter().any(|statement| denies(statement)))
    }
}

/// Whether an exception consists of the word that there is none.
fn says_none(text: &str) -> bool {
    ["none", "nothing"].iter().any(|none| text.eq_ignore_ascii_case(none))
}

/// Whether a statement says that something is not there.
fn denies(statement: &str) -> bool {
    const WORDS: [&str; 6] = ["no", "not", "never", "without", "nobody", "nothing"];
    let words = statement.to_lowercase();
    words
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .any(|word| WORDS.contains(&word) || word.ends_with("n't") || word == "none" || word == "cannot")
}

fn write_chain(f: &mut fmt::Formatter<'_>, chain: &Chain) -> fmt::Result {
    for (index, any) in chain.iter().enumerate() {
        if index > 0 {
            f.write_str(" and ")?;
        }
        match any.as_slice() {
            [statement] => write!(f, "[{statement}]")?,
            several => {
                let leaves: Vec<String> = several.iter().map(|statement| format!("[{statement}]")).collect();
                write!(f, "[{}]", leaves.join(" or "))?;
            }
        }
    }
    Ok(())
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_chain(f, &self.preconditions)?;
        if !self.unless.is_empty() {
            f.write_str(" unless ")?;
            write_chain(f, &self.unless)?;
        }
        Ok(())
    }
}

/// Reads the answer to `preconditions`, with repairs (see [`Repair`]).
///
/// # Errors
/// The first place that is not in the grammar and cannot be repaired, a formula over the limits, or a chain that
/// consists of denials only.
pub fn read_preconditions(answer: &str) -> Result<Read<Formula>, AnswerError> {
    const LABELS: [&str; 5] = ["answer", "preconditions", "precondition", "formula", "output"];
    check_length(answer)?;
    let mut repairs = BTreeSet::new();
    let text = unlabel(unfence(answer, &mut repairs), &LABELS, &mut repairs);
    let text = unquote(text, &mut repairs);
    let mut read = Parser::read(text).or_else(|error| {
        let mut lines = text.lines().map(str::trim).filter(|line| line.starts_with('['));
        match (lines.next(), lines.next()) {
            (Some(line), None) if line != text => {
                repairs.insert(Repair::OtherLines);
                Parser::read(line).map_err(|_| error)
            }
            _ => Err(error),
        }
    })?;
    if read.value.only_denies() {
        return Err(AnswerError::new(
            "at least one precondition that names what is visible",
            "only statements that deny, which an empty image would fulfil",
        ));
    }
    read.repairs.extend(repairs);
    Ok(read)
}

/// What was written, before it is brought into the form of chains.
enum Node {
    Statement(String),
    All(Vec<Node>),
    Any(Vec<Node>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connective {
    And,
    Or,
}

/// A recursive descent over the characters of a text.
struct Parser<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
    repairs: BTreeSet<Repair>,
}

impl<'a> Parser<'a> {
    fn read(text: &'a str) -> Result<Read<Formula>, AnswerError> {
        check_length(text)?;
        let mut parser = Self { text, at: 0, repairs: BTreeSet::new() };
        let chain = parser.expression(0)?;
        let preconditions = parser.chain(chain)?;
        let mut unless = Vec::new();
        if parser.word("unless") {
            let start = parser.at;
            if parser.empty_exception() {
                parser.repairs.insert(Repair::EmptyException);
            } else {
                parser.at = start;
                let chain = parser.expression(0)?;
                unless = parser.chain(chain)?;
                if unless.iter().flatten().all(|statement| says_none(statement)) {
                    parser.repairs.insert(Repair::EmptyException);
                    unless.clear();
                }
            }
        }
        parser.skip_space();
        if parser.rest() == "." {
            parser.repairs.insert(Repair::FullStop);
        } else if !parser.rest().is_empty() {
            return Err(parser.error("`and`, `or`, `unless` or the end"));
        }
        Ok(Read { value: Formula { preconditions, unless }, repairs: parser.repairs })
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(&self, expected: &str) -> AnswerError {
        let came = if self.rest().is_empty() { "the end".to_owned() } else { shown(self.rest()) };
        AnswerError::new(expected, came).at(self.text.get(..self.at).unwrap_or_default().chars().count() + 1)
    }

    /// Takes a character if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        let there = self.rest().starts_with(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }

    /// Takes a word, whatever its case, if it comes next and ends there.
    fn word(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let rest = self.rest();
        let Some(found) = rest.get(..wanted.len()).filter(|found| found.eq_ignore_ascii_case(wanted)) else {
            return false;
        };
        let ends = rest[found.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric());
        if ends {
            if found != wanted {
                self.repairs.insert(Repair::Words);
            }
            self.at += wanted.len();
        }
        ends
    }

    /// Whether an exception says that there is none, up to the end.
    fn empty_exception(&mut self) -> bool {
        self.skip_space();
        let rest = self.rest().trim_end_matches(['.', ' ', '\n']);
        let found = says_none(rest) || rest == "[]";
        if found {
            self.at = self.text.len();
        }
        found
    }

    /// Items joined by one connective, up to a closing bracket, `unless` or the end.
    fn expression(&mut self, depth: usize) -> Result<Node, AnswerError> {
        let mut items = vec![self.item(depth)?];
        let mut joined: Option<Connective> = None;
        loop {
            let before = self.at;
            let next = match (self.word("and"), self.word("or")) {
                (true, _) => Connective::And,
                (_, true) => Connective::Or,
                _ => break,
            };
            if joined.is_some_and(|joined| joined != next) {
                self.at = before;
                self.skip_space();
                return Err(self.error("brackets around the statements of which one is enough"));
            }
            joined = Some(next);
            if items.len() >= MAX_LINKS.max(MAX_ALTERNATIVES) {
                return Err(self.error(&format!("at most {MAX_LINKS} parts")));
            }
            items.push(self.item(depth)?);
        }
        Ok(match joined {
            None => items.swap_remove(0),
            Some(Connective::And) => {
                if depth > 0 {
                    self.repairs.insert(if depth == 1 { Repair::OuterBrackets } else { Repair::Nesting });
                }
                Node::All(items)
            }
            Some(Connective::Or) => {
                if depth == 0 {
                    self.repairs.insert(Repair::OuterBrackets);
                } else if depth > 1 {
                    self.repairs.insert(Repair::Nesting);
                }
                Node::Any(items)
            }
        })
    }

    /// A statement in brackets, or an expression in brackets.
    fn item(&mut self, depth: usize) -> Result<Node, AnswerError> {
        if !self.take('[') {
            return Err(self.error("a statement in brackets, such as [a dog is visible]"));
        }
        self.skip_space();
        if !self.rest().starts_with('[') {
            return self.statement().map(Node::Statement);
        }
        if depth >= MAX_DEPTH {
            return Err(self.error(&format!("at most {MAX_DEPTH} brackets within one another")));
        }
        let inner = self.expression(depth + 1)?;
        if !self.take(']') {
            // Only where nothing follows is it plain where the bracket belongs.
            let cut = self.rest().is_empty() && !self.repairs.contains(&Repair::ClosingBracket);
            if !cut {
                return Err(self.error("`or`, `and` or a closing bracket"));
            }
            self.repairs.insert(Repair::ClosingBracket);
        }
        if depth > 0 && matches!(inner, Node::Statement(_)) {
            self.repairs.insert(Repair::Nesting);
        }
        Ok(inner)
    }

    /// The text of a statement and its closing bracket.
    fn statement(&mut self) -> Result<String, AnswerError> {
        let start = self.at;
        let Some(length) = self.rest().find(['[', ']']) else {
            return Err(self.error("a statement and its closing bracket"));
        };
        let written = &self.rest()[..length];
        self.at += length;
        if !self.take(']') {
            return Err(self.error("a statement without brackets in it"));
        }
        let end = std::mem::replace(&mut self.at, start);
        let refuse = |parser: &Self, what: &str| Err(parser.error(what));
        let mut text = unquote(written, &mut self.repairs);
        if let Some(rest) = text.strip_suffix('.') {
            self.repairs.insert(Repair::FullStop);
            text = rest.trim_end_matches(['.', ' ']);
        }
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !text.chars().any(char::is_alphanumeric) {
            return refuse(self, "a statement, such as \"a dog is visible\"");
        }
        if text.chars().count() > MAX_STATEMENT_CHARS {
            return refuse(self, &format!("a statement of at most {MAX_STATEMENT_CHARS} characters"));
        }
        if text.contains(". ") || text.ends_with('.') || text.chars().any(char::is_control) {
            return refuse(self, "one statement without a full stop");
        }
        self.at = end;
        Ok(text)
    }

    /// Brings what was written into a conjunction of disjunctions.
    fn chain(&mut self, node: Node) -> Result<Chain, AnswerError> {
        let links = self.clauses(node)?;
        let mut chain: Chain = Vec::with_capacity(links.len());
        for mut link in links {
            let before = link.len();
            let mut seen = BTreeSet::new();
            link.retain(|statement| seen.insert(statement.clone()));
            if before != link.len() {
                self.repairs.insert(Repair::Duplicate);
            }
            if chain.contains(&link) {
                self.repairs.insert(Repair::Duplicate);
            } else {
                chain.push(link);
            }
        }
        Ok(chain)
    }

    fn clauses(&mut self, node: Node) -> Result<Chain, AnswerError> {
        let too_many =
            |what: &str, most: usize| Err(AnswerError::new(format!("at most {most} {what}"), "more of them"));
        let clauses = match node {
            Node::Statement(text) => vec![vec![text]],
            Node::All(items) => {
                let mut all = Vec::new();
                for item in items {
                    all.extend(self.clauses(item)?);
                }
                all
            }
            Node::Any(items) => {
                let mut product: Chain = vec![Vec::new()];
                for item in items {
                    let item = self.clauses(item)?;
                    if item.len() > 1 {
                        self.repairs.insert(Repair::Distributed);
                    }
                    if product.len() * item.len() > MAX_LINKS {
                        return too_many("preconditions", MAX_LINKS);
                    }
                    product = product
                        .iter()
                        .flat_map(|left| item.iter().map(|right| [left.as_slice(), right].concat()))
                        .collect();
                }
                product
            }
        };
        if clauses.len() > MAX_LINKS {
            return too_many("preconditions", MAX_LINKS);
        }
        if clauses.iter().any(|any| any.len() > MAX_ALTERNATIVES) {
            return too_many("statements of which one is enough", MAX_ALTERNATIVES);
        }
        Ok(clauses)
    }
}

#[cfg(test)]
mod tests;
