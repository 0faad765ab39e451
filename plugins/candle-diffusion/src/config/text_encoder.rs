//! `config.json` of a text encoder of CLIP: `CLIPTextModel`, `CLIPTextModelWithProjection` (transformers 5.17,
//! `models/clip/configuration_clip.py`), or the whole `CLIPModel`, whose text tower stands under `text_config`.

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;
use serde_json::Value;

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
    eos_token_id: u32,
    projection_dim: usize,
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
            eos_token_id: 49407,
            projection_dim: 512,
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
    /// The token whose state stands for the whole text; `None` for the one with the highest id, as in checkpoints
    /// from before transformers 4.31, whose files say 2.
    pub end_token: Option<u32>,
    /// Width of that state after its projection, if the model has one (`CLIPTextModelWithProjection`).
    pub projection_dim: usize,
}

impl TextEncoderConfig {
    /// Reads and checks `config.json` of the text encoder's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        let path = tree.path_of("config.json");
        Self::build(raw(tree.read_json("config.json")?, &path)?, &path)
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
            end_token: Some(raw.eos_token_id).filter(|id| *id != LEGACY_END),
            projection_dim: raw.projection_dim,
        })
    }
}

/// `eos_token_id` of the files that transformers wrote before 4.31, whatever the vocabulary.
const LEGACY_END: u32 = 2;

/// The text tower's options, of a file of its own or of a whole CLIP.
fn raw(file: Value, path: &str) -> Result<RawTextEncoder> {
    let nested = file.get("text_config").filter(|_| file["model_type"] == "clip").cloned();
    serde_json::from_value(nested.unwrap_or(file)).map_err(|e| ModelError::malformed(path, e.to_string()))
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
            let raw = raw(serde_json::from_str(json).unwrap(), "").unwrap();
            let error = TextEncoderConfig::build(raw, "text_encoder/config.json").unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_layout_of_a_whole_clip_is_read_too() {
        let text = r#"{"model_type": "clip_text_model", "hidden_size": 64, "num_attention_heads": 4,
            "eos_token_id": 2, "projection_dim": 24}"#;
        let build = |json: String| {
            TextEncoderConfig::build(raw(serde_json::from_str(&json).unwrap(), "").unwrap(), "").unwrap()
        };
        let alone = build(text.to_owned());
        assert_eq!((alone.hidden_size, alone.end_token, alone.projection_dim), (64, None, 24));
        assert_eq!(
            build(format!(r#"{{"model_type": "clip", "projection_dim": 9, "text_config": {text}}}"#)),
            alone
        );
    }
}
