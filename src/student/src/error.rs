//! Why a student cannot be made or used.

use std::path::Path;

use thiserror::Error;

/// Result of this crate.
pub(crate) type Result<T> = std::result::Result<T, StudentError>;

/// The kind of a [`StudentError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StudentErrorKind {
    /// A file cannot be read or written.
    File,
    /// A card or weights are malformed, or do not belong together.
    Malformed,
    /// It was made for another encoder or another revision of the constitution.
    Mismatch,
    /// The labels are too few, or all alike.
    Labels,
    /// A number that is none.
    NotANumber,
}

/// A failure: what was expected, what came, and what to do.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct StudentError {
    kind: StudentErrorKind,
    message: String,
}

impl StudentError {
    /// A failure of this kind.
    pub fn new(kind: StudentErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind.
    pub fn kind(&self) -> StudentErrorKind {
        self.kind
    }

    pub(crate) fn file(doing: &str, path: &Path, source: &std::io::Error) -> Self {
        Self::new(StudentErrorKind::File, format!("cannot {doing} {}: {source}", path.display()))
    }

    pub(crate) fn malformed(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self::new(StudentErrorKind::Malformed, format!("{}: {detail}", path.display()))
    }
}
