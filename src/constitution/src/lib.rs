//! Safety rules as data: rules, precondition chains, exceptions, thresholds, revision.
//!
//! A constitution is a TOML file (see `schema/constitution.schema.json`). It is read in two steps: into raw types that
//! mirror the file, and from there into the built types of this crate, which hold only values that have been checked.
//! There is no way to a [`Constitution`] around the checks, so that a judge never meets an empty chain or a threshold
//! that is not a number.
//!
//! This crate is pure data: it knows no model and starts nothing.

pub mod diff;
mod error;
mod format;
pub mod lint;
mod nearest;
mod parameter;
mod parse;
mod raw;
mod revision;
mod rule;
mod shipped;
mod template;

pub use error::{ConstitutionError, Problem};
pub use format::format;
pub use nearest::nearest;
pub use parameter::{Parameter, ParameterKind, Setting};
pub use raw::json_schema;
pub use revision::Revision;
pub use rule::{Constitution, Precondition, Rule, Severity, Statement, Thresholds};
pub use shipped::shipped_names;
