//! What can go wrong between here and an engine.

use std::fmt;

use cluegate_perception::{PerceptionError, PerceptionErrorKind};
use thiserror::Error;

/// The kind of a [`RemoteError`], stable for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// An option that cannot be used.
    Options,
    /// Nobody answers at the address.
    Unreachable,
    /// The certificate of whoever answers is not trusted.
    Untrusted,
    /// The engine does not take the key.
    Unauthorised,
    /// The engine has no such model.
    UnknownModel,
    /// The engine refuses the request itself.
    Refused,
    /// The engine has too much to do.
    Overloaded,
    /// The engine failed.
    Failed,
    /// What came back is not what the protocol says.
    Malformed,
    /// An answer to another request, or of another model.
    Mixed,
    /// The answer lacks log-probabilities, or those of Yes and No.
    NoProbabilities,
    /// The engine thinks before it answers.
    Thinks,
    /// The engine answers the same without the picture.
    Blind,
    /// No answer before the deadline.
    Timeout,
    /// Nobody waits for the answer any more.
    Cancelled,
}

/// A request that failed: where, what was expected, what came and what to do.
#[derive(Debug, Clone, Error)]
#[error("{endpoint}: {message}")]
pub struct RemoteError {
    kind: RemoteErrorKind,
    endpoint: String,
    message: String,
}

impl RemoteError {
    pub(crate) fn new(
        kind: RemoteErrorKind,
        endpoint: impl fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, endpoint: endpoint.to_string(), message: message.into() }
    }

    /// The kind, for decisions and counters.
    pub fn kind(&self) -> RemoteErrorKind {
        self.kind
    }

    /// Whether the same request may well succeed at another time or at another endpoint.
    pub(crate) fn is_passing(&self) -> bool {
        use RemoteErrorKind as Kind;
        matches!(
            self.kind,
            Kind::Unreachable | Kind::Overloaded | Kind::Failed | Kind::Malformed | Kind::Mixed
        )
    }

    /// The same error after so many attempts.
    pub(crate) fn after(mut self, attempts: u32) -> Self {
        if attempts > 1 {
            self.message = format!("{} ({attempts} attempts)", self.message);
        }
        self
    }
}

impl From<RemoteError> for PerceptionError {
    fn from(error: RemoteError) -> Self {
        use RemoteErrorKind as Kind;
        let kind = match error.kind {
            Kind::Options | Kind::UnknownModel | Kind::Thinks | Kind::Blind => PerceptionErrorKind::Model,
            Kind::Refused => PerceptionErrorKind::Request,
            Kind::Overloaded => PerceptionErrorKind::Overloaded,
            Kind::NoProbabilities => PerceptionErrorKind::MissingAnswer,
            Kind::Timeout => PerceptionErrorKind::Timeout,
            Kind::Cancelled => PerceptionErrorKind::Cancelled,
            Kind::Unreachable
            | Kind::Untrusted
            | Kind::Unauthorised
            | Kind::Failed
            | Kind::Malformed
            | Kind::Mixed => PerceptionErrorKind::Backend,
        };
        Self::new(kind, error.to_string())
    }
}
