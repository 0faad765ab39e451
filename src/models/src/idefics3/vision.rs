//! The vision tower with its connector: tiles to the tokens that the language model reads.
//!
//! Source: `Idefics3VisionTransformer` and `Idefics3Connector` in `models/idefics3/modeling_idefics3.py` of
//! transformers 5.17. Every tile is a full square, so that its patches take the learned positions in order. The
//! reference finds each position by rounding a fraction: in f32 it finds the same for the grids of all published
//! checkpoints (26, 27 and 32 patches), in bf16 and f16 some patches of 26 and 27 get a neighbour's there, not here.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::Config;
use crate::layers::{Linear, on_all_cores};
use crate::siglip::PatchTower;

/// The tower with its connector.
#[derive(Debug)]
pub(super) struct VisionTower {
    tower: PatchTower,
    projection: Linear,
    /// Patches along an edge of a tile.
    side: usize,
    /// Patches along an edge of the square that becomes one token.
    scale: usize,
}

impl VisionTower {
    /// Reads the tensors below `weights` (`model`).
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(super) fn load(config: &Config, weights: &VarBuilder<'_>) -> Result<Self> {
        let inputs = config.vision.encoder.hidden_size * config.scale * config.scale;
        let projection = weights.pp("connector.modality_projection.proj");
        Ok(Self {
            tower: PatchTower::load(&config.vision, &weights.pp("vision_model"))?,
            projection: Linear::load_no_bias(inputs, config.text.hidden, &projection)?,
            side: config.vision.patches_per_side(),
            scale: config.scale,
        })
    }

    /// Tiles of shape `(tiles, 3, edge, edge)` to `[tiles * tokens, hidden]`, tile by tile in reading order.
    ///
    /// # Errors
    /// Tiles of another size, or a failed tensor operation.
    pub(super) fn forward(&self, tiles: &Tensor) -> Result<Tensor> {
        let count = tiles.dim(0)?;
        let states = self.tower.forward(tiles)?;
        let (rest, scale) = (self.side / self.scale, self.scale);
        let width = states.dim(1)?;
        // The patches of each square, row by row, become one long row.
        let squares = states
            .reshape(&[count, rest, scale, rest, scale, width][..])?
            .permute([0, 1, 3, 2, 4, 5])?
            .reshape((count * rest * rest, scale * scale * width))?;
        on_all_cores(tiles.device(), || self.projection.forward(&squares))
    }
}
