//! The gateway over HTTP on loopback: scripted models, scripted upstreams, real sockets.

#![allow(clippy::unwrap_used, clippy::panic)]

mod builtin;
mod door;
mod guardrail;
mod judge_api;
mod moderations;
mod sdcpp;
mod support;
