//! `scheduler/scheduler_config.json`, of whatever scheduler the folder names.
//!
//! The folder's scheduler is usually not the one that is asked for (Stable Diffusion 1.x ships PNDM). As diffusers
//! does in `from_config`, the shared options are taken over, and each scheduler has its own defaults for those that
//! are absent.

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, check_options, ensure};
use crate::scheduler::SchedulerKind;

const FIXED: &[(&str, &[&str])] =
    &[("use_flow_sigmas", &["null", "false"]), ("use_dynamic_shifting", &["null", "false"])];

/// Options of other schedulers, and those that are only read together with a refused one.
const IGNORED: &[&str] = &[
    "algorithm_type",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "predict_x0",
    "sample_max_value",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "time_shift_type",
    "timestep_type",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// What Euler steps read beside: with another value they would visit other noise levels.
const EULER: &[(&str, &[&str])] = &[
    ("final_sigmas_type", &["\"zero\""]),
    ("interpolation_type", &["\"linear\""]),
    ("sigma_max", &["null"]),
    ("sigma_min", &["null"]),
    ("timestep_type", &["\"discrete\""]),
    ("use_beta_sigmas", &["false", "null"]),
    ("use_exponential_sigmas", &["false", "null"]),
    ("use_karras_sigmas", &["false", "null"]),
];

/// The file as it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RawScheduler {
    num_train_timesteps: Option<usize>,
    beta_start: Option<f64>,
    beta_end: Option<f64>,
    beta_schedule: Option<String>,
    trained_betas: Option<Vec<f64>>,
    clip_sample: Option<bool>,
    clip_sample_range: Option<f64>,
    set_alpha_to_one: Option<bool>,
    steps_offset: Option<usize>,
    prediction_type: Option<String>,
    timestep_spacing: Option<String>,
    #[serde(flatten)]
    other: OtherOptions,
}

/// How the noise grows over the training steps.
#[derive(Debug, Clone, PartialEq)]
pub enum BetaSchedule {
    /// Betas evenly spaced.
    Linear,
    /// Square roots of the betas evenly spaced, as Stable Diffusion.
    ScaledLinear,
    /// From a squared cosine of the signal's share.
    SquaredCosine,
    /// The betas themselves.
    Given(Vec<f64>),
}

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// The velocity `sqrt(a) noise - sqrt(1 - a) picture` (Salimans & Ho 2022).
    Velocity,
}

/// Which of the training's timesteps are visited (Lin et al. 2023, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// From the beginning of each interval, plus `steps_offset`.
    Leading,
    /// From the end of each interval.
    Trailing,
    /// From first to last, evenly.
    Linspace,
}

/// A checked noise schedule for one kind of scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseConfig {
    /// Timesteps of the training, at least 2.
    pub train_timesteps: usize,
    /// First beta.
    pub beta_start: f64,
    /// Last beta.
    pub beta_end: f64,
    /// See [`BetaSchedule`].
    pub beta_schedule: BetaSchedule,
    /// DDIM: limit of the predicted picture's absolute values, if it is clipped at all.
    pub clip: Option<f64>,
    /// DDIM: whether the last step goes all the way to the picture, not to the first beta.
    pub set_alpha_to_one: bool,
    /// Added to every timestep of leading spacing.
    pub steps_offset: usize,
    /// See [`PredictionType`].
    pub prediction_type: PredictionType,
    /// See [`TimestepSpacing`].
    pub timestep_spacing: TimestepSpacing,
}

impl NoiseConfig {
    /// Reads and checks `scheduler_config.json` of the scheduler's folder, for one kind of scheduler.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree, kind: SchedulerKind) -> Result<Self> {
        RawScheduler::load(tree)?.build(kind, &tree.path_of("scheduler_config.json"))
    }
}

impl RawScheduler {
    /// Reads `scheduler_config.json`.
    pub(crate) fn load(tree: &FileTree) -> Result<Self> {
        tree.read_json("scheduler_config.json")
    }

    /// The class that the file is of; empty if it does not say.
    pub(crate) fn class(&self) -> &str {
        self.other.get("_class_name").and_then(|name| name.as_str()).unwrap_or_default()
    }

    /// Whether the file belongs to a model that was trained by flow matching.
    pub(crate) fn is_flow(&self) -> bool {
        self.class().contains("FlowMatch")
    }

    /// The kind that the folder ships if it is implemented, else DDIM, which every schedule with betas allows.
    pub(crate) fn default_kind(&self) -> SchedulerKind {
        match self.class() {
            "EulerDiscreteScheduler" => SchedulerKind::Euler,
            "EulerAncestralDiscreteScheduler" => SchedulerKind::EulerAncestral,
            _ if self.is_flow() => SchedulerKind::FlowMatchEuler,
            _ => SchedulerKind::Ddim,
        }
    }

    /// Whether the folder is that of a model which was distilled to a few steps without guidance (SD-Turbo, SDXL-Turbo,
    /// Lightning): such models ship Euler steps at trailing timesteps, and their parents do not.
    pub(crate) fn is_few_step(&self) -> bool {
        let euler = matches!(self.default_kind(), SchedulerKind::Euler | SchedulerKind::EulerAncestral);
        let of_noise = self.prediction_type.as_deref().is_none_or(|kind| kind == "epsilon");
        euler && of_noise && self.timestep_spacing.as_deref() == Some("trailing")
    }

    /// Checks it for one kind of scheduler, with that scheduler's defaults.
    pub(crate) fn build(&self, kind: SchedulerKind, path: &str) -> Result<NoiseConfig> {
        check_options(path, &self.other, FIXED, IGNORED)?;
        if self.is_flow() {
            let found = "FlowMatchEulerDiscreteScheduler";
            return Err(ModelError::unsupported(path, "`_class_name`", found, "schedulers with betas"));
        }
        if kind == SchedulerKind::Euler {
            let read = |key: &String| EULER.iter().any(|(name, _)| name == key);
            let other = self.other.iter().filter(|(key, _)| read(key)).map(|(k, v)| (k.clone(), v.clone()));
            check_options(path, &other.collect(), EULER, &[])?;
        }
        let steps = self.num_train_timesteps.unwrap_or(1000);
        ensure((2..=100_000).contains(&steps), path, || {
            format!("`num_train_timesteps` is {steps}, expected 2 to 100000")
        })?;
        let (start, end) = (self.beta_start.unwrap_or(0.0001), self.beta_end.unwrap_or(0.02));
        let valid = |beta: f64| beta > 0.0 && beta < 1.0;
        ensure(valid(start) && valid(end), path, || {
            format!("`beta_start` {start} and `beta_end` {end} must be between 0 and 1")
        })?;
        Ok(NoiseConfig {
            train_timesteps: steps,
            beta_start: start,
            beta_end: end,
            beta_schedule: self.beta_schedule(path, steps)?,
            clip: self.clip_sample.unwrap_or(true).then(|| self.clip_sample_range.unwrap_or(1.0)),
            set_alpha_to_one: self.set_alpha_to_one.unwrap_or(true),
            steps_offset: self.steps_offset.unwrap_or(0),
            prediction_type: match self.prediction_type.as_deref() {
                None | Some("epsilon") => PredictionType::Epsilon,
                Some("v_prediction") => PredictionType::Velocity,
                Some(found) => {
                    let supported = "epsilon, v_prediction";
                    return Err(ModelError::unsupported(path, "`prediction_type`", found, supported));
                }
            },
            timestep_spacing: match (self.timestep_spacing.as_deref(), kind) {
                (Some("leading"), _) | (None, SchedulerKind::Ddim) => TimestepSpacing::Leading,
                (Some("linspace"), _) | (None, _) => TimestepSpacing::Linspace,
                (Some("trailing"), _) => TimestepSpacing::Trailing,
                (Some(found), _) => {
                    let supported = "leading, trailing, linspace";
                    return Err(ModelError::unsupported(path, "`timestep_spacing`", found, supported));
                }
            },
        })
    }

    fn beta_schedule(&self, path: &str, steps: usize) -> Result<BetaSchedule> {
        if let Some(betas) = &self.trained_betas {
            let valid = betas.len() == steps && betas.iter().all(|b| *b > 0.0 && *b < 1.0);
            ensure(valid, path, || format!("`trained_betas` must be {steps} numbers between 0 and 1"))?;
            return Ok(BetaSchedule::Given(betas.clone()));
        }
        match self.beta_schedule.as_deref() {
            None | Some("linear") => Ok(BetaSchedule::Linear),
            Some("scaled_linear") => Ok(BetaSchedule::ScaledLinear),
            Some("squaredcos_cap_v2") => Ok(BetaSchedule::SquaredCosine),
            Some(found) => {
                let supported = "linear, scaled_linear, squaredcos_cap_v2";
                Err(ModelError::unsupported(path, "`beta_schedule`", found, supported))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str, kind: SchedulerKind) -> Result<NoiseConfig> {
        serde_json::from_str::<RawScheduler>(json).unwrap().build(kind, "scheduler/scheduler_config.json")
    }

    #[test]
    fn each_kind_has_its_own_defaults() {
        let ddim = build("{}", SchedulerKind::Ddim).unwrap();
        let euler = build("{}", SchedulerKind::EulerAncestral).unwrap();
        assert_eq!(ddim.timestep_spacing, TimestepSpacing::Leading);
        assert_eq!(euler.timestep_spacing, TimestepSpacing::Linspace);
        assert_eq!(ddim.clip, Some(1.0));
        assert!(ddim.set_alpha_to_one);
    }

    #[test]
    fn the_pndm_file_of_stable_diffusion_serves_both() {
        let json = r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
            "clip_sample": false}"#;
        for kind in [SchedulerKind::Ddim, SchedulerKind::EulerAncestral] {
            let config = build(json, kind).unwrap();
            assert_eq!(config.beta_schedule, BetaSchedule::ScaledLinear);
            assert_eq!((config.clip, config.steps_offset), (None, 1));
        }
    }

    #[test]
    fn the_file_names_the_kind_and_few_steps() {
        let raw = |json: &str| serde_json::from_str::<RawScheduler>(json).unwrap();
        let turbo =
            raw(r#"{"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing",
            "prediction_type": "epsilon"}"#);
        assert_eq!((turbo.default_kind(), turbo.is_few_step()), (SchedulerKind::EulerAncestral, true));
        let sdxl = raw(r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}"#);
        assert_eq!((sdxl.default_kind(), sdxl.is_few_step()), (SchedulerKind::Euler, false));
        assert_eq!(raw(r#"{"_class_name": "PNDMScheduler"}"#).default_kind(), SchedulerKind::Ddim);
    }

    #[test]
    fn noise_levels_that_euler_steps_would_visit_otherwise_are_refused() {
        for key in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"] {
            let json = format!(r#"{{"{key}": true}}"#);
            assert!(build(&json, SchedulerKind::Ddim).is_ok());
            assert!(build(&json, SchedulerKind::Euler).unwrap_err().to_string().contains(key));
        }
        let shipped = r#"{"interpolation_type": "linear", "use_karras_sigmas": false, "sigma_min": null}"#;
        assert!(build(shipped, SchedulerKind::Euler).is_ok());
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, "FlowMatch"),
            (r#"{"rescale_betas_zero_snr": true}"#, "rescale_betas_zero_snr"),
            (r#"{"thresholding": true}"#, "thresholding"),
            (r#"{"prediction_type": "sample"}"#, "prediction_type"),
            (r#"{"beta_schedule": "sigmoid"}"#, "beta_schedule"),
            (r#"{"beta_end": 1.5}"#, "beta_end"),
            (r#"{"trained_betas": [0.1]}"#, "trained_betas"),
        ] {
            let error = build(json, SchedulerKind::Ddim).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
