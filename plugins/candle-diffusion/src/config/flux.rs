//! `transformer/config.json` of Flux: `FluxTransformer2DModel` (diffusers 0.42.1,
//! `models/transformers/transformer_flux.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, check_options, check_sizes, ensure};

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawFlux {
    patch_size: usize,
    in_channels: usize,
    out_channels: Option<usize>,
    num_layers: usize,
    num_single_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    joint_attention_dim: usize,
    pooled_projection_dim: usize,
    guidance_embeds: bool,
    axes_dims_rope: Vec<usize>,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawFlux {
    fn default() -> Self {
        Self {
            patch_size: 1,
            in_channels: 64,
            out_channels: None,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: false,
            axes_dims_rope: vec![16, 56, 56],
            other: OtherOptions::new(),
        }
    }
}

/// A checked transformer configuration of Flux.
#[derive(Debug, Clone, PartialEq)]
pub struct FluxConfig {
    /// Channels of the latents; a token holds a patch of 2 x 2.
    pub channels: usize,
    /// Blocks in which picture and text have weights of their own.
    pub layers: usize,
    /// Blocks in which they share them.
    pub single_layers: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width of the tokens.
    pub width: usize,
    /// Width of T5's states.
    pub text_width: usize,
    /// Width of the pooled text.
    pub pooled_width: usize,
    /// Whether the guidance scale is a conditioning (dev), not a second prediction (schnell has neither).
    pub guidance: bool,
    /// Values of a head that turn with the token's number, row and column.
    pub axes: [usize; 3],
}

impl FluxConfig {
    /// Side of the patch that is one token.
    pub const PATCH: usize = 2;

    /// Reads and checks `config.json` of the transformer's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawFlux, path: &str) -> Result<Self> {
        check_options(path, &raw.other, &[], &[])?;
        if raw.patch_size != 1 {
            return Err(ModelError::unsupported(path, "`patch_size`", raw.patch_size, "1"));
        }
        if raw.out_channels.is_some_and(|out| out != raw.in_channels) {
            // As in the variants that are given a picture beside the latents (Fill, Canny, Depth, ..).
            let found = format!("{:?} for `in_channels` {}", raw.out_channels, raw.in_channels);
            return Err(ModelError::unsupported(path, "`out_channels`", found, "as many, or null"));
        }
        let patch = Self::PATCH * Self::PATCH;
        ensure(raw.in_channels.is_multiple_of(patch), path, || {
            format!("`in_channels` is {}, expected a multiple of {patch}", raw.in_channels)
        })?;
        let (head, heads) = (raw.attention_head_dim, raw.num_attention_heads);
        check_sizes(
            path,
            &[
                ("in_channels", raw.in_channels),
                ("attention_head_dim", head),
                ("num_attention_heads", heads),
                ("joint_attention_dim", raw.joint_attention_dim),
                ("pooled_projection_dim", raw.pooled_projection_dim),
            ],
        )?;
        let axes: [usize; 3] = raw.axes_dims_rope.try_into().map_err(|axes: Vec<usize>| {
            ModelError::unsupported(path, "`axes_dims_rope`", format!("{axes:?}"), "three widths")
        })?;
        ensure(axes.iter().sum::<usize>() == head && axes.iter().all(|axis| axis % 2 == 0), path, || {
            format!("`axes_dims_rope` {axes:?} must be even and add up to `attention_head_dim` {head}")
        })?;
        Ok(Self {
            channels: raw.in_channels / patch,
            layers: raw.num_layers,
            single_layers: raw.num_single_layers,
            heads,
            width: head * heads,
            text_width: raw.joint_attention_dim,
            pooled_width: raw.pooled_projection_dim,
            guidance: raw.guidance_embeds,
            axes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"in_channels": 384, "out_channels": 64}"#, "out_channels"),
            (r#"{"patch_size": 2}"#, "patch_size"),
            (r#"{"in_channels": 6}"#, "in_channels"),
            (r#"{"axes_dims_rope": [16, 56]}"#, "axes_dims_rope"),
            (r#"{"axes_dims_rope": [16, 56, 58]}"#, "axes_dims_rope"),
            (r#"{"something_of_next_year": 3}"#, "something_of_next_year"),
        ] {
            let raw = serde_json::from_str(json).unwrap();
            let error = FluxConfig::build(raw, "transformer/config.json").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("transformer/config.json"), "{error}");
        }
        assert_eq!(FluxConfig::build(RawFlux::default(), "").unwrap().channels, 16);
    }
}
