//! What a session writes down.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_perception::Picture;

use crate::Reason;
use crate::policy::{Policy, RawQuota};
use crate::record::{
    ConstitutionRecord, Cost, DecisionRecord, DecisionTimings, JudgmentRecord, Outcome, RequestRecord,
};
use crate::released::{Logged, Withheld};
use crate::session::{Session, Verdict, milliseconds};
use crate::tenant::Services;

impl Session {
    /// Where decisions are logged, and under which policy they were taken.
    pub(crate) fn log_of(&self) -> (&Policy, &Services) {
        (&self.grounds.policy, &self.services)
    }

    /// Writes the decision and makes it final. If it cannot be written, the member is withheld for that reason.
    pub(crate) fn log(
        &mut self,
        member: usize,
        record: DecisionRecord,
        released: Option<&Picture>,
    ) -> Result<Logged, Withheld> {
        let judged = self.members.get_mut(member).and_then(|state| state.judged.take());
        let written = Logged::write(record, judged.as_ref(), released, self.log_of());
        let decision = match &written {
            Ok(logged) => Arc::clone(logged.record()),
            Err(failed) => {
                let (record, error) = failed.as_ref();
                tracing::error!(decision = %record.decision_id, %error, "a decision could not be logged; withheld");
                let message = format!("{error}; without it nothing is released");
                let reason = Reason::LogFailure;
                Arc::new(DecisionRecord {
                    outcome: Outcome::Withheld,
                    reason,
                    message,
                    unjudged: false,
                    released_picture: None,
                    ..record.clone()
                })
            }
        };
        if let Some(state) = self.members.get_mut(member) {
            state.decision = Some(Arc::clone(&decision));
        }
        written.map_err(|_| Withheld { placeholder: self.placeholder(member, Reason::LogFailure), decision })
    }

    pub(crate) fn record(&mut self, member: usize, outcome: Outcome, verdict: Verdict<'_>) -> DecisionRecord {
        self.end_previews(member);
        let (attempts, timings) = self.members.get_mut(member).map_or_else(Default::default, |state| {
            state.end_attempt();
            (std::mem::take(&mut state.past), state.timings)
        });
        let total = milliseconds(self.opened);
        let timings_ms = DecisionTimings { total, ..timings };
        let record = self.record_without_attempts(member, outcome, verdict);
        let prompt_check = self.prompt_checked(&attempts);
        let record = DecisionRecord { attempts, timings_ms, prompt_check, ..record };
        let steps = record.attempts.iter().map(|attempt| u64::from(attempt.steps)).sum();
        let cost = cost_of(record.judgments(), steps, &self.grounds.policy.quota);
        DecisionRecord { canary: self.compared(&record.attempts), cost, ..record }
    }

    /// A decision that ends nothing, such as that about a preview.
    pub(crate) fn record_without_attempts(
        &self,
        member: usize,
        outcome: Outcome,
        verdict: Verdict<'_>,
    ) -> DecisionRecord {
        let Verdict { reason, message, report } = verdict;
        let constitution = &self.grounds.constitution;
        let mut models = self.inspector.as_ref().map(|judge| judge.models()).unwrap_or_default();
        if let Some(generator) = &self.request.generator {
            models.insert("generator".to_owned(), generator.clone());
        }
        let action = report.and_then(|report| self.strictest(report));
        let request = RequestRecord {
            id: self.request_id.clone(),
            prompt_hash: blake3::hash(self.request.prompt.as_bytes()).to_hex().to_string(),
            prompt: self.grounds.policy.log_prompts.then(|| self.request.prompt.clone()),
            seed: self.request.seed,
            count: self.request.count,
        };
        DecisionRecord {
            decision_id: uuid::Uuid::now_v7().to_string(),
            timestamp: jiff::Timestamp::now().to_string(),
            tenant: self.grounds.policy.tenant.to_string(),
            mode: self.grounds.policy.mode,
            constitution: named(constitution),
            models,
            model: self.request.model.clone(),
            requested_by: self.request.requested_by.clone(),
            subject: self.request.subject.clone(),
            request,
            member: member as u32,
            outcome,
            reason,
            message,
            action,
            violated: report.map(|report| report.violated().to_vec()).unwrap_or_default(),
            unjudged: reason == Reason::Unjudged,
            would: None,
            prompt_check: None,
            canary: None,
            cost: Cost::default(),
            fidelity: None,
            released_picture: None,
            attempts: Vec::new(),
            timings_ms: DecisionTimings { total: milliseconds(self.opened), ..Default::default() },
        }
    }
}

/// Name and revision.
pub(crate) fn named(constitution: &Constitution) -> ConstitutionRecord {
    ConstitutionRecord { name: constitution.name().to_owned(), revision: constitution.revision().to_hex() }
}

/// What `judgments` and `steps` took, and their price.
fn cost_of<'a>(judgments: impl Iterator<Item = &'a JudgmentRecord>, steps: u64, quota: &RawQuota) -> Cost {
    let mut cost = Cost { steps, ..Cost::default() };
    let mut ms = 0.0;
    for judgment in judgments {
        cost.judgments += 1;
        cost.passes = cost.passes.saturating_add(judgment.passes.map_or(0, |passes| passes.total()));
        ms += judgment.ms;
    }
    // To the microsecond, as the times that it is the sum of.
    let judge_seconds = (ms * 1e3).round() / 1e6;
    let amount = quota.price(cost.passes, judge_seconds) + quota.price_of_steps(steps);
    Cost { judge_seconds, amount, ..cost }
}
