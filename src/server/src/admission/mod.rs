//! How much is in work, and how much may wait.
//!
//! A place goes to the highest priority that waits; a request that waits rises by one for every [`AGEING`], so that none
//! starves. Within one priority places and queue are shared fairly between tenants: a place goes to whoever has the fewest
//! requests in work, and where the queue is full a tenant that waits less takes the place of one that waits more. So no
//! tenant's burst keeps another's requests out. Nobody has more in work than its own limit; what is over it waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_telemetry::{TARGET, catalogue};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};

/// How long a request waits for each step by which it rises.
const AGEING: Duration = Duration::from_secs(10);

/// What a request's policy says of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// From 0 to 9; higher ones go first.
    pub(crate) priority: u8,
    /// Most requests of the tenant in work at a time, if that is limited.
    pub(crate) in_work: Option<usize>,
}

/// Places for requests in work, and a bounded queue before them.
#[derive(Debug)]
pub(crate) struct Admission {
    desk: Arc<Desk>,
    places: usize,
    queue: usize,
    retry_after: Duration,
    draining: CancellationToken,
}

#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    /// Requests in work. Changed under the lock only.
    in_work: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    /// While there are any, only those wait who have as much in work as they may.
    free: usize,
    waiting: usize,
    /// Those who have something in work or waiting.
    tenants: BTreeMap<Arc<str>, Share>,
    /// Number of the next request that waits, and of the next place that is given.
    next: u64,
}

/// What one tenant has.
#[derive(Debug, Default)]
struct Share {
    in_work: usize,
    /// In the order of their coming, whatever their priorities.
    waiting: VecDeque<Waiter>,
    /// When it was last given a place, by number.
    served: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    standing: Standing,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Waiter {
    /// Its priority and what it rose by since it came.
    fn rank(&self, now: Instant) -> u64 {
        let risen = now.saturating_duration_since(self.since).as_secs() / AGEING.as_secs();
        u64::from(self.standing.priority) + risen
    }
}

impl Share {
    /// Whether its policy leaves room for one more in work.
    fn has_room(&self, standing: Standing) -> bool {
        standing.in_work.is_none_or(|most| self.in_work < most)
    }

    /// The place in its line of the request that goes first, and its rank; none if none may go.
    fn first(&self, now: Instant) -> Option<(usize, u64)> {
        let ready = self.waiting.iter().enumerate().filter(|(_, waiter)| self.has_room(waiter.standing));
        let ranked = ready.map(|(place, waiter)| (place, waiter.rank(now)));
        // Of equals the one that came first.
        ranked.min_by_key(|(place, rank)| (std::cmp::Reverse(*rank), *place))
    }
}

/// What becomes of a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It has a place, which is counted already.
    Placed,
    /// It gave way to a tenant that waits less.
    Displaced,
}

/// The right to work on one request; its place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    desk: Arc<Desk>,
    tenant: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.desk.release(&self.tenant);
    }
}

/// A request that waits. If it is dropped meanwhile, it gives up its turn, or the place that it was given last.
struct Waiting {
    desk: Arc<Desk>,
    tenant: Arc<str>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting {
    /// Waits for the answer. The place is the caller's.
    async fn answer(mut self) -> Option<Place> {
        match (&mut self.answer).await {
            Ok(Answer::Placed) => {
                Some(Place { desk: Arc::clone(&self.desk), tenant: Arc::clone(&self.tenant) })
            }
            Ok(Answer::Displaced) | Err(_) => None,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.desk.leave(&self.tenant, self.number) {
            return;
        }
        // Answered already, perhaps a moment ago: an answer that was heard cannot be received again.
        if self.answer.try_recv() == Ok(Answer::Placed) {
            self.desk.release(&self.tenant);
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, tenant: &Arc<str>) {
        let mut state = self.lock();
        state.free += 1;
        if let Some(share) = state.tenants.get_mut(tenant) {
            share.in_work = share.in_work.saturating_sub(1);
        }
        state.forget_idle(tenant);
        state.give_places(Instant::now());
        self.in_work.send_modify(|in_work| *in_work = state.in_work());
    }

    /// Takes a request that waits out of the queue. `false` if it does not wait any more.
    fn leave(&self, tenant: &Arc<str>, number: u64) -> bool {
        let mut state = self.lock();
        let Some(share) = state.tenants.get_mut(tenant) else { return false };
        let before = share.waiting.len();
        share.waiting.retain(|waiter| waiter.number != number);
        let left = before - share.waiting.len();
        state.waiting -= left;
        state.forget_idle(tenant);
        left > 0
    }
}

impl State {
    fn in_work(&self) -> usize {
        self.tenants.values().map(|share| share.in_work).sum()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget_idle(&mut self, tenant: &Arc<str>) {
        let idle = |share: &Share| share.in_work == 0 && share.waiting.is_empty();
        if self.tenants.get(tenant).is_some_and(idle) {
            self.tenants.remove(tenant);
        }
    }

    /// Takes a free place for a request of `tenant`, if its limit allows.
    fn take(&mut self, tenant: &Arc<str>, standing: Standing) -> bool {
        let has_room = self.tenants.get(tenant).is_none_or(|share| share.has_room(standing));
        if self.free == 0 || !has_room || standing.in_work == Some(0) {
            return false;
        }
        let served = self.number();
        self.free -= 1;
        let share = self.tenants.entry(Arc::clone(tenant)).or_default();
        (share.in_work, share.served) = (share.in_work + 1, served);
        true
    }

    /// Gives free places to those who wait: first to the highest rank, within it to the tenant with the fewest in work,
    /// and among equals to the one that was served the longest ago.
    fn give_places(&mut self, now: Instant) {
        while self.free > 0 {
            let next = self
                .tenants
                .iter()
                .filter_map(|(tenant, share)| Some((tenant, share, share.first(now)?)))
                .min_by_key(|(_, share, (_, rank))| (std::cmp::Reverse(*rank), share.in_work, share.served))
                .map(|(tenant, _, (place, _))| (Arc::clone(tenant), place));
            let Some((tenant, place)) = next else { return };
            let share = self.tenants.get_mut(&tenant);
            let Some(waiter) = share.and_then(|share| share.waiting.remove(place)) else { return };
            self.waiting -= 1;
            // Counted first. Whoever has gone meanwhile finds no turn to give up, hears nothing, and needs no place.
            self.take(&tenant, waiter.standing);
            if waiter.answer.send(Answer::Placed).is_err() {
                self.free += 1;
                if let Some(share) = self.tenants.get_mut(&tenant) {
                    share.in_work -= 1;
                }
                self.forget_idle(&tenant);
            }
        }
    }

    /// Puts a request of `tenant` into the queue of at most `most`; none if it is full and nobody has to give way.
    fn wait(
        &mut self,
        tenant: &Arc<str>,
        standing: Standing,
        most: usize,
        now: Instant,
    ) -> Option<(u64, oneshot::Receiver<Answer>)> {
        if self.waiting >= most {
            self.displace(tenant, standing, now)?;
        }
        let (number, (answer, receiver)) = (self.number(), oneshot::channel());
        self.waiting += 1;
        let share = self.tenants.entry(Arc::clone(tenant)).or_default();
        share.waiting.push_back(Waiter { number, standing, since: now, answer });
        Some((number, receiver))
    }

    /// Makes room in a full queue: a request of lower rank gives way, or within one rank one of a tenant that waits more.
    /// Always a tenant's newest: the others have waited longer.
    fn displace(&mut self, tenant: &Arc<str>, standing: Standing, now: Instant) -> Option<()> {
        let own = self.tenants.get(tenant).map_or(0, |share| share.waiting.len());
        let newest = |share: &Share| share.waiting.back().map(|waiter| waiter.rank(now));
        let (rank, share) = self
            .tenants
            .values_mut()
            .filter_map(|share| Some((newest(share)?, share)))
            .min_by_key(|(rank, share)| (*rank, std::cmp::Reverse(share.waiting.len())))?;
        let asked = u64::from(standing.priority);
        // Within one rank only if it still waits as much as whoever takes its turn.
        if rank > asked || (rank == asked && share.waiting.len() < own + 2) {
            return None;
        }
        let displaced = share.waiting.pop_back()?;
        let _ = displaced.answer.send(Answer::Displaced);
        tracing::info!(%tenant, "the queue is full; a request of less priority, or of whoever waits the most, gave way");
        self.waiting -= 1;
        self.tenants.retain(|_, share| share.in_work > 0 || !share.waiting.is_empty());
        Some(())
    }
}

impl Admission {
    /// `places` requests at once, `queue` more that wait; beyond them a client is told to come back after `retry_after`.
    pub(crate) fn new(places: usize, queue: usize, retry_after: Duration) -> Self {
        let state = State { free: places, waiting: 0, tenants: BTreeMap::new(), next: 0 };
        let desk = Arc::new(Desk { state: Mutex::new(state), in_work: watch::Sender::new(0) });
        Self { desk, places, queue, retry_after, draining: CancellationToken::new() }
    }

    /// Waits for a place for a request of `tenant`, not beyond `deadline`.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full, or the request gave way to another tenant's; `DeadlineExceeded`, or `Draining`.
    pub(crate) async fn admit(
        &self,
        tenant: &Arc<str>,
        standing: Standing,
        deadline: Deadline,
    ) -> Result<Place, Problem> {
        let (begun, span) = (Instant::now(), tracing::info_span!(target: TARGET, "admission"));
        let admitted = self.place(tenant, standing, deadline).instrument(span).await;
        match &admitted {
            Ok(_) => catalogue::STAGE.observe(begun.elapsed().as_secs_f64(), &["admission"]),
            Err(problem) => catalogue::ADMISSION_REFUSED.add(1, &[problem.kind().code()]),
        }
        admitted
    }

    async fn place(
        &self,
        tenant: &Arc<str>,
        standing: Standing,
        deadline: Deadline,
    ) -> Result<Place, Problem> {
        if self.is_draining() {
            return Err(self.stopping());
        }
        let waiting = {
            let mut state = self.desk.lock();
            if state.take(tenant, standing) {
                self.desk.in_work.send_modify(|in_work| *in_work += 1);
                None
            } else {
                Some(state.wait(tenant, standing, self.queue, Instant::now()))
            }
        };
        let place = match waiting {
            None => Place { desk: Arc::clone(&self.desk), tenant: Arc::clone(tenant) },
            Some(None) => return Err(self.overloaded()),
            Some(Some((number, answer))) => {
                let (desk, tenant) = (Arc::clone(&self.desk), Arc::clone(tenant));
                self.wait(Waiting { desk, tenant, number, answer }, deadline).await?
            }
        };
        // Looks once more: whoever waits for all places to be free must find nobody in one afterwards.
        if self.is_draining() { Err(self.stopping()) } else { Ok(place) }
    }

    async fn wait(&self, waiting: Waiting, deadline: Deadline) -> Result<Place, Problem> {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Err(self.stopping()),
            () = tokio::time::sleep_until(deadline.0.into()) => {
                let message = "the request's deadline passed while it waited for its turn";
                Err(Problem::new(ProblemKind::DeadlineExceeded, message).retry_after(self.retry_after))
            }
            place = waiting.answer() => place.ok_or_else(|| self.overloaded()),
        }
    }

    /// Takes no further request. Those that have a place go on.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether no further request is taken.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until no further request is taken.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits until nothing is in work.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as this does.
        let _ = self.desk.in_work.subscribe().wait_for(|in_work| *in_work == 0).await;
    }

    /// Requests in work, of each tenant that has any.
    pub(crate) fn in_work_by_tenant(&self) -> Vec<(Arc<str>, usize)> {
        let state = self.desk.lock();
        state.tenants.iter().map(|(tenant, share)| (Arc::clone(tenant), share.in_work)).collect()
    }

    /// Requests that wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.desk.lock().waiting
    }

    /// Requests in work.
    pub(crate) fn in_work(&self) -> usize {
        *self.desk.in_work.borrow()
    }

    fn overloaded(&self) -> Problem {
        let message = format!(
            "at most {} requests may be in work and {} wait, and as many do; come back later",
            self.places, self.queue
        );
        Problem::new(ProblemKind::Overloaded, message).retry_after(self.retry_after)
    }

    fn stopping(&self) -> Problem {
        let message = "the server is stopping and takes no further request; come back later";
        Problem::new(ProblemKind::Draining, message).retry_after(self.retry_after)
    }
}

#[cfg(test)]
mod tests;
