//! The longer prompt encoder of Stable Diffusion 3 and Flux: the encoder of T5 1.1 (transformers 5.17,
//! `models/t5/modeling_t5.py`).

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Embedding, Module, VarBuilder, embedding};
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::T5Config;
use crate::nn::{Linear, RmsNorm};

type Result<T> = std::result::Result<T, ModelError>;

#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    feed_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn load(vb: &VarBuilder, config: &T5Config) -> candle_core::Result<Self> {
        let (width, heads) = (config.width, config.heads * config.head_width);
        let (attention, feed) = (vb.pp("layer.0.SelfAttention"), vb.pp("layer.1.DenseReluDense"));
        let linear = |vb: &VarBuilder, name: &str, from: usize, to: usize| {
            Linear::load_without_bias(&vb.pp(name), from, to)
        };
        Ok(Self {
            attention_norm: RmsNorm::load(&vb.pp("layer.0.layer_norm"), width, config.eps)?,
            q: linear(&attention, "q", width, heads)?,
            k: linear(&attention, "k", width, heads)?,
            v: linear(&attention, "v", width, heads)?,
            o: linear(&attention, "o", heads, width)?,
            feed_norm: RmsNorm::load(&vb.pp("layer.1.layer_norm"), width, config.eps)?,
            gate: linear(&feed, "wi_0", width, config.inner)?,
            up: linear(&feed, "wi_1", width, config.inner)?,
            down: linear(&feed, "wo", config.inner, width)?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &Tensor, config: &T5Config) -> candle_core::Result<Tensor> {
        let x = (self.attention(&self.attention_norm.forward(x)?, bias, config)? + x)?;
        let normed = self.feed_norm.forward(&x)?;
        // `gelu` of candle is the approximation by a hyperbolic tangent, transformers' `gelu_new`.
        let hidden = (self.gate.forward(&normed)?.gelu()? * self.up.forward(&normed)?)?;
        self.down.forward(&hidden)? + x
    }

    fn attention(&self, x: &Tensor, bias: &Tensor, config: &T5Config) -> candle_core::Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let (heads, size) = (config.heads, config.head_width);
        let split = |x: Tensor| x.reshape((batch, tokens, heads, size))?.transpose(1, 2)?.contiguous();
        let (query, key, value) =
            (split(self.q.forward(x)?)?, split(self.k.forward(x)?)?, split(self.v.forward(x)?)?);
        // T5 does not scale the scores; its weights do.
        let scores = query.matmul(&key.t()?)?.to_dtype(DType::F32)?.broadcast_add(bias)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(x.dtype())?;
        let out = weights.matmul(&value)?.transpose(1, 2)?.reshape((batch, tokens, heads * size))?;
        self.o.forward(&out)
    }
}

/// A loaded encoder of T5.
#[derive(Debug)]
pub struct T5Encoder {
    config: T5Config,
    token_embedding: Embedding,
    /// Bias of the attention scores by class of distance, `(buckets, heads)`, f32; all layers share the first one's.
    distance_bias: Tensor,
    layers: Vec<Layer>,
    final_norm: RmsNorm,
}

impl T5Encoder {
    /// Loads the folder of a `T5EncoderModel`: `config.json` and `model.safetensors`, sharded or not. It computes in
    /// `dtype`, but in f32 instead of f16, whose range T5's states leave.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, dtype: DType, device: &Device) -> Result<Self> {
        let config = T5Config::load(tree)?;
        let dtype = if dtype == DType::F16 { DType::F32 } else { dtype };
        let weights = Weights::load(tree, "model", dtype, device)?;
        let vb = weights.builder();
        // One matrix under two names; files have the one, the other, or both.
        let names = ["shared", "encoder.embed_tokens"];
        let table =
            names.iter().find(|name| weights.contains(&format!("{name}.weight"))).unwrap_or(&names[0]);
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let encoder = Self {
            token_embedding: embedding(config.vocab_size, config.width, vb.pp(table))?,
            distance_bias: vb.get((config.buckets, config.heads), bias)?.to_dtype(DType::F32)?,
            layers: (0..config.layers)
                .map(|i| Layer::load(&vb.pp(format!("encoder.block.{i}")), &config))
                .collect::<candle_core::Result<_>>()?,
            final_norm: RmsNorm::load(&vb.pp("encoder.final_layer_norm"), config.width, config.eps)?,
            config,
        };
        weights.refuse_unused(&["encoder.embed_tokens.weight"])?;
        Ok(encoder)
    }

    /// The configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// States `(batch, tokens, width)` in f32 of token ids `(batch, tokens)`. Every token sees every other, padding
    /// included, as the diffusion models were trained.
    ///
    /// # Errors
    /// A failed tensor operation, such as an id outside the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let run = || {
            let bias = self.bias(ids.dim(1)?)?;
            let mut x = self.token_embedding.forward(ids)?;
            for layer in &self.layers {
                x = layer.forward(&x, &bias, &self.config)?;
            }
            self.final_norm.forward(&x)?.to_dtype(DType::F32)
        };
        run().map_err(|e| ModelError::from(e).at("the T5 text encoder"))
    }

    /// What is added to the scores of every query and key, `(1, heads, tokens, tokens)`.
    fn bias(&self, tokens: usize) -> candle_core::Result<Tensor> {
        let classes: Vec<u32> =
            (0..tokens * tokens).map(|i| self.bucket(i / tokens, i % tokens) as u32).collect();
        let classes = Tensor::from_vec(classes, tokens * tokens, self.distance_bias.device())?;
        let bias = self.distance_bias.index_select(&classes, 0)?;
        bias.reshape((tokens, tokens, self.config.heads))?.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)
    }

    /// Class of the distance from `query` to `key`: half of the classes for each direction; of those half are one
    /// distance each, the others grow with it.
    fn bucket(&self, query: usize, key: usize) -> usize {
        let half = self.config.buckets / 2;
        let direction = if key > query { half } else { 0 };
        let distance = key.abs_diff(query);
        let exact = half / 2;
        if distance < exact {
            return direction + distance;
        }
        // In f32, as the reference: at the border of two classes the rounding decides.
        let span = (self.config.max_distance as f64 / exact as f64).ln() as f32;
        let grown = (distance as f32 / exact as f32).ln() / span * (half - exact) as f32;
        direction + (exact + grown as usize).min(half - 1)
    }
}
