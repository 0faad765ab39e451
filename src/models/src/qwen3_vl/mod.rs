//! Qwen3-VL: learned positions beside the rotary ones in the vision tower, features of several of its layers in the
//! first layers of the language model, and interleaved rotary positions in time, row and column.
//!
//! Source: Bai et al., "Qwen3-VL Technical Report" (arXiv 2511.21631), and `models/qwen3_vl` in transformers 5.17,
//! against which the golden tests hold this port.

mod vision;

use self::vision::Tower;
use crate::error::Result;
use crate::files::FileTree;
use crate::language::LanguageModel;
use crate::qwen_vl;
use crate::suite::LoadOptions;

/// Loads a checkpoint from a folder in Hugging Face layout.
///
/// # Errors
/// See [`qwen_vl::load`].
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    qwen_vl::load::<Tower>(tree, options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::qwen_vl::published::{merger, parameters};

    #[test]
    fn published_configurations_have_the_published_sizes() {
        let small = ([24, 1024, 4096], [5, 11, 17]);
        let large = ([27, 1152, 4304], [8, 16, 24]);
        for ([hidden, inner, layers, heads], ([depth, width, vision_inner], deep), tied, published) in [
            ([2048, 6144, 28, 16], small, true, 2_127_532_032),
            ([2560, 9728, 36, 32], small, true, 4_437_815_808),
            ([4096, 12_288, 36, 32], large, false, 8_767_123_696),
            ([5120, 25_600, 64, 64], large, false, 33_357_390_064),
        ] {
            let config = json!({
                "image_token_id": 151655, "model_type": "qwen3_vl",
                "text_config": {
                    "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
                    "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": hidden,
                    "initializer_range": 0.02, "intermediate_size": inner, "max_position_embeddings": 262144,
                    "model_type": "qwen3_vl_text", "num_attention_heads": heads, "num_hidden_layers": layers,
                    "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
                    "rope_scaling":
                        {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"},
                    "rope_theta": 5000000, "tie_word_embeddings": tied, "use_cache": true, "vocab_size": 151936,
                },
                "tie_word_embeddings": tied, "transformers_version": "4.57.0.dev0", "video_token_id": 151656,
                "vision_config": {
                    "deepstack_visual_indexes": deep, "depth": depth, "hidden_act": "gelu_pytorch_tanh",
                    "hidden_size": width, "in_channels": 3, "initializer_range": 0.02,
                    "intermediate_size": vision_inner, "model_type": "qwen3_vl", "num_heads": 16,
                    "num_position_embeddings": 2304, "out_hidden_size": hidden, "patch_size": 16,
                    "spatial_merge_size": 2, "temporal_patch_size": 2,
                },
                "vision_end_token_id": 151653, "vision_start_token_id": 151652,
            });
            let found = parameters::<Tower>(&config, |config, extra| {
                let (width, inner) = (config.width, config.intermediate);
                let joined = width * config.merge * config.merge;
                let blocks = config.depth * (4 * width + 2 * width * inner + inner + width);
                let deep = extra.deep.len() * (2 * joined + merger(config));
                width + extra.side * extra.side * width + blocks + 2 * width + deep
            });
            assert_eq!(found, published);
        }
    }
}
