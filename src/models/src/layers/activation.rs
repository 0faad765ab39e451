//! The non-linearities, in arithmetic that compilers vectorise.

use candle_core::{Result, Tensor};

/// The non-linearity of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIP, OWLv2 and the vision tower of Qwen2-VL.
    QuickGelu,
    /// `x * Phi(x)` with the exact normal distribution: OpenCLIP's checkpoints.
    Gelu,
    /// `x * Phi(x)` through the tanh approximation.
    GeluTanh,
}

impl Activation {
    /// The names that [`Self::from_name`] knows.
    pub const NAMES: &'static str = "quick_gelu, gelu, gelu_new, gelu_pytorch_tanh";

    /// The activation of a `hidden_act` field (transformers 5.17, `activations.py`).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "quick_gelu" => Some(Self::QuickGelu),
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn value(self, x: f32) -> f32 {
        match self {
            Self::QuickGelu => x * sigmoid(1.702 * x),
            Self::Gelu => gelu(x),
            // tanh(u) = 2 sigmoid(2u) - 1
            Self::GeluTanh => {
                let u = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
                x * sigmoid(u * (x + 0.044715 * x * x * x))
            }
        }
    }

    /// The same on candle's operations.
    pub(super) fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
        }
    }
}

/// `exp(x)` within 3e-7 relative: the argument is reduced by multiples of ln 2 and the rest goes through a polynomial
/// of degree 6 (Cephes' `expf` has the same structure). Below -87 it stays at `exp(-87)`, above 88 at `exp(88)`. NaN
/// stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, the first exact in few bits.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x < -87.0 { -87.0 } else { x };
    let clamped = if clamped > 88.0 { 88.0 } else { clamped };
    let n = clamped * LOG2_E + ROUND;
    let k = n.to_bits().wrapping_sub(ROUND.to_bits());
    let n = n - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    p * f32::from_bits(k.wrapping_add(127) << 23)
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * Phi(x)`; the error function after Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * exp(-z * z);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn exp_is_exact_enough() {
        for i in -8700..8700 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn values_agree_with_candles() -> Result<()> {
        let x = Tensor::randn(0f32, 4.0, 1000, &Device::Cpu)?;
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            let expected = activation.apply(&x)?.to_vec1::<f32>()?;
            for (x, expected) in x.to_vec1::<f32>()?.into_iter().zip(expected) {
                let got = activation.value(x);
                assert!((got - expected).abs() < 2e-6, "{activation:?}({x}): {got}, not {expected}");
            }
        }
        Ok(())
    }
}
