//! How much is in work, and how much may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;
use crate::problem::{Problem, ProblemKind};

/// Places for requests in work, and a bounded queue before them.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    total: usize,
    waiting: AtomicUsize,
    queue: usize,
    retry_after: Duration,
    draining: CancellationToken,
}

/// The right to work on one request; its place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

/// Counts a waiting request for as long as it waits, also if it is dropped meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    /// `places` requests at once, `queue` more that wait; beyond them a client is told to come back after `retry_after`.
    pub(crate) fn new(places: usize, queue: usize, retry_after: Duration) -> Self {
        let total = places.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(total)),
            total,
            waiting: AtomicUsize::new(0),
            queue,
            retry_after,
            draining: CancellationToken::new(),
        }
    }

    /// Waits for a place, not beyond `deadline`.
    ///
    /// # Errors
    /// `Overloaded` if the queue is full, `DeadlineExceeded`, or `Draining`.
    pub(crate) async fn admit(&self, deadline: Deadline) -> Result<Place, Problem> {
        if self.draining.is_cancelled() {
            return Err(self.stopping());
        }
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return self.place(permit);
        }
        let one_more = |waiting| (waiting < self.queue).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            let message = format!(
                "{} requests are in work and {} wait, which is all that may; come back later",
                self.total, self.queue
            );
            return Err(Problem::new(ProblemKind::Overloaded, message).retry_after(self.retry_after));
        }
        let _waiting = Waiting(&self.waiting);
        let place = Arc::clone(&self.places).acquire_owned();
        let place = tokio::select! {
            biased;
            () = self.draining.cancelled() => return Err(self.stopping()),
            () = tokio::time::sleep_until(deadline.0.into()) => {
                let message = "the request's deadline passed while it waited for its turn";
                return Err(Problem::new(ProblemKind::DeadlineExceeded, message).retry_after(self.retry_after));
            }
            place = place => place,
        };
        place.map_err(|_| self.stopping()).and_then(|permit| self.place(permit))
    }

    /// Looks once more: whoever waits for all places to be free must find nobody in one afterwards.
    fn place(&self, permit: OwnedSemaphorePermit) -> Result<Place, Problem> {
        if self.is_draining() { Err(self.stopping()) } else { Ok(Place(permit)) }
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
        // Taking all places is to wait for those who have them.
        let _ = self.places.acquire_many(u32::try_from(self.total).unwrap_or(u32::MAX)).await;
    }

    /// Requests in work.
    pub(crate) fn in_work(&self) -> usize {
        self.total - self.places.available_permits()
    }

    fn stopping(&self) -> Problem {
        let message = "the server is stopping and takes no further request; come back later";
        Problem::new(ProblemKind::Draining, message).retry_after(self.retry_after)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use super::*;

    fn in_seconds(seconds: u64) -> Deadline {
        Deadline(Instant::now() + Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_waits_no_longer_than_the_client() {
        let admission = Arc::new(Admission::new(1, 1, Duration::from_secs(3)));
        let first = admission.admit(in_seconds(60)).await.unwrap();
        let late = admission.admit(in_seconds(0)).await.unwrap_err();
        assert_eq!(late.kind(), ProblemKind::DeadlineExceeded);
        let copy = Arc::clone(&admission);
        let second = tokio::spawn(async move { copy.admit(in_seconds(60)).await });
        while admission.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        let third = admission.admit(in_seconds(60)).await.unwrap_err();
        assert_eq!(third.kind(), ProblemKind::Overloaded);
        drop(first);
        let place = second.await.unwrap().unwrap();
        assert_eq!((admission.in_work(), admission.waiting.load(Ordering::Acquire)), (1, 0));
        admission.drain();
        assert_eq!(admission.admit(in_seconds(60)).await.unwrap_err().kind(), ProblemKind::Draining);
        drop(place);
        admission.idle().await;
        assert_eq!(admission.in_work(), 0);
    }
}
