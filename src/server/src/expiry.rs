//! Removing what is older than each tenant's retention allows: at the start, and then in an interval.

use std::sync::Arc;
use std::time::Duration;

use cluegate_audit::{AuditError, LogPlaces, Removed};
use cluegate_telemetry::catalogue;
use jiff::Timestamp;

use crate::app::App;

impl App {
    /// Sweeps for ever, if the configuration says so and there is a log to sweep.
    pub(crate) async fn expire_regularly(self: Arc<Self>) {
        let pause = Duration::from_secs(self.config.log.expire_every_s);
        let Some(places) = self.decisions.clone().filter(|_| !pause.is_zero()) else {
            return std::future::pending().await;
        };
        loop {
            self.expire_once(&places).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// One sweep over all tenants. A tenant whose sweep fails keeps nobody else from theirs.
    async fn expire_once(&self, places: &LogPlaces) {
        let policies = self.live.policies();
        let (mut all, mut failures) = (Removed::default(), 0);
        for policy in policies.iter().cloned() {
            let places = places.clone();
            // It waits for the disk or the database. What has begun is finished, even if this is dropped.
            let removing =
                tokio::task::spawn_blocking(move || places.expire(&policy.tenant, &policy.retention));
            match removing.await.unwrap_or(Err(AuditError::Closed)) {
                Ok(removed) => {
                    all.entries += removed.entries;
                    all.pictures += removed.pictures;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::error!(%error, "what is too old could not be removed; tried again in the next sweep");
                    }
                }
            }
        }
        let Removed { entries: decisions, pictures } = all;
        catalogue::LOG_EXPIRED.add(decisions, &["decision"]);
        catalogue::LOG_EXPIRED.add(pictures, &["picture"]);
        catalogue::LOG_SWEEP_FAILURES.add(failures, &[]);
        if failures == 0 {
            catalogue::LOG_SWEPT.set(Timestamp::now().as_second() as f64, &[]);
        }
        if decisions > 0 || pictures > 0 || failures > 0 {
            tracing::info!(
                decisions,
                pictures,
                failures,
                "removed what is older than its tenant's retention allows"
            );
        }
    }
}
