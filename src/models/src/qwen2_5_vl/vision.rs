//! The vision tower of Qwen2.5-VL.
//!
//! Source: `models/qwen2_5_vl/{configuration,modeling}_qwen2_5_vl.py` in transformers 5.17
//! (`Qwen2_5_VisionTransformerPretrainedModel`), and `get_vision_window_index` in its `vision_utils.py`.

use std::ops::Range;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;
use crate::language::Features;
use crate::layers::{FeedForward, Inner, Linear, Norm, on_all_cores};
use crate::qwen_vl::{Block, EPSILON, Merger, Patches, RawRope, Stem, VisionConfig, VisionTower, ensure};

/// The tower with its merger.
#[derive(Debug)]
pub(super) struct Tower {
    stem: Stem,
    blocks: Vec<Block>,
    merger: Merger,
    merge: usize,
    windows: Windows,
}

/// Which layers look through windows, and how large these are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Windows {
    /// Edge of a window in tokens.
    edge: usize,
    /// The layers in which every patch looks at every other one.
    whole: Vec<usize>,
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
    window_size: usize,
    out_hidden_size: usize,
    fullatt_block_indexes: Vec<usize>,
    rope_parameters: RawRope,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            depth: 32,
            hidden_size: 3584,
            hidden_act: "silu".to_owned(),
            intermediate_size: 3420,
            num_heads: 16,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            window_size: 112,
            out_hidden_size: 3584,
            fullatt_block_indexes: vec![7, 15, 23, 31],
            rope_parameters: RawRope::default(),
        }
    }
}

impl VisionTower for Tower {
    const FAMILY: &'static str = "qwen2_5_vl";
    type Extra = Windows;

    fn read(path: &str, config: &Value, hidden: usize) -> crate::error::Result<(VisionConfig, Windows)> {
        let raw = Raw::deserialize(config)
            .map_err(|e| ModelError::malformed(path, format!("`vision_config`: {e}")))?;
        if raw.hidden_act != "silu" {
            return Err(ModelError::unsupported(path, "vision_config.hidden_act", raw.hidden_act, "silu"));
        }
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
        let edge = raw.window_size / config.merge / config.patch;
        ensure(path, edge > 0, || {
            let token = config.merge * config.patch;
            format!("`vision_config.window_size` is {}, less than one token of {token}", raw.window_size)
        })?;
        Ok((config, Windows { edge, whole: raw.fullatt_block_indexes }))
    }

    fn load(config: &VisionConfig, windows: &Windows, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        let block = |index: usize| {
            let vb = vb.pp("blocks").pp(index);
            let mlp = vb.pp("mlp");
            let part = |name: &str| -> Result<(Tensor, Option<Tensor>)> {
                let part = mlp.pp(name);
                Ok((part.get((inner, width), "weight")?, Some(part.get(inner, "bias")?)))
            };
            let feed_forward = FeedForward {
                norm: Norm::rms(width, EPSILON, &vb.pp("norm2"))?,
                expand: Linear::stack(&[part("gate_proj")?, part("up_proj")?])?,
                inner: Inner::Gated,
                contract: Linear::load(inner, width, &mlp.pp("down_proj"))?,
            };
            Block::load(config, &vb, Norm::rms(width, EPSILON, &vb.pp("norm1"))?, feed_forward)
        };
        let merger = vb.pp("merger");
        let norm = Norm::rms(width, EPSILON, &merger.pp("ln_q"))?;
        Ok(Self {
            stem: Stem::load(config, vb, false)?,
            blocks: (0..config.depth).map(block).collect::<Result<Vec<_>>>()?,
            merger: Merger::load(config, &merger, (norm, false), ["mlp.0", "mlp.2"])?,
            merge: config.merge,
            windows: windows.clone(),
        })
    }

    fn forward(&self, patches: &Patches) -> Result<Features> {
        let unit = self.merge * self.merge;
        let grid = (patches.rows / self.merge, patches.columns / self.merge);
        let (order, windows) = self.windows.of(grid, unit);
        let whole = 0..patches.rows * patches.columns;
        let angles = self.stem.angles(patches, order.iter().copied())?;
        let device = self.stem.device();
        let index = |values: Vec<u32>| Tensor::new(values, device);
        let in_windows = order.iter().flat_map(|block| block * unit..(block + 1) * unit);
        let in_windows = index(in_windows.map(|patch| patch as u32).collect())?;
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &block)| places[block] = place as u32);
        on_all_cores(device, || {
            // Window by window, so that each is a run of rows.
            let mut xs = self.stem.embed(patches)?.index_select(&in_windows, 0)?;
            for (layer, block) in self.blocks.iter().enumerate() {
                let runs =
                    if self.windows.whole.contains(&layer) { std::slice::from_ref(&whole) } else { &windows };
                xs = block.forward(&xs, &angles, runs)?;
            }
            Ok(self.merger.forward(&xs)?.index_select(&index(places)?, 0)?.into())
        })
    }
}

impl Windows {
    /// The blocks of a picture of so many rows and columns of blocks, window by window, and the patches of each window
    /// if a block has `unit` of them. Windows at the right and at the bottom are cut off.
    fn of(&self, (rows, columns): (usize, usize), unit: usize) -> (Vec<usize>, Vec<Range<usize>>) {
        let (mut order, mut windows) = (Vec::with_capacity(rows * columns), Vec::new());
        for top in (0..rows).step_by(self.edge) {
            for left in (0..columns).step_by(self.edge) {
                let first = order.len();
                for y in top..(top + self.edge).min(rows) {
                    order.extend((left..(left + self.edge).min(columns)).map(|x| y * columns + x));
                }
                windows.push(first * unit..order.len() * unit);
            }
        }
        (order, windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_picture_and_are_cut_off_at_its_edges() {
        let windows = Windows { edge: 2, whole: Vec::new() };
        let (order, runs) = windows.of((3, 3), 4);
        assert_eq!(order, [0, 1, 3, 4, 2, 5, 6, 7, 8]);
        assert_eq!(runs, [0..16, 16..24, 24..32, 32..36]);
    }
}
