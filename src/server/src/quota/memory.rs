//! Counters of this process, for a gateway that shares no store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cluegate_store::{Measure, Period, Usage, Want};

use super::counters::{Answer, Exhausted, Held};

/// Most counters of one tenant that are kept; beyond them those of the windows that began first are forgotten. More than
/// all measures in all windows that can be under way, and those before them.
const COUNTERS: usize = 48;

/// What is counted, in which window, and when that began.
type Place = (Measure, Period, i64);

/// Counters of this process.
#[derive(Debug, Default)]
pub(crate) struct MemoryCounters {
    tenants: Mutex<HashMap<Arc<str>, BTreeMap<Place, i64>>>,
}

/// What was counted here for a request.
#[derive(Debug)]
pub(crate) struct MemoryReservation {
    tenant: Arc<str>,
    counted: Vec<(Want, i64)>,
}

impl MemoryCounters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, BTreeMap<Place, i64>>> {
        // Nothing that runs under the lock leaves the counters half-changed.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn consume(&self, tenant: &str, wants: &[Want], now_ms: i64) -> Answer {
        let mut tenants = self.lock();
        let tenant: Arc<str> = tenant.into();
        let counters = tenants.entry(Arc::clone(&tenant)).or_default();
        for want in wants {
            let (start, ends_ms) = want.period.window(now_ms);
            let used = counters.get(&(want.measure, want.period, start)).copied().unwrap_or(0);
            if used.saturating_add(want.amount) > want.quota {
                return Answer::Exhausted(Exhausted { want: *want, used, ends_ms });
            }
        }
        let counted: Vec<(Want, i64)> =
            wants.iter().map(|want| (*want, want.period.window(now_ms).0)).collect();
        for (want, start) in &counted {
            add(counters, (want.measure, want.period, *start), want.amount);
        }
        Answer::Held(Held::Memory(MemoryReservation { tenant, counted }))
    }

    pub(super) fn settle(&self, held: MemoryReservation, used: impl Fn(Measure) -> i64) {
        let mut tenants = self.lock();
        let counters = tenants.entry(held.tenant).or_default();
        for (want, start) in held.counted {
            let difference = used(want.measure).max(0).saturating_sub(want.amount);
            add(counters, (want.measure, want.period, start), difference);
        }
    }

    pub(super) fn usage(&self, tenant: &str, now_ms: i64) -> Vec<Usage> {
        let tenants = self.lock();
        let counters = tenants.get(tenant).into_iter().flatten();
        let current = counters.filter(|((_, period, start), _)| period.window(now_ms).0 == *start);
        let usage = current.map(|((measure, period, start), used)| Usage {
            measure: measure.name().to_owned(),
            period: period.name().to_owned(),
            start_ms: *start,
            used: *used,
        });
        usage.collect()
    }
}

fn add(counters: &mut BTreeMap<Place, i64>, place: Place, amount: i64) {
    let value = counters.entry(place).or_insert(0);
    *value = value.saturating_add(amount).max(0);
    while counters.len() > COUNTERS
        && let Some(first) = counters.keys().min_by_key(|(_, period, start)| period.window(*start).1).copied()
    {
        counters.remove(&first);
    }
}
