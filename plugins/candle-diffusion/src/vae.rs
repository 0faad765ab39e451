//! The picture codec: `AutoencoderKL` (diffusers 0.42.1, `models/autoencoders/autoencoder_kl.py` and `vae.py`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights, on_all_cores};

use crate::config::VaeConfig;
use crate::nn::{
    AttentionBlock, Conv, Downsample, GroupNorm, Linear, ResnetBlock, ResnetShape, Upsample,
    to_channels_first, to_channels_last,
};

type Result<T> = std::result::Result<T, ModelError>;

/// Epsilon of every group norm, fixed in diffusers.
const EPS: f64 = 1e-6;

#[derive(Debug)]
struct Level<T> {
    resnets: Vec<ResnetBlock>,
    /// At all levels but the last.
    resample: Option<T>,
}

/// Two residual blocks around attention, at the lowest resolution.
#[derive(Debug)]
struct Middle {
    first: ResnetBlock,
    attention: Option<AttentionBlock>,
    last: ResnetBlock,
}

impl Middle {
    fn load(vb: &VarBuilder, config: &VaeConfig) -> candle_core::Result<Self> {
        let width = config.channels[config.channels.len() - 1];
        Ok(Self {
            first: resnet(&vb.pp("resnets.0"), config, width, width)?,
            attention: config
                .mid_attention
                .then(|| AttentionBlock::load(&vb.pp("attentions.0"), width, config.norm_groups, EPS))
                .transpose()?,
            last: resnet(&vb.pp("resnets.1"), config, width, width)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.first.forward(x, None)?;
        let x = match &self.attention {
            Some(attention) => attention.forward(&x)?,
            None => x,
        };
        self.last.forward(&x, None)
    }
}

fn resnet(
    vb: &VarBuilder,
    config: &VaeConfig,
    input: usize,
    output: usize,
) -> candle_core::Result<ResnetBlock> {
    ResnetBlock::load(vb, &ResnetShape { input, output, time: None, groups: config.norm_groups, eps: EPS })
}

#[derive(Debug)]
struct Encoder {
    conv_in: Conv,
    levels: Vec<Level<Downsample>>,
    middle: Middle,
    norm_out: GroupNorm,
    conv_out: Conv,
}

impl Encoder {
    fn load(vb: &VarBuilder, config: &VaeConfig) -> candle_core::Result<Self> {
        let channels = &config.channels;
        let n = channels.len();
        let levels = (0..n)
            .map(|i| {
                let vb = vb.pp(format!("down_blocks.{i}"));
                let before = channels[i.saturating_sub(1)];
                let resnets = (0..config.layers)
                    .map(|j| {
                        let input = if j == 0 { before } else { channels[i] };
                        resnet(&vb.pp(format!("resnets.{j}")), config, input, channels[i])
                    })
                    .collect::<candle_core::Result<_>>()?;
                let resample = (i + 1 < n).then(|| Downsample::load(&vb, channels[i], 0)).transpose()?;
                Ok(Level { resnets, resample })
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            conv_in: Conv::load_same(&vb.pp("conv_in"), 3, channels[0])?,
            levels,
            middle: Middle::load(&vb.pp("mid_block"), config)?,
            norm_out: GroupNorm::load(&vb.pp("conv_norm_out"), channels[n - 1], config.norm_groups, EPS)?,
            conv_out: Conv::load_same(&vb.pp("conv_out"), channels[n - 1], 2 * config.latent_channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = self.conv_in.forward(x)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(downsample) = &level.resample {
                x = downsample.forward(&x)?;
            }
        }
        let x = self.middle.forward(&x)?;
        self.conv_out.forward(&self.norm_out.forward_silu(&x)?)
    }
}

#[derive(Debug)]
struct Decoder {
    conv_in: Conv,
    middle: Middle,
    levels: Vec<Level<Upsample>>,
    norm_out: GroupNorm,
    conv_out: Conv,
}

impl Decoder {
    fn load(vb: &VarBuilder, config: &VaeConfig) -> candle_core::Result<Self> {
        let channels = &config.channels;
        let n = channels.len();
        let levels = (0..n)
            .map(|i| {
                let vb = vb.pp(format!("up_blocks.{i}"));
                let at = n - 1 - i;
                let before = channels[(at + 1).min(n - 1)];
                let resnets = (0..=config.layers)
                    .map(|j| {
                        let input = if j == 0 { before } else { channels[at] };
                        resnet(&vb.pp(format!("resnets.{j}")), config, input, channels[at])
                    })
                    .collect::<candle_core::Result<_>>()?;
                let resample = (i + 1 < n).then(|| Upsample::load(&vb, channels[at])).transpose()?;
                Ok(Level { resnets, resample })
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            conv_in: Conv::load_same(&vb.pp("conv_in"), config.latent_channels, channels[n - 1])?,
            middle: Middle::load(&vb.pp("mid_block"), config)?,
            levels,
            norm_out: GroupNorm::load(&vb.pp("conv_norm_out"), channels[0], config.norm_groups, EPS)?,
            conv_out: Conv::load_same(&vb.pp("conv_out"), channels[0], 3)?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = self.middle.forward(&self.conv_in.forward(x)?)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                x = resnet.forward(&x, None)?;
            }
            if let Some(upsample) = &level.resample {
                let (_, height, width, _) = x.dims4()?;
                x = upsample.forward(&x, (2 * height, 2 * width))?;
            }
        }
        self.conv_out.forward(&self.norm_out.forward_silu(&x)?)
    }
}

/// A loaded VAE.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    dtype: DType,
    encoder: Encoder,
    quant_conv: Option<Linear>,
    post_quant_conv: Option<Linear>,
    decoder: Decoder,
}

impl Vae {
    /// Loads the folder `vae`: `config.json` and `diffusion_pytorch_model.safetensors`, sharded or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, dtype: DType, device: &Device) -> Result<Self> {
        let config = VaeConfig::load(tree)?;
        let weights = Weights::load(tree, "diffusion_pytorch_model", dtype, device)?;
        let vae = Self::from_builder(config, &weights.builder())?;
        weights.refuse_unused(&[])?;
        Ok(vae)
    }

    /// Builds it from tensors of any source; it computes in the builder's data type.
    ///
    /// # Errors
    /// What the builder reports.
    pub fn from_builder(config: VaeConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let latent = config.latent_channels;
        let pointwise = |name: &str, present: bool, width: usize| {
            present.then(|| Linear::load_pointwise(&vb.pp(name), width, width)).transpose()
        };
        Ok(Self {
            encoder: Encoder::load(&vb.pp("encoder"), &config)?,
            quant_conv: pointwise("quant_conv", config.quant_conv, 2 * latent)?,
            post_quant_conv: pointwise("post_quant_conv", config.post_quant_conv, latent)?,
            decoder: Decoder::load(&vb.pp("decoder"), &config)?,
            config,
            dtype: vb.dtype(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// The picture `(batch, 3, height, width)`, about -1 to 1, f32, of `latents` `(batch, latent_channels, ..)` in
    /// the VAE's own scale.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let run = || {
            let mut x = to_channels_last(&latents.to_dtype(self.dtype)?)?;
            if let Some(conv) = &self.post_quant_conv {
                x = conv.forward(&x)?;
            }
            to_channels_first(&self.decoder.forward(&x)?)?.to_dtype(DType::F32)
        };
        on_all_cores(latents.device(), run).map_err(|e| ModelError::from(e).at("the VAE's decoder"))
    }

    /// [`Self::decode`] for latents in the scale of the diffusion model.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn decode_scaled(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode(&latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?)
    }

    /// The mean of [`Self::encode_mean`] in the scale of the diffusion model.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn encode_scaled(&self, picture: &Tensor) -> Result<Tensor> {
        let (scale, shift) = (self.config.scaling_factor, self.config.shift_factor);
        Ok(self.encode_mean(picture)?.affine(scale, -shift * scale)?)
    }

    /// The mean of the latents' distribution, f32, in the VAE's own scale, for a picture `(batch, 3, height,
    /// width)` of -1 to 1.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn encode_mean(&self, picture: &Tensor) -> Result<Tensor> {
        let run = || {
            let mut x = self.encoder.forward(&to_channels_last(&picture.to_dtype(self.dtype)?)?)?;
            if let Some(conv) = &self.quant_conv {
                x = conv.forward(&x)?;
            }
            // Means first, then logarithms of the variances.
            to_channels_first(&x.narrow(3, 0, self.config.latent_channels)?)?.to_dtype(DType::F32)
        };
        on_all_cores(picture.device(), run).map_err(|e| ModelError::from(e).at("the VAE's encoder"))
    }
}
