//! What a model may answer to each prompt, how that is read, and what is repaired.
//!
//! Every answer has a grammar of its own. A reader gives the value together with the repairs that it made, or an
//! [`AnswerError`] that names the place and what was expected there; that sentence is told to the model when it is asked
//! once more.
//!
//! ```text
//! objectiveness   free text, then one last line `Rating: N`, N from 1 to 10          formula.rs  the chain of preconditions
//! revise          free text, then one last line `Rule: <one sentence>`               lines.rs    the other three
//! preconditions   formula = chain [ "unless" chain ]                                 repair.rs   what is taken off around them
//!                 chain   = link { "and" link }
//!                 link    = statement | "[" statement { "or" statement } "]"
//!                 statement = "[" text without brackets, full stop and line break "]"
//! central         words with commas between them, or `none`
//! ```

mod formula;
mod lines;
mod repair;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use formula::{Formula, read_preconditions};
pub use lines::{CentralWords, Rating, Revised, read_central, read_rating, read_revision};

/// Longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 16 << 10;
/// Longest statement, in characters.
pub const MAX_STATEMENT_CHARS: usize = 200;
/// Longest rule, in characters.
pub const MAX_RULE_CHARS: usize = 600;
/// Most preconditions of a chain.
pub const MAX_LINKS: usize = 32;
/// Most statements of a precondition.
pub const MAX_ALTERNATIVES: usize = 32;
/// Most central words of a statement.
pub const MAX_CENTRAL: usize = 8;
/// Longest central word, in characters.
pub const MAX_CENTRAL_CHARS: usize = 48;

/// What was mended in an answer whose form was nearly right. No repair changes what an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// A code fence around the answer was removed.
    CodeFence,
    /// Words such as `Answer:` before the answer were removed.
    Label,
    /// Quotation marks or markup around the answer or a part of it were removed.
    Quotes,
    /// A full stop at the end was removed, or the missing one of a rule added.
    FullStop,
    /// Other lines around the one line that has the asked form were left out.
    OtherLines,
    /// Brackets around a whole chain were removed, or the missing ones around its only link added.
    OuterBrackets,
    /// The last closing bracket was missing.
    ClosingBracket,
    /// Brackets without effect within others were removed.
    Nesting,
    /// Statements that hold together were one of several alternatives; the chain was multiplied out.
    Distributed,
    /// A statement, precondition or word that was there twice was left out.
    Duplicate,
    /// An exception that says that there is none was left out.
    EmptyException,
    /// The scale after a rating (`9/10`) was left out.
    Scale,
    /// Articles and bullets before central words were removed, capitals made small.
    Words,
}

impl Repair {
    /// What was done, for reviews.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CodeFence => "removed a code fence",
            Self::Label => "removed a label before the answer",
            Self::Quotes => "removed quotation marks or markup",
            Self::FullStop => "mended a full stop",
            Self::OtherLines => "left out other lines",
            Self::OuterBrackets => "mended the outer brackets",
            Self::ClosingBracket => "added the last closing bracket",
            Self::Nesting => "removed brackets without effect",
            Self::Distributed => "multiplied the chain out",
            Self::Duplicate => "left out what was there twice",
            Self::EmptyException => "left out an empty exception",
            Self::Scale => "left out the scale of a rating",
            Self::Words => "removed articles, bullets or capitals",
        }
    }
}

/// An answer that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// What it says.
    pub value: T,
    /// What was mended.
    pub repairs: BTreeSet<Repair>,
}

/// Why an answer cannot be read: what was expected, what came, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected {expected}, got {came}{}", at.map(|at| format!(" at character {at}")).unwrap_or_default())]
pub struct AnswerError {
    /// Position in the answer, in characters from 1, where one can be named.
    pub at: Option<usize>,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
}

impl AnswerError {
    pub(crate) fn new(expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self { at: None, expected: expected.into(), came: came.into() }
    }

    pub(crate) fn at(mut self, at: usize) -> Self {
        self.at = Some(at);
        self
    }
}

/// The beginning of a text in quotation marks, for messages.
pub(crate) fn shown(text: &str) -> String {
    const CHARS: usize = 80;
    let short: String = text.chars().take(CHARS).collect();
    if text.chars().nth(CHARS).is_some() { format!("{short:?}...") } else { format!("{short:?}") }
}

fn check_length(answer: &str) -> Result<(), AnswerError> {
    if answer.len() > MAX_ANSWER_BYTES {
        let came = format!("{} bytes", answer.len());
        return Err(AnswerError::new(format!("an answer of at most {MAX_ANSWER_BYTES} bytes"), came));
    }
    Ok(())
}
