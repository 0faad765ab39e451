//! Chat templates, tokenizers and special tokens of a checkpoint.

use std::collections::BTreeMap;

use minijinja::Value;
use serde::Deserialize;
use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::jinja::Template;
use crate::tokenizer_files;

/// Files that a chat model's tokens depend on, for its fingerprint.
pub const CHAT_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "generation_config.json",
];

/// One part of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The place of a picture: `{"type": "image"}` for the template.
    Image,
    /// Words: `{"type": "text", "text": ...}` for the template.
    Text(String),
}

impl Part {
    fn value(&self) -> Value {
        match self {
            Self::Image => Value::from_pairs([("type", "image")]),
            Self::Text(text) => Value::from_pairs([("type", "text"), ("text", text)]),
        }
    }

    /// For templates that take a turn as one string: words, and for a picture `image` on a line of its own.
    fn words(&self, image: &str) -> String {
        match self {
            Self::Image => format!("{image}\n"),
            Self::Text(text) => text.clone(),
        }
    }
}

/// What a template takes a turn's content as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A list of parts with their types.
    Parts,
    /// One string.
    Words,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `user` or `assistant`.
    pub role: &'static str,
    /// What the turn holds, in order.
    pub content: Vec<Part>,
}

impl Message {
    fn value(&self, content: Content, image: &str) -> Value {
        let content = match content {
            Content::Parts => Value::from(self.content.iter().map(Part::value).collect::<Vec<_>>()),
            Content::Words => {
                Value::from(self.content.iter().map(|part| part.words(image)).collect::<String>())
            }
        };
        Value::from_pairs([("role", Value::from(self.role)), ("content", content)])
    }
}

/// A checkpoint's chat template, rendered as Hugging Face transformers does it, with three things settled: there are no
/// tools and no documents, models that can think first answer at once (`enable_thinking` is false), and there is no
/// clock (`strftime_now` is not defined), so that a question always has the same tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    template: Template,
    tokens: BTreeMap<String, String>,
    content: Content,
    path: String,
}

/// A special token, as a string or as an object with its properties.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum RawToken {
    Plain(String),
    Described { content: String },
}

impl RawToken {
    pub(crate) fn into_content(self) -> String {
        match self {
            Self::Plain(content) | Self::Described { content } => content,
        }
    }
}

/// One template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// The parts of `tokenizer_config.json` that matter here; `chat_template.json` and `processor_config.json`
/// have the last of them.
#[derive(Deserialize, Default)]
struct RawTokenizerConfig {
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
    pad_token: Option<RawToken>,
    unk_token: Option<RawToken>,
    add_bos_token: Option<bool>,
    chat_template: Option<RawTemplate>,
    /// Among them tokens of the family's own, by their names.
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
}

impl RawTokenizerConfig {
    /// All special tokens by the names that templates call them by: the usual ones, every other field of that form and
    /// those that are listed apart (`PreTrainedTokenizerBase.special_tokens_map` in transformers 5.17).
    fn special_tokens(self) -> BTreeMap<String, String> {
        const LISTS: [&str; 2] = ["extra_special_tokens", "model_specific_special_tokens"];
        let listed = LISTS.into_iter().filter_map(|list| self.others.get(list)?.as_object()).flatten();
        let fields = self.others.iter().filter(|(name, _)| name.ends_with("_token"));
        let own = fields
            .chain(listed)
            .filter_map(|(name, token)| Some((name.clone(), RawToken::deserialize(token).ok()?)));
        let usual = [
            ("bos_token", self.bos_token),
            ("eos_token", self.eos_token),
            ("pad_token", self.pad_token),
            ("unk_token", self.unk_token),
        ];
        let usual = usual.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?)));
        own.chain(usual).map(|(name, token)| (name, token.into_content())).collect()
    }
}

impl ChatTemplate {
    /// Reads the template from `processor_config.json`, `chat_template.jinja`, `chat_template.json` or
    /// `tokenizer_config.json`, the first that has one (`ProcessorMixin` in transformers 5.17).
    ///
    /// # Errors
    /// `Tokenizer` if there is none, if it is not valid Jinja or refuses a plain question; `Unsupported` if it has the
    /// model think before every answer.
    pub fn load(tree: &FileTree) -> Result<Self> {
        const CONFIG: &str = "tokenizer_config.json";
        const JINJA: &str = "chat_template.jinja";
        const JSON: &str = "chat_template.json";
        const PROCESSOR: &str = "processor_config.json";
        let mut config: RawTokenizerConfig =
            if tree.exists(CONFIG) { tree.read_json(CONFIG)? } else { RawTokenizerConfig::default() };
        let processor: RawTokenizerConfig =
            if tree.exists(PROCESSOR) { tree.read_json(PROCESSOR)? } else { RawTokenizerConfig::default() };
        let (path, template) = if processor.chat_template.is_some() {
            (tree.path_of(PROCESSOR), processor.chat_template)
        } else if tree.exists(JINJA) {
            (tree.path_of(JINJA), Some(RawTemplate::One(tree.read_text(JINJA)?)))
        } else if tree.exists(JSON) {
            (tree.path_of(JSON), tree.read_json::<RawTokenizerConfig>(JSON)?.chat_template)
        } else {
            (tree.path_of(CONFIG), config.chat_template.take())
        };
        let source = match template {
            Some(RawTemplate::One(source)) => Some(source),
            Some(RawTemplate::Named(all)) => {
                all.into_iter().find(|named| named.name == "default").map(|named| named.template)
            }
            None => None,
        };
        let Some(source) = source else {
            return Err(ModelError::tokenizer(
                path,
                "no chat template; expected `chat_template` here, or a file chat_template.jinja beside it",
            ));
        };
        let template = Self::compile(path, &source, config.special_tokens())?;
        template.refuse_thinking()?;
        Ok(template)
    }

    fn compile(path: String, source: &str, tokens: BTreeMap<String, String>) -> Result<Self> {
        let compiled = Template::compile(source).map_err(|e| {
            ModelError::tokenizer(&path, format!("the chat template is not valid Jinja: {e:#}"))
        })?;
        let mut template = Self { template: compiled, tokens, content: Content::Parts, path };
        if !template.takes_parts() {
            template.content = Content::Words;
        }
        Ok(template)
    }

    /// Whether the template reads the parts of a turn; one that takes strings fails on a list, or prints it.
    fn takes_parts(&self) -> bool {
        const WORD: &str = "cluegate";
        let content = vec![Part::Text(WORD.to_owned())];
        let rendered = self.render(&[Message { role: "user", content }], "");
        rendered
            .is_ok_and(|text| text.contains(WORD) && !text.contains("\"type\"") && !text.contains("'type'"))
    }

    /// The text of a conversation up to the point where the assistant speaks. `image` stands for pictures where the
    /// template takes each turn as one string; others write a placeholder of their own.
    ///
    /// # Errors
    /// `Tokenizer` if the template refuses the conversation.
    pub fn render(&self, messages: &[Message], image: &str) -> Result<String> {
        let refuse = |e: minijinja::Error| {
            ModelError::tokenizer(&self.path, format!("the chat template refuses a conversation: {e:#}"))
        };
        let messages: Vec<Value> =
            messages.iter().map(|message| message.value(self.content, image)).collect();
        let own = [
            ("messages", Value::from(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
            ("enable_thinking", Value::from(false)),
        ];
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        self.template.render(Value::from_pairs(tokens.chain(own))).map_err(refuse)
    }

    /// Refuses a template that has the model think before every answer: its first token would be no answer.
    fn refuse_thinking(&self) -> Result<()> {
        let question = Message { role: "user", content: vec![Part::Text("?".to_owned())] };
        let text = self.render(&[question], "")?;
        if text.trim_end().ends_with("<think>") {
            return Err(ModelError::unsupported(
                &self.path,
                "the end of a question by the chat template",
                "<think>",
                "a model that answers at once, such as the Instruct edition of this one",
            ));
        }
        Ok(())
    }

    /// The end-of-sequence token by `tokenizer_config.json`.
    pub fn eos_token(&self) -> Option<&str> {
        self.tokens.get("eos_token").map(String::as_str)
    }
}

/// A tokenizer with what a judge has to know about its vocabulary.
#[derive(Debug)]
pub struct ChatTokenizer {
    tokenizer: Tokenizer,
    /// Texts of special tokens, which ordinary text must not hold.
    marks: Vec<String>,
    /// Texts of tokens that are no less marks (`<|im_start|>` of some, `<think>`), but that no file calls special.
    plain_marks: Vec<String>,
    /// The token that begins every prompt, for checkpoints whose templates leave it to the tokenizer.
    start: Option<(String, u32)>,
    path: String,
}

impl ChatTokenizer {
    /// Reads `tokenizer.json`, or the files of a slow tokenizer (`tokenizer_files`). Truncation and padding set in it
    /// are turned off: a cut question is another question.
    ///
    /// # Errors
    /// `MissingFile`, or `Tokenizer` if the file is not a tokenizer.
    pub fn load(tree: &FileTree) -> Result<Self> {
        let (path, mut tokenizer) = tokenizer_files::load(tree)?;
        tokenizer
            .with_truncation(None)
            .map_err(|e| ModelError::tokenizer(&path, format!("cannot turn truncation off: {e}")))?;
        tokenizer.with_padding(None);
        let (marks, plain): (Vec<_>, Vec<_>) =
            tokenizer.get_added_tokens_decoder().into_values().partition(|token| token.special);
        let marks = marks.into_iter().map(|token| token.content).collect();
        let enclosed = |text: &str| {
            text.len() > 2
                && [('<', '>'), ('[', ']')].iter().any(|&(a, b)| text.starts_with(a) && text.ends_with(b))
        };
        let plain_marks =
            plain.into_iter().map(|token| token.content).filter(|text| enclosed(text)).collect();
        let start = Self::start(tree, &tokenizer)?;
        Ok(Self { tokenizer, marks, plain_marks, start, path })
    }

    /// The token that begins every prompt, if `add_bos_token` of `tokenizer_config.json` asks for one, or where that
    /// says nothing if `tokenizer.json` puts one before a text (`TokenizersBackend` in transformers 5.17).
    fn start(tree: &FileTree, tokenizer: &Tokenizer) -> Result<Option<(String, u32)>> {
        const CONFIG: &str = "tokenizer_config.json";
        let config: RawTokenizerConfig =
            if tree.exists(CONFIG) { tree.read_json(CONFIG)? } else { RawTokenizerConfig::default() };
        let Some(text) = config.bos_token.map(RawToken::into_content) else { return Ok(None) };
        let Some(id) = tokenizer.token_to_id(&text) else { return Ok(None) };
        let added = match config.add_bos_token {
            Some(added) => added,
            None => tokenizer.encode_fast("", true).is_ok_and(|empty| empty.get_ids().first() == Some(&id)),
        };
        Ok(added.then_some((text, id)))
    }

    /// Token ids of a text as it stands; nothing is added.
    ///
    /// # Errors
    /// `Tokenizer` if the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| ModelError::tokenizer(&self.path, format!("a text cannot be encoded: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a whole prompt: after the token that begins every prompt, if there is one and the text does not
    /// begin with it (`ProcessorMixin.apply_chat_template` in transformers 5.17).
    ///
    /// # Errors
    /// `Tokenizer` if the text cannot be encoded.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.encode(text)?;
        if let Some((_, id)) = self.start.as_ref().filter(|(start, _)| !text.starts_with(start)) {
            ids.insert(0, *id);
        }
        Ok(ids)
    }

    /// Text of generated tokens, without special ones.
    ///
    /// # Errors
    /// `Tokenizer` if the ids cannot be decoded.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|e| ModelError::tokenizer(&self.path, format!("an answer cannot be decoded: {e}")))
    }

    /// Id of a token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// A token's exact text, as it stands in a rendered conversation.
    ///
    /// # Errors
    /// `Tokenizer` for an id that it has not.
    pub fn text(&self, id: u32) -> Result<String> {
        self.tokenizer
            .id_to_token(id)
            .ok_or_else(|| ModelError::tokenizer(&self.path, format!("no token has the id {id}")))
    }

    /// How messages call the tokenizer.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Refuses a user's text that holds a control token, special or not: it would end the user's turn, or pose as
    /// what the model or a tool says.
    ///
    /// # Errors
    /// `Request`, naming the token.
    pub fn refuse_marks(&self, text: &str) -> Result<()> {
        self.refuse_any(text, &self.plain_marks)?;
        self.refuse_special(text)
    }

    /// The same of special tokens only, for text that the model itself wrote.
    ///
    /// # Errors
    /// `Request`, naming the token.
    pub fn refuse_special(&self, text: &str) -> Result<()> {
        self.refuse_any(text, &self.marks)
    }

    fn refuse_any(&self, text: &str, marks: &[String]) -> Result<()> {
        match marks.iter().find(|mark| text.contains(mark.as_str())) {
            Some(mark) => Err(ModelError::Request(format!(
                "the text holds `{mark}`, a control token of this model; remove it from the question"
            ))),
            None => Ok(()),
        }
    }

    /// Ids of every token that spells `word` (lower case), whatever its case and leading space.
    ///
    /// # Errors
    /// `Tokenizer` if there is none, or if a token cannot be decoded.
    pub fn spellings(&self, word: &str) -> Result<Vec<u32>> {
        // Letters of ASCII stand for themselves in every vocabulary; a leading space is one or a few characters.
        const LONGEST_SPACE: usize = 8;
        let mut ids = Vec::new();
        for (piece, id) in self.tokenizer.get_vocab(true) {
            if piece.len() <= word.len() + LONGEST_SPACE && piece.to_lowercase().ends_with(word) {
                let text = self.tokenizer.decode(&[id], false).map_err(|e| {
                    ModelError::tokenizer(&self.path, format!("token {id} cannot be decoded: {e}"))
                })?;
                let spelled = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{2581}');
                if spelled.to_lowercase() == word {
                    ids.push(id);
                }
            }
        }
        if ids.is_empty() {
            let mut shown = word.to_owned();
            shown[..1].make_ascii_uppercase();
            return Err(ModelError::tokenizer(
                &self.path,
                format!(
                    "a tokenizer without {shown}: no single token spells it, so its probability cannot be read"
                ),
            ));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// One id, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Many(Vec<u32>),
}

impl TokenIds {
    /// All of them.
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct RawGeneration {
    eos_token_id: Option<TokenIds>,
}

/// The tokens at which an answer ends: by `generation_config.json`, else by the model's configuration
/// (`configured`), else by the tokenizer's.
///
/// # Errors
/// `Tokenizer` if none of them names one.
pub fn end_tokens(
    tree: &FileTree,
    configured: Option<TokenIds>,
    template: &ChatTemplate,
    tokenizer: &ChatTokenizer,
) -> Result<Vec<u32>> {
    const FILE: &str = "generation_config.json";
    let generation =
        if tree.exists(FILE) { tree.read_json::<RawGeneration>(FILE)?.eos_token_id } else { None };
    let ids = match generation.or(configured) {
        Some(ids) => ids.into_vec(),
        None => template.eos_token().and_then(|token| tokenizer.id(token)).into_iter().collect(),
    };
    if ids.is_empty() {
        return Err(ModelError::tokenizer(
            tree.path_of(FILE),
            "no `eos_token_id` here, in config.json or in tokenizer_config.json: answers would never end",
        ));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::error::ModelErrorKind;

    fn compile(source: &str) -> Result<ChatTemplate> {
        let tokens = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
        ChatTemplate::compile("template".to_owned(), source, tokens)
    }

    fn conversation() -> Vec<Message> {
        let text = |text: &str| Part::Text(text.to_owned());
        vec![
            Message { role: "user", content: vec![Part::Image, text("What is {{ it }}?")] },
            Message { role: "assistant", content: vec![text("A cat.")] },
        ]
    }

    /// See `goldens/make_templates.py`.
    #[derive(Deserialize)]
    struct Golden {
        name: String,
        content: String,
        tokens: RawTokenizerConfig,
        template: String,
        cases: Vec<Conversation>,
    }

    #[derive(Deserialize)]
    struct Conversation {
        /// User and assistant in turn; `None` is a picture.
        turns: Vec<Vec<Option<String>>>,
        text: String,
    }

    impl Conversation {
        fn messages(&self) -> Vec<Message> {
            let part = |part: &Option<String>| part.clone().map_or(Part::Image, Part::Text);
            let turns = self.turns.iter().zip(["user", "assistant"].into_iter().cycle());
            turns.map(|(turn, role)| Message { role, content: turn.iter().map(part).collect() }).collect()
        }
    }

    #[test]
    fn templates_built_like_the_published_ones_render_as_in_transformers() {
        let goldens: Vec<Golden> =
            serde_json::from_str(include_str!("../goldens/templates/chats.json")).unwrap();
        assert!(goldens.len() >= 12);
        for golden in goldens {
            let template =
                ChatTemplate::compile(golden.name.clone(), &golden.template, golden.tokens.special_tokens())
                    .unwrap();
            assert_eq!(template.content == Content::Parts, golden.content == "parts", "{}", golden.name);
            for case in &golden.cases {
                let found = template.render(&case.messages(), "<pad>").unwrap();
                assert_eq!(found, case.text, "{}", golden.name);
            }
        }
    }

    #[test]
    fn templates_know_the_family_s_own_tokens() {
        let config = serde_json::json!({
            "bos_token": {"content": "<s>", "lstrip": false}, "pad_token": null, "image_token": "<image>",
            "add_bos_token": true, "image_token_id": 3, "extra_special_tokens": {"boi_token": "<boi>"},
        });
        let config: RawTokenizerConfig = serde_json::from_value(config).unwrap();
        let text = "{{ bos_token }}{{ image_token }}{{ boi_token }}{{ pad_token is defined }}{{ add_bos_token is defined }}";
        let template = ChatTemplate::compile("template".to_owned(), text, config.special_tokens()).unwrap();
        assert_eq!(template.render(&[], "").unwrap(), "<s><image><boi>FalseFalse");
    }

    #[test]
    fn a_model_that_always_thinks_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |template: &str| {
            std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
            ChatTemplate::load(&FileTree::open(folder.path()).unwrap())
        };
        let start = "{{ messages[0].content }}|";
        let error = load(&format!("{start}<think>\n")).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Unsupported);
        assert!(error.to_string().contains("<think>") && error.to_string().contains("Instruct"), "{error}");
        assert!(load(&format!("{start}<think>\n\n</think>\n\n")).is_ok());
        let error = load("{{ strftime_now('%Y') }}").unwrap_err();
        assert!(error.to_string().contains("strftime_now"), "{error}");
    }

    #[test]
    fn a_template_that_refuses_is_an_error_with_its_reason() {
        let template = compile("{{ raise_exception('turns must alternate') }}").unwrap();
        let error = template.render(&conversation(), "").unwrap_err();
        assert!(error.to_string().contains("turns must alternate"), "{error}");
        assert!(compile("{% if %}").unwrap_err().to_string().contains("not valid Jinja"));
    }
}
