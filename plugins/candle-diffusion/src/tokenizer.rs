//! The prompt's tokenizer: `tokenizer.json`, or `vocab.json` and `merges.txt` as `CLIPTokenizer` reads them
//! (transformers 5.17, `models/clip/tokenization_clip.py`).

use std::collections::HashMap;

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer};

type Result<T> = std::result::Result<T, ModelError>;

/// The marks of CLIP's tokenizer, unless its configuration names others.
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// What counts as a word in CLIP: a mark, an English contraction, a run of letters, a digit, a run of other signs.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// `tokenizer_config.json` and `special_tokens_map.json`: a token is its text or an object with a `content`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTokenizer {
    pad_token: Option<Value>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
    unk_token: Option<Value>,
    /// Some versions write 1e30 for "unknown".
    model_max_length: Option<f64>,
}

fn text_of(token: &Option<Value>) -> Option<String> {
    match token {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Object(fields)) => fields.get("content").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    }
}

/// A tokenized text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptTokens {
    /// Ids, padded or cut to the tokenizer's length.
    pub ids: Vec<u32>,
    /// Tokens of the text before that, with the marks of beginning and end.
    pub tokens: usize,
    /// What was cut off, if anything.
    pub lost: Option<String>,
}

/// A loaded tokenizer.
#[derive(Debug)]
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    pad: u32,
    length: usize,
    label: String,
}

impl PromptTokenizer {
    /// Loads the folder `tokenizer`. Texts come out with `positions` tokens, or `model_max_length` of
    /// `tokenizer_config.json` if that is fewer.
    ///
    /// # Errors
    /// A missing or malformed file; no padding token, or one that is not in the vocabulary.
    pub fn load(tree: &FileTree, positions: usize) -> Result<Self> {
        let read = |name: &str| -> Result<RawTokenizer> {
            if tree.exists(name) { tree.read_json(name) } else { Ok(RawTokenizer::default()) }
        };
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let token = |field: fn(&RawTokenizer) -> &Option<Value>| {
            text_of(field(&config)).or_else(|| text_of(field(&map)))
        };
        let mut tokenizer = if tree.exists("tokenizer.json") {
            Tokenizer::from_bytes(&tree.read("tokenizer.json")?[..])
                .map_err(|e| ModelError::tokenizer(tree.path_of("tokenizer.json"), e.to_string()))?
        } else {
            let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
            let marks = [
                or(token(|t| &t.bos_token), START),
                or(token(|t| &t.eos_token), END),
                or(token(|t| &t.unk_token), END),
            ];
            from_vocabulary(tree, &marks)?
        };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| ModelError::tokenizer(tree.label(), e.to_string()))?;
        let pad_token = token(|t| &t.pad_token).unwrap_or_else(|| END.to_owned());
        let pad = tokenizer.token_to_id(&pad_token).ok_or_else(|| {
            ModelError::tokenizer(
                tree.path_of("tokenizer_config.json"),
                format!("`pad_token` is `{pad_token}`, which is not in the vocabulary"),
            )
        })?;
        // As transformers does: a padding token in a text is that token, whatever word it stands in. It matters for
        // Stable Diffusion 2.x, which pads with `!`.
        let mark = AddedToken::from(pad_token, true).normalized(false);
        tokenizer
            .add_special_tokens([mark])
            .map_err(|e| ModelError::tokenizer(tree.label(), e.to_string()))?;
        let limit = config.model_max_length.filter(|n| *n >= 1.0).map_or(positions, |n| n as usize);
        Ok(Self { tokenizer, pad, length: limit.min(positions), label: tree.label() })
    }

    /// Number of tokens of every encoded text.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Largest id of the vocabulary, plus 1.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The text's ids with the marks of beginning and end. Of a text that is too long the first tokens are kept,
    /// and both marks.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<PromptTokens> {
        let failed = |e: tokenizers::Error| ModelError::tokenizer(&self.label, e.to_string());
        let encoding = self.tokenizer.encode(text, true).map_err(failed)?;
        let marks = encoding.get_special_tokens_mask();
        let tokens = marks.len();
        let room = self.length.saturating_sub(marks.iter().filter(|mark| **mark == 1).count());
        let mut seen = 0;
        let mut lost = None;
        let mut ids = Vec::with_capacity(self.length);
        for ((id, mark), (from, _)) in encoding.get_ids().iter().zip(marks).zip(encoding.get_offsets()) {
            if *mark == 1 || seen < room {
                ids.push(*id);
            } else if lost.is_none() {
                lost = Some(text.get(*from..).unwrap_or_default().to_owned());
            }
            seen += usize::from(*mark != 1);
        }
        ids.resize(self.length, self.pad);
        Ok(PromptTokens { ids, tokens, lost })
    }
}

/// CLIP's byte-level BPE from its two files.
fn from_vocabulary(tree: &FileTree, [bos, eos, unk]: &[String; 3]) -> Result<Tokenizer> {
    let (vocab_path, merges_path) = (tree.path_of("vocab.json"), tree.path_of("merges.txt"));
    let vocab: HashMap<String, u32> = tree.read_json("vocab.json")?;
    let merges = read_merges(&tree.read_text("merges.txt")?, &merges_path)?;
    let id = |token: &String| {
        let missing = || ModelError::tokenizer(&vocab_path, format!("`{token}` is not in the vocabulary"));
        vocab.get(token).copied().ok_or_else(missing)
    };
    let (bos_id, eos_id) = (id(bos)?, id(eos)?);
    id(unk)?;
    let failed = |e: tokenizers::Error| ModelError::tokenizer(&vocab_path, e.to_string());
    let model = BPE::builder()
        .vocab_and_merges(vocab.clone().into_iter().collect::<Vocab>(), merges)
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(unk.clone())
        .build()
        .map_err(failed)?;
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(failed)?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)
        .map_err(failed)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![
            NormalizerWrapper::NFC(NFC),
            NormalizerWrapper::Replace(spaces),
            NormalizerWrapper::Lowercase(Lowercase),
        ])))
        .map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(words),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    tokenizer.with_post_processor(Some(
        RobertaProcessing::new((eos.clone(), eos_id), (bos.clone(), bos_id))
            .trim_offsets(false)
            .add_prefix_space(false),
    ));
    let mut special: Vec<AddedToken> = Vec::new();
    for mark in [bos, eos, unk] {
        if special.iter().all(|token| token.content != *mark) {
            special.push(AddedToken::from(mark.clone(), true).normalized(false));
        }
    }
    tokenizer.add_special_tokens(special).map_err(failed)?;
    Ok(tokenizer)
}

/// `merges.txt`: a version line, then two tokens a line.
fn read_merges(text: &str, path: &str) -> Result<Vec<(String, String)>> {
    text.lines()
        .enumerate()
        .skip_while(|(number, line)| *number == 0 && line.starts_with("#version"))
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(ModelError::tokenizer(
                path,
                format!("line {}: expected two tokens with a space between, found `{line}`", number + 1),
            )),
        })
        .collect()
}
