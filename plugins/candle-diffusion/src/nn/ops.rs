//! Operations around the matrix products. Each runs fused and in parallel on the CPU in f32, and through candle's
//! general operations on other devices and data types.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp3, D, DType, InplaceOp1, InplaceOp2, Layout, Result, Shape, Tensor,
};
use multiversion::multiversion;
use rayon::prelude::*;

use super::math;

/// Values that one task of a parallel loop handles at least: about 10 microseconds of work.
const GRAIN: usize = 16 * 1024;

/// Whether the fused operations apply.
pub(crate) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of a contiguous f32 tensor on the CPU.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => Err(candle_core::Error::RequiresContiguous { op }),
    }
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout, op: &'static str) -> Result<&'a mut [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((start, end)), CpuStorage::F32(values)) => Ok(&mut values[start..end]),
        _ => Err(candle_core::Error::RequiresContiguous { op }),
    }
}

/// Rows of `width` values that make up at least one grain.
fn grain_rows(width: usize) -> usize {
    GRAIN.div_ceil(width.max(1))
}

/// `(batch, channels, height, width)` to `(batch, height, width, channels)`.
pub(crate) fn to_channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// `(batch, height, width, channels)` to `(batch, channels, height, width)`.
pub(crate) fn to_channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

struct AddRow;

impl InplaceOp2 for AddRow {
    fn name(&self) -> &'static str {
        "add-row"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let row = values(s2, l2, self.name())?;
        let rows = values_mut(s1, l1, self.name())?;
        rows.par_chunks_mut(grain_rows(row.len()) * row.len()).for_each(|rows| {
            for values in rows.chunks_exact_mut(row.len()) {
                values.iter_mut().zip(row).for_each(|(value, add)| *value += add);
            }
        });
        Ok(())
    }
}

/// Adds a vector to each row of `x`, `(.., width)`, which must be a tensor of its own: on the fast path its values
/// are changed in place.
pub(super) fn add_row(x: Tensor, row: &Tensor) -> Result<Tensor> {
    if is_fused(&x) {
        x.inplace_op2(row, &AddRow)?;
        Ok(x)
    } else {
        x.broadcast_add(row)
    }
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let other = values(s2, l2, self.name())?;
        let target = values_mut(s1, l1, self.name())?;
        target.par_chunks_mut(GRAIN).zip(other.par_chunks(GRAIN)).for_each(|(target, other)| {
            target.iter_mut().zip(other).for_each(|(value, add)| *value += add);
        });
        Ok(())
    }
}

/// `x + other`, both of one shape. `x` must be a tensor of its own: on the fast path its values are changed in place.
pub(crate) fn add_to(x: Tensor, other: &Tensor) -> Result<Tensor> {
    if is_fused(&x) && other.is_contiguous() && x.shape() == other.shape() {
        x.inplace_op2(other, &AddTo)?;
        Ok(x)
    } else {
        x + other
    }
}

struct Relu;

impl InplaceOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        values_mut(storage, layout, self.name())?.par_chunks_mut(GRAIN).for_each(|values| {
            // As candle's and PyTorch's, NaN stays NaN: a broken generator must show.
            values.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value });
        });
        Ok(())
    }
}

/// `x`, or 0 where it is negative. `x` must be a tensor of its own: on the fast path its values are changed in place.
pub(crate) fn relu(x: Tensor) -> Result<Tensor> {
    if is_fused(&x) && x.is_contiguous() {
        x.inplace_op1(&Relu)?;
        return Ok(x);
    }
    x.relu()
}

struct SoftmaxRows {
    scale: f32,
}

impl InplaceOp1 for SoftmaxRows {
    fn name(&self) -> &'static str {
        "softmax-rows"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        let rows = values_mut(storage, layout, self.name())?;
        rows.par_chunks_mut(grain_rows(width) * width).for_each(|rows| {
            rows.chunks_exact_mut(width).for_each(|row| softmax_row(row, self.scale));
        });
        Ok(())
    }
}

fn softmax_row(row: &mut [f32], scale: f32) {
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (blocks, rest) = row.as_chunks::<8>();
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max) * scale;
    let mut sums = [0.0f32; 8];
    let (blocks, rest) = row.as_chunks_mut::<8>();
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *value = math::exp(*value * scale - largest);
            *sum += *value;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for value in rest {
        *value = math::exp(*value * scale - largest);
        sum += *value;
    }
    let share = 1.0 / sum;
    row.iter_mut().for_each(|value| *value *= share);
}

/// Softmax of `scale * x` over the last dimension, for a positive scale. `x` must be a tensor of its own.
pub(super) fn softmax(x: Tensor, scale: f64) -> Result<Tensor> {
    if is_fused(&x) && x.is_contiguous() {
        x.inplace_op1(&SoftmaxRows { scale: scale as f32 })?;
        return Ok(x);
    }
    let dtype = x.dtype();
    let x = (x.to_dtype(DType::F32)? * scale)?;
    candle_nn::ops::softmax(&x, D::Minus1)?.to_dtype(dtype)
}

struct GatedGelu;

impl CustomOp1 for GatedGelu {
    fn name(&self) -> &'static str {
        "gated-gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout, self.name())?;
        let mut dims = layout.dims().to_vec();
        let both = dims.last().copied().unwrap_or(0);
        let width = both / 2;
        if let Some(last) = dims.last_mut() {
            *last = width;
        }
        let mut out = vec![0.0f32; x.len() / 2];
        let rows = grain_rows(width);
        out.par_chunks_mut(rows * width).zip(x.par_chunks(rows * both)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(both)) {
                let (hidden, gate) = x.split_at(width);
                for ((out, hidden), gate) in out.iter_mut().zip(hidden).zip(gate) {
                    *out = hidden * math::gelu(*gate);
                }
            }
        });
        Ok((CpuStorage::F32(out), Shape::from(dims)))
    }
}

/// The first half of the last dimension times the GELU of the second half.
pub(super) fn gated_gelu(x: &Tensor) -> Result<Tensor> {
    if is_fused(x) && x.is_contiguous() {
        return x.apply_op1_no_bwd(&GatedGelu);
    }
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * halves[1].gelu_erf()?
}

/// Group norm over `(batch, positions.., channels)`, optionally followed by SiLU.
pub(super) struct GroupNormOp {
    /// Groups of neighbouring channels; divides them.
    pub(super) groups: usize,
    /// Added to the variance.
    pub(super) eps: f64,
    /// Whether SiLU follows.
    pub(super) silu: bool,
}

/// Adds the rows of `x` to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

/// Adds to `sums` the squares of how far the rows of `x` are from `centre`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_squares(x: &[f32], centre: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for ((sum, value), centre) in sums.iter_mut().zip(row).zip(centre) {
            *sum += (value - centre) * (value - centre);
        }
    }
}

/// The rows of `x` times `scale` plus `shift`, optionally followed by SiLU.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn scale_rows(x: &[f32], scale: &[f32], shift: &[f32], silu: bool, out: &mut [f32]) {
    for (out, x) in out.chunks_exact_mut(scale.len()).zip(x.chunks_exact(scale.len())) {
        for (((out, x), scale), shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
            *out = x * scale + shift;
        }
        if silu {
            out.iter_mut().for_each(|value| *value = math::silu(*value));
        }
    }
}

/// Sums over the rows of `x`, each of `channels` values, as `add` adds rows to a row: f32 within a task, f64 across.
fn channel_sums(x: &[f32], channels: usize, add: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f64> {
    x.par_chunks(grain_rows(channels) * channels)
        .map(|rows| {
            let mut sums = vec![0.0f32; channels];
            add(rows, &mut sums);
            sums
        })
        .fold(|| vec![0.0f64; channels], |total, sums| plus(total, sums.iter().map(|s| f64::from(*s))))
        .reduce(|| vec![0.0f64; channels], plus)
}

fn plus(mut total: Vec<f64>, add: impl IntoIterator<Item = f64>) -> Vec<f64> {
    total.iter_mut().zip(add).for_each(|(total, add)| *total += add);
    total
}

impl GroupNormOp {
    /// For one picture: what each channel is multiplied by and what is then added.
    fn scale_and_shift(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let channels = weight.len();
        let size = channels / self.groups;
        let count = (x.len() / self.groups) as f64;
        let per_group = |sums: Vec<f64>| -> Vec<f64> {
            sums.chunks_exact(size).map(|sums| sums.iter().sum::<f64>() / count).collect()
        };
        let means = per_group(channel_sums(x, channels, add_rows));
        let centre: Vec<f32> = (0..channels).map(|c| means[c / size] as f32).collect();
        let variances = per_group(channel_sums(x, channels, |x, sums| add_squares(x, &centre, sums)));
        let scale: Vec<f32> = (0..channels)
            .map(|c| weight[c] * (1.0 / (variances[c / size] + self.eps).sqrt()) as f32)
            .collect();
        let shift = (0..channels).map(|c| bias[c] - (means[c / size] as f32) * scale[c]).collect();
        (scale, shift)
    }
}

impl CustomOp3 for GroupNormOp {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = values(s1, l1, self.name())?;
        let (weight, bias) = (values(s2, l2, self.name())?, values(s3, l3, self.name())?);
        let channels = weight.len();
        let picture = x.len() / l1.dims()[0].max(1);
        let mut out = vec![0.0f32; x.len()];
        for (out, x) in out.chunks_exact_mut(picture).zip(x.chunks_exact(picture)) {
            let (scale, shift) = self.scale_and_shift(x, weight, bias);
            let chunk = grain_rows(channels) * channels;
            let pieces = out.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
            pieces.for_each(|(out, x)| scale_rows(x, &scale, &shift, self.silu, out));
        }
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

/// The windows that a convolution sees, as rows: for the output rows `first..first + count`, numbered through the
/// batch, one row of `kernel * kernel * channels` values for each output column.
pub(super) struct Windows {
    /// Side of the window.
    pub(super) kernel: usize,
    /// Distance between windows.
    pub(super) stride: usize,
    /// Zeros above and to the left of the picture.
    pub(super) before: usize,
    /// Height and width of the output.
    pub(super) out: (usize, usize),
    /// First output row.
    pub(super) first: usize,
    /// Number of output rows.
    pub(super) count: usize,
}

impl Windows {
    /// Fills the windows of output row `row` of one picture `(height, width, channels)`.
    fn fill(
        &self,
        picture: &[f32],
        (height, width, channels): (usize, usize, usize),
        row: usize,
        out: &mut [f32],
    ) {
        let k = self.kernel;
        for (column, window) in out.chunks_exact_mut(k * k * channels).enumerate() {
            for (dy, line) in window.chunks_exact_mut(k * channels).enumerate() {
                let Some(y) = (row * self.stride + dy).checked_sub(self.before).filter(|y| *y < height)
                else {
                    continue;
                };
                let left = column * self.stride;
                // Columns of the window that lie inside the picture.
                let from = self.before.saturating_sub(left);
                let to = k.min((width + self.before).saturating_sub(left));
                if from < to {
                    let start = (y * width + left + from - self.before) * channels;
                    let length = (to - from) * channels;
                    line[from * channels..to * channels].copy_from_slice(&picture[start..start + length]);
                }
            }
        }
    }
}

impl CustomOp1 for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout, self.name())?;
        let (_, height, width, channels) = layout.shape().dims4()?;
        let (out_height, out_width) = self.out;
        let size = self.kernel * self.kernel * channels;
        let mut out = vec![0.0f32; self.count * out_width * size];
        out.par_chunks_exact_mut(out_width * size).enumerate().for_each(|(i, out)| {
            let row = self.first + i;
            let picture = height * width * channels;
            let start = row / out_height * picture;
            self.fill(&x[start..start + picture], (height, width, channels), row % out_height, out);
        });
        Ok((CpuStorage::F32(out), Shape::from((self.count * out_width, size))))
    }
}
