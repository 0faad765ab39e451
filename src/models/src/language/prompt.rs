//! From a question to tokens with positions, and to the beginning that it shares with others.

use candle_core::Tensor;
use cluegate_perception::Prompt;

use super::cache::common_length;
use super::decoder::Position;
use crate::chat::{ChatTemplate, ChatTokenizer, Message, Part};
use crate::error::{ModelError, Result};

/// Ends the shared beginning in a text that is rendered only to find that end. A private-use character: no template
/// looks for it.
const MARK: char = '\u{E0F0}';

/// What stands for a picture among the tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureTokens {
    /// Where each token stands, relative to where the picture begins; in the order of the features.
    pub(crate) positions: Vec<Position>,
    /// How far on the text continues.
    pub(crate) span: u32,
}

/// A whole question, ready for the decoder.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// One for each token.
    pub(super) positions: Vec<Position>,
    /// Where the picture's tokens start and end.
    pub(super) picture: Option<(usize, usize)>,
}

impl Tokens {
    /// Where the picture is over; 0 without one.
    pub(super) fn picture_end(&self) -> usize {
        self.picture.map_or(0, |(_, end)| end)
    }

    /// The position after the last one.
    pub(super) fn next_position(&self) -> u32 {
        self.positions.iter().flatten().max().map_or(0, |max| max + 1)
    }
}

/// What turns questions into tokens.
#[derive(Debug)]
pub(super) struct Prompter {
    pub(super) template: ChatTemplate,
    pub(super) tokenizer: ChatTokenizer,
    pub(super) image_token: u32,
}

impl Prompter {
    /// Tokens of a whole question: rendered at once, tokenised at once, so that they are what the reference makes of
    /// the same conversation, wherever the shared beginning ends.
    pub(super) fn tokens(&self, prompt: &Prompt, picture: Option<&PictureTokens>) -> Result<Tokens> {
        let replies = prompt.turns.iter().flat_map(|turn| [turn.assistant.as_str(), turn.user.as_str()]);
        for text in
            replies.chain([&*prompt.prefix.text, prompt.suffix.as_str(), prompt.answer_start.as_str()])
        {
            self.tokenizer.refuse_marks(text)?;
        }
        let mut text = self.template.render(&conversation(prompt))?;
        text.push_str(&prompt.answer_start);
        self.expand(&self.tokenizer.encode(&text)?, picture)
    }

    /// Tokens of the shared beginning alone. Its last ones may differ from the whole question's, where a word goes
    /// on: only what is common counts.
    pub(super) fn beginning(&self, prompt: &Prompt, picture: Option<&PictureTokens>) -> Result<Vec<u32>> {
        let mut marked = Prompt::new(prompt.prefix.clone(), MARK);
        marked.turns.clear();
        let text = self.template.render(&conversation(&marked))?;
        let end = text.find(MARK).unwrap_or(0);
        // A template that changes or drops the text shares nothing, which costs time and is still right.
        match self.expand(&self.tokenizer.encode(&text[..end])?, picture) {
            Ok(tokens) => Ok(tokens.ids),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Repeats the picture's token once for each of its positions. Text counts on, all coordinates alike; what follows
    /// a picture starts after its span (`get_rope_index` in `models/qwen2_vl/modeling_qwen2_vl.py` of transformers
    /// 5.17; families without rows and columns give positions that count on like text).
    fn expand(&self, ids: &[u32], picture: Option<&PictureTokens>) -> Result<Tokens> {
        let found = ids.iter().filter(|&&id| id == self.image_token).count();
        if found != usize::from(picture.is_some()) {
            return Err(ModelError::tokenizer(
                self.tokenizer.path(),
                format!(
                    "the chat template puts {found} picture token(s) (id {}) into the text, expected {}",
                    self.image_token,
                    usize::from(picture.is_some())
                ),
            ));
        }
        let mut out = Tokens { ids: Vec::new(), positions: Vec::new(), picture: None };
        let mut next = 0u32;
        for &id in ids {
            match picture.filter(|_| id == self.image_token) {
                Some(PictureTokens { positions, span }) => {
                    let start = out.ids.len();
                    out.ids.extend(std::iter::repeat_n(id, positions.len()));
                    out.positions.extend(positions.iter().map(|place| place.map(|at| next + at)));
                    out.picture = Some((start, out.ids.len()));
                    next += span;
                }
                None => {
                    out.ids.push(id);
                    out.positions.push([next; 3]);
                    next += 1;
                }
            }
        }
        Ok(out)
    }
}

fn conversation(prompt: &Prompt) -> Vec<Message> {
    let mut first = Vec::with_capacity(2);
    if prompt.prefix.picture.is_some() {
        first.push(Part::Image);
    }
    first.push(Part::Text(format!("{}{}", prompt.prefix.text, prompt.suffix)));
    let mut messages = vec![Message { role: "user", content: first }];
    for turn in &prompt.turns {
        messages.push(Message { role: "assistant", content: vec![Part::Text(turn.assistant.clone())] });
        messages.push(Message { role: "user", content: vec![Part::Text(turn.user.clone())] });
    }
    messages
}

/// How many tokens all `questions` share with `beginning`; each keeps at least one of its own.
pub(super) fn shared_length<'a>(beginning: &[u32], questions: impl Iterator<Item = &'a Tokens>) -> usize {
    questions
        .map(|tokens| common_length(beginning, &tokens.ids).min(tokens.ids.len().saturating_sub(1)))
        .min()
        .unwrap_or(0)
}

/// Puts a picture's features in the place of its tokens: embeddings of `ids` before and after.
pub(super) fn with_features(
    embed: impl Fn(&[u32]) -> candle_core::Result<Tensor>,
    ids: &[u32],
    (start, end): (usize, usize),
    features: &Tensor,
) -> candle_core::Result<Tensor> {
    if features.dim(0)? != end - start {
        candle_core::bail!("{} features of a picture that has {} tokens", features.dim(0)?, end - start);
    }
    let mut parts = Vec::with_capacity(3);
    if start > 0 {
        parts.push(embed(&ids[..start])?);
    }
    parts.push(features.clone());
    if end < ids.len() {
        parts.push(embed(&ids[end..])?);
    }
    Tensor::cat(&parts, 0)
}
