//! How a host watches and stops a generation.

use image::RgbImage;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// Stop at once: nothing more is computed or decoded.
    Abort,
}

/// What is about to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Number of steps.
    pub total: usize,
    /// Seed of the request.
    pub seed: u64,
    /// Which picture of the seed.
    pub index: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// A step that has been carried out.
#[derive(Debug, Clone)]
pub struct Step {
    /// From 0 to `total - 1`.
    pub index: usize,
    /// Number of steps.
    pub total: usize,
    /// The training timestep at which the denoiser was asked; falls from step to step.
    pub timestep: f64,
    /// If it was asked for: what the denoiser takes the finished picture to be, told at this step or from a look ahead, made
    /// as the request's `previews` says, in the size of the picture.
    pub preview: Option<RgbImage>,
}

/// A host's view into a generation. Every method has a default that lets the generation pass.
pub trait StepHook {
    /// Before anything is denoised.
    fn start(&mut self, start: &Start) -> Control {
        let _ = start;
        Control::Continue
    }

    /// Whether step `index` (from 0) of `total` shall come with a preview. Asked before the step; a preview by the
    /// VAE costs a run of its decoder.
    fn wants_preview(&mut self, index: usize, total: usize) -> bool {
        let _ = (index, total);
        false
    }

    /// Whether the preview of step `index` (from 0) of `total`, which is wanted, shall look ahead as the request's `look_ahead`
    /// says, because much depends on what it shows. Else it shows what the step itself foretells.
    fn looks_ahead(&mut self, index: usize, total: usize) -> bool {
        let _ = (index, total);
        true
    }

    /// After each step.
    fn on_step(&mut self, step: Step) -> Control {
        let _ = step;
        Control::Continue
    }
}

/// The hook that lets everything pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl StepHook for NoHook {}
