//! What a worker has done so far, for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A snapshot of one queue and its worker. Every request is counted once when it has ended: as served, abandoned or
/// rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that the model answered, with a result or with an error.
    pub served: u64,
    /// Requests that were over, by deadline or cancellation, before the model had answered them.
    pub abandoned: u64,
    /// Requests refused because the queue was full.
    pub rejected: u64,
    /// Calls of the model; for free answers the tokens decoded for a whole batch at once.
    pub batches: u64,
    /// Most items of one such call, before equal ones were merged.
    pub largest_batch: u64,
    /// Panics of the model.
    pub panics: u64,
    /// Requests waiting now.
    pub queued: usize,
}

/// Snapshots of the two queues of a language model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LanguageStatistics {
    /// Requests for scores.
    pub scores: Statistics,
    /// Requests for free answers.
    pub answers: Statistics,
}

/// The counters behind [`Statistics`], shared by callers and worker.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) served: Counter,
    pub(crate) abandoned: Counter,
    pub(crate) rejected: Counter,
    pub(crate) panics: Counter,
    batches: Counter,
    largest_batch: AtomicU64,
    /// Counted when a request is in the queue, and it may have been taken out before: -1 for a moment.
    queued: AtomicI64,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts a call of the model over `items`.
    pub(crate) fn batch(&self, items: usize) {
        self.batches.increment();
        self.largest_batch.fetch_max(items as u64, Ordering::Relaxed);
    }

    /// Counts a request that has come into the queue; [`Queued`] counts it out.
    pub(crate) fn enter(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Statistics {
        Statistics {
            served: self.served.get(),
            abandoned: self.abandoned.get(),
            rejected: self.rejected.get(),
            batches: self.batches.get(),
            largest_batch: self.largest_batch.load(Ordering::Relaxed),
            panics: self.panics.get(),
            queued: usize::try_from(self.queued.load(Ordering::Relaxed)).unwrap_or(0),
        }
    }
}

/// A request in the queue, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Queued(pub(crate) Arc<Counters>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}
