//! Which noise levels a generation visits, and how a prediction of the UNet becomes the next latents.
//!
//! A [`Plan`] holds the numbers of every step; it is made once for a request and keeps no state. Latents stay in f32
//! whatever the UNet computes in. Both schedulers equal diffusers 0.42.1 (`schedulers/scheduling_ddim.py`,
//! `schedulers/scheduling_euler_ancestral_discrete.py`), which the golden tests check step by step.

mod schedule;

use candle_core::Tensor;

use crate::config::{NoiseConfig, PredictionType};
use crate::error::{DiffusionError, Result};

use schedule::{alphas_cumprod, timesteps};

/// The schedulers that a request may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Denoising diffusion implicit model with eta 0 (Song et al. 2020, formula 12): deterministic.
    Ddim,
    /// Euler steps with fresh noise after each (Karras et al. 2022; k-diffusion's `sample_euler_ancestral`).
    EulerAncestral,
}

impl SchedulerKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::EulerAncestral => "euler-ancestral",
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
    EulerAncestral {
        /// Standard deviation of the noise now.
        sigma: f64,
        /// To which the deterministic step goes.
        sigma_down: f64,
        /// Of the fresh noise.
        sigma_up: f64,
    },
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
    /// `steps_offset` reaches past the last training step.
    pub fn new(kind: SchedulerKind, config: &NoiseConfig, steps: usize) -> Result<Self> {
        if steps == 0 || steps > config.train_timesteps {
            return Err(DiffusionError::request(
                "steps",
                format!("expected 1 to {} (num_train_timesteps), found {steps}", config.train_timesteps),
            ));
        }
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
        Ok(match kind {
            SchedulerKind::Ddim => Self::ddim(config, &alphas, &visited),
            SchedulerKind::EulerAncestral => Self::euler_ancestral(config, &alphas, &visited),
        })
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

    fn euler_ancestral(config: &NoiseConfig, alphas: &[f64], visited: &[f64]) -> Self {
        let sigmas = schedule::sigmas(alphas, visited);
        let steps = visited
            .iter()
            .zip(sigmas.windows(2))
            .map(|(&timestep, pair)| {
                let (sigma, next) = (pair[0], pair[1]);
                let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).max(0.0).sqrt();
                let down = (next * next - up * up).max(0.0).sqrt();
                PlannedStep {
                    timestep,
                    numbers: Numbers::EulerAncestral { sigma, sigma_down: down, sigma_up: up },
                }
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
        matches!(self.steps[index].numbers, Numbers::EulerAncestral { sigma_up, .. } if sigma_up > 0.0)
    }

    /// The latents as the UNet wants to see them at step `index` (from 0).
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn model_input(&self, index: usize, latents: &Tensor) -> Result<Tensor> {
        match self.steps[index].numbers {
            Numbers::Ddim { .. } => Ok(latents.clone()),
            Numbers::EulerAncestral { sigma, .. } => Ok((latents / (sigma * sigma + 1.0).sqrt())?),
        }
    }

    /// Step `index` (from 0): from `latents`, the UNet's `prediction` and, where [`Self::takes_noise`], standard
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
            Numbers::EulerAncestral { sigma, sigma_down, sigma_up } => {
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
        }
    }
}
