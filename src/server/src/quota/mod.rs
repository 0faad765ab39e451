//! What a tenant may spend: a rate of requests, pictures by day and by month, time of the judge, and cost.
//!
//! ```text
//! request -> rate: once a request                                       429 `rate_limit_exceeded`
//!         -> reserve: pictures asked for, and what judging them is likely to take       429 `quota_exceeded`
//!         -> work: each decision notes what it took
//!         -> settle: what was reserved and not spent is given back
//! ```
//!
//! Pictures are reserved whole before any is drawn, in one transaction for all gateways that share a store: their number is
//! never passed. What judging takes is known afterwards only; it is reserved at the mean of the tenant's last pictures, and
//! can pass its limit by as much as the pictures in work take more than that. What a gateway reserved and then died with,
//! or could not settle because the store was gone, stays spent.

mod counters;
mod memory;
mod rate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluegate_gate::{DecisionRecord, Policy, Reason};
use cluegate_store::{Measure, Period, Usage, Want};
use cluegate_telemetry::catalogue;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::config::{Config, WhenGone};
use crate::live::PolicySource;
use crate::problem::{LimitHit, Problem, ProblemKind};

pub(crate) use counters::CountersGone;
use counters::{Answer, Counters, Exhausted, Held};
use memory::MemoryCounters;
use rate::{Pace, Rates};

/// Weight of the newest picture in the mean of what judging takes.
const NEWEST: f64 = 0.2;
/// Most tenants of whose pictures a mean is kept; beyond them all are forgotten.
const TENANTS: usize = 100_000;
/// How often, and after which pause, it is tried to count what was spent without a quota while the store is gone.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(2);

/// What may be spent, and what is.
#[derive(Debug)]
pub(crate) struct Quotas {
    counters: Counters,
    /// What counts in their place while they are gone, if the configuration says so.
    stand_in: Option<Counters>,
    rates: Rates,
    /// What judging a picture takes, by tenant.
    means: Mutex<HashMap<Arc<str>, Amounts>>,
    /// What was spent and is on its way to the counters.
    settling: TaskTracker,
    retry_after: Duration,
}

/// Amounts as counters count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Amounts {
    pictures: i64,
    judge_ms: i64,
    cost_micros: i64,
}

impl Amounts {
    fn of(self, measure: Measure) -> i64 {
        match measure {
            Measure::Requests => 1,
            Measure::Pictures => self.pictures,
            Measure::JudgeMs => self.judge_ms,
            Measure::CostMicros => self.cost_micros,
        }
    }
}

impl Quotas {
    /// Counts in the store, if it is the source of policies, else in this process.
    pub(crate) fn open(config: &Config, source: &PolicySource) -> Self {
        let serves = config.store.as_ref().is_some_and(|store| store.when_gone == WhenGone::Serve);
        let memory = || Counters::Memory(MemoryCounters::default());
        Self {
            counters: source.stored().map_or_else(memory, |stored| Counters::Store(stored.store().clone())),
            stand_in: serves.then(memory),
            rates: Rates::default(),
            means: Mutex::default(),
            settling: TaskTracker::new(),
            retry_after: config.limits.retry_after,
        }
    }

    /// Counts the request against its tenant's rate, and reserves what `pictures` pictures are likely to take.
    ///
    /// # Errors
    /// `RateLimited` or `QuotaExceeded`, each with its limit, value and end; `BadRequest` for more pictures than a quota
    /// ever has; `StoreGone`.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        client: &Client,
        policy: &Policy,
        pictures: u32,
    ) -> Result<Reservation, Problem> {
        let mut wants = wants(policy, self.likely(&client.tenant, pictures))?;
        if client.counted.is_first()
            && let Some(per_minute) = policy.quota.requests_per_minute
        {
            let pace = Pace { per_minute, burst: policy.quota.burst.unwrap_or(per_minute).max(1) };
            if let Some(wait) = self.rates.take(&client.tenant, pace) {
                catalogue::QUOTA_REFUSED.add(1, &[&client.tenant, "requests_per_minute"]);
                return Err(too_fast(pace, wait));
            }
            if matches!(self.counters, Counters::Store(_)) {
                // The buckets are this gateway's own; all gateways together have this.
                let quota = per_minute.max(pace.burst).into();
                wants.push(Want { measure: Measure::Requests, period: Period::Minute, quota, amount: 1 });
            }
        }
        let held = if wants.iter().any(|want| want.quota < Want::UNLIMITED) {
            Some(self.take(&client.tenant, &wants, policy).await?)
        } else {
            None
        };
        Ok(Reservation {
            quotas: Arc::clone(self),
            tenant: Arc::clone(&client.tenant),
            held,
            spent: Mutex::default(),
        })
    }

    /// What the tenant has spent or reserved in the windows of now.
    ///
    /// # Errors
    /// If the counters are gone.
    pub(crate) async fn usage(&self, tenant: &str) -> Result<Vec<Usage>, CountersGone> {
        self.counters.usage(tenant, Timestamp::now().as_millisecond()).await
    }

    /// Waits until what was spent is counted.
    pub(crate) async fn settled(&self) {
        self.settling.close();
        self.settling.wait().await;
    }

    /// Takes all of `wants`.
    async fn take(&self, tenant: &str, wants: &[Want], policy: &Policy) -> Result<Held, Problem> {
        let now = Timestamp::now();
        let answer = match (self.counters.consume(tenant, wants, now.as_millisecond()).await, &self.stand_in)
        {
            (Ok(answer), _) => answer,
            (Err(gone), None) => {
                tracing::error!(tenant, %gone, "no quota can be reserved; new work is refused");
                return Err(Problem::store_gone(self.retry_after));
            }
            (Err(gone), Some(stand_in)) => {
                tracing::warn!(tenant, %gone, "this gateway counts by itself");
                let answer = stand_in.consume(tenant, wants, now.as_millisecond()).await;
                answer.map_err(|_| Problem::store_gone(self.retry_after))?
            }
        };
        match answer {
            Answer::Held(held) => Ok(held),
            Answer::Exhausted(exhausted) => {
                let Exhausted { want, .. } = exhausted;
                let name = limit(policy, want.measure, want.period).map_or("quota", |(name, _)| name);
                catalogue::QUOTA_REFUSED.add(1, &[tenant, name]);
                Err(used_up(&exhausted, now, name))
            }
        }
    }

    /// What `pictures` pictures of this tenant are likely to take.
    fn likely(&self, tenant: &Arc<str>, pictures: u32) -> Amounts {
        let means = self.means.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = means.get(tenant).copied().unwrap_or_default();
        let count = i64::from(pictures);
        // At least something, so that a quota that is used up is seen to be.
        let of = |one: i64| one.max(1).saturating_mul(count);
        Amounts { pictures: count, judge_ms: of(mean.judge_ms), cost_micros: of(mean.cost_micros) }
    }

    /// Notes what a decision took, for the tenant's mean.
    fn learn(&self, tenant: &Arc<str>, took: Amounts) {
        if took.judge_ms == 0 {
            return;
        }
        let mut means = self.means.lock().unwrap_or_else(PoisonError::into_inner);
        if means.len() >= TENANTS {
            means.clear();
        }
        let mean = means.entry(Arc::clone(tenant)).or_insert(took);
        let moved = |old: i64, new: i64| (old as f64 + NEWEST * (new as f64 - old as f64)).ceil() as i64;
        mean.judge_ms = moved(mean.judge_ms, took.judge_ms);
        mean.cost_micros = moved(mean.cost_micros, took.cost_micros);
    }

    /// Counts what a request took.
    async fn count(self: Arc<Self>, tenant: Arc<str>, held: Option<Held>, spent: Amounts) {
        let Some(held) = held else { return self.count_unlimited(&tenant, spent).await };
        let here = match (&held, &self.stand_in) {
            (Held::Memory(_), Some(stand_in)) => stand_in,
            _ => &self.counters,
        };
        if let Err(gone) = here.settle(held, move |measure| spent.of(measure)).await {
            tracing::error!(%tenant, %gone, ?spent, "what was reserved stays spent");
        }
    }

    /// Counts what a request took for which nothing had to be reserved.
    async fn count_unlimited(&self, tenant: &str, spent: Amounts) {
        if spent == Amounts::default() {
            return;
        }
        let wants = every(|measure, period| Want {
            measure,
            period,
            quota: Want::UNLIMITED,
            amount: spent.of(measure),
        });
        let now = Timestamp::now().as_millisecond();
        for _ in 0..TRIES {
            match self.counters.consume(tenant, &wants, now).await {
                // What is counted without a quota is there for people to look at, and not given back.
                Ok(_) => return,
                Err(gone) => tracing::warn!(tenant, %gone, "what was spent is not counted yet"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        tracing::error!(tenant, ?spent, "what was spent is not counted");
    }
}

/// Something of every measure of work in every window that it is counted in.
fn every(want: impl Fn(Measure, Period) -> Want) -> Vec<Want> {
    let measures = [Measure::Pictures, Measure::JudgeMs, Measure::CostMicros];
    let pairs = measures.into_iter().flat_map(|measure| [(measure, Period::Day), (measure, Period::Month)]);
    pairs.map(|(measure, period)| want(measure, period)).collect()
}

/// What a request of this policy that is likely to take so much has to reserve.
fn wants(policy: &Policy, likely: Amounts) -> Result<Vec<Want>, Problem> {
    let limit = |measure, period| limit(policy, measure, period).map_or(Want::UNLIMITED, |(_, limit)| limit);
    let wants = every(|measure, period| Want {
        measure,
        period,
        quota: limit(measure, period),
        amount: likely.of(measure),
    });
    let never = wants.iter().find(|want| want.measure == Measure::Pictures && want.amount > want.quota);
    match never {
        Some(want) => Err(Problem::bad_request(format!(
            "the request asks for {} pictures, and the tenant's quota never has more than {}; ask for fewer",
            want.amount, want.quota
        ))),
        None => Ok(wants),
    }
}

/// The key and the value of a limit, as counters count it.
fn limit(policy: &Policy, measure: Measure, period: Period) -> Option<(&'static str, i64)> {
    let quota = &policy.quota;
    let whole = |limit: Option<u64>| limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let scaled = |limit: Option<f64>, scale: f64| limit.map(|limit| (limit * scale).round() as i64);
    let (name, limit) = match (measure, period) {
        (Measure::Pictures, Period::Day) => ("pictures_per_day", whole(quota.pictures_per_day)),
        (Measure::Pictures, Period::Month) => ("pictures_per_month", whole(quota.pictures_per_month)),
        (Measure::JudgeMs, Period::Day) => {
            ("judge_seconds_per_day", scaled(quota.judge_seconds_per_day, 1e3))
        }
        (Measure::CostMicros, Period::Month) => ("cost_per_month", scaled(quota.cost_per_month, 1e6)),
        (Measure::Requests, Period::Minute) => {
            ("requests_per_minute", quota.requests_per_minute.map(i64::from))
        }
        _ => return None,
    };
    Some((name, limit?))
}

fn too_fast(pace: Pace, wait: Duration) -> Problem {
    let Pace { per_minute, burst } = pace;
    let (name, window) = ("requests_per_minute", Duration::from_secs(60));
    let message = format!(
        "the tenant's rate limit `{name}` of {per_minute}, {burst} at once, is reached; the next request may come in \
         {:.1} s",
        wait.as_secs_f64()
    );
    let hit = LimitHit { name, quota: per_minute.into(), window, resets: wait };
    Problem::new(ProblemKind::RateLimited, message).limited(hit)
}

fn used_up(Exhausted { want, used, ends_ms }: &Exhausted, now: Timestamp, name: &'static str) -> Problem {
    let (start, end) = want.period.window(now.as_millisecond());
    let milliseconds = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    let (window, resets) = (milliseconds(end - start), milliseconds(ends_ms - now.as_millisecond()));
    let (kind, scale) = match want.measure {
        Measure::Requests => (ProblemKind::RateLimited, 1.0),
        Measure::Pictures => (ProblemKind::QuotaExceeded, 1.0),
        Measure::JudgeMs => (ProblemKind::QuotaExceeded, 1e3),
        Measure::CostMicros => (ProblemKind::QuotaExceeded, 1e6),
    };
    let (limit, used) = (want.quota as f64 / scale, *used as f64 / scale);
    let asked = match want.measure {
        Measure::Pictures => format!(", and {} asked for", want.amount),
        _ => String::new(),
    };
    let again = Timestamp::from_millisecond(*ends_ms).unwrap_or(Timestamp::MAX);
    let message = format!(
        "the tenant's quota `{name}` of {limit} is used up: {used} spent or reserved{asked}; it begins anew at {again:.0}"
    );
    Problem::new(kind, message).limited(LimitHit { name, quota: limit as u64, window, resets })
}

/// What a decision took. A picture counts if there is a verdict on it, or it was released; one that failed, was called off
/// or came too late does not, but the time that the judge took does.
fn took(decision: &DecisionRecord) -> Amounts {
    let counts = !matches!(
        decision.reason,
        Reason::GeneratorFailure
            | Reason::JudgeError
            | Reason::JudgeTimeout
            | Reason::RequestTimeout
            | Reason::Limit
            | Reason::LogFailure
            | Reason::SigningFailure
            | Reason::NotFinished
            | Reason::Cancelled
            | Reason::Preview
    );
    Amounts {
        pictures: counts.into(),
        judge_ms: (decision.cost.judge_seconds * 1e3).ceil() as i64,
        cost_micros: (decision.cost.amount * 1e6).ceil() as i64,
    }
}

/// What is reserved for a request. When it is dropped, what the request took is counted in its place.
#[derive(Debug)]
pub(crate) struct Reservation {
    quotas: Arc<Quotas>,
    tenant: Arc<str>,
    held: Option<Held>,
    spent: Mutex<Amounts>,
}

impl Reservation {
    /// Notes what a decision took.
    pub(crate) fn note(&self, decision: &DecisionRecord) {
        let took = took(decision);
        self.quotas.learn(&self.tenant, took);
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.pictures += took.pictures;
        spent.judge_ms += took.judge_ms;
        spent.cost_micros += took.cost_micros;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let counting = Arc::clone(&self.quotas).count(Arc::clone(&self.tenant), self.held.take(), spent);
        match Handle::try_current() {
            Ok(runtime) => {
                self.quotas.settling.spawn_on(counting, &runtime);
            }
            Err(_) => tracing::error!(tenant = &*self.tenant, "outside the server nothing is settled"),
        }
    }
}

#[cfg(test)]
mod tests;
