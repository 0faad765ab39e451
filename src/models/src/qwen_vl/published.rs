//! Configurations as published, flat or nested, with the number of parameters that the published weights have.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{Config, VisionConfig, VisionTower};
use crate::files::FileTree;
use crate::language::DecoderConfig;

/// Reads `config` and counts the parameters that its model has: `tower` those of the vision tower that are not in every
/// family.
pub(crate) fn parameters<T: VisionTower>(
    config: &Value,
    tower: impl Fn(&VisionConfig, &T::Extra) -> usize,
) -> usize {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let (config, extra) = Config::load::<T>(&FileTree::open(folder.path()).unwrap()).unwrap();
    text(&config.text) + common(&config.vision) + tower(&config.vision, &extra)
}

fn text(config: &DecoderConfig) -> usize {
    let (hidden, inner) = (config.hidden, config.intermediate);
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let table = config.vocabulary * hidden * if config.tied { 1 } else { 2 };
    let biases = if config.biases.inputs { queries + 2 * keys } else { 0 };
    let norms = 2 * hidden + if config.head_norms { 2 * config.head_dim } else { 0 };
    let layer = 2 * queries * hidden + 2 * keys * hidden + biases + 3 * hidden * inner + norms;
    table + config.layers * layer + hidden
}

/// The patches' filters, the attention, the two maps of the merger.
fn common(config: &VisionConfig) -> usize {
    let width = config.width;
    let filters = 3 * config.frames * config.patch * config.patch * width;
    filters + config.depth * (4 * width * width + 4 * width) + merger(config)
}

/// The two maps of a merger.
pub(crate) fn merger(config: &VisionConfig) -> usize {
    let inner = config.width * config.merge * config.merge;
    inner * inner + inner + inner * config.hidden + config.hidden
}

/// `config.json` of Qwen2-VL and Qwen2.5-VL, flat: hidden, intermediate, layers, heads, key-value heads, vocabulary.
pub(crate) fn flat(family: &str, dimensions: [usize; 6], tied: bool, vision: Value) -> Value {
    let [hidden, intermediate, layers, heads, kv_heads, vocabulary] = dimensions;
    json!({
        "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656,
        "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": intermediate,
        "max_position_embeddings": 32768, "max_window_layers": layers, "model_type": family,
        "num_attention_heads": heads, "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16", "use_cache": true, "use_sliding_window": false, "vision_config": vision,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vocab_size": vocabulary,
    })
}
