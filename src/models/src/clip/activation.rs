//! Element-wise steps between the matrix products of a transformer, fused where the CPU computes in f32.
//!
//! On two cores these steps cost as much as the products when each is a pass of its own over fresh memory, and the C
//! library's `exp` is called one value at a time. Here the bias, the activation or the residual, and the softmax work in
//! place with an `exp` that the compiler turns into vector instructions. Everywhere else (another device, another
//! data type) the same formulas run on candle's own operations.

use candle_core::{CpuStorage, D, DType, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::ops::exp;

/// The non-linearity of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIP and OWLv2.
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
    fn value(self, x: f32) -> f32 {
        match self {
            Self::QuickGelu => x / (1.0 + exp(-1.702 * x)),
            Self::Gelu => gelu(x),
            // tanh(u) = 2 sigmoid(2u) - 1
            Self::GeluTanh => {
                let u = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
                x / (1.0 + exp(-u * (x + 0.044715 * x * x * x)))
            }
        }
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
        }
    }
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

/// Rows that one task works on: long enough to outweigh handing it over.
const ROWS_PER_TASK: usize = 16;

/// Whether the fused kernels can work on `x`.
fn fits(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32 && x.is_contiguous()
}

/// `activation(x + bias)`; `x` has shape `(rows, width)` and must not be shared: it may be overwritten.
pub(crate) fn add_bias_activate(x: Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    if fits(&x) {
        x.inplace_op2(bias, &BiasActivation(activation))?;
        return Ok(x);
    }
    activation.apply(&x.broadcast_add(bias)?)
}

/// `x + bias`; `x` has shape `(rows, width)` and must not be shared: it may be overwritten.
pub(crate) fn add_bias(x: Tensor, bias: &Tensor) -> Result<Tensor> {
    if fits(&x) {
        x.inplace_op2(bias, &Bias)?;
        return Ok(x);
    }
    x.broadcast_add(bias)
}

/// `x + bias + residual`; `x` and `residual` have shape `(rows, width)`, and `x` must not be shared: it may be
/// overwritten.
pub(crate) fn add_bias_residual(x: Tensor, bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if fits(&x) && residual.is_contiguous() {
        x.inplace_op3(bias, residual, &BiasResidual)?;
        return Ok(x);
    }
    x.broadcast_add(bias)? + residual
}

/// Softmax over the last axis of scores of shape `(heads, queries, keys)`, which must not be shared: they may be
/// overwritten. With `causal`, as many queries as keys, and query `i` sees the keys up to `i` only.
pub(crate) fn softmax(scores: Tensor, causal: bool) -> Result<Tensor> {
    if fits(&scores) {
        scores.inplace_op1(&Softmax { causal })?;
        return Ok(scores);
    }
    if !causal {
        return candle_nn::ops::softmax_last_dim(&scores);
    }
    let tokens = scores.dim(D::Minus1)?;
    let mask: Vec<f32> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    let mask = Tensor::from_vec(mask, (tokens, tokens), scores.device())?.to_dtype(scores.dtype())?;
    candle_nn::ops::softmax_last_dim(&scores.broadcast_add(&mask)?)
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout, op: &str) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("{op}: expected contiguous f32, got {:?}", layout.shape()),
    }
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout, op: &str) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("{op}: expected contiguous f32, got {:?}", layout.shape()),
    }
}

/// Calls `work(index, row)` for each row, in parallel.
fn each_row(values: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if width == 0 {
        return;
    }
    values.par_chunks_mut(width * ROWS_PER_TASK).enumerate().for_each(|(task, rows)| {
        for (offset, row) in rows.chunks_exact_mut(width).enumerate() {
            work(task * ROWS_PER_TASK + offset, row);
        }
    });
}

/// The bias of a layer that gives rows of that width.
fn bias_of<'a>(storage: &'a CpuStorage, layout: &Layout, width: usize, op: &str) -> Result<&'a [f32]> {
    let bias = values(storage, layout, op)?;
    if bias.len() != width {
        candle_core::bail!("{op}: rows of {width} values and a bias of {}", bias.len());
    }
    Ok(bias)
}

struct BiasActivation(Activation);

impl InplaceOp2 for BiasActivation {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_l: &Layout, bias: &CpuStorage, bias_l: &Layout) -> Result<()> {
        let width = x_l.shape().dim(D::Minus1)?;
        let bias = bias_of(bias, bias_l, width, InplaceOp2::name(self))?;
        let x = values_mut(x, x_l, InplaceOp2::name(self))?;
        // One loop for each activation, so that the choice is made outside of it.
        match self.0 {
            Activation::QuickGelu => activate(x, bias, |v| Activation::QuickGelu.value(v)),
            Activation::Gelu => activate(x, bias, |v| Activation::Gelu.value(v)),
            Activation::GeluTanh => activate(x, bias, |v| Activation::GeluTanh.value(v)),
        }
        Ok(())
    }
}

fn activate(x: &mut [f32], bias: &[f32], activation: impl Fn(f32) -> f32 + Sync) {
    each_row(x, bias.len(), |_, row| {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = activation(*value + bias);
        }
    });
}

struct Bias;

impl InplaceOp2 for Bias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_l: &Layout, bias: &CpuStorage, bias_l: &Layout) -> Result<()> {
        let width = x_l.shape().dim(D::Minus1)?;
        let bias = bias_of(bias, bias_l, width, InplaceOp2::name(self))?;
        activate(values_mut(x, x_l, InplaceOp2::name(self))?, bias, |value| value);
        Ok(())
    }
}

struct BiasResidual;

impl InplaceOp3 for BiasResidual {
    fn name(&self) -> &'static str {
        "bias-residual"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_l: &Layout,
        bias: &CpuStorage,
        bias_l: &Layout,
        residual: &CpuStorage,
        residual_l: &Layout,
    ) -> Result<()> {
        let width = x_l.shape().dim(D::Minus1)?;
        let bias = bias_of(bias, bias_l, width, InplaceOp3::name(self))?;
        let residual = values(residual, residual_l, InplaceOp3::name(self))?;
        let x = values_mut(x, x_l, InplaceOp3::name(self))?;
        if residual.len() != x.len() {
            candle_core::bail!("bias-residual: {} values and a residual of {}", x.len(), residual.len());
        }
        each_row(x, width, |index, row| {
            let residual = &residual[index * width..(index + 1) * width];
            for ((value, bias), other) in row.iter_mut().zip(bias).zip(residual) {
                *value += bias + other;
            }
        });
        Ok(())
    }
}

struct Softmax {
    causal: bool,
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, scores: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let keys = layout.shape().dim(D::Minus1)?;
        let scores = values_mut(scores, layout, InplaceOp1::name(self))?;
        each_row(scores, keys, |index, row| {
            let seen = if self.causal { index % keys + 1 } else { keys };
            let (seen, hidden) = row.split_at_mut(seen);
            hidden.fill(0.0);
            softmax_row(seen);
        });
        Ok(())
    }
}

/// Values of a row that are reduced side by side, so that the compiler can use vector instructions.
const LANES: usize = 8;

fn softmax_row(row: &mut [f32]) {
    let (lanes, rest) = row.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in lanes {
        for lane in 0..LANES {
            // A NaN must win, or it would vanish from the answer.
            let larger = chunk[lane] > largest[lane] || chunk[lane].is_nan();
            largest[lane] = if larger { chunk[lane] } else { largest[lane] };
        }
    }
    let largest = largest
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |most, value| if *value > most || value.is_nan() { *value } else { most });
    let mut sums = [0f32; LANES];
    let (lanes, rest) = row.as_chunks_mut::<LANES>();
    for chunk in lanes {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for value in rest {
        *value = exp(*value - largest);
        sum += *value;
    }
    let share = sum.recip();
    for value in row {
        *value *= share;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn activations_agree_with_candle() -> Result<()> {
        let x = Tensor::arange(-800i64, 800, &Device::Cpu)?.to_dtype(DType::F32)?.reshape((40, 40))?;
        let x = (x / 100.0)?;
        let bias = (Tensor::arange(0i64, 40, &Device::Cpu)?.to_dtype(DType::F32)? / 40.0)?;
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            let expected = activation.apply(&x.broadcast_add(&bias)?)?.flatten_all()?.to_vec1::<f32>()?;
            let got = add_bias_activate(x.copy()?, &bias, activation)?.flatten_all()?.to_vec1::<f32>()?;
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 2e-6, "{activation:?}: {got} instead of {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn softmax_agrees_with_candle() -> Result<()> {
        for (tokens, causal) in [(5, false), (5, true), (21, false), (21, true)] {
            let scores = Tensor::randn(0f32, 4.0, (3, tokens, tokens), &Device::Cpu)?;
            let slow = softmax(scores.to_dtype(DType::F64)?, causal)?.flatten_all()?.to_vec1::<f64>()?;
            let fast = softmax(scores, causal)?.flatten_all()?.to_vec1::<f32>()?;
            for (fast, slow) in fast.iter().zip(slow) {
                assert!((f64::from(*fast) - slow).abs() < 1e-6, "{fast} instead of {slow}");
            }
        }
        Ok(())
    }

    #[test]
    fn softmax_keeps_nan_visible() -> Result<()> {
        for position in [0, 7, 9] {
            let mut scores = vec![0f32; 10];
            scores[position] = f32::NAN;
            let scores = softmax(Tensor::from_vec(scores, (1, 1, 10), &Device::Cpu)?, false)?;
            assert!(scores.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_nan()));
        }
        Ok(())
    }
}
