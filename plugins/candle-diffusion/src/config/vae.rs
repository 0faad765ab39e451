//! `vae/config.json`: `AutoencoderKL` (diffusers 0.42.1, `models/autoencoders/autoencoder_kl.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, check_groups, check_options, ensure};

const FIXED: &[(&str, &[&str])] = &[("act_fn", &["\"silu\"", "\"swish\""])];

/// `sample_size` is only read for tiling; the decoder runs in the pipeline's data type.
const IGNORED: &[&str] = &["sample_size", "force_upcast"];

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawVae {
    in_channels: usize,
    out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    latent_channels: usize,
    norm_num_groups: usize,
    scaling_factor: f64,
    shift_factor: Option<f64>,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawVae {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".to_owned()],
            up_block_types: vec!["UpDecoderBlock2D".to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            other: OtherOptions::new(),
        }
    }
}

/// A checked VAE configuration. Pictures have three channels.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Channels from the highest resolution to the lowest; at least one level.
    pub channels: Vec<usize>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// The diffusion model sees the VAE's latents, less `shift_factor`, times this.
    pub scaling_factor: f64,
    /// See `scaling_factor`; 0 unless the file says otherwise.
    pub shift_factor: f64,
    /// Whether a 1x1 convolution follows the encoder.
    pub quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub post_quant_conv: bool,
    /// Whether the middle blocks hold attention.
    pub mid_attention: bool,
}

impl VaeConfig {
    /// Reads and checks `config.json` of the VAE's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawVae, path: &str) -> Result<Self> {
        check_options(path, &raw.other, FIXED, IGNORED)?;
        let n = raw.block_out_channels.len();
        ensure((1..=8).contains(&n), path, || {
            format!("`block_out_channels` has {n} values, expected 1 to 8")
        })?;
        ensure(raw.down_block_types.len() == n && raw.up_block_types.len() == n, path, || {
            format!("`down_block_types`, `up_block_types` and `block_out_channels` ({n}) differ in length")
        })?;
        for (types, expected) in
            [(&raw.down_block_types, "DownEncoderBlock2D"), (&raw.up_block_types, "UpDecoderBlock2D")]
        {
            if let Some(found) = types.iter().find(|kind| *kind != expected) {
                return Err(ModelError::unsupported(path, "a block type", found, expected));
            }
        }
        for channels in &raw.block_out_channels {
            check_groups(path, *channels, raw.norm_num_groups)?;
        }
        if (raw.in_channels, raw.out_channels) != (3, 3) {
            let found = format!("{} and {}", raw.in_channels, raw.out_channels);
            return Err(ModelError::unsupported(path, "`in_channels` and `out_channels`", found, "3 and 3"));
        }
        ensure(raw.scaling_factor.is_finite() && raw.scaling_factor != 0.0, path, || {
            format!("`scaling_factor` is {}, expected a number other than 0", raw.scaling_factor)
        })?;
        Ok(Self {
            channels: raw.block_out_channels,
            layers: raw.layers_per_block,
            latent_channels: raw.latent_channels,
            norm_groups: raw.norm_num_groups,
            scaling_factor: raw.scaling_factor,
            shift_factor: raw.shift_factor.unwrap_or(0.0),
            quant_conv: raw.use_quant_conv,
            post_quant_conv: raw.use_post_quant_conv,
            mid_attention: raw.mid_block_add_attention,
        })
    }

    /// Pixels of the picture for one of the latents, in each direction.
    pub fn downscale(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<VaeConfig> {
        VaeConfig::build(serde_json::from_str(json).unwrap(), "vae/config.json")
    }

    #[test]
    fn levels_give_the_scale() {
        let config = build(
            r#"{"block_out_channels": [32, 64, 64], "down_block_types": ["DownEncoderBlock2D",
            "DownEncoderBlock2D", "DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D",
            "UpDecoderBlock2D", "UpDecoderBlock2D"], "sample_size": 512, "force_upcast": true}"#,
        )
        .unwrap();
        assert_eq!(config.downscale(), 4);
        assert!((config.scaling_factor - 0.18215).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"latents_mean": [0.1, 0.2, 0.3, 0.4]}"#, "latents_mean"),
            (r#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#, "AttnDownEncoderBlock2D"),
            (r#"{"scaling_factor": 0.0}"#, "scaling_factor"),
            (r#"{"in_channels": 4}"#, "in_channels"),
        ] {
            let error = build(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
