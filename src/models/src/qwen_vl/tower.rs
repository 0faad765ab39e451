//! The parts of which the vision towers are built.
//!
//! Source: `models/{qwen2_vl,qwen2_5_vl,qwen3_vl}/modeling_*.py` and `vision_utils.py` in transformers 5.17.

use std::ops::Range;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use half::bf16;
use rayon::prelude::*;

use super::config::VisionConfig;
use super::image::Patches;
use crate::layers::{Activation, FeedForward, Linear, Memory, Norm, Sequence, Turn, attention};
use crate::rope::{Angles, inverse_frequencies};

/// Of all norms.
pub(crate) const EPSILON: f64 = 1e-6;

/// What comes before the blocks: patches to rows as wide as the tower, and where they are.
#[derive(Debug)]
pub(crate) struct Stem {
    embed: Linear,
    frequencies: Vec<f32>,
    merge: usize,
    device: Device,
    dtype: DType,
}

impl Stem {
    /// `vb` leads to the tower; `bias` says whether the patches' embedding has one.
    pub(crate) fn load(config: &VisionConfig, vb: &VarBuilder<'_>, bias: bool) -> Result<Self> {
        let shape = (config.width, 3, config.frames, config.patch, config.patch);
        let embed = vb.pp("patch_embed.proj");
        // The frames of a still picture are equal, so their filters add up; the patch is then one row of a matrix.
        let filters = embed.get(shape, "weight")?.sum(2)?.flatten_from(1)?;
        let bias = if bias { Some(embed.get(config.width, "bias")?) } else { None };
        Ok(Self {
            embed: Linear::new(&filters, bias.as_ref())?,
            frequencies: inverse_frequencies(config.theta, config.width / config.heads / 2),
            merge: config.merge,
            device: vb.device().clone(),
            dtype: vb.dtype(),
        })
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// `[patches, width]`, in merge order.
    pub(crate) fn embed(&self, patches: &Patches) -> Result<Tensor> {
        let count = patches.rows * patches.columns;
        let width = patches.values.len() / count;
        let values = if self.dtype == DType::BF16 {
            // Converted here: half as much travels to a GPU.
            let values = patches.values.par_iter().map(|&value| bf16::from_f32(value)).collect();
            Tensor::from_vec(values, (count, width), &self.device)?
        } else {
            Tensor::from_slice(&patches.values, (count, width), &self.device)?.to_dtype(self.dtype)?
        };
        self.embed.forward(&values)
    }

    /// Row and column of every patch turn half of a head's pairs each. The patches are those of `blocks`, each of which
    /// becomes a token; blocks are counted in reading order.
    pub(crate) fn angles(&self, patches: &Patches, blocks: impl Iterator<Item = usize>) -> Result<Angles> {
        let pairs = 2 * self.frequencies.len();
        let mut angles = Vec::with_capacity(patches.rows * patches.columns * pairs);
        for (y, x) in places(patches, self.merge, blocks) {
            angles.extend(self.frequencies.iter().map(|f| y as f32 * f));
            angles.extend(self.frequencies.iter().map(|f| x as f32 * f));
        }
        Angles::new(angles, pairs, &self.device, self.dtype)
    }
}

/// Number of blocks of a picture.
pub(crate) fn blocks(patches: &Patches, merge: usize) -> usize {
    patches.rows * patches.columns / (merge * merge)
}

/// Row and column of each patch of the given blocks, in reading order within a block.
pub(crate) fn places(
    patches: &Patches,
    merge: usize,
    blocks: impl Iterator<Item = usize>,
) -> impl Iterator<Item = (usize, usize)> {
    let columns = patches.columns / merge;
    blocks.flat_map(move |block| {
        (0..merge * merge).map(move |inner| {
            ((block / columns) * merge + inner / merge, (block % columns) * merge + inner % merge)
        })
    })
}

/// A pre-norm layer: attention within runs of patches, then the feed-forward block, each added to what came in.
#[derive(Debug)]
pub(crate) struct Block {
    norm: Norm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    projection: Linear,
    feed_forward: FeedForward,
    heads: usize,
}

impl Block {
    /// `vb` leads to the block; norm and feed-forward block differ between families.
    pub(crate) fn load(
        config: &VisionConfig,
        vb: &VarBuilder<'_>,
        norm: Norm,
        feed_forward: FeedForward,
    ) -> Result<Self> {
        let width = config.width;
        Ok(Self {
            norm,
            qkv: Linear::load(width, 3 * width, &vb.pp("attn.qkv"))?,
            projection: Linear::load(width, width, &vb.pp("attn.proj"))?,
            feed_forward,
            heads: config.heads,
        })
    }

    /// `[patches, width]` to the same. Patches look at those of their own run; the runs cover all of them in order.
    pub(crate) fn forward(&self, xs: &Tensor, angles: &Angles, runs: &[Range<usize>]) -> Result<Tensor> {
        self.feed_forward.forward(&self.attend(xs, angles, runs)?)
    }

    fn attend(&self, xs: &Tensor, angles: &Angles, runs: &[Range<usize>]) -> Result<Tensor> {
        let (count, width) = xs.dims2()?;
        let (heads, head) = (self.heads, width / self.heads);
        let turn = Turn { angles, heads: 2 * heads };
        let qkv = self.qkv.forward_turned(xs, Some(&self.norm), turn)?.reshape((count, 3 * heads, head))?;
        let part = |index: usize| qkv.narrow(1, index * heads, heads);
        let (keys, values) = (part(1)?, part(2)?);
        let of_run = |run: &Range<usize>| -> Result<Memory> {
            let part = |tensor: &Tensor| tensor.narrow(0, run.start, run.len());
            Ok(Memory::new(part(&keys)?, part(&values)?))
        };
        let memories = runs.iter().map(of_run).collect::<Result<Vec<_>>>()?;
        let sequence = |(index, run): (usize, &Range<usize>)| Sequence {
            queries: run.clone(),
            memories: vec![index],
            causal: false,
        };
        let sequences: Vec<Sequence> = runs.iter().enumerate().map(sequence).collect();
        let mixed = attention(&part(0)?, &memories, &sequences, (head as f64).powf(-0.5))?;
        self.projection.forward_add(&mixed, xs)
    }
}

/// Joins the patches of each block into one token.
#[derive(Debug)]
pub(crate) struct Merger {
    norm: Norm,
    /// Whether the norm is of the joined patches, or of each.
    joined: bool,
    first: Linear,
    second: Linear,
    inner: usize,
}

impl Merger {
    /// `vb` leads to the merger, `first` and `second` are the names of its two maps.
    pub(crate) fn load(
        config: &VisionConfig,
        vb: &VarBuilder<'_>,
        (norm, joined): (Norm, bool),
        [first, second]: [&str; 2],
    ) -> Result<Self> {
        let inner = config.width * config.merge * config.merge;
        Ok(Self {
            norm,
            joined,
            first: Linear::load(inner, inner, &vb.pp(first))?,
            second: Linear::load(inner, config.hidden, &vb.pp(second))?,
            inner,
        })
    }

    /// `[patches, width]`, block by block, to `[blocks, hidden]`.
    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = if self.joined {
            self.norm.forward(&xs.reshape(((), self.inner))?)?
        } else {
            self.norm.forward(xs)?.reshape(((), self.inner))?
        };
        self.second.forward(&self.first.forward_activate(&xs, Activation::Gelu)?)
    }
}
