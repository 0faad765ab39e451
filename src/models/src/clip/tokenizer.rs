//! CLIP's byte-level BPE tokenizer.

use cluegate_perception::TextLength;
use tokenizers::Tokenizer;

use super::vocabulary;
use crate::error::{ModelError, Result};
use crate::files::{FileBytes, FileTree};

/// A tokenizer that puts a beginning and an end token around each text, as CLIP's does. Lower-casing and the
/// collapsing of white space are part of it.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    path: String,
    files: &'static [&'static str],
    start: u32,
    end: u32,
    max_tokens: usize,
    vocab_size: usize,
}

impl ClipTokenizer {
    /// Reads `tokenizer.json`, or where there is none `vocab.json`, `merges.txt` and `tokenizer_config.json`, from which
    /// transformers builds the same. Texts are cut to `max_tokens`, of which the last stays the end token; ids must lie
    /// below `vocab_size`.
    ///
    /// # Errors
    /// A missing or malformed file; a tokenizer that does not put exactly one token before and one behind a text,
    /// or whose ids go beyond the vocabulary of the model.
    pub fn load(tree: &FileTree, max_tokens: usize, vocab_size: usize) -> Result<Self> {
        let parts = if tree.exists(FILES[0]) { None } else { vocabulary::assemble(tree)? };
        let files = if parts.is_some() { &vocabulary::FILES[..] } else { &FILES[..] };
        let path = tree.path_of(files[0]);
        let bytes = parts.map_or_else(|| tree.read(FILES[0]), |bytes| Ok(FileBytes::Owned(bytes)))?;
        let mut tokenizer = Tokenizer::from_bytes(&*bytes)
            .map_err(|error| ModelError::tokenizer(&path, format!("not a tokenizer: {error}")))?;
        // The model decides, not what the file happens to have been saved with.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| ModelError::tokenizer(&path, format!("truncation: {error}")))?;
        if max_tokens < 2 {
            return Err(ModelError::tokenizer(
                &path,
                format!("room for {max_tokens} tokens, expected at least 2"),
            ));
        }
        let mut own = Self { tokenizer, path, files, start: 0, end: 0, max_tokens, vocab_size };
        let marks = own.tokens("")?;
        let [start, end] = marks[..] else {
            let detail = format!(
                "an empty text becomes {} token(s), expected 2: the beginning and the end token",
                marks.len()
            );
            return Err(ModelError::tokenizer(own.path, detail));
        };
        (own.start, own.end) = (start, end);
        Ok(own)
    }

    /// The token at the beginning of each text.
    pub fn start_token(&self) -> u32 {
        self.start
    }

    /// The token at the end of each text.
    pub fn end_token(&self) -> u32 {
        self.end
    }

    /// The files that it was read from, for the fingerprint of a model.
    pub(crate) fn files(&self) -> &'static [&'static str] {
        self.files
    }

    /// How messages call the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The ids of a text, beginning and end token included, at most as many as the model holds: what is too long
    /// loses its last words, never its end token.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or an id beyond the model's vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokens(text)?;
        if ids.len() > self.max_tokens {
            tracing::debug!(tokens = ids.len(), max = self.max_tokens, text, "text is cut");
            ids.truncate(self.max_tokens - 1);
            ids.push(self.end);
        }
        Ok(ids)
    }

    /// How long a text is before it is cut.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn length(&self, text: &str) -> Result<TextLength> {
        Ok(TextLength { tokens: self.tokens(text)?.len(), limit: self.max_tokens })
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode(text, true)
            .map_err(|error| ModelError::tokenizer(&self.path, format!("cannot encode {text:?}: {error}")))?;
        let ids = encoding.get_ids();
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            let detail = format!(
                "token id {id} in {text:?}, the model's vocabulary ends before {}: tokenizer and model do not belong \
                 together",
                self.vocab_size
            );
            return Err(ModelError::tokenizer(&self.path, detail));
        }
        Ok(ids.to_vec())
    }
}

const FILES: [&str; 1] = ["tokenizer.json"];
