//! The store on SQLite and on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bad_days;
mod handle;
mod killed;
mod properties;
mod tenants;
mod usage;
