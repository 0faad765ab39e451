//! `text_encoder/config.json`: `CLIPTextModel` (transformers 5.17, `models/clip/configuration_clip.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{Result, ensure};

/// The file as it is; defaults are those of transformers. What is not named here does not change the states that
/// the UNet attends to (dropouts, initialisers, pooling, generation options).
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawTextEncoder {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
    use_attention_mask: bool,
}

impl Default for RawTextEncoder {
    fn default() -> Self {
        Self {
            model_type: "clip_text_model".to_owned(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            use_attention_mask: false,
        }
    }
}

/// The function between the two layers of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextActivation {
    /// `x * sigmoid(1.702 x)`, as OpenAI's CLIP.
    QuickGelu,
    /// The exact Gaussian error linear unit, as OpenCLIP.
    Gelu,
}

/// A checked text encoder configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEncoderConfig {
    /// Number of tokens known.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside a feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Most tokens of a text.
    pub positions: usize,
    /// See [`TextActivation`].
    pub activation: TextActivation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl TextEncoderConfig {
    /// Reads and checks `config.json` of the text encoder's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawTextEncoder, path: &str) -> Result<Self> {
        if raw.model_type != "clip_text_model" {
            return Err(ModelError::unsupported(path, "`model_type`", raw.model_type, "clip_text_model"));
        }
        if raw.use_attention_mask {
            return Err(ModelError::unsupported(path, "`use_attention_mask`", true, "false"));
        }
        let activation = match raw.hidden_act.as_str() {
            "quick_gelu" => TextActivation::QuickGelu,
            "gelu" => TextActivation::Gelu,
            other => return Err(ModelError::unsupported(path, "`hidden_act`", other, "quick_gelu, gelu")),
        };
        let (width, heads) = (raw.hidden_size, raw.num_attention_heads);
        ensure(heads > 0 && width > 0 && width.is_multiple_of(heads), path, || {
            format!("`num_attention_heads` {heads} does not divide `hidden_size` {width}")
        })?;
        ensure(raw.max_position_embeddings >= 3, path, || {
            format!("`max_position_embeddings` is {}, expected at least 3", raw.max_position_embeddings)
        })?;
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: width,
            intermediate_size: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads,
            positions: raw.max_position_embeddings,
            activation,
            layer_norm_eps: raw.layer_norm_eps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"model_type": "t5"}"#, "model_type"),
            (r#"{"hidden_act": "relu"}"#, "hidden_act"),
            (r#"{"use_attention_mask": true}"#, "use_attention_mask"),
            (r#"{"num_attention_heads": 5}"#, "num_attention_heads"),
        ] {
            let raw = serde_json::from_str(json).unwrap();
            let error = TextEncoderConfig::build(raw, "text_encoder/config.json").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
