//! Waiting for changes.

use std::time::Duration;

use sqlx::postgres::PgListener;

use crate::edit::CHANNEL;
use crate::{Store, StoreError};

/// Waits for changes of a store: asks for its number in an interval, and at once when PostgreSQL tells of a change.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    known: i64,
    interval: Duration,
    listener: Option<PgListener>,
}

impl Store {
    /// Waits for changes after the state with the number `known`. Every `interval` the number is asked for; a PostgreSQL
    /// tells of most changes before. It then holds one of the connections.
    pub fn watch(&self, known: i64, interval: Duration) -> Watch {
        Watch { store: self.clone(), known, interval, listener: None }
    }
}

impl Watch {
    /// Waits until the store's number is another one than the last that this gave, and gives that; it may be smaller, if
    /// somebody restored a backup. May be dropped and called again.
    ///
    /// # Errors
    /// As the database says, once an interval at most; calling again goes on.
    pub async fn changed(&mut self) -> Result<i64, StoreError> {
        loop {
            match self.store.generation().await {
                Ok(generation) if generation != self.known => {
                    self.known = generation;
                    return Ok(generation);
                }
                Ok(_) => self.wait().await,
                Err(error) => {
                    self.listener = None;
                    tokio::time::sleep(self.interval).await;
                    return Err(error);
                }
            }
        }
    }

    /// Waits for a notification, an interval at most.
    async fn wait(&mut self) {
        let listening = async {
            let Some(pool) = self.store.database().postgres() else {
                return std::future::pending().await;
            };
            if self.listener.is_none() {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(CHANNEL).await?;
                // What was committed before this is seen by asking once more.
                self.listener = Some(listener);
                return Ok(());
            }
            match &mut self.listener {
                Some(listener) => listener.recv().await.map(drop),
                None => Ok(()),
            }
        };
        let heard: Result<Result<(), sqlx::Error>, _> = tokio::time::timeout(self.interval, listening).await;
        if let Ok(Err(error)) = heard {
            tracing::debug!(%error, "PostgreSQL tells of no changes; asking for them in an interval");
            self.listener = None;
            tokio::time::sleep(self.interval).await;
        }
    }
}
