//! What can go wrong while a model looks at something.

use thiserror::Error;

/// Result of a perception call.
pub type Result<T> = std::result::Result<T, PerceptionError>;

/// The kind of a [`PerceptionError`], stable for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PerceptionErrorKind {
    /// A file of the model is missing, malformed, or does not fit the others.
    Model,
    /// The request cannot be served by this model: a prompt that is too long, an unsupported picture size.
    Request,
    /// The model computed something that is not a number.
    NotANumber,
    /// The answer lacks something that the method needs, such as the probability of a token.
    MissingAnswer,
    /// The deadline passed.
    Timeout,
    /// The caller called the work off.
    Cancelled,
    /// The queue is full; nothing was computed.
    Overloaded,
    /// The backend failed: out of memory, a tensor operation, a connection.
    Backend,
}

impl PerceptionErrorKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Request => "request",
            Self::NotANumber => "not-a-number",
            Self::MissingAnswer => "missing-answer",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Overloaded => "overloaded",
            Self::Backend => "backend",
        }
    }
}

/// A failed perception call: its kind and a sentence that names what was expected and what came.
#[derive(Debug, Clone, Error)]
#[error("{message}")]
pub struct PerceptionError {
    kind: PerceptionErrorKind,
    message: String,
}

impl PerceptionError {
    /// Makes an error of the given kind.
    pub fn new(kind: PerceptionErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The kind, for decisions and counters.
    pub fn kind(&self) -> PerceptionErrorKind {
        self.kind
    }

    /// The same error with `context` put before its message.
    #[must_use]
    pub fn context(self, context: impl std::fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{context}: {}", self.message) }
    }
}
