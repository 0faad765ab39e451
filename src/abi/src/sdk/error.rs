//! What goes wrong, as code and message.

use std::fmt;

/// The kind of an error: what the host does depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The plugin failed: a model, a file, memory.
    Failed,
    /// Its configuration cannot be used.
    Config,
    /// It cannot do what was asked: a size, a sampler.
    Request,
    /// The call was called off.
    Cancelled,
    /// It gave up because time ran out.
    Timeout,
    /// It does not do this.
    Unsupported,
    /// It panicked.
    Panic,
    /// It was called, or answered, against the rules of the boundary.
    Contract,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::Config,
        Self::Request,
        Self::Cancelled,
        Self::Timeout,
        Self::Unsupported,
        Self::Panic,
        Self::Contract,
    ];

    /// The number that crosses the boundary: `CG_FAILED` and so on in C.
    pub const fn number(self) -> i32 {
        match self {
            Self::Failed => 10,
            Self::Config => 11,
            Self::Request => 12,
            Self::Cancelled => 13,
            Self::Timeout => 14,
            Self::Unsupported => 15,
            Self::Panic => 16,
            Self::Contract => 17,
        }
    }

    /// The code of this number. A number that no version knows is a failure.
    pub fn of(number: i32) -> Self {
        Self::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Self::Failed)
    }

    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Config => "config",
            Self::Request => "request",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Panic => "panic",
            Self::Contract => "contract",
        }
    }
}

/// Why a plugin did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    code: ErrorCode,
    message: String,
}

impl PluginError {
    /// An error with a sentence that names what was expected, what came and what to do.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The plugin failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Failed, message)
    }

    /// Its configuration cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Config, message)
    }

    /// It cannot do what was asked.
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Request, message)
    }

    pub(crate) fn contract(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Contract, message)
    }

    /// The kind.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PluginError {}
