//! A request in the hands of the gate: the host asks, the session decides.
//!
//! ```text
//! open -> check_prompt -> [wants_preview -> preview -> Continue | Abort(then)]* -> finished -> Instruction -+-> Release, Withhold, Hold
//!          ^                                                                               |
//!          +------------------------------- DrawAgain --------------------------------------+
//! close: members without a decision are withheld
//! ```
//! A host that draws on while a preview is judged calls `begin_preview` in place of `preview`, and `poll_preview` after each step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_judge::Report;
use cluegate_perception::{Call, PerceptionErrorKind, Picture};

use crate::extensions::Screening;
use crate::inspector::Inspector;
use crate::judging::{Failure, Judged};
use crate::ladder::Spent;
use crate::placeholder::Placeholder;
use crate::policy::{Action, AfterTries, Mode, PlaceholderKind, Policy};
use crate::previewing::{Preview, Watched};
use crate::record::{
    AttemptRecord, DecisionRecord, DecisionTimings, Outcome, PromptCheckRecord, WouldRecord,
};
use crate::released::{HeldPicture, Instruction, NoPermit, Permit, Withheld, strictest_action};
use crate::request::RequestInfo;
use crate::seeds::first_seed;
use crate::tenant::{Grounds, Services};
use crate::{GateError, Reason, picture};

/// Longer than any request lives.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// Longest name of a model, a key or an end user, in bytes.
const MAX_NAME_BYTES: u64 = 256;
/// Why a member of a request that was called off is withheld.
const CALLED_OFF: &str = "the requester called the request off";
/// Side in pixels of the placeholder for a picture of unknown size.
const PLACEHOLDER_SIDE: u32 = 512;

/// What became of a request.
#[derive(Debug, Clone)]
pub struct SessionReport {
    /// One decision for each picture, in order.
    pub decisions: Vec<Arc<DecisionRecord>>,
}

/// A request in the hands of the gate. Its members are decided one by one. Dropped before [`Session::close`], it
/// withholds what has no decision.
pub struct Session {
    pub(crate) services: Arc<Services>,
    pub(crate) grounds: Grounds,
    /// The judge that decides, once it was needed.
    pub(crate) inspector: Option<Arc<dyn Inspector>>,
    /// Whether the judge that a canary is compared with was too slow for this request once.
    pub(crate) gave_up_comparing: bool,
    pub(crate) request: RequestInfo,
    pub(crate) request_id: String,
    pub(crate) opened: Instant,
    /// The request's deadline: the requester's or the policy's.
    deadline: Instant,
    /// Whoever holds a copy can call the request off.
    pub(crate) call: Call,
    pub(crate) members: Vec<Member>,
    pub(crate) spent: Spent,
    /// What the prompt was found to ask for, once it was read.
    pub(crate) prompt_check: Option<PromptCheckRecord>,
}

/// One picture of the request.
pub(crate) struct Member {
    pub(crate) past: Vec<AttemptRecord>,
    pub(crate) current: AttemptRecord,
    /// The preview of the current attempt that is being judged.
    pub(crate) watched: Option<Watched>,
    /// The newest one of the schedule that waits for that.
    pub(crate) waiting: Option<Preview>,
    pub(crate) started: Instant,
    size: Option<(u32, u32)>,
    /// Steps of an attempt, if known.
    pub(crate) planned_steps: Option<u32>,
    /// Whether it is noted how the current attempt ended.
    pub(crate) noted: bool,
    /// Which of the strategies comes next.
    pub(crate) place: usize,
    /// The statements that attempts violated so far.
    pub(crate) avoid: Vec<String>,
    /// What is drawn, if not the request's own prompt.
    pub(crate) prompt: Option<String>,
    pub(crate) timings: DecisionTimings,
    /// The finished picture of the current attempt, until the decision about it is logged.
    pub(crate) judged: Option<Picture>,
    /// What extensions say of it.
    pub(crate) screening: Screening,
    pub(crate) decision: Option<Arc<DecisionRecord>>,
}

/// A decision to be logged.
pub(crate) struct Verdict<'a> {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) report: Option<&'a Report>,
}

impl Session {
    /// Opens a session on the grounds that hold for the request.
    pub(crate) fn open(
        services: Arc<Services>,
        grounds: impl FnOnce(&RequestInfo) -> Option<Grounds>,
        request: RequestInfo,
    ) -> Result<Self, GateError> {
        let request_id = request.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let Some(grounds) = grounds(&request) else {
            return Err(GateError::unknown_tenant(&request.tenant, std::iter::empty()));
        };
        let limits = grounds.policy.limits;
        let within = |what, found: u64, allowed: u64| {
            let error = GateError::Limit { tenant: request.tenant.clone(), what, allowed, found };
            if found > allowed { Err(error) } else { Ok(()) }
        };
        within("pictures", request.count.into(), limits.max_pictures.into())?;
        within("bytes of prompt", request.prompt.len() as u64, limits.max_prompt_bytes as u64)?;
        let pixels = request.size.map_or(0, |(width, height)| u64::from(width) * u64::from(height));
        within("pixels", pixels, limits.max_pixels)?;
        for (what, name) in [
            ("bytes of a model's name", &request.model),
            ("bytes of a key's id", &request.requested_by),
            ("bytes of an end user's name", &request.subject),
        ] {
            within(what, name.as_ref().map_or(0, |name| name.len() as u64), MAX_NAME_BYTES)?;
        }
        if let Some(thresholds) = &grounds.thresholds
            && !thresholds.fits_generator(request.generator.as_deref())
        {
            tracing::warn!(tenant = %grounds.policy, "the preview thresholds are for another generator; they give nothing up");
        }
        let opened = Instant::now();
        // An `Instant` has an end, and a policy may name a time beyond it.
        let latest = opened + limits.request_deadline.min(YEAR);
        let deadline = request.deadline.map_or(latest, |asked| asked.min(latest));
        let call = Call::new(Arc::clone(&grounds.policy.tenant)).until(deadline);
        let members = (0..request.count).map(|member| Member {
            past: Vec::new(),
            current: AttemptRecord {
                attempt: 1,
                seed: first_seed(request.seed, member),
                ..Default::default()
            },
            watched: None,
            waiting: None,
            started: opened,
            size: request.size,
            planned_steps: request.steps,
            noted: false,
            place: 0,
            avoid: Vec::new(),
            prompt: None,
            timings: DecisionTimings::default(),
            judged: None,
            screening: Screening::default(),
            decision: None,
        });
        Ok(Self {
            members: members.collect(),
            services,
            grounds,
            inspector: None,
            gave_up_comparing: false,
            request_id,
            opened,
            deadline,
            call,
            request,
            spent: Spent::default(),
            prompt_check: None,
        })
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// The gate's name for the request: the caller's own, or else a UUID.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// On whose behalf the request's work is done. To call a copy of it off ([`Call::cancel`]), from any thread, ends a
    /// judgment that is running and withholds every member that has no decision yet, as [`Reason::Cancelled`].
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The policy that decides.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.grounds.policy
    }

    /// Seed of the first attempt of `member`: the request's seed plus the member's index.
    pub fn first_seed(&self, member: usize) -> u64 {
        first_seed(self.request.seed, member as u32)
    }

    /// The decision about `member`, if there is one.
    pub fn decision(&self, member: usize) -> Option<&Arc<DecisionRecord>> {
        self.members.get(member)?.decision.as_ref()
    }

    /// Says that an attempt at `member` begins now, for the timings of the log. Optional.
    ///
    /// # Errors
    /// If there is no such member or its decision is final.
    pub fn start_attempt(&mut self, member: usize) -> Result<(), GateError> {
        self.open_member(member)?.started = Instant::now();
        Ok(())
    }

    /// Judges a finished picture and says what to do with it. A verdict on a preview of it that is there by now gives the
    /// attempt up as it would have while it was drawn; one that comes later changes nothing.
    ///
    /// # Errors
    /// If there is no such member or its decision is final; the picture is not judged then.
    pub fn finished(&mut self, member: usize, picture: Picture) -> Result<Instruction, GateError> {
        let state = self.open_member(member)?;
        state.size = Some((picture.width(), picture.height()));
        state.current.picture = Some(picture.hash().to_hex());
        self.drew_whole(member);
        if let Some(over) = self.withhold_if_over(member) {
            return Ok(over);
        }
        if let Some(refused) = self.refused_by_prompt(member) {
            return Ok(Instruction::Withhold(refused));
        }
        if let Some(given_up) = self.given_up_by_preview(member) {
            return Ok(given_up);
        }
        if let Some(message) = self.pixel_problem(&picture) {
            return Ok(self.fail(member, Reason::Limit, message));
        }
        if let Some(problem) = picture::shows_nothing(&picture) {
            return self.generator_failed(member, &problem);
        }
        let screening = match self.screened(member, &picture, |attempt| Some(&mut attempt.plugins)) {
            Ok(screening) => screening,
            Err(stopped) => return Ok(stopped),
        };
        // Whether the request leaves the judge less time than the policy gives it.
        let hurried = self.time_left() < self.grounds.policy.limits.judge_deadline;
        if let Some(state) = self.members.get_mut(member) {
            state.judged = Some(picture.clone());
            state.screening = screening;
        }
        let Judged { mut record, result } = self.judge(member, &picture, None);
        record.action = result.as_ref().ok().and_then(|report| self.strictest(report));
        let compared = result.is_ok().then(|| self.compare(member, &picture)).flatten();
        if let Some(member) = self.members.get_mut(member) {
            member.current.judgment = Some(record);
            member.current.compared = compared;
        }
        Ok(match result {
            Ok(report) => self.follow(member, picture, &report),
            Err(failure) if self.is_cancelled() => self.fail(member, Reason::Cancelled, failure.message()),
            // A policy that fails open means its judge. Whoever names the deadline must not get pictures unjudged by it.
            Err(failure) if self.is_over() || (hurried && failure.is_timeout()) => {
                let reason = if failure.is_timeout() { failure.reason() } else { Reason::RequestTimeout };
                self.fail(member, reason, failure.message())
            }
            Err(failure) => self.without_verdict(member, picture, &failure),
        })
    }

    /// Says that the generator made no picture for `member`; `why` completes "the generator failed: ...". The member
    /// is withheld, whatever the policy says about errors of the judge.
    ///
    /// # Errors
    /// If there is no such member or its decision is final.
    pub fn generator_failed(&mut self, member: usize, why: &str) -> Result<Instruction, GateError> {
        self.open_member(member)?;
        if let Some(over) = self.withhold_if_over(member) {
            return Ok(over);
        }
        Ok(self.fail(member, Reason::GeneratorFailure, format!("the generator failed: {why}")))
    }

    /// Ends the session: members without a decision are withheld.
    pub fn close(mut self) -> SessionReport {
        self.withhold_undecided();
        let decisions = self.members.iter().filter_map(|member| member.decision.clone()).collect();
        SessionReport { decisions }
    }

    /// Withholds every member without a decision, in order.
    pub(crate) fn withhold_undecided(&mut self) -> Vec<Withheld> {
        let (reason, why) = if self.is_cancelled() {
            (Reason::Cancelled, CALLED_OFF)
        } else {
            (Reason::NotFinished, "the session ended before the picture was finished")
        };
        self.withhold_all(reason, why)
    }

    /// The same for a reason of its own.
    pub(crate) fn withhold_all(&mut self, reason: Reason, why: &str) -> Vec<Withheld> {
        let open: Vec<usize> = (0..self.count()).filter(|member| self.decision(*member).is_none()).collect();
        open.into_iter()
            .map(|member| self.withheld(member, Verdict { reason, message: why.to_owned(), report: None }))
            .collect()
    }

    /// Does what the policy says about a verdict.
    fn follow(&mut self, member: usize, picture: Picture, report: &Report) -> Instruction {
        match Permit::judged(picture.clone(), report, &self.grounds, false) {
            Ok(_) if self.must_hide(member) => {
                // An extension wants something hidden: as it was drawn it did not pass.
                self.note_attempt(member, false);
                self.redact(member, &picture, report)
            }
            Ok(permit) => {
                self.note_attempt(member, true);
                let message = match permit.reason() {
                    Reason::Allowed => format!("{}, which the policy allows", self.violates(report)),
                    _ => "no rule is violated".to_owned(),
                };
                self.release(member, permit, message, Some(report))
            }
            Err(NoPermit::Unfit(problem)) => {
                self.without_verdict(member, picture, &Failure::new("unfit-verdict", problem))
            }
            Err(NoPermit::Violated(action)) => {
                self.note_attempt(member, false);
                self.act(member, picture, report, action)
            }
        }
    }

    /// Does what the policy says about a picture that violates a rule.
    fn act(&mut self, member: usize, picture: Picture, report: &Report, action: Action) -> Instruction {
        match action {
            _ if self.is_shadow() => self.watch(member, picture, report, action),
            Action::Allow | Action::Redact => self.redact(member, &picture, report),
            Action::Regenerate => self.regenerate(member, &picture, report),
            Action::Hold => self.hold(member, picture, report),
            Action::Block => {
                let message = self.violates(report);
                self.withhold(member, Verdict { reason: Reason::Violation, message, report: Some(report) })
            }
        }
    }

    /// Whether the policy only watches.
    pub(crate) fn is_shadow(&self) -> bool {
        self.grounds.policy.mode == Mode::Shadow
    }

    /// Releases a picture that the policy would have kept back, and notes what would have been done.
    fn watch(&mut self, member: usize, picture: Picture, report: &Report, action: Action) -> Instruction {
        let permit = match Permit::watched(picture, report, &self.grounds) {
            Ok(permit) => permit,
            // This report gave no permit because of what it finds violated, and a policy that watches allows that.
            Err(_) => {
                let message = self.violates(report);
                return self
                    .withhold(member, Verdict { reason: Reason::Violation, message, report: Some(report) });
            }
        };
        let no_next = self.next_attempt(member).is_err();
        let (action, outcome) = match (action, self.grounds.policy.after_tries) {
            (Action::Block, _) => (Action::Block, Some(Outcome::Withheld)),
            (Action::Hold, _) => (Action::Hold, Some(Outcome::Held)),
            (Action::Regenerate, AfterTries::Block) if no_next => (Action::Block, Some(Outcome::Withheld)),
            (Action::Regenerate, AfterTries::Redact) if no_next => (Action::Redact, None),
            (Action::Regenerate, _) => (Action::Regenerate, None),
            (Action::Allow | Action::Redact, _) => (Action::Redact, None),
        };
        let would = WouldRecord { action, outcome, message: self.violates(report) };
        let message = format!(
            "{}, and is released because the policy only watches; enforcing it would {}",
            would.message,
            action.as_str()
        );
        self.release_noting(member, permit, message, Some(report), Some(would))
    }

    fn regenerate(&mut self, member: usize, picture: &Picture, report: &Report) -> Instruction {
        let violates = self.violates(report);
        let ended = match self.next_attempt(member) {
            Ok(next) => return self.draw_again(member, report, next, &violates),
            Err(ended) => ended,
        };
        match self.grounds.policy.after_tries {
            AfterTries::Redact => self.redact(member, picture, report),
            AfterTries::Block => {
                let message = format!("{violates}, {}", ended.message());
                self.withhold(
                    member,
                    Verdict { reason: Reason::TriesExhausted, message, report: Some(report) },
                )
            }
        }
    }

    /// What follows when there is no verdict on a finished picture.
    fn without_verdict(&mut self, member: usize, picture: Picture, failure: &Failure) -> Instruction {
        match Permit::unjudged(picture, &self.grounds) {
            Some(permit) if !self.must_hide(member) => {
                let message = format!("released unjudged, as the policy says: {}", failure.message());
                self.release(member, permit, message, None)
            }
            Some(_) | None => self.fail(member, failure.reason(), failure.message()),
        }
    }

    /// Whether extensions let the finished picture of `member` pass only with something hidden.
    fn must_hide(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|state| state.screening.keeps_back())
    }

    pub(crate) fn strictest(&self, report: &Report) -> Option<Action> {
        strictest_action(report, &self.grounds.policy.actions, &self.grounds.constitution)
    }

    /// Most attempts at one picture: the policy's tries, or fewer if the host cannot make as many.
    pub(crate) fn tries(&self) -> u32 {
        let policy = self.grounds.policy.tries;
        self.request.max_tries.map_or(policy, |host| host.clamp(1, policy))
    }

    /// Whether nobody waits for the request any more: its deadline has passed, or it was called off.
    pub(crate) fn is_over(&self) -> bool {
        self.call.check().is_err()
    }

    fn is_cancelled(&self) -> bool {
        self.call.check().is_err_and(|over| over.kind() == PerceptionErrorKind::Cancelled)
    }

    /// Withholds `member` if nobody waits for the request any more.
    pub(crate) fn withhold_if_over(&mut self, member: usize) -> Option<Instruction> {
        let (reason, message) = match self.call.check().err()?.kind() {
            PerceptionErrorKind::Cancelled => (Reason::Cancelled, CALLED_OFF.to_owned()),
            _ => {
                let limit = self.deadline.saturating_duration_since(self.opened);
                (Reason::RequestTimeout, format!("the request took longer than its {limit:?}"))
            }
        };
        Some(self.fail(member, reason, message))
    }

    /// Time until the deadline of the request.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(crate) fn pixel_problem(&self, picture: &Picture) -> Option<String> {
        let (width, height) = (picture.width(), picture.height());
        let limit = self.grounds.policy.limits.max_pixels;
        (u64::from(width) * u64::from(height) > limit)
            .then(|| format!("{width} x {height} pixels are more than the {limit} that the policy allows"))
    }

    /// "violates on-fire and armed", for messages.
    pub(crate) fn violates(&self, report: &Report) -> String {
        let named = report.violated().iter().map(|id| match self.grounds.constitution.rule(id) {
            Some(rule) => format!("{id} ({})", rule.text),
            None => id.clone(),
        });
        format!("violates {}", named.collect::<Vec<_>>().join(" and "))
    }

    pub(crate) fn open_member(&mut self, member: usize) -> Result<&mut Member, GateError> {
        let count = self.members.len();
        let state = self.members.get_mut(member).ok_or(GateError::NoSuchMember { member, count })?;
        match &state.decision {
            Some(decision) => Err(GateError::AlreadyDecided { member, reason: decision.reason.as_str() }),
            None => Ok(state),
        }
    }

    /// Logs a release and only then hands the picture out.
    pub(crate) fn release(
        &mut self,
        member: usize,
        permit: Permit,
        message: String,
        report: Option<&Report>,
    ) -> Instruction {
        self.release_noting(member, permit, message, report, None)
    }

    /// The same, with what would have been done instead.
    fn release_noting(
        &mut self,
        member: usize,
        permit: Permit,
        message: String,
        report: Option<&Report>,
        would: Option<WouldRecord>,
    ) -> Instruction {
        let verdict = Verdict { reason: permit.reason(), message, report };
        let mut record = self.record(member, Outcome::Released, verdict);
        record.would = would;
        let redacted = record.reason == Reason::Redacted;
        record.fidelity = self.fidelity(member, permit.picture(), redacted);
        record.released_picture = Some(permit.picture().hash().to_hex());
        let stated = match self.stated(&permit, &record) {
            Ok(stated) => stated,
            Err(error) => {
                tracing::error!(decision = %record.decision_id, %error, "a file could not be signed; withheld");
                return Instruction::Withhold(self.logged(member, Self::unsigned(record, &error)));
            }
        };
        match self.log(member, record, Some(permit.picture())) {
            Ok(logged) => Instruction::Release(permit.release(logged, stated)),
            Err(withheld) => Instruction::Withhold(withheld),
        }
    }

    fn hold(&mut self, member: usize, picture: Picture, report: &Report) -> Instruction {
        let message = format!("{}, and waits for a person", self.violates(report));
        let verdict = Verdict { reason: Reason::HeldForReview, message, report: Some(report) };
        let record = self.record(member, Outcome::Held, verdict);
        match self.log(member, record, None) {
            Ok(logged) => Instruction::Hold(HeldPicture {
                picture,
                placeholder: self.placeholder(member, Reason::HeldForReview),
                decision: Arc::clone(logged.record()),
            }),
            Err(withheld) => Instruction::Withhold(withheld),
        }
    }

    /// Withholds a member of which there is no verdict.
    pub(crate) fn fail(&mut self, member: usize, reason: Reason, message: String) -> Instruction {
        if let Some(state) = self.members.get_mut(member) {
            state.current.failure = Some(message.clone());
        }
        self.withhold(member, Verdict { reason, message, report: None })
    }

    pub(crate) fn withhold(&mut self, member: usize, verdict: Verdict<'_>) -> Instruction {
        Instruction::Withhold(self.withheld(member, verdict))
    }

    fn withheld(&mut self, member: usize, verdict: Verdict<'_>) -> Withheld {
        let record = self.record(member, Outcome::Withheld, verdict);
        self.logged(member, record)
    }

    /// Withholds a member for what `record` says.
    fn logged(&mut self, member: usize, record: DecisionRecord) -> Withheld {
        match self.log(member, record, None) {
            Ok(logged) => Withheld {
                placeholder: self.placeholder(member, logged.record().reason),
                decision: Arc::clone(logged.record()),
            },
            Err(withheld) => withheld,
        }
    }

    pub(crate) fn placeholder(&self, member: usize, reason: Reason) -> Option<Placeholder> {
        let size = self.members.get(member).and_then(|state| state.size);
        let (width, height) = match size {
            Some(size) if reason != Reason::Limit && size.0 > 0 && size.1 > 0 => size,
            _ => (PLACEHOLDER_SIDE, PLACEHOLDER_SIDE),
        };
        match self.grounds.policy.placeholder {
            PlaceholderKind::Picture => Some(Placeholder::draw(width, height, reason)),
            PlaceholderKind::None => None,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.withhold_undecided();
    }
}

impl Member {
    /// Moves the current attempt to the past ones.
    pub(crate) fn end_attempt(&mut self) {
        self.current.ms = milliseconds(self.started);
        self.started = Instant::now();
        self.screening = Screening::default();
        self.noted = false;
        self.past.push(std::mem::take(&mut self.current));
    }
}

/// Milliseconds since `start`, to the microsecond.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
