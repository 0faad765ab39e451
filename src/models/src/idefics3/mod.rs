//! Idefics3 and SmolVLM: a SigLIP-like tower over tiles of a picture, and a Llama that reads them between marks of rows
//! and columns. SmolVLM at 256 million parameters is a judge for a laptop.
//!
//! Sources: Laurençon et al., "Building and better understanding vision-language models" (arXiv 2408.12637); Marafioti
//! et al., "SmolVLM" (arXiv 2504.05299); `models/idefics3` and `models/smolvlm` in transformers 5.17, against which the
//! golden tests hold this port. Of SmolVLM 2 it takes single pictures, no videos.

mod config;
mod image;
mod marks;
mod vision;

use candle_core::{DType, Device, Tensor};
use cluegate_perception::Picture;

use self::config::Config;
use self::image::ImageProcessor;
use self::marks::{Marks, PLACEHOLDER};
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
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq", "embeddings.position_ids"];

/// Tiles of one forward pass; more are computed in turn, so that memory stays bounded. Published processors make up to
/// 17 of a picture.
const TILES: usize = 32;

/// The image processor, the vision tower, and what stands between the features of tiles.
#[derive(Debug)]
struct Eyes {
    processor: ImageProcessor,
    marks: Marks,
    tower: VisionTower,
    device: Device,
    dtype: DType,
}

impl PictureEncoder for Eyes {
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        let plan = self.processor.plan(picture.width(), picture.height())?;
        Ok(PictureTokens::in_line(self.marks.around(plan.rows, plan.columns)?))
    }

    fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        self.processor.tiles(picture.pixels())
    }

    fn features(&self, picture: &Picture) -> Result<Features> {
        let tiles = self.processor.tiles(picture.pixels())?.to_dtype(self.dtype)?;
        let count = tiles.dim(0)?;
        let parts = (0..count)
            .step_by(TILES)
            .map(|first| {
                let part = tiles.narrow(0, first, TILES.min(count - first))?.to_device(&self.device)?;
                self.tower.forward(&part)
            })
            .collect::<candle_core::Result<Vec<_>>>()
            .map_err(|e| ModelError::from(e).at("the vision tower"))?;
        Ok(Tensor::cat(&parts, 0)?.into())
    }
}

/// Loads a checkpoint from a folder in Hugging Face layout.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a mark that pictures need or a token for Yes or No: each a [`ModelError`] that names it.
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let config = Config::load(tree)?;
    let processor = ImageProcessor::load(tree, &config)?;
    let chat = Chat::load(
        tree,
        ChatOptions {
            vocabulary: config.text.vocabulary,
            image: Some(ImageMark { token: config.image_token, written: PLACEHOLDER.to_owned() }),
            eos: config.eos.clone(),
        },
    )?;
    let tiles = (config.tokens_per_tile(), processor.most_tiles());
    let marks = Marks::find(chat.tokenizer(), config.image_token, tiles)?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    let root = weights.builder();
    let tower = VisionTower::load(&config, &root.pp("model"))?;
    let decoder = Decoder::load(&config.text, &root.pp("model.text_model"), &root, options.quantisation)?;
    weights.refuse_unused(KNOWN_BUFFERS)?;
    let mut files = vec!["config.json", "preprocessor_config.json", "processor_config.json"];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    let eyes = Eyes { processor, marks, tower, device: options.device.clone(), dtype: options.dtype };
    Ok(LanguageModel::new(Some(Box::new(eyes)), decoder, chat, fingerprint))
}
