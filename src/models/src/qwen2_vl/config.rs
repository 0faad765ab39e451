//! `config.json` of Qwen2-VL, in the flat layout (transformers before 5) and the nested one (since), read and checked.

use serde::Deserialize;
use serde_json::Value;

use crate::chat::TokenIds;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::DecoderConfig;

const FILE: &str = "config.json";

/// What the model is built from.
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

/// The vision tower's dimensions.
#[derive(Debug, Clone)]
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
}

#[derive(Deserialize)]
struct RawTop {
    model_type: String,
    vision_config: RawVision,
    #[serde(default = "default_image_token")]
    image_token_id: u32,
    tie_word_embeddings: Option<bool>,
}

fn default_image_token() -> u32 {
    151_655
}

#[derive(Deserialize)]
struct RawText {
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<TokenIds>,
}

/// Defaults are those of transformers 5.17 (`configuration_qwen2_vl.py`), which published checkpoints rely on.
#[derive(Deserialize)]
#[serde(default)]
struct RawVision {
    depth: usize,
    embed_dim: usize,
    hidden_size: usize,
    hidden_act: String,
    mlp_ratio: f64,
    num_heads: usize,
    in_channels: usize,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
}

impl Default for RawVision {
    fn default() -> Self {
        Self {
            depth: 32,
            embed_dim: 1280,
            hidden_size: 3584,
            hidden_act: "quick_gelu".to_owned(),
            mlp_ratio: 4.0,
            num_heads: 16,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        }
    }
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for a missing field or dimensions that do not fit each other; `Unsupported` for
    /// another family, activation, rotary scheme, or sliding-window attention.
    pub fn load(tree: &FileTree) -> Result<Self> {
        let value: Value = tree.read_json(FILE)?;
        let path = tree.path_of(FILE);
        let malformed = |e: serde_json::Error| ModelError::malformed(&path, e.to_string());
        let text_value = value.get("text_config").unwrap_or(&value);
        let text: RawText = RawText::deserialize(text_value).map_err(malformed)?;
        let top: RawTop = RawTop::deserialize(&value).map_err(malformed)?;
        if top.model_type != "qwen2_vl" {
            return Err(ModelError::unsupported(&path, "model_type", top.model_type, "qwen2_vl"));
        }
        let tied = top.tie_word_embeddings.or(text.tie_word_embeddings).unwrap_or(false);
        let eos = text.eos_token_id;
        let text = DecoderConfig { tied, ..DecoderConfig::read(&path, text_value)? };
        let vision = build_vision(&path, &top.vision_config, text.hidden)?;
        let image_token = top.image_token_id;
        ensure(&path, (image_token as usize) < text.vocabulary, || {
            format!("`image_token_id` is {image_token}, expected less than `vocab_size` {}", text.vocabulary)
        })?;
        Ok(Self { text, vision, image_token, eos })
    }
}

fn ensure(path: &str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(ModelError::malformed(path, message())) }
}

fn build_vision(path: &str, raw: &RawVision, hidden: usize) -> Result<VisionConfig> {
    if raw.hidden_act != "quick_gelu" {
        return Err(ModelError::unsupported(path, "vision_config.hidden_act", &raw.hidden_act, "quick_gelu"));
    }
    if raw.in_channels != 3 {
        return Err(ModelError::unsupported(path, "vision_config.in_channels", raw.in_channels, "3"));
    }
    ensure(path, raw.hidden_size == hidden, || {
        format!("`vision_config.hidden_size` is {}, expected the language model's {hidden}", raw.hidden_size)
    })?;
    // A head is split into halves for row and column, and each of them into pairs that turn.
    ensure(
        path,
        raw.num_heads > 0 && raw.embed_dim.is_multiple_of(raw.num_heads * 4) && raw.embed_dim > 0,
        || {
            format!(
                "`vision_config.embed_dim` {} is no multiple of 4 x `num_heads` {}",
                raw.embed_dim, raw.num_heads
            )
        },
    )?;
    ensure(path, raw.patch_size > 0 && raw.spatial_merge_size > 0 && raw.temporal_patch_size > 0, || {
        "`patch_size`, `spatial_merge_size` and `temporal_patch_size` must be positive".to_owned()
    })?;
    Ok(VisionConfig {
        depth: raw.depth,
        width: raw.embed_dim,
        hidden,
        heads: raw.num_heads,
        intermediate: (raw.embed_dim as f64 * raw.mlp_ratio) as usize,
        patch: raw.patch_size,
        merge: raw.spatial_merge_size,
        frames: raw.temporal_patch_size,
    })
}
