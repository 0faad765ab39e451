//! The rules, asked of the prompt before anything is drawn.

use cluegate_constitution::Constitution;
use serde_json::json;

use crate::Reason;
use crate::inspector::InspectionError;
use crate::judging::Failure;
use crate::policy::{Action, PromptCheck, PromptReader};
use crate::record::{AttemptRecord, FailureRecord, Judgment, JudgmentRecord, PromptCheckRecord};
use crate::released::Withheld;
use crate::session::{Session, milliseconds};

/// What was found, or why nothing could be.
type Read = Result<(Vec<String>, serde_json::Value, Option<cluegate_judge::Passes>), Failure>;

impl Session {
    /// Whether the policy has the prompt checked.
    pub fn checks_prompt(&self) -> bool {
        self.grounds.policy.prompt_check.mode != PromptCheck::Off
    }

    /// Asks the rules of the request's prompt, once, if the policy wants that: call it before the first step is spent. Under
    /// `enforce` a rule whose action is `block`, and a judge that fails, withhold every picture of the request; they come back
    /// in order, and nothing is left to draw. Otherwise the answer is noted in the decisions and changes nothing. A host that
    /// does not call this gets the same at its first preview or picture.
    pub fn check_prompt(&mut self) -> Vec<Withheld> {
        if self.prompt_check.is_some() || !self.checks_prompt() || self.request.prompt.trim().is_empty() {
            return Vec::new();
        }
        let _span = tracing::info_span!(target: "cluegate::trace", "prompt").entered();
        let started = std::time::Instant::now();
        let read = self.read_prompt();
        let mut judgment = self.judged_prompt(&read);
        judgment.ms = milliseconds(started);
        self.spent.add(&judgment);
        let by = self.grounds.policy.prompt_check.by;
        let (violated, action) = (judgment.violated.clone(), judgment.action);
        self.prompt_check = Some(PromptCheckRecord { by, judgment, agrees: None });
        if self.grounds.policy.prompt_check.mode != PromptCheck::Enforce || self.is_shadow() {
            return Vec::new();
        }
        match read {
            Err(failure) => {
                self.withhold_all(failure.reason(), &format!("the prompt: {}", failure.message()))
            }
            Ok(_) if action == Some(Action::Block) => {
                let named = violated.iter().map(|id| match self.grounds.constitution.rule(id) {
                    Some(rule) => format!("{id} ({})", rule.text),
                    None => id.clone(),
                });
                let message =
                    format!("the prompt asks for what violates {}", named.collect::<Vec<_>>().join(" and "));
                self.withhold_all(Reason::Violation, &message)
            }
            Ok(_) => Vec::new(),
        }
    }

    /// What the check says of `member`, where nobody asked before the member was offered.
    pub(crate) fn refused_by_prompt(&mut self, member: usize) -> Option<Withheld> {
        let withheld = self.check_prompt();
        withheld.into_iter().find(|withheld| withheld.decision.member as usize == member)
    }

    fn read_prompt(&mut self) -> Read {
        match self.grounds.policy.prompt_check.by {
            PromptReader::Judge => self.read_by_judge(),
            PromptReader::Encoder => self.read_by_encoder(),
        }
    }

    fn read_by_judge(&mut self) -> Read {
        let deadline = self.patience();
        let call = self.model_call(deadline);
        let (inspector, prompt, work) = (self.deciding(&call)?, self.request.prompt.clone(), call.clone());
        let read = self.services.watchdog.run(deadline, move || inspector.read_prompt(&prompt, &work));
        call.cancel();
        let report = read.map_err(Failure::from)??;
        let evidence = serde_json::to_value(&report).map_err(|e| Failure::new("evidence", e.to_string()))?;
        Ok((report.violated(), evidence, Some(report.passes)))
    }

    /// A rule counts as asked for where the prompt comes near to its text, or to a statement that completes its violation.
    fn read_by_encoder(&mut self) -> Read {
        let constitution = std::sync::Arc::clone(&self.grounds.constitution);
        let (texts, owners) = texts_of(&constitution);
        let all = std::iter::once(self.request.prompt.clone()).chain(texts).collect::<Vec<_>>();
        let expected = all.len();
        let embedded = self.embedded(all, None)?;
        let missing = || {
            Failure::from(InspectionError::new(
                "no-encoder",
                "expected a relevance encoder to read the prompt, got none",
            ))
        };
        let embedded = embedded.filter(|embedded| embedded.len() == expected).ok_or_else(missing)?;
        let Some((prompt, rest)) = embedded.split_first() else { return Err(missing()) };
        let mut nearest = vec![-1.0_f64; constitution.rules().len()];
        for (text, owner) in rest.iter().zip(owners) {
            let cosine = f64::from(prompt.cosine(text));
            if !cosine.is_finite() {
                return Err(Failure::new("not-a-number", "the cosine of the prompt and a rule is no number"));
            }
            if let Some(slot) = nearest.get_mut(owner) {
                *slot = slot.max(cosine);
            }
        }
        let threshold = self.grounds.policy.prompt_check.threshold;
        let rules = constitution.rules().iter().zip(&nearest);
        let violated = rules.clone().filter(|(_, near)| **near >= threshold).map(|(rule, _)| rule.id.clone());
        let cosines: serde_json::Map<_, _> =
            rules.clone().map(|(rule, near)| (rule.id.clone(), json!(near))).collect();
        Ok((violated.collect(), json!({ "threshold": threshold, "cosines": cosines }), None))
    }

    fn judged_prompt(&self, read: &Read) -> JudgmentRecord {
        let blank = |verdict| JudgmentRecord {
            verdict,
            violated: Vec::new(),
            action: None,
            error: None,
            evidence: None,
            passes: None,
            ms: 0.0,
        };
        match read {
            Ok((violated, evidence, passes)) => {
                let policy = &self.grounds.policy.actions;
                let action = |id: &String| {
                    let rule = self.grounds.constitution.rule(id);
                    rule.map_or(Action::Block, |rule| policy.of(id, rule.severity))
                };
                let verdict = if violated.is_empty() { Judgment::Safe } else { Judgment::Unsafe };
                JudgmentRecord {
                    violated: violated.clone(),
                    action: violated.iter().map(action).max(),
                    evidence: Some(evidence.clone()),
                    passes: *passes,
                    ..blank(verdict)
                }
            }
            Err(failure) => {
                let error = FailureRecord { kind: failure.kind().to_owned(), message: failure.message() };
                JudgmentRecord { error: Some(error), ..blank(Judgment::Error) }
            }
        }
    }

    /// The check as the log keeps it: whether it agrees with the verdict on the first picture, which was drawn from this very
    /// prompt.
    pub(crate) fn prompt_checked(&self, attempts: &[AttemptRecord]) -> Option<PromptCheckRecord> {
        let check = self.prompt_check.clone()?;
        let first =
            attempts.first().and_then(|attempt| attempt.judgment.as_ref()).map(|judgment| judgment.verdict);
        let agrees = first
            .filter(|verdict| *verdict != Judgment::Error && check.judgment.verdict != Judgment::Error)
            .map(|verdict| verdict == check.judgment.verdict);
        Some(PromptCheckRecord { agrees, ..check })
    }
}

/// What is compared with a prompt, and the index of the rule that each belongs to.
fn texts_of(constitution: &Constitution) -> (Vec<String>, Vec<usize>) {
    let mut texts = Vec::new();
    let mut owners = Vec::new();
    for (index, rule) in constitution.rules().iter().enumerate() {
        let completing = rule.preconditions.last().into_iter().flat_map(|link| &link.any);
        for text in std::iter::once(&rule.text).chain(completing.map(|statement| &statement.text)) {
            texts.push(text.clone());
            owners.push(index);
        }
    }
    (texts, owners)
}
