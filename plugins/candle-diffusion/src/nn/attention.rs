//! Attention over positions of a picture and over the text.

use candle_core::{Result, Tensor};
use candle_nn::{LayerNorm, Module, VarBuilder, layer_norm};

use super::layers::{GroupNorm, Linear};
use super::ops::{add_to, gated_gelu, softmax};

/// Bytes of attention scores that are held at a time: queries are taken in parts, so that the scores stay in the cache
/// and the memory of a large picture is bounded.
const SCORE_BYTES: usize = 8 << 20;

/// Scaled dot-product attention: `query` `(batch, n, width)`, `key` and `value` `(batch, m, width)`, split into
/// `heads`; answers `(batch, n, width)`.
pub(crate) fn attend(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, n, width) = query.dims3()?;
    let m = key.dim(1)?;
    let size = width / heads;
    let split = |x: &Tensor, length: usize| {
        x.reshape((batch, length, heads, size))?.transpose(1, 2)?.reshape((batch * heads, length, size))
    };
    let (query, key, value) = (split(query, n)?, split(key, m)?.t()?, split(value, m)?);
    let scale = 1.0 / (size as f64).sqrt();
    let part = (SCORE_BYTES / (4 * batch * heads * m)).clamp(1, n);
    let mut parts = Vec::with_capacity(n.div_ceil(part));
    for first in (0..n).step_by(part) {
        let query = query.narrow(1, first, part.min(n - first))?.contiguous()?;
        parts.push(softmax(query.matmul(&key)?, scale)?.matmul(&value)?);
    }
    let out = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(&parts, 1)? };
    out.reshape((batch, heads, n, size))?.transpose(1, 2)?.reshape((batch, n, width))
}

/// Attention whose keys and values come from the picture itself or from the text.
#[derive(Debug)]
struct CrossAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl CrossAttention {
    fn load(vb: &VarBuilder, width: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            to_q: Linear::load_without_bias(&vb.pp("to_q"), width, width)?,
            to_k: Linear::load_without_bias(&vb.pp("to_k"), context, width)?,
            to_v: Linear::load_without_bias(&vb.pp("to_v"), context, width)?,
            to_out: Linear::load(&vb.pp("to_out.0"), width, width)?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (query, key, value) =
            (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        self.to_out.forward(&attend(&query, &key, &value, self.heads)?)
    }
}

/// Self-attention, attention to the text, feed-forward, each after a layer norm and added to what came in
/// (`BasicTransformerBlock`, diffusers 0.42.1, `models/attention.py`).
#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: CrossAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    expand: Linear,
    contract: Linear,
}

impl TransformerBlock {
    fn load(vb: &VarBuilder, width: usize, shape: &TransformerShape) -> Result<Self> {
        /// The layer norms' epsilon and the feed-forward's widening are fixed in diffusers.
        const EPS: f64 = 1e-5;
        const WIDENING: usize = 4;
        let inner = width * WIDENING;
        Ok(Self {
            norm1: layer_norm(width, EPS, vb.pp("norm1"))?,
            attn1: CrossAttention::load(&vb.pp("attn1"), width, width, shape.heads)?,
            norm2: layer_norm(width, EPS, vb.pp("norm2"))?,
            attn2: CrossAttention::load(&vb.pp("attn2"), width, shape.context, shape.heads)?,
            norm3: layer_norm(width, EPS, vb.pp("norm3"))?,
            expand: Linear::load(&vb.pp("ff.net.0.proj"), width, 2 * inner)?,
            contract: Linear::load(&vb.pp("ff.net.2"), inner, width)?,
        })
    }

    fn forward(&self, x: &Tensor, text: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let x = add_to(self.attn1.forward(&normed, &normed)?, x)?;
        let x = add_to(self.attn2.forward(&self.norm2.forward(&x)?, text)?, &x)?;
        let wide = gated_gelu(&self.expand.forward(&self.norm3.forward(&x)?)?)?;
        add_to(self.contract.forward(&wide)?, &x)
    }
}

/// What a [`SpatialTransformer`] is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransformerShape {
    pub(crate) heads: usize,
    /// Transformer blocks.
    pub(crate) depth: usize,
    /// Width of the text encoder's states.
    pub(crate) context: usize,
    pub(crate) groups: usize,
    /// Whether the projections are stored as linear layers, not as 1x1 convolutions.
    pub(crate) linear: bool,
}

/// Transformer blocks over the positions of a picture, added to it (`Transformer2DModel`, diffusers 0.42.1,
/// `models/transformers/transformer_2d.py`).
#[derive(Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl SpatialTransformer {
    pub(crate) fn load(vb: &VarBuilder, width: usize, shape: &TransformerShape) -> Result<Self> {
        let project = |name: &str| {
            let vb = vb.pp(name);
            if shape.linear {
                Linear::load(&vb, width, width)
            } else {
                Linear::load_pointwise(&vb, width, width)
            }
        };
        let blocks = (0..shape.depth)
            .map(|i| TransformerBlock::load(&vb.pp(format!("transformer_blocks.{i}")), width, shape))
            .collect::<Result<_>>()?;
        Ok(Self {
            norm: GroupNorm::load(&vb.pp("norm"), width, shape.groups, 1e-6)?,
            proj_in: project("proj_in")?,
            blocks,
            proj_out: project("proj_out")?,
        })
    }

    /// `x` `(batch, height, width, channels)` and `text` `(batch, tokens, context)`.
    pub(crate) fn forward(&self, x: &Tensor, text: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let tokens = self.norm.forward(x)?.reshape((batch, height * width, channels))?;
        let mut tokens = self.proj_in.forward(&tokens)?;
        for block in &self.blocks {
            tokens = block.forward(&tokens, text)?;
        }
        add_to(self.proj_out.forward(&tokens)?.reshape(x.shape())?, x)
    }
}

/// Self-attention with one head, added to the picture (`Attention` with a group norm, as the VAE uses it: diffusers
/// 0.42.1, `models/attention_processor.py`).
#[derive(Debug)]
pub(crate) struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    /// Loads it under its present tensor names, or those from before diffusers 0.15.
    pub(crate) fn load(vb: &VarBuilder, width: usize, groups: usize, eps: f64) -> Result<Self> {
        let names = if vb.contains_tensor("query.weight") {
            ["query", "key", "value", "proj_attn"]
        } else {
            ["to_q", "to_k", "to_v", "to_out.0"]
        };
        let [to_q, to_k, to_v, to_out] = names.map(|name| Linear::load(&vb.pp(name), width, width));
        Ok(Self {
            group_norm: GroupNorm::load(&vb.pp("group_norm"), width, groups, eps)?,
            to_q: to_q?,
            to_k: to_k?,
            to_v: to_v?,
            to_out: to_out?,
        })
    }

    /// `(batch, height, width, channels)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let tokens = self.group_norm.forward(x)?.reshape((batch, height * width, channels))?;
        let (query, key, value) =
            (self.to_q.forward(&tokens)?, self.to_k.forward(&tokens)?, self.to_v.forward(&tokens)?);
        add_to(self.to_out.forward(&attend(&query, &key, &value, 1)?)?.reshape(x.shape())?, x)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};

    use super::*;

    #[test]
    fn attention_in_parts_equals_attention_at_once() {
        let random = |n: usize| Tensor::randn(0f32, 1f32, (2, n, 8), &Device::Cpu).unwrap();
        // 2 x 2 heads x 3000 x 3000 scores are over the limit.
        let (query, key, value) = (random(3000), random(3000), random(3000));
        let out = attend(&query, &key, &value, 2).unwrap();
        let head = |x: &Tensor, batch: usize, h: usize| {
            x.narrow(0, batch, 1)
                .unwrap()
                .squeeze(0)
                .unwrap()
                .narrow(1, 4 * h, 4)
                .unwrap()
                .contiguous()
                .unwrap()
        };
        for (batch, h) in [(0, 0), (1, 1)] {
            let scores =
                (head(&query, batch, h).matmul(&head(&key, batch, h).t().unwrap()).unwrap() * 0.5).unwrap();
            let expected = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
            let expected = expected.matmul(&head(&value, batch, h)).unwrap();
            let error = (head(&out, batch, h) - expected).unwrap().abs().unwrap().flatten_all().unwrap();
            assert!(error.max(0).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        }
    }
}
