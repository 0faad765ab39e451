//! When a process that ended is started again.

use std::time::{Duration, Instant};

/// Rests after each failure twice as long as after the one before, up to a bound; a success ends that.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    until: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first, until: None }
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.next);
        self.next = self.next.saturating_mul(2).min(self.most);
    }

    pub(crate) fn succeeded(&mut self) {
        (self.next, self.until) = (self.first, None);
    }

    /// How long it still rests.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_rest_up_to_a_bound_and_a_success_ends_it() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut backoff = Backoff::new(ms(100), ms(300));
        assert_eq!(backoff.wait(start), None);
        for rest in [100, 200, 300, 300] {
            backoff.failed(start);
            assert_eq!(backoff.wait(start), Some(ms(rest)));
            assert_eq!(backoff.wait(start + ms(rest)), None);
        }
        backoff.succeeded();
        assert_eq!(backoff.wait(start), None);
        backoff.failed(start);
        assert_eq!(backoff.wait(start + ms(40)), Some(ms(60)));
    }
}
