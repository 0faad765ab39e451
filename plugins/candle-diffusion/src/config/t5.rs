//! `config.json` of T5's encoder: `T5EncoderModel` (transformers 5.17, `models/t5/configuration_t5.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{Result, check_sizes, ensure};

/// The file as it is; defaults are those of transformers. What is not named here does not change the encoder's states
/// (dropouts, the decoder, generation options).
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawT5 {
    model_type: String,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
}

impl Default for RawT5 {
    fn default() -> Self {
        Self {
            model_type: "t5".to_owned(),
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
        }
    }
}

/// A checked configuration of T5's encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Number of tokens known.
    pub vocab_size: usize,
    /// Width of the states.
    pub width: usize,
    /// Width of an attention head; heads times this need not be `width`.
    pub head_width: usize,
    /// Width inside a feed-forward block.
    pub inner: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Classes of distances between tokens; even, at least 4.
    pub buckets: usize,
    /// Distance from which all are in one class.
    pub max_distance: usize,
    /// Epsilon of the norms.
    pub eps: f64,
}

impl T5Config {
    /// Reads and checks `config.json` of the text encoder's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawT5, path: &str) -> Result<Self> {
        for (key, found, supported) in [
            ("model_type", &raw.model_type, "t5"),
            ("feed_forward_proj", &raw.feed_forward_proj, "gated-gelu"),
        ] {
            if found != supported {
                return Err(ModelError::unsupported(path, format!("`{key}`"), found, supported));
            }
        }
        check_sizes(
            path,
            &[
                ("vocab_size", raw.vocab_size),
                ("d_model", raw.d_model),
                ("d_kv", raw.d_kv),
                ("d_ff", raw.d_ff),
                ("num_layers", raw.num_layers),
                ("num_heads", raw.num_heads),
                ("relative_attention_num_buckets", raw.relative_attention_num_buckets),
            ],
        )?;
        let (buckets, distance) = (raw.relative_attention_num_buckets, raw.relative_attention_max_distance);
        ensure(buckets >= 4 && buckets.is_multiple_of(2) && distance > buckets / 4, path, || {
            format!(
                "`relative_attention_num_buckets` {buckets} must be even and at least 4, and \
                 `relative_attention_max_distance` {distance} over a quarter of it"
            )
        })?;
        Ok(Self {
            vocab_size: raw.vocab_size,
            width: raw.d_model,
            head_width: raw.d_kv,
            inner: raw.d_ff,
            layers: raw.num_layers,
            heads: raw.num_heads,
            buckets,
            max_distance: distance,
            eps: raw.layer_norm_epsilon,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"feed_forward_proj": "relu"}"#, "feed_forward_proj"),
            (r#"{"model_type": "umt5", "feed_forward_proj": "gated-gelu"}"#, "model_type"),
            (r#"{"feed_forward_proj": "gated-gelu", "num_heads": 0}"#, "num_heads"),
            (r#"{"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 7}"#, "num_buckets"),
        ] {
            let error = T5Config::build(serde_json::from_str(json).unwrap(), "text_encoder_3/config.json");
            let error = error.unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("text_encoder_3"), "{error}");
        }
    }
}
