//! Which of several endpoints a request goes to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_cache::{Bound, Recent};
use cluegate_perception::ContentHash;
use reqwest::Url;

/// How long an endpoint that failed is left alone, the first time and at most.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(15);
/// Pictures whose endpoint is remembered.
const PICTURES: Bound = Bound { entries: 4096, bytes: 1 << 20 };
/// So many requests more than at the idlest endpoint may wait where a picture is known.
const WORTH: usize = 64;
/// An endpoint that says nothing to anybody for so long, while it is asked, has failed.
const SILENT: Duration = Duration::from_secs(5);

/// One engine.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    in_flight: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Left alone until then.
    rests_until: Option<Instant>,
    /// When it last said anything.
    heard: Option<Instant>,
}

impl Endpoint {
    fn new(url: Url) -> Self {
        Self { url, in_flight: AtomicUsize::new(0), state: Mutex::new(State::default()) }
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is left alone from now on. One that failed and has not answered since gets one request at a time.
    fn rest(&self, now: Instant) -> Duration {
        let state = *self.state();
        let rest = state.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let on_trial = state.failures > 0 && self.load() > 0;
        if on_trial { rest.max(Duration::from_millis(1)) } else { rest }
    }

    /// It answered, whatever it said.
    pub(crate) fn answered(&self) {
        *self.state() = State { heard: Some(Instant::now()), ..State::default() };
    }

    /// The head of an answer came, be it a refusal.
    pub(crate) fn heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Whether a request that began then has waited for an endpoint that says nothing.
    fn is_silent(&self, began: Instant, now: Instant) -> bool {
        now.saturating_duration_since(began) >= SILENT && self.state().heard.is_none_or(|heard| heard < began)
    }

    /// Nobody was there, or it failed.
    pub(crate) fn failed(&self) {
        let mut state = self.state();
        // Requests that were under way together fail together, and count as one failure.
        if state.rests_until.is_none_or(|until| until <= Instant::now()) {
            let rest = FIRST_REST.saturating_mul(1 << state.failures.min(10)).min(LONGEST_REST);
            state.failures += 1;
            state.rests_until = Some(Instant::now() + rest);
            tracing::warn!(endpoint = %self.url, failures = state.failures, ?rest, "endpoint failed");
        }
    }
}

/// All endpoints of a model.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    /// Where each picture was sent last: what an engine has computed of it is there.
    seen: Recent<ContentHash, usize>,
}

/// A request's place at an endpoint, counted as long as it lives.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) index: usize,
    began: Instant,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Callers mostly give up before the time of an attempt is over: nobody else would notice that it hangs.
        if self.endpoint.is_silent(self.began, Instant::now()) {
            self.endpoint.failed();
        }
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoints {
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        Self { all: urls.into_iter().map(Endpoint::new).collect(), seen: Recent::new(PICTURES) }
    }

    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Whether some endpoint need not be left alone.
    pub(crate) fn any_rested(&self) -> bool {
        let now = Instant::now();
        self.all.iter().any(|endpoint| endpoint.rest(now).is_zero())
    }

    /// A place for a request about `picture`: where the picture is known unless that endpoint rests or is busy, else at
    /// the least loaded one that does not rest; if all rest, at the one that rests the shortest. `not` is where it just
    /// failed, taken only if there is no other.
    pub(crate) fn place(&self, picture: Option<ContentHash>, not: Option<usize>) -> Place<'_> {
        let now = Instant::now();
        let others = self.all.len() > 1;
        let rank = |index: usize, endpoint: &Endpoint| {
            (others && not == Some(index), endpoint.rest(now), endpoint.load())
        };
        let best = self.all.iter().enumerate().min_by_key(|&(index, endpoint)| rank(index, endpoint));
        let mut index = best.map_or(0, |(index, _)| index);
        let known = picture.and_then(|picture| self.seen.get(&picture)).filter(|&known| {
            let (refused, rest, load) = rank(known, &self.all[known]);
            !refused && rest.is_zero() && load <= self.all[index].load() + WORTH
        });
        index = known.unwrap_or(index);
        if let Some(picture) = picture.filter(|_| known.is_none()) {
            self.seen.insert(picture, index, size_of::<(ContentHash, usize)>());
        }
        self.at(index)
    }

    /// A place at a certain endpoint.
    pub(crate) fn at(&self, index: usize) -> Place<'_> {
        let endpoint = &self.all[index];
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Place { endpoint, index, began: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::RgbImage;

    use super::*;

    fn endpoints(count: usize) -> Endpoints {
        Endpoints::new((0..count).map(|n| Url::parse(&format!("http://host-{n}")).unwrap()).collect())
    }

    fn picture(level: u8) -> ContentHash {
        cluegate_perception::Picture::new(RgbImage::from_pixel(2, 2, image::Rgb([level; 3]))).hash()
    }

    #[test]
    fn the_least_loaded_endpoint_gets_the_next_request() {
        let endpoints = endpoints(3);
        let places: Vec<Place<'_>> = (0..7).map(|_| endpoints.place(None, None)).collect();
        let loads: Vec<usize> = endpoints.all().iter().map(Endpoint::load).collect();
        assert_eq!(loads, [3, 2, 2]);
        drop(places);
        assert!(endpoints.all().iter().all(|endpoint| endpoint.load() == 0));
    }

    #[test]
    fn a_picture_stays_where_it_is_known_until_that_is_busy_or_fails() {
        let endpoints = endpoints(2);
        let busy = endpoints.place(None, None);
        let first = endpoints.place(Some(picture(1)), None).index;
        assert_eq!(first, 1);
        drop(busy);
        assert_eq!(endpoints.place(Some(picture(1)), None).index, 1);
        let many: Vec<Place<'_>> = (0..=WORTH).map(|_| endpoints.place(Some(picture(1)), None)).collect();
        assert_eq!(endpoints.place(Some(picture(1)), None).index, 0, "{} are enough", many.len());
        drop(many);
        endpoints.all()[0].failed();
        assert_eq!(endpoints.place(Some(picture(1)), None).index, 1);
    }

    #[test]
    fn an_endpoint_that_failed_rests_and_is_taken_if_there_is_no_other() {
        let endpoints = endpoints(2);
        endpoints.all()[0].failed();
        assert!((0..4).all(|_| endpoints.place(None, None).index == 1));
        endpoints.all()[1].failed();
        // Both rest; the first one is through earlier.
        assert_eq!(endpoints.place(None, None).index, 0);
        endpoints.all()[1].answered();
        assert_eq!(endpoints.place(None, None).index, 1);
        assert_eq!(endpoints.place(None, Some(1)).index, 0, "where it just failed is taken last");
    }

    #[test]
    fn failures_of_requests_under_way_together_count_once() {
        let endpoints = endpoints(1);
        (0..50).for_each(|_| endpoints.all()[0].failed());
        let rest = endpoints.all()[0].rest(Instant::now());
        assert!(!rest.is_zero() && rest <= FIRST_REST, "{rest:?}");
    }

    #[test]
    fn an_endpoint_that_failed_is_tried_by_one_request_at_a_time() {
        let endpoints = endpoints(2);
        endpoints.all()[0].failed();
        let later = Instant::now() + LONGEST_REST;
        assert!(endpoints.all()[0].rest(later).is_zero());
        let trial = endpoints.at(0);
        assert!(!endpoints.all()[0].rest(later).is_zero());
        trial.endpoint.answered();
        assert!(endpoints.all()[0].rest(later).is_zero());
    }

    #[test]
    fn an_endpoint_that_says_nothing_to_anybody_has_failed() {
        let endpoints = endpoints(1);
        let (endpoint, began) = (&endpoints.all()[0], Instant::now());
        assert!(!endpoint.is_silent(began, began + SILENT / 2));
        assert!(endpoint.is_silent(began, began + SILENT));
        endpoint.heard();
        assert!(!endpoint.is_silent(began, began + SILENT));
        assert!(endpoint.is_silent(Instant::now() + SILENT, began + 3 * SILENT));
    }
}
