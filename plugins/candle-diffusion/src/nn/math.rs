//! Elementary functions in f32, written without branches so that the compiler turns loops over them into vector
//! instructions. Each says how far it is from the exact value; the tests measure it.

/// `e^x`, relative error below 3e-7 between -87 and 88, and the values there beyond. NaN stays NaN.
///
/// `x` is split into a whole power of two and a remainder of at most half of `ln 2`, whose exponential is a
/// polynomial (Cephes, `expf`).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it to a number under 2^22 rounds that number to a whole one, kept in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Written so that NaN fails both comparisons and passes through.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let r = x - whole * LN_2_HIGH - whole * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let fraction = p * r * r + r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    fraction * f32::from_bits(exponent)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x * P(N <= x)` for standard normal `N`, the exact Gaussian error linear unit; absolute error below `4e-7 * |x|`
/// (Abramowitz & Stegun 7.1.26 for the error function).
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + c;
    }
    // The tail beyond |x|, doubled.
    let tail = p * t * exp(-z * z);
    let below = if x < 0.0 { 0.5 * tail } else { 1.0 - 0.5 * tail };
    x * below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| from + (to - from) * i as f32 / 200_000.0)
    }

    #[test]
    fn exp_is_exact_to_a_few_units() {
        for x in grid(-87.0, 88.0) {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn gelu_follows_the_error_function() {
        for x in grid(-12.0, 12.0) {
            let tensor = candle_core::Tensor::new(&[f64::from(x)], &candle_core::Device::Cpu).unwrap();
            let exact = tensor.gelu_erf().unwrap().to_vec1::<f64>().unwrap()[0];
            let error = (f64::from(gelu(x)) - exact).abs();
            assert!(error <= 4e-7 * f64::from(x.abs()), "gelu({x}): {error}");
        }
        assert!(gelu(f32::NAN).is_nan());
    }

    #[test]
    fn silu_keeps_what_is_not_a_number() {
        assert!(silu(f32::NAN).is_nan());
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
        assert!(silu(-1000.0).abs() < 1e-6);
    }
}
