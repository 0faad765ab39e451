//! What is asked of a pipeline, and what comes back.

use std::time::Duration;

use image::RgbImage;

use crate::error::{DiffusionError, Result};
use crate::preview::PreviewKind;
use crate::safety::SafeGuidance;
use crate::scheduler::SchedulerKind;
use crate::source::Source;

/// Most pixels of a side.
pub const MAX_SIDE: u32 = 2048;
/// Predictions that a preview takes beyond that of its step, unless a request says otherwise or has few steps.
pub const LOOK_AHEAD: usize = 3;

/// Most denoising steps.
pub const MAX_STEPS: usize = 1000;
/// Largest guidance scale.
pub const MAX_GUIDANCE_SCALE: f64 = 100.0;
/// Most bytes of a prompt: far over any text encoder's length, and a bound on the tokenizer's work.
pub const MAX_PROMPT_BYTES: usize = 16 * 1024;

/// One picture to draw. [`crate::Pipeline::default_request`] fills in the model's own size, steps, guidance and scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to draw. Tokens over the text encoder's length are cut, which the outcome says.
    pub prompt: String,
    /// What to stay away from; empty for nothing in particular. Without effect at a guidance scale of 1, and for models
    /// that predict only once a step (Flux).
    pub negative_prompt: String,
    /// Together with `index`, decides all random numbers.
    pub seed: u64,
    /// Which picture of the seed, from 0. Each can be drawn on its own.
    pub index: u32,
    /// Denoising steps, 1 to [`MAX_STEPS`].
    pub steps: usize,
    /// How far the prediction is pushed from the negative prompt towards the prompt (classifier-free guidance, Ho &
    /// Salimans 2022), 1 to [`MAX_GUIDANCE_SCALE`]; 1 switches it off, which halves the work. Flux dev takes it as a
    /// conditioning instead, Flux schnell not at all.
    pub guidance_scale: f64,
    /// What is to be kept out of the picture by guidance (Safe Latent Diffusion); `None` for nothing. Costs a third prediction in
    /// every step. Without effect where the negative prompt has none; and where the negative prompt names the same, for there is
    /// no way from a thing to itself.
    pub safety: Option<SafeGuidance>,
    /// Width in pixels, a multiple of the pipeline's factor.
    pub width: u32,
    /// Height in pixels, a multiple of the pipeline's factor.
    pub height: u32,
    /// Which scheduler; one of those that the model was trained for.
    pub scheduler: SchedulerKind,
    /// A picture to begin from, and the part of it to draw anew; `None` for text alone.
    pub source: Option<Source>,
    /// How previews are made.
    pub previews: PreviewKind,
    /// Predictions that a preview takes beyond that of its step, 0 to [`MAX_STEPS`]: in so many strides the generation is
    /// carried on from there to its end, and the last one is shown. Each costs as much as a step, and none is kept. If there
    /// is no number: [`LOOK_AHEAD`], and at most a fifth of the steps that are left.
    pub look_ahead: Option<usize>,
}

impl GenerateRequest {
    /// The same request for another picture of its seed.
    #[must_use]
    pub fn with_index(&self, index: u32) -> Self {
        Self { index, ..self.clone() }
    }

    /// How many predictions a preview takes beyond that of its step, with so many steps left after it.
    pub fn look_ahead(&self, left: usize) -> usize {
        self.look_ahead.map_or(LOOK_AHEAD.min(left / 5), |count| count.min(left))
    }

    /// Checks every field against its range and the sizes against the pipeline's `factor`. What depends on the model
    /// otherwise, [`crate::Pipeline::check`] checks.
    ///
    /// # Errors
    /// A request error that names the first bad field, its range and its value.
    pub fn check(&self, factor: usize) -> Result<()> {
        for (field, text) in [("prompt", &self.prompt), ("negative_prompt", &self.negative_prompt)] {
            if text.len() > MAX_PROMPT_BYTES {
                let detail = format!("expected at most {MAX_PROMPT_BYTES} bytes, found {}", text.len());
                return Err(DiffusionError::request(field, detail));
            }
        }
        if !(1..=MAX_STEPS).contains(&self.steps) {
            let detail = format!("expected 1 to {MAX_STEPS}, found {}", self.steps);
            return Err(DiffusionError::request("steps", detail));
        }
        if let Some(found) = self.look_ahead.filter(|count| *count > MAX_STEPS) {
            return Err(DiffusionError::request(
                "look_ahead",
                format!("expected 0 to {MAX_STEPS}, found {found}"),
            ));
        }
        if !(1.0..=MAX_GUIDANCE_SCALE).contains(&self.guidance_scale) {
            let detail =
                format!("expected 1 (no guidance) to {MAX_GUIDANCE_SCALE}, found {}", self.guidance_scale);
            return Err(DiffusionError::request("guidance_scale", detail));
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            let in_range = (factor as u64..=u64::from(MAX_SIDE)).contains(&u64::from(side));
            if !in_range || !(side as usize).is_multiple_of(factor) {
                let detail = format!(
                    "expected a multiple of {factor} (the model's factor) from {factor} to {MAX_SIDE}, found {side}"
                );
                return Err(DiffusionError::request(field, detail));
            }
        }
        self.safety.as_ref().map_or(Ok(()), SafeGuidance::check)?;
        self.source.as_ref().map_or(Ok(()), |source| source.check(self.steps))
    }
}

/// Something about a request that the caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A text had more tokens than the text encoder takes; the rest was not used.
    TextCut {
        /// `prompt` or `negative_prompt`.
        field: &'static str,
        /// Tokens of the text, with those that mark its beginning and end.
        tokens: usize,
        /// Tokens that the text encoder takes.
        limit: usize,
        /// The part that was cut off.
        lost: String,
    },
    /// There was a negative prompt, and it was not used: this model predicts once a step, or guidance was off.
    NegativePromptUnused,
    /// Something was to be kept out by guidance, and was not: for the same reasons.
    SafeGuidanceUnused,
}

/// How long the parts of a generation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Tokenizers and text encoders.
    pub text: Duration,
    /// A given picture's way into latents.
    pub encode: Duration,
    /// Denoiser and scheduler, all steps.
    pub denoise: Duration,
    /// Previews, without the hook's own time.
    pub previews: Duration,
    /// The hook's own time.
    pub hook: Duration,
    /// The finished picture's decoding.
    pub decode: Duration,
}

impl Timings {
    /// The whole generation without the hook.
    pub fn computing(&self) -> Duration {
        self.text + self.encode + self.denoise + self.previews + self.decode
    }
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps were carried out.
    Finished {
        /// The picture, not yet judged by anyone.
        picture: RgbImage,
        /// Seed of the request.
        seed: u64,
        /// Index of the request.
        index: u32,
        /// Steps carried out.
        steps: usize,
        /// How long it took.
        timings: Timings,
        /// What the caller should know.
        notices: Vec<Notice>,
    },
    /// The hook stopped it; nothing was decoded.
    Aborted {
        /// Steps that had been carried out: 0 if the hook stopped it at the start, else the stopping step's index
        /// plus 1.
        at_step: usize,
        /// How long it took.
        timings: Timings,
        /// What the caller should know.
        notices: Vec<Notice>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerateRequest {
        GenerateRequest {
            prompt: "a cat".to_owned(),
            negative_prompt: String::new(),
            seed: 1,
            index: 0,
            steps: 20,
            guidance_scale: 4.0,
            safety: None,
            width: 128,
            height: 96,
            scheduler: SchedulerKind::Ddim,
            source: None,
            previews: PreviewKind::Vae,
            look_ahead: None,
        }
    }

    #[test]
    fn a_preview_looks_ahead_by_no_more_than_a_fifth_of_what_is_left_unless_told_so() {
        let of = |look_ahead, left| GenerateRequest { look_ahead, ..request() }.look_ahead(left);
        assert_eq!([0, 4, 5, 18, 49].map(|left| of(None, left)), [0, 0, 1, LOOK_AHEAD, LOOK_AHEAD]);
        assert_eq!((of(Some(3), 3), of(Some(3), 2), of(Some(0), 49)), (3, 2, 0));
    }

    #[test]
    fn each_field_is_refused_by_name() {
        assert!(request().check(8).is_ok());
        let bad = [
            ("steps", GenerateRequest { steps: 0, ..request() }),
            ("steps", GenerateRequest { steps: 1001, ..request() }),
            ("guidance_scale", GenerateRequest { guidance_scale: f64::NAN, ..request() }),
            ("guidance_scale", GenerateRequest { guidance_scale: 0.5, ..request() }),
            ("look_ahead", GenerateRequest { look_ahead: Some(1001), ..request() }),
            ("width", GenerateRequest { width: 130, ..request() }),
            ("height", GenerateRequest { height: 0, ..request() }),
            ("height", GenerateRequest { height: 4096, ..request() }),
            ("prompt", GenerateRequest { prompt: "a".repeat(MAX_PROMPT_BYTES + 1), ..request() }),
            (
                "safety.scale",
                GenerateRequest {
                    safety: Some(SafeGuidance { scale: -1.0, ..SafeGuidance::medium("fog") }),
                    ..request()
                },
            ),
        ];
        for (field, request) in bad {
            let error = request.check(8).unwrap_err();
            assert_eq!(error.kind(), crate::DiffusionErrorKind::Request);
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
