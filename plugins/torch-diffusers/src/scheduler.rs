//! The noise levels of a drawing: `DDIMScheduler` of diffusers-rs, told the schedule of `scheduler_config.json` (diffusers
//! 0.42.1, `schedulers/scheduling_ddim.py`).

use diffusers::schedulers::ddim::{DDIMScheduler, DDIMSchedulerConfig};
use diffusers::schedulers::{BetaSchedule, PredictionType};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::error::{Result, TorchError};
use crate::files::{Files, Options};

const CONFIG: &str = "scheduler/scheduler_config.json";

/// Options of other schedulers, and those that are only read together with a refused one: the folder's scheduler is often
/// not DDIM (Stable Diffusion 1.x ships PNDM), and then its schedule is taken over, as diffusers does in `from_config`.
const IGNORED: &[&str] = &[
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "skip_prk_steps",
    "solver_order",
    "solver_type",
    "algorithm_type",
    "lower_order_final",
    "interpolation_type",
    "use_karras_sigmas",
    "variance_type",
];

/// The schedule of a model.
#[derive(Debug, Clone)]
pub(crate) struct Schedule(DDIMSchedulerConfig);

impl Schedule {
    /// Reads the folder `scheduler`.
    pub(crate) fn read(files: &mut Files) -> Result<Self> {
        let mut options = Options::read(files, CONFIG)?;
        let beta_schedule = match &*options.word("beta_schedule", "linear")? {
            "linear" => BetaSchedule::Linear,
            "scaled_linear" => BetaSchedule::ScaledLinear,
            found => {
                let expected = "linear or scaled_linear";
                return Err(TorchError::unsupported(&options.path, "`beta_schedule`", found, expected));
            }
        };
        let prediction_type = match &*options.word("prediction_type", "epsilon")? {
            "epsilon" => PredictionType::Epsilon,
            "v_prediction" => PredictionType::VPrediction,
            found => {
                let expected = "epsilon or v_prediction";
                return Err(TorchError::unsupported(&options.path, "`prediction_type`", found, expected));
            }
        };
        // Both are on in DDIM unless the file says otherwise, and diffusers-rs has neither.
        for key in ["clip_sample", "set_alpha_to_one"] {
            if options.flag(key, true)? {
                return Err(TorchError::unsupported(&options.path, format!("`{key}`"), "true", "false"));
            }
        }
        options.only("timestep_spacing", &json!("leading"))?;
        let (start, end) = (options.number("beta_start", 1e-4)?, options.number("beta_end", 0.02)?);
        let offset = options.number("steps_offset", 0.0)?;
        let between = |beta: f64| beta > 0.0 && beta < 1.0;
        if !between(start) || !between(end) || ![0.0, 1.0].contains(&offset) {
            let problem = format!(
                "`beta_start` {start}, `beta_end` {end} and `steps_offset` {offset}: expected betas between 0 and 1, and an \
                 offset of 0 or 1"
            );
            return Err(TorchError::malformed(&options.path, problem));
        }
        let train_timesteps = options.count("num_train_timesteps", 1000)? as usize;
        options.finish(IGNORED)?;
        Ok(Self(DDIMSchedulerConfig {
            beta_start: start,
            beta_end: end,
            beta_schedule,
            eta: 0.0,
            steps_offset: offset as usize,
            prediction_type,
            train_timesteps,
        }))
    }

    /// Most steps of a drawing: with more, the first would lie past the training's last.
    pub(crate) fn most_steps(&self) -> u32 {
        (self.0.train_timesteps - self.0.steps_offset).min(u32::MAX as usize) as u32
    }

    /// Plans `steps` steps, at most [`Self::most_steps`].
    pub(crate) fn plan(&self, steps: u32) -> Plan {
        Plan(DDIMScheduler::new(steps as usize, self.0))
    }
}

/// All steps of one drawing.
pub(crate) struct Plan(DDIMScheduler);

impl Plan {
    /// The timestep of every step.
    pub(crate) fn timesteps(&self) -> &[usize] {
        self.0.timesteps()
    }

    /// The latents after the step at `timestep`.
    pub(crate) fn step(&self, latents: &Tensor, prediction: &Tensor, timestep: usize) -> Tensor {
        self.0.step(prediction, timestep, latents)
    }

    /// What `prediction` takes the finished latents to be (Song et al. 2020, formula 9; for velocities Salimans & Ho 2022).
    pub(crate) fn origin(&self, latents: &Tensor, prediction: &Tensor, timestep: usize) -> Tensor {
        // The scheduler keeps its levels to itself; of a picture of 1 and noise of 0, and the reverse, they are what is left.
        let level = |picture: f64, noise: f64| {
            let scalar = |value: f64| Tensor::full([1], value, (Kind::Double, Device::Cpu));
            self.0.add_noise(&scalar(picture), scalar(noise), timestep).double_value(&[0])
        };
        let (signal, noise) = (level(1.0, 0.0), level(0.0, 1.0));
        match self.0.config.prediction_type {
            PredictionType::VPrediction => latents * signal - prediction * noise,
            _ => (latents - prediction * noise) / signal,
        }
    }
}
