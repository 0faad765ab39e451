//! Where in the file something stands.

use serde::Serialize;
use toml::de::{DeTable, DeValue};

use super::{Chain, Subject};

/// A part of a text; lines and columns count from 1, columns in Unicode characters, and the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Region {
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line of the end.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
}

/// The text of a constitution file, in which the parts of its rules can be found again.
#[derive(Debug)]
pub struct SourceMap<'a> {
    text: &'a str,
    tree: DeTable<'a>,
}

/// A step into a tree of TOML values.
enum Step {
    Key(&'static str),
    Item(usize),
}

impl<'a> SourceMap<'a> {
    /// A map of `text`; none if that is not TOML.
    pub fn new(text: &'a str) -> Option<Self> {
        let tree = DeTable::parse(text).ok()?.into_inner();
        Some(Self { text, tree })
    }

    /// Where `subject` stands; none if the text has no such part.
    pub fn region(&self, subject: Subject) -> Option<Region> {
        use Step::{Item, Key};
        let mut path = vec![Key("rule"), Item(subject.rule())];
        let link = |chain: Chain, link| [Key(chain.as_str()), Item(link)];
        match subject {
            Subject::Rule(_) => path.push(Key("id")),
            Subject::Text(_) => path.push(Key("text")),
            Subject::Objectiveness(_) => path.push(Key("objectiveness")),
            Subject::Link(_, chain, index) => path.extend(link(chain, index).into_iter().chain([Key("any")])),
            Subject::Statement(_, chain, index, statement) => {
                path.extend(link(chain, index));
                path.extend([Key("any"), Item(statement), Key("statement")]);
            }
        }
        let (first, rest) = path.split_first()?;
        let Key(first) = first else { return None };
        let mut value = self.tree.get(*first)?;
        for step in rest {
            value = match (step, value.get_ref()) {
                (Key(key), DeValue::Table(table)) => table.get(*key)?,
                (Item(index), DeValue::Array(items)) => items.get(*index)?,
                _ => return None,
            };
        }
        let span = value.span();
        let ((line, column), (end_line, end_column)) = (self.position(span.start), self.position(span.end));
        Some(Region { line, column, end_line, end_column })
    }

    /// Line and column of a byte offset.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}
