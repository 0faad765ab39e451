//! The transformer encoder that both towers of CLIP and of OWLv2 consist of (transformers 5.17, `CLIPEncoder` in
//! `models/clip/modeling_clip.py` and `Owlv2Encoder` in `models/owlv2/modeling_owlv2.py`: the same tensors, the same
//! computation).
//!
//! Hidden states travel as one matrix of shape `(items * tokens, width)`. Attention runs over blocks of queries, so
//! that memory stays bounded whatever the batch and the picture size: OWLv2 at 960 px has 3,601 tokens, whose full
//! scores over 12 heads are 622 MB.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::layers::{Activation, FeedForward, Inner, Linear, Memory, Norm, Sequence, attention};

/// Measures of an encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Non-linearity of the feed-forward blocks.
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

#[derive(Debug, Clone)]
struct Attention {
    norm: Norm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    output: Linear,
    heads: usize,
    causal: bool,
}

impl Attention {
    fn load(config: &EncoderConfig, causal: bool, weights: &VarBuilder<'_>) -> Result<Self> {
        let width = config.hidden_size;
        let own = weights.pp("self_attn");
        let part = |name: &str| -> Result<(Tensor, Option<Tensor>)> {
            let part = own.pp(name);
            Ok((part.get((width, width), "weight")?, Some(part.get(width, "bias")?)))
        };
        Ok(Self {
            norm: Norm::layer(width, config.layer_norm_eps, &weights.pp("layer_norm1"))?,
            qkv: Linear::stack(&[part("q_proj")?, part("k_proj")?, part("v_proj")?])?,
            output: Linear::load(width, width, &own.pp("out_proj"))?,
            heads: config.num_attention_heads,
            causal,
        })
    }

    /// `x` of shape `(items * tokens, width)` plus what its `items` sequences gather.
    fn forward(&self, x: &Tensor, items: usize) -> Result<Tensor> {
        let (qkv, memories) = self.project(x, items)?;
        let tokens = qkv.dim(0)? / items;
        let queries = qkv.narrow(1, 0, self.heads)?;
        let sequences: Vec<_> = (0..items)
            .map(|item| Sequence {
                queries: item * tokens..(item + 1) * tokens,
                memories: vec![item],
                causal: self.causal,
            })
            .collect();
        self.output.forward_add(&attention(&queries, &memories, &sequences, self.scale(x)?)?, x)
    }

    /// Like [`Self::forward`], for one query an item: the token at `positions[item]`. Answers `(items, width)`.
    fn forward_one(&self, x: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let (qkv, mut memories) = self.project(x, positions.len())?;
        let tokens = qkv.dim(0)? / positions.len();
        let mut sequences = Vec::with_capacity(positions.len());
        for (item, (memory, position)) in memories.iter_mut().zip(positions).enumerate() {
            if self.causal {
                // What a mask would hide is left out.
                *memory = memory.first(position + 1)?;
            }
            sequences.push(Sequence { queries: item..item + 1, memories: vec![item], causal: false });
        }
        let queries = pick(&qkv, tokens, positions)?.narrow(1, 0, self.heads)?;
        let mixed = attention(&queries, &memories, &sequences, self.scale(x)?)?;
        self.output.forward_add(&mixed, &pick(x, tokens, positions)?)
    }

    /// Of the normalised `x`: queries, keys and values, `(items * tokens, 3 * heads, head)`, and the keys and values of
    /// each item.
    fn project(&self, x: &Tensor, items: usize) -> Result<(Tensor, Vec<Memory>)> {
        let (rows, width) = x.dims2()?;
        if items == 0 {
            candle_core::bail!("attention over an empty batch");
        }
        let heads = self.heads;
        let qkv = self.qkv.forward_normed(x, &self.norm)?.reshape((rows, 3 * heads, width / heads))?;
        let part = |index: usize| qkv.narrow(1, index * heads, heads);
        let (keys, values) = (part(1)?, part(2)?);
        let tokens = rows / items;
        let own = |item: usize| -> Result<Memory> {
            Ok(Memory::new(keys.narrow(0, item * tokens, tokens)?, values.narrow(0, item * tokens, tokens)?))
        };
        let memories = (0..items).map(own).collect::<Result<_>>()?;
        Ok((qkv, memories))
    }

    fn scale(&self, x: &Tensor) -> Result<f64> {
        Ok(((x.dim(1)? / self.heads) as f64).powf(-0.5))
    }
}

/// The rows of `x` at one position of each item.
fn pick(x: &Tensor, tokens: usize, positions: &[usize]) -> Result<Tensor> {
    let rows: Vec<u32> =
        positions.iter().enumerate().map(|(item, position)| (item * tokens + position) as u32).collect();
    x.index_select(&Tensor::from_vec(rows, positions.len(), x.device())?, 0)
}

#[derive(Debug, Clone)]
struct Layer {
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    fn load(config: &EncoderConfig, causal: bool, weights: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let mlp = weights.pp("mlp");
        Ok(Self {
            attention: Attention::load(config, causal, weights)?,
            feed_forward: FeedForward {
                norm: Norm::layer(width, config.layer_norm_eps, &weights.pp("layer_norm2"))?,
                expand: Linear::load(width, inner, &mlp.pp("fc1"))?,
                inner: Inner::Activation(config.hidden_act),
                contract: Linear::load(inner, width, &mlp.pp("fc2"))?,
            },
        })
    }

    fn forward(&self, x: &Tensor, items: usize) -> Result<Tensor> {
        self.feed_forward.forward(&self.attention.forward(x, items)?)
    }

    fn forward_one(&self, x: &Tensor, positions: &[usize]) -> Result<Tensor> {
        self.feed_forward.forward(&self.attention.forward_one(x, positions)?)
    }
}

/// A stack of pre-norm transformer layers.
#[derive(Debug, Clone)]
pub struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    /// Reads the layers `layers.0`, `layers.1`, ... below `weights`. With `causal` a token sees itself and what
    /// comes before it.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(config: &EncoderConfig, causal: bool, weights: VarBuilder) -> Result<Self> {
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::load(config, causal, &weights.pp("layers").pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// The same encoder with its first `layers` layers only.
    #[must_use]
    pub(crate) fn cut(mut self, layers: usize) -> Self {
        self.layers.truncate(layers);
        self
    }

    /// All hidden states after the last layer. `x` has shape `(items * tokens, width)`, and so has the answer.
    ///
    /// # Errors
    /// A failed tensor operation, also for no items at all.
    pub fn forward(&self, x: Tensor, items: usize) -> Result<Tensor> {
        self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, items))
    }

    /// The hidden state after the last layer of one token an item, at `positions[item]`: the same numbers as in
    /// [`Self::forward`], without computing the others in the last layer. Answers `(items, width)`.
    ///
    /// # Errors
    /// A failed tensor operation, also for no items at all.
    pub fn forward_one(&self, x: Tensor, positions: &[usize]) -> Result<Tensor> {
        let Some((last, others)) = self.layers.split_last() else {
            return pick(&x, x.dim(0)? / positions.len().max(1), positions);
        };
        let x = others.iter().try_fold(x, |x, layer| layer.forward(&x, positions.len()))?;
        last.forward_one(&x, positions)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use candle_nn::VarMap;

    use super::*;

    fn encoder(layers: usize, causal: bool, map: &VarMap) -> Encoder {
        let config = EncoderConfig {
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: layers,
            num_attention_heads: 2,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        };
        Encoder::load(&config, causal, VarBuilder::from_varmap(map, DType::F32, &Device::Cpu)).unwrap()
    }

    fn assert_equal(got: &Tensor, expected: &Tensor) {
        assert_eq!(got.dims(), expected.dims());
        let difference = (got - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-4, "{difference}");
    }

    #[test]
    fn one_token_of_the_last_layer_equals_that_of_all() {
        for causal in [false, true] {
            for layers in [0, 1, 3] {
                let map = VarMap::new();
                let encoder = encoder(layers, causal, &map);
                let x = Tensor::randn(0f32, 1.0, (3 * 7, 8), &Device::Cpu).unwrap();
                let positions = [0, 6, 3];
                let all = encoder.forward(x.copy().unwrap(), 3).unwrap();
                let expected = pick(&all, 7, &positions).unwrap();
                assert_equal(&encoder.forward_one(x, &positions).unwrap(), &expected);
            }
        }
    }

    #[test]
    fn a_token_does_not_see_what_follows_it() {
        let map = VarMap::new();
        let encoder = encoder(2, true, &map);
        let x = Tensor::randn(0f32, 1.0, (7, 8), &Device::Cpu).unwrap();
        let cut = encoder.forward(x.narrow(0, 0, 4).unwrap().contiguous().unwrap(), 1).unwrap();
        let whole = encoder.forward(x, 1).unwrap();
        assert_equal(&cut, &whole.narrow(0, 0, 4).unwrap());
    }
}
