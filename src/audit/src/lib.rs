//! The decision log: hash-chained entries in the shape of OPA, to a file, a database and a webhook.
//!
//! [`AuditLog`] is what a gate writes to: an entry is durable in every configured place before its picture may leave.
//! [`LogPlaces`] reads beside it, in the same process or another: [queries](LogPlaces::query),
//! [verification](LogPlaces::verify), [erasure](LogPlaces::erase), [expiry](LogPlaces::expire) and
//! [replay](LogPlaces::replay). [`entry`](mod@entry) says what an entry is and how it is hashed.

mod canonical;
mod chain;
mod database;
pub mod entry;
mod erase;
mod error;
mod expire;
mod export;
mod file;
mod head;
mod keys;
mod log;
mod pictures;
mod places;
mod progress;
mod query;
mod ranges;
mod reader;
mod record;
mod removal;
mod replay;
mod settings;
mod verify;
mod webhook;
mod writer;

pub use canonical::canonical;
pub use entry::{Entry, Fault, Line};
pub use erase::Erasure;
pub use error::{AuditError, Result};
pub use export::{ExportFormat, Exporter, export};
pub use head::{Head, Signature};
pub use keys::{Key, Keyring};
pub use log::AuditLog;
pub use pictures::PictureStore;
pub use places::LogPlaces;
pub use query::{Place, Query, Scope, parse_time};
pub use reader::{Lines, RawLine};
pub use removal::Removed;
pub use replay::{Candidate, Change, Example, Replay, RuleChange};
pub use settings::{LogSettings, PictureSettings, WebhookSettings};
pub use verify::{Broken, ChainReport, Problem, Verified, VerifyOptions};
