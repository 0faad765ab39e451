//! InternVL2, 2.5 and 3: pictures in tiles through InternViT, whose patches are joined four by four, before InternLM2,
//! Qwen2 or Llama.
//!
//! Source: Chen et al., "How Far Are We to GPT-4V?" (arXiv 2404.16821); for the layout in which OpenGVLab published
//! the checkpoints, `internvl_chat/internvl` of github.com/OpenGVLab/InternVL at 2410d1d; for that of transformers,
//! `models/internvl` in transformers 5.17. Golden tests hold this port against both.

mod config;
mod tiles;
mod vision;

use candle_core::Tensor;
use cluegate_perception::Picture;
use serde_json::Value;

pub use self::config::{Config, Layout, TileLimits, VisionConfig};
use self::tiles::Tiler;
use self::vision::{Projector, VisionTower};
use crate::chat::{CHAT_FILES, ChatTokenizer, TokenIds};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{
    Chat, ChatOptions, Decoder, Features, ImageMark, LanguageModel, PictureEncoder, PictureTokens,
};
use crate::suite::LoadOptions;
use crate::weights::Weights;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq"];
/// What the original code looks for in a question.
const PLACEHOLDER: &str = "<image>";
/// Ends every turn in the original code, whatever the files say.
const TURN_END: &str = "<|im_end|>";

/// The tiler and the vision tower.
#[derive(Debug)]
struct Eyes {
    tiler: Tiler,
    tower: VisionTower,
    projector: Projector,
    marks: Marks,
    /// Tokens of a tile.
    tokens: usize,
}

/// The tokens before, for each feature of, and after a picture.
#[derive(Debug, Clone, Copy)]
struct Marks {
    start: u32,
    image: u32,
    end: u32,
}

impl PictureEncoder for Eyes {
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        let tiles = self.tiler.count(picture.width(), picture.height())?;
        let Marks { start, image, end } = self.marks;
        let mut ids = vec![image; tiles * self.tokens + 2];
        if let [first, .., last] = ids.as_mut_slice() {
            (*first, *last) = (start, end);
        }
        Ok(PictureTokens::in_line(ids))
    }

    fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        self.tiler.tiles(picture.pixels())
    }

    fn features(&self, picture: &Picture) -> Result<Features> {
        let tiles = self.tiler.tiles(picture.pixels())?;
        let states = self.tower.forward(&tiles).map_err(|e| ModelError::from(e).at("the vision tower"))?;
        let features = self.projector.forward(&states);
        Ok(features.map_err(|e| ModelError::from(e).at("the projector"))?.into())
    }
}

/// Loads a checkpoint from a folder in either layout. Weights are converted to the type of `options`.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a token for Yes or No, or without those that stand for pictures: each a [`ModelError`] that names it.
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let config = Config::load(tree)?;
    let tokenizer = ChatTokenizer::load(tree)?;
    let (marks, written) = marks(tree, &config, &tokenizer)?;
    let eos = match (config.layout, tokenizer.id(TURN_END)) {
        (Layout::Original, Some(turn)) => {
            let own = config.eos.clone().map(TokenIds::into_vec).unwrap_or_default();
            Some(TokenIds::Many([vec![turn], own].concat()))
        }
        _ => config.eos.clone(),
    };
    drop(tokenizer);
    let image = Some(ImageMark { token: marks.image, written });
    let chat = Chat::load(tree, ChatOptions { vocabulary: config.text.vocabulary, image, eos })?;
    let tiler = Tiler::load(tree, &config)?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    let (tower, projector, decoder) = build(&config, &weights, options)?;
    let mut files = vec![config::FILE, tiles::FILE, tiles::PARENT];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    let eyes = Eyes { tiler, tower, projector, marks, tokens: config.vision.tokens() };
    Ok(LanguageModel::new(Some(Box::new(eyes)), decoder, chat, fingerprint))
}

/// The tokens around and in a picture, and what a conversation holds in its place.
fn marks(tree: &FileTree, config: &Config, tokenizer: &ChatTokenizer) -> Result<(Marks, String)> {
    const FILE: &str = "tokenizer_config.json";
    let raw: Value = if tree.exists(FILE) { tree.read_json(FILE)? } else { Value::Null };
    // At the top, or among others since transformers 5.
    let named = |role: &str| {
        let token = raw.get(role).or_else(|| raw.get("extra_special_tokens")?.get(role));
        token.and_then(Value::as_str)
    };
    let id = |token: &str| {
        tokenizer.id(token).ok_or_else(|| {
            let detail =
                format!("a tokenizer without `{token}`, which belongs to every picture of this model");
            ModelError::tokenizer(tokenizer.path(), detail)
        })
    };
    let start = id(named("start_image_token").unwrap_or("<img>"))?;
    let end = id(named("end_image_token").unwrap_or("</img>"))?;
    let (image, written) = match config.image_token {
        Some(image) => (image, tokenizer.text(image)?),
        None => (id("<IMG_CONTEXT>")?, PLACEHOLDER.to_owned()),
    };
    Ok((Marks { start, image, end }, written))
}

/// Builds all parts and sees that every tensor has found its place, whichever way the names are nested.
fn build(
    config: &Config,
    weights: &Weights,
    options: &LoadOptions,
) -> Result<(VisionTower, Projector, Decoder)> {
    let root = weights.builder();
    let (layout, vision) = (config.layout, &config.vision);
    // What transformers saves since version 5, and what it saved before.
    let current = weights.contains_prefix("model.language_model.");
    let [tower, projector, text, head] = match layout {
        Layout::Original => ["vision_model", "mlp1", "language_model.model", "language_model"],
        Layout::Transformers if current => {
            ["model.vision_tower", "model.multi_modal_projector", "model.language_model", ""]
        }
        Layout::Transformers => {
            ["vision_tower", "multi_modal_projector", "language_model.model", "language_model"]
        }
    };
    let head = if head.is_empty() { root.clone() } else { root.pp(head) };
    let tower = VisionTower::load(vision, layout, &root.pp(tower))?;
    let projector = Projector::load(vision, config.text.hidden, layout, &root.pp(projector))?;
    let decoder = Decoder::load(&config.text, &root.pp(text), &head, options.quantisation)?;
    weights.refuse_unused(KNOWN_BUFFERS)?;
    Ok((tower, projector, decoder))
}
