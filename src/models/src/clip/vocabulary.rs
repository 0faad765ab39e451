//! CLIP's tokenizer from `vocab.json` and `merges.txt`, for checkpoints without a `tokenizer.json`: the published OWLv2
//! folders hold these and `tokenizer_config.json` only.
//!
//! What is put together here is the `tokenizer.json` that transformers 5.17 makes of the same files (`CLIPTokenizer` in
//! `models/clip/tokenization_clip.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ModelError, Result};
use crate::files::FileTree;

/// The files that are read.
pub(super) const FILES: [&str; 3] = [VOCABULARY, MERGES, CONFIG];

const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const CONFIG: &str = "tokenizer_config.json";

/// How a text is cut into words: the marks, English contractions, runs of letters, single digits, runs of anything else.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The fields of `tokenizer_config.json` that decide about tokens; absent ones have the reference's defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawConfig {
    added_tokens_decoder: BTreeMap<u32, AddedToken>,
    bos_token: Option<Named>,
    eos_token: Option<Named>,
    unk_token: Option<Named>,
    pad_token: Option<Named>,
}

/// A token that is found in a text before it is cut into words.
#[derive(Debug, Clone, Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// A token with a role, as a string or with its properties.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Named {
    Plain(String),
    Described(AddedToken),
}

impl Named {
    fn or(token: Option<Self>, default: &str) -> AddedToken {
        let plain = |content: String| AddedToken {
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        };
        match token {
            None => plain(default.to_owned()),
            Some(Self::Plain(content)) => plain(content),
            Some(Self::Described(token)) => token,
        }
    }
}

/// The bytes of a `tokenizer.json`, or none if the checkpoint has no `vocab.json` either.
///
/// # Errors
/// A missing or malformed file, or a marking token that is not in the vocabulary.
pub(super) fn assemble(tree: &FileTree) -> Result<Option<Vec<u8>>> {
    if !tree.exists(VOCABULARY) {
        return Ok(None);
    }
    let vocabulary: BTreeMap<String, u32> = tree.read_json(VOCABULARY)?;
    let merges = tree.read_text(MERGES)?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let config: RawConfig = if tree.exists(CONFIG) { tree.read_json(CONFIG)? } else { RawConfig::default() };
    let start = Named::or(config.bos_token, "<|startoftext|>");
    let end = Named::or(config.eos_token, "<|endoftext|>");
    let unknown = Named::or(config.unk_token, "<|endoftext|>");
    let pad = Named::or(config.pad_token, "<|endoftext|>");
    let id = |token: &AddedToken| {
        vocabulary.get(&token.content).copied().ok_or_else(|| {
            let detail =
                format!("no token `{}`, which {} marks texts with", token.content, tree.path_of(CONFIG));
            ModelError::tokenizer(tree.path_of(VOCABULARY), detail)
        })
    };
    let mut added = config.added_tokens_decoder;
    for token in [&start, &end, &unknown, &pad] {
        // What has a role is special, whatever else is said of it.
        added.entry(id(token)?).or_insert_with(|| token.clone()).special = true;
    }
    let added: Vec<Value> = added.iter().map(|(id, token)| token.value(*id)).collect();
    let whole = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end.content, id(&end)?],
            "cls": [start.content, id(&start)?],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.content,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    Ok(Some(whole.to_string().into_bytes()))
}

impl AddedToken {
    /// As `tokenizer.json` has it.
    fn value(&self, id: u32) -> Value {
        json!({
            "id": id,
            "content": self.content,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        })
    }
}
