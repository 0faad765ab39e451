//! From a question to tokens with positions, and to the beginning that it shares with others.

use cluegate_perception::Prompt;

use super::cache::common_length;
use super::decoder::Position;
use crate::chat::{ChatTemplate, ChatTokenizer, Message, Part};
use crate::error::{ModelError, Result};

/// Ends the shared beginning in a text that is rendered only to find that end. A private-use character: no template
/// looks for it.
const MARK: char = '\u{E0F0}';

/// What stands for a picture among the tokens, in the place of the one token that a rendered conversation has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureTokens {
    /// The picture's token at each place of a feature, in the order of the features; between them whatever text the
    /// family puts there (marks of rows and columns, line ends).
    pub(crate) ids: Vec<u32>,
    /// Where each token stands, relative to where the picture begins.
    pub(crate) positions: Vec<Position>,
    /// How far on the text continues.
    pub(crate) span: u32,
}

impl PictureTokens {
    /// Tokens that count on like text.
    pub(crate) fn in_line(ids: Vec<u32>) -> Self {
        let span = ids.len() as u32;
        Self { ids, positions: (0..span).map(|at| [at; 3]).collect(), span }
    }
}

/// How a conversation shows where a picture goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageMark {
    /// The token at the places of features.
    pub(crate) token: u32,
    /// What the chat template writes for a picture: the token's own text, or words of the family's (`<image>`).
    pub(crate) written: String,
}

/// A whole question, ready for the decoder.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// One for each token.
    pub(super) positions: Vec<Position>,
    /// Where what stands for the picture starts and ends.
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
    /// `None`: the model sees no pictures.
    pub(super) image: Option<ImageMark>,
}

impl Prompter {
    /// Tokens of a whole question: rendered at once, tokenised at once, so that they are what the reference makes of
    /// the same conversation, wherever the shared beginning ends.
    pub(super) fn tokens(&self, prompt: &Prompt, picture: Option<&PictureTokens>) -> Result<Tokens> {
        // As one, as the template gets it: a mark may begin in the one and end in the other.
        let first = format!("{}{}", prompt.prefix.text, prompt.suffix);
        for text in prompt.turns.iter().map(|turn| &turn.user).chain([&first]) {
            self.refuse_pictures(text)?;
            self.tokenizer.refuse_marks(text)?;
        }
        for text in prompt.turns.iter().map(|turn| &turn.assistant).chain([&prompt.answer_start]) {
            self.refuse_pictures(text)?;
            self.tokenizer.refuse_special(text)?;
        }
        let mut text = self.render(prompt)?;
        text.push_str(&prompt.answer_start);
        self.read(&text, picture)
    }

    /// Tokens of a text as it stands, placeholders and control tokens included. The token that begins every text is
    /// added as transformers does it: by the processors of models with pictures, never by the tokenizers of models
    /// without (`apply_chat_template` in `processing_utils.py` and `tokenization_utils_base.py`, 5.17).
    pub(super) fn read(&self, text: &str, picture: Option<&PictureTokens>) -> Result<Tokens> {
        let ids = match &self.image {
            Some(mark) => {
                let token = self.tokenizer.text(mark.token)?;
                let text =
                    if token == mark.written { text.into() } else { text.replace(&mark.written, &token) };
                self.tokenizer.encode_prompt(&text)?
            }
            None => self.tokenizer.encode(text)?,
        };
        self.expand(&ids, picture)
    }

    /// Tokens of the shared beginning alone. Its last ones may differ from the whole question's, where a word goes
    /// on: only what is common counts.
    pub(super) fn beginning(&self, prompt: &Prompt, picture: Option<&PictureTokens>) -> Result<Vec<u32>> {
        let mut marked = Prompt::new(prompt.prefix.clone(), MARK);
        marked.turns.clear();
        let text = self.render(&marked)?;
        let end = text.find(MARK).unwrap_or(0);
        // A template that changes or drops the text shares nothing, which costs time and is still right.
        match self.read(&text[..end], picture) {
            Ok(tokens) => Ok(tokens.ids),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn render(&self, prompt: &Prompt) -> Result<String> {
        let image = self.image.as_ref().map_or("", |mark| &mark.written);
        self.template.render(&conversation(prompt), image)
    }

    /// Refuses text in which a picture's placeholder would pose as a picture.
    fn refuse_pictures(&self, text: &str) -> Result<()> {
        match self.image.as_ref().filter(|mark| text.contains(&mark.written)) {
            Some(mark) => Err(ModelError::Request(format!(
                "the text holds `{}`, which stands for a picture; remove it from the question",
                mark.written
            ))),
            None => Ok(()),
        }
    }

    /// Puts what stands for the picture in the place of its token. Text counts on, all coordinates alike; what follows
    /// a picture starts after its span (`get_rope_index` in `models/qwen2_vl/modeling_qwen2_vl.py` of transformers
    /// 5.17; families without rows and columns give positions that count on like text).
    fn expand(&self, ids: &[u32], picture: Option<&PictureTokens>) -> Result<Tokens> {
        let token = self.image.as_ref().map(|mark| mark.token);
        let found = ids.iter().filter(|&&id| Some(id) == token).count();
        if found != usize::from(picture.is_some()) {
            let written = self.image.as_ref().map_or("", |mark| &mark.written);
            let expected = if picture.is_some() {
                "expected it once, where the picture is"
            } else {
                "and there is no picture; expected none"
            };
            return Err(ModelError::tokenizer(
                self.tokenizer.path(),
                format!("the prompt holds {found} place(s) for a picture (`{written}`), {expected}"),
            ));
        }
        let mut out = Tokens { ids: Vec::new(), positions: Vec::new(), picture: None };
        let mut next = 0u32;
        for &id in ids {
            match picture.filter(|_| Some(id) == token) {
                Some(PictureTokens { ids, positions, span }) => {
                    let start = out.ids.len();
                    out.ids.extend(ids);
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
