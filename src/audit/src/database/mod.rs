//! The log in the database: entries as they were written, columns to find them by, and the heads of the chains.

mod erasing;
mod reading;

use cluegate_store::{Arg, AssertSqlSafe, Backend, Column, Database, Transaction, args};

use crate::chain::Placed;
use crate::entry::Position;
use crate::error::{AuditError, Result};
use crate::head::Head;
use crate::keys::Keyring;

pub(crate) use erasing::Change;
pub(crate) use reading::Page;

/// Columns of `log_entry`, in the order in which they are bound.
const COLUMNS: &str =
    "instance, seq, decision_id, path, tenant, at, outcome, reason, request, model, subject, entry";
const COLUMN_COUNT: usize = 12;
/// Columns of `log_rule`.
const RULE_COLUMNS: &str = "tenant, rule, at, instance, seq";
const RULE_COLUMN_COUNT: usize = 5;
/// Most rows of one statement. Statements are prepared once for each power of two up to this.
const MOST_ROWS: usize = 64;

/// The log in a database, as one instance writes it and everybody reads it.
#[derive(Debug, Clone)]
pub(crate) struct LogTables {
    pub(crate) database: Database,
    pub(crate) keys: Option<Keyring>,
}

impl LogTables {
    /// The last entry of a chain, as it was kept with its head.
    pub(crate) async fn head(&self, instance: &str) -> Result<Option<Head>> {
        let mut read = self.database.read().await?;
        let head = head(&mut read, instance).await?;
        read.finish().await?;
        Ok(head)
    }

    /// Appends entries that follow `before`, all of them or none. Calling it again after a failure that left open whether
    /// they were kept is right.
    ///
    /// # Errors
    /// [`AuditError::Contended`] if another process has gone on with the chain; as the database says.
    pub(crate) async fn append(&self, before: Option<&Position>, entries: &[Placed]) -> Result<()> {
        let Some(last) = entries.last().map(|entry| entry.link.position()) else { return Ok(()) };
        let after = Head::new(last.clone(), self.keys.as_ref());
        if let Some(before) = before
            && append_alone(&self.database, before, &after, entries).await?
        {
            return Ok(());
        }
        let mut write = self.database.write().await?;
        let moved = move_head(&mut write, before, &after).await?;
        if !moved {
            let there = head(&mut write, &last.instance).await?;
            write.finish().await?;
            return match there {
                // An earlier try was kept, though its answer was lost.
                Some(there) if there.position == last => Ok(()),
                _ => Err(AuditError::Contended { instance: last.instance }),
            };
        }
        insert(&mut write, entries).await?;
        Ok(write.commit().await?)
    }
}

/// All that a batch writes, in one statement of PostgreSQL: a commit then costs one round trip.
const APPEND: &str = "\
    WITH moved AS (
        UPDATE log_head SET seq = $1, hash = $2, key_id = $3, signature = $4
        WHERE instance = $5 AND seq = $6 AND hash = $7 RETURNING 1 AS one
    ), entries AS (
        INSERT INTO log_entry (instance, seq, decision_id, path, tenant, at, outcome, reason, request, model, subject, entry)
        SELECT $5, e.* FROM unnest($8::bigint[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], \
            $14::text[], $15::text[], $16::text[], $17::text[], $18::text[]) AS e
        WHERE EXISTS (SELECT FROM moved) ON CONFLICT DO NOTHING
    ), rules AS (
        INSERT INTO log_rule (instance, tenant, rule, at, seq)
        SELECT $5, r.* FROM unnest($19::text[], $20::text[], $21::bigint[], $22::bigint[]) AS r
        WHERE EXISTS (SELECT FROM moved) ON CONFLICT DO NOTHING
    )
    SELECT count(*) AS moved FROM moved";

/// Appends entries that follow `before` in one statement; says whether it did. It does not if the head is another one, or
/// the database has no such statements.
async fn append_alone(
    database: &Database,
    before: &Position,
    after: &Head,
    entries: &[Placed],
) -> Result<bool> {
    if database.backend() != Backend::Postgres {
        return Ok(false);
    }
    let Head { position, key, signature } = after;
    let rows: Vec<Columns<'_>> = entries.iter().map(Columns::of).collect::<Result<_>>()?;
    let texts = |text: for<'r, 'e> fn(&'r Columns<'e>) -> Option<&'r str>| {
        Column::Texts(rows.iter().map(text).collect())
    };
    let ints = |int: fn(&Columns<'_>) -> i64| Column::Ints(rows.iter().map(int).collect());
    let rules = || rows.iter().flat_map(|row| row.violated.iter().map(move |rule| (row, rule.as_str())));
    let columns = [
        ints(|row| row.seq),
        texts(|row| Some(&row.decision_id)),
        texts(|row| Some(&row.path)),
        texts(|row| row.tenant.as_deref()),
        ints(|row| row.at),
        texts(|row| row.outcome.as_deref()),
        texts(|row| row.reason.as_deref()),
        texts(|row| row.request.as_deref()),
        texts(|row| row.model.as_deref()),
        texts(|row| row.subject.as_deref()),
        texts(|row| Some(row.entry)),
        Column::Texts(rules().map(|(row, _)| Some(row.tenant.as_deref().unwrap_or_default())).collect()),
        Column::Texts(rules().map(|(_, rule)| Some(rule)).collect()),
        Column::Ints(rules().map(|(row, _)| row.at).collect()),
        Column::Ints(rules().map(|(row, _)| row.seq).collect()),
    ];
    let (key, signature) = (key.as_deref(), signature.as_deref());
    let (from, to) = (signed(before.seq)?, signed(position.seq)?);
    let arguments = args![to, &position.hash, key, signature, position.instance.as_str(), from, &before.hash];
    match database.alone(APPEND, arguments, &columns).await? {
        Some(row) => Ok(row.get::<i64>("moved")? > 0),
        None => Ok(false),
    }
}

async fn head(transaction: &mut Transaction, instance: &str) -> Result<Option<Head>> {
    let sql = "SELECT seq, hash, key_id, signature FROM log_head WHERE instance = $1";
    let Some(row) = transaction.fetch_optional(sql, args![instance]).await? else { return Ok(None) };
    let seq = number(row.get("seq")?)?;
    let position = Position { instance: instance.to_owned(), seq, hash: row.get("hash")? };
    Ok(Some(Head { position, key: row.get("key_id")?, signature: row.get("signature")? }))
}

/// Moves a chain's head from `before`; says whether it was there.
async fn move_head(transaction: &mut Transaction, before: Option<&Position>, head: &Head) -> Result<bool> {
    let Head { position, key, signature } = head;
    let (instance, seq) = (position.instance.as_str(), signed(position.seq)?);
    let (key, signature) = (key.as_deref(), signature.as_deref());
    let changed = match before {
        Some(before) => {
            let sql = "UPDATE log_head SET seq = $1, hash = $2, key_id = $3, signature = $4 \
                       WHERE instance = $5 AND seq = $6 AND hash = $7";
            let arguments =
                args![seq, &position.hash, key, signature, instance, signed(before.seq)?, &before.hash];
            let moved = transaction.execute(sql, arguments).await?;
            // A database that was added later knows nothing of the chain's beginning.
            if moved > 0 { moved } else { first_head(transaction, head).await? }
        }
        None => first_head(transaction, head).await?,
    };
    Ok(changed > 0)
}

async fn first_head(transaction: &mut Transaction, head: &Head) -> Result<u64> {
    let Head { position, key, signature } = head;
    let sql = "INSERT INTO log_head (instance, seq, hash, key_id, signature) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT DO NOTHING";
    let (key, signature) = (key.as_deref(), signature.as_deref());
    let arguments = args![position.instance.as_str(), signed(position.seq)?, &position.hash, key, signature];
    Ok(transaction.execute(sql, arguments).await?)
}

async fn insert(transaction: &mut Transaction, entries: &[Placed]) -> Result<()> {
    let columns: Vec<Columns> = entries.iter().map(Columns::of).collect::<Result<_>>()?;
    let rows: Vec<[Arg<'_>; COLUMN_COUNT]> = columns.iter().map(Columns::arguments).collect();
    insert_rows(transaction, "log_entry", COLUMNS, &rows).await?;
    let rules: Vec<[Arg<'_>; RULE_COLUMN_COUNT]> = columns
        .iter()
        .flat_map(|row| {
            let at = Arg::Int(Some(row.at));
            row.violated.iter().map(move |rule| {
                [
                    Arg::from(row.tenant.as_deref().unwrap_or_default()),
                    Arg::from(rule),
                    at,
                    Arg::from(row.instance),
                    Arg::from(row.seq),
                ]
            })
        })
        .collect();
    insert_rows(transaction, "log_rule", RULE_COLUMNS, &rules).await
}

/// Inserts rows in statements of 64, 32, ... rows.
async fn insert_rows<const N: usize>(
    transaction: &mut Transaction,
    table: &str,
    columns: &str,
    rows: &[[Arg<'_>; N]],
) -> Result<()> {
    let mut rest = rows;
    while !rest.is_empty() {
        let count = MOST_ROWS.min(1 << rest.len().ilog2());
        let (now, later) = rest.split_at(count);
        let places: Vec<String> = (0..count)
            .map(|row| {
                let numbers: Vec<String> = (1..=N).map(|column| format!("${}", row * N + column)).collect();
                format!("({})", numbers.join(", "))
            })
            .collect();
        let sql =
            format!("INSERT INTO {table} ({columns}) VALUES {} ON CONFLICT DO NOTHING", places.join(", "));
        let arguments: Vec<Arg<'_>> = now.iter().flatten().copied().collect();
        transaction.execute(AssertSqlSafe(sql), &arguments).await?;
        rest = later;
    }
    Ok(())
}

/// What an entry's row is bound to.
struct Columns<'a> {
    instance: &'a str,
    seq: i64,
    at: i64,
    decision_id: String,
    path: String,
    tenant: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    request: Option<String>,
    model: Option<String>,
    subject: Option<String>,
    violated: Vec<String>,
    entry: &'a str,
}

impl<'a> Columns<'a> {
    fn of(placed: &'a Placed) -> Result<Self> {
        let index = &placed.index;
        let optional = |text: &Option<String>| text.as_deref().map(storable);
        let mut violated: Vec<String> = index.violated.iter().map(|rule| storable(rule)).collect();
        violated.sort_unstable();
        violated.dedup();
        Ok(Self {
            instance: &placed.link.instance,
            seq: signed(placed.link.seq)?,
            at: index.at,
            decision_id: storable(&index.decision_id),
            path: storable(&index.path),
            tenant: optional(&index.tenant),
            outcome: optional(&index.outcome),
            reason: optional(&index.reason),
            request: optional(&index.request),
            model: optional(&index.model),
            subject: optional(&index.subject),
            violated,
            entry: &placed.text,
        })
    }

    fn arguments(&self) -> [Arg<'_>; COLUMN_COUNT] {
        [
            Arg::from(self.instance),
            Arg::from(self.seq),
            Arg::from(&self.decision_id),
            Arg::from(&self.path),
            Arg::from(self.tenant.as_deref()),
            Arg::from(self.at),
            Arg::from(self.outcome.as_deref()),
            Arg::from(self.reason.as_deref()),
            Arg::from(self.request.as_deref()),
            Arg::from(self.model.as_deref()),
            Arg::from(self.subject.as_deref()),
            Arg::from(self.entry),
        ]
    }
}

/// PostgreSQL keeps no text with a NUL; in the entry itself it stands escaped.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A number of an entry, as databases keep numbers.
pub(crate) fn signed(seq: u64) -> Result<i64> {
    i64::try_from(seq).map_err(|_| AuditError::Entry(format!("number {seq} is beyond 2^63")))
}

/// A number of an entry, from a database.
pub(crate) fn number(seq: i64) -> Result<u64> {
    u64::try_from(seq).map_err(|_| AuditError::Entry(format!("the database holds the number {seq}")))
}
