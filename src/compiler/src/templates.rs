//! The prompts: one file for each question, with variables that are replaced by plain substitution.
//!
//! What a rule says is data: it is put in once and never read as a template, so that braces in it stay braces. A file
//! that uses more of a template language than its own variables is refused instead of being shown to the model as it
//! stands.

use std::path::Path;
use std::sync::Arc;

use cluegate_perception::{Prefix, Prompt};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: u64 = 64 << 10;

/// A question to the model; each has a template and an answer grammar (see [`crate::grammar`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// How objective is a rule, and why?
    Objectiveness,
    /// The rule in more objective words.
    Revise,
    /// The chain of statements that make up a violation.
    Preconditions,
    /// What a detector should look for.
    Central,
}

impl Step {
    /// All steps, in the order in which they are asked.
    pub const ALL: [Self; 4] = [Self::Objectiveness, Self::Revise, Self::Preconditions, Self::Central];

    /// Its name, which is also that of its template.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Objectiveness => "objectiveness",
            Self::Revise => "revise",
            Self::Preconditions => "preconditions",
            Self::Central => "central",
        }
    }
}

/// A file of the set: its name, its text, and its variables, each with whether it must be there.
struct Shipped {
    file: &'static str,
    text: &'static str,
    variables: &'static [(&'static str, bool)],
}

const SHIPPED: [Shipped; 5] = [
    Shipped {
        file: "objectiveness.txt",
        text: include_str!("../templates/objectiveness.txt"),
        variables: &[("rule", true)],
    },
    Shipped {
        file: "revise.txt",
        text: include_str!("../templates/revise.txt"),
        variables: &[("rule", true), ("explanation", false), ("rating", false), ("pinned", false)],
    },
    Shipped {
        file: "preconditions.txt",
        text: include_str!("../templates/preconditions.txt"),
        variables: &[("rule", true)],
    },
    Shipped {
        file: "central.txt",
        text: include_str!("../templates/central.txt"),
        variables: &[("statement", true)],
    },
    Shipped {
        file: "retry.txt",
        text: include_str!("../templates/retry.txt"),
        variables: &[("prompt", true), ("answer", false), ("error", false)],
    },
];

const RETRY: usize = 4;

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A variable that the question needs is missing.
    #[error(
        "template {file}: expected {{{{ {variable} }}}}, which is not there; put it where the text belongs"
    )]
    Missing {
        /// Name of the file.
        file: String,
        /// The variable.
        variable: &'static str,
    },
    /// Template syntax that is none of the file's variables.
    #[error("template {file}: expected no template syntax but {}, got {came:?}; write plain text",
        known.iter().map(|name| format!("{{{{ {name} }}}}")).collect::<Vec<_>>().join(", "))]
    Syntax {
        /// Name of the file.
        file: String,
        /// What came.
        came: String,
        /// The variables of this file.
        known: Vec<&'static str>,
    },
    /// A template without text.
    #[error("template {file}: expected a prompt, got a blank file")]
    Blank {
        /// Name of the file.
        file: String,
    },
    /// A file that cannot be read, or is none of the set.
    #[error("template {file}: {problem}")]
    File {
        /// Name of the file or folder.
        file: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Arc<str>),
    Variable(&'static str),
}

/// One template, cut at its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    pieces: Vec<Piece>,
    hash: String,
}

impl Template {
    fn parse(shipped: &Shipped, text: &str) -> Result<Self, TemplateError> {
        let file = || shipped.file.to_owned();
        // As usual with templates, one line break at the end of the file is not part of the prompt.
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.trim().is_empty() {
            return Err(TemplateError::Blank { file: file() });
        }
        let syntax = |from: &str| {
            let known = shipped.variables.iter().map(|(name, _)| *name).collect();
            TemplateError::Syntax { file: file(), came: from.chars().take(20).collect(), known }
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        loop {
            let opening = rest.find("{{").unwrap_or(rest.len());
            let (before, at) = rest.split_at(opening);
            if let Some(mark) = ["{%", "{#", "}}", "%}", "#}"].iter().filter_map(|s| before.find(s)).min() {
                return Err(syntax(&before[mark..]));
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            if at.is_empty() {
                break;
            }
            let (name, after) = at[2..].split_once("}}").ok_or_else(|| syntax(at))?;
            let known = shipped.variables.iter().find(|(known, _)| *known == name.trim());
            let Some((known, _)) = known else { return Err(syntax(at)) };
            pieces.push(Piece::Variable(known));
            rest = after;
        }
        for (variable, required) in shipped.variables {
            if *required && !pieces.contains(&Piece::Variable(variable)) {
                return Err(TemplateError::Missing { file: file(), variable });
            }
        }
        Ok(Self { pieces, hash: blake3::hash(text.as_bytes()).to_hex().to_string() })
    }

    /// The text with each variable replaced once; one that is not given is empty.
    fn render(&self, values: &[(&str, &str)]) -> (String, String) {
        let mut pieces = self.pieces.iter();
        let mut text = String::new();
        let (mut before, mut first) = (String::new(), true);
        for piece in &mut pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(name) => {
                    if std::mem::take(&mut first) {
                        // White space before the variable belongs to what follows: byte-level tokenizers join a space
                        // with the word after it, so that both parts can be tokenised apart.
                        let space = text.split_off(text.trim_end().len());
                        before = std::mem::replace(&mut text, space);
                    }
                    let value = values.iter().find(|(known, _)| known == name);
                    text.push_str(value.map_or("", |(_, value)| value));
                }
            }
        }
        (before, text)
    }
}

/// The prompts of the compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates(Vec<Template>);

impl Templates {
    /// Names of the files, as [`Templates::load`] looks for them.
    pub fn files() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|shipped| shipped.file)
    }

    /// The text of a file as it comes with the program.
    pub fn shipped_text(file: &str) -> Option<&'static str> {
        SHIPPED.iter().find(|shipped| shipped.file == file).map(|shipped| shipped.text)
    }

    /// The variables of a file, each with whether it must be there.
    pub fn variables(file: &str) -> &'static [(&'static str, bool)] {
        SHIPPED.iter().find(|shipped| shipped.file == file).map_or(&[], |shipped| shipped.variables)
    }

    /// The prompts that come with the program.
    ///
    /// # Errors
    /// None in practice: a test parses them.
    pub fn shipped() -> Result<Self, TemplateError> {
        Self::from_files(|_| Ok(None))
    }

    /// Prompts from files: `text` gives the text of a name, or `None` for the one that comes with the program.
    ///
    /// # Errors
    /// Those of `text`, and a text that is blank, lacks a variable, or uses other template syntax.
    pub fn from_files(
        mut text: impl FnMut(&str) -> Result<Option<String>, TemplateError>,
    ) -> Result<Self, TemplateError> {
        let parse = |shipped: &Shipped| match text(shipped.file)? {
            Some(own) => Template::parse(shipped, &own),
            None => Template::parse(shipped, shipped.text),
        };
        SHIPPED.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Prompts from a folder that holds any of [`Templates::files`]; the shipped ones for those that it lacks.
    ///
    /// # Errors
    /// No folder, a file of another name that ends in `.txt` (it would have no effect), a file that cannot be read, or
    /// as [`Templates::from_files`].
    pub fn load(folder: &Path) -> Result<Self, TemplateError> {
        let failed = |problem: String| TemplateError::File { file: folder.display().to_string(), problem };
        let entries = std::fs::read_dir(folder).map_err(|error| {
            failed(format!("expected a folder with templates, got: {error}; name one that is there"))
        })?;
        for entry in entries {
            let name = entry.map_err(|error| failed(error.to_string()))?.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".txt") && !Self::files().any(|known| known == name) {
                let known = Self::files().collect::<Vec<_>>().join(", ");
                return Err(failed(format!("{name} is no template; expected any of {known}")));
            }
        }
        Self::from_files(|name| read_template(&folder.join(name)))
    }

    /// The prompt of a step, with its variables filled in.
    pub fn prompt(&self, step: Step, values: &[(&str, &str)]) -> Prompt {
        let (before, rest) = self.0[step as usize].render(values);
        Prompt::new(Prefix { picture: None, text: before.into() }, rest)
    }

    /// The prompt that asks once more, after `prompt` was answered by `answer` and that was refused for `error`.
    pub fn retry(&self, prompt: &Prompt, answer: &str, error: &str) -> Prompt {
        let asked = prompt_text(prompt);
        let values = [("prompt", asked.as_str()), ("answer", answer), ("error", error)];
        let (before, rest) = self.0[RETRY].render(&values);
        // Its variable comes first: all of it is the suffix, and the beginning of the first prompt stays shared.
        let text = before + &rest;
        match text.strip_prefix(&*prompt.prefix.text) {
            Some(suffix) => Prompt::new(prompt.prefix.clone(), suffix),
            None => Prompt::new(Prefix { picture: None, text: "".into() }, text),
        }
    }

    /// Hash of the prompts that an answer to `step` depends on, 64 hexadecimal digits.
    pub fn step_hash(&self, step: Step) -> String {
        let parts = [&self.0[step as usize], &self.0[RETRY]].map(|template| template.hash.as_str());
        blake3::hash(parts.concat().as_bytes()).to_hex().to_string()
    }

    /// Hash of all prompts, 64 hexadecimal digits.
    pub fn hash(&self) -> String {
        let all: String = self.0.iter().map(|template| template.hash.as_str()).collect();
        blake3::hash(all.as_bytes()).to_hex().to_string()
    }
}

/// The text of a template file; `None` if it is not there.
fn read_template(path: &Path) -> Result<Option<String>, TemplateError> {
    let failed = |problem: String| TemplateError::File { file: path.display().to_string(), problem };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(about) if about.len() > MAX_TEMPLATE_BYTES => {
            let (came, most) = (about.len(), MAX_TEMPLATE_BYTES);
            return Err(failed(format!("expected at most {most} bytes, got {came}; shorten the prompt")));
        }
        _ => {}
    }
    let text = std::fs::read_to_string(path);
    text.map(Some).map_err(|error| failed(format!("expected a text file, got: {error}")))
}

/// A prompt of one turn as one text.
pub(crate) fn prompt_text(prompt: &Prompt) -> String {
    format!("{}{}", prompt.prefix.text, prompt.suffix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn with(file: &str, text: &str) -> Result<Templates, TemplateError> {
        Templates::from_files(|name| Ok((name == file).then(|| text.to_owned())))
    }

    #[test]
    fn a_value_is_put_in_once_and_stays_as_it_is() {
        let templates = Templates::shipped().unwrap();
        let rule = "No {{ rule }} and {braces} {% if %}.";
        let prompt = templates.prompt(Step::Objectiveness, &[("rule", rule)]);
        assert!(prompt.prefix.text.ends_with("<rule>") && prompt.suffix.starts_with(rule), "{prompt:?}");
        assert_eq!(prompt_text(&prompt).matches(rule).count(), 1);
        let values = [("rule", "R"), ("explanation", "E"), ("rating", "4"), ("pinned", "90 degrees")];
        let text = prompt_text(&templates.prompt(Step::Revise, &values));
        assert!(text.ends_with("<rule>R</rule>\nFound: E Rating: 4\nFixed values: 90 degrees"), "{text}");
    }

    #[test]
    fn a_second_question_repeats_the_first_one_and_tells_the_error() {
        let templates = Templates::shipped().unwrap();
        let first = templates.prompt(Step::Central, &[("statement", "a dog is visible")]);
        let second = templates.retry(&first, "perhaps {{ error }}", "expected words");
        assert_eq!(second.prefix.text, first.prefix.text);
        let text = prompt_text(&second);
        assert!(text.starts_with(&prompt_text(&first)), "{text}");
        assert!(text.contains("<answer>perhaps {{ error }}</answer>\nReason: expected words"), "{text}");
    }

    #[test]
    fn templates_that_would_not_do_what_they_seem_to_are_refused() {
        for (text, part) in [
            ("", "blank"),
            ("Rate it.", "expected {{ rule }}"),
            ("Rate {{ rule }} for {{ tenant }}.", "got \"{{ tenant }}"),
            ("Rate {{ rule }} {% if %}", "got \"{% if %}"),
            ("Rate {{ rule", "got \"{{ rule"),
            ("Rate {{ rule }} }}", "got \"}}"),
        ] {
            let error = with("objectiveness.txt", text).unwrap_err().to_string();
            assert!(error.contains("objectiveness.txt") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn hashes_follow_what_an_answer_depends_on() {
        let shipped = Templates::shipped().unwrap();
        let own = with("central.txt", "Words of {{statement}}?\n").unwrap();
        assert_ne!(shipped.hash(), own.hash());
        assert_ne!(shipped.step_hash(Step::Central), own.step_hash(Step::Central));
        assert_eq!(shipped.step_hash(Step::Revise), own.step_hash(Step::Revise));
        let retry = with("retry.txt", "{{ prompt }} again: {{ error }}").unwrap();
        assert_ne!(shipped.step_hash(Step::Revise), retry.step_hash(Step::Revise));
    }

    #[test]
    fn a_folder_overrides_some_and_may_not_hold_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(Templates::load(path).unwrap(), Templates::shipped().unwrap());
        std::fs::write(path.join("central.txt"), "Words of {{ statement }}?").unwrap();
        std::fs::write(path.join("README.md"), "about").unwrap();
        let prompt = Templates::load(path).unwrap().prompt(Step::Central, &[("statement", "s")]);
        assert_eq!((&*prompt.prefix.text, prompt.suffix.as_str()), ("Words of", " s?"));
        std::fs::write(path.join("centrall.txt"), "x").unwrap();
        assert!(Templates::load(path).unwrap_err().to_string().contains("centrall.txt is no template"));
        assert!(Templates::load(&path.join("nowhere")).unwrap_err().to_string().contains("folder"));
    }
}
