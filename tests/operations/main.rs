//! What an operator meets: metrics, traces, the configuration's checks, the files for deployment. The real binary, the real
//! models, servers on loopback.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod config;
mod exposition;
mod gateway;
mod health;
mod log;
mod loopback;
mod metrics;
mod plugins;
mod provenance;
mod traces;
