//! What can go wrong while a pipeline is loaded or a picture is drawn.

use std::path::{Path, PathBuf};

use cluegate_abi::{ErrorCode, PluginError};
use thiserror::Error;

/// Result of loading a pipeline or drawing a picture.
pub(crate) type Result<T> = std::result::Result<T, TorchError>;

/// A failed load or drawing. Every message names what was expected and what came.
#[derive(Debug, Error)]
pub(crate) enum TorchError {
    /// The plugin's own configuration.
    #[error("{0}")]
    Config(String),
    /// A file of the model that cannot be read.
    #[error("cannot read {}: {problem}", .path.display())]
    Read { path: PathBuf, problem: String },
    /// A file of the model that is not what it should be.
    #[error("{}: {problem}", .path.display())]
    Malformed { path: PathBuf, problem: String },
    /// A model that diffusers-rs cannot express.
    #[error("{}: {what} is {found}, and this plugin draws with {expected} only", .path.display())]
    Unsupported { path: PathBuf, what: String, found: String, expected: String },
    /// Tensors that the model has and its files have not.
    #[error("{}: no tensor {name}{}", .folder.display(), and_others(.others))]
    MissingTensor { folder: PathBuf, name: String, others: usize },
    /// Tensors that the files have and the model has not.
    #[error("{}: the model has no tensor {name}{}", .file.display(), and_others(.others))]
    UnknownTensor { file: PathBuf, name: String, others: usize },
    /// A tensor that cannot be used.
    #[error("{}: tensor {name}: expected {expected}, found {found}", .file.display())]
    Tensor { file: PathBuf, name: String, expected: String, found: String },
    /// A field of a drawing.
    #[error("{field}: expected {expected}, found {found}")]
    Request { field: &'static str, expected: String, found: String },
    /// The generator ran and made nothing that could be called a picture.
    #[error("generator failure: {what}; check the weights, or lower the guidance")]
    Generator { what: String },
    /// An operation that libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The host called the drawing off, or does not wait any longer.
    #[error(transparent)]
    Over(#[from] PluginError),
}

fn and_others(count: &usize) -> String {
    if *count == 0 { String::new() } else { format!(", and {count} others") }
}

impl TorchError {
    pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn unsupported(
        path: &Path,
        what: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let (what, found, expected) = (what.into(), found.into(), expected.into());
        Self::Unsupported { path: path.to_path_buf(), what, found, expected }
    }

    pub(crate) fn request(
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Request { field, expected: expected.into(), found: found.into() }
    }
}

impl From<TorchError> for PluginError {
    fn from(error: TorchError) -> Self {
        let code = match &error {
            TorchError::Over(over) => return over.clone(),
            TorchError::Request { .. } => ErrorCode::Request,
            TorchError::Generator { .. } | TorchError::Torch(_) => ErrorCode::Failed,
            TorchError::Config(_)
            | TorchError::Read { .. }
            | TorchError::Malformed { .. }
            | TorchError::Unsupported { .. }
            | TorchError::MissingTensor { .. }
            | TorchError::UnknownTensor { .. }
            | TorchError::Tensor { .. } => ErrorCode::Config,
        };
        Self::new(code, error.to_string())
    }
}
