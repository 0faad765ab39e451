//! From prose to rules, by rules and without a model.
//!
//! - **List items** are rules, whatever they say. A line that ends with a colon introduces the list below it; if it speaks
//!   of what should or should not be, it is put before each item that does not.
//! - **Sentences** of paragraphs are rules if they say what should, must or may not be. A sentence in words that are not
//!   English is kept, for nothing here can tell.
//! - A sentence or item that only **qualifies** ("This does not apply to ...", "Except ...", "However ...") belongs to the
//!   rule before it.
//! - Everything else is **left out** and listed with the reason: headings, introductions, code, tables, rules that are there
//!   twice.

use serde::Serialize;
use thiserror::Error;

use crate::text::{plain_words, sentences};

/// Longest prose that is read, in bytes.
pub const MAX_PROSE_BYTES: usize = 1 << 20;
/// Most rules of one prose.
pub const MAX_RULES: usize = 2000;

/// A rule as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The text on one line, what qualifies it included.
    pub text: String,
    /// Its first line in the prose, counted from 1.
    pub line: usize,
}

/// A part of the prose that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The text on one line.
    pub text: String,
    /// Its first line in the prose, counted from 1.
    pub line: usize,
    /// Why it is no rule.
    pub reason: &'static str,
}

/// Prose taken apart. Every word of it is in a rule or in what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Split {
    /// The rules, in their order.
    pub rules: Vec<Source>,
    /// What is no rule, in its order.
    pub left_out: Vec<LeftOut>,
}

/// Prose of which nothing can be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProseError {
    /// Nothing but white space.
    #[error("expected rules in prose, got an empty text; write one rule a line, or a list")]
    Empty,
    /// Over [`MAX_PROSE_BYTES`].
    #[error(
        "expected prose of at most {MAX_PROSE_BYTES} bytes, got {bytes}; split it over several constitutions"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Over [`MAX_RULES`].
    #[error("expected at most {MAX_RULES} rules, got {rules}; split them over several constitutions")]
    TooManyRules {
        /// How many were found.
        rules: usize,
    },
    /// There is text, and no rule in it.
    #[error(
        "expected at least one rule, a list item or a sentence that says what should not be shown, got none; left out: {left_out}"
    )]
    NoRules {
        /// The first parts that were left out, with line and reason.
        left_out: String,
    },
}

const HEADING: &str = "a heading";
const INTRODUCTION: &str = "introduces the list below it";
const NO_RULE: &str = "says of nothing that it should or should not be shown";
const QUALIFIES_NOTHING: &str = "qualifies a rule, and there is none before it";
const CODE: &str = "a block of code, a comment or a separator";
const TABLE: &str = "a row of a table; write it as a sentence";
const TWICE: &str = "the same rule is there before";
const BLANK: &str = "without words";

/// Takes prose apart.
///
/// # Errors
/// [`ProseError`]; what is no rule is listed instead.
pub fn split(prose: &str) -> Result<Split, ProseError> {
    if prose.len() > MAX_PROSE_BYTES {
        return Err(ProseError::TooLong { bytes: prose.len() });
    }
    if prose.trim().is_empty() {
        return Err(ProseError::Empty);
    }
    let mut splitter = Splitter::default();
    for block in blocks(prose) {
        splitter.block(block);
    }
    let mut split = splitter.split;
    leave_out_copies(&mut split);
    if split.rules.is_empty() {
        let shown = split.left_out.iter().take(3);
        let shown = shown.map(|part| format!("line {}: {}", part.line, part.reason)).collect::<Vec<_>>();
        return Err(ProseError::NoRules { left_out: shown.join("; ") });
    }
    if split.rules.len() > MAX_RULES {
        return Err(ProseError::TooManyRules { rules: split.rules.len() });
    }
    Ok(split)
}

fn leave_out_copies(split: &mut Split) {
    let mut seen = std::collections::HashSet::new();
    let rules = std::mem::take(&mut split.rules);
    for rule in rules {
        if seen.insert(plain_words(&rule.text)) {
            split.rules.push(rule);
        } else {
            split.left_out.push(LeftOut { text: rule.text, line: rule.line, reason: TWICE });
        }
    }
    split.left_out.sort_by_key(|part| part.line);
}

/// What stands together in the prose.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Item,
    Paragraph,
    Heading,
    Other(&'static str),
}

#[derive(Debug)]
struct Block {
    kind: Kind,
    text: String,
    line: usize,
}

/// The prose as list items, paragraphs, headings and what is neither.
fn blocks(prose: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    // Whether the next plain line goes on with the last block.
    let mut open = false;
    let mut fence = false;
    let mut comment = false;
    for (index, raw) in prose.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = raw.trim().trim_start_matches('>').trim();
        let number = index + 1;
        let block = |kind: Kind, text: &str| Block { kind, text: text.to_owned(), line: number };
        let fences = line.starts_with("```") || line.starts_with("~~~");
        comment |= line.starts_with("<!--");
        if fences || fence || comment {
            fence ^= fences;
            comment &= !line.contains("-->");
            if !line.is_empty() {
                blocks.push(block(Kind::Other(CODE), line));
            }
            open = false;
        } else if line.is_empty() {
            open = false;
        } else if line.chars().all(|c| matches!(c, '-' | '=' | '*' | '_' | '#')) && line.len() >= 3 {
            match blocks.last_mut() {
                // Underlined: a heading.
                Some(last) if open && last.kind == Kind::Paragraph => last.kind = Kind::Heading,
                _ => blocks.push(block(Kind::Other(CODE), line)),
            }
            open = false;
        } else if line.starts_with('#') {
            blocks.push(block(Kind::Heading, line.trim_start_matches('#').trim()));
            open = false;
        } else if line.starts_with('|') && line.ends_with('|') {
            blocks.push(block(Kind::Other(TABLE), line));
            open = false;
        } else if let Some(item) = item(line) {
            blocks.push(block(Kind::Item, item));
            open = true;
        } else if open && let Some(last) = blocks.last_mut() {
            last.text.push(' ');
            last.text.push_str(line);
        } else {
            blocks.push(block(Kind::Paragraph, line));
            open = true;
        }
    }
    blocks
}

/// The text of a list item without its mark; `None` for other lines.
fn item(line: &str) -> Option<&str> {
    for bullet in ["-", "*", "+", "\u{2022}", "\u{2013}", "\u{2014}", "\u{00b7}"] {
        if let Some(rest) = line.strip_prefix(bullet)
            && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            return Some(rest.trim());
        }
    }
    let open = line.strip_prefix('(').unwrap_or(line);
    let end = open.find(|c: char| !c.is_ascii_alphanumeric() && c != '.')?;
    let (mark, rest) = open.split_at(end);
    let (mark, closed) = match (mark.strip_suffix('.'), rest.strip_prefix(')')) {
        (None, Some(rest)) => (mark, rest),
        (Some(mark), None) => (mark, rest),
        _ => return None,
    };
    let number =
        mark.split('.').all(|part| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()));
    let letter =
        mark.len() == 1 && mark.bytes().all(|b| b.is_ascii_alphabetic()) && mark != "I" && mark != "A";
    ((number || letter) && closed.starts_with(char::is_whitespace)).then(|| closed.trim())
}

#[derive(Default)]
struct Splitter {
    split: Split,
    /// The beginning that each item of the list gets, and the place of its line in what was left out.
    lead: Option<String>,
    /// Whether the rule before may still be qualified: no heading stands between.
    qualifiable: bool,
}

impl Splitter {
    fn leave(&mut self, text: &str, line: usize, reason: &'static str) {
        self.split.left_out.push(LeftOut { text: text.to_owned(), line, reason });
    }

    fn rule(&mut self, text: String, line: usize) {
        self.split.rules.push(Source { text, line });
        self.qualifiable = true;
    }

    /// Adds what only qualifies to the rule before.
    fn qualify(&mut self, text: &str, line: usize) {
        match self.split.rules.last_mut().filter(|_| self.qualifiable) {
            Some(rule) => {
                rule.text.push(' ');
                rule.text.push_str(text);
            }
            None => self.leave(text, line, QUALIFIES_NOTHING),
        }
    }

    fn block(&mut self, block: Block) {
        let text = unmarked(&block.text);
        let line = block.line;
        match block.kind {
            Kind::Other(reason) => self.leave(&block.text, line, reason),
            Kind::Heading => {
                self.leave(&text, line, HEADING);
                self.lead = None;
                self.qualifiable = false;
            }
            Kind::Item => self.item(&text, line),
            Kind::Paragraph => self.paragraph(&text, line),
        }
    }

    fn item(&mut self, text: &str, line: usize) {
        if !text.chars().any(char::is_alphanumeric) {
            self.leave(text, line, BLANK);
        } else if let Some(lead) = text.strip_suffix(':') {
            self.introduce(text, lead, line);
        } else if qualifies(text) && self.qualifiable {
            self.qualify(text, line);
        } else {
            let lead = self.lead.as_ref().filter(|_| !is_normative(text));
            let text = lead.map_or_else(|| text.to_owned(), |lead| format!("{lead} {text}"));
            self.rule(text, line);
        }
    }

    /// A line that ends with a colon.
    fn introduce(&mut self, text: &str, lead: &str, line: usize) {
        self.lead = is_normative(lead).then(|| lead.trim_end().to_owned());
        self.leave(text, line, INTRODUCTION);
    }

    fn paragraph(&mut self, text: &str, line: usize) {
        self.lead = None;
        if is_heading(text) {
            self.leave(text, line, HEADING);
            self.qualifiable = false;
            return;
        }
        for sentence in sentences(text) {
            if !sentence.chars().any(char::is_alphanumeric) {
                self.leave(sentence, line, BLANK);
            } else if let Some(lead) = sentence.strip_suffix(':') {
                self.introduce(sentence, lead, line);
            } else if qualifies(sentence) {
                self.qualify(sentence, line);
            } else if is_normative(sentence) || !is_english(sentence) {
                self.rule(sentence.to_owned(), line);
            } else {
                self.leave(sentence, line, NO_RULE);
            }
        }
    }
}

/// A text on one line without the marks of Markdown for bold and code.
fn unmarked(text: &str) -> String {
    let bare = text.replace("**", "").replace("__", "").replace('`', "");
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A short line in capitals or without a verb of rules and without an end.
fn is_heading(text: &str) -> bool {
    const WORDS: usize = 8;
    let ends = text.ends_with(['.', '!', '?', ':', ';', ',', '\u{3002}']);
    let short = text.split_whitespace().count() <= WORDS;
    let shouted = text.chars().any(char::is_alphabetic) && text == text.to_uppercase() && text.is_ascii();
    short && !ends && (shouted || (is_english_or_title(text) && !is_normative(text)))
}

/// Whether a line without an end can be told to be a title: in letters of Latin scripts.
fn is_english_or_title(text: &str) -> bool {
    text.chars().all(|c| !c.is_alphabetic() || c.is_ascii())
}

/// Words of English rules.
fn is_normative(text: &str) -> bool {
    const WORDS: [&str; 46] = [
        "should",
        "must",
        "may",
        "not",
        "no",
        "never",
        "cannot",
        "shall",
        "forbid",
        "forbids",
        "forbidden",
        "prohibit",
        "prohibits",
        "prohibited",
        "ban",
        "bans",
        "banned",
        "disallow",
        "disallowed",
        "avoid",
        "block",
        "blocked",
        "reject",
        "rejected",
        "refuse",
        "refused",
        "remove",
        "removed",
        "without",
        "only",
        "allowed",
        "permitted",
        "unacceptable",
        "inappropriate",
        "violation",
        "violate",
        "violates",
        "exclude",
        "excluded",
        "ought",
        "don't",
        "mustn't",
        "shouldn't",
        "can't",
        "stop",
        "deny",
    ];
    plain_words(text).split(' ').any(|word| WORDS.contains(&word))
}

/// Whether a text has words by which it can be told to be English.
pub(crate) fn in_english(text: &str) -> bool {
    is_english(text) || is_normative(text)
}

/// Whether a text has words that only English has, so that the lack of words of rules says something.
fn is_english(text: &str) -> bool {
    const WORDS: [&str; 22] = [
        "the",
        "and",
        "of",
        "this",
        "these",
        "those",
        "we",
        "our",
        "is",
        "are",
        "with",
        "for",
        "from",
        "following",
        "you",
        "your",
        "that",
        "it",
        "they",
        "all",
        "to",
        "by",
    ];
    plain_words(text).split(' ').any(|word| WORDS.contains(&word))
}

/// Whether a sentence only says something about the rule before it.
fn qualifies(text: &str) -> bool {
    const STARTS: [&str; 37] = [
        "this does not",
        "this doesn't",
        "this rule",
        "this applies",
        "this includes",
        "this also",
        "this is",
        "this covers",
        "this excludes",
        "this means",
        "these are",
        "that is",
        "that includes",
        "it does not",
        "it applies",
        "it includes",
        "it is also",
        "except",
        "exception",
        "exceptions",
        "exempt",
        "exempted",
        "unless",
        "however",
        "but",
        "only if",
        "also",
        "the same applies",
        "the same goes",
        "in particular",
        "for example",
        "such pictures",
        "such images",
        "the exception",
        "excluded are",
        "not meant are",
        "allowed are",
    ];
    let words = plain_words(text);
    STARTS
        .iter()
        .any(|start| words.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
        || [
            "is allowed",
            "are allowed",
            "is fine",
            "are fine",
            "is permitted",
            "are permitted",
            "is acceptable",
            "are acceptable",
        ]
        .iter()
        .any(|end| words.ends_with(end))
}

#[cfg(test)]
mod tests;
