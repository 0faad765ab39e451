//! Removing what is older than a tenant's retention allows.

use std::time::{Duration, SystemTime};

use cluegate_gate::policy::RawRetention;
use serde_json::json;

use crate::entry::{EXPIRED, Line};
use crate::error::{AuditError, Result};
use crate::places::LogPlaces;
use crate::query::Query;
use crate::removal::{Extent, Removal, Removed};

const DAY: Duration = Duration::from_secs(86_400);
/// Pictures that are removed together.
const AT_ONCE: usize = 1000;
/// How far the clock may be ahead of the newest entry: a clock that jumps ahead must not make everything old.
const AHEAD: Duration = DAY;

impl LogPlaces {
    /// Removes the pictures and decisions of `tenant` that are older than `retention` allows. Of a decision only its place
    /// in the chain is left, and an entry says which these were. Blocks; never call it on a thread of an asynchronous
    /// runtime.
    ///
    /// # Errors
    /// If another process is removing, or a place cannot be read or written. What was removed by then stays removed.
    pub fn expire(&self, tenant: &str, retention: &RawRetention) -> Result<Removed> {
        let Some(now) = self.now()? else { return Ok(Removed::default()) };
        let mut removed = Removed::default();
        if let Some(days) = retention.decision_days {
            let until = jiff::Timestamp::try_from(now - DAY * days).map_err(|problem| {
                AuditError::Refused(format!("the clock shows no time of this era: {problem}"))
            })?;
            let query = Query { until: Some(until.as_microsecond()), ..Query::for_tenant(tenant) };
            let note = json!({ "decision_days": days, "before": until.to_string() });
            let old =
                self.remove(&Removal { query: &query, extent: Extent::Whole, path: EXPIRED, note, tenant })?;
            removed.entries += old.entries;
            removed.pictures += old.pictures;
        }
        removed.pictures +=
            self.expire_pictures(tenant, now - DAY * retention.picture_days, retention.picture_days)?;
        Ok(removed)
    }

    fn expire_pictures(&self, tenant: &str, until: SystemTime, days: u32) -> Result<u64> {
        let Some(store) = &self.pictures else { return Ok(0) };
        let mut count = 0;
        loop {
            let names = store.older(tenant, until, AT_ONCE)?;
            if names.is_empty() {
                return Ok(count);
            }
            // First said, then done: a crash in between leaves pictures that the next sweep removes.
            self.write_note(EXPIRED, tenant, json!({ "picture_days": days, "pictures": names }))?;
            for name in &names {
                count += u64::from(store.remove_older(tenant, name, until)?);
            }
        }
    }

    /// The time, but never more than a day after the newest entry; none for an empty log, of which nothing is old.
    fn now(&self) -> Result<Option<SystemTime>> {
        let newest = match (&self.tables, &self.file) {
            (Some(tables), _) => self.wait(tables.newest())?,
            (None, Some(path)) if path.exists() => {
                let mut file = std::fs::File::open(path).map_err(AuditError::io(path, "opened"))?;
                let last = crate::reader::tail(path, &mut file)?.last;
                last.and_then(Line::entry).map(|entry| entry.micros())
            }
            _ => None,
        };
        let newest = newest.and_then(|at| u64::try_from(at).ok()).map(Duration::from_micros);
        Ok(newest.map(|newest| SystemTime::now().min(SystemTime::UNIX_EPOCH + newest + AHEAD)))
    }
}
