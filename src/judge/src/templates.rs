//! The prompts: three files with at most one variable, `statement`.
//!
//! The files are MiniJinja templates as far as they go, but are rendered by plain substitution: what a constitution
//! says is data, and braces in it stay braces. A file that uses more of the language than the one variable is refused
//! instead of being shown to the model as it stands.

use std::path::Path;
use std::sync::Arc;

use cluegate_perception::Picture;
use cluegate_perception::Prefix;
use thiserror::Error;

/// Put into the model's mouth in the second turn, so that the next token is the rating.
pub(crate) const RATING_START: &str = "{\"rating\": \"";

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The variable is missing or there twice.
    #[error(
        "template {name}: expected {{{{ statement }}}} {expected}, got it {came} times; correct the file"
    )]
    Placeholder {
        /// Which template.
        name: String,
        /// How often it is expected.
        expected: &'static str,
        /// How often it is there.
        came: usize,
    },
    /// Another variable, a block or a comment.
    #[error(
        "template {name}: expected no other template syntax than {{{{ statement }}}}, got {came:?}; write plain text"
    )]
    Syntax {
        /// Which template.
        name: String,
        /// What came.
        came: String,
    },
    /// A template without text.
    #[error("template {name}: expected a prompt, got a blank file")]
    Blank {
        /// Which template.
        name: String,
    },
    /// A file that cannot be read.
    #[error("template {name}: expected a text file, got: {problem}")]
    Unreadable {
        /// Which template.
        name: String,
        /// What the system said.
        problem: String,
    },
}

/// One template, cut at its placeholder. White space before the placeholder belongs to the suffix: byte-level
/// tokenizers join a space with the word after it, so that prefix and suffix can be tokenised apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    before: Arc<str>,
    gap: String,
    /// What follows the placeholder; none if there is no placeholder.
    after: Option<String>,
    hash: blake3::Hash,
}

impl Template {
    fn parse(name: &str, text: &str, placeholder_required: bool) -> Result<Self, TemplateError> {
        // As MiniJinja does, one line break at the end of the file is not part of the prompt.
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.trim().is_empty() {
            return Err(TemplateError::Blank { name: name.to_owned() });
        }
        let hash = blake3::hash(text.as_bytes());
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = cut_at_placeholder(rest) {
            pieces.push(before);
            rest = after;
        }
        pieces.push(rest);
        for piece in &pieces {
            if let Some(at) = ["{{", "{%", "{#", "}}", "%}", "#}"].iter().filter_map(|s| piece.find(s)).min()
            {
                let came = piece[at..].chars().take(20).collect();
                return Err(TemplateError::Syntax { name: name.to_owned(), came });
            }
        }
        match pieces.as_slice() {
            [before, after] => {
                let trimmed = before.trim_end();
                let gap = before[trimmed.len()..].to_owned();
                Ok(Self { before: trimmed.into(), gap, after: Some((*after).to_owned()), hash })
            }
            [whole] if !placeholder_required => {
                Ok(Self { before: (*whole).into(), gap: String::new(), after: None, hash })
            }
            _ => {
                let expected = if placeholder_required { "once" } else { "at most once" };
                Err(TemplateError::Placeholder { name: name.to_owned(), expected, came: pieces.len() - 1 })
            }
        }
    }

    fn suffix(&self, statement: &str) -> String {
        match &self.after {
            Some(after) => format!("{}{statement}{after}", self.gap),
            None => String::new(),
        }
    }
}

/// Text before and after the first `{{ statement }}`, with or without spaces inside the braces.
fn cut_at_placeholder(text: &str) -> Option<(&str, &str)> {
    text.match_indices("{{").find_map(|(start, _)| {
        let inside = text[start + 2..].trim_start().strip_prefix("statement")?;
        let after = inside.trim_start().strip_prefix("}}")?;
        Some((&text[..start], after))
    })
}

/// The prompts of the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    statement: Template,
    reasoning: Template,
    rating: Template,
}

impl Templates {
    /// Names of the files, as [`Templates::load`] looks for them.
    pub const FILES: [&'static str; 3] = ["statement.txt", "reasoning.txt", "rating.txt"];

    /// The prompts that come with the program, on which the embedded models were trained.
    ///
    /// # Errors
    /// None in practice: a test parses them.
    pub fn shipped() -> Result<Self, TemplateError> {
        Self::parse(
            include_str!("../templates/statement.txt"),
            include_str!("../templates/reasoning.txt"),
            include_str!("../templates/rating.txt"),
        )
    }

    /// Prompts from their texts: the yes/no question, the first turn of the reasoning (each with `{{ statement }}`
    /// once), and its second turn (with it at most once).
    ///
    /// # Errors
    /// A text that is blank, lacks the variable, or uses other template syntax.
    pub fn parse(statement: &str, reasoning: &str, rating: &str) -> Result<Self, TemplateError> {
        Ok(Self {
            statement: Template::parse(Self::FILES[0], statement, true)?,
            reasoning: Template::parse(Self::FILES[1], reasoning, true)?,
            rating: Template::parse(Self::FILES[2], rating, false)?,
        })
    }

    /// Prompts from a folder that holds any of [`Templates::FILES`]; the shipped ones for those that it lacks.
    ///
    /// # Errors
    /// As [`Templates::parse`], or a file that is there but cannot be read.
    pub fn load(folder: &Path) -> Result<Self, TemplateError> {
        let text = |name: &str, shipped: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => {
                Ok(shipped.to_owned())
            }
            Err(error) => {
                Err(TemplateError::Unreadable { name: name.to_owned(), problem: error.to_string() })
            }
        };
        Self::parse(
            &text(Self::FILES[0], include_str!("../templates/statement.txt"))?,
            &text(Self::FILES[1], include_str!("../templates/reasoning.txt"))?,
            &text(Self::FILES[2], include_str!("../templates/rating.txt"))?,
        )
    }

    /// Hash of all prompts, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for template in [&self.statement, &self.reasoning, &self.rating] {
            hasher.update(template.hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Hash of the yes/no question alone, on which `M(None, c)` depends.
    pub(crate) fn statement_hash(&self) -> String {
        self.statement.hash.to_hex().to_string()
    }

    /// The shared beginning of every yes/no question about `picture`, or about none.
    pub fn statement_prefix(&self, picture: Option<Picture>) -> Prefix {
        Prefix { picture, text: self.statement.before.clone() }
    }

    /// What follows the prefix for `statement`.
    pub fn statement_suffix(&self, statement: &str) -> String {
        self.statement.suffix(statement)
    }

    /// The shared beginning of every reasoning about `picture`.
    pub fn reasoning_prefix(&self, picture: Picture) -> Prefix {
        Prefix { picture: Some(picture), text: self.reasoning.before.clone() }
    }

    /// What follows the prefix for `statement`.
    pub fn reasoning_suffix(&self, statement: &str) -> String {
        self.reasoning.suffix(statement)
    }

    /// The second turn of the reasoning.
    pub fn rating(&self, statement: &str) -> String {
        format!("{}{}", self.rating.before, self.rating.suffix(statement))
    }

    /// The statement inside a suffix that these templates made, for the fakes.
    #[cfg(any(test, feature = "fakes"))]
    pub(crate) fn statement_of<'a>(&self, prefix: &Prefix, suffix: &'a str) -> Option<&'a str> {
        [&self.statement, &self.reasoning].into_iter().find_map(|template| {
            if template.before != prefix.text {
                return None;
            }
            suffix.strip_prefix(template.gap.as_str())?.strip_suffix(template.after.as_deref()?)
        })
    }
}
