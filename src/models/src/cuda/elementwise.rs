//! Element-wise operations in one pass.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{D, Result, Tensor, bail};
use half::bf16;

use super::{Input, applies, cuda_device, room, tensor};
use crate::rope::Angles;

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/elementwise.ptx"));
/// Threads of a block.
const THREADS: usize = 256;
/// Values of a row that a block of [`normalise`] holds.
const WIDEST: usize = 4096;

/// One thread for each of `work` pieces.
fn grid(work: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (work.div_ceil(THREADS) as u32, 1, 1),
        block_dim: (THREADS as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Runs the kernel `name` for an output of `shape`, row by row of its last axis: addresses of the inputs, then of the
/// output, then the dimensions.
fn by_row(name: &str, inputs: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let (Some(first), Some((&width, outer))) = (inputs.first(), shape.split_last()) else {
        bail!("{name}: an input with an axis is needed")
    };
    let rows: usize = outer.iter().product();
    if width % 8 != 0 || rows == 0 {
        bail!("{name}: rows whose width is a multiple of 8 are needed, the shape is {shape:?}")
    }
    let device = cuda_device(first)?;
    let held = inputs.iter().map(|input| Input::contiguous(input)).collect::<Result<Vec<_>>>()?;
    let addresses = held.iter().map(Input::address::<bf16>).collect::<Result<Vec<_>>>()?;
    let (out, to) = room(device, rows * width)?;
    let function = device.get_or_load_custom_func(name, "cluegate-elementwise", PTX)?;
    let (long_rows, int_width) = (rows as i64, width as i32);
    let mut builder = function.builder();
    for address in &addresses {
        builder.arg(address);
    }
    builder.arg(&to).arg(&long_rows).arg(&int_width);
    // SAFETY: the arguments are the kernel's, the inputs are contiguous, held until after the launch, and of the sizes
    // that the caller checked; `out` is written whole.
    #[allow(unsafe_code)]
    unsafe { builder.launch(grid(rows * width / 8)) }.w()?;
    Ok(tensor(out, device, shape))
}

/// Whether the kernels take rows of so many values that are computed of `xs`: eight at a time, and not every published
/// width is a multiple (3420 in the vision tower of Qwen2.5-VL).
pub(crate) fn takes(xs: &Tensor, width: usize) -> bool {
    applies(xs) && width > 0 && width.is_multiple_of(8)
}

/// `[n, 2 w]` to `[n, w]`: SiLU of the first half of each row times its second half.
pub(crate) fn swiglu(xs: &Tensor) -> Result<Tensor> {
    let (rows, double) = xs.dims2()?;
    by_row("swiglu", &[xs], &[rows, double / 2])
}

/// Quick GELU of `xs + bias`; `[.., w]` and `[w]`.
pub(crate) fn bias_quick_gelu(xs: &Tensor, bias: &Tensor) -> Result<Tensor> {
    same_shape(bias, &[xs.dim(D::Minus1)?])?;
    by_row("bias_quick_gelu", &[xs, bias], xs.dims())
}

/// `residual + xs + bias`; `[.., w]` twice and `[w]`.
pub(crate) fn add_bias(residual: &Tensor, xs: &Tensor, bias: &Tensor) -> Result<Tensor> {
    same_shape(residual, xs.dims())?;
    same_shape(bias, &[xs.dim(D::Minus1)?])?;
    by_row("add_bias", &[residual, xs, bias], xs.dims())
}

/// Whether [`bias_rotate`] takes rows of `width` in heads of `2 * pairs`.
pub(crate) fn rotates(xs: &Tensor, pairs: usize, width: usize) -> bool {
    applies(xs) && pairs > 0 && pairs.is_multiple_of(8) && width.is_multiple_of(2 * pairs)
}

/// Adds a bias (`[heads * head]`) to `[rows, heads * head]` and turns the first `turned` heads by angles, `[positions,
/// head / 2]` each, which repeat every `positions` rows.
pub(crate) fn bias_rotate(xs: &Tensor, bias: &Tensor, angles: &Angles, turned: usize) -> Result<Tensor> {
    let (cosines, sines) = (&angles.cos, &angles.sin);
    let (rows, width) = xs.dims2()?;
    let (positions, half) = cosines.dims2()?;
    let (head, heads) = (2 * half, width / (2 * half).max(1));
    if !rotates(xs, half, width) || positions == 0 || rows % positions != 0 || turned > heads {
        bail!("{turned} heads of {head} turned by {positions} positions do not fit {:?}", xs.shape())
    }
    same_shape(sines, cosines.dims())?;
    same_shape(bias, &[width])?;
    let device = cuda_device(xs)?;
    let held = [xs, bias, cosines, sines].map(Input::contiguous);
    let held = held.into_iter().collect::<Result<Vec<_>>>()?;
    let addresses = held.iter().map(Input::address::<bf16>).collect::<Result<Vec<_>>>()?;
    let (out, to) = room(device, rows * width)?;
    let function = device.get_or_load_custom_func("bias_rotate", "cluegate-elementwise", PTX)?;
    let long_rows = rows as i64;
    let numbers = [heads as i32, head as i32, turned as i32, positions as i32];
    let mut builder = function.builder();
    for address in &addresses {
        builder.arg(address);
    }
    builder.arg(&to).arg(&long_rows);
    for number in &numbers {
        builder.arg(number);
    }
    // SAFETY: the arguments are the kernel's; shapes were checked above; `out` is written whole.
    #[allow(unsafe_code)]
    unsafe { builder.launch(grid(rows * width / 16)) }.w()?;
    Ok(tensor(out, device, (rows, width)))
}

/// Whether [`normalise`] takes this tensor.
pub(crate) fn normalises(xs: &Tensor) -> bool {
    let width = xs.dims().last().copied().unwrap_or(0);
    applies(xs) && width > 0 && width.is_multiple_of(8) && width <= WIDEST && xs.elem_count() > 0
}

/// Layer norm over the last axis, or RMS norm without a bias; weight and bias have its width.
pub(crate) fn normalise(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, epsilon: f32) -> Result<Tensor> {
    if !normalises(xs) {
        bail!("rows of at most {WIDEST} values, a multiple of 8, are needed, the shape is {:?}", xs.shape())
    }
    let width = xs.dim(D::Minus1)?;
    same_shape(weight, &[width])?;
    bias.map_or(Ok(()), |bias| same_shape(bias, &[width]))?;
    let device = cuda_device(xs)?;
    let held = [Some(xs), Some(weight), bias].map(|input| input.map(Input::contiguous).transpose());
    let mut addresses = [0u64; 3];
    let held = held.into_iter().collect::<Result<Vec<_>>>()?;
    for (address, input) in addresses.iter_mut().zip(&held) {
        *address = input.as_ref().map_or(Ok(0), Input::address::<bf16>)?;
    }
    let rows = xs.elem_count() / width;
    let (out, to) = room(device, rows * width)?;
    let function = device.get_or_load_custom_func("normalise", "cluegate-elementwise", PTX)?;
    let int_width = width as i32;
    let mut builder = function.builder();
    for address in &addresses {
        builder.arg(address);
    }
    builder.arg(&to).arg(&int_width).arg(&epsilon);
    let config = LaunchConfig { grid_dim: (rows as u32, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are the kernel's; shapes were checked above; `out` is written whole.
    #[allow(unsafe_code)]
    unsafe { builder.launch(config) }.w()?;
    Ok(tensor(out, device, xs.shape()))
}

fn same_shape(tensor: &Tensor, dims: &[usize]) -> Result<()> {
    if tensor.dims() == dims {
        Ok(())
    } else {
        bail!("a tensor of shape {dims:?} is needed, this one has {:?}", tensor.dims())
    }
}
