//! Questions to a vision-language model: the shared prefix, the suffix, yes/no scores and free answers.

use std::sync::Arc;

use crate::{Call, Fingerprint, Picture, Result};

/// What many questions share: a picture, or none, and the constant beginning of the question. The picture comes
/// first, so that an implementation computes the prefix once, keyed by the picture's content hash and the text.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// The picture that the question is about; `None` asks the same question without one, which measures the
    /// model's prior (`M(None, c)`, CLUE s 3.4).
    pub picture: Option<Picture>,
    /// The constant beginning of the first user turn, after the picture.
    pub text: Arc<str>,
}

/// A finished turn of the assistant and the user's next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What the model had answered.
    pub assistant: String,
    /// What is asked next.
    pub user: String,
}

/// One question: `prefix` + `suffix` make the first user turn, `turns` follow it, and the model's answer starts with
/// `answer_start`.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The shared beginning.
    pub prefix: Prefix,
    /// The rest of the first user turn.
    pub suffix: String,
    /// Further turns, oldest first.
    pub turns: Vec<Reply>,
    /// Text put into the model's mouth, so that the next token is the one of interest, such as `{"rating": "`.
    pub answer_start: String,
}

impl Prompt {
    /// A question of one turn.
    pub fn new(prefix: Prefix, suffix: impl Into<String>) -> Self {
        Self { prefix, suffix: suffix.into(), turns: Vec::new(), answer_start: String::new() }
    }
}

/// How much of the next token's probability falls on Yes and on No, each summed over every token that spells it
/// (case, leading space).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    /// Probability mass of Yes, 0 to 1.
    pub yes: f64,
    /// Probability mass of No, 0 to 1.
    pub no: f64,
}

impl AnswerScore {
    /// `p(Yes) / (p(Yes) + p(No))` (CLUE s 3.3), 0 to 1; NaN if neither has any mass.
    pub fn ratio(&self) -> f64 {
        self.yes / (self.yes + self.no)
    }
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn.
    Stop,
    /// The token limit was reached.
    Length,
}

/// A request for a free answer, decoded greedily.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// The question.
    pub prompt: Prompt,
    /// Most tokens to generate.
    pub max_tokens: usize,
}

/// A free answer, without the prompt's `answer_start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// How many tokens were generated.
    pub tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
}

/// A multimodal language model.
pub trait VisionLanguageModel: Send + Sync {
    /// Identity for caches.
    fn fingerprint(&self) -> &Fingerprint;

    /// For each prompt the mass of Yes and No at the first token of the answer. One forward pass, no sampling.
    ///
    /// # Errors
    /// A tokenizer in which no token spells Yes or No is refused when the model is loaded; a probability that is not
    /// a number is an error of kind `NotANumber`, never a score.
    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>>;

    /// One greedy completion for each request.
    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>>;
}

/// A language model of this machine, which decodes token by token: a worker lets answers join and leave a running
/// batch between two tokens, and scores other callers' questions meanwhile.
pub trait LocalLanguageModel: VisionLanguageModel {
    /// An empty batch of answers in the making.
    fn decoding(&self) -> Box<dyn Decoding + '_>;
}

/// Names an answer in a [`Decoding`]; never used twice within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerId(pub u64);

/// A batch of answers in the making, each decoded greedily. An answer does not depend on those beside it: decoded alone
/// it has the same tokens.
pub trait Decoding {
    /// Reads the prompts of `requests` in as few passes as it can and lets their answers join the batch. `None` in
    /// place of an identity means that there is no room now: nothing was computed, ask again when others have ended.
    /// An empty batch has room for the first request, or refuses it with an error. `call` is that of all requests
    /// together: once nobody waits for any of them, reading ends, and those that were not read are refused with its
    /// error.
    fn join(&mut self, requests: &[&CompletionRequest], call: &Call) -> Vec<Result<Option<AnswerId>>>;

    /// Gives up an answer. One that has ended or never was is ignored.
    fn leave(&mut self, answer: AnswerId);

    /// One more token for every answer. Those that have thereby ended, or failed, leave the batch and are returned.
    ///
    /// # Errors
    /// A failure that concerns the whole batch; all its answers are lost.
    fn step(&mut self) -> Result<Vec<(AnswerId, Result<Completion>)>>;

    /// Number of answers in the making.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
