//! What a host gets for a picture, and the only way to a released one.

use std::sync::Arc;

use bytes::Bytes;
use cluegate_constitution::{Constitution, Revision};
use cluegate_judge::{Report, Stages};
use cluegate_perception::{FileFormat, Picture};
use image::RgbImage;

use crate::picture::encode_png;
use crate::placeholder::Placeholder;
use crate::policy::{Action, Actions, CanaryDecides, Mode, OnError, Policy, Strategy};
use crate::signing::Stated;
use crate::stamp::Stamp;
use crate::tenant::{Grounds, Services};
use crate::{Decision, DecisionRecord, GateError, LogError, Reason};

/// A picture together with the right to release it. Made only here: from a complete verdict on this very picture under
/// the constitution that decides in which every violated rule is allowed or mode `shadow` watches only, or from a policy
/// that names fail-open.
#[derive(Debug)]
pub(crate) struct Permit {
    picture: Picture,
    reason: Reason,
}

/// Why a verdict gives no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// A violated rule is not allowed; this is the strictest action for one.
    Violated(Action),
    /// The verdict is not complete, or not about this picture, or not under this constitution.
    Unfit(&'static str),
}

/// The strictest action for the rules that `report` finds violated; none if it finds none.
pub(crate) fn strictest_action(
    report: &Report,
    actions: &Actions,
    constitution: &Constitution,
) -> Option<Action> {
    let action = |id: &String| {
        // A rule that the constitution does not have cannot be looked up, and so is blocked.
        constitution.rule(id).map_or(Action::Block, |rule| actions.of(id, rule.severity))
    };
    report.violated().iter().map(action).max()
}

impl Permit {
    /// The right to release `picture` as it was judged.
    pub(crate) fn judged(
        picture: Picture,
        report: &Report,
        grounds: &Grounds,
        redacted: bool,
    ) -> Result<Self, NoPermit> {
        check_fit(&picture, report, grounds.constitution.revision(), !grounds.policy.prefilter)
            .map_err(NoPermit::Unfit)?;
        let reason = match strictest_action(report, &grounds.policy.actions, &grounds.constitution) {
            Some(Action::Allow) | None if redacted => Reason::Redacted,
            Some(Action::Allow) => Reason::Allowed,
            Some(stricter) => return Err(NoPermit::Violated(stricter)),
            None => Reason::Safe,
        };
        Ok(Self { picture, reason })
    }

    /// The right to show `preview` while its picture is drawn: only if it violates nothing at all.
    pub(crate) fn preview(preview: Picture, report: &Report, grounds: &Grounds) -> Option<Self> {
        let judged = Self::judged(preview, report, grounds, false).ok()?;
        (judged.reason == Reason::Safe).then_some(Self { reason: Reason::Preview, ..judged })
    }

    /// The right to release `picture` as it was judged, whatever it violates: only under a policy in mode `shadow`, and on
    /// a complete verdict like any other.
    pub(crate) fn watched(picture: Picture, report: &Report, grounds: &Grounds) -> Result<Self, NoPermit> {
        match (Self::judged(picture.clone(), report, grounds, false), grounds.policy.mode) {
            (Err(NoPermit::Violated(_)), Mode::Shadow) => Ok(Self { picture, reason: Reason::Shadow }),
            (judged, _) => judged,
        }
    }

    /// The right to release `picture` unjudged, which only a policy that names it gives, and never for a canary.
    pub(crate) fn unjudged(picture: Picture, grounds: &Grounds) -> Option<Self> {
        let canary = grounds.trial.as_ref().is_some_and(|trial| trial.decides == CanaryDecides::Canary);
        match grounds.policy.on_error {
            OnError::ReleaseUnjudged if !canary => Some(Self { picture, reason: Reason::Unjudged }),
            OnError::ReleaseUnjudged | OnError::Block => None,
        }
    }

    /// Why the picture may be released.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// The picture, for the log.
    pub(crate) fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Releases the picture, once its decision is in the log, with what its file states.
    pub(crate) fn release(self, logged: Logged, stated: Stated) -> ReleasedPicture {
        ReleasedPicture { picture: self.picture, decision: logged.0, stated }
    }
}

/// Refuses a report that is not a complete verdict on `picture` under `revision`.
pub(crate) fn check_fit(
    picture: &Picture,
    report: &Report,
    revision: Revision,
    whole: bool,
) -> Result<(), &'static str> {
    let Some(verdict) = report.complete() else {
        return Err("a stage of the method was switched off");
    };
    if verdict.picture() != picture.hash() {
        return Err("the verdict is about another picture");
    }
    if verdict.revision() != revision {
        return Err("the verdict was reached under another revision of the constitution");
    }
    if whole && verdict.prefiltered() {
        return Err("the verdict is a pre-filter's, where the whole method was asked for");
    }
    Ok(())
}

/// Refuses a report that is no glance at `preview` under `revision`, nor a complete verdict on it.
pub(crate) fn check_glance(
    preview: &Picture,
    report: &Report,
    revision: Revision,
) -> Result<(), &'static str> {
    if report.complete().is_none() && report.stages() != Stages::GLANCE {
        return Err("a stage of the method was switched off that a glance has");
    }
    if report.picture() != preview.hash() {
        return Err("the verdict is about another picture");
    }
    if report.revision() != revision {
        return Err("the verdict was reached under another revision of the constitution");
    }
    Ok(())
}

/// A decision that is in the log.
#[derive(Debug)]
pub(crate) struct Logged(Arc<DecisionRecord>);

impl Logged {
    /// Writes `record` to the log, with the pictures that it is about. A log that panics has failed.
    pub(crate) fn write(
        record: DecisionRecord,
        judged: Option<&Picture>,
        released: Option<&Picture>,
        (policy, services): (&Policy, &Services),
    ) -> Result<Self, Box<(DecisionRecord, LogError)>> {
        let decision = Decision { record: &record, judged, released, policy };
        let span = tracing::info_span!(target: "cluegate::trace", "log", decision = %record.decision_id);
        let written = crate::watchdog::guard(|| span.in_scope(|| services.log.append(&decision)));
        match written {
            Ok(Ok(())) => Self::published(record, services),
            Ok(Err(error)) => Err(Box::new((record, error))),
            Err(panic) => Err(Box::new((record, LogError::new("writer", format!("panicked: {panic}"))))),
        }
    }

    /// Tells those who are to be told. What they were not told of is not released.
    fn published(
        record: DecisionRecord,
        services: &Services,
    ) -> Result<Self, Box<(DecisionRecord, LogError)>> {
        let Some(extensions) = services.extensions.get() else { return Ok(Self(Arc::new(record))) };
        match crate::watchdog::guard(|| extensions.publish(&record)) {
            Ok(Ok(())) => Ok(Self(Arc::new(record))),
            Ok(Err(error)) => {
                Err(Box::new((record, LogError::new("of a plugin", format!("failed: {error}")))))
            }
            Err(panic) => Err(Box::new((record, LogError::new("of a plugin", format!("panicked: {panic}"))))),
        }
    }

    /// The decision.
    pub(crate) fn record(&self) -> &Arc<DecisionRecord> {
        &self.0
    }
}

/// A picture that the gate lets out. Only a session makes one, and only after its decision is in the log.
#[derive(Debug, Clone)]
pub struct ReleasedPicture {
    picture: Picture,
    decision: Arc<DecisionRecord>,
    stated: Stated,
}

impl ReleasedPicture {
    /// The picture.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// The pixels.
    pub fn pixels(&self) -> &RgbImage {
        self.picture.pixels()
    }

    /// Why it was released: [`Reason::Safe`], [`Reason::Allowed`], [`Reason::Redacted`], [`Reason::Shadow`],
    /// [`Reason::Unjudged`] or [`Reason::Preview`].
    pub fn reason(&self) -> Reason {
        self.decision.reason
    }

    /// Whether no verdict stands behind it, because the policy fails open.
    pub fn is_unjudged(&self) -> bool {
        self.decision.unjudged
    }

    /// Whether it violates a rule that the policy does not allow, and is released because the policy's mode is `shadow`.
    pub fn is_watched_only(&self) -> bool {
        self.decision.reason == Reason::Shadow
    }

    /// Whether something in it was hidden.
    pub fn is_redacted(&self) -> bool {
        self.decision.reason == Reason::Redacted
    }

    /// The decision as it was logged.
    pub fn decision(&self) -> &Arc<DecisionRecord> {
        &self.decision
    }

    /// The text in its file that says where it comes from; none unless the policy says so (`provenance = "text"`), and none for
    /// a preview or a picture without a verdict that lets it out.
    pub fn stamp(&self) -> Option<&Stamp> {
        match &self.stated {
            Stated::Text(stamp) => Some(stamp),
            Stated::Nothing | Stated::Signed(_) => None,
        }
    }

    /// Whether its file holds signed content credentials (`provenance = "c2pa"`).
    pub fn is_signed(&self) -> bool {
        matches!(self.stated, Stated::Signed(_))
    }

    /// A file of the pixels, with none of the metadata that the generator may have written ([`Picture::encode`]), and with
    /// what the policy has it state. Signed files are there already in the format that the request named
    /// ([`crate::RequestInfo::file`]); for another format a file is signed now.
    ///
    /// # Errors
    /// If the encoder fails, or the file cannot be signed. There is no file without its signature then.
    pub fn encode(&self, format: FileFormat) -> Result<Bytes, GateError> {
        self.stated.file(&self.picture, format)
    }

    /// A PNG file, as [`ReleasedPicture::encode`].
    ///
    /// # Errors
    /// As [`ReleasedPicture::encode`].
    pub fn encode_png(&self) -> Result<Vec<u8>, GateError> {
        self.encode(FileFormat::Png).map(Vec::from)
    }
}

/// A picture that nobody gets. Its pixels are gone; there may be a placeholder.
#[derive(Debug, Clone)]
pub struct Withheld {
    pub(crate) placeholder: Option<Placeholder>,
    pub(crate) decision: Arc<DecisionRecord>,
}

impl Withheld {
    /// Why.
    pub fn reason(&self) -> Reason {
        self.decision.reason
    }

    /// Why, for people.
    pub fn message(&self) -> &str {
        &self.decision.message
    }

    /// What stands in for the picture, if the policy wants something to.
    pub fn placeholder(&self) -> Option<&Placeholder> {
        self.placeholder.as_ref()
    }

    /// The decision as it was logged; with [`Reason::LogFailure`], as it could not be.
    pub fn decision(&self) -> &Arc<DecisionRecord> {
        &self.decision
    }
}

/// A picture that waits for a person. It is not released: the requester gets the placeholder, if there is one.
#[derive(Debug, Clone)]
pub struct HeldPicture {
    pub(crate) picture: Picture,
    pub(crate) placeholder: Option<Placeholder>,
    pub(crate) decision: Arc<DecisionRecord>,
}

impl HeldPicture {
    /// The picture as PNG, for the person who reviews it and for nobody else.
    ///
    /// # Errors
    /// If the encoder fails.
    pub fn encode_png_for_review(&self) -> Result<Vec<u8>, GateError> {
        encode_png(&self.picture)
    }

    /// What the requester sees meanwhile.
    pub fn placeholder(&self) -> Option<&Placeholder> {
        self.placeholder.as_ref()
    }

    /// The decision as it was logged.
    pub fn decision(&self) -> &Arc<DecisionRecord> {
        &self.decision
    }
}

/// A member is to be drawn again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawAgain {
    /// Index of the picture in the request.
    pub member: usize,
    /// Number of the attempt to come, from 2.
    pub attempt: u32,
    /// Its seed. Below 2^32, which every generator takes.
    pub seed: u64,
    /// What is changed beside the seed.
    pub strategy: Strategy,
    /// The statements that attempts so far violated: words for a negative prompt. Empty where the seed alone is to change.
    pub avoid: Vec<String>,
    /// What to draw in place of the request's own prompt, if that was rewritten.
    pub prompt: Option<String>,
    /// Why, for people.
    pub message: String,
}

/// What a host does with a member now.
#[derive(Debug, Clone)]
pub enum Instruction {
    /// Hand this picture out.
    Release(ReleasedPicture),
    /// Draw the member again.
    DrawAgain(DrawAgain),
    /// Hand out the placeholder or nothing, and say why.
    Withhold(Withheld),
    /// Keep the picture for a person.
    Hold(HeldPicture),
}

impl Instruction {
    /// The final outcome.
    ///
    /// # Errors
    /// If the member is to be drawn again.
    pub fn into_outcome(self) -> Result<MemberOutcome, DrawAgain> {
        match self {
            Self::Release(picture) => Ok(MemberOutcome::Released(picture)),
            Self::Withhold(withheld) => Ok(MemberOutcome::Withheld(withheld)),
            Self::Hold(held) => Ok(MemberOutcome::Held(held)),
            Self::DrawAgain(again) => Err(again),
        }
    }
}

/// What became of a member.
#[derive(Debug, Clone)]
pub enum MemberOutcome {
    /// It is released.
    Released(ReleasedPicture),
    /// It is withheld.
    Withheld(Withheld),
    /// It waits for a person.
    Held(HeldPicture),
}

impl MemberOutcome {
    /// The decision.
    pub fn decision(&self) -> &Arc<DecisionRecord> {
        match self {
            Self::Released(picture) => picture.decision(),
            Self::Withheld(withheld) => withheld.decision(),
            Self::Held(held) => held.decision(),
        }
    }

    /// Index of the picture in the request.
    pub fn member(&self) -> usize {
        self.decision().member as usize
    }
}
