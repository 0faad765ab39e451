//! The vision tower of Qwen2-VL: patches to the tokens that the language model reads.
//!
//! Source: `models/qwen2_vl/modeling_qwen2_vl.py` in transformers 5.17 (`Qwen2VisionTransformerPretrainedModel`).

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use half::bf16;
use rayon::prelude::*;

use super::config::VisionConfig;
use super::image::Patches;
use crate::layers::{
    Activation, FeedForward, Inner, Linear, Memory, Norm, Sequence, Turn, attention, on_all_cores,
};
use crate::rope::{Angles, inverse_frequencies};

/// Of the layer norms.
const EPSILON: f64 = 1e-6;
/// Base of the two-dimensional rotary positions.
const THETA: f32 = 10_000.0;

/// The tower with its merger.
#[derive(Debug)]
pub(super) struct VisionTower {
    embed: Linear,
    blocks: Vec<Block>,
    merger: Merger,
    frequencies: Vec<f32>,
    merge: usize,
    device: Device,
    dtype: DType,
}

impl VisionTower {
    pub(super) fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = (config.width, 3, config.frames, config.patch, config.patch);
        // The frames of a still picture are equal, so their filters add up; the patch is then one row of a matrix.
        let filters = vb.get(shape, "patch_embed.proj.weight")?.sum(2)?.flatten_from(1)?;
        let blocks = (0..config.depth)
            .map(|i| Block::load(config, &vb.pp("blocks").pp(i)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            embed: Linear::new(&filters, None)?,
            blocks,
            merger: Merger::load(config, &vb.pp("merger"))?,
            frequencies: inverse_frequencies(THETA, config.width / config.heads / 2),
            merge: config.merge,
            device: vb.device().clone(),
            dtype: vb.dtype(),
        })
    }

    /// Features of one picture, `[rows * columns / merge^2, hidden]` in reading order.
    pub(super) fn forward(&self, patches: &Patches) -> Result<Tensor> {
        let count = patches.rows * patches.columns;
        let width = patches.values.len() / count;
        let values = if self.dtype == DType::BF16 {
            // Converted here: half as much travels to a GPU.
            let values = patches.values.par_iter().map(|&value| bf16::from_f32(value)).collect();
            Tensor::from_vec(values, (count, width), &self.device)?
        } else {
            Tensor::from_slice(&patches.values, (count, width), &self.device)?.to_dtype(self.dtype)?
        };
        let angles = self.angles(patches.rows, patches.columns)?;
        on_all_cores(&self.device, || {
            let mut xs = self.embed.forward(&values)?;
            for block in &self.blocks {
                xs = block.forward(&xs, &angles)?;
            }
            self.merger.forward(&xs)
        })
    }

    /// Row and column of every patch turn half of a head's pairs each; patches in merge order.
    fn angles(&self, rows: usize, columns: usize) -> Result<Angles> {
        let m = self.merge;
        let pairs = 2 * self.frequencies.len();
        let mut angles = Vec::with_capacity(rows * columns * pairs);
        for block in 0..(rows / m) * (columns / m) {
            let (block_y, block_x) = (block / (columns / m), block % (columns / m));
            for inner in 0..m * m {
                let (y, x) = (block_y * m + inner / m, block_x * m + inner % m);
                angles.extend(self.frequencies.iter().map(|f| y as f32 * f));
                angles.extend(self.frequencies.iter().map(|f| x as f32 * f));
            }
        }
        Angles::new(angles, pairs, &self.device, self.dtype)
    }
}

#[derive(Debug)]
struct Block {
    norm: Norm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    projection: Linear,
    feed_forward: FeedForward,
    heads: usize,
}

impl Block {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        Ok(Self {
            norm: Norm::layer(width, EPSILON, &vb.pp("norm1"))?,
            qkv: Linear::load(width, 3 * width, &vb.pp("attn.qkv"))?,
            projection: Linear::load(width, width, &vb.pp("attn.proj"))?,
            feed_forward: FeedForward {
                norm: Norm::layer(width, EPSILON, &vb.pp("norm2"))?,
                expand: Linear::load(width, inner, &vb.pp("mlp.fc1"))?,
                inner: Inner::Activation(Activation::QuickGelu),
                contract: Linear::load(inner, width, &vb.pp("mlp.fc2"))?,
            },
            heads: config.heads,
        })
    }

    /// `[patches, width]` to the same.
    fn forward(&self, xs: &Tensor, angles: &Angles) -> Result<Tensor> {
        self.feed_forward.forward(&self.attend(xs, angles)?)
    }

    /// Every patch looks at every other one; what it gathers is added.
    fn attend(&self, xs: &Tensor, angles: &Angles) -> Result<Tensor> {
        let (count, width) = xs.dims2()?;
        let (heads, head) = (self.heads, width / self.heads);
        let turn = Turn { angles, heads: 2 * heads };
        let qkv = self.qkv.forward_turned(xs, Some(&self.norm), turn)?.reshape((count, 3 * heads, head))?;
        let part = |index: usize| qkv.narrow(1, index * heads, heads);
        let memory = Memory::new(part(1)?, part(2)?);
        let whole = Sequence { queries: 0..count, memories: vec![0], causal: false };
        let mixed = attention(&part(0)?, &[memory], &[whole], (head as f64).powf(-0.5))?;
        self.projection.forward_add(&mixed, xs)
    }
}

/// Joins the patches of each block into one token.
#[derive(Debug)]
struct Merger {
    norm: Norm,
    first: Linear,
    second: Linear,
    inner: usize,
}

impl Merger {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let inner = config.width * config.merge * config.merge;
        Ok(Self {
            norm: Norm::layer(config.width, EPSILON, &vb.pp("ln_q"))?,
            first: Linear::load(inner, inner, &vb.pp("mlp.0"))?,
            second: Linear::load(inner, config.hidden, &vb.pp("mlp.2"))?,
            inner,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = self.norm.forward(xs)?.reshape(((), self.inner))?;
        self.second.forward(&self.first.forward_activate(&xs, Activation::Gelu)?)
    }
}
