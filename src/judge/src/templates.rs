//! The prompts: files with at most one variable each, `statement` or `prompt`.
//!
//! A consequence rule asks in two turns: first the model projects what is likely to follow from the picture
//! (`consequences.txt`), then each statement is asked behind that ([`Projection`]). `M(None, c)` has the same form, so
//! that both differ in nothing but what is to be measured: no picture, unknown words, and a fixed projection that says
//! nothing (`consequences-neutral.txt`). Were the projection of the picture put there, the prior would know the picture,
//! and what it says would cancel out of `M(x, c) - M(None, c)`; were one decoded without a picture, the prior would rest
//! on what a model makes up or refuses. A fixed one is asked once for each model and statement, and kept.
//!
//! The files are MiniJinja templates as far as they go, but are rendered by plain substitution: what a constitution
//! says is data, and braces in it stay braces. A file that uses more of the language than the one variable is refused
//! instead of being shown to the model as it stands.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use cluegate_perception::{Picture, Prefix, Prompt, Reply};
use thiserror::Error;

/// Put into the model's mouth in the second turn, so that the next token is the rating.
pub(crate) const RATING_START: &str = "{\"rating\": \"";

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The variable is missing or there twice.
    #[error(
        "template {name}: expected {{{{ {variable} }}}} {expected}, got it {came} times; correct the file"
    )]
    Placeholder {
        /// Which template.
        name: String,
        /// The variable.
        variable: &'static str,
        /// How often it is expected.
        expected: &'static str,
        /// How often it is there.
        came: usize,
    },
    /// Another variable, a block or a comment.
    #[error("template {name}: expected {expected}, got {came:?}; write plain text")]
    Syntax {
        /// Which template.
        name: String,
        /// The template syntax that may be there.
        expected: String,
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

/// The variable of a template, and how often it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Once(&'static str),
    AtMostOnce(&'static str),
    None,
}

impl Variable {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Once(name) | Self::AtMostOnce(name) => Some(name),
            Self::None => None,
        }
    }
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
    fn parse(name: &str, text: &str, variable: Variable) -> Result<Self, TemplateError> {
        // As MiniJinja does, one line break at the end of the file is not part of the prompt.
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.trim().is_empty() {
            return Err(TemplateError::Blank { name: name.to_owned() });
        }
        let hash = blake3::hash(text.as_bytes());
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = variable.name().and_then(|name| cut_at_placeholder(rest, name)) {
            pieces.push(before);
            rest = after;
        }
        pieces.push(rest);
        for piece in &pieces {
            if let Some(at) = ["{{", "{%", "{#", "}}", "%}", "#}"].iter().filter_map(|s| piece.find(s)).min()
            {
                let came = piece[at..].chars().take(20).collect();
                let expected = match variable.name() {
                    Some(name) => format!("no other template syntax than {{{{ {name} }}}}"),
                    None => "no template syntax".to_owned(),
                };
                return Err(TemplateError::Syntax { name: name.to_owned(), expected, came });
            }
        }
        match (pieces.as_slice(), variable) {
            ([before, after], _) => {
                let trimmed = before.trim_end();
                let gap = before[trimmed.len()..].to_owned();
                Ok(Self { before: trimmed.into(), gap, after: Some((*after).to_owned()), hash })
            }
            ([whole], Variable::AtMostOnce(_) | Variable::None) => {
                Ok(Self { before: (*whole).into(), gap: String::new(), after: None, hash })
            }
            _ => {
                let expected = if matches!(variable, Variable::Once(_)) { "once" } else { "at most once" };
                let variable = variable.name().unwrap_or_default();
                let (name, came) = (name.to_owned(), pieces.len() - 1);
                Err(TemplateError::Placeholder { name, variable, expected, came })
            }
        }
    }

    fn suffix(&self, value: &str) -> String {
        match &self.after {
            Some(after) => format!("{}{value}{after}", self.gap),
            None => String::new(),
        }
    }

    fn whole(&self, value: &str) -> String {
        format!("{}{}", self.before, self.suffix(value))
    }
}

/// Text before and after the first `{{ name }}`, with or without spaces inside the braces.
fn cut_at_placeholder<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    text.match_indices("{{").find_map(|(start, _)| {
        let inside = text[start + 2..].trim_start().strip_prefix(name)?;
        let after = inside.trim_start().strip_prefix("}}")?;
        Some((&text[..start], after))
    })
}

/// What is likely to follow from a picture, as the model said when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Projection {
    /// The end of the question that it answers.
    pub(crate) asked: String,
    pub(crate) text: Arc<str>,
}

/// The prompts of the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    statement: Template,
    reasoning: Template,
    rating: Template,
    consequences: Template,
    consequences_statement: Template,
    consequences_reasoning: Template,
    consequences_neutral: Template,
    prompt: Template,
    prompt_statement: Template,
}

impl Templates {
    /// What is put into the model's mouth in the second turn of a reasoning, so that the next token is the rating.
    pub const RATING_START: &'static str = RATING_START;

    /// Names of the files, as [`Templates::load`] looks for them. Those of consequences are shown to the model for
    /// consequence rules only, those of the prompt where rules are asked of a prompt.
    pub const FILES: [&'static str; 9] = [
        "statement.txt",
        "reasoning.txt",
        "rating.txt",
        "consequences.txt",
        "consequences-statement.txt",
        "consequences-reasoning.txt",
        "consequences-neutral.txt",
        "prompt.txt",
        "prompt-statement.txt",
    ];

    /// The prompts that come with the program; on the first three the embedded models were trained.
    ///
    /// # Errors
    /// None in practice: a test parses them.
    pub fn shipped() -> Result<Self, TemplateError> {
        Self::from_texts(|_, shipped| Ok(shipped.into()))
    }

    /// Prompts from their texts: the yes/no question, the first turn of the reasoning (each with `{{ statement }}`
    /// once), and its second turn (with it at most once). Those of consequences are the shipped ones.
    ///
    /// # Errors
    /// A text that is blank, lacks the variable, or uses other template syntax.
    pub fn parse(statement: &str, reasoning: &str, rating: &str) -> Result<Self, TemplateError> {
        let texts = [statement, reasoning, rating];
        let own = |name: &str| Self::FILES.iter().zip(texts).find(|(file, _)| **file == name);
        Self::from_texts(|name, shipped| Ok(own(name).map_or(shipped, |(_, text)| text).to_owned().into()))
    }

    /// Prompts from a folder that holds any of [`Templates::FILES`]; the shipped ones for those that it lacks.
    ///
    /// # Errors
    /// As [`Templates::parse`], or a file that is there but cannot be read.
    pub fn load(folder: &Path) -> Result<Self, TemplateError> {
        Self::from_texts(|name, shipped| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(text.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => {
                Ok(shipped.into())
            }
            Err(error) => {
                Err(TemplateError::Unreadable { name: name.to_owned(), problem: error.to_string() })
            }
        })
    }

    /// Prompts from what `text` says for the name of a file and its shipped text.
    fn from_texts(
        text: impl Fn(&'static str, &'static str) -> Result<Cow<'static, str>, TemplateError>,
    ) -> Result<Self, TemplateError> {
        let read = |name, shipped, variable| Template::parse(name, &text(name, shipped)?, variable);
        let statement = Variable::Once("statement");
        let [ask, reason, rate, project, ask_then, reason_then, neutral, words, ask_words] = Self::FILES;
        Ok(Self {
            statement: read(ask, include_str!("../templates/statement.txt"), statement)?,
            reasoning: read(reason, include_str!("../templates/reasoning.txt"), statement)?,
            rating: read(rate, include_str!("../templates/rating.txt"), Variable::AtMostOnce("statement"))?,
            consequences: read(
                project,
                include_str!("../templates/consequences.txt"),
                Variable::AtMostOnce("prompt"),
            )?,
            consequences_statement: read(
                ask_then,
                include_str!("../templates/consequences-statement.txt"),
                statement,
            )?,
            consequences_reasoning: read(
                reason_then,
                include_str!("../templates/consequences-reasoning.txt"),
                statement,
            )?,
            consequences_neutral: read(
                neutral,
                include_str!("../templates/consequences-neutral.txt"),
                Variable::None,
            )?,
            prompt: read(words, include_str!("../templates/prompt.txt"), Variable::Once("prompt"))?,
            prompt_statement: read(ask_words, include_str!("../templates/prompt-statement.txt"), statement)?,
        })
    }

    /// Hash of all prompts that pictures are judged by, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for template in [
            &self.statement,
            &self.reasoning,
            &self.rating,
            &self.consequences,
            &self.consequences_statement,
            &self.consequences_reasoning,
            &self.consequences_neutral,
        ] {
            hasher.update(template.hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Hash of the texts on which `M(None, c)` depends: the yes/no question alone, or all that makes up the two turns of a
    /// consequence rule.
    pub(crate) fn prior_hash(&self, consequence: bool) -> String {
        if !consequence {
            return self.statement.hash.to_hex().to_string();
        }
        let mut hasher = blake3::Hasher::new();
        for template in [&self.consequences, &self.consequences_statement, &self.consequences_neutral] {
            hasher.update(template.hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Hash of the texts that a prompt is read by.
    pub(crate) fn reading_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for template in [&self.prompt, &self.prompt_statement] {
            hasher.update(template.hash.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The yes/no question about a picture that is to be drawn from `words`, or from unknown ones. They are shown as a JSON
    /// string, so that nothing in them ends it.
    pub(crate) fn reading(&self, words: Option<&str>, statement: &str) -> Prompt {
        let prefix = Prefix { picture: None, text: self.prompt.whole(&shown(words)).into() };
        Prompt::new(prefix, format!(" {}", self.prompt_statement.whole(statement)))
    }

    /// The question for what is likely to follow from `picture`, made from the words of `prompt` if they are known. They
    /// are shown as a JSON string, so that nothing in them ends it.
    pub(crate) fn projection(&self, picture: Picture, prompt: Option<&str>) -> Prompt {
        let suffix = self.consequences.suffix(&shown(prompt));
        Prompt::new(self.consequences_prefix(Some(picture)), suffix)
    }

    /// The projection behind which `M(None, c)` of a consequence rule is asked.
    pub(crate) fn neutral_projection(&self) -> Projection {
        Projection {
            asked: self.consequences.suffix(&shown(None)),
            text: Arc::clone(&self.consequences_neutral.before),
        }
    }

    fn consequences_prefix(&self, picture: Option<Picture>) -> Prefix {
        Prefix { picture, text: Arc::clone(&self.consequences.before) }
    }

    /// The yes/no question about a statement, behind a projection if there is one.
    pub(crate) fn question(
        &self,
        picture: Option<Picture>,
        statement: &str,
        projection: Option<&Projection>,
    ) -> Prompt {
        match projection {
            None => Prompt::new(self.statement_prefix(picture), self.statement_suffix(statement)),
            Some(projection) => {
                self.behind(picture, projection, self.consequences_statement.whole(statement))
            }
        }
    }

    /// The first turn of the reasoning about a statement, behind a projection if there is one.
    pub(crate) fn thought(
        &self,
        picture: Picture,
        statement: &str,
        projection: Option<&Projection>,
    ) -> Prompt {
        match projection {
            None => Prompt::new(self.reasoning_prefix(picture), self.reasoning_suffix(statement)),
            Some(projection) => {
                self.behind(Some(picture), projection, self.consequences_reasoning.whole(statement))
            }
        }
    }

    fn behind(&self, picture: Option<Picture>, projection: &Projection, user: String) -> Prompt {
        let turns = vec![Reply { assistant: projection.text.to_string(), user }];
        Prompt { turns, ..Prompt::new(self.consequences_prefix(picture), projection.asked.clone()) }
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
        self.rating.whole(statement)
    }

    /// The statement inside a question that these templates made, and the projection that stands before it, for the fakes.
    #[cfg(any(test, feature = "fakes"))]
    pub(crate) fn statement_of<'a>(&self, prompt: &'a Prompt) -> Option<(&'a str, Option<&'a str>)> {
        let inside = |template: &Template, text: &'a str| {
            text.strip_prefix(template.gap.as_str())?.strip_suffix(template.after.as_deref()?)
        };
        let first = [&self.statement, &self.reasoning].into_iter().find_map(|template| {
            if template.before != prompt.prefix.text {
                return None;
            }
            Some((inside(template, prompt.suffix.as_str())?, None))
        });
        first.or_else(|| {
            let turn = prompt.turns.first().filter(|_| prompt.prefix.text == self.consequences.before)?;
            let templates = [&self.consequences_statement, &self.consequences_reasoning];
            let statement = templates
                .into_iter()
                .find_map(|template| inside(template, turn.user.strip_prefix(&*template.before)?))?;
            Some((statement, Some(turn.assistant.as_str())))
        })
    }

    /// The words and the statement of a question that [`Templates::reading`] made, for the fakes.
    #[cfg(any(test, feature = "fakes"))]
    pub(crate) fn read_of(&self, prompt: &Prompt) -> Option<(Option<String>, String)> {
        let inside = |template: &Template, text: &str| {
            let start = format!("{}{}", template.before, template.gap);
            Some(text.strip_prefix(&start)?.strip_suffix(template.after.as_deref()?)?.to_owned())
        };
        let words = inside(&self.prompt, &prompt.prefix.text)?;
        let statement = inside(&self.prompt_statement, prompt.suffix.strip_prefix(' ')?)?;
        Some((serde_json::from_str(&words).ok(), statement))
    }

    /// Whether a question asks for a projection, for the fakes.
    #[cfg(any(test, feature = "fakes"))]
    pub(crate) fn asks_for_projection(&self, prompt: &Prompt) -> bool {
        prompt.turns.is_empty() && prompt.prefix.text == self.consequences.before
    }
}

/// How the words of a prompt are shown to the model.
fn shown(prompt: Option<&str>) -> String {
    prompt.map_or_else(|| "unknown".to_owned(), |prompt| serde_json::Value::from(prompt).to_string())
}
