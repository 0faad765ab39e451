//! Qwen2.5-VL: Qwen2-VL with a vision tower that looks through windows, and norms and feed-forward blocks as language
//! models have them.
//!
//! Source: Bai et al., "Qwen2.5-VL Technical Report" (arXiv 2502.13923), and `models/qwen2_5_vl` in transformers 5.17,
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
    use crate::qwen_vl::published::{flat, parameters};

    #[test]
    fn published_configurations_have_the_published_sizes() {
        for (dimensions, inner, tied, published) in [
            ([2048, 11_008, 36, 16, 2, 151_936], 3420, true, 3_754_622_976),
            ([3584, 18_944, 28, 28, 4, 152_064], 3420, false, 8_292_166_656),
            ([5120, 27_648, 64, 40, 8, 152_064], 3456, false, 33_452_718_336),
            ([8192, 29_568, 80, 64, 8, 152_064], 3456, false, 73_410_777_344),
        ] {
            let vision = json!({
                "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": inner, "num_heads": 16,
                "in_chans": 3, "out_hidden_size": dimensions[0], "patch_size": 14, "spatial_merge_size": 2,
                "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
                "tokens_per_second": 2, "temporal_patch_size": 2,
            });
            let found = parameters::<Tower>(&flat("qwen2_5_vl", dimensions, tied, vision), |config, _| {
                let (width, inner) = (config.width, config.intermediate);
                config.depth * (2 * width + 3 * width * inner + 2 * inner + width) + width
            });
            assert_eq!(found, published);
        }
    }
}
