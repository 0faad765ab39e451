//! The prompt's encoder: `CLIPTextModel`, with or without a projection (transformers 5.17,
//! `models/clip/modeling_clip.py`).

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
    projection: Option<Linear>,
}

/// What a text encoder makes of texts; all f32.
#[derive(Debug, Clone)]
pub struct TextStates {
    /// The last layer's states after the final norm, `(batch, tokens, width)`: what Stable Diffusion 1.x and 2.x
    /// attend to. (The second-to-last layer that 2.x wants is the last of its published encoder.)
    pub last: Tensor,
    /// The states before the last layer, without a norm: what SDXL and Stable Diffusion 3 attend to.
    pub penultimate: Tensor,
    /// One state for each text, `(batch, width)`: the final one of its end token, projected if the model projects.
    pub pooled: Tensor,
}

impl TextEncoder {
    /// Loads the folder `text_encoder`: `config.json` and `model.safetensors`, sharded or not. Tensors may carry the
    /// prefix `text_model.` (transformers before 5) or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, device: &Device) -> Result<Self> {
        Self::load_as(tree, false, device)
    }

    /// [`Self::load`] for a `CLIPTextModelWithProjection`, which has a tensor `text_projection.weight` more.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_projecting(tree: &FileTree, device: &Device) -> Result<Self> {
        Self::load_as(tree, true, device)
    }

    fn load_as(tree: &FileTree, projects: bool, device: &Device) -> Result<Self> {
        let config = TextEncoderConfig::load(tree)?;
        let weights = Weights::load(tree, "model", DType::F32, device)?;
        let root = weights.builder();
        let tower = if weights.contains_prefix("text_model.") { root.pp("text_model") } else { root.clone() };
        let (width, projected) = (config.hidden_size, config.projection_dim);
        let mut encoder = Self::from_builder(config, &tower)?;
        if projects {
            let projection = Linear::load_without_bias(&root.pp("text_projection"), width, projected)?;
            encoder.projection = Some(projection);
        }
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
            projection: None,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TextEncoderConfig {
        &self.config
    }

    /// Width of a pooled state.
    pub fn pooled_width(&self) -> usize {
        if self.projection.is_some() { self.config.projection_dim } else { self.config.hidden_size }
    }

    /// [`TextStates::last`] alone.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.encode(ids)?.last)
    }

    /// The states of token ids `(batch, tokens)`, at most `positions` tokens. Every token sees those before it, padding
    /// included, as the diffusion models were trained.
    ///
    /// # Errors
    /// A failed tensor operation, such as an id outside the vocabulary.
    pub fn encode(&self, ids: &Tensor) -> Result<TextStates> {
        self.run(ids).map_err(|e| ModelError::from(e).at("the text encoder"))
    }

    fn run(&self, ids: &Tensor) -> candle_core::Result<TextStates> {
        let tokens = ids.dim(1)?;
        let positions = self.position_embedding.narrow(0, 0, tokens)?;
        let mut x = self.token_embedding.forward(ids)?.broadcast_add(&positions)?;
        let mask: Vec<f32> = (0..tokens * tokens)
            .map(|i| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(mask, (tokens, tokens), ids.device())?;
        let mut penultimate = x.clone();
        for layer in &self.layers {
            penultimate = x;
            x = layer.forward(&penultimate, &mask, &self.config)?;
        }
        let last = self.final_layer_norm.forward(&x)?;
        let rows = ids.to_vec2::<u32>()?;
        let ends = rows.iter().enumerate().map(|(row, ids)| last.get(row)?.get(self.end_of(ids)));
        let pooled = Tensor::stack(&ends.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let pooled = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled,
        };
        Ok(TextStates { last, penultimate, pooled })
    }

    /// The first end token of a text; its first token if there is none, as the reference.
    fn end_of(&self, ids: &[u32]) -> usize {
        let end = self.config.end_token.or_else(|| ids.iter().max().copied());
        ids.iter().position(|id| Some(*id) == end).unwrap_or(0)
    }
}
