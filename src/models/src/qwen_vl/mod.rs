//! What the Qwen vision-language models have in common: pictures of their own size cut into patches that are merged
//! into tokens, rotary positions in time, row and column, and the way their files are laid out.
//!
//! ```text
//! config.rs   config.json, flat and nested
//! image.rs    the image processor
//! tower.rs    the parts of the vision towers
//! ```

mod config;
mod image;
#[cfg(test)]
pub(crate) mod published;
mod tower;

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_perception::Picture;
use serde_json::Value;

pub use self::config::{Config, VisionConfig};
pub(crate) use self::config::{RawRope, ensure};
pub use self::image::{ImageProcessor, Patches};
pub(crate) use self::tower::{Block, EPSILON, Merger, Stem, blocks, places};
use crate::chat::{CHAT_FILES, ChatTokenizer};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{
    Chat, ChatOptions, Decoder, Features, ImageMark, LanguageModel, PictureEncoder, PictureTokens,
};
use crate::suite::LoadOptions;
use crate::weights::Weights;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];

/// A family's vision tower.
pub(crate) trait VisionTower: std::fmt::Debug + Send + Sync + Sized + 'static {
    /// The `model_type` of the family.
    const FAMILY: &'static str;
    /// What its configuration has beside the dimensions.
    type Extra;

    /// Reads `vision_config`; the language model is `hidden` wide.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`.
    fn read(path: &str, config: &Value, hidden: usize) -> Result<(VisionConfig, Self::Extra)>;

    /// `vb` leads to the tower's tensors.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    fn load(config: &VisionConfig, extra: &Self::Extra, vb: &VarBuilder<'_>) -> candle_core::Result<Self>;

    /// Features of one picture, `[rows * columns / merge^2, hidden]` in reading order.
    ///
    /// # Errors
    /// A failed tensor operation.
    fn forward(&self, patches: &Patches) -> candle_core::Result<Features>;
}

/// The image processor and the vision tower.
#[derive(Debug)]
struct Eyes<T> {
    processor: ImageProcessor,
    tower: T,
    /// Edge in pixels of the square that becomes one token.
    token: u32,
    /// Its id.
    id: u32,
    /// Frames of one patch.
    frames: usize,
}

impl<T: VisionTower> PictureEncoder for Eyes<T> {
    /// Rows and columns of merged patches: they share one time and count from where the picture begins, and what
    /// follows starts after the longer edge (`get_rope_index` in `models/qwen2_vl/modeling_qwen2_vl.py`).
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        let (width, height) = self.processor.size(picture.width(), picture.height())?;
        let (rows, columns) = (height / self.token, width / self.token);
        let positions: Vec<_> = (0..rows).flat_map(|y| (0..columns).map(move |x| [0, y, x])).collect();
        Ok(PictureTokens { ids: vec![self.id; positions.len()], positions, span: rows.max(columns) })
    }

    /// `[patches, 3 * frames * patch * patch]`, the frames alike.
    fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let patches = self.processor.patches(picture.pixels())?;
        let count = patches.rows * patches.columns;
        let one = Tensor::from_vec(patches.values, (count, 3, 1, ()), &Device::Cpu)?;
        Ok(one.repeat((1, 1, self.frames, 1))?.flatten_from(1)?)
    }

    fn features(&self, picture: &Picture) -> Result<Features> {
        let patches = self.processor.patches(picture.pixels())?;
        self.tower.forward(&patches).map_err(|e| ModelError::from(e).at("the vision tower"))
    }
}

/// Loads a checkpoint of a family from a folder in Hugging Face layout.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a token for Yes or No: each a [`ModelError`] that names it.
pub(crate) fn load<T: VisionTower>(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let (config, extra) = Config::load::<T>(tree)?;
    let vision = &config.vision;
    let written = ChatTokenizer::load(tree)?.text(config.image_token)?;
    let image = Some(ImageMark { token: config.image_token, written });
    let chat = Chat::load(tree, ChatOptions { vocabulary: config.text.vocabulary, image, eos: config.eos })?;
    let processor = ImageProcessor::load(tree, vision)?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    // Published files call the parts `visual` and `model`, later ones `model.visual` and `model.language_model`.
    let root = weights.builder();
    let visual = if weights.contains_prefix("model.visual.") { "model.visual" } else { "visual" };
    let nested = weights.contains_prefix("model.language_model.");
    let text = if nested { "model.language_model" } else { "model" };
    let tower = T::load(vision, &extra, &root.pp(visual))?;
    let decoder = Decoder::load(&config.text, &root.pp(text), &root, options.quantisation)?;
    weights.refuse_unused(KNOWN_BUFFERS)?;
    let mut files = vec!["config.json", "preprocessor_config.json", "processor_config.json"];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    let eyes = Eyes {
        processor,
        tower,
        token: (vision.patch * vision.merge) as u32,
        id: config.image_token,
        frames: vision.frames,
    };
    Ok(LanguageModel::new(Some(Box::new(eyes)), decoder, chat, fingerprint))
}
