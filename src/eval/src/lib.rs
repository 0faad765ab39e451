//! Benchmarks of judgments: data sets, metrics, reports.
