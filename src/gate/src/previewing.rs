//! What a session does with a picture that is still being drawn.

use cluegate_judge::Report;
use cluegate_perception::Picture;

use crate::inspector::Unfinished;
use crate::judging::{Failure, Judged};
use crate::ladder::Next;
use crate::policy::{Action, AfterTries};
use crate::record::{Outcome, PreviewRecord};
use crate::released::{Instruction, Logged, Permit, ReleasedPicture};
use crate::session::{Session, Verdict};
use crate::{GateError, Reason};

/// What a host does after a preview.
#[derive(Debug, Clone)]
pub enum PreviewInstruction {
    /// Draw on. The preview comes back if the requester may see it: the policy allows `client.previews`, and it was
    /// judged and violates nothing.
    Continue(Option<ReleasedPicture>),
    /// Give this attempt up, discard what it made, and do this instead.
    Abort(Instruction),
}

/// What follows an attempt that was given up.
enum Then {
    /// Another one.
    Again(Next),
    /// None.
    Withhold(Reason),
}

impl Session {
    /// Whether the gate wants to see a preview of `member` after `step` of `total` steps.
    pub fn wants_preview(&self, member: usize, step: u32, total: u32) -> bool {
        let open = self.members.get(member).is_some_and(|member| member.decision.is_none());
        // Once nobody waits any more every step is wanted, so that the attempt can be given up.
        open && (self.grounds.policy.previews.is_due(step, total) || (step < total && self.is_over()))
    }

    /// Judges a preview. A picture that the finished one could still be saved from (by redaction, or because the rule
    /// is allowed) is drawn on; a preview without a verdict is drawn on too, because the finished picture is judged
    /// anyway. What comes with [`PreviewInstruction::Continue`] may be shown to the requester; nothing else of a preview
    /// may.
    ///
    /// # Errors
    /// If there is no such member or its decision is final.
    pub fn preview(
        &mut self,
        member: usize,
        step: u32,
        total: u32,
        preview: &Picture,
    ) -> Result<PreviewInstruction, GateError> {
        self.open_member(member)?;
        self.drew(member, step, total);
        if let Some(over) = self.withhold_if_over(member) {
            return Ok(PreviewInstruction::Abort(over));
        }
        if let Some(refused) = self.refused_by_prompt(member) {
            return Ok(PreviewInstruction::Abort(Instruction::Withhold(refused)));
        }
        let Judged { mut record, result } = if self.pixel_problem(preview).is_none() {
            self.judge(member, preview, Some(Unfinished::Preview))
        } else {
            Judged::failed(Failure::new("limit", "the preview has more pixels than the policy allows"))
        };
        let report = result.ok();
        let action = report.as_ref().and_then(|report| self.strictest(report));
        record.action = action;
        let verdict = action.and_then(|action| self.abort_for(member, action));
        // Mode `shadow` draws on, and notes what would have been done.
        let would_abort = verdict.is_some() && self.is_shadow();
        let verdict = verdict.filter(|_| !would_abort);
        let aborted = verdict.is_some();
        if let Some(member) = self.members.get_mut(member) {
            member.current.previews.push(PreviewRecord {
                step,
                total,
                aborted,
                would_abort,
                judgment: record,
            });
        }
        let (Some(then), Some(report)) = (verdict, report.as_ref()) else {
            let shown = report.and_then(|report| self.show(member, preview, &report));
            return Ok(PreviewInstruction::Continue(shown));
        };
        let what = format!("the preview after step {step} of {total} {}", self.violates(report));
        self.note_attempt(member, false);
        Ok(PreviewInstruction::Abort(match then {
            Then::Again(next) => self.draw_again(member, report, next, &what),
            Then::Withhold(reason) => {
                self.withhold(member, Verdict { reason, message: what, report: Some(report) })
            }
        }))
    }

    /// How a preview that violates a rule of this action ends the attempt, if it does.
    fn abort_for(&self, member: usize, action: Action) -> Option<Then> {
        match action {
            Action::Block => Some(Then::Withhold(Reason::Violation)),
            Action::Regenerate => match (self.next_if_given_up(member), self.grounds.policy.after_tries) {
                (Ok(next), _) => Some(Then::Again(next)),
                (Err(_), AfterTries::Block) => Some(Then::Withhold(Reason::TriesExhausted)),
                (Err(_), AfterTries::Redact) => None,
            },
            // The finished picture is allowed, redacted, or shown to a person.
            Action::Allow | Action::Redact | Action::Hold => None,
        }
    }

    /// Releases a preview that violates nothing to a requester who may see previews. A decision of its own, which is
    /// logged first and says nothing about the picture to come.
    fn show(&self, member: usize, preview: &Picture, report: &Report) -> Option<ReleasedPicture> {
        if !self.grounds.policy.client.previews {
            return None;
        }
        let permit = Permit::preview(preview.clone(), report, &self.grounds)?;
        if !self.screen(preview).is_ok_and(|screening| !screening.keeps_back()) {
            return None;
        }
        let message = "the preview violates no rule".to_owned();
        let verdict = Verdict { reason: permit.reason(), message, report: Some(report) };
        let mut record = self.record_without_attempts(member, Outcome::Released, verdict);
        record.released_picture = Some(permit.picture().hash().to_hex());
        match Logged::write(record, Some(preview), Some(permit.picture()), self.log_of()) {
            Ok(logged) => Some(permit.release(logged, &self.grounds.policy)),
            Err(failed) => {
                tracing::error!(error = %failed.1, "a preview could not be logged; it is not shown");
                None
            }
        }
    }
}
