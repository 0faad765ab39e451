//! One metric: its name, type, labels and help, and how a value is given to it.

use metrics::{Label, SharedString};

/// Types of metrics, as Prometheus names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, by whole numbers.
    Counter,
    /// Only grows, by any amount: a counter for Prometheus, and a gauge for the recorder, whose counters are whole numbers.
    Sum,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// Name as in the exposition format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter | Self::Sum => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric of the catalogue. Values go to the recorder of this thread, else to that of the process, else nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name: `cluegate_` or `process_`, then the unit; counters end in `_total`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Names of its labels. Every series has all of them.
    pub labels: &'static [&'static str],
    /// A sentence for people.
    pub help: &'static str,
}

impl Metric {
    /// Adds `count` to a counter. `values` are the labels' values, in the order of [`Metric::labels`].
    pub fn add(&self, count: u64, values: &[&str]) {
        metrics::counter!(self.name, self.series(values)).increment(count);
    }

    /// Sets a counter that something else keeps.
    pub fn absolute(&self, count: u64, values: &[&str]) {
        metrics::counter!(self.name, self.series(values)).absolute(count);
    }

    /// Sets a gauge, or a sum that something else keeps.
    pub fn set(&self, value: f64, values: &[&str]) {
        metrics::gauge!(self.name, self.series(values)).set(value);
    }

    /// Adds to a sum. Negative amounts and NaN count nothing.
    pub fn grow(&self, amount: f64, values: &[&str]) {
        if amount >= 0.0 {
            metrics::gauge!(self.name, self.series(values)).increment(amount);
        }
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, value: f64, values: &[&str]) {
        metrics::histogram!(self.name, self.series(values)).record(value);
    }

    fn series(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let label = |(name, value): (&&'static str, &&str)| {
            Label::new(SharedString::const_str(name), SharedString::from_owned((*value).to_owned()))
        };
        self.labels.iter().zip(values).map(label).collect()
    }
}
