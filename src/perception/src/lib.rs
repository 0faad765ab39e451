//! Traits and vocabulary of the models that look at pictures.
//!
//! The judge speaks to its models only through the traits of this crate, so that the same plain code runs over
//! local weights, a remote inference engine and the fakes of the tests. Two decisions shape every method:
//!
//! - **Synchronous.** Waiting belongs to the implementation. The local engine computes, the remote one fans its
//!   requests out concurrently and joins them; neither forces an async runtime on the judge.
//! - **Batch first.** Every method takes a slice and answers in the same order and number. An implementation may
//!   serve the items one by one, all at once, or together with those of other callers: the answers are the same.
//!
//! There is no tensor library and no weight format here: see `cluegate-models` for implementations in candle.

mod call;
mod classifier;
mod containers;
mod decode;
mod detector;
mod encode;
mod error;
mod language;
mod picture;
mod plain;
mod relevance;
mod text;

pub use call::Call;
pub use classifier::{ClassLabel, Classification, PictureClassifier};
pub use decode::{DecodeError, DecodeOptions, decode};
pub use detector::{Detection, DetectionRequest, Region, RegionDetector};
pub use encode::{FileFormat, encode, encode_png};
pub use error::{PerceptionError, PerceptionErrorKind, Result};
pub use language::{
    AnswerId, AnswerScore, Completion, CompletionRequest, Decoding, FinishReason, LocalLanguageModel, Prefix,
    Prompt, Reply, VisionLanguageModel,
};
pub use picture::{ContentHash, Picture};
pub use relevance::{Embedding, RelevanceEncoder, TextLength};
pub use text::{jpeg_with_comment, png_with_text};

/// Identity of a model for caches and logs: a hash over its weights, configuration and tokenizer, as lower-case
/// hexadecimal. Two models with the same fingerprint give the same answers.
pub type Fingerprint = String;
