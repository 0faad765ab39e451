//! Statements against either backend: arguments, rows, transactions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Encode, Executor as _, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite, Type};
use tokio::sync::Notify;

use crate::{Backend, DatabaseError, DatabaseErrorKind};

/// An argument of a statement, `$1` and so on. Made by [`args!`](crate::args).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg<'a> {
    /// `BIGINT`.
    Int(Option<i64>),
    /// `DOUBLE PRECISION`.
    Real(Option<f64>),
    /// `TEXT`; PostgreSQL takes none with a NUL.
    Text(Option<&'a str>),
    /// `BYTEA` in PostgreSQL, `BLOB` in SQLite.
    Bytes(Option<&'a [u8]>),
}

/// A column of many rows, for PostgreSQL's `unnest`: all columns of one statement have as many items.
#[derive(Debug, Clone, PartialEq)]
pub enum Column<'a> {
    /// `BIGINT[]`.
    Ints(Vec<i64>),
    /// `TEXT[]`; no text with a NUL.
    Texts(Vec<Option<&'a str>>),
}

impl Column<'_> {
    /// The query with this as its next argument.
    pub(crate) fn bind<'q>(
        query: Query<'q, Postgres, PgArguments>,
        column: &'q Self,
    ) -> Query<'q, Postgres, PgArguments> {
        match column {
            Self::Ints(items) => query.bind(items),
            Self::Texts(items) => query.bind(items),
        }
    }
}

macro_rules! arg_from {
    ($($type:ty => $variant:ident),*) => {$(
        impl<'a> From<$type> for Arg<'a> {
            fn from(value: $type) -> Self {
                Self::$variant(Some(value))
            }
        }
        impl<'a> From<Option<$type>> for Arg<'a> {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}
arg_from!(i64 => Int, f64 => Real, &'a str => Text, &'a [u8] => Bytes);

impl<'a> From<&'a String> for Arg<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a Vec<u8>> for Arg<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}

/// The arguments of a statement, in their order: integers (`i64`), reals, texts and bytes, or options of those.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { &[$($crate::Arg::from($value)),*] as &[$crate::Arg<'_>] };
}

/// A row of a result.
pub struct Row {
    inner: RowOf,
    place: Arc<str>,
}

pub(crate) enum RowOf {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of the column called `column`: `i64`, `f64`, `String`, `&str`, `Vec<u8>` or `&[u8]`, or an option of one
    /// for a column that may be null.
    ///
    /// # Errors
    /// If there is no such column, or it holds another type.
    pub fn get<'r, T>(&'r self, column: &str) -> Result<T, DatabaseError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match &self.inner {
            RowOf::Sqlite(row) => row.try_get(column),
            RowOf::Postgres(row) => row.try_get(column),
        }
        .map_err(|source| DatabaseError::from_sqlx(&self.place, &source))
    }
}

/// A transaction on either backend. Reads see one state of the database; writes are there together after
/// [`commit`](Self::commit) or not at all. Dropping it, or a statement that fails, undoes it; the connection is then
/// closed, because what it was doing is not known.
///
/// A writing transaction of SQLite holds the only lock for writing, and one of PostgreSQL the rows that it changed: keep
/// it short, and wait for nothing else in it.
pub struct Transaction {
    connection: Connection,
    place: Arc<str>,
    /// Longest that one call may take.
    patience: Duration,
    /// Whether a statement failed or was abandoned.
    broken: bool,
    finished: bool,
    /// Told when something was committed.
    committed: Option<Arc<Notify>>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("place", &self.place).finish_non_exhaustive()
    }
}

pub(crate) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// Runs `$body` on the connection, whichever it is, within the time-out, and leaves the transaction broken unless it ends
/// well. `Db` is the backend in `$body`.
macro_rules! on_connection {
    ($self:ident, $connection:ident => $body:expr) => {{
        $self.check()?;
        // Stays so if this future is dropped before it ends.
        $self.broken = true;
        let (place, patience) = ($self.place.clone(), $self.patience);
        let result = match &mut $self.connection {
            Connection::Sqlite($connection) => {
                #[allow(dead_code)]
                type Db = Sqlite;
                limited(&place, patience, async { $body }).await
            }
            Connection::Postgres($connection) => {
                #[allow(dead_code)]
                type Db = Postgres;
                limited(&place, patience, async { $body }).await
            }
        };
        $self.broken = result.is_err();
        result
    }};
}

impl Transaction {
    /// Begins one with the statement `begin`.
    pub(crate) async fn begin(
        connection: impl Into<Connection>,
        begin: &'static str,
        place: Arc<str>,
        patience: Duration,
    ) -> Result<Self, DatabaseError> {
        let connection = connection.into();
        let mut transaction =
            Self { connection, place, patience, broken: false, finished: false, committed: None };
        transaction.control(begin).await?;
        Ok(transaction)
    }

    /// The same, and tells `committed` when it is committed.
    pub(crate) fn notifying(mut self, committed: &Arc<Notify>) -> Self {
        self.committed = Some(Arc::clone(committed));
        self
    }

    /// `BEGIN`, `COMMIT` and `ROLLBACK`, which are not worth a prepared statement.
    async fn control(&mut self, sql: &'static str) -> Result<(), DatabaseError> {
        on_connection!(self, connection => connection.execute(sqlx::raw_sql(sql)).await.map(drop))
    }

    fn check(&self) -> Result<(), DatabaseError> {
        if self.broken {
            let problem =
                "an earlier statement of the transaction failed or was abandoned, so nothing of it counts";
            return Err(DatabaseError::new(DatabaseErrorKind::Statement, &self.place, problem));
        }
        Ok(())
    }

    /// Which dialect it speaks, where one text cannot serve both.
    pub fn backend(&self) -> Backend {
        match self.connection {
            Connection::Sqlite(_) => Backend::Sqlite,
            Connection::Postgres(_) => Backend::Postgres,
        }
    }

    /// Runs a statement and says how many rows it changed. A text that is put together at run time comes as
    /// [`AssertSqlSafe`](crate::AssertSqlSafe); values belong into `args`, never into the text.
    ///
    /// # Errors
    /// As the database says. The transaction is then undone, and every further call fails.
    pub async fn execute(&mut self, sql: impl SqlSafeStr, args: &[Arg<'_>]) -> Result<u64, DatabaseError> {
        let sql = sql.into_sql_str();
        on_connection!(self, connection => {
            bind::<Db>(sql, args).execute(&mut **connection).await.map(|done| done.rows_affected())
        })
    }

    /// All rows of a result, in memory at once: for results that are bounded by a `LIMIT` or by what they are.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_all(
        &mut self,
        sql: impl SqlSafeStr,
        args: &[Arg<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        let sql = sql.into_sql_str();
        let place = self.place.clone();
        on_connection!(self, connection => {
            let rows = bind::<Db>(sql, args).fetch_all(&mut **connection).await;
            rows.map(|rows| rows.into_iter().map(|row| Row::new(row, &place)).collect())
        })
    }

    /// The first row of a result, if it has one.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_optional(
        &mut self,
        sql: impl SqlSafeStr,
        args: &[Arg<'_>],
    ) -> Result<Option<Row>, DatabaseError> {
        let sql = sql.into_sql_str();
        let place = self.place.clone();
        on_connection!(self, connection => {
            let row = bind::<Db>(sql, args).fetch_optional(&mut **connection).await;
            row.map(|row| row.map(|row| Row::new(row, &place)))
        })
    }

    /// The only row of a result that always has one, as of `SELECT COUNT(*)`.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), or if there is none.
    pub async fn fetch_one(&mut self, sql: impl SqlSafeStr, args: &[Arg<'_>]) -> Result<Row, DatabaseError> {
        let place = self.place.clone();
        self.fetch_optional(sql, args).await?.ok_or_else(|| {
            DatabaseError::new(DatabaseErrorKind::Corrupt, &place, "a row is missing that is always there")
        })
    }

    /// Keeps what was written. If it fails because the connection broke, nobody knows whether it was kept.
    ///
    /// # Errors
    /// As [`execute`](Self::execute), or if a statement failed before.
    pub async fn commit(mut self) -> Result<(), DatabaseError> {
        self.control("COMMIT").await?;
        self.finished = true;
        if let Some(committed) = &self.committed {
            committed.notify_one();
        }
        Ok(())
    }

    /// Ends a transaction that only read, or gives up what was written, and keeps the connection.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); what was written is undone then as well.
    pub async fn finish(mut self) -> Result<(), DatabaseError> {
        self.control("ROLLBACK").await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        match &mut self.connection {
            Connection::Sqlite(connection) => connection.close_on_drop(),
            Connection::Postgres(connection) => connection.close_on_drop(),
        }
    }
}

impl From<PoolConnection<Sqlite>> for Connection {
    fn from(connection: PoolConnection<Sqlite>) -> Self {
        Self::Sqlite(connection)
    }
}

impl From<PoolConnection<Postgres>> for Connection {
    fn from(connection: PoolConnection<Postgres>) -> Self {
        Self::Postgres(connection)
    }
}

impl Row {
    pub(crate) fn new(inner: impl Into<RowOf>, place: &Arc<str>) -> Self {
        Self { inner: inner.into(), place: place.clone() }
    }
}

impl From<SqliteRow> for RowOf {
    fn from(row: SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

impl From<PgRow> for RowOf {
    fn from(row: PgRow) -> Self {
        Self::Postgres(row)
    }
}

/// Waits for `work` no longer than `patience`.
pub(crate) async fn limited<T>(
    place: &str,
    patience: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result.map_err(|source| DatabaseError::from_sqlx(place, &source)),
        Err(_) => {
            let problem = format!("no answer within {patience:?}");
            Err(DatabaseError::new(DatabaseErrorKind::TimedOut, place, problem))
        }
    }
}

/// The statement with its arguments.
pub(crate) fn bind<'q, DB: sqlx::Database>(sql: SqlStr, args: &[Arg<'q>]) -> Query<'q, DB, DB::Arguments>
where
    Option<i64>: Encode<'q, DB> + Type<DB>,
    Option<f64>: Encode<'q, DB> + Type<DB>,
    Option<&'q str>: Encode<'q, DB> + Type<DB>,
    Option<&'q [u8]>: Encode<'q, DB> + Type<DB>,
{
    args.iter().fold(sqlx::query(sql), |query, arg| match *arg {
        Arg::Int(value) => query.bind(value),
        Arg::Real(value) => query.bind(value),
        Arg::Text(value) => query.bind(value),
        Arg::Bytes(value) => query.bind(value),
    })
}
