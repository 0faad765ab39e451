//! The Stable Diffusion loop in candle, with step hooks.
//!
//! [`Pipeline::load`] reads a Hugging Face diffusers folder (`model_index.json`, `text_encoder`, `tokenizer`, `unet`,
//! `vae`, `scheduler`), on disk or compiled into the program. [`Pipeline::generate`] draws one picture and calls a
//! [`StepHook`] at its start, at each step, with a decoded preview where the hook asks for one, so that a host can
//! stop it at any step. What comes back is a picture, an abort, or an error: a generator that made NaN or a black
//! picture is a [`GeneratorFailure`], never a picture.
//!
//! ```no_run
//! use candle_core::{DType, Device};
//! use cluegate_candle_diffusion::{NoHook, Outcome, Pipeline};
//! use cluegate_models::FileTree;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pipeline = Pipeline::load(&FileTree::open("models/sd")?, &Device::Cpu, DType::F32)?;
//! let request = pipeline.default_request("a cat on a beach");
//! if let Outcome::Finished { picture, .. } = pipeline.generate(&request, &mut NoHook)? {
//!     picture.save("cat.png")?;
//! }
//! # Ok(())
//! # }
//! ```

pub mod config;
mod error;
mod hook;
mod nn;
mod noise;
mod pipeline;
mod request;
pub mod scheduler;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;

pub use error::{DiffusionError, DiffusionErrorKind, GeneratorFailure, GeneratorFailureKind, Result};
pub use hook::{Control, NoHook, Start, Step, StepHook};
pub use noise::{NoiseSource, SeededNoise};
pub use pipeline::Pipeline;
pub use request::{
    GenerateRequest, MAX_GUIDANCE_SCALE, MAX_PROMPT_BYTES, MAX_SIDE, MAX_STEPS, Notice, Outcome, Timings,
};
pub use scheduler::SchedulerKind;
