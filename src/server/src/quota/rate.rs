//! Requests per minute: one bucket a tenant, which fills evenly and holds a burst.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most tenants of whom a bucket is kept. Beyond them those are forgotten whose bucket is full.
const BUCKETS: usize = 100_000;

/// How fast requests may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests in a minute, 1 or more.
    pub(crate) per_minute: u32,
    /// Requests at once, 1 or more.
    pub(crate) burst: u32,
}

impl Pace {
    /// What one request takes of the bucket.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_secs(60) / self.per_minute.max(1)
    }

    /// What the bucket holds beside the request that is let through.
    pub(crate) fn tolerance(self) -> Duration {
        self.interval() * self.burst.saturating_sub(1)
    }
}

/// The buckets of this process. Each is kept as the moment at which it will be full again (the generic cell rate
/// algorithm, ITU-T I.371), on a clock that does not jump.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    full_at: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Rates {
    /// Lets a request through, or says how long it has to wait.
    pub(crate) fn take(&self, tenant: &Arc<str>, pace: Pace) -> Option<Duration> {
        self.take_at(tenant, pace, Instant::now())
    }

    fn take_at(&self, tenant: &Arc<str>, pace: Pace, now: Instant) -> Option<Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= BUCKETS {
            full_at.retain(|_, at| *at > now);
        }
        let at = full_at.get(tenant).copied().unwrap_or(now).max(now);
        let lacks = (at - now).saturating_sub(pace.tolerance());
        if lacks > Duration::ZERO {
            return Some(lacks);
        }
        full_at.insert(Arc::clone(tenant), at + pace.interval());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let (rates, tenant) = (Rates::default(), Arc::from("t"));
        let (pace, begin) = (Pace { per_minute: 6, burst: 3 }, Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let waits = |now| rates.take_at(&tenant, pace, now);
        assert_eq!([waits(at(0)), waits(at(0)), waits(at(0))], [None, None, None]);
        assert_eq!(waits(at(0)), Some(Duration::from_secs(10)));
        assert_eq!(waits(at(4)), Some(Duration::from_secs(6)), "a refused request takes nothing");
        assert_eq!((waits(at(10)), waits(at(10))), (None, Some(Duration::from_secs(10))));
        // A long pause fills the bucket, and no further.
        assert_eq!([waits(at(500)), waits(at(500)), waits(at(500))], [None, None, None]);
        assert!(waits(at(500)).is_some());
        // Another tenant has a bucket of its own.
        assert_eq!(rates.take_at(&Arc::from("u"), pace, at(500)), None);
    }
}
