//! Language models without eyes, for the tools that write and check constitutions: Llama 3, Mistral, Qwen2.5 and Qwen3.
//! A question about a picture is refused.
//!
//! Source: `models/{llama,mistral,qwen2,qwen3}` in transformers 5.17, against which the golden tests hold them. What
//! sets them apart is read by [`DecoderConfig::read`].

use serde::Deserialize;
use serde_json::Value;

use crate::chat::{CHAT_FILES, TokenIds};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{Chat, ChatOptions, Decoder, DecoderConfig, LanguageModel};
use crate::suite::LoadOptions;
use crate::weights::Weights;

const CONFIG: &str = "config.json";
/// Values of `model_type`. Mixtures of experts have others.
pub(crate) const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];
/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: [&str; 1] = ["rotary_emb.inv_freq"];

#[derive(Deserialize)]
struct RawEnd {
    eos_token_id: Option<TokenIds>,
}

/// Loads a checkpoint of one of [`FAMILIES`] from a folder in Hugging Face layout.
///
/// # Errors
/// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a tokenizer
/// without a token for Yes or No: each a [`ModelError`] that names it.
pub(crate) fn load(tree: &FileTree, options: &LoadOptions) -> Result<LanguageModel> {
    let path = tree.path_of(CONFIG);
    let value: Value = tree.read_json(CONFIG)?;
    let config = DecoderConfig::read(&path, &value)?;
    let end = RawEnd::deserialize(&value).map_err(|e| ModelError::malformed(&path, e.to_string()))?;
    let chat =
        Chat::load(tree, ChatOptions { vocabulary: config.vocabulary, image: None, eos: end.eos_token_id })?;
    let weights = Weights::load(tree, "model", options.dtype, &options.device)?;
    let root = weights.builder();
    let decoder = Decoder::load(&config, &root.pp("model"), &root, options.quantisation)?;
    weights.refuse_unused(&KNOWN_BUFFERS)?;
    let mut files = vec![CONFIG];
    files.extend_from_slice(CHAT_FILES);
    let fingerprint = weights.fingerprint(tree, &files)?;
    Ok(LanguageModel::new(None, decoder, chat, fingerprint))
}
