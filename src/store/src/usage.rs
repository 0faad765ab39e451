//! Quotas over windows of time, shared by all gateways of a store.
//!
//! Before a request is served, [`Store::consume`] counts what it may use, for all quotas at once, in one transaction: over
//! all gateways together, a window never holds more than its quota allows. Afterwards [`Store::settle`] counts what it did
//! use, or [`Store::give_back`] takes it out. What a gateway counted and then died with stays counted until the window
//! ends: it may have released a picture for it.
//!
//! Windows begin with the minute, day or month of UTC in which the gateway's clock is. A clock that jumps back counts on in
//! the window of that time, where what was used then still is, and one that jumps ahead begins a window early; either way
//! a window gives its quota once.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::model::check_name;
use crate::{Store, StoreError, Transaction, args};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Requests.
    Requests,
    /// Pictures.
    Pictures,
    /// What the judge computed, in milliseconds.
    JudgeMs,
    /// Money, in millionths of the currency of the price list.
    CostMicros,
}

impl Measure {
    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Pictures => "pictures",
            Self::JudgeMs => "judge_ms",
            Self::CostMicros => "cost_micros",
        }
    }
}

/// How long it is counted before it begins at 0 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// A minute of UTC.
    Minute,
    /// A day of UTC.
    Day,
    /// A month of UTC.
    Month,
}

impl Period {
    /// As in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Begin and end of the window around `now_ms`, in milliseconds since 1970. Times before the year 1 and after 9998,
    /// which only a broken clock shows, count as the nearest of those.
    pub fn window(self, now_ms: i64) -> (i64, i64) {
        const MINUTE: i64 = 60_000;
        const DAY: i64 = 24 * 60 * MINUTE;
        let now_ms = now_ms.clamp(EARLIEST_MS, LATEST_MS);
        let fixed = |length: i64| {
            let begin = now_ms.div_euclid(length) * length;
            (begin, begin + length)
        };
        match self {
            Self::Minute => fixed(MINUTE),
            Self::Day => fixed(DAY),
            Self::Month => month(now_ms).unwrap_or_else(|| fixed(31 * DAY)),
        }
    }
}

/// The first of January of the year 1, and the last millisecond of the year 9998.
const EARLIEST_MS: i64 = -62_135_596_800_000;
const LATEST_MS: i64 = 253_370_764_799_999;

fn month(now_ms: i64) -> Option<(i64, i64)> {
    let date = Timestamp::from_millisecond(now_ms).ok()?.to_zoned(TimeZone::UTC).date();
    let midnight = |date: civil::Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
    Some((midnight(date.first_of_month())?, midnight(date.last_of_month().tomorrow().ok()?)?))
}

/// Something of which a tenant may use so much in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What.
    pub measure: Measure,
    /// In which window.
    pub period: Period,
    /// How much the window may hold; [`Want::UNLIMITED`] counts and refuses nothing.
    pub quota: i64,
    /// How much the request may use at most; 0 or more.
    pub amount: i64,
}

impl Want {
    /// A quota that is never used up.
    pub const UNLIMITED: i64 = i64::MAX;
}

/// What became of a request for some of a quota.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was counted has to be settled or given back"]
pub enum Consumed {
    /// All of it was counted.
    Counted(Reservation),
    /// This quota has too little left; nothing was counted.
    Exhausted {
        /// Which of them.
        want: Want,
        /// How much of it is used.
        used: i64,
        /// When its window ends, in milliseconds since 1970 (UTC).
        ends_ms: i64,
    },
}

/// What was counted for a request.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was counted has to be settled or given back"]
pub struct Reservation {
    tenant: String,
    /// Each with the begin of its window.
    counted: Vec<(Want, i64)>,
}

impl Reservation {
    /// Whose it is.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }
}

/// How much of a window is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// What.
    pub measure: String,
    /// In which window.
    pub period: String,
    /// When the window began, in milliseconds since 1970 (UTC).
    pub start_ms: i64,
    /// How much was used in it, what is reserved included.
    pub used: i64,
}

impl Store {
    /// Counts what a request of `tenant` may use at most, unless a quota has too little left.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if an amount or quota is negative or a window is named twice, or as the database says; then
    /// nothing was counted, or, if the answer to the commit was lost, too much.
    pub async fn consume(&self, tenant: &str, wants: &[Want], now_ms: i64) -> Result<Consumed, StoreError> {
        check_name("tenant", tenant)?;
        let mut ordered = wants.to_vec();
        // All gateways lock the rows in the same order.
        ordered.sort_by_key(|want| (want.measure, want.period));
        check_wants(&ordered)?;
        let mut reservation = Reservation { tenant: tenant.to_owned(), counted: Vec::new() };
        if ordered.is_empty() {
            return Ok(Consumed::Counted(reservation));
        }
        let mut write = self.database().write().await?;
        for want in ordered {
            let (start_ms, ends_ms) = want.period.window(now_ms);
            if !count(&mut write, tenant, want, start_ms).await? {
                let used = used(&mut write, tenant, want, start_ms).await?;
                write.finish().await?;
                return Ok(Consumed::Exhausted { want, used, ends_ms });
            }
            reservation.counted.push((want, start_ms));
        }
        write.commit().await?;
        Ok(Consumed::Counted(reservation))
    }

    /// Replaces what was counted for a request by what `used` says that it used of each measure: less, as much, or more if
    /// it could not be known before; then a window may hold more than its quota. Costs nothing if it is as much.
    ///
    /// # Errors
    /// As the database says; then all that was counted stays so until the windows end.
    pub async fn settle(
        &self,
        reservation: Reservation,
        used: impl Fn(Measure) -> i64 + Send,
    ) -> Result<(), StoreError> {
        let changes: Vec<_> = reservation
            .counted
            .iter()
            .map(|&(want, start_ms)| (want, start_ms, used(want.measure).max(0).saturating_sub(want.amount)))
            .filter(|&(_, _, difference)| difference != 0)
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let mut write = self.database().write().await?;
        for (want, start_ms, difference) in changes {
            // Neither below 0 nor beyond the largest number.
            let add = "UPDATE tenant_usage SET used = CASE
                WHEN $5 < 0 AND used < -$5 THEN 0
                WHEN $5 > 0 AND used > $6 - $5 THEN $6
                ELSE used + $5 END
                WHERE tenant = $1 AND measure = $2 AND period = $3 AND start_ms = $4";
            let names = (want.measure.name(), want.period.name());
            let arguments = args![&reservation.tenant, names.0, names.1, start_ms, difference, i64::MAX];
            write.execute(add, arguments).await?;
        }
        write.commit().await?;
        Ok(())
    }

    /// Takes out what was counted for a request that used nothing.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn give_back(&self, reservation: Reservation) -> Result<(), StoreError> {
        self.settle(reservation, |_| 0).await
    }

    /// What `tenant` used in the windows around `now_ms`. A window that is not among them is unused.
    ///
    /// # Errors
    /// As the database says.
    pub async fn usage(&self, tenant: &str, now_ms: i64) -> Result<Vec<Usage>, StoreError> {
        check_name("tenant", tenant)?;
        let mut read = self.database().read().await?;
        let mut usage = Vec::new();
        for period in [Period::Minute, Period::Day, Period::Month] {
            let (start_ms, _) = period.window(now_ms);
            let find = "SELECT measure, period, start_ms, used FROM tenant_usage
                WHERE tenant = $1 AND period = $2 AND start_ms = $3 ORDER BY measure";
            for row in read.fetch_all(find, args![tenant, period.name(), start_ms]).await? {
                usage.push(Usage {
                    measure: row.get("measure")?,
                    period: row.get("period")?,
                    start_ms,
                    used: row.get("used")?,
                });
            }
        }
        read.finish().await?;
        Ok(usage)
    }

    /// Forgets the windows that began more than `days` days before `now_ms`, and says how many. At least 62 days are kept, so
    /// that no window that is under way is among them, whichever gateway's clock is a little off.
    ///
    /// # Errors
    /// As the database says.
    pub async fn forget_usage(&self, now_ms: i64, days: u32) -> Result<u64, StoreError> {
        let age = SignedDuration::from_hours(24 * i64::from(days.max(62))).as_millis();
        let before = now_ms.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
        let mut write = self.database().write().await?;
        let forgotten = write.execute("DELETE FROM tenant_usage WHERE start_ms < $1", args![before]).await?;
        write.commit().await?;
        Ok(forgotten)
    }
}

fn check_wants(ordered: &[Want]) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::Invalid { what: "quota", problem });
    let mut windows = BTreeSet::new();
    for want in ordered {
        let (measure, period) = (want.measure.name(), want.period.name());
        if want.amount < 0 || want.quota < 0 {
            return invalid(format!("{measure} a {period}: expected 0 or more, found {want:?}"));
        }
        if !windows.insert((measure, period)) {
            return invalid(format!("{measure} a {period} is asked for twice"));
        }
    }
    Ok(())
}

/// Counts `want` if its window has room, in one statement, and says whether it had.
async fn count(write: &mut Transaction, tenant: &str, want: Want, start_ms: i64) -> Result<bool, StoreError> {
    let room = want.quota - want.amount;
    if room < 0 {
        return Ok(false);
    }
    let count =
        "INSERT INTO tenant_usage (tenant, measure, period, start_ms, used) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (tenant, measure, period, start_ms) DO UPDATE SET used = tenant_usage.used + excluded.used
        WHERE tenant_usage.used <= $6";
    let names = (want.measure.name(), want.period.name());
    let arguments = args![tenant, names.0, names.1, start_ms, want.amount, room];
    Ok(write.execute(count, arguments).await? == 1)
}

async fn used(write: &mut Transaction, tenant: &str, want: Want, start_ms: i64) -> Result<i64, StoreError> {
    let find = "SELECT used FROM tenant_usage
        WHERE tenant = $1 AND measure = $2 AND period = $3 AND start_ms = $4";
    let arguments = args![tenant, want.measure.name(), want.period.name(), start_ms];
    let row = write.fetch_optional(find, arguments).await?;
    Ok(row.map(|row| row.get("used")).transpose()?.unwrap_or(0))
}
