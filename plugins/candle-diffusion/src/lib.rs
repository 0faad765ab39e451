//! Text-to-image models in candle, with step hooks: Stable Diffusion 1.x, 2.x, XL and 3, their Turbo forms, and Flux.
//!
//! [`Pipeline::load`] reads a Hugging Face diffusers folder (`model_index.json` and a folder for each part), on disk or
//! compiled into the program; the index says which [`FamilyKind`] it is. [`Pipeline::generate`] draws one picture, from
//! text alone or from a [`Source`], and calls a [`StepHook`] at its start and at each step, with a preview where the hook
//! asks for one, so that a host can stop it at any step. What comes back is a picture, an abort, or an error: a generator that made NaN or a black
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
mod family;
mod fit;
pub mod flux;
mod hook;
mod index;
mod nn;
mod noise;
mod normal;
mod pipeline;
mod preview;
mod request;
mod run;
mod safety;
pub mod scheduler;
pub mod sd3;
mod source;
pub mod t5;
pub mod text_encoder;
pub mod tiny;
pub mod tokenizer;
pub mod unet;
pub mod vae;

pub use error::{DiffusionError, DiffusionErrorKind, GeneratorFailure, GeneratorFailureKind, Result};
pub use family::FamilyKind;
pub use fit::{FitReport, PreviewFit};
pub use hook::{Control, NoHook, Start, Step, StepHook};
pub use noise::{NoiseSource, SeededNoise};
pub use pipeline::Pipeline;
pub use preview::{LATENT_RGB, LatentRgb, PreviewKind, VAE_APPROX};
pub use request::{
    GenerateRequest, LOOK_AHEAD, MAX_GUIDANCE_SCALE, MAX_PROMPT_BYTES, MAX_SIDE, MAX_STEPS, Notice, Outcome,
    Timings,
};
pub use safety::SafeGuidance;
pub use scheduler::SchedulerKind;
pub use source::Source;
