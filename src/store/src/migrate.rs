//! Tables, and how they change from version to version.
//!
//! [`MIGRATIONS`] lists every change, oldest first, as files in `src/store/migrations`. Opening a database runs those
//! that it has not seen, all in one transaction and under a lock: of several programs that start at once, one migrates
//! and the others wait. Either all of them are there afterwards, or none.
//!
//! To add tables, append to [`MIGRATIONS`]: the next number, a file for both dialects where one text serves both
//! (`BIGINT` and `TEXT`; numbers that count themselves up, `BYTEA` and `BLOB` are what differs), or one for each. A
//! migration that was released never changes: its SHA-256 is kept in the database, and another text under the same
//! number is refused. Nothing leads back: restore the backup from before.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use sqlx::{Executor as _, PgConnection, SqliteConnection};

use crate::{Backend, DatabaseError, DatabaseErrorKind};

/// One change of the tables. Any number of statements, each ended by a semicolon; none may begin or end a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// 1, 2, 3, ... without a gap.
    pub number: i64,
    /// What it is for.
    pub name: &'static str,
    /// The SQL for SQLite.
    pub sqlite: &'static str,
    /// The SQL for PostgreSQL.
    pub postgres: &'static str,
}

impl Migration {
    /// The text for `backend`.
    fn text(&self, backend: Backend) -> &'static str {
        match backend {
            Backend::Sqlite => self.sqlite,
            Backend::Postgres => self.postgres,
        }
    }

    fn checksum(&self, backend: Backend) -> String {
        let mut hex = String::with_capacity(64);
        for byte in digest(&SHA256, self.text(backend).as_bytes()).as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// All migrations, oldest first. Their numbers are their places, counted from 1.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "store",
        sqlite: include_str!("../migrations/0001_store.sql"),
        postgres: include_str!("../migrations/0001_store.sql"),
    },
    Migration {
        number: 2,
        name: "log",
        sqlite: include_str!("../migrations/0002_log.sql"),
        postgres: include_str!("../migrations/0002_log.sql"),
    },
    Migration {
        number: 3,
        name: "history",
        sqlite: include_str!("../migrations/0003_history.sql"),
        postgres: include_str!("../migrations/0003_history.sql"),
    },
];

/// What PostgreSQL's advisory lock is called: any number that nobody else in the database uses ("cluegate" in ASCII).
const LOCK: i64 = 0x636c_7565_6761_7465;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS cluegate_migrations (
    number BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL
)";
const SELECT: &str = "SELECT number, name, checksum FROM cluegate_migrations ORDER BY number";
const INSERT: &str = "INSERT INTO cluegate_migrations (number, name, checksum) VALUES ($1, $2, $3)";

/// A migration that a database has seen.
type Seen = (i64, String, String);

/// The part of `migrations` that is yet to be run.
///
/// # Errors
/// If the database has seen one that is not among them, or another text of one.
fn missing<'m>(
    place: &str,
    backend: Backend,
    migrations: &'m [Migration],
    seen: &[Seen],
) -> Result<&'m [Migration], DatabaseError> {
    if let Some((number, name, _)) = seen.get(migrations.len()) {
        let known = migrations.len();
        return Err(DatabaseError::new(
            DatabaseErrorKind::Newer,
            place,
            format!(
                "its tables are at version {}, and this program knows {known} (the next is {number}, {name:?})",
                seen.len()
            ),
        ));
    }
    for (migration, (number, name, checksum)) in migrations.iter().zip(seen) {
        let expected = migration.checksum(backend);
        if migration.number != *number || expected != *checksum {
            return Err(DatabaseError::new(
                DatabaseErrorKind::Changed,
                place,
                format!(
                    "its tables were made by migration {number} ({name:?}) with the SHA-256 {checksum}, and this \
                     program has migration {} ({:?}) with {expected}",
                    migration.number, migration.name
                ),
            ));
        }
    }
    Ok(&migrations[seen.len()..])
}

/// Brings the tables of a file up to date.
pub(crate) async fn migrate_sqlite(
    connection: &mut SqliteConnection,
    place: &str,
    migrations: &[Migration],
) -> Result<(), DatabaseError> {
    let fail = |source: sqlx::Error| DatabaseError::from_sqlx(place, &source);
    // Readers and up-to-date programs take no lock for writing.
    let table = "SELECT name FROM sqlite_master WHERE name = 'cluegate_migrations'";
    if sqlx::query(table).fetch_optional(&mut *connection).await.map_err(fail)?.is_some() {
        let seen: Vec<Seen> = sqlx::query_as(SELECT).fetch_all(&mut *connection).await.map_err(fail)?;
        if missing(place, Backend::Sqlite, migrations, &seen)?.is_empty() {
            return Ok(());
        }
    }
    connection.execute("BEGIN IMMEDIATE").await.map_err(fail)?;
    connection.execute(CREATE).await.map_err(fail)?;
    let seen: Vec<Seen> = sqlx::query_as(SELECT).fetch_all(&mut *connection).await.map_err(fail)?;
    for migration in missing(place, Backend::Sqlite, migrations, &seen)? {
        connection.execute(sqlx::raw_sql(migration.sqlite)).await.map_err(fail)?;
        sqlx::query(INSERT)
            .bind(migration.number)
            .bind(migration.name)
            .bind(migration.checksum(Backend::Sqlite))
            .execute(&mut *connection)
            .await
            .map_err(fail)?;
    }
    connection.execute("COMMIT").await.map_err(fail)?;
    Ok(())
}

/// Brings the tables of a server up to date.
pub(crate) async fn migrate_postgres(
    connection: &mut PgConnection,
    place: &str,
    migrations: &[Migration],
) -> Result<(), DatabaseError> {
    let fail = |source: sqlx::Error| DatabaseError::from_sqlx(place, &source);
    let table = "SELECT to_regclass('cluegate_migrations') IS NOT NULL";
    if sqlx::query_scalar::<_, bool>(table).fetch_one(&mut *connection).await.map_err(fail)? {
        let seen: Vec<Seen> = sqlx::query_as(SELECT).fetch_all(&mut *connection).await.map_err(fail)?;
        if missing(place, Backend::Postgres, migrations, &seen)?.is_empty() {
            return Ok(());
        }
    }
    connection.execute("BEGIN").await.map_err(fail)?;
    // The caller bounds the whole.
    connection.execute("SET LOCAL statement_timeout = 0").await.map_err(fail)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await
        .map_err(fail)?;
    connection.execute(CREATE).await.map_err(fail)?;
    let seen: Vec<Seen> = sqlx::query_as(SELECT).fetch_all(&mut *connection).await.map_err(fail)?;
    for migration in missing(place, Backend::Postgres, migrations, &seen)? {
        connection.execute(sqlx::raw_sql(migration.postgres)).await.map_err(fail)?;
        sqlx::query(INSERT)
            .bind(migration.number)
            .bind(migration.name)
            .bind(migration.checksum(Backend::Postgres))
            .execute(&mut *connection)
            .await
            .map_err(fail)?;
    }
    connection.execute("COMMIT").await.map_err(fail)?;
    Ok(())
}
