//! Plugins in this process: the examples in Rust, plugins in C of this version and of the one before, libraries that are none,
//! and plugins that misbehave.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod calls;
mod loading;
mod roles;
