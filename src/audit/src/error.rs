//! What can go wrong with the decision log.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::entry::Position;

/// A failure of the decision log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// The operating system refused something.
    #[error("{} could not be {action}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Participle, such as "opened".
        action: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// Another process writes this file.
    #[error(
        "{} is written by another process; a log file has one writer: stop it, or give this one a file of its own",
        path.display()
    )]
    Locked {
        /// The log file.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Expected, found, what to do.
        problem: String,
    },
    /// The end of a log is missing.
    #[error(
        "{place} ends at entry {found} of the chain {}, but entry {} was written there: its end was cut off or lost. \
         Run `cluegate log verify`; to go on from the entry that is missing, move the file away and keep it", head.instance, head.seq
    )]
    CutOff {
        /// The file, or the database.
        place: String,
        /// The last entry that was written.
        head: Position,
        /// The number of the last entry that is there.
        found: u64,
    },
    /// Another process goes on with the same chain.
    #[error(
        "the chain {instance} in the database was continued by another process; give each gateway a `log.instance` of \
         its own"
    )]
    Contended {
        /// The chain.
        instance: String,
    },
    /// The database failed.
    #[error("the decision log: {0}")]
    Database(#[from] cluegate_store::DatabaseError),
    /// A setting cannot be used.
    #[error("`log.{key}` {problem}")]
    Setting {
        /// Dotted path within `[log]`.
        key: &'static str,
        /// Continues the sentence.
        problem: String,
    },
    /// A text is no entry of a decision log.
    #[error("no entry of a decision log: {0}")]
    Entry(String),
    /// An entry is larger than the log takes.
    #[error("an entry of {found} bytes is more than the {most} that the log takes")]
    TooLarge {
        /// Bytes.
        found: usize,
        /// Bytes.
        most: usize,
    },
    /// Too much waits to be written.
    #[error("the log takes no more: {0}")]
    Overloaded(String),
    /// The writer has ended.
    #[error("the writer of the log has ended")]
    Closed,
    /// A query or an erasure asks for what cannot be had.
    #[error("{0}")]
    Refused(String),
    /// A picture could not be kept or read.
    #[error("picture {name}: {problem}")]
    Picture {
        /// Its name in the store.
        name: String,
        /// Expected, found, what to do.
        problem: String,
    },
    /// Random numbers could not be had.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl AuditError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_path_buf(), problem: problem.into() }
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, AuditError>;
