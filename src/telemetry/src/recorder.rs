//! Records metrics and renders them for Prometheus.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use thiserror::Error;

use crate::catalogue;
use crate::labels::Bounded;
use crate::metric::{Kind, Metric};
use crate::process;

/// Label value of all tenants, and all rules, beyond those that have a series of their own.
pub const OTHER: &str = "other";

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Upper bounds of the buckets of numbers of things.
const COUNTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// How often observations are sorted into their buckets, where nobody asks for the metrics. Until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// How many series there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsOptions {
    /// Tenants with series of their own, the first that come; the others are [`OTHER`] together. Default 100.
    pub tenants: usize,
    /// Rules with series of their own, likewise. Default 100.
    pub rules: usize,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { tenants: 100, rules: 100 }
    }
}

/// Metrics that cannot be recorded.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The process has a recorder already.
    #[error("this process records its metrics elsewhere already; expected one recorder")]
    Taken,
    /// The recorder cannot be made.
    #[error("the metrics cannot be recorded: {0}")]
    Build(#[from] BuildError),
    /// The system gives no thread.
    #[error("the metrics cannot be recorded: the system gives no thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Set once, with the recorder of the process.
static INSTALLED: OnceLock<Arc<Metrics>> = OnceLock::new();

type Collector = Box<dyn Fn(&Metrics) + Send + Sync>;

/// The metrics of this process.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    tenants: Bounded,
    rules: Bounded,
    collectors: Mutex<Vec<Collector>>,
    /// Dropped with the rest, which ends the thread that sorts.
    _upkeep: Sender<()>,
}

impl Metrics {
    /// A recorder of its own, which gets what is recorded within [`Metrics::within`] alone, and what it is given itself.
    ///
    /// # Errors
    /// If it cannot be made, or the system gives no thread.
    pub fn new(options: MetricsOptions) -> Result<Arc<Self>, InstallError> {
        let batch = Matcher::Full(catalogue::LOG_BATCH.name.to_owned());
        let builder =
            PrometheusBuilder::new().set_buckets(&BUCKETS)?.set_buckets_for_metric(batch, &COUNTS)?;
        let recorder = Arc::new(builder.build_recorder());
        let handle = recorder.handle();
        let (stop, stopped) = channel::<()>();
        let sorted = handle.clone();
        thread::Builder::new().name("cluegate-metrics".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(UPKEEP) {
                sorted.run_upkeep();
            }
        })?;
        let metrics = Self {
            recorder,
            handle,
            tenants: Bounded::new(options.tenants),
            rules: Bounded::new(options.rules),
            collectors: Mutex::default(),
            _upkeep: stop,
        };
        metrics.within(describe);
        metrics.collect(|_| process::record());
        Ok(Arc::new(metrics))
    }

    /// The recorder of the whole process. There can be one.
    ///
    /// # Errors
    /// If there is one already, or as [`Metrics::new`].
    pub fn install(options: MetricsOptions) -> Result<Arc<Self>, InstallError> {
        let metrics = Self::new(options)?;
        metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| InstallError::Taken)?;
        Ok(Arc::clone(INSTALLED.get_or_init(|| metrics)))
    }

    /// The recorder of the process, if there is one.
    pub fn installed() -> Option<&'static Arc<Self>> {
        INSTALLED.get()
    }

    /// Runs `work`; what it records on this thread comes here.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, work)
    }

    /// Runs `collector` whenever the metrics are asked for: for what is measured only then.
    pub fn collect(&self, collector: impl Fn(&Self) + Send + Sync + 'static) {
        self.collectors().push(Box::new(collector));
    }

    /// All metrics in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        self.within(|| self.collectors().iter().for_each(|collector| collector(self)));
        let mut text = self.handle.render();
        for sum in catalogue::ALL.iter().filter(|metric| metric.kind == Kind::Sum) {
            text = text
                .replace(&format!("# TYPE {} gauge\n", sum.name), &format!("# TYPE {} counter\n", sum.name));
        }
        text
    }

    /// The label value of `tenant`: its name, or [`OTHER`].
    pub fn tenant<'t>(&self, tenant: &'t str) -> &'t str {
        self.tenants.admit(tenant)
    }

    /// The label value of `rule`: its id, or [`OTHER`].
    pub fn rule<'r>(&self, rule: &'r str) -> &'r str {
        self.rules.admit(rule)
    }

    /// Sets a gauge whose only label is the tenant, for all tenants at once: those that `values` does not name have 0, and
    /// those without a series of their own count together.
    pub fn set_by_tenant<'t>(&self, gauge: &Metric, values: impl IntoIterator<Item = (&'t str, f64)>) {
        let mut sums: BTreeMap<String, f64> =
            self.tenants.known().into_iter().map(|name| (name, 0.0)).collect();
        sums.insert(OTHER.to_owned(), 0.0);
        for (tenant, value) in values {
            *sums.entry(self.tenant(tenant).to_owned()).or_default() += value;
        }
        self.within(|| sums.iter().for_each(|(tenant, sum)| gauge.set(*sum, &[tenant])));
    }

    fn collectors(&self) -> MutexGuard<'_, Vec<Collector>> {
        // A collector that panics leaves the list whole.
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Series of counters whose labels are known, beside those without labels: the values of the last label, which is the only
/// one.
const KNOWN: [(Metric, &[&str]); 6] = [
    (catalogue::ADMISSION_REFUSED, &["overloaded", "deadline_exceeded", "shutting_down"]),
    (catalogue::UPSTREAM_ERRORS, &["refused", "unreachable", "failed", "malformed", "timeout", "cancelled"]),
    (catalogue::POLICY_RELOADS, &["replaced", "refused"]),
    (catalogue::CANARY, &["same", "same-action", "different", "unknown"]),
    (catalogue::VERDICT_CACHE, &["hit", "miss"]),
    (catalogue::TRACE_EXPORTS, &["exported", "failed"]),
];

/// Tells the recorder what each metric is, and sets the series that are known to 0: a counter that is there only once
/// something was counted misses its first step in every rate.
fn describe() {
    for metric in catalogue::ALL {
        let unlabelled = metric.labels.is_empty();
        match metric.kind {
            Kind::Counter => {
                metrics::describe_counter!(metric.name, metric.help);
                if unlabelled {
                    metric.add(0, &[]);
                }
            }
            Kind::Gauge | Kind::Sum => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
    for (metric, values) in KNOWN {
        values.iter().for_each(|value| metric.add(0, &[value]));
    }
    catalogue::BUILD.set(1.0, &[env!("CARGO_PKG_VERSION")]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_recorded_is_rendered_with_its_help_and_type() {
        let metrics = Metrics::new(MetricsOptions::default()).unwrap();
        metrics.within(|| {
            catalogue::UPSTREAM_ERRORS.add(2, &["time\"out\n"]);
            catalogue::STAGE.observe(0.03, &["log"]);
            catalogue::COST.grow(0.25, &["kids"]);
            catalogue::COST.grow(f64::NAN, &["kids"]);
        });
        // What nobody records here does not come here.
        catalogue::UPSTREAM_ERRORS.add(1, &["refused"]);
        let text = metrics.render();
        for line in [
            "# TYPE cluegate_upstream_errors_total counter",
            "cluegate_upstream_errors_total{kind=\"time\\\"out\\n\"} 2",
            "cluegate_log_errors_total 0",
            "# TYPE cluegate_stage_duration_seconds histogram",
            "cluegate_stage_duration_seconds_bucket{stage=\"log\",le=\"0.025\"} 0",
            "cluegate_stage_duration_seconds_bucket{stage=\"log\",le=\"0.05\"} 1",
            "cluegate_stage_duration_seconds_bucket{stage=\"log\",le=\"+Inf\"} 1",
            "# TYPE cluegate_cost_total counter",
            "cluegate_cost_total{tenant=\"kids\"} 0.25",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
        assert!(text.contains("cluegate_upstream_errors_total{kind=\"refused\"} 0"), "{text}");
    }

    #[test]
    fn a_gauge_by_tenant_forgets_nobody_and_is_bounded() {
        let metrics = Metrics::new(MetricsOptions { tenants: 2, rules: 1 }).unwrap();
        let names: Vec<String> = (0..10_000).map(|number| format!("tenant-{number}")).collect();
        let gauge = &catalogue::ADMISSION_IN_WORK;
        metrics.set_by_tenant(gauge, names.iter().map(|name| (name.as_str(), 1.0)));
        let series = |text: &str| -> Vec<String> {
            let own = text.lines().filter(|line| line.starts_with(&format!("{}{{", gauge.name)));
            let mut own: Vec<String> = own.map(|line| line[gauge.name.len()..].to_owned()).collect();
            own.sort();
            own
        };
        let expected = ["{tenant=\"other\"} 9998", "{tenant=\"tenant-0\"} 1", "{tenant=\"tenant-1\"} 1"];
        assert_eq!(series(&metrics.render()), expected);
        metrics.set_by_tenant(gauge, [("tenant-1", 3.0)]);
        let expected = ["{tenant=\"other\"} 0", "{tenant=\"tenant-0\"} 0", "{tenant=\"tenant-1\"} 3"];
        assert_eq!(series(&metrics.render()), expected);
    }

    #[test]
    fn a_collector_runs_at_every_rendering() {
        let metrics = Metrics::new(MetricsOptions::default()).unwrap();
        let asked = std::sync::atomic::AtomicU64::new(0);
        metrics.collect(move |_| {
            let times = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            catalogue::TENANTS.set(times as f64, &[]);
        });
        metrics.render();
        assert!(metrics.render().contains("\ncluegate_tenants 2\n"));
    }
}
