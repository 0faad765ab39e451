//! The gate as a host sees it, over scripted models.

// Clippy's exemption for tests does not reach their helper functions.
#![allow(clippy::unwrap_used, clippy::panic)]

mod actions;
mod beside;
mod canaries;
mod documented;
mod driven;
mod failures;
mod inheritance;
mod inpainting;
mod ladder;
mod logging;
mod merging;
mod prefilter;
mod previews;
mod prompts;
mod properties;
mod provenance;
mod records;
mod replacing;
mod requests;
mod signing;
mod watching;
