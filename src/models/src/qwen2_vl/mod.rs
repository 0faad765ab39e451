//! Qwen2-VL: a vision-language model with dynamic picture sizes and rotary positions in time, row and column.
//!
//! Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
//! (arXiv 2409.12191), and `models/qwen2_vl` in transformers 5.17, against which the golden tests hold this port.

mod config;
mod image;
mod vision;

use candle_core::Tensor;
use cluegate_perception::Picture;

pub use self::config::{Config, VisionConfig};
pub use self::image::{ImageProcessor, Patches};
use self::vision::VisionTower;
use crate::chat::CHAT_FILES;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{
    Chat, ChatOptions, Decoder, Features, ImageMark, LanguageModel, PictureEncoder, PictureTokens,
};
use crate::suite::LoadOptions;
use crate::weights::Weights;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];

/// The image processor and the vision tower.
#[derive(Debug)]
struct Eyes {
    processor: ImageProcessor,
    tower: VisionTower,
    /// Edge in pixels of the square that becomes one token.
    token: usize,
    /// Stands for each of them.
    image_token: u32,
}

impl PictureEncoder for Eyes {
    /// Rows and columns of merged patches: they share one time and count from where the picture begins, and what
    /// follows starts after the longer edge (`get_rope_index` in `models/qwen2_vl/modeling_qwen2_vl.py`).
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        let (width, height) = self.processor.size(picture.width(), picture.height())?;
        let edge = self.token as u32;
        let (rows, columns) = (height / edge, width / edge);
        let positions = (0..rows).flat_map(|y| (0..columns).map(move |x| [0, y, x])).collect();
        let ids = vec![self.image_token; (rows * columns) as usize];
        Ok(PictureTokens { ids, positions, span: rows.max(columns) })
    }

    fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let patches = self.processor.patches(picture.pixels())?;
        let count = patches.rows * patches.columns;
        let width = patches.values.len() / count;
        Ok(Tensor::from_vec(patches.values, (count, width), &candle_core::Device::Cpu)?)
    }

    fn features(&self, picture: &Picture) -> Result<Features> {
        let patches = self.processor.patches(picture.pixels())?;
        let features =
            self.tower.forward(&patches).map_err(|e| ModelError::from(e).at("the vision tower"))?;
        Ok(features.into())
    }
}

/// Loads a checkpoint from a folder in Hugging Face layout.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a token for Yes or No: each a [`ModelError`] that names it.
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let config = Config::load(tree)?;
    let image_token = config.image_token;
    let written = crate::chat::ChatTokenizer::load(tree)?.text(image_token)?;
    let chat = Chat::load(
        tree,
        ChatOptions {
            vocabulary: config.text.vocabulary,
            image: Some(ImageMark { token: image_token, written }),
            eos: config.eos.clone(),
        },
    )?;
    let processor = ImageProcessor::load(tree, &config.vision)?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    let (tower, decoder) = build(&config, &weights, options)?;
    let mut files = vec!["config.json", "preprocessor_config.json", "processor_config.json"];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    let token = config.vision.patch * config.vision.merge;
    let eyes = Eyes { processor, tower, token, image_token };
    Ok(LanguageModel::new(Some(Box::new(eyes)), decoder, chat, fingerprint))
}

/// Builds both towers and sees that every tensor has found its place, whichever way the names are nested.
fn build(config: &Config, weights: &Weights, options: &LoadOptions) -> Result<(VisionTower, Decoder)> {
    let root = weights.builder();
    let nested = weights.contains_prefix("model.language_model.");
    let visual = if weights.contains_prefix("model.visual.") { "model.visual" } else { "visual" };
    let text = if nested { "model.language_model" } else { "model" };
    let tower = VisionTower::load(&config.vision, &root.pp(visual))?;
    let decoder = Decoder::load(&config.text, &root.pp(text), &root, options.quantisation)?;
    let mut allowed = KNOWN_BUFFERS.to_vec();
    if config.text.tied {
        // Some converters store the shared table twice.
        allowed.push("lm_head.weight");
    }
    weights.refuse_unused(&allowed)?;
    Ok((tower, decoder))
}
