//! How much is in work, and how much may wait. Places and queue are shared fairly between tenants: a place goes to whoever
//! has the fewest requests in work, and where the queue is full a tenant that waits less takes the place of one that waits
//! more. So no tenant's burst keeps another's requests out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};

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
    /// While there are any, nobody waits.
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
    waiting: VecDeque<Waiter>,
    /// When it was last given a place, by number.
    served: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    answer: oneshot::Sender<Answer>,
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
        state.give_places();
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

    /// Takes a free place for `tenant`.
    fn take(&mut self, tenant: &Arc<str>) -> bool {
        if self.free == 0 {
            return false;
        }
        let served = self.number();
        self.free -= 1;
        let share = self.tenants.entry(Arc::clone(tenant)).or_default();
        (share.in_work, share.served) = (share.in_work + 1, served);
        true
    }

    /// Gives free places to those who wait: first to the tenant with the fewest in work, and among equals to the one that
    /// was served the longest ago.
    fn give_places(&mut self) {
        while self.free > 0 {
            let waits = self.tenants.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
            let next = waits.min_by_key(|(_, share)| (share.in_work, share.served));
            let Some((tenant, waiter)) =
                next.and_then(|(tenant, share)| Some((Arc::clone(tenant), share.waiting.pop_front()?)))
            else {
                return;
            };
            self.waiting -= 1;
            // Counted first. Whoever has gone meanwhile finds no turn to give up, hears nothing, and needs no place.
            self.take(&tenant);
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
    fn wait(&mut self, tenant: &Arc<str>, most: usize) -> Option<(u64, oneshot::Receiver<Answer>)> {
        if self.waiting >= most {
            let own = self.tenants.get(tenant).map_or(0, |share| share.waiting.len());
            let longest = self.tenants.values_mut().max_by_key(|share| share.waiting.len())?;
            // Only if it still waits as much as whoever takes its turn.
            if longest.waiting.len() < own + 2 {
                return None;
            }
            // Its newest: the others have waited longer.
            let displaced = longest.waiting.pop_back()?;
            let _ = displaced.answer.send(Answer::Displaced);
            tracing::info!(%tenant, "the queue is full; the newest request of whoever waits the most gave way");
            self.waiting -= 1;
        }
        let (number, (answer, receiver)) = (self.number(), oneshot::channel());
        self.waiting += 1;
        let share = self.tenants.entry(Arc::clone(tenant)).or_default();
        share.waiting.push_back(Waiter { number, answer });
        Some((number, receiver))
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
    pub(crate) async fn admit(&self, tenant: &Arc<str>, deadline: Deadline) -> Result<Place, Problem> {
        if self.is_draining() {
            return Err(self.stopping());
        }
        let waiting = {
            let mut state = self.desk.lock();
            if state.take(tenant) {
                self.desk.in_work.send_modify(|in_work| *in_work += 1);
                None
            } else {
                Some(state.wait(tenant, self.queue))
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

    /// Requests in work.
    pub(crate) fn in_work(&self) -> usize {
        *self.desk.in_work.borrow()
    }

    fn overloaded(&self) -> Problem {
        let message = format!(
            "{} requests are in work and {} wait, which is all that may; come back later",
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::task::{Context, Poll, Waker};
    use std::time::Instant;

    use futures_util::future::BoxFuture;
    use proptest::prelude::*;

    use super::*;

    type Admitted<'a> = BoxFuture<'a, Result<Place, Problem>>;

    fn in_seconds(seconds: u64) -> Deadline {
        Deadline(Instant::now() + Duration::from_secs(seconds))
    }

    fn tenant(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn look<'a>(admitted: &mut Admitted<'a>) -> Poll<Result<Place, Problem>> {
        admitted.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A request of `tenant` that has been asked for once, and its place if it got one at once.
    fn ask<'a>(admission: &'a Admission, name: &str) -> (Admitted<'a>, Poll<Result<Place, Problem>>) {
        let tenant = tenant(name);
        let mut admitted: Admitted<'a> =
            Box::pin(async move { admission.admit(&tenant, in_seconds(60)).await });
        let first = look(&mut admitted);
        (admitted, first)
    }

    fn waiting(admission: &Admission) -> usize {
        admission.desk.lock().waiting
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_waits_no_longer_than_the_client() {
        let (admission, kids) = (Admission::new(1, 1, Duration::from_secs(3)), tenant("kids"));
        let first = admission.admit(&kids, in_seconds(60)).await.unwrap();
        let late = admission.admit(&kids, in_seconds(0)).await.unwrap_err();
        assert_eq!((late.kind(), waiting(&admission)), (ProblemKind::DeadlineExceeded, 0));
        let (second, waits) = ask(&admission, "kids");
        assert!(waits.is_pending());
        let third = admission.admit(&kids, in_seconds(60)).await.unwrap_err();
        assert_eq!(third.kind(), ProblemKind::Overloaded);
        drop(first);
        let place = second.await.unwrap();
        assert_eq!((admission.in_work(), waiting(&admission)), (1, 0));
        // Whoever leaves with a place that it has not taken yet leaves it to the next.
        let (left, _) = ask(&admission, "kids");
        drop(place);
        assert_eq!(admission.in_work(), 1);
        drop(left);
        assert_eq!(admission.in_work(), 0);
        let place = admission.admit(&kids, in_seconds(60)).await.unwrap();
        admission.drain();
        let refused = admission.admit(&kids, in_seconds(60)).await.unwrap_err();
        assert_eq!(refused.kind(), ProblemKind::Draining);
        drop(place);
        admission.idle().await;
        assert_eq!(admission.in_work(), 0);
    }

    #[tokio::test]
    async fn a_burst_of_one_tenant_keeps_no_other_out() {
        let admission = Admission::new(2, 4, Duration::from_secs(3));
        let mut places: Vec<Place> = Vec::new();
        for _ in 0..2 {
            places.push(admission.admit(&tenant("burst"), in_seconds(60)).await.unwrap());
        }
        let mut burst: Vec<_> = (0..4).map(|_| ask(&admission, "burst").0).collect();
        let (_, fifth) = ask(&admission, "burst");
        assert!(matches!(fifth, Poll::Ready(Err(_))));
        // Another tenant finds the queue full: the newest of those who wait the most gives way, down to a fair share.
        let (mut quiet, waits) = ask(&admission, "quiet");
        assert!(waits.is_pending());
        let Poll::Ready(Err(displaced)) = look(&mut burst[3]) else { panic!("it still waits") };
        assert_eq!(displaced.kind(), ProblemKind::Overloaded);
        assert!(look(&mut burst[2]).is_pending());
        let (_second, waits) = ask(&admission, "quiet");
        assert!(waits.is_pending());
        let (_, third) = ask(&admission, "quiet");
        assert!(matches!(third, Poll::Ready(Err(_))), "both wait as much now");
        // The first place is for whoever has nothing in work, though it came last.
        drop(places.pop());
        let Poll::Ready(Ok(_quiet)) = look(&mut quiet) else { panic!("it has no place") };
        assert!(look(&mut burst[0]).is_pending());
        drop(places.pop());
        assert!(matches!(look(&mut burst[0]), Poll::Ready(Ok(_))));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Ask(u8),
        Leave(usize),
        Finish(usize),
    }

    proptest! {
        #[test]
        fn places_and_queue_are_never_exceeded_and_never_lost(
            acts in prop::collection::vec(prop_oneof![
                (0_u8..4).prop_map(Act::Ask),
                (0_usize..16).prop_map(Act::Leave),
                (0_usize..16).prop_map(Act::Finish),
            ], 0..120),
            size in 1_usize..4,
            queue in 0_usize..6,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _guard = runtime.enter();
            let admission = Admission::new(size, queue, Duration::from_secs(1));
            let (mut waits, mut places): (Vec<Admitted<'_>>, Vec<Place>) = (Vec::new(), Vec::new());
            for act in acts {
                match act {
                    Act::Ask(name) => match ask(&admission, &name.to_string()) {
                        (admitted, Poll::Pending) => waits.push(admitted),
                        (_, Poll::Ready(Ok(place))) => places.push(place),
                        (_, Poll::Ready(Err(_))) => prop_assert_eq!(waiting(&admission), queue),
                    },
                    Act::Leave(index) if index < waits.len() => drop(waits.swap_remove(index)),
                    Act::Finish(index) if index < places.len() => drop(places.swap_remove(index)),
                    Act::Leave(_) | Act::Finish(_) => {}
                }
                let mut still = Vec::new();
                for mut admitted in waits {
                    match look(&mut admitted) {
                        Poll::Pending => still.push(admitted),
                        Poll::Ready(Ok(place)) => places.push(place),
                        Poll::Ready(Err(_)) => {}
                    }
                }
                waits = still;
                prop_assert_eq!(admission.in_work(), places.len());
                prop_assert_eq!(waiting(&admission), waits.len());
                prop_assert!(places.len() <= size && waits.len() <= queue);
                prop_assert!(waits.is_empty() || places.len() == size, "a place is free, and somebody waits");
                // Nobody waits with nothing in work while another has two.
                let state = admission.desk.lock();
                prop_assert_eq!(state.free + state.in_work(), size);
                prop_assert!(state.tenants.values().all(|share| share.in_work + share.waiting.len() > 0));
            }
        }
    }
}
