//! Noise levels over the training's timesteps, and the timesteps that a generation visits. Values are rounded to
//! f32 where diffusers keeps them in f32, so that differences of nearby levels come out the same.

use std::f64::consts::FRAC_PI_2;

use super::SchedulerKind;
use crate::config::{BetaSchedule, FlowConfig, NoiseConfig, TimeShift, TimestepSpacing};

/// `count` values from `start` to `end`, as `torch.linspace` computes them in f32: from both ends to the middle.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 })
        .collect()
}

/// Largest beta of the cosine schedule, which would reach 1 at its end.
const MAX_BETA: f64 = 0.999;

fn betas(config: &NoiseConfig) -> Vec<f32> {
    let n = config.train_timesteps;
    match &config.beta_schedule {
        BetaSchedule::Linear => linspace(config.beta_start, config.beta_end, n),
        BetaSchedule::ScaledLinear => {
            linspace(config.beta_start.sqrt(), config.beta_end.sqrt(), n).iter().map(|b| b * b).collect()
        }
        BetaSchedule::SquaredCosine => {
            let signal = |i: usize| ((i as f64 / n as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
            (0..n).map(|i| (1.0 - signal(i + 1) / signal(i)).min(MAX_BETA) as f32).collect()
        }
        BetaSchedule::Given(betas) => betas.iter().map(|b| *b as f32).collect(),
    }
}

/// The share of the picture in the latents at each training timestep: the product of `1 - beta` so far.
pub(super) fn alphas_cumprod(config: &NoiseConfig) -> Vec<f64> {
    betas(config)
        .iter()
        .scan(1.0f64, |product, beta| {
            *product *= f64::from(1.0f32 - beta);
            Some(f64::from(*product as f32))
        })
        .collect()
}

/// The timesteps to visit, the noisiest first. DDIM rounds those of linear spacing, Euler interpolates between them.
pub(super) fn timesteps(kind: SchedulerKind, config: &NoiseConfig, steps: usize) -> Vec<f64> {
    let train = config.train_timesteps;
    match config.timestep_spacing {
        TimestepSpacing::Leading => {
            let stride = train / steps;
            (0..steps).rev().map(|i| (i * stride + config.steps_offset) as f64).collect()
        }
        TimestepSpacing::Trailing => {
            let stride = train as f64 / steps as f64;
            (0..steps).map(|i| (train as f64 - i as f64 * stride).round_ties_even() - 1.0).collect()
        }
        TimestepSpacing::Linspace => {
            let last = (train - 1) as f64;
            let gap = if steps > 1 { last / (steps - 1) as f64 } else { 0.0 };
            let value = |i: usize| if i > 0 && i + 1 == steps { last } else { i as f64 * gap };
            let round = |t: f64| match kind {
                SchedulerKind::Ddim => t.round_ties_even(),
                _ => f64::from(t as f32),
            };
            (0..steps).rev().map(|i| round(value(i))).collect()
        }
    }
}

/// The noise's standard deviation relative to the picture at each visited timestep, and 0 for the end.
pub(super) fn sigmas(alphas: &[f64], visited: &[f64]) -> Vec<f64> {
    let sigma = |t: usize| {
        let alpha = alphas[t] as f32;
        f64::from(((1.0 - alpha) / alpha).sqrt())
    };
    visited
        .iter()
        .map(|t| {
            let low = t.floor() as usize;
            let high = (low + 1).min(alphas.len() - 1);
            let part = t - t.floor();
            f64::from((sigma(low) + (sigma(high) - sigma(low)) * part) as f32)
        })
        .chain([0.0])
        .collect()
}

/// The noise levels of `steps` steps of a flow, 1 for noise alone, and 0 for the end.
///
/// Where the model's pipeline leaves the levels to the scheduler they are spread over the training's timesteps, whose
/// last is not 0; else (`even`) evenly from 1 to `1 / steps`.
pub(super) fn flow_sigmas(config: &FlowConfig, steps: usize, tokens: usize, even: bool) -> Vec<f64> {
    let train = config.train_timesteps as f64;
    // The scheduler shifts its ends once when it is made, and everything again for a generation.
    let end = |t: f64| match config.shift {
        TimeShift::Static(_) => f64::from(config.shifted(t / train, tokens) as f32),
        TimeShift::Dynamic { .. } => f64::from((t / train) as f32),
    };
    let (first, last) = if even { (1.0, 1.0 / steps as f64) } else { (end(train), end(1.0)) };
    let gap = if steps > 1 { (last - first) / (steps - 1) as f64 } else { 0.0 };
    (0..steps)
        .map(|i| f64::from(config.shifted(first + i as f64 * gap, tokens) as f32))
        .chain([0.0])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PredictionType;

    fn config(spacing: TimestepSpacing) -> NoiseConfig {
        NoiseConfig {
            train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            clip: None,
            set_alpha_to_one: false,
            steps_offset: 1,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: spacing,
        }
    }

    #[test]
    fn every_count_of_steps_gives_falling_timesteps_in_range() {
        for spacing in [TimestepSpacing::Leading, TimestepSpacing::Trailing, TimestepSpacing::Linspace] {
            for kind in [SchedulerKind::Ddim, SchedulerKind::Euler, SchedulerKind::EulerAncestral] {
                for steps in (1..=500).chain([999]) {
                    let visited = timesteps(kind, &config(spacing), steps);
                    assert_eq!(visited.len(), steps);
                    assert!(visited.windows(2).all(|w| w[0] > w[1]), "{spacing:?} {kind:?} {steps}");
                    assert!(
                        visited.iter().all(|t| (0.0..=999.0).contains(t)),
                        "{spacing:?} {kind:?} {steps}"
                    );
                }
            }
        }
    }

    #[test]
    fn alphas_fall_from_one_towards_zero() {
        let alphas = alphas_cumprod(&config(TimestepSpacing::Leading));
        assert!(alphas.windows(2).all(|w| w[0] > w[1]));
        assert!((alphas[0] - 0.99915).abs() < 1e-6 && (alphas[999] - 0.00466).abs() < 1e-5);
    }
}
