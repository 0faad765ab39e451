//! Measures how well pictures are judged: data sets, metrics, results.

pub mod data;
pub mod metrics;
pub mod osbench;
pub mod scenes;
