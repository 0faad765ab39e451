//! Reading policies and keys again: when, and what follows.

use std::sync::Arc;
use std::time::Duration;

use super::{Loaded, Part, PolicySource, ReloadError, Seen};
use crate::app::App;
use crate::problem::{Problem, ProblemKind};

/// How often the store is asked whether it is there, where its changes are not polled.
const HEARTBEAT: Duration = Duration::from_secs(2);

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let kind = match error.what {
            Part::Policies | Part::Keys => ProblemKind::Unusable,
            Part::Store => ProblemKind::StoreGone,
        };
        Self::new(kind, error.to_string())
    }
}

impl App {
    /// Reads policies and keys again and puts them in the place of those in use, if they can be used; `by` says in the log
    /// who asked. Requests in work keep what they began with.
    ///
    /// # Errors
    /// Why they cannot be used, or not be had; what is in use stays.
    pub async fn reload(self: &Arc<Self>, by: &str) -> Result<(), ReloadError> {
        let mut seen = self.live.turn.lock().await;
        self.reload_now(&mut seen, by).await
    }

    /// Keeps policies and keys up to date for ever: reads them again when they have changed.
    pub(crate) async fn watch(self: Arc<Self>) {
        let Some(pause) = self.live.poll.or(self.live.store.is_some().then_some(HEARTBEAT)) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(pause).await;
            let mut seen = self.live.turn.lock().await;
            let files = seen.files.clone();
            let again = tokio::task::spawn_blocking(move || files.again()).await;
            let mut changed = again.is_ok_and(|again| again != seen.files);
            if let PolicySource::Store(stored) = &self.live.source {
                match stored.store().generation().await {
                    Ok(generation) => {
                        self.live.heard();
                        changed |= seen.generation != Some(generation);
                    }
                    Err(error) => self.live.silent(&error),
                }
            }
            if changed && self.live.poll.is_some() {
                // Whatever is wrong was told.
                let _ = self.reload_now(&mut seen, "change").await;
            }
        }
    }

    async fn reload_now(self: &Arc<Self>, seen: &mut Seen, by: &str) -> Result<(), ReloadError> {
        // Before anything is read: what changes meanwhile is seen the next time.
        seen.files = seen.files.again();
        if let PolicySource::Store(stored) = &self.live.source {
            seen.generation = stored.store().generation().await.ok();
        }
        let loaded = self.live.source.load().await;
        let ended = match loaded {
            Ok(loaded) => {
                seen.generation = loaded.generation;
                self.replace(seen, loaded).await
            }
            Err(error) => Err(error),
        };
        self.live.note(by, &ended);
        ended.map(drop)
    }

    /// Puts what was loaded in the place of what is in use: all of it, or nothing.
    async fn replace(
        self: &Arc<Self>,
        seen: &mut Seen,
        loaded: Loaded,
    ) -> Result<(Option<i64>, usize), ReloadError> {
        loaded.check_anonymous(self.config.anonymous.as_deref())?;
        let Loaded { policies, keys, generation, suspended } = loaded;
        if let Some(administration) = &self.administration {
            administration.reload().map_err(ReloadError::keys)?;
        }
        if matches!(self.live.source, PolicySource::Store(_)) {
            self.live.heard();
        }
        let looks = self.live.source.looks(&policies).and(self.live.admin_keys.as_deref());
        // It reads and checks constitutions, which may take a while.
        let (app, new) = (Arc::clone(self), policies.clone());
        let replaced = tokio::task::spawn_blocking(move || app.gate.replace(&new)).await;
        let replaced =
            replaced.map_err(|panic| ReloadError::policies(format!("the gate failed: {panic}")))?;
        let replaced = replaced.map_err(ReloadError::policies)?;
        // Ahead of the first picture.
        self.gate.warm_up_replaced(&replaced);
        let (added, changed, removed) =
            (replaced.added.len(), replaced.changed.len(), replaced.removed.len());
        tracing::info!(added, changed, removed, unchanged = replaced.unchanged, "tenants were replaced");
        // Files that were looked at before keep how they looked then; those that are new are looked at from now on.
        seen.files = seen.files.clone().with(looks);
        let count = keys.len();
        self.live.policies.store(Arc::new(policies));
        self.live.suspended.store(suspended);
        self.authenticator.replace(keys);
        Ok((generation, count))
    }
}
