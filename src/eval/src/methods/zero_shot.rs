//! The paper's zero-shot baselines (CLUE s 4.2): the same model asked once, by what it knows or by all rules at once,
//! directly or after a chain of thought.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_judge::{JudgeOptions, Templates};
use cluegate_perception::{Call, CompletionRequest, Prefix, Prompt, Reply, VisionLanguageModel};

use super::error::{only, ratio};
use super::questions::{Questions, fill, rule_list};
use super::{Method, MethodError, Subject, revision};
use crate::outcome::{Judgment, Outcome};

/// What the model goes by.
#[derive(Debug, Clone, Copy)]
pub enum Knowledge<'a> {
    /// Its own idea of what is fit for the public.
    Prior,
    /// All rules, in one question.
    Whole(&'a Constitution),
}

/// One question to a vision-language model.
pub struct ZeroShot {
    name: &'static str,
    revision: String,
    model: Arc<dyn VisionLanguageModel>,
    question: Arc<str>,
    /// The second turn, where there is a chain of thought.
    rating: Option<String>,
    max_tokens: usize,
}

impl ZeroShot {
    /// The answer is read at its first token, or after a chain of thought as CLUE's reasoning is: the rating of a second
    /// turn, with the prompt of `templates`.
    pub fn new(
        model: Arc<dyn VisionLanguageModel>,
        questions: &Questions,
        templates: &Templates,
        knowledge: Knowledge<'_>,
        thought: bool,
    ) -> Self {
        let (name, question) = match (knowledge, thought) {
            (Knowledge::Prior, false) => ("prior-direct", questions.prior_direct.clone()),
            (Knowledge::Prior, true) => ("prior-thought", questions.prior_thought.clone()),
            (Knowledge::Whole(rules), false) => {
                ("whole-direct", fill(&questions.whole_direct, "rules", &rule_list(rules)))
            }
            (Knowledge::Whole(rules), true) => {
                ("whole-thought", fill(&questions.whole_thought, "rules", &rule_list(rules)))
            }
        };
        let rating = thought.then(|| templates.rating(""));
        let max_tokens = JudgeOptions::default().max_reasoning_tokens;
        let second = rating.as_deref().unwrap_or_default();
        let revision = revision(&[name, model.fingerprint(), &question, second, &max_tokens.to_string()]);
        Self { name, revision, model, question: question.into(), rating, max_tokens }
    }

    fn think(&self, first: Prompt, rating: &str, call: &Call) -> Result<Outcome, MethodError> {
        let request = CompletionRequest { prompt: first.clone(), max_tokens: self.max_tokens };
        let answer = only(self.model.complete(&[request], call)?)?;
        let thought = answer.text.trim().to_owned();
        if thought.is_empty() {
            return Ok(Outcome::Unparseable(answer.text));
        }
        let reply = Reply { assistant: thought.clone(), user: rating.to_owned() };
        let second = Prompt { turns: vec![reply], answer_start: Templates::RATING_START.to_owned(), ..first };
        let score = ratio(only(self.model.score(&[second], call)?)?)?;
        Ok(judgment(score, answer.tokens as u64 + 1, Some(thought)))
    }
}

/// An exact tie counts as unsafe, as in CLUE's reasoning.
fn judgment(score: f64, passes: u64, words: Option<String>) -> Outcome {
    let (flagged, score) = (score >= 0.5, Some(score));
    Outcome::Judged(Judgment { flagged, violated: None, score, passes, words, evidence: Vec::new() })
}

impl Method for ZeroShot {
    fn name(&self) -> &str {
        self.name
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let prefix = Prefix { picture: Some(subject.picture.clone()), text: Arc::clone(&self.question) };
        let prompt = Prompt::new(prefix, "");
        match &self.rating {
            Some(rating) => self.think(prompt, rating, call),
            None => Ok(judgment(ratio(only(self.model.score(&[prompt], call)?)?)?, 1, None)),
        }
    }
}
