//! The small decoder of previews: `AutoencoderTiny`, the layout of TAESD (diffusers 0.42.1,
//! `models/autoencoders/vae.py`, `DecoderTiny`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights, on_all_cores};

use crate::config::{TinyConfig, VaeConfig};
use crate::nn::{Conv, add_to, relu, to_channels_first, to_channels_last};

type Result<T> = std::result::Result<T, ModelError>;

/// Three convolutions, added to what came in.
#[derive(Debug)]
struct Block([Conv; 3]);

impl Block {
    fn load(vb: &VarBuilder, width: usize) -> candle_core::Result<Self> {
        let conv = |place: usize| Conv::load_same(&vb.pp(format!("conv.{place}")), width, width);
        // The activations have numbers too.
        Ok(Self([conv(0)?, conv(2)?, conv(4)?]))
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [first, second, third] = &self.0;
        let out = relu(second.forward(&relu(first.forward(x)?)?)?)?;
        relu(add_to(third.forward(&out)?, x)?)
    }
}

/// A resolution: its blocks, and the convolution after them, of twice their resolution but for the last.
#[derive(Debug)]
struct Level {
    blocks: Vec<Block>,
    conv: Conv,
}

/// A loaded decoder.
#[derive(Debug)]
pub struct TinyDecoder {
    dtype: DType,
    conv_in: Conv,
    levels: Vec<Level>,
}

impl TinyDecoder {
    /// Loads the folder `vae_approx`: `config.json` and `diffusion_pytorch_model.safetensors`, sharded or not. Its encoder, if
    /// it has one, is not looked at.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; one that is made for other latents than those of `vae`; a missing,
    /// misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, vae: &VaeConfig, dtype: DType, device: &Device) -> Result<Self> {
        let config = TinyConfig::load(tree, vae)?;
        let weights = Weights::load(tree, "diffusion_pytorch_model", dtype, device)?;
        let decoder = Self::from_builder(&config, &weights.builder())?;
        let unused = weights.unused();
        let encoder: Vec<&str> =
            unused.iter().map(String::as_str).filter(|name| name.starts_with("encoder.")).collect();
        weights.refuse_unused(&encoder)?;
        Ok(decoder)
    }

    /// Builds it from tensors of any source; it computes in the builder's data type.
    ///
    /// # Errors
    /// What the builder reports.
    pub fn from_builder(config: &TinyConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let width = config.width;
        // In the file layers and activations are numbered through: a convolution and its activation, then the levels.
        let mut places = (0..).map(|place| vb.pp(format!("decoder.layers.{place}")));
        let mut next = || places.next().unwrap_or_else(|| vb.clone());
        let conv_in = Conv::load_same(&next(), config.latent_channels, width)?;
        next();
        let mut levels = Vec::with_capacity(config.blocks.len());
        for (number, count) in config.blocks.iter().enumerate() {
            let blocks =
                (0..*count).map(|_| Block::load(&next(), width)).collect::<candle_core::Result<_>>()?;
            let conv = if number + 1 < config.blocks.len() {
                next(); // the enlargement
                Conv::load_same_without_bias(&next(), width, width)?
            } else {
                Conv::load_same(&next(), width, 3)?
            };
            levels.push(Level { blocks, conv });
        }
        Ok(Self { dtype: vb.dtype(), conv_in, levels })
    }

    /// The picture `(batch, 3, height, width)`, about -1 to 1, f32, of `latents` `(batch, latent_channels, ..)` in the
    /// scale of the diffusion model.
    ///
    /// # Errors
    /// A failed tensor operation.
    pub fn decode_scaled(&self, latents: &Tensor) -> Result<Tensor> {
        let run = || {
            // Outliers are bent to within -3 to 3.
            let x = to_channels_last(
                &latents.affine(1.0 / 3.0, 0.0)?.tanh()?.affine(3.0, 0.0)?.to_dtype(self.dtype)?,
            )?;
            let mut x = relu(self.conv_in.forward(&x)?)?;
            for (number, level) in self.levels.iter().enumerate() {
                for block in &level.blocks {
                    x = block.forward(&x)?;
                }
                x = if number + 1 < self.levels.len() {
                    let (_, height, width, _) = x.dims4()?;
                    level.conv.forward_enlarged(&x, (2 * height, 2 * width))?
                } else {
                    level.conv.forward(&x)?
                };
            }
            to_channels_first(&x)?.to_dtype(DType::F32)?.affine(2.0, -1.0)
        };
        on_all_cores(latents.device(), run).map_err(|e| ModelError::from(e).at("the small decoder"))
    }
}
