//! Byte pairs over characters: the model file of SentencePiece.
//!
//! The file is a protocol buffer, `ModelProto` in `sentencepiece_model.proto` of google/sentencepiece; the few fields
//! that decide what a text becomes are read, and what would be read wrongly is refused.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::{AddedToken, Converted};
use crate::error::{ModelError, Result};

/// Stands for a space in pieces.
const SPACE: &str = "\u{2581}";
/// In the place of a piece of one NUL: no characters of a text come together as this.
const UNUSED_NUL: &str = "\0\0";
/// More pieces, or longer ones, than any model has.
const MOST_PIECES: usize = 1 << 21;
const LONGEST_PIECE: usize = 1 << 10;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// Stands for nothing in a text.
    Control,
    /// Found in the text before pairs are merged.
    UserDefined,
    Unused,
    /// A byte of a character that is no piece.
    Byte,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// What is read of the model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) pieces: Vec<Piece>,
    /// 1 unigrams, 2 byte pairs, 3 words, 4 characters.
    pub(super) kind: u64,
    pub(super) byte_fallback: bool,
    pub(super) space_last: bool,
    /// What becomes of characters; empty for nothing.
    pub(super) charsmap: Vec<u8>,
    pub(super) space_first: bool,
    pub(super) strip_spaces: bool,
    pub(super) escape_spaces: bool,
    /// The piece before every text.
    pub(super) begin: u64,
}

/// Turns the bytes of a model file into the JSON of the `tokenizers` crate. Pieces that are among the `added` tokens
/// take the text they have there. `legacy` is Llama's: see [`super::RawConfig`].
///
/// # Errors
/// `Tokenizer` for bytes that are no model, `Unsupported` for one that is not of byte pairs with bytes for unknown
/// characters, or that changes the text beforehand.
pub(super) fn convert(
    path: &str,
    bytes: &[u8],
    added: &BTreeMap<u32, AddedToken>,
    legacy: bool,
) -> Result<Converted> {
    let model = Model::parse(path, bytes)?;
    model.refuse_others(path)?;
    let merges = merges(&model.pieces);
    let mut vocabulary = HashMap::with_capacity(model.pieces.len());
    let mut tokens = BTreeMap::new();
    let mut unknown = None;
    for (id, piece) in (0u32..).zip(&model.pieces) {
        let text = match added.get(&id) {
            Some(token) => token.content.as_str(),
            // SentencePiece spells it in bytes, whatever the file says.
            None if piece.text == "\0" => UNUSED_NUL,
            None => piece.text.as_str(),
        };
        if vocabulary.insert(text, id).is_some() {
            return Err(ModelError::tokenizer(path, format!("piece `{text}` occurs twice")));
        }
        match piece.kind {
            Kind::Unknown => {
                unknown = Some(text);
                tokens.insert(id, AddedToken::new(text, true));
            }
            Kind::Control => _ = tokens.insert(id, AddedToken::new(text, true)),
            Kind::UserDefined => _ = tokens.insert(id, AddedToken::new(text, false)),
            Kind::Normal | Kind::Unused | Kind::Byte => {}
        }
    }
    let escape = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    let (normalizer, pre_tokenizer) = match (model.space_first, legacy) {
        (false, _) => (escape, Value::Null),
        (true, true) => {
            let prepend = json!({ "type": "Prepend", "prepend": SPACE });
            (json!({ "type": "Sequence", "normalizers": [prepend, escape] }), Value::Null)
        }
        (true, false) => (
            Value::Null,
            json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false }),
        ),
    };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if model.space_first {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let begin = tokens.iter().find(|(id, _)| u64::from(**id) == model.begin);
    let json: Value = json!({
        "model": {
            "type": "BPE", "vocab": vocabulary, "merges": merges, "unk_token": unknown, "fuse_unk": true,
            "byte_fallback": true,
        },
        "post_processor": begin.map(|(id, token)| post_processor(*id, &token.content)),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": { "type": "Sequence", "decoders": decoders },
    });
    Ok(Converted { json, size: model.pieces.len(), added: tokens })
}

/// Puts a token before every text. Tokenizers of this kind do, unless `tokenizer_config.json` says otherwise.
fn post_processor(id: u32, token: &str) -> Value {
    let template = |sequences: &[&str]| -> Vec<Value> {
        let begin = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
        let sequences = sequences.iter().map(|name| json!({ "Sequence": { "id": name, "type_id": 0 } }));
        std::iter::once(begin).chain(sequences).collect()
    };
    json!({
        "type": "TemplateProcessing", "single": template(&["A"]), "pair": template(&["A", "B"]),
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}

/// The pairs that make the pieces, those of the highest score first (`SentencePieceExtractor`): SentencePiece merges
/// any two neighbours whose text together is a piece, and so each way to cut a piece in two is a pair.
fn merges(pieces: &[Piece]) -> Vec<(&str, &str)> {
    let mergeable = |piece: &Piece| matches!(piece.kind, Kind::Normal | Kind::UserDefined);
    let ids: HashMap<&str, usize> = pieces
        .iter()
        .enumerate()
        .filter(|(_, p)| mergeable(p))
        .map(|(id, p)| (p.text.as_str(), id))
        .collect();
    let mut merges = Vec::new();
    for piece in pieces.iter().filter(|piece| piece.kind == Kind::Normal) {
        let first = merges.len();
        for (at, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                merges.push((left, right, piece.score));
            }
        }
        merges[first..].sort_by_key(|(left, right, _)| (ids[left], ids[right]));
    }
    let length = |text: &str| text.chars().count();
    // Stable; scores are no NaN.
    merges.sort_by(|a, b| {
        b.2.total_cmp(&a.2)
            .then_with(|| length(b.0).cmp(&length(a.0)))
            .then_with(|| length(b.1).cmp(&length(a.1)))
    });
    merges.into_iter().map(|(left, right, _)| (left, right)).collect()
}

type Parsed<T> = std::result::Result<T, String>;

impl Model {
    /// # Errors
    /// `Tokenizer` for bytes that are no model.
    pub(super) fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).map_err(|detail| {
            ModelError::tokenizer(path, format!("not a SentencePiece model: {detail}; fetch the file again"))
        })
    }

    fn read(bytes: &[u8]) -> Parsed<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            kind: 1,
            byte_fallback: false,
            space_last: false,
            charsmap: Vec::new(),
            space_first: true,
            strip_spaces: true,
            escape_spaces: true,
            begin: 1,
        };
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => model.add_piece(field.bytes()?)?,
                2 => model.read_trainer(field.bytes()?)?,
                3 => model.read_normalizer(field.bytes()?)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("it holds no piece".to_owned());
        }
        Ok(model)
    }

    fn add_piece(&mut self, bytes: &[u8]) -> Parsed<()> {
        let number = self.pieces.len();
        let mut piece = Piece { text: String::new(), score: 0.0, kind: Kind::Normal };
        let mut fields = Fields(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => {
                    let text = std::str::from_utf8(value.bytes()?);
                    piece.text = text.map_err(|e| format!("piece {number}: {e}"))?.to_owned();
                }
                2 => piece.score = value.float()?,
                3 => {
                    piece.kind = match value.integer()? {
                        1 => Kind::Normal,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        5 => Kind::Unused,
                        6 => Kind::Byte,
                        other => return Err(format!("piece {number} is of kind {other}")),
                    }
                }
                _ => {}
            }
        }
        if piece.text.is_empty() || piece.text.len() > LONGEST_PIECE || piece.score.is_nan() {
            return Err(format!("piece {number} is empty, longer than {LONGEST_PIECE} bytes, or scored NaN"));
        }
        if number == MOST_PIECES {
            return Err(format!("more than {MOST_PIECES} pieces"));
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Parsed<()> {
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                3 => self.kind = field.integer()?,
                24 => self.space_last = field.integer()? != 0,
                35 => self.byte_fallback = field.integer()? != 0,
                // -1, which is many bits, if there is none.
                41 => self.begin = field.integer()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Parsed<()> {
        let mut fields = Fields(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                2 => self.charsmap = field.bytes()?.to_vec(),
                3 => self.space_first = field.integer()? != 0,
                4 => self.strip_spaces = field.integer()? != 0,
                5 => self.escape_spaces = field.integer()? != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn refuse_others(&self, path: &str) -> Result<()> {
        let any = |kind: Kind| self.pieces.iter().any(|piece| piece.kind == kind);
        let user_defined = any(Kind::UserDefined);
        let refused = [
            (self.kind != 2, "SentencePiece model", "words, characters or unigrams", "byte pairs"),
            (any(Kind::Unused), "pieces", "unused ones", "used ones"),
            (!self.byte_fallback, "byte_fallback", "false", "true"),
            (self.space_last, "treat_whitespace_as_suffix", "true", "false"),
            (!self.charsmap.is_empty(), "normalisation", "a table of characters", "identity"),
            (self.strip_spaces, "remove_extra_whitespaces", "true", "false"),
            (!self.escape_spaces, "escape_whitespaces", "false", "true"),
            // A space would come before every part between such pieces.
            (self.space_first && user_defined, "user-defined pieces with add_dummy_prefix", "both", "one"),
        ];
        match refused.into_iter().find(|(holds, ..)| *holds) {
            None => Ok(()),
            Some((_, what, found, supported)) => {
                let supported = format!("{supported} (or a file tokenizer.json)");
                Err(ModelError::unsupported(path, what, found, supported))
            }
        }
    }
}

/// The fields of a protocol buffer's message, one by one.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Integer(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Fields<'a> {
    /// Number and value of the next field.
    fn next(&mut self) -> Parsed<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.integer()?;
        let field = match tag & 7 {
            0 => Field::Integer(self.integer()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.integer()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("a field of wire type {other}")),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn take(&mut self, length: u64) -> Parsed<&'a [u8]> {
        let cut = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (taken, rest) = cut.ok_or_else(|| format!("{length} bytes announced, {} left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn integer(&mut self) -> Parsed<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than ten bytes".to_owned())
    }
}

impl<'a> Field<'a> {
    fn bytes(&self) -> Parsed<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err("a field that is no text".to_owned()) }
    }

    fn integer(&self) -> Parsed<u64> {
        if let Self::Integer(value) = self {
            Ok(*value)
        } else {
            Err("a field that is no integer".to_owned())
        }
    }

    fn float(&self) -> Parsed<f32> {
        if let Self::Fixed(bits) = self {
            Ok(f32::from_bits(*bits))
        } else {
            Err("a field that is no number".to_owned())
        }
    }
}
