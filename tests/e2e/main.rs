//! End-to-end tests: the real binary, the real models, real files.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "../../src/hub/tests/fake_hub/mod.rs"]
mod fake_hub;
#[path = "../support/mod.rs"]
mod support;

mod bad_days;
mod bad_input;
mod calibrate;
mod command_line;
mod compile;
mod constitution;
mod damaged_models;
mod demo;
mod domain;
mod eval;
mod examples;
mod generate;
mod judge;
mod models;
mod plugins;
mod probe;
mod probe_raw;
mod serve;
mod student;
mod tenants;
