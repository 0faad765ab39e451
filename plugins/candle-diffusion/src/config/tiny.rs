//! `vae_approx/config.json`: `AutoencoderTiny` (diffusers 0.42.1, `models/autoencoders/autoencoder_tiny.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, VaeConfig, check_options, check_sizes, ensure};

/// Latents are taken as the denoiser has them, so that there is nothing to scale or shift.
const FIXED: &[(&str, &[&str])] = &[
    ("act_fn", &["\"relu\""]),
    ("upsample_fn", &["\"nearest\""]),
    ("upsampling_scaling_factor", &["2"]),
    ("scaling_factor", &["1.0", "1"]),
    ("shift_factor", &["0.0", "0"]),
];

/// What is about the encoder, or repeats another option.
const IGNORED: &[&str] = &[
    "encoder_block_out_channels",
    "num_encoder_blocks",
    "latent_magnitude",
    "latent_shift",
    "force_upcast",
    "block_out_channels",
];

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawTiny {
    in_channels: usize,
    out_channels: usize,
    decoder_block_out_channels: Vec<usize>,
    num_decoder_blocks: Vec<usize>,
    latent_channels: usize,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawTiny {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            decoder_block_out_channels: vec![64; 4],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_channels: 4,
            other: OtherOptions::new(),
        }
    }
}

/// A checked configuration of a small decoder. Pictures have three channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyConfig {
    /// Channels at every resolution.
    pub width: usize,
    /// Blocks from the lowest resolution to the highest, which doubles in between.
    pub blocks: Vec<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
}

impl TinyConfig {
    /// Reads and checks `config.json` of the small autoencoder's folder, which stands in for `vae`.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`; `Malformed` too if it is made for other latents than those of `vae`.
    pub fn load(tree: &FileTree, vae: &VaeConfig) -> Result<Self> {
        let path = tree.path_of("config.json");
        let config = Self::build(tree.read_json("config.json")?, &path)?;
        let (latents, scale) = (config.latent_channels, 1 << (config.blocks.len() - 1));
        ensure((latents, scale) == (vae.latent_channels, vae.downscale()), &path, || {
            format!(
                "made for latents of {latents} channels at 1/{scale} of the picture's size, and this model's VAE has {} at 1/{}",
                vae.latent_channels,
                vae.downscale()
            )
        })?;
        Ok(config)
    }

    fn build(raw: RawTiny, path: &str) -> Result<Self> {
        check_options(path, &raw.other, FIXED, IGNORED)?;
        let (widths, blocks) = (raw.decoder_block_out_channels, raw.num_decoder_blocks);
        ensure((1..=8).contains(&blocks.len()) && widths.len() == blocks.len(), path, || {
            format!(
                "`num_decoder_blocks` has {} values and `decoder_block_out_channels` {}, expected 1 to 8 of both",
                blocks.len(),
                widths.len()
            )
        })?;
        let width = widths[0];
        check_sizes(
            path,
            &[("decoder_block_out_channels", width), ("latent_channels", raw.latent_channels)],
        )?;
        ensure(widths.iter().all(|other| *other == width), path, || {
            format!("`decoder_block_out_channels` is {widths:?}, expected one width for all")
        })?;
        ensure(blocks.iter().all(|count| *count <= 64), path, || {
            format!("`num_decoder_blocks` is {blocks:?}, expected at most 64 each")
        })?;
        if (raw.in_channels, raw.out_channels) != (3, 3) {
            let found = format!("{} and {}", raw.in_channels, raw.out_channels);
            return Err(ModelError::unsupported(path, "`in_channels` and `out_channels`", found, "3 and 3"));
        }
        Ok(Self { width, blocks, latent_channels: raw.latent_channels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<TinyConfig> {
        TinyConfig::build(serde_json::from_str(json).unwrap(), "vae_approx/config.json")
    }

    #[test]
    fn the_published_files_are_understood() {
        // `madebyollin/taesd` at 73b7d1c, and the fields that diffusers 0.42.1 writes beside them.
        let config = build(
            r#"{"_class_name": "AutoencoderTiny", "act_fn": "relu", "decoder_block_out_channels": [64, 64, 64, 64],
            "encoder_block_out_channels": [64, 64, 64, 64], "force_upcast": false, "in_channels": 3,
            "latent_channels": 4, "latent_magnitude": 3, "latent_shift": 0.5, "num_decoder_blocks": [3, 3, 3, 1],
            "num_encoder_blocks": [1, 3, 3, 3], "out_channels": 3, "scaling_factor": 1.0,
            "upsampling_scaling_factor": 2, "block_out_channels": [64, 64, 64, 64], "shift_factor": 0.0,
            "upsample_fn": "nearest"}"#,
        )
        .unwrap();
        assert_eq!(config, TinyConfig { width: 64, blocks: vec![3, 3, 3, 1], latent_channels: 4 });
        assert_eq!(config, build("{}").unwrap());
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"act_fn": "gelu"}"#, "act_fn"),
            (r#"{"scaling_factor": 0.18215}"#, "scaling_factor"),
            (r#"{"upsample_fn": "bilinear"}"#, "upsample_fn"),
            (r#"{"decoder_block_out_channels": [64, 64, 64, 32]}"#, "one width"),
            (r#"{"decoder_block_out_channels": [0, 0, 0, 0]}"#, "expected 1 to"),
            (r#"{"num_decoder_blocks": [3, 1]}"#, "num_decoder_blocks"),
            (r#"{"num_decoder_blocks": [3, 3, 3, 100000]}"#, "at most 64"),
            (r#"{"num_decoder_blocks": [], "decoder_block_out_channels": []}"#, "1 to 8"),
            (r#"{"out_channels": 4}"#, "out_channels"),
            (r#"{"novel": 7}"#, "novel"),
        ] {
            let error = build(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
