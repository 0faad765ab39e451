//! With which model the commands draw, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cluegate::{CandleGenerator, Engine, open_generator};
use cluegate_candle_diffusion::{PreviewKind, SchedulerKind};
use cluegate_gate::DrawOptions;

/// With which model pictures are drawn, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrawingArgs {
    /// Draw with the model in this diffusers folder (Stable Diffusion 1.x to 3.5, XL, Turbo, Flux) in place of the set's own.
    #[arg(long, value_name = "DIR")]
    pub(crate) generator: Option<PathBuf>,
    /// Width and height in pixels, such as 512x512; default: those of the picture to begin from, else the model's.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub(crate) size: Option<(u32, u32)>,
    /// Denoising steps; default: the model's, 20 for the embedded one.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) steps: Option<u32>,
    /// Strength of the prompt (classifier-free guidance); default: the model's, 5 for the embedded one.
    #[arg(long)]
    pub(crate) guidance: Option<f64>,
    /// Sampler; default: the model's, ddim for the embedded one.
    #[arg(long, value_enum)]
    pub(crate) sampler: Option<Sampler>,
    /// How previews are made for the policies that look at them; default: tiny if the model has a small decoder, else vae.
    #[arg(long, value_enum)]
    pub(crate) previews: Option<Previews>,
    /// Predictions that a preview takes beyond that of its step, each as costly as a step; default: 3, at most a fifth of the
    /// steps that are left.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) look_ahead: Option<u32>,
}

/// Width and height in pixels.
pub(in crate::cli) fn size(text: &str) -> Result<(u32, u32), String> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|side| (8..=8192).contains(side));
    let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
    sides.ok_or_else(|| "expected width and height, 8 to 8192 pixels each, such as 512x512".to_owned())
}

/// How previews are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Previews {
    /// By the VAE's decoder, as sharp as the picture.
    Vae,
    /// By the model's small decoder (folder `vae_approx`, such as TAESD): nearly as sharp, and cheap.
    Tiny,
    /// By a linear map of the latents: coarse, and nearly free.
    Linear,
}

/// Samplers of the candle loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sampler {
    /// Deterministic after the first noise.
    Ddim,
    /// Deterministic, by Euler's method.
    Euler,
    /// Adds noise at every step.
    EulerA,
}

/// The generator that the arguments name, or that of the set.
pub(super) fn generator(arguments: &DrawingArgs, engine: &Engine) -> anyhow::Result<CandleGenerator> {
    let generator = match &arguments.generator {
        Some(folder) => open_generator(folder)?,
        None => engine.generator()?,
    };
    let generator = match arguments.previews {
        None => generator,
        Some(Previews::Vae) => generator.with_previews(PreviewKind::Vae),
        Some(Previews::Tiny) => generator.with_previews(PreviewKind::Tiny),
        Some(Previews::Linear) => generator.with_previews(PreviewKind::Linear),
    };
    let generator = match arguments.look_ahead {
        None => generator,
        Some(predictions) => generator.with_look_ahead(predictions as usize),
    };
    Ok(match arguments.sampler {
        None => generator,
        Some(Sampler::Ddim) => generator.with_scheduler(SchedulerKind::Ddim),
        Some(Sampler::Euler) => generator.with_scheduler(SchedulerKind::Euler),
        Some(Sampler::EulerA) => generator.with_scheduler(SchedulerKind::EulerAncestral),
    })
}

/// How to draw from text alone.
pub(super) fn plain_options(arguments: &DrawingArgs) -> DrawOptions {
    DrawOptions {
        steps: arguments.steps,
        width: arguments.size.map(|(width, _)| width),
        height: arguments.size.map(|(_, height)| height),
        guidance: arguments.guidance,
        ..DrawOptions::default()
    }
}
