//! SigLIP's tokenizers: SentencePiece over canonicalised words, and Gemma's in SigLIP 2.

use cluegate_perception::TextLength;
use serde::Deserialize;
use tokenizers::Tokenizer;

use crate::chat::RawToken;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::tokenizer_files;

const CONFIG: &str = "tokenizer_config.json";
/// What is read.
pub(super) const FILES: [&str; 3] = ["tokenizer.json", "spiece.model", CONFIG];

/// SentencePiece's sign for a space.
const SPACE: char = '\u{2581}';

/// What happens to a text before the tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preparation {
    /// `SiglipTokenizer`: lower case unless told otherwise, without ASCII punctuation, white space collapsed.
    Canonical { lower: bool },
    /// `Siglip2Tokenizer`: lower case.
    LowerCase,
    /// Whatever the file says, as for `GemmaTokenizer`.
    None,
}

/// A `tokenizer.json` with what `tokenizer_config.json` says about it. Every text is padded to the model's full length:
/// the model was trained so, and looks at the last place.
///
/// Written after `models/siglip/tokenization_siglip.py`, `models/siglip2/tokenization_siglip2.py` and
/// `models/gemma/tokenization_gemma.py` of transformers 5.17. It differs from the first in one thing: `</s>` inside a
/// text is no control token but a letter between punctuation.
#[derive(Debug, Clone)]
pub struct SiglipTokenizer {
    tokenizer: Tokenizer,
    path: String,
    preparation: Preparation,
    /// Special tokens before and behind a text.
    before: Vec<u32>,
    after: Vec<u32>,
    pad: u32,
    pads_left: bool,
    length: usize,
    vocab_size: usize,
}

/// The parts of `tokenizer_config.json` that matter here.
#[derive(Deserialize, Default)]
struct RawConfig {
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
    pad_token: Option<RawToken>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    padding_side: Option<String>,
}

impl SiglipTokenizer {
    /// Reads `tokenizer.json`, or `spiece.model` where there is none, and `tokenizer_config.json`. Texts are cut or padded to `length` tokens; ids must lie
    /// below `vocab_size`.
    ///
    /// # Errors
    /// A missing or malformed file, or one that lacks a special token.
    pub fn load(tree: &FileTree, length: usize, vocab_size: usize) -> Result<Self> {
        let (path, mut tokenizer) = tokenizer_files::load(tree)?;
        // The model decides, not what the file happens to have been saved with.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| ModelError::tokenizer(&path, format!("truncation: {error}")))?;
        let raw: RawConfig = if tree.exists(CONFIG) { tree.read_json(CONFIG)? } else { RawConfig::default() };
        let class = raw.tokenizer_class.as_deref().unwrap_or("SiglipTokenizer");
        let preparation = match class.strip_suffix("Fast").unwrap_or(class) {
            "SiglipTokenizer" => Preparation::Canonical { lower: raw.do_lower_case.unwrap_or(true) },
            "Siglip2Tokenizer" => Preparation::LowerCase,
            _ => Preparation::None,
        };
        let canonical = matches!(preparation, Preparation::Canonical { .. });
        let pads_left = match raw.padding_side.as_deref() {
            Some("left") => true,
            Some("right") => false,
            Some(other) => {
                let what = "`padding_side`";
                return Err(ModelError::unsupported(tree.path_of(CONFIG), what, other, "left, right"));
            }
            // The reference's classes differ.
            None => !canonical,
        };
        let name = |token: Option<RawToken>, default: &str| {
            token.map_or_else(|| default.to_owned(), RawToken::into_content)
        };
        let eos = name(raw.eos_token, if canonical { "</s>" } else { "<eos>" });
        let bos = name(raw.bos_token, "<bos>");
        let pad = name(raw.pad_token, if canonical { "</s>" } else { "<pad>" });
        let mut own = Self {
            tokenizer,
            path,
            preparation,
            before: Vec::new(),
            after: Vec::new(),
            pad: 0,
            pads_left,
            length,
            vocab_size,
        };
        own.pad = own.special(&pad)?;
        (own.before, own.after) = own.marks()?;
        if canonical {
            (own.before, own.after) = (Vec::new(), vec![own.special(&eos)?]);
        }
        if let Some(wanted) = raw.add_bos_token.filter(|_| !canonical) {
            own.before = if wanted { vec![own.special(&bos)?] } else { Vec::new() };
        }
        if let Some(wanted) = raw.add_eos_token.filter(|_| !canonical) {
            own.after = if wanted { vec![own.special(&eos)?] } else { Vec::new() };
        }
        if own.before.len() + own.after.len() >= length {
            let detail = format!("room for {length} tokens, expected at least one beside the special ones");
            return Err(ModelError::tokenizer(own.path, detail));
        }
        Ok(own)
    }

    /// How messages call the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The ids of a text, special tokens and padding included: as many as the model holds. What is too long loses its
    /// last words, never its end token.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or an id beyond the model's vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let room = self.length - self.before.len() - self.after.len();
        let mut words = self.prepared(text)?;
        if words.len() > room {
            tracing::debug!(tokens = words.len(), room, text, "text is cut");
            words.truncate(room);
        }
        let padding = std::iter::repeat_n(self.pad, room - words.len());
        let mut ids = Vec::with_capacity(self.length);
        if self.pads_left {
            ids.extend(padding.clone());
        }
        ids.extend(self.before.iter().chain(&words).chain(&self.after));
        if !self.pads_left {
            ids.extend(padding);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            let detail = format!(
                "token id {id} in {text:?}, the model's vocabulary ends before {}: tokenizer and model do not belong \
                 together",
                self.vocab_size
            );
            return Err(ModelError::tokenizer(&self.path, detail));
        }
        Ok(ids)
    }

    /// How long a text is before it is cut.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn length(&self, text: &str) -> Result<TextLength> {
        let tokens = self.prepared(text)?.len() + self.before.len() + self.after.len();
        Ok(TextLength { tokens, limit: self.length })
    }

    /// The ids of a text's words alone.
    fn prepared(&self, text: &str) -> Result<Vec<u32>> {
        match self.preparation {
            Preparation::Canonical { lower: true } => self.words(&canonical(&text.to_lowercase()), false),
            Preparation::Canonical { lower: false } => self.words(&canonical(text), false),
            Preparation::LowerCase => self.words(&text.to_lowercase(), false),
            Preparation::None => self.words(text, false),
        }
    }

    fn words(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode(text, special)
            .map_err(|error| ModelError::tokenizer(&self.path, format!("cannot encode {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn special(&self, token: &str) -> Result<u32> {
        self.tokenizer
            .token_to_id(token)
            .ok_or_else(|| ModelError::tokenizer(&self.path, format!("has no token `{token}`")))
    }

    /// What the file's own post-processor puts before and behind a text.
    fn marks(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        const WORD: &str = "a";
        let (bare, whole) = (self.words(WORD, false)?, self.words(WORD, true)?);
        let Some(start) = whole.windows(bare.len().max(1)).position(|part| part == bare) else {
            let detail = format!("special tokens change how {WORD:?} is cut: {bare:?}, then {whole:?}");
            return Err(ModelError::tokenizer(&self.path, detail));
        };
        Ok((whole[..start].to_vec(), whole[start + bare.len()..].to_vec()))
    }
}

/// `SiglipTokenizer.canonicalize_text` but for the case, of a text that begins with the sign for a space, as the
/// reference has it: space /// that is left behind that sign stays. The sign alone is nothing.
fn canonical(text: &str) -> String {
    // Python's `\s` has four more control characters than Unicode's white space.
    let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    let mut out = String::with_capacity(text.len() + SPACE.len_utf8());
    out.push(SPACE);
    for c in text.replace(SPACE, " ").chars().filter(|c| !c.is_ascii_punctuation()) {
        if !is_space(c) {
            out.push(c);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end_matches([' ', SPACE]).len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_canonicalised_as_the_reference_does() {
        for (text, expected) in [
            ("A person, on FIRE!", "\u{2581}A person on FIRE"),
            ("", ""),
            ("!?", ""),
            ("  - two\tlines\n\u{1d}of  it ", "\u{2581} two lines of it"),
            ("it's\u{2581}30\u{a0}%", "\u{2581}its 30"),
            ("\u{f6}l \u{2014} caf\u{e9}</s>", "\u{2581}\u{f6}l \u{2014} caf\u{e9}s"),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }
}
