//! Guidance away from what a picture must not show: Safe Latent Diffusion (Schramowski et al., arXiv 2211.05105, s 3).
//!
//! Every step asks the denoiser a third time, for the *concept* that is to be kept out. Where the prompt's prediction and the
//! concept's lie so near to each other that the picture would come to show it, the step is pushed away from the concept, and
//! nowhere else. The formulas are those of `StableDiffusionPipelineSafe.perform_safety_guidance` (diffusers 0.42.1,
//! `pipelines/deprecated/stable_diffusion_safe`), which the paper's authors wrote: the paper prints `max(1, |phi|)` in equation
//! 6, and its code takes the smaller of the two.

use candle_core::{DType, Tensor};

use crate::error::{DiffusionError, Result};
use crate::request::MAX_PROMPT_BYTES;

/// Largest scale: five times the strongest published one.
const MAX_SCALE: f64 = 25_000.0;
/// Steps of the published schedules, of which their warm-up is a part.
const PUBLISHED_STEPS: f64 = 50.0;

/// What to stay away from, and how hard.
#[derive(Debug, Clone, PartialEq)]
pub struct SafeGuidance {
    /// What is to be kept out of the picture, in words.
    pub concept: String,
    /// Share of the steps at the beginning that are left alone (delta of the paper over its 50 steps), 0 to 1: what the
    /// picture is composed of is decided there.
    pub warm_up: f64,
    /// How fast the push grows with the distance of the two predictions (s_S), 0 to 25000. It never grows over 1.
    pub scale: f64,
    /// Values in which the prompt's prediction exceeds the concept's by less than this are pushed (lambda), -1 to 1.
    pub threshold: f64,
    /// Weight of the pushes of earlier steps (s_m), 0 to 1.
    pub momentum_scale: f64,
    /// How slowly their mean forgets (beta_m), 0 up to but not 1.
    pub momentum: f64,
}

impl SafeGuidance {
    /// The authors' weakest setting.
    pub fn weak(concept: impl Into<String>) -> Self {
        Self::published(concept, 15.0, [20.0, 0.0, 0.0, 0.0])
    }

    /// The authors' medium setting, which keeps most pictures as they would have been.
    pub fn medium(concept: impl Into<String>) -> Self {
        Self::published(concept, 10.0, [1000.0, 0.01, 0.3, 0.4])
    }

    /// The authors' strong setting.
    pub fn strong(concept: impl Into<String>) -> Self {
        Self::published(concept, 7.0, [2000.0, 0.025, 0.5, 0.7])
    }

    /// The authors' strongest setting, which pushes from the first step on.
    pub fn maximum(concept: impl Into<String>) -> Self {
        Self::published(concept, 0.0, [5000.0, 1.0, 0.5, 0.7])
    }

    fn published(concept: impl Into<String>, warm_up: f64, values: [f64; 4]) -> Self {
        let [scale, threshold, momentum_scale, momentum] = values;
        let warm_up = warm_up / PUBLISHED_STEPS;
        Self { concept: concept.into(), warm_up, scale, threshold, momentum_scale, momentum }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// A request error that names the first bad field, its range and its value.
    pub(crate) fn check(&self) -> Result<()> {
        if self.concept.len() > MAX_PROMPT_BYTES {
            let detail = format!("expected at most {MAX_PROMPT_BYTES} bytes, found {}", self.concept.len());
            return Err(DiffusionError::request("safety.concept", detail));
        }
        for (field, value, low, high) in [
            ("safety.warm_up", self.warm_up, 0.0, 1.0),
            ("safety.scale", self.scale, 0.0, MAX_SCALE),
            ("safety.threshold", self.threshold, -1.0, 1.0),
            ("safety.momentum_scale", self.momentum_scale, 0.0, 1.0),
            ("safety.momentum", self.momentum, 0.0, 1.0 - f64::EPSILON),
        ] {
            if !(low..=high).contains(&value) {
                return Err(DiffusionError::request(
                    field,
                    format!("expected {low} to {high}, found {value}"),
                ));
            }
        }
        Ok(())
    }

    /// Steps out of `total` that are left alone.
    fn warm_up_steps(&self, total: usize) -> usize {
        (self.warm_up * total as f64).round() as usize
    }
}

/// The pushes so far, in one generation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pushes {
    momentum: Option<Tensor>,
}

/// The three predictions of a step.
pub(crate) struct Predictions<'a> {
    /// For the negative prompt, or for none.
    pub(crate) without: &'a Tensor,
    /// For the prompt.
    pub(crate) with: &'a Tensor,
    /// For the concept.
    pub(crate) concept: &'a Tensor,
}

impl Pushes {
    /// What is taken from the direction of step `index` of `total`, from which the guidance scale leads on; zero during the
    /// warm-up, in which the momentum grows already.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub(crate) fn next(
        &mut self,
        safety: &SafeGuidance,
        predictions: &Predictions<'_>,
        (index, total): (usize, usize),
    ) -> Result<Tensor> {
        let Predictions { without, with, concept } = predictions;
        let difference = (*with - *concept)?;
        // Equation 6.
        let scale = (difference.abs()? * safety.scale)?.clamp(0.0, 1.0)?;
        let near = difference.lt(safety.threshold)?.to_dtype(DType::F32)?;
        // Equation 4.
        let mut push = ((*concept - *without)? * (scale * near)?)?;
        // Equations 7 and 8.
        if let Some(momentum) = &self.momentum {
            push = (push + (momentum * safety.momentum_scale)?)?;
        }
        let kept = match &self.momentum {
            Some(momentum) => (momentum * safety.momentum)?,
            None => push.zeros_like()?,
        };
        self.momentum = Some((kept + (&push * (1.0 - safety.momentum))?)?);
        if index < safety.warm_up_steps(total) { Ok(push.zeros_like()?) } else { Ok(push) }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_published_settings_are_those_of_the_authors() {
        // (warm-up of 50 steps, scale, threshold, momentum scale, momentum), from the paper's table 2.
        let strong = SafeGuidance::strong("x");
        assert_eq!((strong.warm_up_steps(50), strong.scale, strong.threshold), (7, 2000.0, 0.025));
        assert_eq!((strong.momentum_scale, strong.momentum), (0.5, 0.7));
        let medium = SafeGuidance::medium("x");
        assert_eq!((medium.warm_up_steps(50), medium.warm_up_steps(20)), (10, 4));
        assert_eq!(SafeGuidance::maximum("x").warm_up_steps(50), 0);
        assert_eq!(SafeGuidance::weak("x").warm_up_steps(50), 15);
        for setting in [SafeGuidance::weak("x"), medium, strong, SafeGuidance::maximum("x")] {
            setting.check().unwrap();
        }
    }

    #[test]
    fn each_field_is_refused_by_name() {
        let medium = || SafeGuidance::medium("x");
        for (field, bad) in [
            ("safety.concept", SafeGuidance::medium("x".repeat(MAX_PROMPT_BYTES + 1))),
            ("safety.warm_up", SafeGuidance { warm_up: 1.5, ..medium() }),
            ("safety.scale", SafeGuidance { scale: f64::NAN, ..medium() }),
            ("safety.threshold", SafeGuidance { threshold: 2.0, ..medium() }),
            ("safety.momentum_scale", SafeGuidance { momentum_scale: -0.1, ..medium() }),
            ("safety.momentum", SafeGuidance { momentum: 1.0, ..medium() }),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }

    /// The numbers come from diffusers' `perform_safety_guidance` on the same tensors (scale 2, threshold 0.1, momentum scale
    /// 0.5, momentum 0.7, no warm-up): what it takes from the guidance at two steps.
    #[test]
    fn two_steps_are_those_of_diffusers() {
        let safety = SafeGuidance {
            concept: "x".to_owned(),
            warm_up: 0.0,
            scale: 2.0,
            threshold: 0.1,
            momentum_scale: 0.5,
            momentum: 0.7,
        };
        let [without, with, concept] =
            [[0.1, -0.2, 0.3, 0.0], [0.5, -0.1, 0.2, 0.4], [0.3, 0.4, 0.15, 1.9]].map(|values| row(&values));
        let predictions = Predictions { without: &without, with: &with, concept: &concept };
        let mut pushes = Pushes::default();
        for expected in [[0.0, 0.6, -0.015, 1.9], [0.0, 0.69, -0.01725, 2.185]] {
            let push = values(&pushes.next(&safety, &predictions, (0, 10)).unwrap());
            for (found, expected) in push.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{push:?}, expected {expected:?}");
            }
        }
    }

    #[test]
    fn the_warm_up_pushes_nothing_and_is_remembered() {
        let safety = SafeGuidance { warm_up: 0.5, ..SafeGuidance::strong("x") };
        let (without, with, concept) = (row(&[0.0]), row(&[0.1]), row(&[1.0]));
        let predictions = Predictions { without: &without, with: &with, concept: &concept };
        let mut pushes = Pushes::default();
        let steps: Vec<f32> = (0..4)
            .flat_map(|index| values(&pushes.next(&safety, &predictions, (index, 4)).unwrap()))
            .collect();
        assert_eq!(steps[..2], [0.0, 0.0]);
        let mut fresh = Pushes::default();
        let first = values(&fresh.next(&safety, &predictions, (2, 4)).unwrap())[0];
        assert!(first > 0.0 && steps[2] > first, "the momentum of the warm-up counts: {steps:?}, {first}");
    }
}
