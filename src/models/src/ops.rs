//! Element-wise operations that candle computes in several passes on one thread, here in one pass on all.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use candle_nn::Linear;
use rayon::prelude::*;

/// Elements per task: enough work to be worth a thread.
const CHUNK: usize = 16 * 1024;

/// `exp(x)` for `x <= 0` or small, within 2e-7 relative, in arithmetic that compilers vectorise: the argument is
/// reduced by multiples of ln 2 and the rest goes through a polynomial of degree 6 (Cephes' `expf` has the same
/// structure). NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
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
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

struct QuickGelu;

impl CustomOp1 for QuickGelu {
    fn name(&self) -> &'static str {
        "quick-gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let xs = contiguous(storage, layout)?;
        let mut out = vec![0f32; xs.len()];
        out.par_chunks_mut(CHUNK).zip(xs.par_chunks(CHUNK)).for_each(|(out, xs)| {
            for (y, &x) in out.iter_mut().zip(xs) {
                *y = x * sigmoid(1.702 * x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let xs = contiguous(storage, layout)?;
        let (rows, double) = layout.shape().dims2()?;
        let width = double / 2;
        let mut out = vec![0f32; rows * width];
        if width > 0 {
            let rows_per_task = 1 + CHUNK / double;
            out.par_chunks_mut(width * rows_per_task).zip(xs.par_chunks(double * rows_per_task)).for_each(
                |(out, xs)| {
                    for (out, row) in out.chunks_exact_mut(width).zip(xs.chunks_exact(double)) {
                        let (gate, up) = row.split_at(width);
                        for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                            *y = g * sigmoid(g) * u;
                        }
                    }
                },
            );
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, width))))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => candle_core::bail!("a contiguous tensor is needed"),
    }
}

fn fused(xs: &Tensor) -> bool {
    xs.device().is_cpu() && xs.dtype() == DType::F32 && xs.is_contiguous()
}

/// `x * sigmoid(1.702 x)`, any shape.
///
/// # Errors
/// Those of candle.
pub(crate) fn quick_gelu(xs: &Tensor) -> Result<Tensor> {
    if fused(xs) { xs.apply_op1_no_bwd(&QuickGelu) } else { xs * candle_nn::ops::sigmoid(&(xs * 1.702)?)? }
}

/// `[n, 2 w]` to `[n, w]`: SiLU of the first half of each row times its second half.
///
/// # Errors
/// Those of candle.
pub(crate) fn swiglu(xs: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if crate::cuda::applies(xs) {
        return crate::cuda::swiglu(xs);
    }
    if fused(xs) { xs.apply_op1_no_bwd(&SwiGlu) } else { candle_nn::ops::swiglu(xs) }
}

/// The layer with its outputs multiplied by `factor`.
///
/// # Errors
/// Those of candle.
pub(crate) fn scaled(layer: &Linear, factor: f64) -> Result<Linear> {
    Ok(Linear::new((layer.weight() * factor)?, layer.bias().map(|bias| bias * factor).transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

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
    fn fused_operations_equal_candles() {
        let device = Device::Cpu;
        let xs = Tensor::randn(0f32, 4.0, (37, 50), &device).unwrap();
        let gap = |a: Tensor, b: Tensor| {
            (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap()
        };
        let reference = (&xs * candle_nn::ops::sigmoid(&(&xs * 1.702).unwrap()).unwrap()).unwrap();
        assert!(gap(quick_gelu(&xs).unwrap(), reference) < 1e-5);
        assert!(gap(swiglu(&xs).unwrap(), candle_nn::ops::swiglu(&xs).unwrap()) < 1e-5);
    }
}
