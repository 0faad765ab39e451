//! Signed files, read again by the library's reader, and credentials that are refused.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod credentials;
mod files;
mod support;
mod timestamps;
