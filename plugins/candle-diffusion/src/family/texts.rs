//! Tokenizer and text encoder together.

use candle_core::{Device, Tensor};
use cluegate_models::ModelError;

use super::Loading;
use crate::error::Result;
use crate::request::Notice;
use crate::t5::T5Encoder;
use crate::text_encoder::{TextEncoder, TextStates};
use crate::tokenizer::PromptTokenizer;

/// A text and the field of the request that it stands in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) field: &'static str,
    pub(crate) text: &'a str,
}

impl<'a> Text<'a> {
    /// The field of the text to stay away from.
    pub(crate) const NEGATIVE: &'static str = "negative_prompt";

    /// What to draw.
    pub(crate) fn prompt(text: &'a str) -> Self {
        Self { field: "prompt", text }
    }

    /// What to keep out by guidance.
    pub(crate) fn concept(text: &'a str) -> Self {
        Self { field: "safety.concept", text }
    }

    /// What to stay away from.
    pub(crate) fn negative(text: &'a str) -> Self {
        Self { field: Self::NEGATIVE, text }
    }
}

/// The ids of `texts`, `(texts, length)`.
fn ids(
    tokenizer: &PromptTokenizer,
    texts: &[Text<'_>],
    device: &Device,
    notices: &mut Vec<Notice>,
) -> Result<Tensor> {
    let length = tokenizer.length();
    let mut ids = Vec::with_capacity(texts.len() * length);
    for Text { field, text } in texts {
        let tokens = tokenizer.encode(text)?;
        if let Some(lost) = tokens.lost {
            let notice = Notice::TextCut { field, tokens: tokens.tokens, limit: length, lost };
            // Two encoders of the same length cut at the same place.
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
        ids.extend(tokens.ids);
    }
    Ok(Tensor::from_vec(ids, (texts.len(), length), device)?)
}

/// Refuses a tokenizer with more tokens than its encoder knows.
fn check_vocabulary(
    loading: Loading<'_>,
    name: &str,
    tokenizer: &PromptTokenizer,
    known: usize,
) -> Result<()> {
    let tokens = tokenizer.vocabulary();
    if tokens <= known {
        return Ok(());
    }
    let detail = format!("{tokens} tokens, but its text encoder's `vocab_size` is {known}");
    Err(ModelError::tokenizer(loading.tree.path_of(name), detail).into())
}

/// A text encoder of CLIP with its tokenizer.
#[derive(Debug)]
pub(super) struct Clip {
    tokenizer: PromptTokenizer,
    encoder: TextEncoder,
    device: Device,
}

impl Clip {
    /// Loads `text_encoder` and `tokenizer`, the names with `suffix`. Whether the encoder projects, the index says.
    pub(super) fn load(loading: Loading<'_>, suffix: &str) -> Result<Self> {
        let (part, words) = (format!("text_encoder{suffix}"), format!("tokenizer{suffix}"));
        let folder = loading.folder(&part)?;
        let encoder = match loading.index.class_of(&part) {
            Some("CLIPTextModelWithProjection") => TextEncoder::load_projecting(&folder, loading.device)?,
            _ => TextEncoder::load(&folder, loading.device)?,
        };
        let tokenizer = PromptTokenizer::load(&loading.folder(&words)?, encoder.config().positions)?;
        check_vocabulary(loading, &words, &tokenizer, encoder.config().vocab_size)?;
        Ok(Self { tokenizer, encoder, device: loading.device.clone() })
    }

    pub(super) fn encoder(&self) -> &TextEncoder {
        &self.encoder
    }

    pub(super) fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<TextStates> {
        Ok(self.encoder.encode(&ids(&self.tokenizer, texts, &self.device, notices)?)?)
    }
}

/// T5's encoder with its tokenizer.
#[derive(Debug)]
pub(super) struct T5 {
    tokenizer: PromptTokenizer,
    encoder: T5Encoder,
    device: Device,
}

impl T5 {
    /// Loads `text_encoder` and `tokenizer`, the names with `suffix`, for texts of `length` tokens.
    pub(super) fn load(loading: Loading<'_>, suffix: &str, length: usize) -> Result<Self> {
        let (part, words) = (format!("text_encoder{suffix}"), format!("tokenizer{suffix}"));
        let encoder = T5Encoder::load(&loading.folder(&part)?, loading.dtype, loading.device)?;
        let folder = loading.folder(&words)?;
        if !folder.exists("tokenizer.json") {
            let path = folder.path_of("tokenizer.json");
            return Err(ModelError::MissingFile { path, what: "file" }.into());
        }
        let tokenizer = PromptTokenizer::load(&folder, length)?;
        check_vocabulary(loading, &words, &tokenizer, encoder.config().vocab_size)?;
        Ok(Self { tokenizer, encoder, device: loading.device.clone() })
    }

    pub(super) fn width(&self) -> usize {
        self.encoder.config().width
    }

    /// States `(texts, tokens, width)`.
    pub(super) fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Tensor> {
        Ok(self.encoder.forward(&ids(&self.tokenizer, texts, &self.device, notices)?)?)
    }
}
