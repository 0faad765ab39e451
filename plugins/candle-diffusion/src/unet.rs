//! The denoiser: `UNet2DConditionModel` (diffusers 0.42.1, `models/unets/unet_2d_condition.py` and
//! `unet_2d_blocks.py`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::{UNetConfig, UNetLevel};
use crate::nn::{
    Conv, Downsample, GroupNorm, Linear, ResnetBlock, ResnetShape, SpatialTransformer, TransformerShape,
    Upsample, silu, to_channels_first, to_channels_last,
};

type Result<T> = std::result::Result<T, ModelError>;

/// A residual block and, where the level attends to the text, a transformer.
#[derive(Debug)]
struct Layer {
    resnet: ResnetBlock,
    transformer: Option<SpatialTransformer>,
}

impl Layer {
    fn forward(&self, x: &Tensor, time: &Tensor, text: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.resnet.forward(x, Some(time))?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&x, text),
            None => Ok(x),
        }
    }
}

#[derive(Debug)]
struct DownLevel {
    layers: Vec<Layer>,
    /// At all levels but the last.
    downsample: Option<Downsample>,
}

#[derive(Debug)]
struct UpLevel {
    layers: Vec<Layer>,
    /// At all levels but the last.
    upsample: Option<Upsample>,
}

/// A loaded UNet.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    dtype: DType,
    time_linear_1: Linear,
    time_linear_2: Linear,
    conv_in: Conv,
    down: Vec<DownLevel>,
    mid_first: ResnetBlock,
    mid_transformer: SpatialTransformer,
    mid_last: ResnetBlock,
    up: Vec<UpLevel>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

/// Loads the parts of one UNet.
struct Loader<'a> {
    config: &'a UNetConfig,
    vb: VarBuilder<'static>,
}

impl Loader<'_> {
    fn resnet(&self, name: &str, input: usize, output: usize) -> candle_core::Result<ResnetBlock> {
        let shape = ResnetShape {
            input,
            output,
            time: Some(self.config.time_embedding_dim),
            groups: self.config.norm_groups,
            eps: self.config.norm_eps,
        };
        ResnetBlock::load(&self.vb.pp(name), &shape)
    }

    fn transformer(&self, name: &str, level: &UNetLevel) -> candle_core::Result<SpatialTransformer> {
        let shape = TransformerShape {
            heads: level.heads,
            depth: level.transformer_layers,
            context: self.config.cross_attention_dim,
            groups: self.config.norm_groups,
            linear: self.config.linear_projection,
        };
        SpatialTransformer::load(&self.vb.pp(name), level.channels, &shape)
    }

    fn layer(
        &self,
        block: &str,
        index: usize,
        (input, level): (usize, &UNetLevel),
        attends: bool,
    ) -> candle_core::Result<Layer> {
        Ok(Layer {
            resnet: self.resnet(&format!("{block}.resnets.{index}"), input, level.channels)?,
            transformer: attends
                .then(|| self.transformer(&format!("{block}.attentions.{index}"), level))
                .transpose()?,
        })
    }

    fn down(&self) -> candle_core::Result<Vec<DownLevel>> {
        let levels = &self.config.levels;
        (0..levels.len())
            .map(|i| {
                let (level, name) = (&levels[i], format!("down_blocks.{i}"));
                let before = levels[i.saturating_sub(1)].channels;
                Ok(DownLevel {
                    layers: (0..level.layers)
                        .map(|j| {
                            let input = if j == 0 { before } else { level.channels };
                            self.layer(&name, j, (input, level), level.attends_down)
                        })
                        .collect::<candle_core::Result<_>>()?,
                    downsample: (i + 1 < levels.len())
                        .then(|| {
                            let padding = self.config.downsample_padding;
                            Downsample::load(&self.vb.pp(&name), level.channels, padding)
                        })
                        .transpose()?,
                })
            })
            .collect()
    }

    /// Up blocks are numbered from the lowest resolution. Each of their layers also takes what the way down left
    /// behind, last first: this level's layers, then the downsampled output of the level above (or `conv_in`).
    fn up(&self) -> candle_core::Result<Vec<UpLevel>> {
        let levels = &self.config.levels;
        let n = levels.len();
        (0..n)
            .map(|i| {
                let at = n - 1 - i;
                let (level, name) = (&levels[at], format!("up_blocks.{i}"));
                let below = levels[(at + 1).min(n - 1)].channels;
                let above = levels[at.saturating_sub(1)].channels;
                let count = level.layers + 1;
                Ok(UpLevel {
                    layers: (0..count)
                        .map(|j| {
                            let left = if j + 1 == count { above } else { level.channels };
                            let input = left + if j == 0 { below } else { level.channels };
                            self.layer(&name, j, (input, level), level.attends_up)
                        })
                        .collect::<candle_core::Result<_>>()?,
                    upsample: (i + 1 < n)
                        .then(|| Upsample::load(&self.vb.pp(&name), level.channels))
                        .transpose()?,
                })
            })
            .collect()
    }
}

impl UNet {
    /// Loads the folder `unet`: `config.json` and `diffusion_pytorch_model.safetensors`, sharded or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, dtype: DType, device: &Device) -> Result<Self> {
        let config = UNetConfig::load(tree)?;
        let weights = Weights::load(tree, "diffusion_pytorch_model", dtype, device)?;
        let unet = Self::from_builder(config, weights.builder())?;
        weights.refuse_unused(&[])?;
        Ok(unet)
    }

    /// Builds it from tensors of any source; it computes in the builder's data type.
    ///
    /// # Errors
    /// What the builder reports.
    pub fn from_builder(config: UNetConfig, vb: VarBuilder<'static>) -> Result<Self> {
        let first = config.levels[0].channels;
        let lowest = &config.levels[config.levels.len() - 1];
        let time = config.time_embedding_dim;
        let loader = Loader { config: &config, vb: vb.clone() };
        Ok(Self {
            dtype: vb.dtype(),
            time_linear_1: Linear::load(&vb.pp("time_embedding.linear_1"), first, time)?,
            time_linear_2: Linear::load(&vb.pp("time_embedding.linear_2"), time, time)?,
            conv_in: Conv::load_same(&vb.pp("conv_in"), config.in_channels, first)?,
            down: loader.down()?,
            mid_first: loader.resnet("mid_block.resnets.0", lowest.channels, lowest.channels)?,
            mid_transformer: loader.transformer("mid_block.attentions.0", lowest)?,
            mid_last: loader.resnet("mid_block.resnets.1", lowest.channels, lowest.channels)?,
            up: loader.up()?,
            norm_out: GroupNorm::load(&vb.pp("conv_norm_out"), first, config.norm_groups, config.norm_eps)?,
            conv_out: Conv::load_same(&vb.pp("conv_out"), first, config.out_channels)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// The prediction for `sample` `(batch, in_channels, height, width)` at `timestep`, given the text encoder's
    /// states `text` `(batch, tokens, cross_attention_dim)`: f32, in the shape of the sample with `out_channels`.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that do not fit.
    pub fn forward(&self, sample: &Tensor, timestep: f64, text: &Tensor) -> Result<Tensor> {
        self.run(sample, timestep, text).map_err(|e| ModelError::from(e).at("the UNet"))
    }

    fn run(&self, sample: &Tensor, timestep: f64, text: &Tensor) -> candle_core::Result<Tensor> {
        let sample = if self.config.center_input_sample { sample.affine(2.0, -1.0)? } else { sample.clone() };
        let text = text.to_dtype(self.dtype)?;
        let time = self.time_embedding(timestep, sample.device())?;
        let mut x = self.conv_in.forward(&to_channels_last(&sample.to_dtype(self.dtype)?)?)?;
        let mut left = vec![x.clone()];
        for level in &self.down {
            for layer in &level.layers {
                x = layer.forward(&x, &time, &text)?;
                left.push(x.clone());
            }
            if let Some(downsample) = &level.downsample {
                x = downsample.forward(&x)?;
                left.push(x.clone());
            }
        }
        x = self.mid_first.forward(&x, Some(&time))?;
        x = self.mid_transformer.forward(&x, &text)?;
        x = self.mid_last.forward(&x, Some(&time))?;
        for level in &self.up {
            for layer in &level.layers {
                if let Some(other) = left.pop() {
                    x = layer.forward(&Tensor::cat(&[&x, &other], 3)?, &time, &text)?;
                }
            }
            if let (Some(upsample), Some(next)) = (&level.upsample, left.last()) {
                // Not always twice the size: a side that 2 does not divide was rounded up on the way down.
                x = upsample.forward(&x, (next.dim(1)?, next.dim(2)?))?;
            }
        }
        let out = self.conv_out.forward(&self.norm_out.forward_silu(&x)?)?;
        to_channels_first(&out)?.to_dtype(DType::F32)
    }

    /// The time embedding after SiLU, `(1, width)`: sines and cosines of falling frequency through two layers.
    fn time_embedding(&self, timestep: f64, device: &Device) -> candle_core::Result<Tensor> {
        let width = self.config.levels[0].channels;
        let half = width / 2;
        // In f32 step by step, as the reference: at timestep 1000 the rounding of a frequency shows.
        let gap = half as f32 - self.config.freq_shift as f32;
        let angles: Vec<f32> =
            (0..half).map(|i| timestep as f32 * (-(10_000f64.ln() as f32) * i as f32 / gap).exp()).collect();
        let sines = angles.iter().map(|a| a.sin());
        let cosines = angles.iter().map(|a| a.cos());
        let mut values: Vec<f32> = if self.config.flip_sin_to_cos {
            cosines.chain(sines).collect()
        } else {
            sines.chain(cosines).collect()
        };
        values.resize(width, 0.0);
        let values = Tensor::from_vec(values, (1, width), device)?.to_dtype(self.dtype)?;
        let hidden = silu(&self.time_linear_1.forward(&values)?)?;
        silu(&self.time_linear_2.forward(&hidden)?)
    }
}
