//! Convolution with a 3x3 kernel by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks"): 16 outputs of a channel pair from 36 multiplications in place of 144.
//!
//! Each tile of 4x4 outputs sees 6x6 inputs. Both inputs and weights are carried over into 36 coefficients, these are
//! multiplied as 36 matrix products over the channels, and the sums are carried back. The steps before and after are
//! additions and small factors; they cost some of the last bits: results differ from the direct sum by about 1e-5 of the
//! largest value, as the tests measure.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

/// Side of a tile's outputs, of its inputs, and coefficients of a tile.
const OUT: usize = 4;
const IN: usize = OUT + 2;
const COEFFICIENTS: usize = IN * IN;

/// Channels that are carried over at a time, in the registers.
const LANES: usize = 16;

/// Tiles of one piece of work: enough for a good matrix product, few enough that it stays in the second cache.
const TILES: usize = 64;

/// Tiles from which it is faster than windows: below, the weights cost more to carry over than they save. Their coefficients,
/// four times as many, are made anew for each call, so as not to hold four times the memory.
const WORTH: usize = 64;
/// The same while these coefficients stay in the cache: at most so many of them.
const WORTH_IN_CACHE: usize = 16;
const IN_CACHE: usize = 1 << 20;

/// Carries a kernel's 3 taps in one direction over into 6 coefficients.
const KERNEL: [[f32; 3]; IN] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Whether it applies to, and pays for, a convolution of these channels to outputs `(batch, height, width, output)`.
pub(super) fn applies(input: usize, [batch, height, width, output]: [usize; 4]) -> bool {
    let tiles = batch * height.div_ceil(OUT) * width.div_ceil(OUT);
    let cached = COEFFICIENTS * input * output <= IN_CACHE;
    input.is_multiple_of(LANES) && tiles >= if cached { WORTH_IN_CACHE } else { WORTH }
}

type Lanes = [f32; LANES];

/// Carries 6 inputs in one direction over into 6 coefficients.
#[inline(always)]
fn carry_over(d: [Lanes; IN]) -> [Lanes; IN] {
    let mut t = [[0.0; LANES]; IN];
    for l in 0..LANES {
        let (even, odd) = (d[4][l] - 4.0 * d[2][l], d[3][l] - 4.0 * d[1][l]);
        let (near, far) = (d[4][l] - d[2][l], 2.0 * (d[3][l] - d[1][l]));
        t[0][l] = 4.0 * (d[0][l] - d[2][l]) + near;
        t[1][l] = even + odd;
        t[2][l] = even - odd;
        t[3][l] = near + far;
        t[4][l] = near - far;
        t[5][l] = 4.0 * (d[1][l] - d[3][l]) + (d[5][l] - d[3][l]);
    }
    t
}

/// Carries 6 coefficients in one direction back to 4 outputs.
#[inline(always)]
fn carry_back(m: [Lanes; IN]) -> [Lanes; OUT] {
    let mut y = [[0.0; LANES]; OUT];
    for l in 0..LANES {
        let (sum, difference) = (m[1][l] + m[2][l], m[1][l] - m[2][l]);
        let (wide, narrow) = (m[3][l] + m[4][l], m[3][l] - m[4][l]);
        y[0][l] = m[0][l] + sum + wide;
        y[1][l] = difference + 2.0 * narrow;
        y[2][l] = sum + 4.0 * wide;
        y[3][l] = difference + 8.0 * narrow + m[5][l];
    }
    y
}

/// The kernel `(9 * in, out)`, taps from the upper left on, as coefficients `(36, in, out')`: outputs are filled up with zeros
/// to whole lanes.
fn kernel_coefficients(weight: &Tensor) -> Result<Tensor> {
    let (size, output) = weight.dims2()?;
    let (input, filled) = (size / 9, output.next_multiple_of(LANES));
    let weight = weight.pad_with_zeros(1, 0, filled - output)?.reshape((9, input * filled))?;
    let mut spread = Vec::with_capacity(COEFFICIENTS * 9);
    for (row, column) in (0..IN).flat_map(|row| (0..IN).map(move |column| (row, column))) {
        spread.extend((0..9).map(|tap| KERNEL[row][tap / 3] * KERNEL[column][tap % 3]));
    }
    let spread = Tensor::from_vec(spread, (COEFFICIENTS, 9), weight.device())?;
    spread.matmul(&weight)?.reshape((COEFFICIENTS, input, filled))
}

/// The outputs of one picture, in their tiles.
#[derive(Clone, Copy)]
struct Picture {
    height: usize,
    width: usize,
    /// Tiles of a row.
    across: usize,
    /// Outputs for each input in each direction: 1, or 2 if the inputs are enlarged by the nearest.
    enlarged: usize,
}

impl Picture {
    /// Where tile `tile` begins in the outputs.
    fn corner(&self, tile: usize) -> (usize, usize) {
        (tile / self.across * OUT, tile % self.across * OUT)
    }
}

/// Coefficients `(36, tiles, channels)` of the inputs `(height, width, channels)` of as many tiles as `out` has room for, from
/// `first` on.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
// A row and a column of one array: no iterator says that better.
#[allow(clippy::needless_range_loop)]
fn gather(picture: Picture, values: &[f32], channels: usize, first: usize, out: &mut [f32]) {
    let plane = out.len() / COEFFICIENTS;
    let blocks = channels / LANES;
    let width = picture.width / picture.enlarged;
    let (rows, _) = values.as_chunks::<LANES>();
    for number in 0..plane / channels {
        let (top, left) = picture.corner(first + number);
        for block in 0..blocks {
            let mut half = [[[0.0; LANES]; IN]; IN];
            for column in 0..IN {
                let mut d = [[0.0; LANES]; IN];
                // The picture begins one position after the tile's inputs; around it there are zeros.
                if let Some(x) = (left + column).checked_sub(1).filter(|x| *x < picture.width) {
                    for (row, d) in d.iter_mut().enumerate() {
                        if let Some(y) = (top + row).checked_sub(1).filter(|y| *y < picture.height) {
                            *d = rows[(y / picture.enlarged * width + x / picture.enlarged) * blocks + block];
                        }
                    }
                }
                let t = carry_over(d);
                for row in 0..IN {
                    half[row][column] = t[row];
                }
            }
            for (row, half) in half.into_iter().enumerate() {
                for (column, t) in carry_over(half).iter().enumerate() {
                    let start = (row * IN + column) * plane + number * channels + block * LANES;
                    out[start..start + LANES].copy_from_slice(t);
                }
            }
        }
    }
}

/// Writes to `out`, rows of the picture that are whole rows of tiles, the `channels` outputs of their coefficients
/// `(36, tiles, channels')`, plus `bias`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
// A row and a column of one array: no iterator says that better.
#[allow(clippy::needless_range_loop)]
fn scatter(picture: Picture, coefficients: &[f32], channels: usize, bias: Option<&[f32]>, out: &mut [f32]) {
    let plane = coefficients.len() / COEFFICIENTS;
    let (height, filled) = (out.len() / (picture.width * channels), channels.next_multiple_of(LANES));
    for number in 0..plane / filled {
        let (top, left) = picture.corner(number);
        for block in (0..channels).step_by(LANES) {
            let mut half = [[[0.0; LANES]; IN]; OUT];
            for column in 0..IN {
                let mut m = [[0.0; LANES]; IN];
                for (row, m) in m.iter_mut().enumerate() {
                    let start = (row * IN + column) * plane + number * filled + block;
                    m.copy_from_slice(&coefficients[start..start + LANES]);
                }
                let y = carry_back(m);
                for row in 0..OUT {
                    half[row][column] = y[row];
                }
            }
            let count = LANES.min(channels - block);
            let mut add = [0.0; LANES];
            if let Some(bias) = bias {
                add[..count].copy_from_slice(&bias[block..block + count]);
            }
            for (y, half) in half.into_iter().enumerate().take(height.saturating_sub(top)) {
                for (x, mut sums) in carry_back(half).into_iter().enumerate().take(picture.width - left) {
                    sums.iter_mut().zip(&add).for_each(|(sum, add)| *sum += add);
                    let start = ((top + y) * picture.width + left + x) * channels + block;
                    out[start..start + count].copy_from_slice(&sums[..count]);
                }
            }
        }
    }
}

/// The values of a contiguous f32 tensor on the CPU.
fn with_values<T>(x: &Tensor, run: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    run(values(&storage, layout)?)
}

fn values<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(&values[start..end]),
        _ => Err(candle_core::Error::RequiresContiguous { op: "winograd" }),
    }
}

/// The convolution of `x` `(batch, height, width, in)`, `enlarged` times (1 or 2) in each direction by the nearest, with
/// `weight` `(9 * in, out)`, taps from the upper left on, and one zero on all sides, plus `bias` `(out)`; f32 on the CPU,
/// channels as [`applies`] has them.
pub(super) fn convolve(
    x: &Tensor,
    enlarged: usize,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, height, width, input) = x.dims4()?;
    let inputs = height * width * input;
    let (height, width) = (height * enlarged, width * enlarged);
    let output = weight.dim(1)?;
    let kernel = kernel_coefficients(weight)?;
    let picture = Picture { height, width, across: width.div_ceil(OUT), enlarged };
    // Whole rows of tiles.
    let rows = TILES.div_ceil(picture.across);
    let mut out = vec![0f32; batch * height * width * output];
    let bias = bias.map(Tensor::to_vec1::<f32>).transpose()?;
    with_values(x, |x| {
        let pictures = out.par_chunks_exact_mut(height * width * output).zip(x.par_chunks_exact(inputs));
        pictures.try_for_each(|(out, x)| {
            let bands = out.par_chunks_mut(rows * OUT * width * output).enumerate();
            bands.try_for_each(|(number, out)| {
                let count = (out.len() / (width * output)).div_ceil(OUT) * picture.across;
                let mut coefficients = vec![0f32; COEFFICIENTS * count * input];
                gather(picture, x, input, number * rows * picture.across, &mut coefficients);
                let coefficients =
                    Tensor::from_vec(coefficients, (COEFFICIENTS, count, input), kernel.device())?;
                let sums = coefficients.matmul(&kernel)?;
                with_values(&sums, |sums| {
                    scatter(picture, sums, output, bias.as_deref(), out);
                    Ok(())
                })
            })
        })
    })?;
    Tensor::from_vec(out, (batch, height, width, output), x.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn it_equals_the_direct_sum() {
        let shapes = [
            (1, 16, 16, 16, 16, 1),
            (2, 19, 33, 32, 16, 1),
            (1, 64, 70, 16, 48, 2),
            (3, 1, 300, 16, 3, 1),
            (1, 129, 2, 48, 20, 2),
        ];
        for (batch, height, width, input, output, enlarged) in shapes {
            // A mean far from 0, as activations have it, shows what is lost in the sums.
            let x = (random(&[batch, height, width, input]) + 0.5).unwrap();
            let (kernel, bias) = (random(&[output, input, 3, 3]), random(&[output]));
            let weight = kernel.permute((2, 3, 1, 0)).unwrap().reshape((9 * input, output)).unwrap();
            let found = convolve(&x, enlarged, &weight.contiguous().unwrap(), Some(&bias)).unwrap();
            let first = |x: &Tensor| x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let large = first(&x).upsample_nearest2d(height * enlarged, width * enlarged).unwrap();
            let expected = large.conv2d(&kernel, 1, 1, 1, 1).unwrap();
            let expected = expected.broadcast_add(&bias.reshape((1, output, 1, 1)).unwrap()).unwrap();
            let largest = |x: Tensor| {
                x.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
            };
            let off = largest((first(&found) - &expected).unwrap());
            let scale = largest(expected);
            assert!(
                off < 1e-5 * scale,
                "{batch} x {height} x {width} x {input} to {output}: {off} of {scale}"
            );
        }
    }

    #[test]
    fn nan_and_infinity_stay() {
        let weight = random(&[9 * 16, 16]);
        for broken in [f32::NAN, f32::INFINITY] {
            let mut values = vec![0.5; 16 * 16 * 16];
            values[1234] = broken;
            let x = Tensor::from_vec(values, (1, 16, 16, 16), &Device::Cpu).unwrap();
            let out =
                convolve(&x, 1, &weight, None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(out.iter().any(|value| !value.is_finite()));
        }
    }

    #[test]
    fn odd_channels_and_few_tiles_are_left_to_windows() {
        assert!(applies(16, [1, 16, 16, 3]) && !applies(4, [1, 16, 16, 16]) && !applies(16, [3, 8, 8, 16]));
        assert!(applies(320, [1, 32, 32, 320]) && !applies(320, [1, 16, 16, 320]));
    }
}
