//! What can go wrong while a pipeline is loaded or a picture is drawn.

use std::fmt;

use cluegate_models::ModelError;
use thiserror::Error;

/// Result of loading a pipeline or drawing a picture.
pub type Result<T> = std::result::Result<T, DiffusionError>;

/// The kind of a [`DiffusionError`], stable for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiffusionErrorKind {
    /// A file of the model is missing, malformed or unsupported, or a tensor operation failed.
    Model,
    /// The request is out of range.
    Request,
    /// The generator ran and made nothing that could be called a picture.
    Generator,
}

impl DiffusionErrorKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Request => "request",
            Self::Generator => "generator-failure",
        }
    }
}

/// A failed load or generation. Every message names what was expected and what came.
#[derive(Debug, Error)]
pub enum DiffusionError {
    /// See [`DiffusionErrorKind::Model`].
    #[error(transparent)]
    Model(#[from] ModelError),
    /// See [`DiffusionErrorKind::Request`].
    #[error("{field}: {detail}")]
    Request {
        /// Which field of the request.
        field: &'static str,
        /// What it may be and what it was.
        detail: String,
    },
    /// See [`DiffusionErrorKind::Generator`].
    #[error(transparent)]
    Generator(#[from] GeneratorFailure),
}

impl DiffusionError {
    /// The kind, for decisions and counters.
    pub fn kind(&self) -> DiffusionErrorKind {
        match self {
            Self::Model(_) => DiffusionErrorKind::Model,
            Self::Request { .. } => DiffusionErrorKind::Request,
            Self::Generator(_) => DiffusionErrorKind::Generator,
        }
    }

    pub(crate) fn request(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Request { field, detail: detail.into() }
    }
}

impl From<candle_core::Error> for DiffusionError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

/// How a generation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GeneratorFailureKind {
    /// The latents hold NaN or infinity.
    LatentsNotFinite,
    /// The decoded pixels, of the picture or of a preview, hold NaN or infinity.
    PixelsNotFinite,
    /// Every pixel of the picture is black.
    AllBlack,
}

impl GeneratorFailureKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LatentsNotFinite => "latents-not-finite",
            Self::PixelsNotFinite => "pixels-not-finite",
            Self::AllBlack => "all-black",
        }
    }
}

/// The generator made no picture. This is a defect of the model or its data type and says nothing about what the
/// picture would have shown: it is neither a violation nor a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub struct GeneratorFailure {
    /// What came out.
    pub kind: GeneratorFailureKind,
    /// The step (from 0) after which it was seen; `None` for the finished picture.
    pub step: Option<usize>,
}

impl fmt::Display for GeneratorFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            GeneratorFailureKind::LatentsNotFinite => "latents that are NaN or infinite",
            GeneratorFailureKind::PixelsNotFinite => "pixels that are NaN or infinite",
            GeneratorFailureKind::AllBlack => "a picture that is black throughout",
        };
        write!(f, "generator failure: {what}")?;
        match self.step {
            Some(step) => write!(f, " after step {step}")?,
            None => write!(f, " at the end")?,
        }
        f.write_str("; check the weights and their data type, or lower guidance_scale")
    }
}
