//! The prompt's tokens: `tokenizer/tokenizer.json` through Hugging Face's own library. The tokenizer of diffusers-rs has
//! CLIP's published vocabulary compiled in, and no other.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use crate::error::{Result, TorchError};
use crate::files::Files;

const FILE: &str = "tokenizer/tokenizer.json";
const CONFIG: &str = "tokenizer/tokenizer_config.json";
/// Pads a text where the configuration does not say what does.
const END: &str = "<|endoftext|>";

/// `tokenizer_config.json`: a token is its text, or an object with a `content`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    pad_token: Option<Value>,
    /// Some versions write 1e30 for "unknown".
    model_max_length: Option<f64>,
}

/// A tokenized text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// As many ids as the tokenizer gives every text.
    pub(crate) ids: Vec<i64>,
    /// What was cut off, if anything.
    pub(crate) lost: Option<String>,
}

/// A loaded tokenizer.
#[derive(Debug)]
pub(crate) struct PromptTokenizer {
    tokenizer: Tokenizer,
    pad: u32,
    length: usize,
    path: PathBuf,
}

impl PromptTokenizer {
    /// Loads the folder `tokenizer` for a text encoder of so many positions and so large a vocabulary.
    pub(crate) fn load(files: &mut Files, positions: i64, vocabulary: i64) -> Result<Self> {
        let path = files.path(FILE);
        if !files.exists(FILE) {
            let problem = "there is no such file; with Python, `transformers.AutoTokenizer.from_pretrained(FOLDER)\
                           .save_pretrained(FOLDER)` makes it of vocab.json and merges.txt";
            return Err(TorchError::Read { path, problem: problem.to_owned() });
        }
        let refused = |error: tokenizers::Error| TorchError::malformed(&path, error.to_string());
        let raw: Raw = if files.exists(CONFIG) { files.json(CONFIG)? } else { Raw::default() };
        let mut tokenizer = Tokenizer::from_bytes(files.bytes(FILE)?).map_err(refused)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(refused)?;
        let pad_token = match &raw.pad_token {
            None => END.to_owned(),
            Some(token) => token.get("content").unwrap_or(token).as_str().unwrap_or_default().to_owned(),
        };
        let pad = tokenizer.token_to_id(&pad_token).ok_or_else(|| {
            let problem = format!("`pad_token` is {pad_token:?}, which is not in the vocabulary");
            TorchError::malformed(&files.path(CONFIG), problem)
        })?;
        // As transformers does: a padding token in a text is that token, whatever word it stands in. It matters for Stable
        // Diffusion 2.x, which pads with `!`.
        let mark = AddedToken::from(pad_token, true).normalized(false);
        tokenizer.add_special_tokens([mark]).map_err(refused)?;
        let known = tokenizer.get_vocab_size(true) as i64;
        if known > vocabulary {
            let problem = format!("{known} tokens, and the text encoder's `vocab_size` is {vocabulary}");
            return Err(TorchError::malformed(&path, problem));
        }
        let length = raw.model_max_length.map_or(positions as f64, |most| most.clamp(1.0, positions as f64));
        Ok(Self { tokenizer, pad, length: length as usize, path })
    }

    /// The text's ids with the marks of beginning and end. Of a text that is too long the first tokens are kept, and both
    /// marks.
    pub(crate) fn encode(&self, text: &str) -> Result<Tokens> {
        let refused = |error: tokenizers::Error| TorchError::malformed(&self.path, error.to_string());
        let encoding = self.tokenizer.encode(text, true).map_err(refused)?;
        let marks = encoding.get_special_tokens_mask();
        let room = self.length.saturating_sub(marks.iter().filter(|&&mark| mark == 1).count());
        let (mut ids, mut words, mut lost) = (Vec::with_capacity(self.length), 0, None);
        for ((id, mark), (from, _)) in encoding.get_ids().iter().zip(marks).zip(encoding.get_offsets()) {
            if *mark == 1 || words < room {
                ids.push(i64::from(*id));
            } else if lost.is_none() {
                lost = Some(text.get(*from..).unwrap_or_default().to_owned());
            }
            words += usize::from(*mark != 1);
        }
        ids.resize(self.length, i64::from(self.pad));
        Ok(Tokens { ids, lost })
    }
}
