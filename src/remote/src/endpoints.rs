//! Which of several endpoints a request goes to, and which of them may be asked at all.
//!
//! Nobody's question goes to an endpoint that is not fit: one that has not passed a check yet, or has failed since. What
//! comes back after a failure may be another model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluegate_cache::{Bound, Recent};
use cluegate_perception::ContentHash;
use reqwest::Url;
use tokio::sync::{Notify, watch};

use crate::error::{RemoteError, RemoteErrorKind};

/// How long an endpoint that failed a check is left alone, the first time and at most.
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
    /// Wakes the one who checks it.
    failed: Notify,
}

#[derive(Debug)]
struct State {
    /// Why it may not be asked, and when it is checked, or since when. Nothing for one that has passed a check and has not
    /// failed since.
    unfit: Option<(RemoteError, Instant)>,
    /// How long it is left alone before the next check.
    rest: Duration,
    /// When it last said anything.
    heard: Option<Instant>,
}

impl State {
    fn leave_alone(&mut self, error: RemoteError) {
        self.unfit = Some((error, Instant::now() + self.rest));
        self.rest = self.rest.saturating_mul(2).clamp(FIRST_REST, LONGEST_REST);
    }
}

impl Endpoint {
    fn new(url: Url) -> Self {
        let error = RemoteError::new(RemoteErrorKind::Unreachable, &url, "has not been asked yet");
        let state = State { unfit: Some((error, Instant::now())), rest: Duration::ZERO, heard: None };
        Self { url, in_flight: AtomicUsize::new(0), state: Mutex::new(state), failed: Notify::new() }
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked.
    pub(crate) fn is_fit(&self) -> bool {
        self.state().unfit.is_none()
    }

    /// It has answered a question as it should.
    pub(crate) fn answered(&self) {
        let mut state = self.state();
        state.heard = Some(Instant::now());
        state.rest = Duration::ZERO;
    }

    /// The head of an answer came, be it a refusal.
    pub(crate) fn heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Whether a request that began then has waited for an endpoint that says nothing.
    fn is_silent(&self, began: Instant, now: Instant) -> bool {
        now.saturating_duration_since(began) >= SILENT && self.state().heard.is_none_or(|heard| heard < began)
    }

    /// Nobody was there, or it failed, or it refuses everybody. Requests that were under way together fail together: the
    /// first of them counts.
    pub(crate) fn failed(&self, error: RemoteError) {
        let mut state = self.state();
        if state.unfit.is_none() {
            tracing::warn!(endpoint = %self.url, %error, "endpoint failed; it is asked again when it has passed a check");
            state.leave_alone(error);
            self.failed.notify_one();
        }
    }

    /// Waits until it has to be checked.
    pub(crate) async fn due(&self) {
        loop {
            let due = self.state().unfit.as_ref().map(|(_, due)| *due);
            match due {
                Some(due) => return tokio::time::sleep_until(due.into()).await,
                None => self.failed.notified().await,
            }
        }
    }

    /// What a check has found.
    fn checked(&self, outcome: Result<(), RemoteError>) {
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                tracing::info!(endpoint = %self.url, "endpoint is fit");
                state.unfit = None;
            }
            Err(error) => {
                tracing::warn!(endpoint = %self.url, %error, "endpoint is not used");
                state.leave_alone(error);
            }
        }
    }
}

/// All endpoints of a model.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    /// Where each picture was sent last: what an engine has computed of it is there.
    seen: Recent<ContentHash, usize>,
    /// Checks that have ended.
    checks: watch::Sender<u64>,
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
            let message = format!("has said nothing to anybody for {} s", SILENT.as_secs());
            self.endpoint.failed(RemoteError::new(RemoteErrorKind::Failed, &self.endpoint.url, message));
        }
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoints {
    pub(crate) fn new(urls: Vec<Url>) -> Self {
        let all = urls.into_iter().map(Endpoint::new).collect();
        Self { all, seen: Recent::new(PICTURES), checks: watch::Sender::new(0) }
    }

    pub(crate) fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Whether some endpoint may be asked.
    pub(crate) fn any_fit(&self) -> bool {
        self.all.iter().any(Endpoint::is_fit)
    }

    /// What a check of one endpoint has found.
    pub(crate) fn checked(&self, index: usize, outcome: Result<(), RemoteError>) {
        self.all[index].checked(outcome);
        self.checks.send_modify(|count| *count += 1);
    }

    /// Told of every check that ends from now on.
    pub(crate) fn checks(&self) -> watch::Receiver<u64> {
        self.checks.subscribe()
    }

    /// Why no endpoint may be asked, a reason that may pass before one that stays; and when the next one is checked, or
    /// since when. Nothing if one may be asked.
    pub(crate) fn why_none(&self) -> Option<(RemoteError, Instant)> {
        let mut why: Option<(RemoteError, Instant)> = None;
        for endpoint in &self.all {
            let (error, due) = endpoint.state().unfit.clone()?;
            why = Some(match why {
                None => (error, due),
                Some((known, first)) => {
                    let passes = !known.is_passing() && error.is_passing();
                    (if passes { error } else { known }, first.min(due))
                }
            });
        }
        why
    }

    /// A place for a request about `picture`: where the picture is known unless that endpoint is busy, else at the least
    /// loaded one; none if no endpoint is fit. `not` is where it just failed, taken only if there is no other.
    pub(crate) fn place(&self, picture: Option<ContentHash>, not: Option<usize>) -> Option<Place<'_>> {
        let fit = |index: &usize| self.all[*index].is_fit();
        let rank = |index: &usize| (not == Some(*index), self.all[*index].load());
        let best = (0..self.all.len()).filter(fit).min_by_key(rank)?;
        let known = picture.and_then(|picture| self.seen.get(&picture)).filter(|known| {
            let (refused, load) = rank(known);
            fit(known) && !refused && load <= self.all[best].load() + WORTH
        });
        let index = known.unwrap_or(best);
        if let Some(picture) = picture.filter(|_| known.is_none()) {
            self.seen.insert(picture, index, size_of::<(ContentHash, usize)>());
        }
        Some(self.at(index))
    }

    /// A place at a certain endpoint, fit or not.
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
        let urls = (0..count).map(|n| Url::parse(&format!("http://host-{n}")).unwrap());
        let endpoints = Endpoints::new(urls.collect());
        (0..count).for_each(|index| endpoints.checked(index, Ok(())));
        endpoints
    }

    fn error(kind: RemoteErrorKind) -> RemoteError {
        RemoteError::new(kind, "http://host", "no")
    }

    fn broken() -> RemoteError {
        error(RemoteErrorKind::Failed)
    }

    fn picture(level: u8) -> ContentHash {
        cluegate_perception::Picture::new(RgbImage::from_pixel(2, 2, image::Rgb([level; 3]))).hash()
    }

    fn place(endpoints: &Endpoints, picture: Option<ContentHash>) -> usize {
        endpoints.place(picture, None).unwrap().index
    }

    #[test]
    fn the_least_loaded_endpoint_gets_the_next_request() {
        let endpoints = endpoints(3);
        let places: Vec<Place<'_>> = (0..7).map(|_| endpoints.place(None, None).unwrap()).collect();
        let loads: Vec<usize> = endpoints.all().iter().map(Endpoint::load).collect();
        assert_eq!(loads, [3, 2, 2]);
        drop(places);
        assert!(endpoints.all().iter().all(|endpoint| endpoint.load() == 0));
    }

    #[test]
    fn a_picture_stays_where_it_is_known_until_that_is_busy_or_fails() {
        let endpoints = endpoints(2);
        let busy = endpoints.place(None, None);
        assert_eq!(place(&endpoints, Some(picture(1))), 1);
        drop(busy);
        assert_eq!(place(&endpoints, Some(picture(1))), 1);
        let many: Vec<_> = (0..=WORTH).map(|_| endpoints.place(Some(picture(1)), None)).collect();
        assert_eq!(place(&endpoints, Some(picture(1))), 0, "{} are enough", many.len());
        drop(many);
        endpoints.all()[0].failed(broken());
        assert_eq!(place(&endpoints, Some(picture(1))), 1);
    }

    #[test]
    fn nobody_is_sent_to_an_endpoint_before_it_has_passed_a_check() {
        let fresh = Endpoints::new(vec![Url::parse("http://host").unwrap()]);
        assert!(fresh.place(None, None).is_none() && !fresh.any_fit());
        assert!(fresh.why_none().unwrap().1 <= Instant::now(), "it is to be checked now");
        let endpoints = endpoints(2);
        endpoints.all()[0].failed(broken());
        assert!((0..4).all(|_| place(&endpoints, None) == 1) && endpoints.why_none().is_none());
        endpoints.all()[1].failed(broken());
        assert!(endpoints.place(Some(picture(1)), None).is_none());
        endpoints.checked(0, Err(error(RemoteErrorKind::UnknownModel)));
        assert!(endpoints.place(None, None).is_none());
        endpoints.checked(1, Ok(()));
        assert_eq!(place(&endpoints, None), 1);
        assert_eq!(endpoints.place(None, Some(1)).unwrap().index, 1, "there is no other");
        endpoints.checked(0, Ok(()));
        assert_eq!(endpoints.place(None, Some(1)).unwrap().index, 0, "where it just failed is taken last");
    }

    #[test]
    fn a_reason_that_may_pass_goes_before_one_that_stays() {
        let endpoints = endpoints(3);
        let kinds = [RemoteErrorKind::Unauthorised, RemoteErrorKind::Failed, RemoteErrorKind::UnknownModel];
        for (index, kind) in kinds.into_iter().enumerate() {
            endpoints.checked(index, Err(error(kind)));
        }
        assert_eq!(endpoints.why_none().unwrap().0.kind(), RemoteErrorKind::Failed);
    }

    #[test]
    fn an_endpoint_is_checked_at_once_and_then_left_alone_for_longer_and_longer() {
        let endpoints = endpoints(1);
        let endpoint = &endpoints.all()[0];
        let rest = || endpoint.state().rest.as_millis();
        let mut rests = vec![rest()];
        endpoint.failed(broken());
        assert!(endpoints.why_none().unwrap().1 <= Instant::now());
        for _ in 0..7 {
            rests.push(rest());
            endpoints.checked(0, Err(broken()));
        }
        assert_eq!(rests, [0, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert!(endpoints.why_none().unwrap().1 > Instant::now() + LONGEST_REST / 2);
        endpoints.checked(0, Ok(()));
        assert_eq!(rest(), 15_000, "it has answered nothing since");
        endpoint.answered();
        assert_eq!(rest(), 0, "one failure among answers");
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
