//! Databases for tests and benchmarks (feature `testing`): a folder with a SQLite file, and a real PostgreSQL from the
//! system's packages.
//!
//! [`each`] runs a test on both. The process has one PostgreSQL, started at first use on a random port, and each test a
//! database of its own in it. A test that stops its server starts one for itself with [`PostgresServer::start`].

mod disk;
mod postgres;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use disk::SmallDisk;
pub use postgres::{Durability, PostgresServer, TestingError};

use crate::{Backend, Database, DatabaseError, DatabaseOptions};

/// The variable that lets tests on PostgreSQL be left out: `CLUEGATE_TEST_POSTGRES=skip`.
pub const SKIP_VARIABLE: &str = "CLUEGATE_TEST_POSTGRES";

/// An empty database that goes away with the last clone of this value (a file) or with the process (a server's).
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// Its address, password included.
    pub url: String,
    /// Which of the two it is.
    pub backend: Backend,
    folder: Option<Arc<tempfile::TempDir>>,
}

impl TestDatabase {
    /// A file that is yet to be made, in a folder of its own.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn sqlite() -> Result<Self, TestingError> {
        let folder = tempfile::tempdir().map_err(|source| TestingError::new("make a folder", source))?;
        let url = format!("sqlite:{}", folder.path().join("gate.db").display());
        Ok(Self { url, backend: Backend::Sqlite, folder: Some(Arc::new(folder)) })
    }

    /// An empty database in the PostgreSQL of this process, or none if [`SKIP_VARIABLE`] says so.
    ///
    /// # Errors
    /// If no PostgreSQL is installed, or it does not start.
    pub async fn postgres() -> Result<Option<Self>, TestingError> {
        match shared_server()? {
            Some(server) => {
                Ok(Some(Self { url: server.database().await?, backend: Backend::Postgres, folder: None }))
            }
            None => Ok(None),
        }
    }

    /// Opens it with the default options.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub async fn open(&self) -> Result<Database, DatabaseError> {
        Database::open(&self.url, DatabaseOptions::default()).await
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.path().join("gate.db"))
    }

    /// The folder of the file, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(|folder| folder.path())
    }
}

/// Runs `test` on an empty file and on an empty database of a real PostgreSQL, one after the other.
///
/// # Errors
/// If a database cannot be had. What `test` finds, it says by panicking.
pub async fn each<F: Future<Output = ()>>(test: impl Fn(TestDatabase) -> F) -> Result<(), TestingError> {
    // Kept until the test has ended, whatever of it the test takes.
    let file = TestDatabase::sqlite()?;
    test(file.clone()).await;
    if let Some(database) = TestDatabase::postgres().await? {
        test(database).await;
    }
    Ok(())
}

/// The server of this process; its script stops it when the process ends.
fn shared_server() -> Result<Option<&'static PostgresServer>, TestingError> {
    static SERVER: OnceLock<Result<Option<PostgresServer>, TestingError>> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        if std::env::var_os(SKIP_VARIABLE).is_some_and(|value| value == "skip") {
            return Ok(None);
        }
        PostgresServer::start(Durability::Off).map(Some)
    });
    server.as_ref().map(Option::as_ref).map_err(Clone::clone)
}
