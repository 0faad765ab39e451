//! What of the gateway's state is measured when somebody asks for the metrics.

use std::sync::Arc;

use cluegate_telemetry::{Metrics, catalogue as metric};

use crate::app::App;

impl App {
    /// Tells `metrics` how this gateway stands whenever they are asked for, for as long as it is there.
    pub fn measure(self: &Arc<Self>, metrics: &Metrics) {
        let app = Arc::downgrade(self);
        metrics.collect(move |metrics| {
            if let Some(app) = app.upgrade() {
                app.record(metrics);
            }
        });
    }

    fn record(&self, metrics: &Metrics) {
        let in_work = self.admission.in_work_by_tenant();
        let in_work = in_work.iter().map(|(tenant, count)| (&**tenant, *count as f64));
        metrics.set_by_tenant(&metric::ADMISSION_IN_WORK, in_work);
        metric::ADMISSION_WAITING.set(self.admission.waiting() as f64, &[]);
        metric::ADMISSION_PLACES.set(self.config.limits.in_work as f64, &[]);
        metric::ADMISSION_QUEUE_PLACES.set(self.config.limits.queue as f64, &[]);
        let status = self.live.status();
        metric::POLICY_RELOADS.absolute(status.reloads, &["replaced"]);
        metric::POLICY_RELOADS.absolute(status.refusals, &["refused"]);
        metric::POLICY_LOADED.set(status.loaded_at.as_millisecond() as f64 / 1e3, &[]);
        metric::POLICY_STALE.set(flag(status.refused.is_some()), &[]);
        metric::TENANTS.set(self.live.policies().tenants().count() as f64, &[]);
        if self.config.store.is_some() {
            metric::DATABASE_UP.set(flag(!status.store_gone), &[]);
        }
    }
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}
