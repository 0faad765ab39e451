//! `config.json` of Idefics3 and SmolVLM, read and checked.
//!
//! Source: `models/idefics3/configuration_idefics3.py` in transformers 5.17. The layout has been nested from the start;
//! what versions differ in lies in `text_config`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::chat::TokenIds;
use crate::clip::{Family, VisionConfig};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::DecoderConfig;

const FILE: &str = "config.json";

/// What the model is built from.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The language model.
    pub(super) text: DecoderConfig,
    /// The vision tower.
    pub(super) vision: VisionConfig,
    /// Patches along an edge of the square that becomes one token.
    pub(super) scale: usize,
    /// Stands once for each token of a tile.
    pub(super) image_token: u32,
    /// Where answers end, if the configuration says so.
    pub(super) eos: Option<TokenIds>,
}

#[derive(Deserialize)]
struct Raw {
    model_type: String,
    text_config: Option<Map<String, Value>>,
    vision_config: Option<Map<String, Value>>,
    image_token_id: Option<u32>,
    scale_factor: Option<usize>,
    tie_word_embeddings: Option<bool>,
}

#[derive(Deserialize)]
struct RawEnds {
    eos_token_id: Option<TokenIds>,
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for dimensions that do not fit each other; `Unsupported` for another family,
    /// activation, or rotary scheme.
    pub(super) fn load(tree: &FileTree) -> Result<Self> {
        let path = tree.path_of(FILE);
        let raw: Raw = tree.read_json(FILE)?;
        if !matches!(raw.model_type.as_str(), "idefics3" | "smolvlm") {
            return Err(ModelError::unsupported(path, "`model_type`", raw.model_type, "idefics3, smolvlm"));
        }
        let text = text_config(raw.text_config);
        let eos = RawEnds::deserialize(&text)
            .map_err(|error| ModelError::malformed(&path, format!("`text_config`: {error}")))?
            .eos_token_id;
        let mut text = DecoderConfig::read(&path, &text)?;
        // Only the whole model's own field ties its output layer; its default differs from that of some text models.
        text.tied = raw.tie_word_embeddings.unwrap_or(false);
        let vision = VisionConfig::read(&path, Family::Idefics3, raw.vision_config.unwrap_or_default())?;
        let scale = raw.scale_factor.unwrap_or(2);
        let side = vision.patches_per_side();
        if scale == 0 || !side.is_multiple_of(scale) {
            let detail =
                format!("`scale_factor` is {scale}, expected a divisor of {side} patches along an edge");
            return Err(ModelError::malformed(path, detail));
        }
        let image_token = raw.image_token_id.unwrap_or(128_257);
        if image_token as usize >= text.vocabulary {
            let detail = format!(
                "`image_token_id` is {image_token}, expected less than `vocab_size` {}",
                text.vocabulary
            );
            return Err(ModelError::malformed(path, detail));
        }
        Ok(Self { text, vision, scale, image_token, eos })
    }

    /// Tokens that a tile becomes.
    pub(super) fn tokens_per_tile(&self) -> usize {
        (self.vision.patches_per_side() / self.scale).pow(2)
    }
}

/// The language model's fields, with what the reference puts in the place of a missing name or of all of them.
fn text_config(fields: Option<Map<String, Value>>) -> Value {
    match fields {
        Some(mut fields) => {
            fields.entry("model_type").or_insert_with(|| "llama".into());
            Value::Object(fields)
        }
        None => json!({ "model_type": "llama", "rms_norm_eps": 1e-5 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &Value) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), config.to_string()).unwrap();
        Config::load(&FileTree::open(folder.path()).unwrap())
    }

    /// The fields of `vision_config`, `text_config` and the file of each published checkpoint that differ from defaults.
    #[test]
    fn published_configurations_are_read() {
        let base =
            json!({ "hidden_size": 768, "image_size": 512, "num_attention_heads": 12, "patch_size": 16 });
        let so400m = |side: usize| {
            json!({
                "hidden_size": 1152, "image_size": side, "intermediate_size": 4304, "num_attention_heads": 16,
                "num_hidden_layers": 27, "patch_size": 14,
            })
        };
        let text = |hidden: usize, inner: usize, layers: usize, heads: usize, kv_heads: usize| {
            json!({
                "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
                "num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5,
                "rope_theta": 100_000.0, "max_position_embeddings": 8192, "vocab_size": 49_280, "qk_layer_norms": false,
                "perceiver_config": { "hidden_act": "silu" }, "pixel_shuffle_factor": 4, "use_resampler": false,
            })
        };
        // HuggingFaceTB/SmolVLM-256M-Instruct and -500M-Instruct, and SmolVLM2 of these sizes as `smolvlm`.
        for (kind, hidden, inner, layers, heads, kv_heads) in
            [("idefics3", 576, 1536, 30, 9, 3), ("smolvlm", 960, 2560, 32, 15, 5)]
        {
            let config = read(&json!({
                "model_type": kind, "image_token_id": 49_190, "scale_factor": 4, "tie_word_embeddings": false,
                "text_config": text(hidden, inner, layers, heads, kv_heads), "vision_config": base,
            }))
            .unwrap();
            assert_eq!((config.tokens_per_tile(), config.vision.encoder.num_hidden_layers), (64, 12));
            assert_eq!((config.vision.encoder.intermediate_size, config.text.head_dim), (3072, 64));
            assert_eq!((config.text.rope.theta, config.text.tied), (100_000.0, false));
        }
        // HuggingFaceTB/SmolVLM-Instruct and SmolVLM2-2.2B-Instruct: 384 is no multiple of 14.
        let mut large = text(2048, 8192, 24, 32, 32);
        large["vocab_size"] = 49_155.into();
        let config = read(&json!({
            "model_type": "idefics3", "image_token_id": 49_153, "scale_factor": 3, "text_config": large,
            "vision_config": so400m(384),
        }))
        .unwrap();
        assert_eq!((config.vision.patches_per_side(), config.tokens_per_tile()), (27, 81));
        // HuggingFaceM4/Idefics3-8B-Llama3.
        let mut llama = text(4096, 14_336, 32, 32, 8);
        llama["vocab_size"] = 128_259.into();
        llama["rope_theta"] = 500_000.0.into();
        let config =
            read(&json!({ "model_type": "idefics3", "text_config": llama, "vision_config": so400m(364) }))
                .unwrap();
        assert_eq!((config.image_token, config.scale, config.tokens_per_tile()), (128_257, 2, 169));
        assert_eq!((config.text.kv_heads, config.text.head_dim), (8, 128));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = read(&json!({ "model_type": "idefics2" })).unwrap_err();
        assert!(error.to_string().contains("idefics2"), "{error}");
        let text = json!({ "vocab_size": 130_000 });
        let vision = json!({ "image_size": 512, "patch_size": 16 });
        let with = |key: &str, value: Value| {
            let mut whole = json!({ "model_type": "smolvlm", "text_config": text, "vision_config": vision });
            whole[key] = value;
            read(&whole)
        };
        assert_eq!(with("scale_factor", 4.into()).unwrap().tokens_per_tile(), 64);
        assert!(with("scale_factor", 3.into()).unwrap_err().to_string().contains("32 patches"));
        let error = with("image_token_id", 130_000.into()).unwrap_err();
        assert!(error.to_string().contains("vocab_size"), "{error}");
        let error = with("text_config", json!({ "model_type": "mamba" })).unwrap_err();
        assert!(error.to_string().contains("mamba"), "{error}");
    }
}
