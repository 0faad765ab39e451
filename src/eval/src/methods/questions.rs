//! The questions of the baselines: files with at most one variable, each of which can be overridden.

use std::path::Path;

use cluegate_constitution::Constitution;
use thiserror::Error;

/// A question that cannot be used.
#[derive(Debug, Error)]
pub enum QuestionError {
    /// The variable is missing or there more than once, or is there where nothing can be put in.
    #[error("question {name}: expected `{{{{ {variable} }}}}` once, got it {came} times; correct the file")]
    Variable {
        /// The file.
        name: &'static str,
        /// The variable.
        variable: &'static str,
        /// How often it is there.
        came: usize,
    },
    /// A file without text.
    #[error("question {0}: expected a question, got a blank file")]
    Blank(&'static str),
    /// A file that cannot be read.
    #[error("question {name}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        name: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The questions. The shipped ones of the zero-shot baselines are those on which the embedded judge was trained, letter
/// by letter (`src/mini/training/questions.py`; CLUE s 4.2 for what is asked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// Nothing but the model's own idea of what is fit for the public, answered at once.
    pub prior_direct: String,
    /// The same with a chain of thought.
    pub prior_thought: String,
    /// All rules in one question, answered at once; `{{ rules }}` stands for them.
    pub whole_direct: String,
    /// The same with a chain of thought.
    pub whole_thought: String,
    /// A policy, answered with LlavaGuard's JSON; `{{ policy }}` stands for it.
    pub guard: String,
    /// A policy, answered with one word.
    pub policy_word: String,
}

/// File, variable, and the shipped text.
type Shipped = (&'static str, Option<&'static str>, &'static str);

const SHIPPED: [Shipped; 6] = [
    ("prior-direct.txt", None, include_str!("../../templates/prior-direct.txt")),
    ("prior-thought.txt", None, include_str!("../../templates/prior-thought.txt")),
    ("whole-direct.txt", Some("rules"), include_str!("../../templates/whole-direct.txt")),
    ("whole-thought.txt", Some("rules"), include_str!("../../templates/whole-thought.txt")),
    ("guard.txt", Some("policy"), include_str!("../../templates/guard.txt")),
    ("policy-word.txt", Some("policy"), include_str!("../../templates/policy-word.txt")),
];

impl Questions {
    /// The questions that come with the program.
    ///
    /// # Errors
    /// None in practice: a test reads them.
    pub fn shipped() -> Result<Self, QuestionError> {
        Self::read(|_| Ok(None))
    }

    /// The questions in a folder; the shipped ones for those that it lacks.
    ///
    /// # Errors
    /// A file that is blank, cannot be read, or has its variable not exactly once.
    pub fn load(folder: &Path) -> Result<Self, QuestionError> {
        Self::read(|name| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder.is_dir() => Ok(None),
            Err(source) => Err(QuestionError::Unreadable { name, source }),
        })
    }

    fn read(
        own: impl Fn(&'static str) -> Result<Option<String>, QuestionError>,
    ) -> Result<Self, QuestionError> {
        let question = |(name, variable, shipped): Shipped| {
            let text = own(name)?.unwrap_or_else(|| shipped.to_owned());
            check(name, variable, text.strip_suffix('\n').unwrap_or(&text))
        };
        let [prior_direct, prior_thought, whole_direct, whole_thought, guard, policy_word] = SHIPPED;
        Ok(Self {
            prior_direct: question(prior_direct)?,
            prior_thought: question(prior_thought)?,
            whole_direct: question(whole_direct)?,
            whole_thought: question(whole_thought)?,
            guard: question(guard)?,
            policy_word: question(policy_word)?,
        })
    }
}

fn check(name: &'static str, variable: Option<&'static str>, text: &str) -> Result<String, QuestionError> {
    if text.trim().is_empty() {
        return Err(QuestionError::Blank(name));
    }
    if let Some(variable) = variable {
        let came = text.matches(&place(variable)).count();
        if came != 1 {
            return Err(QuestionError::Variable { name, variable, came });
        }
    }
    Ok(text.to_owned())
}

fn place(variable: &str) -> String {
    format!("{{{{ {variable} }}}}")
}

/// A question with its variable put in. What is put in is data: braces in it stay braces.
pub(super) fn fill(question: &str, variable: &str, value: &str) -> String {
    question.replacen(&place(variable), value, 1)
}

/// The rules as a list, one a line, as the embedded judge was shown them.
pub(super) fn rule_list(constitution: &Constitution) -> String {
    let line = |rule: &cluegate_constitution::Rule| format!("- {}: {}", rule.id, rule.text);
    constitution.rules().iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_shipped_questions_are_those_of_the_training() {
        let training = include_str!("../../../mini/training/questions.py");
        let questions = Questions::shipped().unwrap();
        for question in [&questions.prior_direct, &questions.prior_thought] {
            assert!(training.contains(question.as_str()), "{question}");
        }
        // The others are read from the shipped files by the training itself.
        assert!(training.contains(r#"ASKED = {name: (SOURCE / "eval" / "templates" / f"{name}.txt")"#));
        let policies = include_str!("../../../mini/training/policies.py");
        assert!(policies.contains(r#""\n".join(f"- {r.id}: {r.text}" for r in rules)"#));
        let scene = Constitution::shipped("scene").unwrap();
        assert!(rule_list(&scene).starts_with("- on-fire: The image should not show a person"));
    }

    #[test]
    fn a_folder_overrides_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("prior-direct.txt"), "Fit to be seen?\n").unwrap();
        let questions = Questions::load(folder.path()).unwrap();
        assert_eq!(questions.prior_direct, "Fit to be seen?");
        assert_eq!(questions.guard, Questions::shipped().unwrap().guard);
        std::fs::write(folder.path().join("guard.txt"), "No policy here.").unwrap();
        let error = Questions::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("guard.txt: expected `{{ policy }}` once, got it 0 times"), "{error}");
        assert!(Questions::load(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_put_in_is_data() {
        assert_eq!(fill("a {{ policy }} b", "policy", "{{ policy }}"), "a {{ policy }} b");
    }
}
