//! What an operator sees of a running gateway: Prometheus metrics and OpenTelemetry traces.
//!
//! - [`catalogue`] lists every metric; [`Metrics`] records and renders them; [`MeasuredLog`] turns the decisions that pass
//!   through it into metrics, which happens nowhere else.
//! - [`Traces`] exports the spans of the `tracing` crate by OTLP over HTTP, [`propagation`] carries them from and to other
//!   servers.
//!
//! Without a recorder, and without an exporter, everything here costs a comparison.

pub mod catalogue;
mod decisions;
mod exporter;
mod labels;
mod metric;
mod process;
pub mod propagation;
mod recorder;
mod traces;

pub use decisions::MeasuredLog;
pub use metric::{Kind, Metric};
pub use recorder::{InstallError, Metrics, MetricsOptions, OTHER};
pub use traces::{TARGET, TraceError, Traces};
