//! What may be put beside the gate's own judge and actions: plugins.

use std::sync::Arc;

use cluegate_perception::{Call, Picture, Region};

use crate::inspector::InspectionError;
use crate::judging::Failure;
use crate::record::{AttemptRecord, DecisionRecord, FindingRecord};
use crate::redaction::PixelBox;
use crate::released::Instruction;
use crate::session::{Session, Verdict};
use crate::{GateError, Reason};

/// What extensions say of a picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Screening {
    /// Why it is withheld, a half sentence for each reason, such as "the plugin colours calls the picture unsafe".
    pub withhold: Vec<String>,
    /// Why it is released with `regions` hidden or not at all, in the same way.
    pub redact: Vec<String>,
    /// What is hidden when anything of the picture is, in its pixels.
    pub regions: Vec<Region>,
    /// What was found, for the log.
    pub findings: Vec<FindingRecord>,
}

impl Screening {
    /// Whether the picture may not be released as it is.
    pub fn keeps_back(&self) -> bool {
        !self.withhold.is_empty() || !self.redact.is_empty()
    }

    fn reasons(&self) -> Vec<String> {
        self.withhold.iter().chain(&self.redact).cloned().collect()
    }
}

/// What looks at pictures beside the judge, and acts in place of the gate. It can keep a picture back, never release one: a
/// failure withholds the picture that it is about, whatever the policy says of a judge that fails. Each function may panic
/// or hang, except [`Extensions::publish`]. What an implementation leaves out it has nothing to say to.
pub trait Extensions: Send + Sync {
    /// What they say of a picture.
    ///
    /// # Errors
    /// If that cannot be told.
    fn screen(&self, picture: &Picture, call: &Call) -> Result<Screening, InspectionError> {
        let _ = (picture, call);
        Ok(Screening::default())
    }

    /// The picture with nothing to be made out inside `boxes`, or none if the gate is to hide them itself. What comes back is
    /// judged like any other picture.
    ///
    /// # Errors
    /// If it cannot be hidden.
    fn redact(
        &self,
        picture: &Picture,
        boxes: &[PixelBox],
        prompt: &str,
        call: &Call,
    ) -> Result<Option<Picture>, InspectionError> {
        let _ = (picture, boxes, prompt, call);
        Ok(None)
    }

    /// The prompt for another attempt, the `attempt`th; none to draw from the same one again.
    ///
    /// # Errors
    /// If it cannot be rewritten.
    fn rewrite(
        &self,
        prompt: &str,
        avoid: &[String],
        attempt: u32,
        call: &Call,
    ) -> Result<Option<String>, InspectionError> {
        let _ = (prompt, avoid, attempt, call);
        Ok(None)
    }

    /// Tells others of a decision that is in the log.
    ///
    /// # Errors
    /// If they could not be told; the picture is withheld then.
    fn publish(&self, decision: &DecisionRecord) -> Result<(), InspectionError> {
        let _ = decision;
        Ok(())
    }
}

impl Session {
    /// Runs `work` of the extensions, if there are any, like a judge: on a thread of the gate's own, and no longer than one.
    fn extended<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Extensions, &Call) -> Result<T, InspectionError> + Send + 'static,
    ) -> Option<Result<T, Failure>> {
        let extensions = Arc::clone(self.services.extensions.get()?);
        let deadline = self.patience();
        let call = self.model_call(deadline);
        let theirs = call.clone();
        let answer = self.services.watchdog.run(deadline, move || work(extensions.as_ref(), &theirs));
        call.cancel();
        Some(answer.map_err(Failure::from).and_then(|answer| answer.map_err(Failure::from)))
    }

    /// What the extensions say of `picture`. A policy that only watches takes none of it to heart.
    pub(crate) fn screen(&self, picture: &Picture) -> Result<Screening, Failure> {
        let copy = picture.clone();
        self.extended(move |extensions, call| extensions.screen(&copy, call))
            .unwrap_or_else(|| Ok(Screening::default()))
    }

    /// The same of a picture of `member`, which is withheld if they want that or cannot tell. What they found is noted with
    /// the attempt: in `place`, or nowhere if that is not there.
    ///
    /// # Errors
    /// What follows for the member then.
    pub(crate) fn screened(
        &mut self,
        member: usize,
        picture: &Picture,
        place: impl FnOnce(&mut AttemptRecord) -> Option<&mut Vec<FindingRecord>>,
    ) -> Result<Screening, Instruction> {
        let mut screening = match self.screen(picture) {
            Ok(screening) => screening,
            Err(failure) => return Err(self.fail(member, failure.reason(), failure.message())),
        };
        if let Some(place) = self.members.get_mut(member).and_then(|state| place(&mut state.current)) {
            *place = std::mem::take(&mut screening.findings);
        }
        if !screening.withhold.is_empty() && !self.is_shadow() {
            let message = screening.withhold.join(" and ");
            self.note_attempt(member, false);
            return Err(self.withhold(member, Verdict { reason: Reason::Violation, message, report: None }));
        }
        if self.is_shadow() && screening.keeps_back() {
            let reasons = screening.reasons().join(" and ");
            tracing::warn!(
                member,
                reasons,
                "would be withheld or redacted, were it not for the policy's mode"
            );
            return Ok(Screening::default());
        }
        Ok(screening)
    }

    /// The picture that an extension made of `picture`, if there is one for that.
    pub(crate) fn redact_by_extension(
        &self,
        picture: &Picture,
        boxes: &[PixelBox],
    ) -> Result<Option<Picture>, Failure> {
        let (copy, boxes, prompt) = (picture.clone(), boxes.to_vec(), self.request.prompt.clone());
        let redacted = self.extended(move |extensions, call| extensions.redact(&copy, &boxes, &prompt, call));
        match redacted {
            None => Ok(None),
            Some(redacted) => {
                let sizes = |picture: &Picture| (picture.width(), picture.height());
                match redacted? {
                    Some(hidden) if sizes(&hidden) != sizes(picture) => {
                        Err(Failure::new("redaction", "the redacted picture has another size"))
                    }
                    hidden => Ok(hidden),
                }
            }
        }
    }

    /// The prompt of another attempt.
    pub(crate) fn rewritten(&self, avoid: &[String], attempt: u32) -> Result<Option<String>, Failure> {
        let (prompt, avoid) = (self.request.prompt.clone(), avoid.to_vec());
        let limit = self.grounds.policy.limits.max_prompt_bytes;
        let rewritten =
            self.extended(move |extensions, call| extensions.rewrite(&prompt, &avoid, attempt, call));
        match rewritten.transpose()?.flatten() {
            Some(prompt) if prompt.len() as u64 > limit as u64 => Err(Failure::new(
                "limit",
                format!("the rewritten prompt has {} bytes, more than {limit}", prompt.len()),
            )),
            prompt => Ok(prompt),
        }
    }
}

impl crate::Gate {
    /// Puts extensions beside the judge, before the first session is opened.
    ///
    /// # Errors
    /// If there are some already.
    pub fn with_extensions(self, extensions: Arc<dyn Extensions>) -> Result<Self, GateError> {
        self.set_extensions(extensions)?;
        Ok(self)
    }
}
