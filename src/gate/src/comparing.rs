//! Canaries: a share of the requests is judged under two constitutions, of which one decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_perception::Picture;

use crate::judging::{Asked, Judged};
use crate::policy::CanaryDecides;
use crate::record::{Agreement, AttemptRecord, CanaryRecord, Judgment, JudgmentRecord};
use crate::recording::named;
use crate::released::strictest_action;
use crate::session::Session;

/// The judgment that decides nothing gets at most this part of the time that its request has left.
const PART: u32 = 4;

impl Session {
    /// Judges a finished picture under the constitution of a canary that does not decide, once there is a verdict that
    /// does. It has a bounded part of the request's time and threads of its own, and whatever becomes of it is written down
    /// and nothing else.
    pub(crate) fn compare(&mut self, member: usize, picture: &Picture) -> Option<JudgmentRecord> {
        let other = Arc::clone(&self.grounds.trial.as_ref()?.other);
        let patience = self.grounds.policy.limits.judge_deadline.min(self.time_left() / PART);
        if self.gave_up_comparing || patience == Duration::ZERO || self.is_over() {
            return None;
        }
        let _span = tracing::info_span!(target: "cluegate::trace", "compare", member).entered();
        let began = Instant::now();
        let asked = Asked { constitution: &other, unfinished: None, glance: None, patience, began };
        let services = Arc::clone(&self.services);
        let prepared = services.judges.get(&other, &self.model_call(patience));
        let judging = self.begin_to_judge_with(prepared, picture, asked, &services.comparing);
        let Judged { mut record, result } = judging.wait();
        if let Some(state) = self.members.get_mut(member) {
            state.timings.judging += record.ms;
        }
        match &result {
            Ok(report) => record.action = strictest_action(report, &self.grounds.policy.actions, &other),
            // The next picture of this request does not wait for it again.
            Err(failure) => self.gave_up_comparing = failure.is_timeout(),
        }
        Some(record)
    }

    /// How the two constitutions compare on the last picture that was judged.
    pub(crate) fn compared(&self, attempts: &[AttemptRecord]) -> Option<CanaryRecord> {
        let trial = self.grounds.trial.as_ref()?;
        let (decides, deciding, other) =
            (trial.decides, named(&self.grounds.constitution), named(&trial.other));
        let (stable, canary) = match decides {
            CanaryDecides::Stable => (deciding, other),
            CanaryDecides::Canary => (other, deciding),
        };
        let last = attempts.iter().rev().find(|attempt| attempt.judgment.is_some());
        let pair = last.and_then(|attempt| attempt.judgment.as_ref().zip(attempt.compared.as_ref()));
        let agreement = pair.map_or(Agreement::Unknown, |(one, two)| agreement(one, two));
        Some(CanaryRecord { stable, canary, decides, agreement })
    }
}

fn agreement(one: &JudgmentRecord, two: &JudgmentRecord) -> Agreement {
    let failed = |judgment: &JudgmentRecord| judgment.verdict == Judgment::Error;
    let mut rules = [one, two].map(|judgment| judgment.violated.clone());
    rules.iter_mut().for_each(|rules| rules.sort_unstable());
    match rules {
        _ if failed(one) || failed(two) => Agreement::Unknown,
        [one_rules, two_rules] if one_rules == two_rules && one.action == two.action => Agreement::Same,
        _ if one.action == two.action => Agreement::SameAction,
        _ => Agreement::Different,
    }
}
