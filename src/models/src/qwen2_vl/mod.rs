//! Qwen2-VL: a vision-language model with dynamic picture sizes and rotary positions in time, row and column.
//!
//! Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
//! (arXiv 2409.12191), and `models/qwen2_vl` in transformers 5.17, against which the golden tests hold this port.

mod vision;

use self::vision::Tower;
use crate::error::Result;
use crate::files::FileTree;
use crate::language::LanguageModel;
use crate::qwen_vl;
pub use crate::qwen_vl::{Config, ImageProcessor, Patches, VisionConfig};
use crate::suite::LoadOptions;

/// The configuration of a checkpoint.
///
/// # Errors
/// `MissingFile`, `Malformed`, `Unsupported`.
pub fn config(tree: &FileTree) -> Result<Config> {
    Ok(Config::load::<Tower>(tree)?.0)
}

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
        for (dimensions, tied, published) in [
            ([1536, 8960, 28, 12, 2, 151_936], true, 2_208_985_600),
            ([3584, 18_944, 28, 28, 4, 152_064], false, 8_291_375_616),
            ([8192, 29_568, 80, 64, 8, 152_064], false, 73_405_560_320),
        ] {
            let vision = json!({
                "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
                "hidden_size": dimensions[0], "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
                "temporal_patch_size": 2,
            });
            let found = parameters::<Tower>(&flat("qwen2_vl", dimensions, tied, vision), |config, _| {
                let (width, inner) = (config.width, config.intermediate);
                config.depth * (4 * width + 2 * width * inner + inner + width) + 2 * width
            });
            assert_eq!(found, published);
        }
    }
}
