//! Which noise levels a generation visits, and how a prediction of the denoiser becomes the next latents.
//!
//! A [`Plan`] holds the numbers of every step; it is made once for a request and keeps no state. Latents stay in f32
//! whatever the denoiser computes in. The schedulers equal diffusers 0.42.1 (`schedulers/scheduling_ddim.py`,
//! `scheduling_euler_discrete.py`, `scheduling_euler_ancestral_discrete.py`,
//! `scheduling_flow_match_euler_discrete.py`), which the golden tests check step by step.

mod schedule;

use candle_core::Tensor;

use crate::config::{FlowConfig, NoiseConfig, PredictionType};
use crate::error::{DiffusionError, Result};

use schedule::{alphas_cumprod, timesteps};

/// The schedulers that a request may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Denoising diffusion implicit model with eta 0 (Song et al. 2020, formula 12): deterministic.
    Ddim,
    /// Euler steps without fresh noise (Karras et al. 2022, algorithm 2 without its second evaluation).
    Euler,
    /// Euler steps with fresh noise after each (Karras et al. 2022; k-diffusion's `sample_euler_ancestral`).
    EulerAncestral,
    /// Euler steps along the flow from noise to picture (Liu et al. 2022; Esser et al. 2024): for the models that were
    /// trained so, and for no other.
    FlowMatchEuler,
}

impl SchedulerKind {
    /// The scheduler that image servers and their clients call `name`, if it is implemented.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
            "ddim" => Some(Self::Ddim),
            "euler" | "k_euler" => Some(Self::Euler),
            "euler_a" | "k_euler_a" | "euler_ancestral" => Some(Self::EulerAncestral),
            _ => None,
        }
    }

    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::FlowMatchEuler => "flow-match-euler",
        }
    }
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy)]
enum Numbers {
    Ddim {
        /// Share of the picture in the latents now, `alpha_t`.
        alpha: f64,
        /// The same after the step.
        alpha_next: f64,
    },
    Euler {
        /// Standard deviation of the noise now.
        sigma: f64,
        /// To which the deterministic step goes.
        sigma_down: f64,
        /// Of the fresh noise; 0 without.
        sigma_up: f64,
    },
    Flow {
        /// Share of the noise now.
        sigma: f64,
        /// The same after the step.
        sigma_next: f64,
    },
}

impl Numbers {
    /// What the latents are made of before the step: so much of the picture's, and so much standard normal noise, which is
    /// never none.
    fn shares(self) -> (f64, f64) {
        match self {
            Self::Ddim { alpha, .. } => (alpha.sqrt(), (1.0 - alpha).sqrt()),
            Self::Euler { sigma, .. } => (1.0, sigma),
            Self::Flow { sigma, .. } => (1.0 - sigma, sigma),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct PlannedStep {
    timestep: f64,
    numbers: Numbers,
}

/// What a step gives.
#[derive(Debug, Clone)]
pub struct StepResult {
    /// The latents after the step.
    pub latents: Tensor,
    /// What the prediction takes the finished latents to be, clipped if the schedule clips.
    pub origin: Tensor,
}

/// All steps of one generation.
#[derive(Debug, Clone)]
pub struct Plan {
    steps: Vec<PlannedStep>,
    initial_scale: f64,
    prediction: PredictionType,
    clip: Option<f64>,
}

impl Plan {
    /// Plans `steps` steps.
    ///
    /// # Errors
    /// A request error if `steps` is 0, over the number of training steps, or so large that leading spacing with
    /// `steps_offset` reaches past the last training step, or if `kind` is for flows.
    pub fn new(kind: SchedulerKind, config: &NoiseConfig, steps: usize) -> Result<Self> {
        check_steps(steps, config.train_timesteps)?;
        let alphas = alphas_cumprod(config);
        let visited = timesteps(kind, config, steps);
        let last = (config.train_timesteps - 1) as f64;
        if let Some(first) = visited.iter().find(|t| **t > last) {
            return Err(DiffusionError::request(
                "steps",
                format!(
                    "{steps} steps with steps_offset {} start at timestep {first}, past the last one of the \
                     training, {last}; ask for fewer steps",
                    config.steps_offset
                ),
            ));
        }
        match kind {
            SchedulerKind::Ddim => Ok(Self::ddim(config, &alphas, &visited)),
            SchedulerKind::Euler => Ok(Self::euler(config, &alphas, &visited, false)),
            SchedulerKind::EulerAncestral => Ok(Self::euler(config, &alphas, &visited, true)),
            SchedulerKind::FlowMatchEuler => Err(DiffusionError::request(
                "scheduler",
                "flow-match-euler is for models that were trained by flow matching, which this one was not",
            )),
        }
    }

    /// Plans `steps` steps along a flow for a picture of `tokens` tokens; `even` is how Flux spaces them, not Stable
    /// Diffusion 3.
    ///
    /// # Errors
    /// A request error if `steps` is 0 or over the number of training steps.
    pub fn flow(config: &FlowConfig, steps: usize, tokens: usize, even: bool) -> Result<Self> {
        check_steps(steps, config.train_timesteps)?;
        let sigmas = schedule::flow_sigmas(config, steps, tokens, even);
        let train = config.train_timesteps as f64;
        let steps = sigmas
            .windows(2)
            .map(|pair| PlannedStep {
                timestep: f64::from((pair[0] * train) as f32),
                numbers: Numbers::Flow { sigma: pair[0], sigma_next: pair[1] },
            })
            .collect();
        // The prediction is a velocity of its own kind, which only flow steps read.
        Ok(Self { steps, initial_scale: 1.0, prediction: PredictionType::Velocity, clip: None })
    }

    /// The same plan without its first `count` steps, of which at least one is left.
    #[must_use]
    pub fn without_first(mut self, count: usize) -> Self {
        self.steps.drain(..count.min(self.steps.len().saturating_sub(1)));
        self
    }

    fn ddim(config: &NoiseConfig, alphas: &[f64], visited: &[f64]) -> Self {
        let stride = config.train_timesteps / visited.len();
        let last = if config.set_alpha_to_one { 1.0 } else { alphas[0] };
        let steps = visited
            .iter()
            .map(|&timestep| {
                let now = timestep as usize;
                let alpha_next = now.checked_sub(stride).map_or(last, |next| alphas[next]);
                PlannedStep { timestep, numbers: Numbers::Ddim { alpha: alphas[now], alpha_next } }
            })
            .collect();
        Self { steps, initial_scale: 1.0, prediction: config.prediction_type, clip: config.clip }
    }

    fn euler(config: &NoiseConfig, alphas: &[f64], visited: &[f64], ancestral: bool) -> Self {
        let sigmas = schedule::sigmas(alphas, visited);
        let steps = visited
            .iter()
            .zip(sigmas.windows(2))
            .map(|(&timestep, pair)| {
                let (sigma, next) = (pair[0], pair[1]);
                let variance = next * next * (sigma * sigma - next * next) / (sigma * sigma);
                let sigma_up = if ancestral { variance.max(0.0).sqrt() } else { 0.0 };
                let sigma_down =
                    if ancestral { (next * next - sigma_up * sigma_up).max(0.0).sqrt() } else { next };
                PlannedStep { timestep, numbers: Numbers::Euler { sigma, sigma_down, sigma_up } }
            })
            .collect();
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let initial_scale = match config.timestep_spacing {
            crate::config::TimestepSpacing::Leading => (largest * largest + 1.0).sqrt(),
            _ => largest,
        };
        Self { steps, initial_scale, prediction: config.prediction_type, clip: None }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step; never so for a plan made by [`Self::new`].
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The timestep of step `index` (from 0), between 0 and the training's last; whole for DDIM.
    pub fn timestep(&self, index: usize) -> f64 {
        self.steps[index].timestep
    }

    /// Standard normal noise times this is where a generation starts.
    pub fn initial_scale(&self) -> f64 {
        self.initial_scale
    }

    /// Whether step `index` (from 0) takes noise.
    pub fn takes_noise(&self, index: usize) -> bool {
        matches!(self.steps[index].numbers, Numbers::Euler { sigma_up, .. } if sigma_up > 0.0)
    }

    /// A picture's latents with as much standard normal `noise` as step `index` (from 0) begins with, for a generation
    /// that begins there; past the last step the latents themselves.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that differ.
    pub fn add_noise(&self, index: usize, latents: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let Some(step) = self.steps.get(index) else { return Ok(latents.clone()) };
        let (signal, noisy) = step.numbers.shares();
        Ok(((latents * signal)? + (noise * noisy)?)?)
    }

    /// The noise in `latents` as step `index` (from 0) finds them, if they are to become `origin`: what [`Self::add_noise`]
    /// would have added to it.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that differ.
    pub fn noise(&self, index: usize, latents: &Tensor, origin: &Tensor) -> Result<Tensor> {
        let (signal, noisy) = self.steps[index].numbers.shares();
        Ok(((latents - (origin * signal)?)? / noisy)?)
    }

    /// The latents as the denoiser wants to see them at step `index` (from 0).
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn model_input(&self, index: usize, latents: &Tensor) -> Result<Tensor> {
        match self.steps[index].numbers {
            Numbers::Ddim { .. } | Numbers::Flow { .. } => Ok(latents.clone()),
            Numbers::Euler { sigma, .. } => Ok((latents / (sigma * sigma + 1.0).sqrt())?),
        }
    }

    /// Step `index` (from 0): from `latents`, the denoiser's `prediction` and, where [`Self::takes_noise`], standard
    /// normal `noise`, all f32 of one shape.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that differ.
    pub fn step(
        &self,
        index: usize,
        latents: &Tensor,
        prediction: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<StepResult> {
        match self.steps[index].numbers {
            Numbers::Ddim { alpha, alpha_next } => {
                let (signal, noisy) = (alpha.sqrt(), (1.0 - alpha).sqrt());
                let (origin, epsilon) = match self.prediction {
                    PredictionType::Epsilon => {
                        (((latents - (prediction * noisy)?)? / signal)?, prediction.clone())
                    }
                    PredictionType::Velocity => (
                        ((latents * signal)? - (prediction * noisy)?)?,
                        ((prediction * signal)? + (latents * noisy)?)?,
                    ),
                };
                let origin = match self.clip {
                    Some(limit) => origin.clamp(-limit, limit)?,
                    None => origin,
                };
                let next = ((&origin * alpha_next.sqrt())? + (epsilon * (1.0 - alpha_next).sqrt())?)?;
                Ok(StepResult { latents: next, origin })
            }
            Numbers::Euler { sigma, sigma_down, sigma_up } => {
                let origin = match self.prediction {
                    PredictionType::Epsilon => (latents - (prediction * sigma)?)?,
                    PredictionType::Velocity => {
                        let scale = sigma * sigma + 1.0;
                        ((latents / scale)? - (prediction * (sigma / scale.sqrt()))?)?
                    }
                };
                let slope = ((latents - &origin)? / sigma)?;
                let mut next = (latents + (slope * (sigma_down - sigma))?)?;
                if let Some(noise) = noise {
                    next = (next + (noise * sigma_up)?)?;
                }
                Ok(StepResult { latents: next, origin })
            }
            Numbers::Flow { sigma, sigma_next } => Ok(StepResult {
                latents: (latents + (prediction * (sigma_next - sigma))?)?,
                origin: (latents - (prediction * sigma)?)?,
            }),
        }
    }
}

fn check_steps(steps: usize, trained: usize) -> Result<()> {
    if (1..=trained).contains(&steps) {
        return Ok(());
    }
    let detail = format!("expected 1 to {trained} (num_train_timesteps), found {steps}");
    Err(DiffusionError::request("steps", detail))
}
