//! `scheduler_config.json` of the models that were trained by flow matching: `FlowMatchEulerDiscreteScheduler`
//! (diffusers 0.42.1, `schedulers/scheduling_flow_match_euler_discrete.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, check_options, ensure};

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawFlow {
    num_train_timesteps: usize,
    shift: f64,
    use_dynamic_shifting: bool,
    base_shift: Option<f64>,
    max_shift: Option<f64>,
    base_image_seq_len: usize,
    max_image_seq_len: usize,
    time_shift_type: String,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawFlow {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: Some(0.5),
            max_shift: Some(1.15),
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            time_shift_type: "exponential".to_owned(),
            other: OtherOptions::new(),
        }
    }
}

/// How the noise levels are moved towards the noisy end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TimeShift {
    /// By a number: `shift * s / (1 + (shift - 1) * s)`.
    Static(f64),
    /// By the size of the picture: a line through two numbers of tokens.
    Dynamic {
        /// Tokens and shift of the small size.
        base: (f64, f64),
        /// Tokens and shift of the large one.
        max: (f64, f64),
        /// Whether the shift is an exponent of e.
        exponential: bool,
    },
}

/// A checked flow matching schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowConfig {
    /// Timesteps of the training, at least 2.
    pub train_timesteps: usize,
    /// See [`TimeShift`].
    pub shift: TimeShift,
}

impl FlowConfig {
    /// Reads and checks `scheduler_config.json` of the scheduler's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("scheduler_config.json")?, &tree.path_of("scheduler_config.json"))
    }

    fn build(raw: RawFlow, path: &str) -> Result<Self> {
        check_options(path, &raw.other, &[], &[])?;
        let steps = raw.num_train_timesteps;
        ensure((2..=100_000).contains(&steps), path, || {
            format!("`num_train_timesteps` is {steps}, expected 2 to 100000")
        })?;
        ensure(raw.shift > 0.0 && raw.shift.is_finite(), path, || {
            format!("`shift` is {}, expected a number over 0", raw.shift)
        })?;
        let exponential = match raw.time_shift_type.as_str() {
            "exponential" => true,
            "linear" => false,
            found => {
                let supported = "exponential, linear";
                return Err(ModelError::unsupported(path, "`time_shift_type`", found, supported));
            }
        };
        if !raw.use_dynamic_shifting {
            return Ok(Self { train_timesteps: steps, shift: TimeShift::Static(raw.shift) });
        }
        let (base, max) = (raw.base_image_seq_len as f64, raw.max_image_seq_len as f64);
        ensure(max > base, path, || {
            format!("`max_image_seq_len` {max} must be over `base_image_seq_len` {base}")
        })?;
        let (base, max) = ((base, raw.base_shift.unwrap_or(0.5)), (max, raw.max_shift.unwrap_or(1.15)));
        Ok(Self { train_timesteps: steps, shift: TimeShift::Dynamic { base, max, exponential } })
    }

    /// A noise level of 0 to 1, moved for a picture of `tokens` tokens.
    pub(crate) fn shifted(&self, sigma: f64, tokens: usize) -> f64 {
        match self.shift {
            TimeShift::Static(shift) => shift * sigma / (1.0 + (shift - 1.0) * sigma),
            TimeShift::Dynamic { base, max, exponential } => {
                let slope = (max.1 - base.1) / (max.0 - base.0);
                let mu = slope * tokens as f64 + base.1 - slope * base.0;
                let mu = if exponential { mu.exp() } else { mu };
                mu / (mu + (1.0 / sigma - 1.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<FlowConfig> {
        FlowConfig::build(serde_json::from_str(json).unwrap(), "scheduler/scheduler_config.json")
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"shift_terminal": 0.1}"#, "shift_terminal"),
            (r#"{"use_karras_sigmas": true}"#, "use_karras_sigmas"),
            (r#"{"stochastic_sampling": true}"#, "stochastic_sampling"),
            (r#"{"invert_sigmas": true}"#, "invert_sigmas"),
            (r#"{"time_shift_type": "cubic"}"#, "time_shift_type"),
            (r#"{"shift": 0}"#, "shift"),
            (r#"{"use_dynamic_shifting": true, "max_image_seq_len": 256}"#, "max_image_seq_len"),
        ] {
            let error = build(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_dynamic_shift_grows_with_the_picture() {
        let config = build(r#"{"use_dynamic_shifting": true}"#).unwrap();
        assert!((config.shifted(0.5, 256) - 0.5f64.exp() / (0.5f64.exp() + 1.0)).abs() < 1e-12);
        assert!(config.shifted(0.5, 4096) > config.shifted(0.5, 1024));
        assert!((config.shifted(1.0, 1024) - 1.0).abs() < 1e-12);
    }
}
