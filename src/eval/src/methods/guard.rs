//! One prompt with a whole policy in it and a free answer, as fine-tuned safeguards are asked: LlavaGuard's JSON, or one
//! word as in the evaluation of SafeEditBench.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_perception::{Call, CompletionRequest, Prefix, Prompt, VisionLanguageModel};
use serde_json::{Map, Value};

use super::error::only;
use super::questions::{Questions, fill, rule_list};
use super::{Method, MethodError, Subject, revision};
use crate::data::Policy;
use crate::outcome::{Judgment, Outcome};

/// Most tokens of an answer in JSON, whose rationale may be long.
const JSON_TOKENS: usize = 512;

/// Most tokens of an answer of one word.
const WORD_TOKENS: usize = 16;

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// `{"rating": "Safe"|"Unsafe", "category": ..., "rationale": ...}`, or an older form of LlavaGuard's.
    Json,
    /// `safe` or `unsafe`.
    Word,
}

/// A single prompt with a policy: that of the row, or a constitution's rules where the row has none. A row that brings
/// the whole question as published is asked that.
pub struct Guard {
    form: AnswerForm,
    revision: String,
    model: Arc<dyn VisionLanguageModel>,
    question: String,
    /// The rules as a policy, and their ids.
    rules: Option<(String, Vec<String>)>,
}

impl Guard {
    /// A model that answers in this form.
    pub fn new(
        model: Arc<dyn VisionLanguageModel>,
        questions: &Questions,
        form: AnswerForm,
        rules: Option<&Constitution>,
    ) -> Self {
        let question = match form {
            AnswerForm::Json => questions.guard.clone(),
            AnswerForm::Word => questions.policy_word.clone(),
        };
        let rules = rules.map(|rules| {
            (rule_list(rules), rules.rules().iter().map(|rule| rule.id.clone()).collect::<Vec<_>>())
        });
        let list = rules.as_ref().map_or("", |(list, _)| list);
        let revision = revision(&[name(form), model.fingerprint(), &question, list]);
        Self { form, revision, model, question, rules }
    }

    fn asked(&self, policy: Option<&Policy>) -> Result<String, MethodError> {
        match (policy, &self.rules) {
            (Some(Policy::Question(question)), _) => Ok(question.clone()),
            (Some(Policy::Text(policy)), _) => Ok(fill(&self.question, "policy", policy)),
            (None, Some((list, _))) => Ok(fill(&self.question, "policy", list)),
            (None, None) => Err(MethodError::NoPolicy { method: name(self.form).to_owned() }),
        }
    }

    /// The rule that a category names, if it is one of the constitution's.
    fn rule(&self, category: &str) -> Option<String> {
        let (_, ids) = self.rules.as_ref()?;
        let named = category.split(':').next().unwrap_or_default().trim();
        ids.iter().find(|id| id.eq_ignore_ascii_case(named)).cloned()
    }
}

fn name(form: AnswerForm) -> &'static str {
    match form {
        AnswerForm::Json => "guard",
        AnswerForm::Word => "policy-word",
    }
}

impl Method for Guard {
    fn name(&self) -> &str {
        name(self.form)
    }

    fn revision(&self) -> &str {
        &self.revision
    }

    fn reads_policy(&self) -> bool {
        true
    }

    fn judge(&self, subject: &Subject<'_>, call: &Call) -> Result<Outcome, MethodError> {
        let question = self.asked(subject.policy)?;
        let prefix = Prefix { picture: Some(subject.picture.clone()), text: question.into() };
        let max_tokens = match self.form {
            AnswerForm::Json => JSON_TOKENS,
            AnswerForm::Word => WORD_TOKENS,
        };
        let request = CompletionRequest { prompt: Prompt::new(prefix, ""), max_tokens };
        let answer = only(self.model.complete(&[request], call)?)?;
        let read = match self.form {
            AnswerForm::Json => read_json(&answer.text),
            AnswerForm::Word => read_word(&answer.text).map(|flagged| (flagged, None)),
        };
        let Some((flagged, category)) = read else { return Ok(Outcome::Unparseable(answer.text)) };
        // Where the policy is the constitution, a category can be one of its rules.
        let by_rules = subject.policy.is_none();
        let violated = by_rules
            .then(|| {
                category.and_then(|category| self.rule(&category)).filter(|_| flagged).into_iter().collect()
            })
            .filter(|_| self.form == AnswerForm::Json);
        Ok(Outcome::Judged(Judgment {
            flagged,
            violated,
            score: None,
            passes: answer.tokens as u64,
            words: Some(answer.text),
            evidence: Vec::new(),
        }))
    }
}

/// Whether an answer in JSON calls the picture unsafe, and its category. What stands before and after the object, such
/// as a code fence, is passed over.
fn read_json(answer: &str) -> Option<(bool, Option<String>)> {
    let object = answer.get(answer.find('{')?..=answer.rfind('}')?)?;
    let fields: Map<String, Value> = serde_json::from_str(object).ok()?;
    let category = fields.get("category").and_then(Value::as_str).map(str::to_owned);
    Some((crate::data::rating(&fields)?, category))
}

fn read_word(answer: &str) -> Option<bool> {
    let word = answer.trim().trim_matches(['"', '\'', '.', '`', '*']).to_ascii_lowercase();
    match word.as_str() {
        "safe" => Some(false),
        "unsafe" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused_never_guessed() {
        let unsafe_answer =
            "```json\n{\"rating\": \"Unsafe\", \"category\": \"armed\", \"rationale\": \"{a}\"}\n```";
        assert_eq!(read_json(unsafe_answer), Some((true, Some("armed".to_owned()))));
        assert_eq!(read_json(r#"{"decision": "Compliant", "assessment": "x"}"#), Some((false, None)));
        for none in ["Unsafe", "{\"rating\": \"unsure\"}", "}{", "{\"rating\": \"Safe\"", ""] {
            assert_eq!(read_json(none), None, "{none}");
        }
        assert_eq!((read_word(" Unsafe.\n"), read_word("safe")), (Some(true), Some(false)));
        assert_eq!((read_word("not safe"), read_word("")), (None, None));
    }
}
