//! The engine of every vision-language model: one picture, many questions, many answers at a time.
//!
//! A family brings a [`PictureEncoder`] and a configuration; everything else is here.
//!
//! ```text
//! prompt.rs    question -> tokens with positions; what it shares with others
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
mod limits;
mod prefill;
mod prompt;
mod scoring;

use std::sync::Arc;

use candle_core::Tensor;
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Decoding, Fingerprint, Picture, Prompt,
};

use self::cache::PrefixCache;
pub(crate) use self::decoder::Decoder;
pub use self::decoder::DecoderConfig;
use self::decoding::Answers;
pub use self::limits::Limits;
pub(crate) use self::prompt::PictureTokens;
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

    /// What the language model sees of a picture: `[tokens, hidden]`, one row for each of its tokens.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses; `Tensor`.
    fn features(&self, picture: &Picture) -> Result<Tensor>;
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

impl Chat {
    /// Reads the chat template and the tokenizer of a checkpoint whose model has room for `vocabulary` tokens and
    /// stands `image_token` in the place of pictures.
    ///
    /// # Errors
    /// A missing or malformed file, a tokenizer that is larger than the model or in which no token spells Yes or No.
    pub(crate) fn load(
        tree: &FileTree,
        vocabulary: usize,
        image_token: u32,
        eos: Option<TokenIds>,
    ) -> Result<Self> {
        let template = ChatTemplate::load(tree)?;
        let tokenizer = ChatTokenizer::load(tree)?;
        if tokenizer.size() > vocabulary {
            return Err(ModelError::tokenizer(
                tokenizer.path(),
                format!("{} tokens, config.json has room for {vocabulary}", tokenizer.size()),
            ));
        }
        let (yes, no) = (tokenizer.spellings("yes")?, tokenizer.spellings("no")?);
        let ends = end_tokens(tree, eos, &template, &tokenizer)?;
        Ok(Self { prompter: Prompter { template, tokenizer, image_token }, yes, no, ends })
    }
}

/// A vision-language model: a picture encoder before a decoder.
#[derive(Debug)]
pub(crate) struct Multimodal<E> {
    encoder: E,
    decoder: Decoder,
    chat: Chat,
    cache: PrefixCache,
    cores: Cores,
    limits: Limits,
    fingerprint: Fingerprint,
}

impl<E: PictureEncoder> Multimodal<E> {
    /// Puts the parts together; bounds are those of the decoder's device.
    pub(crate) fn new(encoder: E, decoder: Decoder, chat: Chat, fingerprint: Fingerprint) -> Self {
        let limits = Limits::of(decoder.device());
        let cache = PrefixCache::new(limits.remembered, limits.remembered_bytes);
        let cores = Cores::new(decoder.device());
        Self { encoder, decoder, chat, cache, cores, limits, fingerprint }
    }

    /// The same model within other bounds.
    #[must_use]
    pub(crate) fn with_limits(self, limits: Limits) -> Self {
        let cache = PrefixCache::new(limits.remembered, limits.remembered_bytes);
        Self { limits, cache, ..self }
    }

    pub(crate) fn encoder(&self) -> &E {
        &self.encoder
    }

    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The next token's logits, `vocabulary` values for each prompt.
    ///
    /// # Errors
    /// `Request` for a prompt that is too long or holds control tokens; `NotANumber`; `Tensor`.
    pub(crate) fn next_logits(&self, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>> {
        self.read_next(prompts, &Call::default(), scoring::logits)
    }

    /// See [`cluegate_perception::VisionLanguageModel::score`].
    pub(crate) fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        self.read_next(prompts, call, |logits| scoring::masses(logits, &self.chat.yes, &self.chat.no))
    }

    /// See [`cluegate_perception::VisionLanguageModel::complete`].
    pub(crate) fn complete(
        &self,
        requests: &[CompletionRequest],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Completion>> {
        decoding::complete(self, requests, call)
    }

    /// See [`cluegate_perception::LocalLanguageModel::decoding`].
    pub(crate) fn decoding(&self) -> Box<dyn Decoding + '_> {
        Box::new(Answers::new(self))
    }

    /// A question's tokens, with room for `more` after them.
    fn tokens(&self, prompt: &Prompt, picture: Option<&PictureTokens>, more: usize) -> Result<Arc<Tokens>> {
        let tokens = self.chat.prompter.tokens(prompt, picture)?;
        let most = self.decoder.config().max_positions;
        if tokens.ids.len().saturating_add(more) > most {
            return Err(ModelError::Request(format!(
                "the question has {} tokens and its answer up to {more}; this model holds {most}",
                tokens.ids.len()
            )));
        }
        if tokens.ids.len() <= tokens.picture_end() {
            return Err(ModelError::tokenizer(
                self.chat.prompter.tokenizer.path(),
                "the chat template renders a question to nothing after its picture; expected the start of an answer",
            ));
        }
        Ok(Arc::new(tokens))
    }

    fn picture_tokens(&self, prompt: &Prompt) -> Result<Option<PictureTokens>> {
        prompt.prefix.picture.as_ref().map(|picture| self.encoder.tokens(picture)).transpose()
    }
}
