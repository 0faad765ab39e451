//! Residual blocks and changes of resolution, shared by UNet and VAE (diffusers 0.42.1, `models/resnet.py`,
//! `models/downsampling.py`, `models/upsampling.py`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::layers::{Conv, GroupNorm, Linear, Padding};
use super::ops::{add_row, add_to};

/// What a [`ResnetBlock`] is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResnetShape {
    pub(crate) input: usize,
    pub(crate) output: usize,
    /// Width of the time embedding, if there is one.
    pub(crate) time: Option<usize>,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
}

/// Two convolutions, each after a group norm and SiLU, added to what came in; the time embedding is added in between.
#[derive(Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Linear>,
}

impl ResnetBlock {
    pub(crate) fn load(vb: &VarBuilder, shape: &ResnetShape) -> Result<Self> {
        let ResnetShape { input, output, time, groups, eps } = *shape;
        Ok(Self {
            norm1: GroupNorm::load(&vb.pp("norm1"), input, groups, eps)?,
            conv1: Conv::load_same(&vb.pp("conv1"), input, output)?,
            time: time.map(|width| Linear::load(&vb.pp("time_emb_proj"), width, output)).transpose()?,
            norm2: GroupNorm::load(&vb.pp("norm2"), output, groups, eps)?,
            conv2: Conv::load_same(&vb.pp("conv2"), output, output)?,
            shortcut: (input != output)
                .then(|| Linear::load_pointwise(&vb.pp("conv_shortcut"), input, output))
                .transpose()?,
        })
    }

    /// `x` `(batch, height, width, input)`; `time` `(1, width)` for the whole batch or `(batch, width)`, after SiLU.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let mut out = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let (Some(layer), Some(time)) = (&self.time, time) {
            let time = layer.forward(time)?;
            out = match time.dims2()? {
                (1, _) => add_row(out, &time.flatten_all()?)?,
                (batch, width) => out.broadcast_add(&time.reshape((batch, 1, 1, width))?)?,
            };
        }
        let out = self.conv2.forward(&self.norm2.forward_silu(&out)?)?;
        match &self.shortcut {
            Some(shortcut) => add_to(out, &shortcut.forward(x)?),
            None => add_to(out, x),
        }
    }
}

/// Halves height and width by a convolution of stride 2.
#[derive(Debug)]
pub(crate) struct Downsample(Conv);

impl Downsample {
    /// `padding` is 1, or 0 for one pixel below and to the right.
    pub(crate) fn load(vb: &VarBuilder, channels: usize, padding: usize) -> Result<Self> {
        let padding = if padding == 0 { Padding::BelowRight } else { Padding::Even(padding) };
        Ok(Self(Conv::load(&vb.pp("downsamplers.0.conv"), (channels, channels), 3, 2, padding)?))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

/// Enlarges to a given size by the nearest pixel, then convolves.
#[derive(Debug)]
pub(crate) struct Upsample(Conv);

impl Upsample {
    pub(crate) fn load(vb: &VarBuilder, channels: usize) -> Result<Self> {
        Ok(Self(Conv::load_same(&vb.pp("upsamplers.0.conv"), channels, channels)?))
    }

    /// To height and width `size`, usually twice those of `x`.
    pub(crate) fn forward(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        self.0.forward_enlarged(x, size)
    }
}
