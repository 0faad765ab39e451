//! cluegate: a gatekeeper for text-to-image generation.
//!
//! The crates of the workspace, wired together here and nowhere else:
//!
//! ```text
//! perception <- constitution <- judge <- gate          models, workers -> perception
//!                     ^- compiler
//!                                 ^       ^             candle_diffusion -> models
//!                                 +-- this crate --+--> models, workers, candle_diffusion, mini, hub
//! ```
//!
//! - [`Engine`] opens a set of models (the embedded suite, or a models file) and makes a judge of them;
//! - [`TextModel`] opens the set's text model, for [`compiler`];
//! - [`CandleGenerator`] lets the gate drive the built-in Stable Diffusion loop;
//! - everything else is re-exported from the crate that owns it.

pub mod engine;
pub mod generator;
pub mod text_model;

pub use cluegate_cache as cache;
pub use cluegate_candle_diffusion as diffusion;
pub use cluegate_compiler as compiler;
pub use cluegate_constitution as constitution;
pub use cluegate_eval as eval;
pub use cluegate_gate as gate;
pub use cluegate_hub as hub;
pub use cluegate_judge as judge;
pub use cluegate_mini as mini;
pub use cluegate_models as models;
pub use cluegate_onnx_classifier as onnx;
pub use cluegate_perception as perception;
pub use cluegate_remote as remote;
pub use cluegate_student as student;
pub use cluegate_workers as workers;

pub use engine::{Engine, EngineError, EngineOptions, EngineStatistics, open_generator};
pub use generator::CandleGenerator;
pub use text_model::TextModel;
