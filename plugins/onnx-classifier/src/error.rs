//! What can go wrong with an ONNX model.

use std::path::Path;

use cluegate_perception::{PerceptionError, PerceptionErrorKind};
use thiserror::Error;

/// Result of this crate.
pub(crate) type Result<T> = std::result::Result<T, OnnxError>;

/// The kind of an [`OnnxError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnnxErrorKind {
    /// A file cannot be read.
    Unreadable,
    /// The configuration is malformed, or does not fit the model.
    Config,
    /// The model has another checksum than the configuration says.
    Checksum,
    /// The model cannot be read, or has an operator that is not supported.
    Model,
    /// The model failed, or gave what the configuration does not describe.
    Run,
}

/// A failure: what was expected, what came, and what to do.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct OnnxError {
    kind: OnnxErrorKind,
    message: String,
}

impl OnnxError {
    /// The kind.
    pub fn kind(&self) -> OnnxErrorKind {
        self.kind
    }

    pub(crate) fn config(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self { kind: OnnxErrorKind::Config, message: format!("{}: {detail}", path.display()) }
    }

    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        let message = format!("{}: cannot be read: {source}", path.display());
        Self { kind: OnnxErrorKind::Unreadable, message }
    }

    pub(crate) fn checksum(path: &Path, expected: &str, found: &str) -> Self {
        let message = format!(
            "{}: expected the SHA-256 {expected}, which the configuration names, found {found}: fetch the model again",
            path.display()
        );
        Self { kind: OnnxErrorKind::Checksum, message }
    }

    pub(crate) fn model(path: &Path, detail: impl std::fmt::Display) -> Self {
        let message = format!("{}: expected an ONNX model, {detail}", path.display());
        Self { kind: OnnxErrorKind::Model, message }
    }

    pub(crate) fn run(detail: String) -> Self {
        Self { kind: OnnxErrorKind::Run, message: format!("the ONNX model: {detail}") }
    }
}

impl From<OnnxError> for PerceptionError {
    fn from(error: OnnxError) -> Self {
        let kind = match error.kind {
            OnnxErrorKind::Run => PerceptionErrorKind::Backend,
            _ => PerceptionErrorKind::Model,
        };
        Self::new(kind, error.message)
    }
}
