//! `transformer/config.json` of Stable Diffusion 3: `SD3Transformer2DModel` (diffusers 0.42.1,
//! `models/transformers/transformer_sd3.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, Result, check_options, check_sizes, ensure};

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawSd3 {
    sample_size: usize,
    patch_size: usize,
    in_channels: usize,
    num_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    joint_attention_dim: usize,
    caption_projection_dim: usize,
    pooled_projection_dim: usize,
    out_channels: Option<usize>,
    pos_embed_max_size: Option<usize>,
    dual_attention_layers: Vec<usize>,
    qk_norm: Option<String>,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawSd3 {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: Some(96),
            dual_attention_layers: Vec::new(),
            qk_norm: None,
            other: OtherOptions::new(),
        }
    }
}

/// A checked transformer configuration of Stable Diffusion 3.
#[derive(Debug, Clone, PartialEq)]
pub struct Sd3Config {
    /// Side of the latents that the model was trained on.
    pub sample_size: usize,
    /// Side of a patch of latents.
    pub patch: usize,
    /// Channels of the latents, in and out.
    pub channels: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width of the tokens.
    pub width: usize,
    /// Width of the text encoders' states.
    pub text_width: usize,
    /// Width of the pooled text.
    pub pooled_width: usize,
    /// Most patches in each direction.
    pub max_patches: usize,
    /// Blocks whose picture also attends to itself alone (Stable Diffusion 3.5 medium), in rising order.
    pub dual_layers: Vec<usize>,
    /// Whether queries and keys are normalised (3.5).
    pub qk_norm: bool,
}

impl Sd3Config {
    /// Reads and checks `config.json` of the transformer's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawSd3, path: &str) -> Result<Self> {
        check_options(path, &raw.other, &[], &[])?;
        let max_patches = raw.pos_embed_max_size.ok_or_else(|| {
            ModelError::unsupported(path, "`pos_embed_max_size`", "null", "a number of patches")
        })?;
        check_sizes(
            path,
            &[
                ("sample_size", raw.sample_size),
                ("patch_size", raw.patch_size),
                ("in_channels", raw.in_channels),
                ("num_layers", raw.num_layers),
                ("attention_head_dim", raw.attention_head_dim),
                ("num_attention_heads", raw.num_attention_heads),
                ("joint_attention_dim", raw.joint_attention_dim),
                ("pooled_projection_dim", raw.pooled_projection_dim),
                ("pos_embed_max_size", max_patches),
            ],
        )?;
        let width = raw.attention_head_dim * raw.num_attention_heads;
        ensure(raw.caption_projection_dim == width, path, || {
            format!("`caption_projection_dim` is {}, the blocks are {width} wide", raw.caption_projection_dim)
        })?;
        if raw.out_channels.is_some_and(|out| out != raw.in_channels) {
            let what = "`out_channels`";
            let found = format!("{:?}", raw.out_channels);
            return Err(ModelError::unsupported(
                path,
                what,
                found,
                format!("`in_channels` {}", raw.in_channels),
            ));
        }
        let mut dual_layers = raw.dual_attention_layers;
        dual_layers.sort_unstable();
        ensure(dual_layers.last().is_none_or(|last| *last < raw.num_layers), path, || {
            format!("`dual_attention_layers` names a block past the {} of `num_layers`", raw.num_layers)
        })?;
        Ok(Self {
            sample_size: raw.sample_size,
            patch: raw.patch_size,
            channels: raw.in_channels,
            layers: raw.num_layers,
            heads: raw.num_attention_heads,
            width,
            text_width: raw.joint_attention_dim,
            pooled_width: raw.pooled_projection_dim,
            max_patches,
            dual_layers,
            qk_norm: match raw.qk_norm.as_deref() {
                None => false,
                Some("rms_norm") => true,
                Some(found) => {
                    return Err(ModelError::unsupported(path, "`qk_norm`", found, "null or \"rms_norm\""));
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"qk_norm": "layer_norm"}"#, "qk_norm"),
            (r#"{"in_channels": 33}"#, "out_channels"),
            (r#"{"pos_embed_max_size": null}"#, "pos_embed_max_size"),
            (r#"{"caption_projection_dim": 7}"#, "caption_projection_dim"),
            (r#"{"dual_attention_layers": [18]}"#, "dual_attention_layers"),
            (r#"{"force_zeros_for_pooled_projection": 3}"#, "force_zeros"),
            (r#"{"patch_size": 0}"#, "`patch_size` is 0"),
        ] {
            let raw = serde_json::from_str(json).unwrap();
            let error = Sd3Config::build(raw, "transformer/config.json").unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("transformer/config.json"), "{error}");
        }
        assert!(Sd3Config::build(RawSd3::default(), "").is_ok());
    }
}
