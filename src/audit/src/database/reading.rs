//! Reading the log from the database, a page at a time.

use cluegate_store::{Arg, AssertSqlSafe, args};

use super::{LogTables, number, signed};
use crate::chain::Placed;
use crate::entry::{DECISION, Line, Position};
use crate::error::Result;
use crate::head::Head;
use crate::query::{Place, Query};

/// A row of the log.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) entry: String,
}

/// Which entries a page holds, beyond a query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<'a> {
    /// Begin behind this entry.
    pub(crate) after: Option<&'a Place>,
    /// Most rows.
    pub(crate) most: usize,
}

impl LogTables {
    /// The next entries of a query, by time, instance and number.
    pub(crate) async fn page(&self, query: &Query, page: Page<'_>) -> Result<Vec<Row>> {
        // Whose index gives the order.
        let by = if query.rule.is_some() { "r" } else { "e" };
        let mut sql = "SELECT e.instance, e.seq, e.at, e.entry FROM log_entry e".to_owned();
        let mut conditions: Vec<String> = Vec::new();
        let mut arguments: Vec<Arg<'_>> = Vec::new();
        if let Some(rule) = &query.rule {
            sql.push_str(" JOIN log_rule r ON r.instance = e.instance AND r.seq = e.seq");
            arguments.push(Arg::from(rule));
            conditions.push("r.rule = $1".to_owned());
            // The same again for the index of rules, which has them by tenant.
            if let Some(tenant) = &query.scope.tenant {
                arguments.push(Arg::from(tenant));
                conditions.push("r.tenant = $2".to_owned());
            }
        }
        let columns = [
            ("e.tenant = ", query.scope.tenant.as_deref()),
            ("e.path = ", (!query.scope.all).then_some(DECISION)),
            ("e.outcome = ", query.outcome.as_deref()),
            ("e.reason = ", query.reason.as_deref()),
            ("e.request = ", query.request.as_deref()),
            ("e.decision_id = ", query.decision.as_deref()),
            ("e.model = ", query.model.as_deref()),
        ];
        for (condition, value) in columns {
            if let Some(value) = value {
                arguments.push(Arg::from(value));
                conditions.push(format!("{condition}${}", arguments.len()));
            }
        }
        for (condition, value) in [(">=", query.since), ("<", query.until)] {
            if let Some(value) = value {
                arguments.push(Arg::from(value));
                conditions.push(format!("{by}.at {condition} ${}", arguments.len()));
            }
        }
        if !query.subjects.is_empty() {
            let places: Vec<String> = query
                .subjects
                .iter()
                .map(|subject| {
                    arguments.push(Arg::from(subject));
                    format!("${}", arguments.len())
                })
                .collect();
            conditions.push(format!("e.subject IN ({})", places.join(", ")));
        }
        if let Some(place) = page.after {
            arguments.extend([
                Arg::from(place.at),
                Arg::from(&place.instance),
                Arg::from(signed(place.seq)?),
            ]);
            let last = arguments.len();
            conditions.push(format!(
                "({by}.at, {by}.instance, {by}.seq) > (${}, ${}, ${last})",
                last - 2,
                last - 1
            ));
        }
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql.push_str(&format!(" ORDER BY {by}.at, {by}.instance, {by}.seq LIMIT {}", page.most));
        let mut read = self.database.read().await?;
        let rows = read.fetch_all(AssertSqlSafe(sql), &arguments).await?;
        let rows = rows.iter().map(|row| {
            let place =
                Place { at: row.get("at")?, instance: row.get("instance")?, seq: number(row.get("seq")?)? };
            Ok(Row { place, entry: row.get("entry")? })
        });
        let rows = rows.collect();
        read.finish().await?;
        rows
    }

    /// The next lines of a chain behind entry `seq`.
    pub(crate) async fn after(&self, instance: &str, seq: u64, most: usize) -> Result<Vec<(u64, String)>> {
        let sql = "SELECT seq, entry FROM log_entry WHERE instance = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut read = self.database.read().await?;
        let rows = read.fetch_all(sql, args![instance, signed(seq)?, most]).await?;
        let rows = rows.iter().map(|row| Ok((number(row.get("seq")?)?, row.get("entry")?))).collect();
        read.finish().await?;
        rows
    }

    /// As [`after`](Self::after), with what entries are found by.
    pub(crate) async fn placed_after(&self, instance: &str, seq: u64, most: usize) -> Result<Vec<Placed>> {
        let lines = self.after(instance, seq, most).await?;
        let placed = lines.into_iter().map(|(_, text)| {
            let line = Line::parse(text.as_bytes())?;
            let link = line.chain().clone();
            let index = line.entry().map(|entry| entry.index()).unwrap_or_default();
            Ok(Placed { link, text, index })
        });
        placed.collect()
    }

    /// The names of all chains that have entries.
    pub(crate) async fn instances(&self) -> Result<Vec<String>> {
        let mut read = self.database.read().await?;
        // A chain that was removed whole still has its head.
        let sql = "SELECT DISTINCT instance FROM log_entry UNION SELECT instance FROM log_head ORDER BY 1";
        let rows = read.fetch_all(sql, args![]).await?;
        let instances = rows.iter().map(|row| Ok(row.get("instance")?)).collect();
        read.finish().await?;
        instances
    }

    /// The time of the newest entry, in microseconds since 1970.
    pub(crate) async fn newest(&self) -> Result<Option<i64>> {
        let mut read = self.database.read().await?;
        let row = read.fetch_one("SELECT MAX(at) AS newest FROM log_entry", args![]).await?;
        let newest = row.get("newest")?;
        read.finish().await?;
        Ok(newest)
    }

    /// The heads of all chains.
    pub(crate) async fn heads(&self) -> Result<Vec<Head>> {
        let sql = "SELECT instance, seq, hash, key_id, signature FROM log_head ORDER BY instance";
        let mut read = self.database.read().await?;
        let rows = read.fetch_all(sql, args![]).await?;
        let heads = rows.iter().map(|row| {
            let position = Position {
                instance: row.get("instance")?,
                seq: number(row.get("seq")?)?,
                hash: row.get("hash")?,
            };
            Ok(Head { position, key: row.get("key_id")?, signature: row.get("signature")? })
        });
        let heads = heads.collect();
        read.finish().await?;
        heads
    }
}
