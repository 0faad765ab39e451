//! How fast work is done, to tell before it begins whether it can be done in time.

use std::time::{Duration, Instant};

/// Weight of a new interval in the mean. Work that was computed together is done together: a long interval is followed by
/// very short ones, and only their mean tells the pace.
const WEIGHT: f64 = 0.15;
/// Times the mean that an interval counts at most: a single slow piece of work is not yet a slow machine.
const LONGEST: f64 = 8.0;

/// The mean time between two pieces of work that were done, while there was work to do.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the last one was done, or when work began after there had been none.
    since: Option<Instant>,
    /// In seconds; `None` until a first piece of work was done.
    interval: Option<f64>,
}

impl Pace {
    /// Work begins after there was none: the time before does not count.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// A piece of work was done. One that was given up is none, and lengthens the time to the next that is done.
    pub(crate) fn done(&mut self, now: Instant) {
        if let Some(since) = self.since.replace(now) {
            let own = now.saturating_duration_since(since).as_secs_f64();
            let follow = |mean: f64| mean + WEIGHT * (own.min(LONGEST * mean) - mean);
            let interval = self.interval.map_or(own, follow);
            self.interval = Some(interval);
        }
    }

    /// How long it takes to do `pieces`; `None` while nothing is known.
    pub(crate) fn time_for(&self, pieces: usize) -> Option<Duration> {
        let seconds = self.interval? * pieces as f64;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_is_done_and_not_the_pauses() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut pace = Pace::default();
        assert_eq!(pace.time_for(3), None);
        pace.begin(at(0));
        pace.done(at(40));
        assert_eq!(pace.time_for(3), Some(Duration::from_millis(120)));
        // A pause of a minute, and as fast as before.
        pace.begin(at(60_000));
        pace.done(at(60_040));
        assert_eq!(pace.time_for(1), Some(Duration::from_millis(40)));
        // Slower by half: some of it is believed at once, all of it in the end.
        pace.done(at(60_100));
        assert_eq!(pace.time_for(1), Some(Duration::from_millis(43)));
        for turn in 1..60 {
            pace.done(at(60_100 + 60 * turn));
        }
        assert!(pace.time_for(1).unwrap().abs_diff(Duration::from_millis(60)) < Duration::from_millis(1));
        // One that took a minute is not believed to be the rule.
        pace.begin(at(100_000));
        pace.done(at(160_000));
        assert!(pace.time_for(1).unwrap() < Duration::from_millis(125));
    }

    #[test]
    fn work_that_is_done_together_has_the_pace_of_its_mean() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.begin(start);
        for turn in 1..40 {
            for _ in 0..5 {
                pace.done(start + Duration::from_millis(200 * turn));
            }
        }
        let found = pace.time_for(5).unwrap();
        assert!(found > Duration::from_millis(120) && found < Duration::from_millis(220), "{found:?}");
    }
}
