//! LLaVA-1.5 and LLaVA-NeXT (v1.6): CLIP's vision tower, a projector of two maps, and a Llama or Mistral.
//!
//! Sources: Liu et al., "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744) and "LLaVA-NeXT"
//! (2024); `models/llava` and `models/llava_next` in transformers 5.17, against which the golden tests hold this port.
//!
//! ```text
//! config.rs    config.json of llava-hf
//! original.rs  config.json of the authors, translated
//! image.rs     a picture -> its views: one, or the whole and its tiles
//! features.rs  views -> features in one sequence: tiles side by side, padding dropped, rows ended
//! ```

mod config;
mod features;
mod image;
mod original;
#[cfg(test)]
mod published;

use crate::chat::{CHAT_FILES, ChatTokenizer};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{Chat, ChatOptions, Decoder, ImageMark, LanguageModel};
use crate::suite::LoadOptions;
use crate::weights::Weights;

use self::config::{Config, Views};
use self::features::{Eyes, Names, Parts};
use self::image::ImageProcessor;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: [&str; 2] = ["embeddings.position_ids", "rotary_emb.inv_freq"];

/// What the chat templates write for a picture.
const PLACEHOLDER: &str = "<image>";

/// Loads a checkpoint of LLaVA-1.5 or LLaVA-NeXT, in the layout of llava-hf or, if its folder has a tokenizer.json with
/// a token for pictures, a chat template and the vision tower, in that of the authors.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a token for Yes or No: each a [`ModelError`] that names it.
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let config = Config::load(tree)?;
    if let Some(layout) = &config.original {
        original::check_files(tree, layout)?;
    }
    let token = image_token(tree, &config)?;
    let chat = Chat::load(
        tree,
        ChatOptions {
            vocabulary: config.text.vocabulary,
            image: Some(ImageMark { token, written: PLACEHOLDER.to_owned() }),
            eos: config.eos.clone(),
        },
    )?;
    let processor = ImageProcessor::load(tree, &config)?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    let (parts, decoder) = build(&config, &weights, options)?;
    let mut files = vec!["config.json", "preprocessor_config.json"];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    let eyes = Eyes::new(processor, parts, token);
    Ok(LanguageModel::new(Some(Box::new(eyes)), decoder, chat, fingerprint))
}

/// What stands in the place of each feature.
fn image_token(tree: &FileTree, config: &Config) -> Result<u32> {
    if let Some(token) = config.image_token {
        return Ok(token);
    }
    let tokenizer = ChatTokenizer::load(tree)?;
    let Some(token) = tokenizer.id(PLACEHOLDER) else {
        let detail =
            format!("no token {PLACEHOLDER}; add one, which stands for a picture and needs no embedding");
        return Err(ModelError::tokenizer(tokenizer.path(), detail));
    };
    Ok(token)
}

/// Builds both towers and sees that every tensor has found its place, whichever way the names are nested.
fn build(config: &Config, weights: &Weights, options: &LoadOptions) -> Result<(Parts, Decoder)> {
    let names = Names::find(weights);
    if let (Some(layout), None) = (&config.original, names.tower) {
        return Err(original::tower_elsewhere(weights.path(), layout));
    }
    let root = weights.builder();
    let parts = Parts::load(config, &names, &root)?;
    let head = if names.head.is_empty() { root.clone() } else { root.pp(names.head) };
    let decoder = Decoder::load(&config.text, &root.pp(names.text), &head, options.quantisation)?;
    let mut allowed = KNOWN_BUFFERS.to_vec();
    if config.views == Views::One {
        // The authors train LLaVA-1.5 with code that has it for LLaVA-NeXT; nothing reads it.
        allowed.push("image_newline");
    }
    weights.refuse_unused(&allowed)?;
    Ok((parts, decoder))
}
