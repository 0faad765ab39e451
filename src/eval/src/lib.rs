//! Measures how well pictures are judged: data sets, metrics, results.

pub mod metrics;
pub mod osbench;
