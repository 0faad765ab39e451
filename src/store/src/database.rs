//! The handle of a database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _};

use crate::address::Address;
use crate::checkpoint::{Checkpointer, FALLBACK};
use crate::migrate::{MIGRATIONS, migrate_postgres, migrate_sqlite};
use crate::transaction::{Arg, Column, Row, Transaction, bind, limited};
use crate::{DatabaseError, DatabaseErrorKind, DatabaseOptions};

/// What a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// A handle of a database, cheap to clone. Its connections belong to the tokio runtime in which it was opened, which has
/// to live as long as the handle is used.
#[derive(Clone)]
pub struct Database {
    pools: Pools,
    place: Arc<str>,
    options: DatabaseOptions,
}

#[derive(Clone)]
enum Pools {
    /// SQLite has one writer at a time; one connection for it means that writers of this process queue fairly instead of
    /// polling for the lock.
    Sqlite {
        write: SqlitePool,
        read: SqlitePool,
        checkpoint: SqlitePool,
        checkpointer: Arc<Checkpointer>,
        file: Arc<OpenedFile>,
    },
    Postgres(PgPool),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("place", &self.place).finish_non_exhaustive()
    }
}

/// How long the client waits beyond the server's own time-out, which has the better message.
const GRACE: Duration = Duration::from_secs(2);

impl Database {
    /// Opens the database at `url` and brings its tables up to date. `sqlite:PATH` is a file, made with mode 0600 where
    /// there is none (its folder has to exist); `postgres://USER:PASSWORD@HOST:PORT/DATABASE` is a server, with the
    /// parameters of libpq's addresses for TLS (`?sslmode=verify-full&sslrootcert=...`).
    ///
    /// # Errors
    /// See [`DatabaseErrorKind`]. No message holds the password.
    pub async fn open(url: &str, options: DatabaseOptions) -> Result<Self, DatabaseError> {
        let address = Address::parse(url)?;
        let place: Arc<str> = address.place().into();
        let pools = match address {
            Address::Sqlite(path) => open_sqlite(&path, &place, options).await?,
            Address::Postgres(connect) => open_postgres(*connect, &place, options).await?,
        };
        Ok(Self { pools, place, options })
    }

    /// Which of the two it is.
    pub fn backend(&self) -> Backend {
        match self.pools {
            Pools::Sqlite { .. } => Backend::Sqlite,
            Pools::Postgres(_) => Backend::Postgres,
        }
    }

    /// Where it is, without the password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Begins a transaction that writes. With SQLite it waits until it is the only one that writes.
    ///
    /// # Errors
    /// See [`DatabaseErrorKind`].
    pub async fn write(&self) -> Result<Transaction, DatabaseError> {
        let patience = self.options.statement + GRACE;
        match &self.pools {
            Pools::Sqlite { write, checkpointer, file, .. } => {
                file.check(&self.place)?;
                let connection = write.acquire().await.map_err(|source| self.busy(source, write))?;
                let begun =
                    Transaction::begin(connection, "BEGIN IMMEDIATE", self.place.clone(), patience).await?;
                Ok(begun.notifying(checkpointer.committed()))
            }
            Pools::Postgres(pool) => {
                let connection = pool.acquire().await.map_err(|source| self.busy(source, pool))?;
                Transaction::begin(connection, "BEGIN", self.place.clone(), patience).await
            }
        }
    }

    /// Begins a transaction that only reads, all of it one state of the database.
    ///
    /// # Errors
    /// See [`DatabaseErrorKind`].
    pub async fn read(&self) -> Result<Transaction, DatabaseError> {
        let patience = self.options.statement + GRACE;
        match &self.pools {
            Pools::Sqlite { read, file, .. } => {
                file.check(&self.place)?;
                let connection = read.acquire().await.map_err(|source| self.busy(source, read))?;
                Transaction::begin(connection, "BEGIN", self.place.clone(), patience).await
            }
            Pools::Postgres(pool) => {
                let connection = pool.acquire().await.map_err(|source| self.busy(source, pool))?;
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Transaction::begin(connection, begin, self.place.clone(), patience).await
            }
        }
    }

    /// Runs one statement as a transaction of its own, in one round trip to a server: `$1` and so on are `args`, then
    /// `columns`. Gives the first row of its result; none for SQLite, to which a transaction costs no round trips.
    ///
    /// # Errors
    /// See [`DatabaseErrorKind`]. If the connection broke during this call, nobody knows whether it was kept.
    pub async fn alone(
        &self,
        sql: &'static str,
        args: &[Arg<'_>],
        columns: &[Column<'_>],
    ) -> Result<Option<Row>, DatabaseError> {
        let Some(pool) = self.postgres() else { return Ok(None) };
        let mut connection = pool.acquire().await.map_err(|source| self.busy(source, pool))?;
        let patience = self.options.statement + GRACE;
        let query = columns.iter().fold(bind(sql.into_sql_str(), args), Column::bind);
        // A connection on which this is abandoned is in no state to be used again.
        let row = limited(&self.place, patience, query.fetch_one(&mut *connection)).await;
        if row.is_err() {
            connection.close_on_drop();
        }
        Ok(Some(Row::new(row?, &self.place)))
    }

    /// The server's connections, if it is one.
    pub(crate) fn postgres(&self) -> Option<&PgPool> {
        match &self.pools {
            Pools::Sqlite { .. } => None,
            Pools::Postgres(pool) => Some(pool),
        }
    }

    /// Closes all connections, once the transactions that are under way have ended.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { write, read, checkpoint, .. } => {
                checkpoint.close().await;
                read.close().await;
                // The last connection to a file takes the log back into it.
                write.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    /// A pool waits for a server that refuses connections as it waits for a free one; the message tells which it was.
    fn busy<DB: sqlx::Database>(&self, source: sqlx::Error, pool: &sqlx::Pool<DB>) -> DatabaseError {
        if !matches!(source, sqlx::Error::PoolTimedOut) {
            return DatabaseError::from_sqlx(&self.place, &source);
        }
        let waited = self.options.connect;
        let all = pool.options().get_max_connections();
        if pool.size() < all || pool.num_idle() > 0 {
            let problem = format!("nobody answered within {waited:?}");
            return DatabaseError::new(DatabaseErrorKind::Unreachable, &self.place, problem);
        }
        let problem = format!("none of its {all} connections was free for {waited:?}");
        DatabaseError::new(DatabaseErrorKind::TimedOut, &self.place, problem)
    }
}

/// A connection that was in use this short a time ago is not asked whether it is there: no server starts again in it.
const TRUSTED: Duration = Duration::from_millis(100);

/// Limits that every pool has.
fn pool_options<DB: sqlx::Database>(options: DatabaseOptions, connections: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections.max(1))
        .acquire_timeout(options.connect)
        // One that was in use just now is there: to ask a server each time would cost a round trip.
        .test_before_acquire(false)
        .before_acquire(|connection: &mut DB::Connection, state| {
            Box::pin(async move { Ok(state.idle_for < TRUSTED || connection.ping().await.is_ok()) })
        })
        .idle_timeout(Duration::from_secs(600))
        .max_lifetime(Duration::from_secs(3600))
}

async fn open_sqlite(
    path: &Path,
    place: &Arc<str>,
    options: DatabaseOptions,
) -> Result<Pools, DatabaseError> {
    create_file(path, place)?;
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit waits for the disk: what a picture was released on outlives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(options.statement);
    // The first connection makes the files of the write-ahead log, which readers need.
    let first = limited(place, options.connect + options.statement, connect.connect()).await;
    let mut first = first.map_err(|error| closed_folder(path, place).unwrap_or(error))?;
    let migrated = tokio::time::timeout(options.migrate, migrate_sqlite(&mut first, place, MIGRATIONS));
    migrated.await.map_err(|_| migration_timed_out(place, options))??;
    limited(place, options.statement, first.close()).await?;

    let file = Arc::new(OpenedFile::new(path, place)?);
    let connect = connect.pragma("wal_autocheckpoint", FALLBACK);
    let write = pool_options(options, 1).connect_lazy_with(connect.clone());
    let checkpoint = pool_options(options, 1).connect_lazy_with(connect.clone());
    let checkpointer = Arc::new(Checkpointer::start(checkpoint.clone(), write.clone(), Arc::clone(place)));
    // One stays open. A writer whose disk is full may lose its connection; were that the last one, the index of the log would go
    // with it, and on a full disk there is no room for whoever reads next to make another.
    let read = pool_options(options, options.connections)
        .min_connections(1)
        .connect_lazy_with(connect.pragma("query_only", "ON"));
    drop(read.acquire().await.map_err(|source| DatabaseError::from_sqlx(place, &source))?);
    Ok(Pools::Sqlite { write, read, checkpoint, checkpointer, file })
}

/// Which file was opened. SQLite writes on into a file that was moved or removed, and what is written there is lost.
#[derive(Debug)]
struct OpenedFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OpenedFile {
    fn new(path: &Path, place: &str) -> Result<Self, DatabaseError> {
        let identity = Self::identity(path).ok_or_else(|| Self::gone(place))?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// # Errors
    /// If another file, or none, is there now.
    fn check(&self, place: &str) -> Result<(), DatabaseError> {
        if Self::identity(&self.path) == Some(self.identity) { Ok(()) } else { Err(Self::gone(place)) }
    }

    #[cfg(unix)]
    fn identity(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }

    /// Elsewhere an open file cannot be moved.
    #[cfg(not(unix))]
    fn identity(path: &Path) -> Option<(u64, u64)> {
        path.exists().then_some((0, 0))
    }

    fn gone(place: &str) -> DatabaseError {
        let problem =
            "the file was moved, removed or replaced while it was open; put it back, or restart the program";
        DatabaseError::new(DatabaseErrorKind::Unreachable, place, problem)
    }
}

fn migration_timed_out(place: &str, options: DatabaseOptions) -> DatabaseError {
    let problem = format!("its tables were not up to date within {:?}", options.migrate);
    DatabaseError::new(DatabaseErrorKind::TimedOut, place, problem)
}

/// Makes the file so that nobody else can read it; SQLite gives its other files the same mode. A file that is there stays
/// as it is.
fn create_file(path: &Path, place: &str) -> Result<(), DatabaseError> {
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            warn_of_open_file(path);
            Ok(())
        }
        Err(error) => Err(file_error(place, "made", &error)),
    }
}

/// Whether it is the folder that takes no files: SQLite says of that no more than that it cannot open one. The database
/// itself must not be opened to see this, because closing it would give up the locks that other handles of this process
/// have on it.
fn closed_folder(path: &Path, place: &str) -> Option<DatabaseError> {
    let mut probe = path.as_os_str().to_owned();
    probe.push(format!("-probe-{}", std::process::id()));
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => {
            // Nothing is lost with it if it stays.
            let _ = std::fs::remove_file(&probe);
            None
        }
        Err(error) => Some(file_error(place, "opened, because none can be made beside it", &error)),
    }
}

fn file_error(place: &str, what: &str, error: &std::io::Error) -> DatabaseError {
    use std::io::ErrorKind;
    let kind = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DatabaseErrorKind::Full,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => DatabaseErrorKind::ReadOnly,
        _ => DatabaseErrorKind::Unreachable,
    };
    DatabaseError::new(kind, place, format!("the file cannot be {what}: {error}"))
}

/// Prompts and hashes of keys lie in the file.
fn warn_of_open_file(path: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others may open the database; expected mode 600");
        }
    }
}

async fn open_postgres(
    connect: PgConnectOptions,
    place: &Arc<str>,
    options: DatabaseOptions,
) -> Result<Pools, DatabaseError> {
    let connect = match connect.get_application_name() {
        Some(_) => connect,
        None => connect.application_name("cluegate"),
    };
    // Not through the pool, which would wait for a server that is not there.
    let mut first = limited(place, options.connect, connect.connect()).await?;
    let migrated = tokio::time::timeout(options.migrate, migrate_postgres(&mut first, place, MIGRATIONS));
    migrated.await.map_err(|_| migration_timed_out(place, options))??;
    limited(place, options.statement, first.close()).await?;

    let statement = options.statement.as_millis();
    let pool = pool_options::<sqlx::Postgres>(options, options.connections)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                // Not in the address: poolers between here and the server refuse options there.
                let set = format!(
                    "SET statement_timeout = {statement}; SET lock_timeout = {statement}; \
                     SET idle_in_transaction_session_timeout = 60000"
                );
                connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(set))).await.map(drop)
            })
        })
        .connect_lazy_with(connect);
    Ok(Pools::Postgres(pool))
}
