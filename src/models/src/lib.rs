//! Candle implementations of the perception traits.
//!
//! Every model is built from a folder in Hugging Face layout (`config.json`, `tokenizer.json`,
//! `preprocessor_config.json`, safetensors, sharded or not). The folder may lie on disk or be compiled into the
//! program: [`files::FileTree`] is both, so that no loader knows the difference.

pub mod chat;
pub mod clip;
mod cores;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod domain;
pub mod error;
pub mod files;
pub mod heads;
mod idefics3;
pub mod internvl;
mod jinja;
pub mod language;
mod layers;
mod llava;
pub mod owlv2;
pub mod pixels;
mod qwen2_5_vl;
pub mod qwen2_vl;
mod qwen3_vl;
mod qwen_vl;
pub mod relevance;
mod rope;
mod seen;
pub mod siglip;
pub mod suite;
mod text;
mod tokenizer_files;
pub mod weights;

pub use cores::Cores;
pub use domain::{Domain, OutOfDomain};
pub use error::{ModelError, ModelErrorKind};
pub use files::{FileBytes, FileTree, fingerprint};
pub use language::LanguageModel;
pub use layers::{Quantisation, on_all_cores};
pub use relevance::RelevanceModel;
pub use suite::{
    FindCheckpoint, LoadOptions, MODELS_FILE, Suite, load_detector, load_judge, load_relevance, load_text,
};
pub use weights::Weights;
