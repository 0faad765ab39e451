//! The workers over scripted models: what they answer, in which order they serve, and what becomes of failures. Nothing
//! here waits for a length of time: a gate holds a model until the test lets it go on.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod agreement;
mod batching;
mod deadlines;
mod decoding;
mod failures;
mod fairness;
mod stress;
mod support;
