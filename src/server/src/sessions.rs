//! Sessions of hosts that draw by themselves: a session of the gate that lives between requests.
//!
//! A session is a request in work. It holds a place and a reservation from its opening to its end, and it ends when its
//! host closes it, when its deadline passes, when nothing was heard of it for a while, when a call about it breaks off, or
//! when the server stops. Whatever has no decision by then is withheld, and the log says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_gate::{Instruction, PreviewInstruction, Session, SessionReport};
use cluegate_perception::{DecodeOptions, Picture};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::admission::Place;
use crate::problem::{Problem, ProblemKind};
use crate::quota::Reservation;
use crate::review::Review;
use crate::running::{Canceller, Listed};
use crate::upstream::{Unjudged, few_words};

/// The sessions that are open, by id. A tenant finds its own and no other's.
#[derive(Clone)]
pub(crate) struct Sessions {
    open: Arc<Mutex<HashMap<String, Arc<Open>>>>,
    idle: Duration,
}

/// One of them.
struct Open {
    tenant: Arc<str>,
    canceller: Canceller,
    deadline: Instant,
    last: Mutex<Instant>,
    /// Cancelled with its end.
    over: CancellationToken,
    /// Gone once the session has ended. Calls about one session wait for each other here, and on no thread.
    work: Arc<AsyncMutex<Option<Work>>>,
}

/// What a session works with.
pub(crate) struct Work {
    pub(crate) session: Session,
    pub(crate) reservation: Reservation,
    pub(crate) decode: DecodeOptions,
    pub(crate) review: Arc<Review>,
    /// What was told of previews: each step of an attempt is judged once.
    pub(crate) previews: Previews,
    /// Takes the session off the list of those that are called off when the server stops.
    pub(crate) listed: Listed,
    /// Held until the session has ended.
    pub(crate) place: Place,
}

/// The previews that were judged, by member, attempt and step, and the number of steps of each attempt.
#[derive(Debug, Default)]
pub(crate) struct Previews {
    seen: HashSet<(usize, u32, u32)>,
    totals: HashMap<(usize, u32), u32>,
    attempts: HashMap<usize, u32>,
}

impl Previews {
    /// Notes a preview of the current attempt at `member`.
    ///
    /// # Errors
    /// `BadRequest` if the attempt had another number of steps before, or `Conflict` if this step was judged: a host that
    /// sends either has lost count, and could have as much judged as it likes.
    fn note(&mut self, member: usize, step: u32, total: u32) -> Result<(), Problem> {
        let attempt = *self.attempts.entry(member).or_insert(1);
        let known = *self.totals.entry((member, attempt)).or_insert(total);
        if known != total {
            let message = format!("this attempt has {known} steps; expected `total={known}`, got {total}");
            return Err(Problem::bad_request(message));
        }
        if !self.seen.insert((member, attempt, step)) {
            let message = format!("the preview after step {step} of this attempt was judged already");
            return Err(Problem::new(ProblemKind::Conflict, message));
        }
        Ok(())
    }

    /// Notes that `member` is drawn again.
    fn again(&mut self, member: usize, attempt: u32) {
        self.attempts.insert(member, attempt);
    }
}

impl Work {
    /// Offers a preview. One that the policy does not ask for is not judged.
    ///
    /// # Errors
    /// If it is no picture, was judged already, or the member is decided.
    pub(crate) fn preview(
        &mut self,
        member: usize,
        (step, total): (u32, u32),
        picture: Unjudged,
    ) -> Result<PreviewInstruction, Problem> {
        self.undecided(member)?;
        if !self.session.wants_preview(member, step, total) {
            return Ok(PreviewInstruction::Continue(None));
        }
        let preview: Picture = picture.decode(&self.decode)?;
        self.previews.note(member, step, total)?;
        let told = self.session.preview(member, step, total, &preview)?;
        if let PreviewInstruction::Abort(then) = &told {
            self.settle(member, then);
        }
        Ok(told)
    }

    /// Offers a finished picture.
    ///
    /// # Errors
    /// If it is no picture, or the member is decided.
    pub(crate) fn finished(&mut self, member: usize, picture: Unjudged) -> Result<Instruction, Problem> {
        self.undecided(member)?;
        let picture = picture.decode(&self.decode)?;
        let told = self.session.finished(member, picture)?;
        self.settle(member, &told);
        Ok(told)
    }

    /// Takes the host's word that it made no picture.
    ///
    /// # Errors
    /// If the member is decided.
    pub(crate) fn failed(&mut self, member: usize, why: &str) -> Result<Instruction, Problem> {
        self.undecided(member)?;
        let told = self.session.generator_failed(member, &few_words(why))?;
        self.settle(member, &told);
        Ok(told)
    }

    /// Refuses calls about a member that is not there or has its decision.
    fn undecided(&self, member: usize) -> Result<(), Problem> {
        if member >= self.session.count() {
            let message = format!(
                "this session has no picture {member}: it is for {}, counted from 0",
                self.session.count()
            );
            return Err(Problem::new(ProblemKind::NotFound, message));
        }
        match self.session.decision(member) {
            None => Ok(()),
            Some(decision) => {
                let message = format!(
                    "the decision about picture {member} is final ({}); what is drawn for it now is not judged",
                    decision.reason.as_str()
                );
                Err(Problem::new(ProblemKind::Conflict, message))
            }
        }
    }

    /// Counts what a decision took, and keeps what waits for a person.
    fn settle(&mut self, member: usize, told: &Instruction) {
        if let Instruction::DrawAgain(again) = told {
            self.previews.again(member, again.attempt);
            // Only for the timings of the log.
            let _ = self.session.start_attempt(member);
        }
        if let Instruction::Hold(held) = told {
            self.review.keep(held);
        }
        if let Some(decision) = self.session.decision(member) {
            self.reservation.note(decision);
        }
    }

    /// Ends the session: what has no decision is withheld. Its place is free afterwards.
    fn end(self) -> SessionReport {
        let Self { session, reservation, listed, place, .. } = self;
        let open: HashSet<usize> =
            (0..session.count()).filter(|member| session.decision(*member).is_none()).collect();
        let report = session.close();
        for decision in report.decisions.iter().filter(|one| open.contains(&(one.member as usize))) {
            reservation.note(decision);
        }
        drop((listed, reservation, place));
        report
    }
}

impl Sessions {
    /// No session is open. One of which nothing was heard for `idle` is ended.
    pub(crate) fn new(idle: Duration) -> Self {
        Self { open: Arc::default(), idle }
    }

    /// Keeps a session until it is closed, until `deadline`, or until nothing was heard of it for too long. Its id.
    pub(crate) fn keep(
        &self,
        tenant: &Arc<str>,
        work: Work,
        canceller: Canceller,
        deadline: Instant,
    ) -> String {
        // Nobody guesses it, and nobody else's key leads to it.
        let id = format!("session_{}", uuid::Uuid::now_v7().simple());
        let open = Arc::new(Open {
            tenant: Arc::clone(tenant),
            canceller,
            deadline,
            last: Mutex::new(Instant::now()),
            over: CancellationToken::new(),
            work: Arc::new(AsyncMutex::new(Some(work))),
        });
        self.lock().insert(id.clone(), Arc::clone(&open));
        let (sessions, named) = (self.clone(), id.clone());
        tokio::spawn(async move { sessions.watch(&named, &open).await });
        id
    }

    /// Does something with a session of `tenant`, on a thread of its own. If whoever waits for it goes away, the session
    /// is called off.
    ///
    /// # Errors
    /// `NotFound` if the tenant has no such session (any more), what `act` says, and `Internal` if it panics, which ends the
    /// session.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        tenant: &Arc<str>,
        id: &str,
        act: impl FnOnce(&mut Work) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let open = self.find(tenant, id)?;
        let mut off = Off { open: &open, answered: false };
        let mut work = Arc::clone(&open.work).lock_owned().await;
        let acted = tokio::task::spawn_blocking(move || match work.as_mut() {
            Some(work) => act(work),
            None => Err(no_such_session()),
        });
        let acted = acted.await.map_err(|panic| {
            tracing::error!(%panic, "a call about a session ended its thread");
            Problem::new(ProblemKind::Internal, "the gate failed while it decided; nothing is released")
        })?;
        open.touch();
        off.answered = true;
        acted
    }

    /// Ends a session of `tenant`: one decision for each picture, and whether evidence may be told.
    ///
    /// # Errors
    /// `NotFound` if the tenant has no such session (any more).
    pub(crate) async fn close(&self, tenant: &Arc<str>, id: &str) -> Result<(SessionReport, bool), Problem> {
        let open = self.find(tenant, id)?;
        self.lock().remove(id);
        let report = end(Arc::clone(&open.work).lock_owned().await).await;
        open.over.cancel();
        report.ok_or_else(no_such_session)
    }

    fn find(&self, tenant: &Arc<str>, id: &str) -> Result<Arc<Open>, Problem> {
        let open = self.lock().get(id).filter(|open| open.tenant == *tenant).cloned();
        open.ok_or_else(no_such_session)
    }

    /// Ends a session that its host does not end.
    async fn watch(&self, id: &str, open: &Open) {
        loop {
            let until = open.deadline.min(open.heard() + self.idle);
            if Instant::now() >= until {
                // A call in work has a deadline of its own, and is a sign of life.
                let is_busy = open.work.try_lock().is_err();
                if !is_busy || Instant::now() >= open.deadline {
                    tracing::info!(
                        session = id,
                        tenant = &*open.tenant,
                        "a session is ended that its host left open"
                    );
                    break;
                }
                open.touch();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = open.over.cancelled() => break,
            }
        }
        // Calls that come find none, and those that wait find it gone.
        self.lock().remove(id);
        end(Arc::clone(&open.work).lock_owned().await).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Open>>> {
        // Nothing that runs under the lock leaves the list half-changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When something was heard of it last.
    fn heard(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the session, if it has not ended. A thread of its own, as the log may be slow.
async fn end(mut work: OwnedMutexGuard<Option<Work>>) -> Option<(SessionReport, bool)> {
    let taken = work.take()?;
    let evidence = taken.session.policy().client.evidence;
    let ended = tokio::task::spawn_blocking(move || taken.end()).await;
    ended
        .inspect_err(|panic| tracing::error!(%panic, "the end of a session ended its thread"))
        .ok()
        .map(|report| (report, evidence))
}

/// Calls a session off unless its call was answered: the caller went away, or the call panicked.
struct Off<'a> {
    open: &'a Open,
    answered: bool,
}

impl Drop for Off<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.open.canceller.cancel();
            self.open.over.cancel();
        }
    }
}

fn no_such_session() -> Problem {
    let message = "this tenant has no such session: it was closed, its time was over, a call about it broke off, or it never was";
    Problem::new(ProblemKind::NotFound, message)
}
