//! One request for pictures: a session of the gate on a thread of its own, which orders from the upstream, offers what
//! comes to the session, and does what the session says.

use std::sync::Arc;
use std::time::Instant;

use cluegate_gate::{GateError, Instruction, MemberOutcome, PreviewInstruction, ReleasedPicture, Session};
use cluegate_perception::DecodeOptions;
use cluegate_telemetry::{TARGET, catalogue};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::admission::Place;
use crate::deadline::Deadline;
use crate::outcome::{Finished, Outcome};
use crate::pictures::{Format, Shown};
use crate::problem::{Problem, ProblemKind};
use crate::quota::Reservation;
use crate::request::PictureRequest;
use crate::review::Review;
use crate::running::{Canceller, Listed};
use crate::upstream::{Event, Order, Progress, Upstream, UpstreamError, UpstreamErrorKind, few_words};

/// How long an upstream may take to stop its server's work. Nobody waits for it meanwhile.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);
/// Previews that wait for the client. Further ones are left out until it has taken them.
const PREVIEWS: usize = 4;

/// What the thread tells.
#[derive(Debug)]
pub(crate) enum Update {
    /// A preview that the client may see.
    Preview {
        /// Index of the picture in the request.
        member: usize,
        /// Finished steps.
        step: u32,
        /// All steps.
        total: u32,
        /// The preview.
        shown: Shown,
    },
    /// The final outcome of a picture.
    Outcome(Outcome),
    /// All outcomes were told.
    End {
        /// What the upstream said the first time that it failed.
        failure: Option<UpstreamError>,
    },
}

/// A request in work, in the hands of a front. Dropped before its end, it calls everything off: that is what happens when
/// a client goes away.
#[derive(Debug)]
pub(crate) struct Drawing {
    request_id: String,
    count: usize,
    /// Outcomes so far.
    told: usize,
    updates: mpsc::Receiver<Update>,
    progress: watch::Receiver<Progress>,
    canceller: Canceller,
}

impl Drop for Drawing {
    fn drop(&mut self) {
        self.canceller.cancel();
    }
}

impl Drawing {
    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> &watch::Receiver<Progress> {
        &self.progress
    }

    /// Ends it, from anywhere.
    pub(crate) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// What happens next; `None` after [`Update::End`], or if the thread died before every picture had its outcome: then
    /// there was no end, and the request is [`cut_short`].
    pub(crate) async fn next(&mut self) -> Option<Update> {
        let update = self.updates.recv().await?;
        match update {
            Update::Outcome(_) => self.told += 1,
            Update::End { .. } if self.told != self.count => return None,
            Update::Preview { .. } | Update::End { .. } => {}
        }
        Some(update)
    }

    /// Waits for all outcomes: as many as pictures asked for, in order.
    ///
    /// # Errors
    /// `Internal` if the thread died before it told them all. Nothing is released then.
    pub(crate) async fn finish(self) -> Result<Finished, Problem> {
        self.finish_with(drop).await
    }

    /// The same, with each preview that the client may see on the way.
    ///
    /// # Errors
    /// As [`Drawing::finish`].
    pub(crate) async fn finish_with(mut self, mut preview: impl FnMut(Shown)) -> Result<Finished, Problem> {
        let mut outcomes = Vec::new();
        while let Some(update) = self.next().await {
            match update {
                Update::Preview { shown, .. } => preview(shown),
                Update::Outcome(outcome) => outcomes.push(outcome),
                Update::End { failure } => {
                    outcomes.sort_by_key(Outcome::member);
                    return Ok(Finished { outcomes, failure });
                }
            }
        }
        Err(cut_short())
    }
}

/// The problem of a request whose updates stopped without an end.
pub(crate) fn cut_short() -> Problem {
    let message =
        "the request's thread ended before every picture had its decision; nothing further is released";
    Problem::new(ProblemKind::Internal, message)
}

/// What a drawing needs beside the session.
pub(crate) struct Setting {
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) request: Arc<PictureRequest>,
    pub(crate) deadline: Deadline,
    pub(crate) decode: DecodeOptions,
    pub(crate) format: Format,
    pub(crate) review: Arc<Review>,
    /// What is reserved. What the decisions do not take of it is given back at the end.
    pub(crate) reservation: Reservation,
    pub(crate) token: CancellationToken,
    pub(crate) progress: watch::Sender<Progress>,
    pub(crate) listed: Listed,
    /// Held for as long as the thread works. Given back last: whoever finds it free finds nothing of the request.
    pub(crate) place: Place,
}

/// Starts the thread of a request.
pub(crate) fn begin(session: Session, setting: Setting) -> Drawing {
    // Room for every outcome and the end, so that the thread never waits for the client.
    let (send, updates) = mpsc::channel(session.count() + 1 + PREVIEWS);
    let drawing = Drawing {
        request_id: session.request_id().to_owned(),
        count: session.count(),
        told: 0,
        updates,
        progress: setting.progress.subscribe(),
        canceller: Canceller::new(session.call().clone(), setting.token.clone()),
    };
    let handle = Handle::current();
    let span = tracing::info_span!(target: TARGET, "drawing", pictures = session.count());
    let mut driver = Driver { session, setting, handle, updates: send, failure: None, decided: 0, span };
    let due = driver.first_due();
    // The upstream begins while the thread starts, which it has nothing to do with yet; but not before a prompt that is to be
    // read was.
    let first = if driver.session.checks_prompt() {
        None
    } else {
        orders(&due, driver.setting.upstream.batch_size()).first().and_then(|group| driver.launch(group))
    };
    // If the thread panics, the session withholds what is undecided and the front sees the updates end too soon.
    let span = driver.span.clone();
    tokio::task::spawn_blocking(move || span.in_scope(|| driver.run(due, first)));
    drawing
}

/// One picture to be drawn.
#[derive(Debug, Clone)]
struct Due {
    member: usize,
    attempt: u32,
    seed: u64,
    avoid: Vec<String>,
    /// What to draw in place of the request's own prompt.
    prompt: Option<String>,
}

/// An order in the hands of the upstream. Dropped, it is settled: the upstream has a while left to end.
struct Launched {
    cancel: CancellationToken,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<Result<(), UpstreamError>>,
    settled: CancellationToken,
    _guard: DropGuard,
}

struct Driver {
    session: Session,
    setting: Setting,
    handle: Handle,
    updates: mpsc::Sender<Update>,
    failure: Option<UpstreamError>,
    decided: usize,
    span: Span,
}

/// The pictures of one order, on their way.
struct Round {
    /// Which of them have no instruction yet.
    open: Vec<bool>,
    /// What the session wants drawn again.
    again: Vec<Due>,
    /// Whether a preview ended one of them, so that the upstream may still be drawing it.
    aborted: bool,
    /// Pictures of the request that were decided before the order.
    before: usize,
    /// Steps of each of its pictures, if the upstream says so.
    steps: Option<u32>,
    /// Cancelled with the last instruction: what the upstream still does it may end in peace.
    settled: CancellationToken,
}

impl Round {
    fn is_complete(&self) -> bool {
        !self.open.contains(&true)
    }

    fn is_open(&self, index: u32) -> bool {
        self.open.get(index as usize).is_some_and(|open| *open)
    }

    /// Notes that picture `index` has its instruction.
    fn close(&mut self, index: u32) {
        if let Some(open) = self.open.get_mut(index as usize) {
            *open = false;
        }
        if self.is_complete() {
            self.settled.cancel();
        }
    }
}

impl Driver {
    /// Every picture of the request, for the first time.
    fn first_due(&self) -> Vec<Due> {
        let first = |member| Due {
            member,
            attempt: 1,
            seed: self.session.first_seed(member),
            avoid: Vec::new(),
            prompt: None,
        };
        (0..self.session.count()).map(first).collect()
    }

    /// Draws what is due, of which the first order may be launched already.
    fn run(mut self, mut due: Vec<Due>, mut first: Option<Launched>) {
        for refused in self.session.check_prompt() {
            due.retain(|due| due.member != refused.decision().member as usize);
            self.tell(&MemberOutcome::Withheld(refused));
        }
        while !due.is_empty() {
            let mut again = Vec::new();
            for group in orders(&due, self.setting.upstream.batch_size()) {
                let launched = first.take().or_else(|| self.launch(group));
                again.extend(self.draw(group, launched));
            }
            due = again;
        }
        let Self { session, setting, updates, failure, .. } = self;
        // Withholds what has no decision, which is nothing unless a call above was refused.
        drop(session);
        setting.progress.send_replace(Progress { fraction: 1.0, ..Progress::default() });
        // Whoever sees the end finds the place free.
        drop((setting.listed, setting.reservation, setting.place));
        let _ = updates.try_send(Update::End { failure });
    }

    /// Does at once what the session says about a picture, so that its client need not wait for the others: tells the
    /// final outcome, or notes what to draw again. A picture whose instruction the session refused stays open.
    fn settle(&mut self, due: &Due, index: u32, instruction: Option<Instruction>, round: &mut Round) {
        let Some(instruction) = instruction else { return };
        // Before it is told: a client that has all that it asked for may leave, and that must not look like calling off.
        round.close(index);
        match instruction.into_outcome() {
            Ok(outcome) => self.tell(&outcome),
            Err(again) => round.again.push(Due {
                member: due.member,
                attempt: again.attempt,
                seed: again.seed,
                avoid: again.avoid,
                prompt: again.prompt,
            }),
        }
    }

    /// Tells the client of a final outcome.
    fn tell(&mut self, outcome: &MemberOutcome) {
        if let MemberOutcome::Held(held) = outcome {
            self.setting.review.keep(held);
        }
        self.setting.reservation.note(outcome.decision());
        let evidence = self.session.policy().client.evidence;
        let outcome = Outcome::new(outcome, self.setting.format, evidence);
        self.decided += 1;
        tracing::debug!(
            request = self.session.request_id(),
            tenant = &*self.session.policy().tenant,
            decision = outcome.decision_id(),
            reason = outcome.reason().as_str(),
            "decided"
        );
        // The client may be gone.
        let _ = self.updates.try_send(Update::Outcome(outcome));
    }

    /// Orders the pictures of `group`.
    fn launch(&mut self, group: &[Due]) -> Option<Launched> {
        for due in group {
            // Only for the timings of the log: a member that is decided is seen when its picture is.
            let _ = self.session.start_attempt(due.member);
        }
        let order = self.order(group)?;
        let (cancel, settled) = (order.cancel.clone(), CancellationToken::new());
        let (send, events) = order.channel();
        let task = self.start(order, send, settled.clone());
        // Also if a panic ends this thread.
        let guard = settled.clone().drop_guard();
        Some(Launched { cancel, events, task, settled, _guard: guard })
    }

    /// Offers the pictures of `group` to the session as they come, and does what it says. What is to be drawn again.
    fn draw(&mut self, group: &[Due], launched: Option<Launched>) -> Vec<Due> {
        let Some(Launched { cancel, mut events, task, settled, _guard }) = launched else {
            return Vec::new();
        };
        let (open, again, before) = (vec![true; group.len()], Vec::new(), self.decided);
        let mut round = Round { open, again, aborted: false, before, steps: None, settled };
        while !round.is_complete() {
            let Some(event) = self.wait(events.recv()) else { break };
            let Some(event) = event else { break };
            self.take(event, group, &mut round, events.is_empty());
        }
        drop(events);
        let over = !round.is_complete() && self.session.call().check().is_err();
        if over || (round.is_complete() && round.aborted) {
            // What it still draws is for nobody. After its last picture it needs no such word, and gets none when the
            // client leaves with its answer: it ends by itself, and the word might stop what it draws for somebody else.
            cancel.cancel();
        }
        let ended = if over || round.is_complete() { Ok(()) } else { self.result(task) };
        self.fill(group, &mut round, ended);
        // In the order of the pictures, not of their coming.
        round.again.sort_by_key(|due| due.member);
        round.again
    }

    /// Decides about the pictures that did not come.
    fn fill(&mut self, group: &[Due], round: &mut Round, ended: Result<(), UpstreamError>) {
        let why = match ended {
            Ok(()) => "the upstream sent fewer pictures than were ordered".to_owned(),
            Err(error) => {
                let why = error.told().to_owned();
                tracing::warn!(request = self.session.request_id(), %error, "the upstream drew less than was ordered");
                self.failure.get_or_insert(error);
                why
            }
        };
        for (index, due) in (0..).zip(group) {
            if round.is_open(index) {
                let failed = or_log(self.session.generator_failed(due.member, &why));
                self.settle(due, index, failed, round);
            }
        }
    }

    fn report(&self, progress: Progress, round: &Round) {
        // Whatever is no number is no progress.
        let of_order = if progress.fraction > 0.0 { progress.fraction.min(1.0) } else { 0.0 };
        let done = (round.before as f64 + of_order * round.open.len() as f64).max(self.decided as f64);
        let fraction = (done / self.session.count().max(1) as f64).min(1.0);
        self.setting.progress.send_replace(Progress { fraction, ..progress });
    }

    fn order(&self, group: &[Due]) -> Option<Order> {
        let first = group.first()?;
        let policy = self.session.policy();
        let request = match &first.prompt {
            None => Arc::clone(&self.setting.request),
            Some(prompt) => {
                Arc::new(PictureRequest { prompt: prompt.clone(), ..(*self.setting.request).clone() })
            }
        };
        Some(Order {
            request,
            first: u32::try_from(first.member).unwrap_or(u32::MAX),
            count: u32::try_from(group.len()).unwrap_or(u32::MAX),
            seed: first.seed,
            attempt: first.attempt,
            avoid: first.avoid.clone(),
            safety: policy.regenerate.guidance,
            previews: policy.previews.clone(),
            show_previews: policy.client.previews,
            deadline: self.setting.deadline.0,
            cancel: CancellationToken::new(),
        })
    }

    /// Draws `order` on a task of its own, which ends it when the request is called off, but not once the order is
    /// `settled`. From then on, or once it is cancelled, the upstream has a while left to end.
    fn start(
        &self,
        order: Order,
        send: mpsc::Sender<Event>,
        settled: CancellationToken,
    ) -> JoinHandle<Result<(), UpstreamError>> {
        let (upstream, called_off) = (Arc::clone(&self.setting.upstream), self.setting.token.clone());
        let span = tracing::info_span!(
            target: TARGET,
            parent: &self.span,
            "upstream",
            otel.kind = "client",
            otel.status_code = Empty,
            pictures = order.count,
            attempt = order.attempt,
            error = Empty,
        );
        let traced = span.clone();
        let drawing = async move {
            let overdue = async {
                tokio::select! {
                    biased;
                    () = settled.cancelled() => {}
                    () = order.cancel.cancelled() => {}
                    () = called_off.cancelled() => order.cancel.cancel(),
                }
                tokio::time::sleep(GRACE).await;
            };
            let begun = Instant::now();
            let drawn = tokio::select! {
                drawn = upstream.draw(&order, send) => drawn,
                () = overdue => {
                    let message = "the upstream did not stop when it was asked to";
                    Err(UpstreamError::new(UpstreamErrorKind::Cancelled, message))
                }
            };
            catalogue::UPSTREAM_ORDERS.add(1, &[]);
            catalogue::STAGE.observe(begun.elapsed().as_secs_f64(), &["upstream"]);
            if let Err(error) = &drawn {
                catalogue::UPSTREAM_ERRORS.add(1, &[error.kind().as_str()]);
                traced.record("otel.status_code", "ERROR");
                traced.record("error", error.kind().as_str());
            }
            drawn
        };
        self.handle.spawn(drawing.instrument(span))
    }

    /// Waits for `what`, but no longer than anybody waits for the request.
    fn wait<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let over = self.setting.token.cancelled();
        let late = tokio::time::sleep_until(self.setting.deadline.0.into());
        self.handle.block_on(async {
            tokio::select! {
                biased;
                () = over => None,
                () = late => None,
                what = what => Some(what),
            }
        })
    }

    /// What the upstream's task ended with.
    fn result(&self, task: JoinHandle<Result<(), UpstreamError>>) -> Result<(), UpstreamError> {
        match self.wait(task) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => {
                tracing::error!(%panic, "the upstream's task ended");
                Err(UpstreamError::new(UpstreamErrorKind::Failed, "the gate's side of the upstream failed"))
            }
            None => Err(UpstreamError::new(UpstreamErrorKind::Timeout, "the request's deadline passed")),
        }
    }

    /// Offers an event to the session; `latest` says that no other is waiting yet.
    fn take(&mut self, event: Event, group: &[Due], round: &mut Round, latest: bool) {
        match event {
            Event::Progress(progress) => {
                round.steps = progress.steps.or(round.steps);
                self.report(progress, round);
            }
            Event::Preview { index, step, total, picture } => {
                let Some(due) = open(group, round, index) else { return };
                // One that the policy does not ask for is judged only if the client may see it, has room for it, and
                // nothing newer is there.
                let shows = self.session.policy().client.previews && latest && self.has_room_for_preview();
                if !(shows || self.session.wants_preview(due.member, step, total)) {
                    return;
                }
                let _span = member_span(due).entered();
                // A preview that cannot be read shows nobody anything, and the finished picture is judged anyway.
                let Ok(preview) = picture.decode(&self.setting.decode) else { return };
                match self.session.preview(due.member, step, total, &preview) {
                    Ok(PreviewInstruction::Continue(Some(shown))) => {
                        self.show(due.member, (step, total), &shown);
                    }
                    Ok(PreviewInstruction::Continue(None)) | Err(_) => {}
                    Ok(PreviewInstruction::Abort(instruction)) => {
                        round.aborted = true;
                        self.settle(due, index, Some(instruction), round);
                    }
                }
            }
            Event::Picture { index, picture } => {
                let Some(due) = open(group, round, index) else {
                    tracing::warn!(
                        index,
                        "the upstream sent a picture that nobody waits for; it is discarded"
                    );
                    return;
                };
                let _span = member_span(due).entered();
                if let Some(steps) = round.steps {
                    self.session.drew(due.member, steps, steps);
                }
                let decided = match picture.decode(&self.setting.decode) {
                    Ok(picture) => self.session.finished(due.member, picture),
                    Err(error) => self
                        .session
                        .generator_failed(due.member, &format!("its picture cannot be read: {error}")),
                };
                self.settle(due, index, or_log(decided), round);
            }
            Event::Failed { index, why } => {
                let Some(due) = open(group, round, index) else { return };
                let failed = or_log(self.session.generator_failed(due.member, &few_words(&why)));
                self.settle(due, index, failed, round);
            }
        }
    }

    /// Whether a preview leaves room for the outcomes that are still to come, and the end.
    fn has_room_for_preview(&self) -> bool {
        self.updates.capacity() > self.session.count() - self.decided.min(self.session.count()) + 1
    }

    fn show(&self, member: usize, (step, total): (u32, u32), preview: &ReleasedPicture) {
        if self.has_room_for_preview()
            && let Ok(shown) = Shown::released(preview, self.setting.format)
        {
            // The client may be gone.
            let _ = self.updates.try_send(Update::Preview { member, step, total, shown });
        }
    }
}

/// The span of what the gate does about one picture.
fn member_span(due: &Due) -> Span {
    tracing::info_span!(target: TARGET, "member", member = due.member, attempt = due.attempt)
}

/// Picture `index` of an order, if it has no instruction yet.
fn open<'a>(group: &'a [Due], round: &Round, index: u32) -> Option<&'a Due> {
    group.get(index as usize).filter(|_| round.is_open(index))
}

/// The instruction; none if the session refused the call, which a member without a decision does not meet.
fn or_log(instruction: Result<Instruction, GateError>) -> Option<Instruction> {
    instruction
        .inspect_err(|error| tracing::error!(%error, "the session refused a picture; it is withheld"))
        .ok()
}

/// Splits what is due into orders: pictures of one attempt with consecutive seeds, at most `batch` at a time.
fn orders(due: &[Due], batch: u32) -> Vec<&[Due]> {
    let batch = batch.max(1) as usize;
    due.chunk_by(|a, b| a.attempt == 1 && b.attempt == 1 && a.seed.checked_add(1) == Some(b.seed))
        .flat_map(|run| run.chunks(batch))
        .collect()
}

#[cfg(test)]
mod tests;
