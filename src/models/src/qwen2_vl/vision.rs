//! The vision tower of Qwen2-VL: patches to the tokens that the language model reads.
//!
//! Source: `models/qwen2_vl/modeling_qwen2_vl.py` in transformers 5.17 (`Qwen2VisionTransformerPretrainedModel`).

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module, VarBuilder, ops::softmax_last_dim};

use super::config::VisionConfig;
use super::image::Patches;
use crate::ops::{quick_gelu, scaled};
use crate::rope::{Angles, inverse_frequencies};

/// Of the layer norms.
const EPSILON: f64 = 1e-6;
/// Base of the two-dimensional rotary positions.
const THETA: f32 = 10_000.0;
/// Most attention scores held at a time: 64 MiB in f32.
const SCORES: usize = 16 * 1024 * 1024;

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
            embed: Linear::new(filters, None),
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
        let values =
            Tensor::from_slice(&patches.values, (count, width), &self.device)?.to_dtype(self.dtype)?;
        let mut xs = self.embed.forward(&values)?;
        let angles = self.angles(patches.rows, patches.columns)?;
        for block in &self.blocks {
            xs = block.forward(&xs, &angles)?;
        }
        self.merger.forward(&xs)
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
    norm1: LayerNorm,
    inputs: Inputs,
    projection: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl Block {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        let qkv = candle_nn::linear(width, 3 * width, vb.pp("attn.qkv"))?;
        Ok(Self {
            norm1: candle_nn::layer_norm(width, EPSILON, vb.pp("norm1"))?,
            inputs: Inputs::new(qkv, width, config.heads)?,
            projection: candle_nn::linear(width, width, vb.pp("attn.proj"))?,
            norm2: candle_nn::layer_norm(width, EPSILON, vb.pp("norm2"))?,
            fc1: candle_nn::linear(width, inner, vb.pp("mlp.fc1"))?,
            fc2: candle_nn::linear(inner, width, vb.pp("mlp.fc2"))?,
            heads: config.heads,
        })
    }

    /// `[patches, width]` to the same.
    fn forward(&self, xs: &Tensor, angles: &Angles) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Inputs::Joint(qkv) = &self.inputs {
            return self.forward_fused(qkv, xs, angles);
        }
        let xs = (xs + self.attention(&self.norm1.forward(xs)?, angles)?)?;
        let inner = quick_gelu(&self.fc1.forward(&self.norm2.forward(&xs)?)?)?;
        &xs + self.fc2.forward(&inner)?
    }

    /// The same on a GPU, in few kernels: biases, rotation, activation and sums pass over memory once.
    #[cfg(feature = "cuda")]
    fn forward_fused(&self, qkv: &Linear, xs: &Tensor, angles: &Angles) -> Result<Tensor> {
        use crate::cuda;
        let (count, width) = xs.dims2()?;
        let (heads, head) = (self.heads, width / self.heads);
        let product = |xs: &Tensor, layer: &Linear| xs.matmul(&layer.weight().t()?);
        let qkv_values = product(&self.norm1.forward(xs)?, qkv)?;
        let turned = (&angles.cos, &angles.sin);
        let all = cuda::bias_rotate(&qkv_values, bias(qkv)?, turned, 3 * heads, 2 * heads)?;
        let all = all.reshape((1, count, 3 * heads, head))?;
        let part = |i: usize| all.narrow(2, i * heads, heads);
        let scale = 1.0 / (head as f32).sqrt();
        let everything = cuda::Visible::default();
        let mixed = cuda::attention(&part(0)?, None, (&part(1)?, &part(2)?), everything, scale)?;
        let mixed = product(&mixed.squeeze(0)?, &self.projection)?;
        let xs = cuda::add_bias(xs, &mixed, bias(&self.projection)?)?;
        let inner = product(&self.norm2.forward(&xs)?, &self.fc1)?;
        let inner = cuda::bias_quick_gelu(&inner, bias(&self.fc1)?)?;
        cuda::add_bias(&xs, &product(&inner, &self.fc2)?, bias(&self.fc2)?)
    }

    /// Every patch looks at every other one.
    fn attention(&self, xs: &Tensor, angles: &Angles) -> Result<Tensor> {
        let Inputs::Apart { query, key, value } = &self.inputs else {
            candle_core::bail!("joint projections are for fused kernels only")
        };
        let (count, width) = xs.dims2()?;
        let (heads, head) = (self.heads, width / self.heads);
        let split = |xs: Tensor| xs.reshape((1, count, heads, head));
        let by_head = |xs: Tensor| xs.squeeze(0)?.transpose(0, 1)?.contiguous();
        let q = by_head(angles.turn(&split(query.forward(xs)?)?)?)?;
        let k = by_head(angles.turn(&split(key.forward(xs)?)?)?)?.t()?;
        let v = by_head(split(value.forward(xs)?)?)?;
        let step = (SCORES / (heads * count)).clamp(1, count);
        let mut parts = Vec::with_capacity(count.div_ceil(step));
        for start in (0..count).step_by(step) {
            let q = q.narrow(1, start, step.min(count - start))?;
            parts.push(softmax_last_dim(&q.matmul(&k)?)?.matmul(&v)?);
        }
        let mixed = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1)? };
        self.projection.forward(&mixed.transpose(0, 1)?.reshape((count, width))?)
    }
}

/// How a block makes queries, keys and values.
#[derive(Debug)]
enum Inputs {
    /// One after the other; queries are scaled by `1 / sqrt(head)`.
    Apart { query: Linear, key: Linear, value: Linear },
    /// In one product, as stored: for the fused kernels of a GPU.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    Joint(Linear),
}

impl Inputs {
    fn new(qkv: Linear, width: usize, heads: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if crate::cuda::applies(qkv.weight()) && crate::cuda::HEADS.contains(&(width / heads)) {
            return Ok(Self::Joint(qkv));
        }
        let part = |i: usize| -> Result<Linear> {
            let bias = qkv.bias().map(|bias| bias.narrow(0, i * width, width)).transpose()?;
            Ok(Linear::new(qkv.weight().narrow(0, i * width, width)?, bias))
        };
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        Ok(Self::Apart { query: scaled(&part(0)?, scale)?, key: part(1)?, value: part(2)? })
    }
}

#[cfg(feature = "cuda")]
fn bias(layer: &Linear) -> Result<&Tensor> {
    layer.bias().ok_or_else(|| candle_core::Error::Msg("a layer of the vision tower has no bias".to_owned()))
}

/// Joins the patches of each block into one token.
#[derive(Debug)]
struct Merger {
    norm: LayerNorm,
    first: Linear,
    second: Linear,
    inner: usize,
}

impl Merger {
    fn load(config: &VisionConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let inner = config.width * config.merge * config.merge;
        Ok(Self {
            norm: candle_nn::layer_norm(config.width, EPSILON, vb.pp("ln_q"))?,
            first: candle_nn::linear(inner, inner, vb.pp("mlp.0"))?,
            second: candle_nn::linear(inner, config.hidden, vb.pp("mlp.2"))?,
            inner,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = self.norm.forward(xs)?.reshape(((), self.inner))?;
        self.second.forward(&self.first.forward(&xs)?.gelu_erf()?)
    }
}
