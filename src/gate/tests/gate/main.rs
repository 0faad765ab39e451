//! The gate as a host sees it, over scripted models.

// Clippy's exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod actions;
mod driven;
mod failures;
mod logging;
mod properties;
mod records;
mod requests;
