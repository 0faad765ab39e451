//! The database of a gateway: tenants, policies, constitutions, keys and usage, in SQLite or PostgreSQL.
//!
//! [`Database`] is the handle: a file of SQLite, or a PostgreSQL that several gateways share. Opening it brings its
//! tables up to date ([`migrate`](mod@crate::migrate) says how to add some). What is read or written goes through a
//! [`Transaction`], with one text of SQL for both:
//!
//! ```no_run
//! # async fn example() -> Result<(), cluegate_store::DatabaseError> {
//! use cluegate_store::{Database, DatabaseOptions, args};
//!
//! let database = Database::open("sqlite:gate.db", DatabaseOptions::default()).await?;
//! let mut write = database.write().await?;
//! let added = write
//!     .execute("INSERT INTO example (name, size) VALUES ($1, $2) ON CONFLICT DO NOTHING", args!["a", 7])
//!     .await?;
//! write.commit().await?; // without this, nothing is kept
//!
//! let mut read = database.read().await?;
//! for row in read.fetch_all("SELECT name, size FROM example WHERE size > $1", args![3]).await? {
//!     let (name, size): (String, i64) = (row.get("name")?, row.get("size")?);
//! }
//! read.finish().await?;
//! # Ok(()) }
//! ```
//!
//! [`Store`] is what an operator writes there and gateways read: templates, tenants, constitutions and keys, changed by an
//! [`Edit`], each of which raises one number, so that a gateway loads what changed and nothing else
//! ([`Store::changes_since`]); and what tenants used of their quotas ([`Store::consume`]).

mod address;
mod checkpoint;
mod database;
mod edit;
mod error;
pub mod migrate;
mod model;
mod options;
mod store;
mod store_error;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod usage;
mod watch;

pub use sqlx::AssertSqlSafe;

pub use database::{Backend, Database};
pub use edit::{Author, Edit, Expect};
pub use error::{DatabaseError, DatabaseErrorKind};
pub use model::{
    Change, Constitution, Key, KeyHash, KeyState, Kind, MAX_NAME_BYTES, MAX_NOTE_BYTES, MAX_TEXT_BYTES,
    NewKey, PolicyVersion, Revision, Template, Tenant, TenantState,
};
pub use options::DatabaseOptions;
pub use store::{Changes, Contents, Current, Store};
pub use store_error::StoreError;
pub use transaction::{Arg, Column, Row, Transaction};
pub use usage::{Consumed, Measure, Period, Reservation, Usage, Want};
pub use watch::Watch;
