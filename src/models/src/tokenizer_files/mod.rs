//! The tokenizer of a checkpoint, from whichever files it was published with.
//!
//! | files | checkpoints |
//! |---|---|
//! | `tokenizer.json` | nearly all |
//! | `tokenizer.model` with `tokenizer_config.json` | InternLM2 in InternVL2 and 2.5, Llama |
//! | `spiece.model` | SigLIP as transformers saves it |
//! | `vocab.json`, `merges.txt` with `tokenizer_config.json` | Qwen2 in InternVL2 and 3 |
//!
//! The last three hold what the slow tokenizers of transformers read. They become the JSON of the `tokenizers` crate, as
//! `convert_slow_tokenizer.py` of transformers 4.49 has it, with the added tokens of `tokenizer_config.json`.

mod byte_level;
mod sentencepiece;
mod unigrams;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::error::{ModelError, Result};
use crate::files::FileTree;

const JSON: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const MODEL: &str = "tokenizer.model";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const UNIGRAMS: &str = "spiece.model";

/// Reads the tokenizer of a checkpoint; how messages call it, and the tokenizer.
///
/// # Errors
/// `MissingFile` for `tokenizer.json` if no set of files is complete; `Malformed`, `Tokenizer` for a damaged file or
/// one that is no tokenizer; `Unsupported` for one that would be read wrongly.
pub(crate) fn load(tree: &FileTree) -> Result<(String, Tokenizer)> {
    if !tree.exists(JSON) && tree.exists(UNIGRAMS) {
        let path = tree.path_of(UNIGRAMS);
        let tokenizer = unigrams::convert(&path, &tree.read(UNIGRAMS)?)?;
        return Ok((path, tokenizer));
    }
    let (file, bytes) = if tree.exists(JSON) {
        (JSON, tree.read(JSON)?.to_vec())
    } else if tree.exists(MODEL) {
        (MODEL, converted(tree, MODEL)?)
    } else if tree.exists(VOCABULARY) && tree.exists(MERGES) {
        (VOCABULARY, converted(tree, VOCABULARY)?)
    } else {
        return Err(ModelError::MissingFile { path: tree.path_of(JSON), what: "file" });
    };
    let path = tree.path_of(file);
    let tokenizer = Tokenizer::from_bytes(bytes)
        .map_err(|e| ModelError::tokenizer(&path, format!("not a tokenizer: {e}")))?;
    Ok((path, tokenizer))
}

/// `tokenizer_config.json`, as far as it decides how the files are read.
#[derive(Deserialize)]
struct RawConfig {
    tokenizer_class: Option<String>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
    /// Of Llama's: whether every part between special tokens begins with a space of its own, or the whole text does.
    legacy: Option<bool>,
}

/// A token that is found in the text before anything else happens to it.
#[derive(Debug, Clone, Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl AddedToken {
    fn new(content: &str, special: bool) -> Self {
        Self { content: content.to_owned(), special, lstrip: false, rstrip: false, single_word: false }
    }
}

/// What is common to both kinds: everything of the JSON but the added tokens.
struct Converted {
    json: Value,
    /// Number of tokens without the added ones.
    size: usize,
    added: BTreeMap<u32, AddedToken>,
}

fn converted(tree: &FileTree, file: &str) -> Result<Vec<u8>> {
    let path = tree.path_of(file);
    let config: RawConfig = tree.read_json(CONFIG)?;
    let class = config.tokenizer_class.as_deref().unwrap_or("none");
    // The fast tokenizers differ in their name alone.
    let kind = class.strip_suffix("Fast").unwrap_or(class);
    let converted = match (file, kind) {
        (MODEL, "InternLM2Tokenizer" | "LlamaTokenizer") => {
            let legacy = kind != "LlamaTokenizer" || config.legacy.unwrap_or(true);
            sentencepiece::convert(&path, &tree.read(MODEL)?, &config.added_tokens_decoder, legacy)?
        }
        (VOCABULARY, "Qwen2Tokenizer") => {
            let vocabulary = tree.read_json(VOCABULARY)?;
            let merges = byte_level::merges(&tree.path_of(MERGES), &tree.read_text(MERGES)?)?;
            byte_level::convert(vocabulary, &merges)
        }
        _ => {
            let supported =
                if file == MODEL { "InternLM2Tokenizer, LlamaTokenizer" } else { "Qwen2Tokenizer" };
            let supported = format!("{supported} (or a file {JSON})");
            return Err(ModelError::unsupported(tree.path_of(CONFIG), "`tokenizer_class`", class, supported));
        }
    };
    let Converted { mut json, size, mut added } = converted;
    added.extend(config.added_tokens_decoder);
    // The crate numbers tokens that its model does not hold in the order in which they come.
    for (expected, (&id, token)) in (size..).zip(added.range(size as u32..)) {
        if id as usize != expected {
            let detail = format!("added token `{}` is number {id}, expected {expected}", token.content);
            return Err(ModelError::tokenizer(tree.path_of(CONFIG), detail));
        }
    }
    let added: Vec<Value> = added
        .into_iter()
        .map(|(id, token)| {
            let AddedToken { content, special, lstrip, rstrip, single_word } = token;
            // The slow tokenizers look for them in the text as it is.
            json!({
                "id": id, "content": content, "special": special, "lstrip": lstrip, "rstrip": rstrip,
                "single_word": single_word, "normalized": false,
            })
        })
        .collect();
    json["version"] = json!("1.0");
    json["added_tokens"] = json!(added);
    serde_json::to_vec(&json).map_err(|e| ModelError::tokenizer(path, e.to_string()))
}
