//! A request in the hands of the gate: the host asks, the session decides.
//!
//! ```text
//! open -> [wants_preview -> preview -> Continue | Abort(then)]* -> finished -> Instruction -+-> Release, Withhold, Hold
//!          ^                                                                               |
//!          +------------------------------- DrawAgain --------------------------------------+
//! close: members without a decision are withheld
//! ```

use std::sync::Arc;
use std::time::Instant;

use cluegate_judge::Report;
use cluegate_perception::Picture;

use crate::inspector::Unfinished;
use crate::judging::{Failure, Judged};
use crate::placeholder::Placeholder;
use crate::policy::{Action, AfterTries, PlaceholderKind};
use crate::record::{
    AttemptRecord, ConstitutionRecord, DecisionRecord, DecisionTimings, Outcome, PreviewRecord, RequestRecord,
};
use crate::released::{
    DrawAgain, HeldPicture, Instruction, Logged, NoPermit, Permit, Withheld, strictest_action,
};
use crate::tenant::Tenant;
use crate::{GateError, Reason, picture};

/// Side in pixels of the placeholder for a picture of unknown size.
const PLACEHOLDER_SIDE: u32 = 512;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// Whose policy applies.
    pub tenant: String,
    /// What to draw.
    pub prompt: String,
    /// Seed of the first picture; the others follow.
    pub seed: u64,
    /// Number of pictures.
    pub count: u32,
    /// The caller's name for the request; the gate makes one if there is none.
    pub id: Option<String>,
    /// Fingerprint of the generator, for the log.
    pub generator: Option<String>,
    /// Width and height of the pictures, for placeholders where nothing was drawn.
    pub size: Option<(u32, u32)>,
}

impl RequestInfo {
    /// A request for `count` pictures.
    pub fn new(tenant: impl Into<String>, prompt: impl Into<String>, seed: u64, count: u32) -> Self {
        Self { tenant: tenant.into(), prompt: prompt.into(), seed, count, ..Self::default() }
    }
}

/// What a host does after a preview.
#[derive(Debug, Clone)]
pub enum PreviewInstruction {
    /// Draw on.
    Continue,
    /// Give this attempt up, discard what it made, and do this instead.
    Abort(Instruction),
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct SessionReport {
    /// One decision for each picture, in order.
    pub decisions: Vec<Arc<DecisionRecord>>,
}

/// A request in the hands of the gate. Its members are decided one by one. Dropped before [`Session::close`], it
/// withholds what has no decision.
pub struct Session {
    pub(crate) tenant: Arc<Tenant>,
    request: RequestInfo,
    request_id: String,
    pub(crate) opened: Instant,
    pub(crate) members: Vec<Member>,
}

/// One picture of the request.
pub(crate) struct Member {
    past: Vec<AttemptRecord>,
    pub(crate) current: AttemptRecord,
    started: Instant,
    size: Option<(u32, u32)>,
    pub(crate) timings: DecisionTimings,
    decision: Option<Arc<DecisionRecord>>,
}

/// A decision to be logged.
pub(crate) struct Verdict<'a> {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) report: Option<&'a Report>,
}

impl Session {
    pub(crate) fn open(tenant: Arc<Tenant>, request: RequestInfo) -> Result<Self, GateError> {
        let limits = tenant.policy.limits;
        let within = |what, found: u64, allowed: u64| {
            let error = GateError::Limit { tenant: request.tenant.clone(), what, allowed, found };
            if found > allowed { Err(error) } else { Ok(()) }
        };
        within("pictures", request.count.into(), limits.max_pictures.into())?;
        within("bytes of prompt", request.prompt.len() as u64, limits.max_prompt_bytes as u64)?;
        let pixels = request.size.map_or(0, |(width, height)| u64::from(width) * u64::from(height));
        within("pixels", pixels, limits.max_pixels)?;
        let request_id = request.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let opened = Instant::now();
        let members = (0..request.count).map(|member| Member {
            past: Vec::new(),
            current: AttemptRecord {
                attempt: 1,
                seed: first_seed(request.seed, member),
                ..Default::default()
            },
            started: opened,
            size: request.size,
            timings: DecisionTimings::default(),
            decision: None,
        });
        Ok(Self { members: members.collect(), tenant, request_id, opened, request })
    }

    /// Number of pictures.
    pub fn count(&self) -> usize {
        self.members.len()
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

    /// Whether the gate wants to see a preview of `member` after `step` of `total` steps.
    pub fn wants_preview(&self, member: usize, step: u32, total: u32) -> bool {
        let open = self.members.get(member).is_some_and(|member| member.decision.is_none());
        // Past the deadline every step is wanted, so that the attempt can be given up.
        open && (self.tenant.policy.previews.is_due(step, total) || (step < total && self.is_overdue()))
    }

    /// Judges a preview. A picture that the finished one could still be saved from (by redaction, or because the rule
    /// is allowed) is drawn on; a preview without a verdict is drawn on too, because the finished picture is judged
    /// anyway.
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
        if self.is_overdue() {
            return Ok(PreviewInstruction::Abort(self.withhold_overdue(member)));
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
        let aborted = verdict.is_some();
        if let Some(member) = self.members.get_mut(member) {
            member.current.previews.push(PreviewRecord { step, total, aborted, judgment: record });
        }
        let (Some(reason), Some(report)) = (verdict, report) else { return Ok(PreviewInstruction::Continue) };
        let what = format!("the preview after step {step} of {total} {}", self.violates(&report));
        Ok(PreviewInstruction::Abort(match reason {
            None => self.draw_again(member, &report, &what),
            Some(reason) => self.withhold(member, Verdict { reason, message: what, report: Some(&report) }),
        }))
    }

    /// Whether a preview that violates a rule of this action ends the attempt: not at all, with another attempt
    /// (`Some(None)`), or for good.
    fn abort_for(&self, member: usize, action: Action) -> Option<Option<Reason>> {
        match action {
            Action::Block => Some(Some(Reason::Violation)),
            Action::Regenerate if self.has_tries_left(member) => Some(None),
            Action::Regenerate => match self.tenant.policy.after_tries {
                AfterTries::Block => Some(Some(Reason::TriesExhausted)),
                AfterTries::Redact => None,
            },
            // The finished picture is allowed, redacted, or shown to a person.
            Action::Allow | Action::Redact | Action::Hold => None,
        }
    }

    /// Judges a finished picture and says what to do with it.
    ///
    /// # Errors
    /// If there is no such member or its decision is final; the picture is not judged then.
    pub fn finished(&mut self, member: usize, picture: Picture) -> Result<Instruction, GateError> {
        let state = self.open_member(member)?;
        state.size = Some((picture.width(), picture.height()));
        state.current.picture = Some(picture.hash().to_hex());
        if self.is_overdue() {
            return Ok(self.withhold_overdue(member));
        }
        if let Some(message) = self.pixel_problem(&picture) {
            return Ok(self.fail(member, Reason::Limit, message));
        }
        if let Some(problem) = picture::shows_nothing(&picture) {
            return self.generator_failed(member, &problem);
        }
        let Judged { mut record, result } = self.judge(member, &picture, None);
        record.action = result.as_ref().ok().and_then(|report| self.strictest(report));
        if let Some(member) = self.members.get_mut(member) {
            member.current.judgment = Some(record);
        }
        Ok(match result {
            Ok(report) => self.follow(member, picture, &report),
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
        let open: Vec<usize> = (0..self.count()).filter(|member| self.decision(*member).is_none()).collect();
        let why = "the session ended before the picture was finished";
        open.into_iter()
            .map(|member| {
                self.withheld(
                    member,
                    Verdict { reason: Reason::NotFinished, message: why.to_owned(), report: None },
                )
            })
            .collect()
    }

    /// Does what the policy says about a verdict.
    fn follow(&mut self, member: usize, picture: Picture, report: &Report) -> Instruction {
        let tenant = Arc::clone(&self.tenant);
        match Permit::judged(picture.clone(), report, &tenant, false) {
            Ok(permit) => {
                let message = match permit.reason() {
                    Reason::Allowed => format!("{}, which the policy allows", self.violates(report)),
                    _ => "no rule is violated".to_owned(),
                };
                self.release(member, permit, message, Some(report))
            }
            Err(NoPermit::Unfit(problem)) => {
                self.without_verdict(member, picture, &Failure::new("unfit-verdict", problem))
            }
            Err(NoPermit::Violated(Action::Allow | Action::Redact)) => self.redact(member, &picture, report),
            Err(NoPermit::Violated(Action::Regenerate)) => self.regenerate(member, &picture, report),
            Err(NoPermit::Violated(Action::Hold)) => self.hold(member, picture, report),
            Err(NoPermit::Violated(Action::Block)) => {
                let message = self.violates(report);
                self.withhold(member, Verdict { reason: Reason::Violation, message, report: Some(report) })
            }
        }
    }

    fn regenerate(&mut self, member: usize, picture: &Picture, report: &Report) -> Instruction {
        let violates = self.violates(report);
        if self.has_tries_left(member) {
            return self.draw_again(member, report, &violates);
        }
        match self.tenant.policy.after_tries {
            AfterTries::Redact => self.redact(member, picture, report),
            AfterTries::Block => {
                let message = format!("{violates}, at the last of {} tries", self.tenant.policy.tries);
                self.withhold(
                    member,
                    Verdict { reason: Reason::TriesExhausted, message, report: Some(report) },
                )
            }
        }
    }

    /// Ends the current attempt and asks for another with a seed of its own.
    fn draw_again(&mut self, member: usize, report: &Report, message: &str) -> Instruction {
        let attempt = self.members.get(member).map_or(1, |state| state.current.attempt) + 1;
        let seed = next_seed(self.request.seed, member, attempt);
        if let Some(state) = self.members.get_mut(member) {
            state.end_attempt();
            state.current = AttemptRecord { attempt, seed, ..Default::default() };
        }
        let avoid = crate::redaction_plan::violating_statements(report);
        Instruction::DrawAgain(DrawAgain { member, attempt, seed, avoid, message: message.to_owned() })
    }

    /// What follows when there is no verdict on a finished picture.
    fn without_verdict(&mut self, member: usize, picture: Picture, failure: &Failure) -> Instruction {
        let tenant = Arc::clone(&self.tenant);
        match Permit::unjudged(picture, &tenant) {
            Some(permit) => {
                let message = format!("released unjudged, as the policy says: {}", failure.message());
                self.release(member, permit, message, None)
            }
            None => self.fail(member, failure.reason(), failure.message()),
        }
    }

    pub(crate) fn strictest(&self, report: &Report) -> Option<Action> {
        strictest_action(report, &self.tenant.policy.actions, &self.tenant)
    }

    fn has_tries_left(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|state| state.current.attempt < self.tenant.policy.tries)
    }

    fn is_overdue(&self) -> bool {
        self.opened.elapsed() >= self.tenant.policy.limits.request_deadline
    }

    fn withhold_overdue(&mut self, member: usize) -> Instruction {
        let limit = self.tenant.policy.limits.request_deadline;
        self.fail(member, Reason::RequestTimeout, format!("the request took longer than its {limit:?}"))
    }

    fn pixel_problem(&self, picture: &Picture) -> Option<String> {
        let (width, height) = (picture.width(), picture.height());
        let limit = self.tenant.policy.limits.max_pixels;
        (u64::from(width) * u64::from(height) > limit)
            .then(|| format!("{width} x {height} pixels are more than the {limit} that the policy allows"))
    }

    /// "violates on-fire and armed", for messages.
    pub(crate) fn violates(&self, report: &Report) -> String {
        let named = report.violated().iter().map(|id| match self.tenant.inspector.constitution().rule(id) {
            Some(rule) => format!("{id} ({})", rule.text),
            None => id.clone(),
        });
        format!("violates {}", named.collect::<Vec<_>>().join(" and "))
    }

    fn open_member(&mut self, member: usize) -> Result<&mut Member, GateError> {
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
        let verdict = Verdict { reason: permit.reason(), message, report };
        let mut record = self.record(member, Outcome::Released, verdict);
        record.released_picture = Some(permit.picture_hash());
        match self.log(member, record) {
            Ok(logged) => Instruction::Release(permit.release(logged)),
            Err(withheld) => Instruction::Withhold(withheld),
        }
    }

    fn hold(&mut self, member: usize, picture: Picture, report: &Report) -> Instruction {
        let message = format!("{}, and waits for a person", self.violates(report));
        let verdict = Verdict { reason: Reason::HeldForReview, message, report: Some(report) };
        let record = self.record(member, Outcome::Held, verdict);
        match self.log(member, record) {
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
        match self.log(member, record) {
            Ok(logged) => Withheld {
                placeholder: self.placeholder(member, logged.record().reason),
                decision: Arc::clone(logged.record()),
            },
            Err(withheld) => withheld,
        }
    }

    /// Writes the decision and makes it final. If it cannot be written, the member is withheld for that reason.
    fn log(&mut self, member: usize, record: DecisionRecord) -> Result<Logged, Withheld> {
        let written = Logged::write(record, &self.tenant);
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

    fn placeholder(&self, member: usize, reason: Reason) -> Option<Placeholder> {
        let size = self.members.get(member).and_then(|state| state.size);
        let (width, height) = match size {
            Some(size) if reason != Reason::Limit && size.0 > 0 && size.1 > 0 => size,
            _ => (PLACEHOLDER_SIDE, PLACEHOLDER_SIDE),
        };
        match self.tenant.policy.placeholder {
            PlaceholderKind::Picture => Some(Placeholder::draw(width, height, reason)),
            PlaceholderKind::None => None,
        }
    }

    fn record(&mut self, member: usize, outcome: Outcome, verdict: Verdict<'_>) -> DecisionRecord {
        let Verdict { reason, message, report } = verdict;
        let constitution = self.tenant.inspector.constitution();
        let mut models = self.tenant.inspector.models();
        if let Some(generator) = &self.request.generator {
            models.insert("generator".to_owned(), generator.clone());
        }
        let action = report.and_then(|report| self.strictest(report));
        let request = RequestRecord {
            id: self.request_id.clone(),
            prompt_hash: blake3::hash(self.request.prompt.as_bytes()).to_hex().to_string(),
            prompt: self.tenant.policy.log_prompts.then(|| self.request.prompt.clone()),
            seed: self.request.seed,
            count: self.request.count,
        };
        let constitution = ConstitutionRecord {
            name: constitution.name().to_owned(),
            revision: constitution.revision().to_hex(),
        };
        let total = milliseconds(self.opened);
        let (attempts, timings) = self.members.get_mut(member).map_or_else(Default::default, |state| {
            state.end_attempt();
            (std::mem::take(&mut state.past), state.timings)
        });
        DecisionRecord {
            decision_id: uuid::Uuid::now_v7().to_string(),
            timestamp: jiff::Timestamp::now().to_string(),
            tenant: self.tenant.policy.tenant.clone(),
            constitution,
            models,
            request,
            member: member as u32,
            outcome,
            reason,
            message,
            action,
            violated: report.map(|report| report.violated().to_vec()).unwrap_or_default(),
            unjudged: reason == Reason::Unjudged,
            released_picture: None,
            attempts,
            timings_ms: DecisionTimings { total, ..timings },
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
    fn end_attempt(&mut self) {
        self.current.ms = milliseconds(self.started);
        self.started = Instant::now();
        self.past.push(std::mem::take(&mut self.current));
    }
}

/// Milliseconds since `start`, to the microsecond.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn first_seed(seed: u64, member: u32) -> u64 {
    seed.wrapping_add(u64::from(member))
}

/// A seed that depends on the request, the member and the attempt, and on nothing else, so that a request can be
/// repeated.
fn next_seed(seed: u64, member: usize, attempt: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluegate attempt seed");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(member as u64).to_le_bytes());
    hasher.update(&attempt.to_le_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u64::from(u32::from_le_bytes([a, b, c, d]))
}
