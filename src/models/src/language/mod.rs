//! The engine of every vision-language model: one picture, many questions, many answers at a time.
//!
//! A family brings a [`PictureEncoder`] and a configuration; everything else is here.
//!
//! ```text
//! prompt.rs    question -> tokens with positions; what it shares with others
//! features.rs  a picture's features in the place of its tokens
//! cache.rs     sequences computed before, by content hash and tokens
//! prefill.rs   questions -> logits of the next token: the picture and the constant text once,
//!              then all suffixes in batches against them
//! scoring.rs   logits -> masses of Yes and No
//! decoding.rs  answers in the making, one token for all of them at a time
//! decoder/     the language model with owned keys and values
//! ```

mod cache;
mod decoder;
mod decoding;
mod features;
mod limits;
pub(crate) mod packing;
mod prefill;
mod prompt;
mod scoring;

use std::sync::Arc;

use candle_core::Tensor;
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Decoding, Fingerprint, LocalLanguageModel, Picture,
    Prefix, Prompt, VisionLanguageModel,
};

use self::cache::PrefixCache;
pub(crate) use self::decoder::Decoder;
pub use self::decoder::{Axes, Biases, DecoderConfig, Naming, Rope, Scaling};
use self::decoding::Answers;
pub(crate) use self::features::Features;
pub use self::limits::Limits;
use self::prefill::Question;
pub(crate) use self::prompt::{ImageMark, PictureTokens};
use self::prompt::{Prompter, Tokens};
use crate::chat::{ChatTemplate, ChatTokenizer, TokenIds, end_tokens};
use crate::cores::Cores;
use crate::error::{ModelError, Result};
use crate::files::FileTree;

/// What a family makes of a picture.
pub(crate) trait PictureEncoder: std::fmt::Debug + Send + Sync {
    /// The tokens that stand for a picture; computed from its size alone.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses.
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens>;

    /// What the vision tower reads of a picture, in f32, in the shape that the reference's processor gives it.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses.
    fn pixels(&self, picture: &Picture) -> Result<Tensor>;

    /// What the language model sees of a picture, one row for each of its image tokens.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses; `Tensor`.
    fn features(&self, picture: &Picture) -> Result<Features>;
}

/// A conversation's tokens: the template and the tokenizer of a checkpoint with what was found in them.
#[derive(Debug)]
pub(crate) struct Chat {
    prompter: Prompter,
    /// Every token that spells Yes, and No.
    yes: Vec<u32>,
    no: Vec<u32>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
}

/// What `config.json` says of a conversation's tokens.
#[derive(Debug)]
pub(crate) struct ChatOptions {
    /// Tokens that the model has room for.
    pub(crate) vocabulary: usize,
    /// Where pictures go; `None` for a model that sees none.
    pub(crate) image: Option<ImageMark>,
    /// Where answers end, if the configuration says so.
    pub(crate) eos: Option<TokenIds>,
}

impl Chat {
    /// Reads the chat template and the tokenizer of a checkpoint.
    ///
    /// # Errors
    /// A missing or malformed file, a tokenizer in which no token that the model has a row for spells Yes or No.
    pub(crate) fn load(tree: &FileTree, options: ChatOptions) -> Result<Self> {
        let template = ChatTemplate::load(tree)?;
        let tokenizer = ChatTokenizer::load(tree)?;
        let ChatOptions { vocabulary, image, eos } = options;
        // Some published tokenizers hold added tokens that the model has no row for (`<video>` of InternVL3 in the layout
        // of transformers), and transformers takes them: only a text that has one is refused.
        let spellings = |word: &str| -> Result<Vec<u32>> {
            let mut ids = tokenizer.spellings(word)?;
            ids.retain(|&id| (id as usize) < vocabulary);
            if ids.is_empty() {
                let detail = format!(
                    "every token that spells {word} is beyond the {vocabulary} that config.json has room for: \
                     tokenizer and model do not belong together"
                );
                return Err(ModelError::tokenizer(tokenizer.path(), detail));
            }
            Ok(ids)
        };
        let (yes, no) = (spellings("yes")?, spellings("no")?);
        let ends = end_tokens(tree, eos, &template, &tokenizer)?;
        Ok(Self { prompter: Prompter { template, tokenizer, image }, yes, no, ends })
    }

    /// The tokenizer, for families that put text between a picture's features.
    pub(crate) fn tokenizer(&self) -> &ChatTokenizer {
        &self.prompter.tokenizer
    }
}

/// What the next token after a text as it stands would be. See [`LanguageModel::probe`].
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The text's tokens, a picture's placeholder expanded.
    pub token_ids: Vec<u32>,
    /// Logits of the next token, one for each of the vocabulary.
    pub logits: Vec<f32>,
}

/// A language model, with eyes or without: a picture encoder before a decoder. What family it is shows only in how it
/// was loaded.
#[derive(Debug)]
pub struct LanguageModel {
    encoder: Option<Box<dyn PictureEncoder>>,
    decoder: Decoder,
    chat: Chat,
    cache: PrefixCache,
    cores: Cores,
    limits: Limits,
    fingerprint: Fingerprint,
}

impl LanguageModel {
    /// Puts the parts together; bounds are those of the decoder's device. Without an encoder it refuses pictures.
    pub(crate) fn new(
        encoder: Option<Box<dyn PictureEncoder>>,
        decoder: Decoder,
        chat: Chat,
        fingerprint: Fingerprint,
    ) -> Self {
        let limits = Limits::of(decoder.device());
        let cache = PrefixCache::new(limits.remembered, limits.remembered_bytes);
        let cores = Cores::new(decoder.device());
        let fingerprint = match decoder.quantisation() {
            // The same weights answer otherwise in fewer bits.
            Some(kind) => blake3::hash(format!("{fingerprint} {kind}").as_bytes()).to_hex().to_string(),
            None => fingerprint,
        };
        Self { encoder, decoder, chat, cache, cores, limits, fingerprint }
    }

    /// The same model within other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        let cache = PrefixCache::new(limits.remembered, limits.remembered_bytes);
        Self { limits, cache, ..self }
    }

    /// The language model's dimensions.
    pub fn config(&self) -> &DecoderConfig {
        self.decoder.config()
    }

    /// Bytes that the language model's embeddings and matrices take in memory.
    pub fn weight_bytes(&self) -> usize {
        self.decoder.bytes()
    }

    /// The tokenizer that the checkpoint came with.
    pub fn tokenizer(&self) -> &ChatTokenizer {
        &self.chat.prompter.tokenizer
    }

    /// Whether it sees pictures.
    pub fn sees(&self) -> bool {
        self.encoder.is_some()
    }

    /// What the vision tower reads of a picture, in f32, in the shape that the reference's processor gives it.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses, or a model that sees none.
    pub fn pixel_values(&self, picture: &Picture) -> Result<Tensor> {
        self.encoder()?.pixels(picture)
    }

    /// What the language model sees of a picture: `[features, hidden]`.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses, or a model that sees none; `Tensor`.
    pub fn image_features(&self, picture: &Picture) -> Result<Tensor> {
        Ok(self.encoder()?.features(picture)?.tokens)
    }

    /// Tokens that a picture of `width` x `height` pixels takes, marks between its features included.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses, or a model that sees none.
    pub fn picture_token_count(&self, picture: &Picture) -> Result<usize> {
        Ok(self.encoder()?.tokens(picture)?.ids.len())
    }

    /// A question's tokens, as the model reads them.
    ///
    /// # Errors
    /// `Request` for a prompt that is too long or holds control tokens.
    pub fn prompt_tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        Ok(self.question(prompt, 0)?.tokens.ids.clone())
    }

    /// The next token's logits, `vocabulary` values for each prompt. Prompts with the same prefix run as a batch.
    ///
    /// # Errors
    /// `Request` for a prompt that is too long or holds control tokens; `NotANumber`; `Tensor`.
    pub fn next_logits(&self, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>> {
        self.read_next(prompts, &Call::default(), scoring::logits)
    }

    /// What comes after a text as it stands, which holds the family's own placeholder once if there is a picture. For
    /// comparison with other implementations: no chat template, no check for control tokens.
    ///
    /// # Errors
    /// `Request` for a text without the placeholder, with several, or that is too long; `NotANumber`; `Tensor`.
    pub fn probe(&self, text: &str, picture: Option<&Picture>) -> Result<Probe> {
        let expanded = picture.map(|picture| self.encoder()?.tokens(picture)).transpose()?;
        let tokens = self.chat.prompter.read(text, expanded.as_ref()).map_err(|error| match error {
            ModelError::Tokenizer { detail, .. } => ModelError::Request(detail),
            other => other,
        })?;
        let tokens = Arc::new(self.checked(tokens, 0)?);
        let prompt = Prompt::new(Prefix { picture: picture.cloned(), text: "".into() }, text);
        let question = Question::new(&prompt, Arc::clone(&tokens), expanded);
        let logits = self.read_questions(&[question], &Call::default(), scoring::logits)?;
        Ok(Probe { token_ids: tokens.ids.clone(), logits: logits.into_iter().next().unwrap_or_default() })
    }

    /// Every token that spells Yes, and every one that spells No.
    pub fn answers(&self) -> (&[u32], &[u32]) {
        (&self.chat.yes, &self.chat.no)
    }

    fn encoder(&self) -> Result<&dyn PictureEncoder> {
        self.encoder.as_deref().ok_or_else(|| {
            ModelError::Request("this model reads text only, and the question is about a picture".to_owned())
        })
    }

    /// The token at the places of a picture's features.
    fn image_token(&self) -> Result<u32> {
        let mark = self.chat.prompter.image.as_ref().map(|mark| mark.token);
        mark.ok_or_else(|| ModelError::Request("this model has no token for pictures".to_owned()))
    }

    /// A question's tokens, with room for `more` after them.
    fn tokens(&self, prompt: &Prompt, picture: Option<&PictureTokens>, more: usize) -> Result<Arc<Tokens>> {
        Ok(Arc::new(self.checked(self.chat.prompter.tokens(prompt, picture)?, more)?))
    }

    /// Tokens that the model holds with `more` after them, and that end in text.
    fn checked(&self, tokens: Tokens, more: usize) -> Result<Tokens> {
        let DecoderConfig { max_positions: most, vocabulary, .. } = *self.decoder.config();
        let Prompter { tokenizer, image, .. } = &self.chat.prompter;
        // Nobody looks for the row of a picture's token: features are in its place.
        let mark = image.as_ref().map(|mark| mark.token);
        let beyond = |id: &&u32| **id as usize >= vocabulary && Some(**id) != mark;
        if let Some(&id) = tokens.ids.iter().find(beyond) {
            return Err(ModelError::Request(format!(
                "the question holds the token `{}`, number {id}; this model knows {vocabulary}: remove it",
                tokenizer.text(id)?
            )));
        }
        if tokens.ids.len().saturating_add(more) > most {
            return Err(ModelError::Request(format!(
                "the question has {} tokens and its answer up to {more}; this model holds {most}",
                tokens.ids.len()
            )));
        }
        if tokens.ids.len() <= tokens.picture_end() {
            return Err(ModelError::tokenizer(
                tokenizer.path(),
                "a question ends with its picture, or is empty; expected the start of an answer after it",
            ));
        }
        Ok(tokens)
    }

    fn picture_tokens(&self, prompt: &Prompt) -> Result<Option<PictureTokens>> {
        prompt.prefix.picture.as_ref().map(|picture| self.encoder()?.tokens(picture)).transpose()
    }
}

impl VisionLanguageModel for LanguageModel {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> cluegate_perception::Result<Vec<AnswerScore>> {
        let masses = |logits: &Tensor| scoring::masses(logits, &self.chat.yes, &self.chat.no);
        Ok(self.read_next(prompts, call, masses)?)
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Completion>> {
        decoding::complete(self, requests, call)
    }
}

impl LocalLanguageModel for LanguageModel {
    fn decoding(&self) -> Box<dyn Decoding + '_> {
        Box::new(Answers::new(self))
    }
}
