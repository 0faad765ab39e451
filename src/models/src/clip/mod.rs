//! CLIP: pictures and texts in one space, for the relevance scan (CLUE s 3.2).
//!
//! Written after transformers 5.17, `models/clip/modeling_clip.py` (`CLIPModel`), and held to it by golden tests.
//! Unlike candle's own port it knows both activations and both ways to find the end token, and it never invents a
//! tensor that the checkpoint lacks.

mod config;
mod encoder;
mod processor;
mod tokenizer;
mod towers;
mod vocabulary;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_perception::{Picture, TextLength};

pub(crate) use config::Family;
pub use config::{DualConfig, TextConfig, VisionConfig};
pub use encoder::{Encoder, EncoderConfig};
pub use processor::PictureProcessor;
pub use tokenizer::ClipTokenizer;
pub use towers::{TextTower, VisionTower};

pub(crate) use processor::{ProcessorKind, RawProcessor};
pub(crate) use towers::patch_rows;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
pub use crate::layers::Activation;
use crate::relevance::{Loaded, Towers};
use crate::weights::Weights;

/// From which cosine a rule counts as relevant with CLIP ViT-B/16 (CLUE s 4.1); ViT-B/32 is of the same widths, and
/// its cosines lie in the same range.
const BASE_THRESHOLD: f32 = 0.22;

/// The same for ViT-L/14, with pictures of 224 or 336 pixels, and whatever is wider. Nobody has published a figure for
/// the scan. Their cosines lie lower for the same pairs, and where to cut is a guess on the safe side: a rule that is
/// kept in vain costs a few forward passes, one that is lost is never asked. A suite states its own (`threshold` in
/// models.toml).
const LARGE_THRESHOLD: f32 = 0.17;

/// Width of the vision tower of ViT-L/14.
const LARGE: usize = 1024;

/// Buffers that older versions of the reference saved; their values follow from the configuration.
pub(crate) const KNOWN_BUFFERS: [&str; 1] = ["embeddings.position_ids"];

/// Both towers with what precedes and follows them.
struct Clip {
    text: TextTower,
    vision: VisionTower,
    text_projection: Tensor,
    visual_projection: Tensor,
    tokenizer: ClipTokenizer,
    processor: PictureProcessor,
    device: Device,
    dtype: DType,
}

/// Reads a `CLIPModel`.
pub(crate) fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Loaded> {
    let config = DualConfig::load_clip(tree)?;
    let processor = PictureProcessor::load(tree, ProcessorKind::Clip, config.vision.image_size)?;
    let text = &config.text;
    let tokenizer = ClipTokenizer::load(tree, text.max_position_embeddings, text.vocab_size)?;
    if text.eos_token_ids[..] != [2] && !text.eos_token_ids.contains(&tokenizer.end_token()) {
        let detail = format!(
            "ends a text with token {}, config.json names {:?} as `eos_token_id`",
            tokenizer.end_token(),
            text.eos_token_ids
        );
        return Err(ModelError::tokenizer(tokenizer.path(), detail));
    }
    let weights = Weights::load(tree, "model", dtype, device)?;
    let (text, vision, text_projection, visual_projection) = build(&config, &weights.builder())?;
    weights.refuse_unused(&KNOWN_BUFFERS)?;
    let device = device.clone();
    Ok(Loaded {
        tokenizer_files: tokenizer.files(),
        towers: Box::new(Clip {
            text,
            vision,
            text_projection,
            visual_projection,
            tokenizer,
            processor,
            device,
            dtype,
        }),
        weights,
        threshold: default_threshold(&config),
        sigmoid: None,
    })
}

fn default_threshold(config: &DualConfig) -> f32 {
    if config.vision.encoder.hidden_size < LARGE { BASE_THRESHOLD } else { LARGE_THRESHOLD }
}

fn build(
    config: &DualConfig,
    weights: &VarBuilder,
) -> candle_core::Result<(TextTower, VisionTower, Tensor, Tensor)> {
    // Of no use for cosines, and part of every checkpoint.
    weights.get((), "logit_scale")?;
    let projection = |name: &str, width: usize| weights.get((config.projection_dim, width), name);
    Ok((
        TextTower::load(&config.text, weights.pp("text_model"))?,
        VisionTower::load(&config.vision, "pre_layrnorm", weights.pp("vision_model"))?,
        projection("text_projection.weight", config.text.encoder.hidden_size)?,
        projection("visual_projection.weight", config.vision.encoder.hidden_size)?,
    ))
}

impl Towers for Clip {
    fn pixel_values(&self, pictures: &[Picture]) -> Result<Tensor> {
        Ok(self.processor.batch(pictures, &self.device)?.to_dtype(self.dtype)?)
    }

    fn picture_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward_class(pixel_values)?.matmul(&self.visual_projection.t()?)?)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn text_length(&self, text: &str) -> Result<TextLength> {
        self.tokenizer.length(text)
    }

    fn text_features(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        Ok(self.text.forward(texts)?.matmul(&self.text_projection.t()?)?)
    }

    fn width(&self) -> usize {
        self.text_projection.dims()[0]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_default_threshold_follows_the_tower() {
        for (name, width, threshold) in [("base", 768, 0.22), ("large", 1024, 0.17), ("huge", 1280, 0.17)] {
            let folder = tempfile::tempdir().unwrap();
            let heads = width / 64;
            let config = format!(
                r#"{{"model_type": "clip", "vision_config": {{"hidden_size": {width}, "num_attention_heads": {heads}}}}}"#
            );
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            let config = DualConfig::load_clip(&FileTree::open(folder.path()).unwrap()).unwrap();
            assert_eq!(default_threshold(&config), threshold, "{name}");
        }
    }
}
