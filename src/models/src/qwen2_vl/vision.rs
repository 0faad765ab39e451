//! The vision tower of Qwen2-VL.
//!
//! Source: `models/qwen2_vl/{configuration,modeling}_qwen2_vl.py` in transformers 5.17
//! (`Qwen2VisionTransformerPretrainedModel`).

use candle_core::Result;
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;
use crate::language::Features;
use crate::layers::{Activation, FeedForward, Inner, Linear, Norm, on_all_cores};
use crate::qwen_vl::{Block, EPSILON, Merger, Patches, RawRope, Stem, VisionConfig, VisionTower, blocks};

/// The tower with its merger.
#[derive(Debug)]
pub(super) struct Tower {
    stem: Stem,
    blocks: Vec<Block>,
    merger: Merger,
    merge: usize,
}

/// Defaults are those of transformers 5.17, which published checkpoints rely on.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    depth: usize,
    embed_dim: usize,
    hidden_size: usize,
    hidden_act: String,
    mlp_ratio: f64,
    num_heads: usize,
    in_channels: usize,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
    rope_parameters: RawRope,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            depth: 32,
            embed_dim: 1280,
            hidden_size: 3584,
            hidden_act: "quick_gelu".to_owned(),
            mlp_ratio: 4.0,
            num_heads: 16,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            rope_parameters: RawRope::default(),
        }
    }
}

impl VisionTower for Tower {
    const FAMILY: &'static str = "qwen2_vl";
    /// The activation of the feed-forward blocks.
    type Extra = Activation;

    fn read(path: &str, config: &Value, hidden: usize) -> crate::error::Result<(VisionConfig, Activation)> {
        let raw = Raw::deserialize(config)
            .map_err(|e| ModelError::malformed(path, format!("`vision_config`: {e}")))?;
        let activation = Activation::from_name(&raw.hidden_act).ok_or_else(|| {
            ModelError::unsupported(path, "vision_config.hidden_act", &raw.hidden_act, Activation::NAMES)
        })?;
        let config = VisionConfig {
            depth: raw.depth,
            width: raw.embed_dim,
            heads: raw.num_heads,
            intermediate: (raw.embed_dim as f64 * raw.mlp_ratio) as usize,
            patch: raw.patch_size,
            merge: raw.spatial_merge_size,
            hidden: raw.hidden_size,
            frames: raw.temporal_patch_size,
            theta: raw.rope_parameters.theta(path)?,
        };
        Ok((config.checked(path, raw.in_channels, "hidden_size", hidden)?, activation))
    }

    fn load(config: &VisionConfig, activation: &Activation, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        let block = |index: usize| {
            let vb = vb.pp("blocks").pp(index);
            let feed_forward = FeedForward {
                norm: Norm::layer(width, EPSILON, &vb.pp("norm2"))?,
                expand: Linear::load(width, inner, &vb.pp("mlp.fc1"))?,
                inner: Inner::Activation(*activation),
                contract: Linear::load(inner, width, &vb.pp("mlp.fc2"))?,
            };
            Block::load(config, &vb, Norm::layer(width, EPSILON, &vb.pp("norm1"))?, feed_forward)
        };
        let merger = vb.pp("merger");
        let norm = Norm::layer(width, EPSILON, &merger.pp("ln_q"))?;
        Ok(Self {
            stem: Stem::load(config, vb, false)?,
            blocks: (0..config.depth).map(block).collect::<Result<Vec<_>>>()?,
            merger: Merger::load(config, &merger, (norm, false), ["mlp.0", "mlp.2"])?,
            merge: config.merge,
        })
    }

    fn forward(&self, patches: &Patches) -> Result<Features> {
        let angles = self.stem.angles(patches, 0..blocks(patches, self.merge))?;
        // Every patch looks at every other one.
        let whole = 0..patches.rows * patches.columns;
        on_all_cores(self.stem.device(), || {
            let mut xs = self.stem.embed(patches)?;
            for block in &self.blocks {
                xs = block.forward(&xs, &angles, std::slice::from_ref(&whole))?;
            }
            Ok(self.merger.forward(&xs)?.into())
        })
    }
}
