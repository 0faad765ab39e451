//! The transformer encoder that both towers of CLIP and of OWLv2 consist of (transformers 5.17, `CLIPEncoder` in
//! `models/clip/modeling_clip.py` and `Owlv2Encoder` in `models/owlv2/modeling_owlv2.py`: the same tensors, the same
//! computation).
//!
//! Hidden states travel as one matrix of shape `(items * tokens, width)`. Attention runs item by item and, where the
//! scores of one item would be large, over blocks of its queries, so that memory stays bounded whatever the batch
//! and the picture size: OWLv2 at 960 px has 3,601 tokens, whose full scores over 12 heads are 622 MB.

use candle_core::{D, Result, Tensor};
use candle_nn::{LayerNorm, Module, VarBuilder, layer_norm};

use super::activation::{Activation, add_bias, add_bias_activate, add_bias_residual, softmax};

/// Most attention scores that are held at a time; 64 MiB in f32.
const MAX_SCORES: usize = 1 << 24;

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

/// An affine map, `weight` of shape `(out, in)`.
#[derive(Debug, Clone)]
pub(crate) struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    pub(crate) fn load(inputs: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        Ok(Self { weight: weights.get((outputs, inputs), "weight")?, bias: weights.get(outputs, "bias")? })
    }

    /// `x` of shape `(rows, in)` to `(rows, out)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        add_bias(x.matmul(&self.weight.t()?)?, &self.bias)
    }

    pub(crate) fn forward_activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        add_bias_activate(x.matmul(&self.weight.t()?)?, &self.bias, activation)
    }

    fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        add_bias_residual(x.matmul(&self.weight.t()?)?, &self.bias, residual)
    }

    /// The outputs from `start` on, `length` of them.
    fn part(&self, start: usize, length: usize) -> Result<Self> {
        Ok(Self { weight: self.weight.narrow(0, start, length)?, bias: self.bias.narrow(0, start, length)? })
    }
}

#[derive(Debug, Clone)]
struct Attention {
    /// Queries, keys and values in one product; the queries come out scaled.
    qkv: Affine,
    output: Affine,
    heads: usize,
    causal: bool,
}

impl Attention {
    fn load(config: &EncoderConfig, causal: bool, weights: VarBuilder) -> Result<Self> {
        let width = config.hidden_size;
        let heads = config.num_attention_heads;
        let scale = ((width / heads) as f64).powf(-0.5);
        let part = |name: &str| Affine::load(width, width, weights.pp(name));
        let (query, key, value) = (part("q_proj")?, part("k_proj")?, part("v_proj")?);
        let qkv = Affine {
            weight: Tensor::cat(&[&(query.weight * scale)?, &key.weight, &value.weight], 0)?,
            bias: Tensor::cat(&[&(query.bias * scale)?, &key.bias, &value.bias], 0)?,
        };
        Ok(Self { qkv, output: part("out_proj")?, heads, causal })
    }

    /// One item's attention: queries of shape `(queries, width)`, keys and values of shape `(tokens, 2 * width)`,
    /// both possibly views into wider rows. Answers `(queries, width)`.
    fn attend(&self, queries: &Tensor, keys_values: &Tensor, causal: bool) -> Result<Tensor> {
        let (rows, width) = queries.dims2()?;
        let tokens = keys_values.dim(0)?;
        let by_head = |x: &Tensor| x.reshape((x.dim(0)?, self.heads, width / self.heads))?.transpose(0, 1);
        let queries = by_head(queries)?;
        let keys = by_head(&keys_values.narrow(1, 0, width)?)?.transpose(1, 2)?;
        let values = by_head(&keys_values.narrow(1, width, width)?)?;
        // A causal mask needs all queries together; texts are short.
        let block =
            if causal { rows } else { (MAX_SCORES / (self.heads * tokens).max(1)).clamp(1, rows.max(1)) };
        let mut blocks = Vec::with_capacity(rows.div_ceil(block.max(1)));
        for start in (0..rows).step_by(block.max(1)) {
            let part = queries.narrow(1, start, block.min(rows - start))?;
            let weights = softmax(part.matmul(&keys)?, causal)?;
            let mixed = weights.matmul(&values)?.transpose(0, 1)?.contiguous()?;
            blocks.push(mixed.reshape((mixed.dim(0)?, width))?);
        }
        join(blocks)
    }

    /// Attention of `items` sequences in `x` of shape `(items * tokens, width)`; the residual is added.
    fn forward(&self, x: &Tensor, residual: &Tensor, items: usize) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let tokens = rows / items;
        let projected = self.qkv.forward(x)?;
        let mut mixed = Vec::with_capacity(items);
        for item in 0..items {
            let own = projected.narrow(0, item * tokens, tokens)?;
            mixed.push(self.attend(
                &own.narrow(1, 0, width)?,
                &own.narrow(1, width, 2 * width)?,
                self.causal,
            )?);
        }
        self.output.forward_residual(&join(mixed)?, residual)
    }

    /// Like [`Self::forward`], for one query an item: the token at `positions[item]`. Answers `(items, width)`.
    fn forward_one(&self, x: &Tensor, residual: &Tensor, positions: &[usize]) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let tokens = rows / positions.len();
        let queries = self.qkv.part(0, width)?.forward(&pick(x, tokens, positions)?)?;
        let keys_values = self.qkv.part(width, 2 * width)?.forward(x)?;
        let mut mixed = Vec::with_capacity(positions.len());
        for (item, position) in positions.iter().enumerate() {
            // What a causal mask would hide is left out.
            let seen = if self.causal { position + 1 } else { tokens };
            let own = keys_values.narrow(0, item * tokens, seen)?;
            mixed.push(self.attend(&queries.narrow(0, item, 1)?, &own, false)?);
        }
        self.output.forward_residual(&join(mixed)?, &pick(residual, tokens, positions)?)
    }
}

/// One matrix below the other.
fn join(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.pop() {
        Some(only) if parts.is_empty() => Ok(only),
        Some(last) => {
            parts.push(last);
            Tensor::cat(&parts, 0)
        }
        None => candle_core::bail!("attention over an empty batch"),
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
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    expand: Affine,
    activation: Activation,
    contract: Affine,
}

impl Layer {
    fn load(config: &EncoderConfig, causal: bool, weights: VarBuilder) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| layer_norm(width, config.layer_norm_eps, weights.pp(name));
        Ok(Self {
            attention_norm: norm("layer_norm1")?,
            attention: Attention::load(config, causal, weights.pp("self_attn"))?,
            mlp_norm: norm("layer_norm2")?,
            expand: Affine::load(width, inner, weights.pp("mlp").pp("fc1"))?,
            activation: config.hidden_act,
            contract: Affine::load(inner, width, weights.pp("mlp").pp("fc2"))?,
        })
    }

    fn forward(&self, x: &Tensor, items: usize) -> Result<Tensor> {
        self.mlp(&self.attention.forward(&self.attention_norm.forward(x)?, x, items)?)
    }

    fn forward_one(&self, x: &Tensor, positions: &[usize]) -> Result<Tensor> {
        self.mlp(&self.attention.forward_one(&self.attention_norm.forward(x)?, x, positions)?)
    }

    fn mlp(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.expand.forward_activate(&self.mlp_norm.forward(x)?, self.activation)?;
        self.contract.forward_residual(&inner, x)
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
            .map(|index| Layer::load(config, causal, weights.pp("layers").pp(index)))
            .collect::<Result<_>>()?;
        Ok(Self { layers })
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

/// Rows divided by their Euclidean length plus `epsilon`.
pub(crate) fn normalise_rows(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + epsilon)?)
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

    /// OWLv2 at 960 px and beyond: more scores than are held at a time.
    #[test]
    fn blocks_of_queries_change_nothing() {
        let tokens = 3601;
        assert!(2 * tokens * tokens > MAX_SCORES);
        let map = VarMap::new();
        let layer = encoder(1, false, &map).layers.remove(0);
        let x = Tensor::randn(0f32, 1.0, (tokens, 8), &Device::Cpu).unwrap();
        let zero = x.zeros_like().unwrap();
        let got = layer.attention.forward(&x, &zero, 1).unwrap();
        let projected = layer.attention.qkv.forward(&x).unwrap();
        let mut heads = Vec::new();
        for head in 0..2 {
            let part =
                |index: usize| projected.narrow(1, index * 8 + head * 4, 4).unwrap().contiguous().unwrap();
            let scores = part(0).matmul(&part(1).t().unwrap()).unwrap();
            heads.push(candle_nn::ops::softmax_last_dim(&scores).unwrap().matmul(&part(2)).unwrap());
        }
        let expected = layer.attention.output.forward(&Tensor::cat(&heads, 1).unwrap()).unwrap();
        assert_equal(&got, &expected);
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
