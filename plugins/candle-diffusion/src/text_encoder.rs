//! The prompt's encoder: `CLIPTextModel` (transformers 5.17, `models/clip/modeling_clip.py`), its last hidden state
//! after the final layer norm.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Embedding, LayerNorm, Module, VarBuilder, embedding, layer_norm};
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::{TextActivation, TextEncoderConfig};
use crate::nn::Linear;

type Result<T> = std::result::Result<T, ModelError>;

#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn load(vb: &VarBuilder, config: &TextEncoderConfig) -> candle_core::Result<Self> {
        let width = config.hidden_size;
        let attention = vb.pp("self_attn");
        let project = |name: &str| Linear::load(&attention.pp(name), width, width);
        let norm = |name: &str| layer_norm(width, config.layer_norm_eps, vb.pp(name));
        Ok(Self {
            layer_norm1: norm("layer_norm1")?,
            q_proj: project("q_proj")?,
            k_proj: project("k_proj")?,
            v_proj: project("v_proj")?,
            out_proj: project("out_proj")?,
            layer_norm2: norm("layer_norm2")?,
            fc1: Linear::load(&vb.pp("mlp.fc1"), width, config.intermediate_size)?,
            fc2: Linear::load(&vb.pp("mlp.fc2"), config.intermediate_size, width)?,
        })
    }

    fn forward(&self, x: &Tensor, mask: &Tensor, config: &TextEncoderConfig) -> candle_core::Result<Tensor> {
        let x = (self.attention(&self.layer_norm1.forward(x)?, mask, config.heads)? + x)?;
        let hidden = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let hidden = match config.activation {
            TextActivation::QuickGelu => (&hidden * candle_nn::ops::sigmoid(&(&hidden * 1.702)?)?)?,
            TextActivation::Gelu => hidden.gelu_erf()?,
        };
        self.fc2.forward(&hidden)? + x
    }

    fn attention(&self, x: &Tensor, mask: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let size = width / heads;
        let split = |x: Tensor| x.reshape((batch, tokens, heads, size))?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (
            split(self.q_proj.forward(x)?)?,
            split(self.k_proj.forward(x)?)?,
            split(self.v_proj.forward(x)?)?,
        );
        let scores = (query.matmul(&key.t()?)? * (1.0 / (size as f64).sqrt()))?;
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        let out = weights.matmul(&value)?.transpose(1, 2)?.reshape((batch, tokens, width))?;
        self.out_proj.forward(&out)
    }
}

/// A loaded text encoder. It computes in f32 whatever the UNet does: it runs once a picture.
#[derive(Debug)]
pub struct TextEncoder {
    config: TextEncoderConfig,
    token_embedding: Embedding,
    /// `(positions, width)`.
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

impl TextEncoder {
    /// Loads the folder `text_encoder`: `config.json` and `model.safetensors`, sharded or not. Tensors may carry the
    /// prefix `text_model.` (transformers before 5) or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, device: &Device) -> Result<Self> {
        let config = TextEncoderConfig::load(tree)?;
        let weights = Weights::load(tree, "model", DType::F32, device)?;
        let vb = weights.builder();
        let vb = if weights.contains_prefix("text_model.") { vb.pp("text_model") } else { vb };
        let encoder = Self::from_builder(config, &vb)?;
        // The numbers 0, 1, 2, .. that old versions saved.
        weights.refuse_unused(&["embeddings.position_ids"])?;
        Ok(encoder)
    }

    /// Builds it from f32 tensors of any source, named without the prefix `text_model.`.
    ///
    /// # Errors
    /// What the builder reports.
    pub fn from_builder(config: TextEncoderConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let width = config.hidden_size;
        let layers = (0..config.layers)
            .map(|i| Layer::load(&vb.pp(format!("encoder.layers.{i}")), &config))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            token_embedding: embedding(config.vocab_size, width, vb.pp("embeddings.token_embedding"))?,
            position_embedding: vb.get((config.positions, width), "embeddings.position_embedding.weight")?,
            layers,
            final_layer_norm: layer_norm(width, config.layer_norm_eps, vb.pp("final_layer_norm"))?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TextEncoderConfig {
        &self.config
    }

    /// States `(batch, tokens, width)` in f32 of token ids `(batch, tokens)`, at most `positions` tokens. Every
    /// token sees those before it, padding included, as Stable Diffusion was trained.
    ///
    /// # Errors
    /// A failed tensor operation, such as an id outside the vocabulary.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let run = || {
            let tokens = ids.dim(1)?;
            let positions = self.position_embedding.narrow(0, 0, tokens)?;
            let mut x = self.token_embedding.forward(ids)?.broadcast_add(&positions)?;
            let mask: Vec<f32> = (0..tokens * tokens)
                .map(|i| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 })
                .collect();
            let mask = Tensor::from_vec(mask, (tokens, tokens), ids.device())?;
            for layer in &self.layers {
                x = layer.forward(&x, &mask, &self.config)?;
            }
            self.final_layer_norm.forward(&x)
        };
        run().map_err(|e| ModelError::from(e).at("the text encoder"))
    }
}
