//! What the configurations of the Qwen vision-language models have in common.

use serde::Deserialize;
use serde_json::Value;

use super::VisionTower;
use crate::chat::TokenIds;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::DecoderConfig;

const FILE: &str = "config.json";

/// What a model is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The language model.
    pub text: DecoderConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Stands once for each merged patch of a picture.
    pub image_token: u32,
    /// Where answers end, if the configuration says so.
    pub eos: Option<TokenIds>,
}

/// Defaults are those of transformers 5.17, which published checkpoints rely on.
#[derive(Deserialize)]
struct RawTop {
    model_type: String,
    #[serde(default)]
    vision_config: serde_json::Map<String, Value>,
    #[serde(default = "default_image_token")]
    image_token_id: u32,
    tie_word_embeddings: Option<bool>,
}

fn default_image_token() -> u32 {
    151_655
}

#[derive(Deserialize)]
struct RawText {
    eos_token_id: Option<TokenIds>,
    tie_word_embeddings: Option<bool>,
}

impl Config {
    /// Reads and checks `config.json` of a family. The language model's fields are flat (before transformers 5) or nested
    /// in `text_config`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for a missing field or dimensions that do not fit each other; `Unsupported` for
    /// another family or anything that would be computed wrongly.
    pub(crate) fn load<T: VisionTower>(tree: &FileTree) -> Result<(Self, T::Extra)> {
        let value: Value = tree.read_json(FILE)?;
        let path = tree.path_of(FILE);
        let malformed = |e: serde_json::Error| ModelError::malformed(&path, e.to_string());
        let top: RawTop = RawTop::deserialize(&value).map_err(malformed)?;
        if top.model_type != T::FAMILY {
            return Err(ModelError::unsupported(&path, "model_type", top.model_type, T::FAMILY));
        }
        let nested = value.get("text_config").filter(|nested| !nested.is_null());
        let mut text_value = nested.unwrap_or(&value).clone();
        if let Some(fields) = text_value.as_object_mut() {
            // What does not say so is of the family.
            fields.entry("model_type").or_insert_with(|| format!("{}_text", T::FAMILY).into());
        }
        let mut text = DecoderConfig::read(&path, &text_value)?;
        let raw: RawText = RawText::deserialize(&text_value).map_err(malformed)?;
        // Before transformers 5 the first families could say so in either place.
        let in_text = T::FAMILY != "qwen3_vl" && raw.tie_word_embeddings == Some(true);
        text.tied = top.tie_word_embeddings == Some(true) || in_text;
        let image_token = top.image_token_id;
        ensure(&path, (image_token as usize) < text.vocabulary, || {
            format!("`image_token_id` is {image_token}, expected less than `vocab_size` {}", text.vocabulary)
        })?;
        let (vision, extra) = T::read(&path, &Value::Object(top.vision_config), text.hidden)?;
        Ok((Self { text, vision, image_token, eos: raw.eos_token_id }, extra))
    }
}

/// A vision tower's dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Number of layers.
    pub depth: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of heads.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub intermediate: usize,
    /// Edge of a patch in pixels.
    pub patch: usize,
    /// Patches along an edge of the square that becomes one token.
    pub merge: usize,
    /// Width of the tokens that come out: the language model's.
    pub hidden: usize,
    /// Frames of one patch; a picture is repeated so often.
    pub frames: usize,
    /// Base of the two-dimensional rotary positions.
    pub theta: f32,
}

/// `rope_parameters` of a vision tower; there are none before transformers 5.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct RawRope {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

impl RawRope {
    /// The base of the frequencies.
    ///
    /// # Errors
    /// `Unsupported` for another scheme than rows and columns.
    pub(crate) fn theta(&self, path: &str) -> Result<f32> {
        match self.rope_type.as_deref() {
            None | Some("axial" | "default") => Ok(self.rope_theta.unwrap_or(10_000.0)),
            Some(other) => {
                Err(ModelError::unsupported(path, "vision_config.rope_parameters.rope_type", other, "axial"))
            }
        }
    }
}

impl VisionConfig {
    /// The same if its dimensions fit each other and `hidden`, the language model's width. `channels` are those of a
    /// picture, `out` is the name of the field that states the width of the tokens.
    ///
    /// # Errors
    /// `Malformed`; `Unsupported` for pictures that are not RGB.
    pub(crate) fn checked(self, path: &str, channels: usize, out: &str, hidden: usize) -> Result<Self> {
        if channels != 3 {
            return Err(ModelError::unsupported(path, "vision_config.in_channels", channels, "3"));
        }
        ensure(path, self.hidden == hidden, || {
            format!("`vision_config.{out}` is {}, expected the language model's {hidden}", self.hidden)
        })?;
        // A head is split into halves for row and column, and each of them into pairs that turn.
        ensure(path, self.heads > 0 && self.width > 0 && self.width.is_multiple_of(self.heads * 4), || {
            format!("the vision tower is {} wide, no multiple of 4 x `num_heads` {}", self.width, self.heads)
        })?;
        ensure(path, self.patch > 0 && self.merge > 0 && self.frames > 0, || {
            "`patch_size`, `spatial_merge_size` and `temporal_patch_size` must be positive".to_owned()
        })?;
        ensure(path, self.theta.is_finite() && self.theta > 0.0, || {
            format!(
                "`vision_config.rope_parameters.rope_theta` is {}, expected a positive number",
                self.theta
            )
        })?;
        Ok(self)
    }
}

/// `Malformed` unless something holds.
///
/// # Errors
/// It does not.
pub(crate) fn ensure(path: &str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(ModelError::malformed(path, message())) }
}
