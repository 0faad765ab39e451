//! The remote judge against an engine on loopback that speaks the documented shapes of vLLM, SGLang and older servers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod consequences;
mod endpoints;
mod engine;
mod failures;
mod handshake;
mod others;
mod scores;
