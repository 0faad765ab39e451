//! Taking SQLite's write-ahead log back into the database, beside those who write.
//!
//! SQLite does it by itself in the commit that makes the log longer than a thousand pages, which then waits for the disk
//! three times as long as any other. A task with a connection of its own does it here instead. What was committed is durable
//! in the log before, so nothing depends on when it is done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqlitePool;
use sqlx::{Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Frames of the log, a page of 4 KiB each, that are taken back at once. The disk writes them beside the next commits, which
/// wait for it as long as for the frames.
const AT_ONCE: u32 = 512;
/// Pauses after a commit, in which about as many frames come together. A page that is written twice in it is taken back once.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);
/// Frames of the log from which on writers wait until all of it is in the database and on the disk, so that it begins anew.
/// They have little to wait for: most of it is there by then.
const LONGEST: i64 = 4096;
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
    let (mut told, mut pause, mut before) = (false, LONGEST_PAUSE, 0);
    loop {
        committed.notified().await;
        let begun = Instant::now();
        tokio::time::sleep(pause).await;
        match take_back(&beside, &write).await {
            Ok(length) => {
                told = false;
                // It is shorter than before if it began anew.
                let new = if length >= before { length - before } else { length };
                pause = next_pause(new, begun.elapsed());
                before = length;
            }
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

/// How long the pause is to be in which [`AT_ONCE`] frames come, if `new` came within `time`.
fn next_pause(new: i64, time: Duration) -> Duration {
    let new = u32::try_from(new.max(1)).unwrap_or(u32::MAX);
    (time.saturating_mul(AT_ONCE) / new).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

/// Gives the length of the log in frames.
async fn take_back(beside: &SqlitePool, write: &SqlitePool) -> Result<i64, sqlx::Error> {
    let length = checkpoint(&mut *beside.acquire().await?, "PRAGMA wal_checkpoint(PASSIVE)").await?;
    if length >= LONGEST {
        checkpoint(&mut *write.acquire().await?, "PRAGMA wal_checkpoint(FULL)").await?;
    }
    Ok(length)
}

/// Runs one, and gives the length of the log in frames.
async fn checkpoint(connection: &mut SqliteConnection, how: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(how).fetch_one(connection).await?.try_get(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_is_written_the_sooner_it_is_taken_back() {
        let second = Duration::from_secs(1);
        assert_eq!(next_pause(0, second), LONGEST_PAUSE);
        assert_eq!(next_pause(100, second), LONGEST_PAUSE);
        assert_eq!(next_pause(5120, second), second / 10);
        assert_eq!(next_pause(512, second / 20), second / 20);
        assert_eq!(next_pause(i64::MAX, second), SHORTEST_PAUSE);
    }
}
