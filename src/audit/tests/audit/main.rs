//! The decision log as a whole: what is written, what survives, what is found out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crashes;
mod databases;
mod removing;
mod replaying;
mod support;
mod tampering;
mod webhooks;
mod writing;
