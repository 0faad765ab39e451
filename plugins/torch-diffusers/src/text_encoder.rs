//! The prompt's encoder: `CLIPTextModel` (transformers 5.17, `models/clip/modeling_clip.py`), its last hidden state after
//! the final layer norm. diffusers-rs has one of two fixed sizes only, so this is written over tch.

use serde_json::Value;
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use crate::error::{Result, TorchError};
use crate::files::{Files, Options};
use crate::weights;

/// The function between the two layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    /// `x * sigmoid(1.702 x)`, as OpenAI's CLIP.
    QuickGelu,
    /// The exact Gaussian error linear unit, as OpenCLIP.
    Gelu,
}

/// `text_encoder/config.json`, as far as it changes the states. Defaults are those of transformers.
#[derive(Debug, Clone)]
pub(crate) struct TextConfig {
    pub(crate) vocabulary: i64,
    /// Width of the states.
    pub(crate) width: i64,
    /// Most tokens of a text.
    pub(crate) positions: i64,
    inner: i64,
    layers: i64,
    heads: i64,
    eps: f64,
    activation: Activation,
}

const CONFIG: &str = "text_encoder/config.json";

impl TextConfig {
    fn read(files: &mut Files) -> Result<Self> {
        let mut options = Options::read(files, CONFIG)?;
        options.only("model_type", &Value::from("clip_text_model"))?;
        options.only("use_attention_mask", &Value::from(false))?;
        let activation = match &*options.word("hidden_act", "quick_gelu")? {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            found => {
                return Err(TorchError::unsupported(
                    &options.path,
                    "`hidden_act`",
                    found,
                    "quick_gelu or gelu",
                ));
            }
        };
        // What is left does not change the states that the UNet attends to: dropouts, initialisers, pooling, generation.
        let config = Self {
            vocabulary: options.count("vocab_size", 49408)?,
            width: options.count("hidden_size", 512)?,
            positions: options.count("max_position_embeddings", 77)?,
            inner: options.count("intermediate_size", 2048)?,
            layers: options.count("num_hidden_layers", 12)?,
            heads: options.count("num_attention_heads", 8)?,
            eps: options.number("layer_norm_eps", 1e-5)?,
            activation,
        };
        if config.width % config.heads != 0 {
            let problem = format!(
                "`num_attention_heads` {} does not divide `hidden_size` {}",
                config.heads, config.width
            );
            return Err(TorchError::malformed(&options.path, problem));
        }
        Ok(config)
    }
}

#[derive(Debug)]
struct Layer {
    layer_norm1: nn::LayerNorm,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    out_proj: nn::Linear,
    layer_norm2: nn::LayerNorm,
    fc1: nn::Linear,
    fc2: nn::Linear,
}

impl Layer {
    fn new(path: &nn::Path<'_>, config: &TextConfig) -> Self {
        let (width, inner) = (config.width, config.inner);
        let norm = |name: &str| layer_norm(&(path / name), config);
        let (attention, mlp) = (path / "self_attn", path / "mlp");
        let project = |name: &str| nn::linear(&attention / name, width, width, nn::LinearConfig::default());
        Self {
            layer_norm1: norm("layer_norm1"),
            q_proj: project("q_proj"),
            k_proj: project("k_proj"),
            v_proj: project("v_proj"),
            out_proj: project("out_proj"),
            layer_norm2: norm("layer_norm2"),
            fc1: nn::linear(&mlp / "fc1", width, inner, nn::LinearConfig::default()),
            fc2: nn::linear(&mlp / "fc2", inner, width, nn::LinearConfig::default()),
        }
    }

    /// `x` `(batch, tokens, width)`.
    fn forward(&self, x: &Tensor, mask: &Tensor, config: &TextConfig) -> Tensor {
        let x = x + self.attention(&x.apply(&self.layer_norm1), mask, config.heads);
        let hidden = x.apply(&self.layer_norm2).apply(&self.fc1);
        let hidden = match config.activation {
            Activation::QuickGelu => &hidden * (&hidden * 1.702).sigmoid(),
            Activation::Gelu => hidden.gelu("none"),
        };
        x + hidden.apply(&self.fc2)
    }

    fn attention(&self, x: &Tensor, mask: &Tensor, heads: i64) -> Tensor {
        let shape = x.size();
        let (batch, tokens, width) = (shape[0], shape[1], shape[2]);
        let size = width / heads;
        let split = |layer: &nn::Linear| x.apply(layer).reshape([batch, tokens, heads, size]).transpose(1, 2);
        let (query, key, value) = (split(&self.q_proj), split(&self.k_proj), split(&self.v_proj));
        let scores = query.matmul(&key.transpose(2, 3)) / (size as f64).sqrt() + mask;
        let out = scores.softmax(-1, Kind::Float).matmul(&value);
        out.transpose(1, 2).reshape([batch, tokens, width]).apply(&self.out_proj)
    }
}

fn layer_norm(path: &nn::Path<'_>, config: &TextConfig) -> nn::LayerNorm {
    let norm = nn::LayerNormConfig { eps: config.eps, ..Default::default() };
    nn::layer_norm(path, vec![config.width], norm)
}

/// A loaded text encoder.
#[derive(Debug)]
pub(crate) struct TextEncoder {
    pub(crate) config: TextConfig,
    tokens: nn::Embedding,
    positions: nn::Embedding,
    layers: Vec<Layer>,
    final_layer_norm: nn::LayerNorm,
    /// Minus infinity where a token would see a later one.
    mask: Tensor,
}

impl TextEncoder {
    /// Loads the folder `text_encoder`. Tensors may carry the prefix `text_model.` (transformers before 5) or not.
    pub(crate) fn load(files: &mut Files) -> Result<Self> {
        let config = TextConfig::read(files)?;
        let mut store = nn::VarStore::new(Device::Cpu);
        let root = store.root();
        let (embeddings, layers) = (&root / "embeddings", &root / "encoder" / "layers");
        let embed = |name: &str, count: i64| {
            nn::embedding(&embeddings / name, count, config.width, nn::EmbeddingConfig::default())
        };
        let length = config.positions;
        let mask = Tensor::full([length, length], f64::NEG_INFINITY, (Kind::Float, Device::Cpu)).triu(1);
        let encoder = Self {
            tokens: embed("token_embedding", config.vocabulary),
            positions: embed("position_embedding", config.positions),
            layers: (0..config.layers).map(|i| Layer::new(&(&layers / i), &config)).collect(),
            final_layer_norm: layer_norm(&(&root / "final_layer_norm"), &config),
            mask,
            config,
        };
        let source = weights::Source { folder: "text_encoder", stem: "model", rename: plain_name };
        weights::load(&mut store, files, &source)?;
        Ok(encoder)
    }

    /// States `(batch, tokens, width)` of token ids `(batch, tokens)`, at most `positions` tokens. Every token sees those
    /// before it, padding included, as Stable Diffusion was trained.
    pub(crate) fn forward(&self, ids: &Tensor) -> Tensor {
        let tokens = ids.size()[1];
        let positions = self.positions.ws.narrow(0, 0, tokens);
        let mask = self.mask.narrow(0, 0, tokens).narrow(1, 0, tokens);
        let mut x = self.tokens.forward(ids) + positions;
        for layer in &self.layers {
            x = layer.forward(&x, &mask, &self.config);
        }
        x.apply(&self.final_layer_norm)
    }
}

/// The numbers 0, 1, 2, .. that old versions saved are no weights.
fn plain_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    (name != "embeddings.position_ids").then(|| name.to_owned())
}
