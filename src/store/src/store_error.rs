//! What the store refuses.

use thiserror::Error;

use crate::{DatabaseError, Kind};

/// A call that the store refuses, or a database that fails. Of a refused call nothing is written.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Somebody else changed it since it was read.
    #[error(
        "the {kind} {name:?} is at version {found}, and the change was made to version {expected}; read it again and \
         repeat the change"
    )]
    Conflict {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// The version that the caller had.
        expected: i64,
        /// The version that is there.
        found: i64,
    },
    /// There is none by that name, for that tenant.
    #[error("there is no {kind} {name:?}")]
    Missing {
        /// What it would be.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// There is one by that name already.
    #[error("there is a {kind} {name:?} already; choose another name, or change that one")]
    Exists {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The key belongs to somebody already. Whose it is is not said: it may be another tenant's.
    #[error("the key {id:?} is in use under another id or by another tenant; make a new one")]
    KeyTaken {
        /// The id for which it was offered.
        id: String,
    },
    /// A revision that has another text.
    #[error(
        "the constitution {name:?} has the revision {revision} with another text; a revision never changes"
    )]
    OtherText {
        /// The constitution.
        name: String,
        /// The revision.
        revision: String,
    },
    /// A value that no row may have.
    #[error("{what}: {problem}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What was expected, and what came.
        problem: String,
    },
    /// A value in the database that this program does not know.
    #[error("the stored {what} {value:?} is none that this program knows; run the program that wrote it")]
    Unknown {
        /// Which column.
        what: &'static str,
        /// What it holds.
        value: String,
    },
}
