//! From latents to pixels: `AutoEncoderKL` of diffusers-rs, told the sizes of `vae/config.json` (diffusers 0.42.1,
//! `models/autoencoders/autoencoder_kl.py`).

use cluegate_abi::PictureBuf;
use diffusers::models::vae::{AutoEncoderKL, AutoEncoderKLConfig};
use serde_json::json;
use tch::{Device, Kind, Tensor, nn};

use crate::error::{Result, TorchError};
use crate::files::{Files, Options};
use crate::unet::check_groups;
use crate::weights;

const CONFIG: &str = "vae/config.json";

/// `sample_size` is only read for tiling; all is computed in 32 bits.
const IGNORED: &[&str] = &["sample_size", "force_upcast"];

/// A loaded VAE.
pub(crate) struct Vae {
    model: AutoEncoderKL,
    scale: f64,
}

impl Vae {
    /// Loads the folder `vae`.
    pub(crate) fn load(files: &mut Files) -> Result<Self> {
        let mut options = Options::read(files, CONFIG)?;
        let channels = options.counts("block_out_channels", &[64], None)?;
        let config = AutoEncoderKLConfig {
            layers_per_block: options.count("layers_per_block", 1)?,
            latent_channels: options.count("latent_channels", 4)?,
            norm_num_groups: options.count("norm_num_groups", 32)?,
            block_out_channels: channels,
        };
        let scale = options.number("scaling_factor", 0.18215)?;
        if scale == 0.0 {
            return Err(TorchError::malformed(&options.path, "`scaling_factor` is 0"));
        }
        let levels = config.block_out_channels.len();
        for (key, value) in [
            ("act_fn", json!("silu")),
            ("in_channels", json!(3)),
            ("out_channels", json!(3)),
            ("down_block_types", json!(vec!["DownEncoderBlock2D"; levels])),
            ("up_block_types", json!(vec!["UpDecoderBlock2D"; levels])),
            ("shift_factor", json!(0)),
            ("use_quant_conv", json!(true)),
            ("use_post_quant_conv", json!(true)),
            ("mid_block_add_attention", json!(true)),
        ] {
            options.only(key, &value)?;
        }
        for channels in &config.block_out_channels {
            check_groups(&options, *channels, config.norm_num_groups)?;
        }
        options.finish(IGNORED)?;
        let mut store = nn::VarStore::new(Device::Cpu);
        let model = AutoEncoderKL::new(store.root(), 3, 3, config);
        let source = weights::Source { folder: "vae", stem: "diffusion_pytorch_model", rename: present_name };
        weights::load(&mut store, files, &source)?;
        Ok(Self { model, scale })
    }

    /// Pixels for one of the latents, in each direction.
    pub(crate) fn factor(&self) -> u32 {
        1 << (self.model.config.block_out_channels.len() - 1)
    }

    /// Channels of the latents.
    pub(crate) fn channels(&self) -> i64 {
        self.model.config.latent_channels
    }

    /// The picture of latents `(1, channels, height, width)` in the scale of the diffusion model. `when` is for the error.
    pub(crate) fn picture(&self, latents: &Tensor, when: &str) -> Result<PictureBuf> {
        let levels = self.model.decode(&(latents / self.scale)) / 2.0 + 0.5;
        if !all_finite(&levels) {
            let what = format!("pixels that are NaN or infinite {when}");
            return Err(TorchError::Generator { what });
        }
        let size = levels.size();
        let bytes = (levels.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8).permute([0, 2, 3, 1]);
        let pixels = Vec::<u8>::try_from(bytes.contiguous().view([-1]))?;
        Ok(PictureBuf::new(pixels, size[3] as u32, size[2] as u32)?)
    }
}

/// Whether no value is NaN or infinite.
pub(crate) fn all_finite(x: &Tensor) -> bool {
    x.isfinite().all().int64_value(&[]) != 0
}

/// diffusers-rs, and files from before diffusers 0.15, have other names for the attention's layers.
fn present_name(name: &str) -> Option<String> {
    let names =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    Some(names.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new)))
}
