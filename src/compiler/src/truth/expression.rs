//! Formulas over atoms: `not`, `and`, `or`, `implies` in this order of strength, and parentheses.

use std::collections::BTreeSet;

use super::TruthError;

/// Parentheses and `not` within one another at most.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Atom(String),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Expression {
    pub(super) fn parse(text: &str) -> Result<Self, TruthError> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, depth: 0 };
        let refuse = |expected: &str, came: Option<&str>| {
            let came = came.map_or_else(|| "its end".to_owned(), |came| format!("`{came}`"));
            TruthError::new("", format!("{expected} in {text:?}"), came)
        };
        let parsed = parser.implication().map_err(|expected| refuse(expected, parser.next()))?;
        match parser.next() {
            None => Ok(parsed),
            Some(rest) => Err(refuse("`and`, `or`, `implies` or the end", Some(rest))),
        }
    }

    pub(super) fn holds(&self, world: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Atom(name) => world(name),
            Self::Not(inner) => !inner.holds(world),
            Self::All(all) => all.iter().all(|part| part.holds(world)),
            Self::Any(any) => any.iter().any(|part| part.holds(world)),
        }
    }

    pub(super) fn atoms<'a>(&'a self, into: &mut BTreeSet<&'a str>) {
        match self {
            Self::Atom(name) => {
                into.insert(name);
            }
            Self::Not(inner) => inner.atoms(into),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.atoms(into)),
        }
    }
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expression, &'static str>;

impl<'a> Parser<'a> {
    fn next(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.next() == Some(word);
        self.at += usize::from(there);
        there
    }

    fn implication(&mut self) -> Parsed {
        let left = self.several(
            "or",
            |parser| parser.several("and", Self::factor, Expression::All),
            Expression::Any,
        )?;
        if !self.take("implies") {
            return Ok(left);
        }
        let right = self.several(
            "or",
            |parser| parser.several("and", Self::factor, Expression::All),
            Expression::Any,
        )?;
        Ok(Expression::Any(vec![Expression::Not(Box::new(left)), right]))
    }

    fn several(
        &mut self,
        between: &str,
        mut part: impl FnMut(&mut Self) -> Parsed,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Parsed {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.take(between) {
            parts.push(part(self)?);
        }
        match (parts.pop(), parts.is_empty()) {
            (Some(only), true) => Ok(only),
            (last, _) => Ok(join(parts.into_iter().chain(last).collect())),
        }
    }

    fn factor(&mut self) -> Parsed {
        if self.depth >= MAX_DEPTH {
            return Err("fewer parentheses within one another");
        }
        if self.take("not") {
            self.depth += 1;
            let inner = self.factor();
            self.depth -= 1;
            return Ok(Expression::Not(Box::new(inner?)));
        }
        if self.take("(") {
            self.depth += 1;
            let inner = self.implication()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inner) } else { Err("`)`") };
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = self.next().filter(|word| {
            !["and", "or", "not", "implies"].contains(word)
                && word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.chars().all(allowed)
        });
        let Some(name) = name else { return Err("an atom (a-z, 0-9, -), `not` or `(`") };
        self.at += 1;
        Ok(Expression::Atom(name.to_owned()))
    }
}
