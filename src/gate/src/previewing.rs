//! What a session does with a picture that is still being drawn.

use cluegate_judge::{Glance, Outcome as RuleOutcome, Report};
use cluegate_perception::Picture;

use crate::inspector::Unfinished;
use crate::judging::{Judged, Judging};
use crate::ladder::Next;
use crate::policy::{Action, AfterTries, PreviewJudgment};
use crate::record::{AttemptRecord, Outcome, PreviewRecord};
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

/// A picture on its way.
pub(crate) struct Preview {
    step: u32,
    total: u32,
    picture: Picture,
}

/// A preview in the hands of the judge.
pub(crate) struct Watched {
    preview: Preview,
    /// By how much a rule must be violated at a glance, and the calibrated threshold; `None` for the whole method.
    glance: Option<(f64, Option<f64>)>,
    judging: Judging,
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

    /// Judges a preview, and waits for the verdict. One after a step of the policy's schedule may end the attempt; any other is
    /// judged only if the requester may see it, and ends nothing. A picture that the finished one could still be saved from
    /// (by redaction, or because the rule is allowed) is drawn on; a preview without a verdict is drawn on too, because the
    /// finished picture is judged anyway. What comes with [`PreviewInstruction::Continue`] may be shown to the requester;
    /// nothing else of a preview may.
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
        let mut told = self.begin_preview(member, step, total, preview)?;
        while self.is_watched(member) {
            told = self.hear(member, |judging| Some(judging.wait()));
        }
        Ok(told.unwrap_or(PreviewInstruction::Continue(None)))
    }

    /// Has a preview judged while the host draws on, and says what [`Session::poll_preview`] does. One preview of a member is
    /// judged at a time. Of those that come meanwhile the newest of the schedule waits, because it tells most of the picture;
    /// older ones and others are left out, and of a finished picture none is judged any more.
    ///
    /// # Errors
    /// If there is no such member or its decision is final.
    pub fn begin_preview(
        &mut self,
        member: usize,
        step: u32,
        total: u32,
        preview: &Picture,
    ) -> Result<Option<PreviewInstruction>, GateError> {
        self.open_member(member)?;
        self.drew(member, step, total);
        let told = self.poll_preview(member)?;
        if matches!(told, Some(PreviewInstruction::Abort(_))) {
            return Ok(told);
        }
        let preview = Preview { step, total, picture: preview.clone() };
        if !self.is_watched(member) {
            self.watch_preview(member, preview);
        } else if self.is_scheduled(&preview)
            && let Some(state) = self.members.get_mut(member)
        {
            state.waiting = Some(preview);
        }
        Ok(told)
    }

    /// What follows from the preview of `member` that is being judged, without a wait: `None` while there is no verdict.
    /// Call it after each step, and draw on until it says otherwise.
    ///
    /// # Errors
    /// If there is no such member or its decision is final.
    pub fn poll_preview(&mut self, member: usize) -> Result<Option<PreviewInstruction>, GateError> {
        self.open_member(member)?;
        if let Some(over) = self.withhold_if_over(member) {
            return Ok(Some(PreviewInstruction::Abort(over)));
        }
        if let Some(refused) = self.refused_by_prompt(member) {
            return Ok(Some(PreviewInstruction::Abort(Instruction::Withhold(refused))));
        }
        if !self.is_watched(member) {
            return Ok(Some(PreviewInstruction::Continue(None)));
        }
        Ok(self.hear(member, Judging::poll))
    }

    /// What follows for a finished picture from the verdict on a preview, if that is there: nothing, or that the attempt is
    /// given up.
    pub(crate) fn given_up_by_preview(&mut self, member: usize) -> Option<Instruction> {
        // The picture itself tells more than what still waits.
        self.members.get_mut(member)?.waiting = None;
        let (watched, judged) = self.verdict(member, Judging::poll)?;
        self.conclude(member, &watched, judged).err()
    }

    /// Notes what the preview that is still being judged took. Its verdict changes nothing any more.
    pub(crate) fn end_previews(&mut self, member: usize) {
        let Some(state) = self.members.get_mut(member) else { return };
        state.waiting = None;
        if let Some(watched) = state.watched.take() {
            let judged = watched.judging.give_up("the attempt ended before its preview was judged");
            self.note_preview(member, &watched, judged, false);
        }
    }

    fn is_watched(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|state| state.watched.is_some())
    }

    /// Whether the policy asks for it, so that it may end the attempt.
    fn is_scheduled(&self, preview: &Preview) -> bool {
        self.grounds.policy.previews.is_due(preview.step, preview.total)
    }

    /// Gives a preview to the judge.
    fn watch_preview(&mut self, member: usize, preview: Preview) {
        let (picture, unfinished) = (&preview.picture, Some(Unfinished::Preview));
        let (judging, glance) = match self.look(member, preview.step, preview.total) {
            Look::Spared => return,
            Look::Whole => (self.begin_to_judge(member, picture, unfinished, None), None),
            Look::Glance(glance, threshold) => {
                let enough = glance.enough;
                let judging = self.begin_to_judge(member, picture, unfinished, Some(glance));
                (judging, Some((enough, threshold)))
            }
        };
        let watched = Watched { preview, glance, judging };
        if let Some(state) = self.members.get_mut(member) {
            state.watched = Some(watched);
        }
    }

    /// The preview in the hands of the judge, with the verdict that `ask` finds.
    fn verdict(
        &mut self,
        member: usize,
        ask: impl FnOnce(&Judging) -> Option<Judged>,
    ) -> Option<(Watched, Judged)> {
        let slot = &mut self.members.get_mut(member)?.watched;
        let judged = ask(&slot.as_ref()?.judging)?;
        slot.take().map(|watched| (watched, judged))
    }

    /// Follows the verdict that `ask` finds, and gives the judge what waits.
    fn hear(
        &mut self,
        member: usize,
        ask: impl FnOnce(&Judging) -> Option<Judged>,
    ) -> Option<PreviewInstruction> {
        let (watched, judged) = self.verdict(member, ask)?;
        Some(match self.conclude(member, &watched, judged) {
            Err(then) => PreviewInstruction::Abort(then),
            Ok(report) => {
                if let Some(next) = self.members.get_mut(member).and_then(|state| state.waiting.take()) {
                    self.watch_preview(member, next);
                }
                let shown = report.and_then(|report| self.show(member, &watched.preview.picture, &report));
                PreviewInstruction::Continue(shown)
            }
        })
    }

    /// Notes a verdict, and gives the attempt up if that follows from it. The report, where the drawing goes on.
    fn conclude(
        &mut self,
        member: usize,
        watched: &Watched,
        judged: Judged,
    ) -> Result<Option<Report>, Instruction> {
        let Preview { step, total, .. } = watched.preview;
        let action = judged.result.as_ref().ok().and_then(|report| self.sure(report, watched.glance));
        let scheduled = self.is_scheduled(&watched.preview);
        let then = action.filter(|_| scheduled).and_then(|action| self.abort_for(member, action));
        let report = self.note_preview(member, watched, judged, then.is_some());
        // Mode `shadow` draws on, and notes what would have been done.
        let (Some(then), Some(report), false) = (then, &report, self.is_shadow()) else { return Ok(report) };
        let what = format!("the preview after step {step} of {total} {}", self.violates(report));
        self.note_attempt(member, false);
        Err(match then {
            Then::Again(next) => self.draw_again(member, report, next, &what),
            Then::Withhold(reason) => {
                self.withhold(member, Verdict { reason, message: what, report: Some(report) })
            }
        })
    }

    /// Writes a judged preview down, with whether it ends the attempt, and counts what it took. The report, if there is one.
    fn note_preview(
        &mut self,
        member: usize,
        watched: &Watched,
        judged: Judged,
        ends: bool,
    ) -> Option<Report> {
        let Judged { record: mut judgment, result } = judged;
        let report = result.ok();
        judgment.action = report.as_ref().and_then(|report| self.strictest(report));
        self.add_cost(member, &judgment);
        let record = PreviewRecord {
            step: watched.preview.step,
            total: watched.preview.total,
            aborted: ends && !self.is_shadow(),
            would_abort: ends && self.is_shadow(),
            score: report.as_ref().and_then(Report::margin),
            threshold: watched.glance.and_then(|(_, threshold)| threshold),
            judgment,
        };
        if let Some(state) = self.members.get_mut(member) {
            state.current.previews.push(record);
        }
        report
    }

    /// The strictest action for what a report on a preview is sure of.
    fn sure(&self, report: &Report, glance: Option<(f64, Option<f64>)>) -> Option<Action> {
        match glance {
            None => self.strictest(report),
            Some((enough, threshold)) if self.is_calibrated_for(report, threshold) => {
                self.strictest_above(report, enough)
            }
            Some(_) => None,
        }
    }

    /// How a preview after `step` of `total` steps is judged.
    fn look(&self, member: usize, step: u32, total: u32) -> Look {
        let policy = &self.grounds.policy;
        // What a requester sees has been judged by the whole method.
        if policy.client.previews {
            return Look::Whole;
        }
        if !policy.previews.is_due(step, total) {
            return Look::Spared;
        }
        if policy.preview_judgment == PreviewJudgment::Whole {
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
