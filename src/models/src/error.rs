//! What can go wrong while a model is loaded or run.

use std::fmt;

use cluegate_cache::Uncomputed;
use cluegate_perception::{PerceptionError, PerceptionErrorKind};
use thiserror::Error;

/// Result of loading or running a model.
pub type Result<T> = std::result::Result<T, ModelError>;

/// The kind of a [`ModelError`], stable for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelErrorKind {
    /// A file or folder is not there.
    MissingFile,
    /// A checkpoint that a models file names by its repository is not on this machine.
    NotFetched,
    /// A file is there and cannot be read.
    Unreadable,
    /// A file has no valid content: bad JSON, a truncated tensor file, a value out of range.
    Malformed,
    /// The weights lack a tensor that the configuration asks for.
    MissingTensor,
    /// A tensor has another shape than the configuration asks for.
    ShapeMismatch,
    /// The weights hold tensors that the model has no place for.
    UnknownTensor,
    /// The files are valid and describe something that is not implemented here.
    Unsupported,
    /// The tokenizer or the chat template does not fit the model.
    Tokenizer,
    /// What was asked cannot be served by this model.
    Request,
    /// A computation gave NaN or infinity.
    NotANumber,
    /// A tensor operation failed.
    Tensor,
    /// The caller no longer waits.
    Ended,
}

/// A failed load or run. Every message names the file or operation, what was expected and what was found.
#[derive(Debug, Error)]
pub enum ModelError {
    /// See [`ModelErrorKind::MissingFile`].
    #[error("{path}: no such {what}; the folder of a model holds it beside its config.json")]
    MissingFile {
        /// Where it was looked for.
        path: String,
        /// `file` or `folder`.
        what: &'static str,
    },
    /// See [`ModelErrorKind::NotFetched`].
    #[error("{path}: [{section}] {detail}")]
    NotFetched {
        /// The models file.
        path: String,
        /// Its section.
        section: &'static str,
        /// What is not there, and the command that fetches it.
        detail: String,
    },
    /// See [`ModelErrorKind::Unreadable`].
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// See [`ModelErrorKind::Malformed`].
    #[error("{path}: {detail}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong in it, with field and line where known.
        detail: String,
    },
    /// See [`ModelErrorKind::MissingTensor`].
    #[error("{path}: no tensor `{name}`, expected one of shape {}", Dims(.expected))]
    MissingTensor {
        /// The weights.
        path: String,
        /// Name of the tensor.
        name: String,
        /// Shape by the configuration; empty if any shape would do.
        expected: Vec<usize>,
    },
    /// See [`ModelErrorKind::ShapeMismatch`].
    #[error("{path}: tensor `{name}` has shape {}, expected {} by config.json", Dims(.found), Dims(.expected))]
    ShapeMismatch {
        /// The weights.
        path: String,
        /// Name of the tensor.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// See [`ModelErrorKind::UnknownTensor`].
    #[error("{path}: {} tensor(s) that the configuration has no place for: {}", .names.len(), first_few(.names))]
    UnknownTensor {
        /// The weights.
        path: String,
        /// Names of all such tensors.
        names: Vec<String>,
    },
    /// See [`ModelErrorKind::Unsupported`].
    #[error("{path}: {what} is `{found}`, supported: {supported}")]
    Unsupported {
        /// The file.
        path: String,
        /// Which property.
        what: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: String,
    },
    /// See [`ModelErrorKind::Tokenizer`].
    #[error("{path}: {detail}")]
    Tokenizer {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// See [`ModelErrorKind::Request`].
    #[error("{0}")]
    Request(String),
    /// See [`ModelErrorKind::NotANumber`].
    #[error("{0} came out as NaN or infinity: no answer; check the weights and their data type")]
    NotANumber(String),
    /// See [`ModelErrorKind::Ended`].
    #[error(transparent)]
    Ended(PerceptionError),
    /// See [`ModelErrorKind::Tensor`].
    #[error("tensor operation failed in {op}: {detail}")]
    Tensor {
        /// The stage in which it happened.
        op: String,
        /// The library's message: operation and shapes.
        detail: String,
    },
}

impl ModelError {
    /// The kind, for decisions and tests.
    pub fn kind(&self) -> ModelErrorKind {
        match self {
            Self::MissingFile { .. } => ModelErrorKind::MissingFile,
            Self::NotFetched { .. } => ModelErrorKind::NotFetched,
            Self::Unreadable { .. } => ModelErrorKind::Unreadable,
            Self::Malformed { .. } => ModelErrorKind::Malformed,
            Self::MissingTensor { .. } => ModelErrorKind::MissingTensor,
            Self::ShapeMismatch { .. } => ModelErrorKind::ShapeMismatch,
            Self::UnknownTensor { .. } => ModelErrorKind::UnknownTensor,
            Self::Unsupported { .. } => ModelErrorKind::Unsupported,
            Self::Tokenizer { .. } => ModelErrorKind::Tokenizer,
            Self::Request(_) => ModelErrorKind::Request,
            Self::NotANumber(_) => ModelErrorKind::NotANumber,
            Self::Tensor { .. } => ModelErrorKind::Tensor,
            Self::Ended(_) => ModelErrorKind::Ended,
        }
    }

    /// A malformed file.
    pub fn malformed(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), detail: detail.into() }
    }

    /// A property that is not implemented.
    pub fn unsupported(
        path: impl Into<String>,
        what: impl Into<String>,
        found: impl fmt::Display,
        supported: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            path: path.into(),
            what: what.into(),
            found: found.to_string(),
            supported: supported.into(),
        }
    }

    /// A tokenizer that does not fit.
    pub fn tokenizer(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Tokenizer { path: path.into(), detail: detail.into() }
    }

    /// The same error, a tensor error with `stage` as its operation. For `map_err` where an operation fails.
    #[must_use]
    pub fn at(self, stage: &str) -> Self {
        match self {
            Self::Tensor { op, detail } if op == UNKNOWN_STAGE => {
                Self::Tensor { op: stage.to_owned(), detail }
            }
            Self::Tensor { op, detail } => Self::Tensor { op: format!("{stage}, {op}"), detail },
            other => other,
        }
    }
}

const UNKNOWN_STAGE: &str = "the model";

impl From<candle_core::Error> for ModelError {
    /// Errors of this crate that travelled through candle come out as they were; the rest is a tensor error.
    fn from(error: candle_core::Error) -> Self {
        use candle_core::Error;
        match error {
            Error::WithBacktrace { inner, .. }
            | Error::Context { inner, .. }
            | Error::WithPath { inner, .. } => Self::from(*inner),
            Error::WrappedContext { wrapped, context } => match wrapped.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => {
                    Self::Tensor { op: UNKNOWN_STAGE.to_owned(), detail: format!("{context}: {other}") }
                }
            },
            other => Self::Tensor { op: UNKNOWN_STAGE.to_owned(), detail: other.to_string() },
        }
    }
}

impl From<Uncomputed> for ModelError {
    fn from(error: Uncomputed) -> Self {
        Self::Tensor { op: UNKNOWN_STAGE.to_owned(), detail: error.to_string() }
    }
}

impl From<ModelError> for candle_core::Error {
    /// Lets a weight loader report through candle's builders without losing what happened.
    fn from(error: ModelError) -> Self {
        let context = error.to_string();
        Self::WrappedContext { wrapped: Box::new(error), context }
    }
}

impl From<ModelError> for PerceptionError {
    fn from(error: ModelError) -> Self {
        let kind = match &error {
            ModelError::Ended(own) => own.kind(),
            ModelError::Request(_) => PerceptionErrorKind::Request,
            ModelError::NotANumber(_) => PerceptionErrorKind::NotANumber,
            ModelError::Tensor { .. } => PerceptionErrorKind::Backend,
            ModelError::MissingFile { .. }
            | ModelError::Unreadable { .. }
            | ModelError::Malformed { .. }
            | ModelError::MissingTensor { .. }
            | ModelError::ShapeMismatch { .. }
            | ModelError::UnknownTensor { .. }
            | ModelError::Unsupported { .. }
            | ModelError::NotFetched { .. }
            | ModelError::Tokenizer { .. } => PerceptionErrorKind::Model,
        };
        Self::new(kind, error.to_string())
    }
}

/// A shape as `[2, 3]`, an unknown one as `any`.
struct Dims<'a>(&'a [usize]);

impl fmt::Display for Dims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("any") } else { write!(f, "{:?}", self.0) }
    }
}

/// The first names of a list that may be very long.
fn first_few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}
