//! A bounded number of permits, divided fairly between tenants.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cluegate_perception::{Call, PerceptionError, PerceptionErrorKind, Result};

use crate::AdmissionOptions;
use crate::pace::Pace;

/// Lets a bounded number in, and refuses the next at once; also what cannot be done before its deadline, as far as the
/// pace of those before it tells, for whoever is let in only to run out of time takes the time of the others. Nobody waits
/// here: what is let in waits in the models' queues, and what is not is better tried elsewhere or later. Clones share the
/// permits.
#[derive(Debug, Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: String,
    options: AdmissionOptions,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Tenants that hold at least one.
    tenants: HashMap<Arc<str>, usize>,
    pace: Pace,
}

impl Admission {
    /// `places` names them in errors, such as "places for pictures in work".
    pub fn new(places: impl Into<String>, options: AdmissionOptions) -> Self {
        let shared = Shared { places: places.into(), options: options.valid(), held: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// A permit for the tenant of `call`, given back when it is dropped.
    ///
    /// # Errors
    /// `Overloaded` if no place is free, if those that are free are kept for other tenants, or if the work of those who
    /// have places leaves no time before the deadline; the error of [`Call::check`] if the call is over.
    pub fn admit(&self, call: &Call) -> Result<Permit> {
        call.check()?;
        self.check_time(call)?;
        self.take(call.tenant())
    }

    /// Whether the work ahead of a newcomer leaves time for its own. Who finds nobody is let in, however slow the last
    /// ones were.
    fn check_time(&self, call: &Call) -> Result<()> {
        let Some(left) = call.time_left() else { return Ok(()) };
        let held = self.shared.lock();
        match held.pace.time_for(held.total + 1) {
            Some(needed) if held.total > 0 && needed > left => {
                let message = format!(
                    "{} of {} {} are taken, and at the present pace this request would be done in {} ms, but {} ms are \
                     left until its deadline; ask again later, or allow more time",
                    held.total,
                    self.shared.options.limit,
                    self.shared.places,
                    needed.as_millis(),
                    left.as_millis()
                );
                Err(PerceptionError::new(PerceptionErrorKind::Overloaded, message))
            }
            _ => Ok(()),
        }
    }

    /// A permit for `tenant`.
    ///
    /// # Errors
    /// `Overloaded`, as [`Self::admit`].
    pub(crate) fn take(&self, tenant: &Arc<str>) -> Result<Permit> {
        let mut held = self.shared.lock();
        let own = held.tenants.get(tenant).copied().unwrap_or(0);
        self.shared.check(own, held.total)?;
        if held.total == 0 {
            held.pace.begin(Instant::now());
        }
        held.total += 1;
        held.tenants.insert(Arc::clone(tenant), own + 1);
        Ok(Permit { tenant: Arc::clone(tenant), shared: Arc::clone(&self.shared), done: false })
    }

    /// How many permits are out.
    pub fn in_flight(&self) -> usize {
        self.shared.lock().total
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // The numbers are changed in one step each, so they are right even if a thread died while it held the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tenant that holds `own` of the `total` permits may have one more.
    fn check(&self, own: usize, total: usize) -> Result<()> {
        let AdmissionOptions { limit, per_tenant } = self.options;
        let free = limit.saturating_sub(total);
        let message = if free == 0 {
            format!("all {limit} {} are taken, {own} of them by this tenant; ask again later", self.places)
        } else if own as u128 * (limit - per_tenant) as u128 >= per_tenant as u128 * free as u128 {
            format!(
                "this tenant has {own} of {limit} {}, and the {free} free ones are kept for other tenants; ask again \
                 when earlier requests have ended",
                self.places
            )
        } else {
            return Ok(());
        };
        Err(PerceptionError::new(PerceptionErrorKind::Overloaded, message))
    }
}

/// A place taken, free again when this is dropped.
#[must_use = "the place is free again as soon as the permit is dropped"]
pub struct Permit {
    tenant: Arc<str>,
    shared: Arc<Shared>,
    done: bool,
}

impl Permit {
    /// Gives the place back after work that was done. A permit that is merely dropped tells nothing about the pace, as
    /// after work that was given up, or not needed.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.shared.lock();
        if self.done {
            held.pace.done(Instant::now());
        }
        held.total = held.total.saturating_sub(1);
        match held.tenants.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                held.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn fill(admission: &Admission, tenant: &str) -> Vec<Permit> {
        std::iter::from_fn(|| admission.admit(&Call::new(tenant)).ok()).collect()
    }

    #[test]
    fn busy_tenants_leave_places_for_those_who_come_anew() {
        let admission = Admission::new("places", AdmissionOptions::default());
        let mut permits = Vec::new();
        // Each takes all it can get: the first three quarters, and each after it three quarters of what is left.
        for (tenant, expected) in [("a", 48), ("b", 12), ("c", 3), ("d", 1), ("e", 0)] {
            let own = fill(&admission, tenant);
            assert_eq!(own.len(), expected, "{tenant}");
            permits.extend(own);
        }
        drop(permits);
        assert_eq!(admission.in_flight(), 0);

        // Two that take turns in taking end with equal shares.
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..64 {
            a.extend(admission.admit(&Call::new("a")));
            b.extend(admission.admit(&Call::new("b")));
        }
        assert_eq!((a.len(), b.len()), (28, 27));
        assert!(admission.admit(&Call::new("c")).is_ok());
    }

    #[test]
    fn a_refusal_says_how_many_there_are_and_what_to_do() {
        let options = AdmissionOptions { limit: 2, per_tenant: 1 };
        let admission = Admission::new("places for pictures in work", options);
        let first = admission.admit(&Call::new("a")).unwrap();
        let error = admission.admit(&Call::new("a")).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::Overloaded);
        assert_eq!(
            error.to_string(),
            "this tenant has 1 of 2 places for pictures in work, and the 1 free ones are kept for other tenants; ask \
             again when earlier requests have ended"
        );
        let second = admission.admit(&Call::new("b")).unwrap();
        let error = admission.admit(&Call::new("c")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all 2 places for pictures in work are taken, 0 of them by this tenant; ask again later"
        );
        drop((first, second));
        assert!(admission.admit(&Call::new("a")).is_ok());
        let late = Call::new("a").until(Instant::now());
        assert_eq!(admission.admit(&late).unwrap_err().kind(), PerceptionErrorKind::Timeout);
    }

    #[test]
    fn whoever_would_be_late_is_refused_unless_nobody_is_before() {
        let admission = Admission::new("places", AdmissionOptions::default());
        let within = |millis: u64| Call::new("a").until(Instant::now() + Duration::from_millis(millis));
        // Nothing is known of the pace yet, and what was given up tells nothing.
        drop(admission.admit(&within(1_000)).unwrap());
        let first = admission.admit(&within(1_000)).unwrap();
        let second = admission.admit(&within(1_000)).unwrap();
        admission.shared.lock().pace.begin(Instant::now().checked_sub(Duration::from_secs(20)).unwrap());
        first.done();
        // Twenty seconds for each: one is in work, so that a newcomer needs forty.
        let error = admission.admit(&within(30_000)).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::Overloaded);
        assert!(
            error.to_string().starts_with("1 of 64 places are taken, and at the present pace"),
            "{error}"
        );
        let patient = [admission.admit(&within(60_000)), admission.admit(&Call::new("a"))];
        assert!(patient.iter().all(Result::is_ok));
        assert!(admission.admit(&within(60_000)).is_err());
        drop((second, patient));
        assert!(admission.admit(&within(1_000)).is_ok(), "nobody was before");
    }

    #[test]
    fn limits_are_brought_into_their_ranges() {
        for (limit, per_tenant, alone) in [(0, 0, 1), (1, 5, 1), (4, 0, 1), (4, 9, 4), (4, 3, 3)] {
            let admission = Admission::new("places", AdmissionOptions { limit, per_tenant });
            assert_eq!(fill(&admission, "a").len(), alone, "{limit} {per_tenant}");
        }
        let wide = AdmissionOptions { limit: usize::MAX, per_tenant: usize::MAX / 2 };
        assert!(Admission::new("places", wide).admit(&Call::default()).is_ok());
        assert_eq!(AdmissionOptions::new(1), AdmissionOptions { limit: 1, per_tenant: 1 });
        assert_eq!(AdmissionOptions::new(256).per_tenant, 192);
    }

    proptest! {
        /// Taking and giving back in any order: never over the limits, and a tenant with nothing gets any free place.
        #[test]
        fn permits_are_bounded_and_come_back(
            limit in 1_usize..12,
            per_tenant in 1_usize..12,
            steps in prop::collection::vec((0_usize..5, any::<bool>()), 0..200),
        ) {
            let admission = Admission::new("places", AdmissionOptions { limit, per_tenant });
            let mut held: [Vec<Permit>; 5] = Default::default();
            for (tenant, take) in steps {
                let total: usize = held.iter().map(Vec::len).sum();
                prop_assert_eq!(admission.in_flight(), total);
                if !take {
                    held[tenant].pop();
                    continue;
                }
                let permit = admission.admit(&Call::new(tenant.to_string()));
                if held[tenant].is_empty() {
                    prop_assert_eq!(permit.is_ok(), total < limit);
                }
                held[tenant].extend(permit);
                prop_assert!(held[tenant].len() <= per_tenant.min(limit));
                prop_assert!(held.iter().map(Vec::len).sum::<usize>() <= limit);
            }
        }
    }
}
