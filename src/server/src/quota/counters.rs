//! Where usage is counted: in this process, or in a store that several gateways share.

use cluegate_store::{Consumed, Measure, Store, Usage, Want};
use thiserror::Error;

use super::memory::{MemoryCounters, MemoryReservation};

/// The counters cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("usage cannot be counted: {0}")]
pub(crate) struct CountersGone(String);

/// Where usage is counted.
#[derive(Debug)]
pub(crate) enum Counters {
    /// In this process, from 0 at its start.
    Memory(MemoryCounters),
    /// For all gateways that share the store.
    Store(Store),
}

/// What was counted for a request, to be settled.
#[derive(Debug)]
pub(crate) enum Held {
    Memory(MemoryReservation),
    Store(cluegate_store::Reservation),
}

/// What became of a request for some of a quota.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All of it was counted.
    Held(Held),
    /// This quota has too little left; nothing was counted.
    Exhausted(Exhausted),
}

/// A quota with too little left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    pub(crate) want: Want,
    /// What is spent or reserved of it.
    pub(crate) used: i64,
    /// When its window ends, in milliseconds since 1970 (UTC).
    pub(crate) ends_ms: i64,
}

impl Counters {
    /// Counts all of `wants`, or nothing if one of them has too little left.
    pub(crate) async fn consume(
        &self,
        tenant: &str,
        wants: &[Want],
        now_ms: i64,
    ) -> Result<Answer, CountersGone> {
        match self {
            Self::Memory(memory) => Ok(memory.consume(tenant, wants, now_ms)),
            Self::Store(store) => Ok(match store.consume(tenant, wants, now_ms).await.map_err(gone)? {
                Consumed::Counted(held) => Answer::Held(Held::Store(held)),
                Consumed::Exhausted { want, used, ends_ms } => {
                    Answer::Exhausted(Exhausted { want, used, ends_ms })
                }
            }),
        }
    }

    /// Replaces what was counted by what was used. If the store is gone, what was counted stays so.
    pub(crate) async fn settle(
        &self,
        held: Held,
        used: impl Fn(Measure) -> i64 + Send,
    ) -> Result<(), CountersGone> {
        match (self, held) {
            (Self::Store(store), Held::Store(held)) => store.settle(held, used).await.map_err(gone),
            (Self::Memory(memory), Held::Memory(held)) => {
                memory.settle(held, used);
                Ok(())
            }
            // A reservation is settled where it was made.
            (_, Held::Memory(_) | Held::Store(_)) => Ok(()),
        }
    }

    /// What the tenant used in the windows around `now_ms`.
    pub(crate) async fn usage(&self, tenant: &str, now_ms: i64) -> Result<Vec<Usage>, CountersGone> {
        match self {
            Self::Memory(memory) => Ok(memory.usage(tenant, now_ms)),
            Self::Store(store) => store.usage(tenant, now_ms).await.map_err(gone),
        }
    }
}

fn gone(error: cluegate_store::StoreError) -> CountersGone {
    CountersGone(error.to_string())
}
