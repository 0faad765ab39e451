//! Taking SQLite's write-ahead log back into the database, beside those who write.
//!
//! SQLite does it by itself in the commit that makes the log longer than a thousand pages, which then waits for the disk
//! three times as long as any other. A task with a connection of its own does it here instead. What was committed is durable
//! in the log before, so nothing depends on when it is done.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Pause after a commit: what is committed in it is taken back at once.
const PAUSE: Duration = Duration::from_millis(250);
/// Frames of the log, a page of 4 KiB each, from which on writers wait until all of it is in the database, so that it
/// begins anew. They have little to wait for: most of it is there by then.
const LONGEST: i64 = 8192;
/// Frames after which a commit takes the log back by itself, should the task not come to it.
pub(crate) const FALLBACK: &str = "32768";

/// The task. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    committed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Checkpointer {
    /// Starts it. `beside` is for taking back while others write, `write` has the one connection that writes.
    pub(crate) fn start(beside: SqlitePool, write: SqlitePool, place: Arc<str>) -> Self {
        let committed = Arc::new(Notify::new());
        let task = tokio::spawn(run(Arc::clone(&committed), beside, write, place));
        Self { committed, task }
    }

    /// What is to be notified of commits.
    pub(crate) fn committed(&self) -> &Arc<Notify> {
        &self.committed
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(committed: Arc<Notify>, beside: SqlitePool, write: SqlitePool, place: Arc<str>) {
    let mut told = false;
    loop {
        committed.notified().await;
        tokio::time::sleep(PAUSE).await;
        match take_back(&beside, &write).await {
            Ok(()) => told = false,
            Err(sqlx::Error::PoolClosed) => return,
            // A full disk, say: whoever writes next is told.
            Err(error) if !told => {
                told = true;
                tracing::warn!(place = &*place, %error, "the write-ahead log cannot be taken back into the database");
            }
            Err(_) => {}
        }
    }
}

async fn take_back(beside: &SqlitePool, write: &SqlitePool) -> Result<(), sqlx::Error> {
    let length = checkpoint(&mut *beside.acquire().await?, "PRAGMA wal_checkpoint(PASSIVE)").await?;
    if length >= LONGEST {
        checkpoint(&mut *write.acquire().await?, "PRAGMA wal_checkpoint(FULL)").await?;
    }
    Ok(())
}

/// Runs one, and gives the length of the log in frames.
async fn checkpoint(connection: &mut SqliteConnection, how: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(how).fetch_one(connection).await?.try_get(1)
}
