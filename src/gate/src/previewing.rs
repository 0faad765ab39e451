//! What a session does with a picture that is still being drawn.

use cluegate_judge::{Glance, Outcome as RuleOutcome, Report};
use cluegate_perception::Picture;

use crate::inspector::Unfinished;
use crate::judging::{Failure, Judged};
use crate::ladder::Next;
use crate::policy::{Action, AfterTries, PreviewJudgment};
use crate::record::{AttemptRecord, JudgmentRecord, Outcome, PreviewRecord};
use crate::released::{Instruction, Logged, Permit, ReleasedPicture};
use crate::session::{Session, Verdict};
use crate::signing::Stated;
use crate::{GateError, Reason};

/// What a host does after a preview.
#[derive(Debug, Clone)]
pub enum PreviewInstruction {
    /// Draw on. The preview comes back if the requester may see it: the policy allows `client.previews`, and it was
    /// judged by the whole method and violates nothing.
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

/// How a preview is judged.
enum Look {
    /// Not at all: whatever it shows, the drawing goes on.
    Spared,
    /// At a glance, with the calibrated threshold if the policy has any.
    Glance(Glance, Option<f64>),
    /// By the whole method.
    Whole,
}

/// What a judgment of a preview says.
struct Seen {
    record: JudgmentRecord,
    report: Option<Report>,
    /// The strictest action for what it is sure of.
    action: Option<Action>,
    threshold: Option<f64>,
}

impl Session {
    /// Whether the gate wants to see a preview of `member` after `step` of `total` steps.
    pub fn wants_preview(&self, member: usize, step: u32, total: u32) -> bool {
        let open = self.members.get(member).is_some_and(|member| member.decision.is_none());
        let due = self.grounds.policy.previews.is_due(step, total);
        // Once nobody waits any more every step is wanted, so that the attempt can be given up.
        let over = step < total && self.is_over();
        open && (over || (due && !matches!(self.look(member, step, total), Look::Spared)))
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
        let look = self.look(member, step, total);
        let Some(Seen { record, report, action, threshold }) = self.see(member, preview, look) else {
            return Ok(PreviewInstruction::Continue(None));
        };
        let verdict = action.and_then(|action| self.abort_for(member, action));
        // Mode `shadow` draws on, and notes what would have been done.
        let would_abort = verdict.is_some() && self.is_shadow();
        let verdict = verdict.filter(|_| !would_abort);
        let aborted = verdict.is_some();
        let score = report.as_ref().and_then(Report::margin);
        if let Some(member) = self.members.get_mut(member) {
            member.current.previews.push(PreviewRecord {
                step,
                total,
                aborted,
                would_abort,
                score,
                threshold,
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

    /// How a preview after `step` of `total` steps is judged.
    fn look(&self, member: usize, step: u32, total: u32) -> Look {
        let policy = &self.grounds.policy;
        // What a requester sees has been judged by the whole method.
        if policy.preview_judgment == PreviewJudgment::Whole || policy.client.previews {
            return Look::Whole;
        }
        let threshold = match &self.grounds.thresholds {
            None => None,
            Some(thresholds) => {
                // Nothing is given up by thresholds that are for something else.
                let fits = thresholds.fits_generator(self.request.generator.as_deref())
                    && thresholds.check_constitution(&self.grounds.constitution).is_ok();
                match thresholds.above(step, total).filter(|_| fits) {
                    None => return Look::Spared,
                    above => above,
                }
            }
        };
        let ends = |action: &Action| self.abort_for(member, *action).is_some();
        let ending: Vec<Action> = [Action::Block, Action::Regenerate].into_iter().filter(ends).collect();
        let rules = policy.rules_with(&ending, &self.grounds.constitution);
        if rules.is_empty() {
            return Look::Spared;
        }
        let first = self.suspected();
        Look::Glance(Glance { rules, first, enough: threshold.unwrap_or(0.0) }, threshold)
    }

    /// Ids of the rules that some attempt or preview of this request violated.
    fn suspected(&self) -> Vec<String> {
        let attempts = self.members.iter().flat_map(|member| member.past.iter().chain([&member.current]));
        let violated = attempts.flat_map(AttemptRecord::judgments).flat_map(|judgment| &judgment.violated);
        let mut rules: Vec<String> = violated.cloned().collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Judges a preview so; none if it is spared that.
    fn see(&mut self, member: usize, preview: &Picture, look: Look) -> Option<Seen> {
        let too_large = self.pixel_problem(preview).is_some();
        let (judged, glance) = match look {
            Look::Spared => return None,
            _ if too_large => {
                let problem = "the preview has more pixels than the policy allows";
                (Judged::failed(Failure::new("limit", problem)), None)
            }
            Look::Whole => (self.judge(member, preview, Some(Unfinished::Preview)), None),
            Look::Glance(glance, threshold) => {
                let enough = glance.enough;
                (self.glance(member, preview, glance), Some((enough, threshold)))
            }
        };
        let Judged { mut record, result } = judged;
        let report = result.ok();
        record.action = report.as_ref().and_then(|report| self.strictest(report));
        let action = match (&report, glance) {
            (Some(report), Some((enough, threshold))) if self.is_calibrated_for(report, threshold) => {
                self.strictest_above(report, enough)
            }
            (Some(_), Some(_)) => None,
            _ => record.action,
        };
        let threshold = glance.and_then(|(_, threshold)| threshold);
        Some(Seen { record, report, action, threshold })
    }

    /// Whether the threshold, if there is one, was chosen with the judge that made `report`.
    fn is_calibrated_for(&self, report: &Report, threshold: Option<f64>) -> bool {
        let Some(thresholds) = self.grounds.thresholds.as_ref().filter(|_| threshold.is_some()) else {
            return true;
        };
        // A judge that knows no glance has no scores that could be compared with anything.
        let fits = thresholds.fits_judge(report) && report.complete().is_none();
        if !fits {
            tracing::warn!("the preview thresholds were chosen with another judge; they give nothing up");
        }
        fits
    }

    /// The strictest action for the rules that `report` finds violated by more than `enough`. A report of the whole method,
    /// from a judge that knows no glance, has no margins: there every violation counts.
    fn strictest_above(&self, report: &Report, enough: f64) -> Option<Action> {
        let sure = report.rules().iter().filter(|rule| {
            rule.outcome == RuleOutcome::Violated && rule.margin.is_none_or(|margin| margin > enough)
        });
        let constitution = &self.grounds.constitution;
        let action = |id: &str| {
            // As for finished pictures: a rule that cannot be looked up is blocked.
            let known = constitution.rule(id);
            known.map_or(Action::Block, |rule| self.grounds.policy.actions.of(id, rule.severity))
        };
        sure.map(|rule| action(&rule.id)).max()
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
    /// logged first and says nothing about the picture to come. What was only glanced at has no permit.
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
            Ok(logged) => Some(permit.release(logged, Stated::Nothing)),
            Err(failed) => {
                tracing::error!(error = %failed.1, "a preview could not be logged; it is not shown");
                None
            }
        }
    }
}
