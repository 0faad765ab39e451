//! The denoiser: `UNet2DConditionModel` (diffusers 0.42.1, `models/unets/unet_2d_condition.py` and
//! `unet_2d_blocks.py`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::{UNetConfig, UNetLevel};
use crate::nn::{
    Conv, Downsample, Embedder, GroupNorm, ResnetBlock, ResnetShape, SpatialTransformer, TransformerShape,
    Upsample, sinusoids, to_channels_first, to_channels_last,
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
    time_embedding: Embedder,
    /// Of pooled text and sizes, for SDXL.
    add_embedding: Option<Embedder>,
    conv_in: Conv,
    down: Vec<DownLevel>,
    mid_first: ResnetBlock,
    mid_transformer: SpatialTransformer,
    mid_last: ResnetBlock,
    up: Vec<UpLevel>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

/// What SDXL's UNet is conditioned on beside the text's states.
#[derive(Debug, Clone)]
pub struct Added {
    /// Pooled text, `(batch, width)`.
    pub pooled: Tensor,
    /// Height and width of the original, top and left of the crop, height and width to draw, in pixels.
    pub time_ids: [f64; 6],
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
            time_embedding: Embedder::load(&vb.pp("time_embedding"), first, time)?,
            add_embedding: config
                .added
                .map(|added| Embedder::load(&vb.pp("add_embedding"), added.input, time))
                .transpose()?,
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
        self.forward_added(sample, timestep, text, None)
    }

    /// [`Self::forward`] for a UNet that is also conditioned on pooled text and sizes, SDXL's.
    ///
    /// # Errors
    /// A failed tensor operation; `Tensor` if the UNet takes an added conditioning and there is none, or the other way
    /// round.
    pub fn forward_added(
        &self,
        sample: &Tensor,
        timestep: f64,
        text: &Tensor,
        added: Option<&Added>,
    ) -> Result<Tensor> {
        self.run(sample, timestep, text, added).map_err(|e| ModelError::from(e).at("the UNet"))
    }

    fn run(
        &self,
        sample: &Tensor,
        timestep: f64,
        text: &Tensor,
        added: Option<&Added>,
    ) -> candle_core::Result<Tensor> {
        let sample = if self.config.center_input_sample { sample.affine(2.0, -1.0)? } else { sample.clone() };
        let text = text.to_dtype(self.dtype)?;
        let time = self.time(timestep, added, sample.device())?;
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

    /// The time embedding with what is added to it, after SiLU: `(1, width)`, or `(batch, width)`.
    fn time(&self, timestep: f64, added: Option<&Added>, device: &Device) -> candle_core::Result<Tensor> {
        let form = (self.config.flip_sin_to_cos, self.config.freq_shift);
        let sinusoids = |values: &[f64], width| sinusoids(values, width, form, device);
        let time = sinusoids(&[timestep], self.config.levels[0].channels)?.to_dtype(self.dtype)?;
        let time = self.time_embedding.forward(&time)?;
        let added = match (&self.add_embedding, self.config.added, added) {
            (None, _, None) => return time.silu(),
            (Some(embedder), Some(config), Some(added)) => {
                let batch = added.pooled.dim(0)?;
                let sizes = sinusoids(&added.time_ids, config.time_width)?.reshape((1, ()))?;
                let sizes = sizes.broadcast_as((batch, sizes.dim(1)?))?.to_dtype(self.dtype)?;
                let pooled = added.pooled.to_dtype(self.dtype)?;
                embedder.forward(&Tensor::cat(&[&pooled, &sizes], 1)?)?
            }
            (_, _, found) => {
                let (expected, found) = (self.config.added.is_some(), found.is_some());
                candle_core::bail!("expected an added conditioning: {expected}; found one: {found}")
            }
        };
        added.broadcast_add(&time)?.silu()
    }
}
