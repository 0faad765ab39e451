//! Convolution, group norm and linear layer over `(batch, height, width, channels)`.

use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

use super::ops::{self, GroupNormOp, Windows, add_row, is_fused};
use super::winograd;

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `(in, out)`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Loads `weight` `(out, in)` and `bias` `(out)`.
    pub(crate) fn load(vb: &VarBuilder, input: usize, output: usize) -> Result<Self> {
        Self::build(&vb.get((output, input), "weight")?, Some(vb.get(output, "bias")?))
    }

    /// Loads `weight` `(out, in)` of a layer that has no bias.
    pub(crate) fn load_without_bias(vb: &VarBuilder, input: usize, output: usize) -> Result<Self> {
        Self::build(&vb.get((output, input), "weight")?, None)
    }

    /// Loads a 1x1 convolution, `weight` `(out, in, 1, 1)`: over channels that come last it is a linear layer.
    pub(crate) fn load_pointwise(vb: &VarBuilder, input: usize, output: usize) -> Result<Self> {
        let weight = vb.get((output, input, 1, 1), "weight")?.reshape((output, input))?;
        Self::build(&weight, Some(vb.get(output, "bias")?))
    }

    /// Loads a convolution whose windows of `side` x `side` do not overlap, `weight` `(out, in, side, side)`: over
    /// patches it is a linear layer.
    pub(crate) fn load_patches(
        vb: &VarBuilder,
        (input, side): (usize, usize),
        output: usize,
    ) -> Result<Self> {
        let weight = vb.get((output, input, side, side), "weight")?.reshape((output, input * side * side))?;
        Self::build(&weight, Some(vb.get(output, "bias")?))
    }

    fn build(weight: &Tensor, bias: Option<Tensor>) -> Result<Self> {
        Ok(Self { weight: weight.t()?.contiguous()?, bias })
    }

    /// `(.., in)` to `(.., out)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (input, output) = self.weight.dims2()?;
        let mut dims = x.dims().to_vec();
        let out = x.reshape(((), input))?.matmul(&self.weight)?;
        let out = match &self.bias {
            Some(bias) => add_row(out, bias)?,
            None => out,
        };
        if let Some(last) = dims.last_mut() {
            *last = output;
        }
        out.reshape(dims)
    }
}

/// Zeros around a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// The same number on all sides.
    Even(usize),
    /// One row below and one column to the right.
    BelowRight,
}

/// How the convolution is computed.
#[derive(Debug)]
enum Form {
    /// As matrix products over windows; `(kernel * kernel * in, out)`.
    Windows(Tensor),
    /// By candle; `(out, in, kernel, kernel)`.
    Library(Tensor),
}

/// A convolution with a square kernel.
#[derive(Debug)]
pub(crate) struct Conv {
    form: Form,
    bias: Option<Tensor>,
    kernel: usize,
    stride: usize,
    padding: Padding,
}

/// Bytes of windows that are laid out at a time: few enough to stay in the cache until the matrix product reads them
/// and to bound the memory of a large picture, enough for a good matrix product.
const WINDOW_BYTES: usize = 2 << 20;

impl Conv {
    /// Loads `weight` `(out, in, kernel, kernel)` and `bias` `(out)`.
    pub(crate) fn load(
        vb: &VarBuilder,
        (input, output): (usize, usize),
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        let bias = Some(vb.get(output, "bias")?);
        Ok(Self { bias, ..Self::load_without_bias(vb, (input, output), kernel, stride, padding)? })
    }

    /// A convolution with a 3x3 kernel that keeps height and width.
    pub(crate) fn load_same(vb: &VarBuilder, input: usize, output: usize) -> Result<Self> {
        Self::load(vb, (input, output), 3, 1, Padding::Even(1))
    }

    /// [`Self::load_same`] of a convolution that has no bias.
    pub(crate) fn load_same_without_bias(vb: &VarBuilder, input: usize, output: usize) -> Result<Self> {
        Self::load_without_bias(vb, (input, output), 3, 1, Padding::Even(1))
    }

    fn load_without_bias(
        vb: &VarBuilder,
        (input, output): (usize, usize),
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self> {
        let weight = vb.get((output, input, kernel, kernel), "weight")?;
        let form = if is_fused(&weight) {
            Form::Windows(
                weight.permute((2, 3, 1, 0))?.reshape((kernel * kernel * input, output))?.contiguous()?,
            )
        } else {
            Form::Library(weight)
        };
        Ok(Self { form, bias: None, kernel, stride, padding })
    }

    /// `(batch, height, width, in)` to `(batch, height', width', out)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (before, both) = match self.padding {
            Padding::Even(n) => (n, 2 * n),
            Padding::BelowRight => (0, 1),
        };
        let weight = match &self.form {
            Form::Windows(weight) => weight,
            Form::Library(weight) => return self.by_candle(x, weight, before),
        };
        let (batch, height, width, input) = x.dims4()?;
        if self.keeps_size() && winograd::applies(input, [batch, height, width, weight.dim(1)?]) {
            return winograd::convolve(x, 1, weight, self.bias.as_ref());
        }
        let side = |n: usize| ((n + both).saturating_sub(self.kernel)) / self.stride + 1;
        let (out_height, out_width) = (side(height), side(width));
        let (size, channels) = weight.dims2()?;
        let rows = batch * out_height;
        let band = (WINDOW_BYTES / (4 * size * out_width)).clamp(1, rows);
        let mut bands = Vec::with_capacity(rows.div_ceil(band));
        for first in (0..rows).step_by(band) {
            let windows = Windows {
                kernel: self.kernel,
                stride: self.stride,
                before,
                out: (out_height, out_width),
                first,
                count: band.min(rows - first),
            };
            bands.push(x.apply_op1_no_bwd(&windows)?.matmul(weight)?);
        }
        let out = if bands.len() == 1 { bands.swap_remove(0) } else { Tensor::cat(&bands, 0)? };
        let out = match &self.bias {
            Some(bias) => add_row(out, bias)?,
            None => out,
        };
        out.reshape((batch, out_height, out_width, channels))
    }

    /// [`Self::forward`] of `x` at height and width `size`, by the nearest.
    pub(crate) fn forward_enlarged(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let (batch, height, width, input) = x.dims4()?;
        if let Form::Windows(weight) = &self.form {
            let outputs = [batch, size.0, size.1, weight.dim(1)?];
            if self.keeps_size() && size == (2 * height, 2 * width) && winograd::applies(input, outputs) {
                return winograd::convolve(x, 2, weight, self.bias.as_ref());
            }
        }
        self.forward(&enlarge(x, size)?)
    }

    /// Whether it is of those that [`winograd`] computes.
    fn keeps_size(&self) -> bool {
        (self.kernel, self.stride, self.padding) == (3, 1, Padding::Even(1))
    }

    fn by_candle(&self, x: &Tensor, weight: &Tensor, before: usize) -> Result<Tensor> {
        let mut x = ops::to_channels_first(x)?;
        if self.padding == Padding::BelowRight {
            x = x.pad_with_zeros(D::Minus1, 0, 1)?.pad_with_zeros(D::Minus2, 0, 1)?;
        }
        let out = x.conv2d(weight, before, self.stride, 1, 1)?;
        let out = ops::to_channels_last(&out)?;
        match &self.bias {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

/// `(batch, height, width, channels)` at height and width `size`, by the nearest.
fn enlarge(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    let nearest = |from: usize, to: usize| -> Result<Tensor> {
        let index: Vec<u32> = (0..to).map(|i| (i * from / to) as u32).collect();
        Tensor::from_vec(index, to, x.device())
    };
    x.index_select(&nearest(width, size.1)?, 2)?.index_select(&nearest(height, size.0)?, 1)
}

/// Group norm.
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Loads `weight` and `bias`; `groups` divides `channels`.
    pub(crate) fn load(vb: &VarBuilder, channels: usize, groups: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: vb.get(channels, "weight")?, bias: vb.get(channels, "bias")?, groups, eps })
    }

    /// `(batch, height, width, channels)`, normalised.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, false)
    }

    /// [`Self::forward`], then SiLU.
    pub(crate) fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(x, true)
    }

    fn apply(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        if is_fused(x) {
            let op = GroupNormOp { groups: self.groups, eps: self.eps, silu };
            return x.apply_op3_no_bwd(&self.weight, &self.bias, &op);
        }
        let out = candle_nn::Module::forward(
            &candle_nn::GroupNorm::new(
                self.weight.clone(),
                self.bias.clone(),
                self.weight.elem_count(),
                self.groups,
                self.eps,
            )?,
            &ops::to_channels_first(x)?,
        )?;
        let out = ops::to_channels_last(&out)?;
        if silu { out.silu() } else { Ok(out) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device};

    use super::*;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap()
    }

    fn builder(weight: &Tensor, bias: &Tensor) -> VarBuilder<'static> {
        let tensors =
            HashMap::from([("weight".to_owned(), weight.clone()), ("bias".to_owned(), bias.clone())]);
        VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
    }

    fn difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.shape(), b.shape());
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn windows_and_library_convolve_alike() {
        let cases = [
            (3, 1, Padding::Even(1), (7, 5)),
            (3, 2, Padding::Even(1), (8, 6)),
            (3, 2, Padding::BelowRight, (8, 7)),
            (1, 1, Padding::Even(0), (3, 4)),
            (3, 1, Padding::Even(1), (1, 1)),
        ];
        for (kernel, stride, padding, (height, width)) in cases {
            let (weight, bias) = (random(&[6, 4, kernel, kernel]), random(&[6]));
            let vb = builder(&weight, &bias);
            let fast = Conv::load(&vb, (4, 6), kernel, stride, padding).unwrap();
            let slow = Conv {
                form: Form::Library(weight),
                ..Conv::load(&vb, (4, 6), kernel, stride, padding).unwrap()
            };
            let x = random(&[2, height, width, 4]);
            let error = difference(&fast.forward(&x).unwrap(), &slow.forward(&x).unwrap());
            assert!(error < 1e-5, "{kernel} {stride} {padding:?}: {error}");
        }
    }

    #[test]
    fn a_picture_in_bands_is_the_same() {
        // 600 x 40 outputs of 9 * 16 values: several bands, one of them across two pictures.
        let (weight, bias) = (random(&[3, 16, 3, 3]), random(&[3]));
        let conv = Conv::load_same(&builder(&weight, &bias), 16, 3).unwrap();
        let x = random(&[2, 300, 40, 16]);
        let both = conv.forward(&x).unwrap();
        let second = conv.forward(&x.narrow(0, 1, 1).unwrap().contiguous().unwrap()).unwrap();
        assert!(difference(&both.narrow(0, 1, 1).unwrap(), &second) < 1e-5);
    }

    #[test]
    fn group_norm_equals_candles() {
        let (weight, bias) = (random(&[12]), random(&[12]));
        let norm = GroupNorm::load(&builder(&weight, &bias), 12, 4, 1e-5).unwrap();
        let library = candle_nn::GroupNorm::new(weight, bias, 12, 4, 1e-5).unwrap();
        // A mean far from 0 shows a variance that is computed badly.
        let x = (random(&[2, 50, 31, 12]) + 100.0).unwrap();
        let expected = candle_nn::Module::forward(&library, &ops::to_channels_first(&x).unwrap()).unwrap();
        let expected = ops::to_channels_last(&expected).unwrap();
        assert!(difference(&norm.forward(&x).unwrap(), &expected) < 1e-3);
        assert!(difference(&norm.forward_silu(&x).unwrap(), &expected.silu().unwrap()) < 1e-3);
    }
}
