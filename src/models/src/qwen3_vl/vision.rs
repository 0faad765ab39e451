//! The vision tower of Qwen3-VL.
//!
//! Source: `models/qwen3_vl/{configuration,modeling}_qwen3_vl.py` in transformers 5.17 (`Qwen3VLVisionModel`), and
//! `get_vision_interpolation_indices_and_weights` in its `vision_utils.py`.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;
use crate::language::Features;
use crate::layers::{Activation, FeedForward, Inner, Linear, Norm, on_all_cores};
use crate::qwen_vl::{
    Block, EPSILON, Merger, Patches, RawRope, Stem, VisionConfig, VisionTower, blocks, ensure, places,
};

/// The tower with its mergers.
#[derive(Debug)]
pub(super) struct Tower {
    stem: Stem,
    positions: Positions,
    blocks: Vec<Block>,
    merger: Merger,
    /// By layer after which they read, in the order of the language model's layers.
    deep: Vec<(usize, Merger)>,
    merge: usize,
}

/// What the configuration has beside the dimensions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Extra {
    activation: Activation,
    /// Learned positions along an edge.
    pub(super) side: usize,
    /// Layers whose features the first layers of the language model get.
    pub(super) deep: Vec<usize>,
}

/// Defaults are those of transformers 5.17, which published checkpoints rely on.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    depth: usize,
    hidden_size: usize,
    hidden_act: String,
    intermediate_size: usize,
    num_heads: usize,
    in_channels: usize,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
    out_hidden_size: usize,
    num_position_embeddings: usize,
    deepstack_visual_indexes: Vec<usize>,
    rope_parameters: RawRope,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            depth: 27,
            hidden_size: 1152,
            hidden_act: "gelu_pytorch_tanh".to_owned(),
            intermediate_size: 4304,
            num_heads: 16,
            in_channels: 3,
            patch_size: 16,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            out_hidden_size: 3584,
            num_position_embeddings: 2304,
            deepstack_visual_indexes: vec![8, 16, 24],
            rope_parameters: RawRope::default(),
        }
    }
}

impl VisionTower for Tower {
    const FAMILY: &'static str = "qwen3_vl";
    type Extra = Extra;

    fn read(path: &str, config: &Value, hidden: usize) -> crate::error::Result<(VisionConfig, Extra)> {
        let raw = Raw::deserialize(config)
            .map_err(|e| ModelError::malformed(path, format!("`vision_config`: {e}")))?;
        let activation = Activation::from_name(&raw.hidden_act).ok_or_else(|| {
            ModelError::unsupported(path, "vision_config.hidden_act", &raw.hidden_act, Activation::NAMES)
        })?;
        let config = VisionConfig {
            depth: raw.depth,
            width: raw.hidden_size,
            heads: raw.num_heads,
            intermediate: raw.intermediate_size,
            patch: raw.patch_size,
            merge: raw.spatial_merge_size,
            hidden: raw.out_hidden_size,
            frames: raw.temporal_patch_size,
            theta: raw.rope_parameters.theta(path)?,
        };
        let config = config.checked(path, raw.in_channels, "out_hidden_size", hidden)?;
        let side = raw.num_position_embeddings.isqrt();
        ensure(path, side > 0 && side * side == raw.num_position_embeddings, || {
            let found = raw.num_position_embeddings;
            format!("`vision_config.num_position_embeddings` is {found}, expected a square number")
        })?;
        let deep = raw.deepstack_visual_indexes;
        let ascending = deep.windows(2).all(|pair| pair[0] < pair[1]);
        ensure(path, ascending && deep.iter().all(|&layer| layer < config.depth), || {
            let depth = config.depth;
            format!(
                "`vision_config.deepstack_visual_indexes` is {deep:?}, expected ascending layers below {depth}"
            )
        })?;
        Ok((config, Extra { activation, side, deep }))
    }

    fn load(config: &VisionConfig, extra: &Extra, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        let block = |index: usize| {
            let vb = vb.pp("blocks").pp(index);
            let feed_forward = FeedForward {
                norm: Norm::layer(width, EPSILON, &vb.pp("norm2"))?,
                expand: Linear::load(width, inner, &vb.pp("mlp.linear_fc1"))?,
                inner: Inner::Activation(extra.activation),
                contract: Linear::load(inner, width, &vb.pp("mlp.linear_fc2"))?,
            };
            Block::load(config, &vb, Norm::layer(width, EPSILON, &vb.pp("norm1"))?, feed_forward)
        };
        let merger = |vb: VarBuilder<'_>, joined: bool| {
            let normed = if joined { width * config.merge * config.merge } else { width };
            let norm = Norm::layer(normed, EPSILON, &vb.pp("norm"))?;
            Merger::load(config, &vb, (norm, joined), ["linear_fc1", "linear_fc2"])
        };
        let deep = |(index, &layer): (usize, &usize)| {
            Ok((layer, merger(vb.pp("deepstack_merger_list").pp(index), true)?))
        };
        Ok(Self {
            stem: Stem::load(config, vb, true)?,
            positions: Positions::load(extra.side, width, &vb.pp("pos_embed"))?,
            blocks: (0..config.depth).map(block).collect::<Result<Vec<_>>>()?,
            merger: merger(vb.pp("merger"), false)?,
            deep: extra.deep.iter().enumerate().map(deep).collect::<Result<Vec<_>>>()?,
            merge: config.merge,
        })
    }

    fn forward(&self, patches: &Patches) -> Result<Features> {
        let angles = self.stem.angles(patches, 0..blocks(patches, self.merge))?;
        let positions = self.positions.of(patches, self.merge)?;
        // Every patch looks at every other one.
        let whole = 0..patches.rows * patches.columns;
        on_all_cores(self.stem.device(), || {
            let xs = self.stem.embed(patches)?;
            let mut xs = (&xs + positions.to_dtype(xs.dtype())?)?;
            let mut deep = Vec::with_capacity(self.deep.len());
            for (layer, block) in self.blocks.iter().enumerate() {
                xs = block.forward(&xs, &angles, std::slice::from_ref(&whole))?;
                if let Some((_, merger)) = self.deep.iter().find(|(after, _)| *after == layer) {
                    deep.push(merger.forward(&xs)?);
                }
            }
            Ok(Features { tokens: self.merger.forward(&xs)?, deep })
        })
    }
}

/// A square of learned positions, stretched over each picture from corner to corner.
#[derive(Debug)]
struct Positions {
    /// `[side * side, width]`, f32.
    table: Tensor,
    side: usize,
}

impl Positions {
    fn load(side: usize, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self { table: vb.get((side * side, width), "weight")?.to_dtype(DType::F32)?, side })
    }

    /// Those of a picture's patches in merge order, `[patches, width]`, f32: each between its four neighbours.
    fn of(&self, patches: &Patches, merge: usize) -> Result<Tensor> {
        let device = self.table.device();
        let count = patches.rows * patches.columns;
        let mut corners: [(Vec<u32>, Vec<f32>); 4] = Default::default();
        for (y, x) in places(patches, merge, 0..blocks(patches, merge)) {
            let rows = between(y, patches.rows, self.side);
            let columns = between(x, patches.columns, self.side);
            for (corner, (indices, shares)) in corners.iter_mut().enumerate() {
                let ((row, of_row), (column, of_column)) = (rows[corner / 2], columns[corner % 2]);
                indices.push((row * self.side + column) as u32);
                shares.push(of_row * of_column);
            }
        }
        let mut sum: Option<Tensor> = None;
        for (indices, shares) in corners {
            let rows = self.table.index_select(&Tensor::from_vec(indices, count, device)?, 0)?;
            let part = rows.broadcast_mul(&Tensor::from_vec(shares, (count, 1), device)?)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        sum.ok_or_else(|| candle_core::Error::msg("a position between no corners"))
    }
}

/// The two of `side` learned positions that position `index` of `length` lies between, and the share of each.
fn between(index: usize, length: usize, side: usize) -> [(usize, f32); 2] {
    // In f32, in the order of the reference.
    let at = index as f32 * (side - 1) as f32 / length.saturating_sub(1).max(1) as f32;
    let low = at.floor();
    let share = at - low;
    let last = side - 1;
    [((low as usize).min(last), 1.0 - share), ((low as usize + 1).min(last), share)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_reach_from_corner_to_corner() {
        assert_eq!(between(0, 7, 5), [(0, 1.0), (1, 0.0)]);
        assert_eq!(between(6, 7, 5), [(4, 1.0), (4, 0.0)]);
        assert_eq!(between(3, 7, 5), [(2, 1.0), (3, 0.0)]);
        assert_eq!(between(1, 5, 3), [(0, 0.5), (1, 0.5)]);
        // One row, one learned position.
        assert_eq!(between(0, 1, 5), [(0, 1.0), (1, 0.0)]);
        assert_eq!(between(2, 4, 1), [(0, 1.0), (0, 0.0)]);
    }
}
