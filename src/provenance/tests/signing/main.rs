//! Signed files, read again by the library's reader, and credentials that are refused.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod credentials;
mod files;
mod support;
mod timestamps;
