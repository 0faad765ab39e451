//! When a request is sent again.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use rand::RngExt;

use crate::options::RetryOptions;

/// Repetitions that are always allowed, so that the first requests of all may be repeated too.
const SPARE: f64 = 16.0;
/// Longest wait that an engine may ask for; after a longer one somebody else should be asked, by whoever asked here.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// How long to wait before another attempt, and whether there may be one.
#[derive(Debug)]
pub(crate) struct Retries {
    options: RetryOptions,
    /// Repetitions that may still be made; each request adds its share.
    allowance: Mutex<f64>,
}

impl Retries {
    pub(crate) fn new(options: RetryOptions) -> Self {
        Self { options, allowance: Mutex::new(SPARE) }
    }

    /// The longest wait before another attempt.
    pub(crate) fn longest_backoff(&self) -> Duration {
        Duration::from_millis(self.options.longest_backoff_ms)
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        *allowance = (*allowance + self.options.budget).min(SPARE.max(64.0));
    }

    /// How long to wait after `attempts` attempts that failed; `None` if it was the last one. A request that `moves` to an
    /// endpoint that is well is no repetition to anybody.
    pub(crate) fn next(&self, attempts: u32, asked: Option<Duration>, moves: bool) -> Option<Duration> {
        if attempts >= self.options.attempts || asked.is_some_and(|asked| asked > LONGEST_ASKED) {
            return None;
        }
        if !moves {
            let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
            if *allowance < 1.0 {
                return None;
            }
            *allowance -= 1.0;
        }
        let doubled = self.options.backoff_ms.saturating_mul(1 << (attempts - 1).min(20));
        let longest = doubled.min(self.options.longest_backoff_ms).max(1);
        // Requests that failed together do not come back together.
        let jittered = Duration::from_millis(rand::rng().random_range(longest / 2..=longest));
        Some(asked.map_or(jittered, |asked| asked.max(jittered)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options(attempts: u32, budget: f64) -> RetryOptions {
        RetryOptions { attempts, budget, backoff_ms: 100, longest_backoff_ms: 300 }
    }

    #[test]
    fn waits_grow_and_end() {
        let retries = Retries::new(options(5, 0.2));
        let waits: Vec<u128> = (1..5).map(|n| retries.next(n, None, false).unwrap().as_millis()).collect();
        for (wait, range) in waits.iter().zip([50..=100, 100..=200, 150..=300, 150..=300]) {
            assert!(range.contains(wait), "{waits:?}");
        }
        assert_eq!(retries.next(5, None, false), None);
    }

    #[test]
    fn what_the_engine_asks_for_is_waited() {
        let wait = Retries::new(options(2, 0.2)).next(1, Some(Duration::from_secs(7)), false).unwrap();
        assert_eq!(wait, Duration::from_secs(7));
        assert_eq!(Retries::new(options(2, 0.2)).next(1, Some(Duration::from_secs(u64::MAX)), false), None);
    }

    #[test]
    fn repetitions_are_a_share_of_requests() {
        let retries = Retries::new(options(100, 0.25));
        let spare = (0..1000).take_while(|_| retries.next(1, None, false).is_some()).count();
        assert_eq!(spare, 16);
        assert!(retries.next(1, None, true).is_some(), "a move is no repetition");
        (0..40).for_each(|_| retries.begin());
        let allowed = (0..1000).take_while(|_| retries.next(1, None, false).is_some()).count();
        assert_eq!(allowed, 10);
    }
}
