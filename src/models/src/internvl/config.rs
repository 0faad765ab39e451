//! `config.json` of InternVL, in the layout in which OpenGVLab published it (`internvl_chat`) and in that of
//! transformers (`internvl`, the checkpoints whose names end in `-hf`), read and checked.
//!
//! Defaults, which published files rely on: `configuration_internvl_chat.py` and `configuration_intern_vit.py` in
//! `internvl_chat/internvl/model/internvl_chat` of github.com/OpenGVLab/InternVL at 2410d1d, and
//! `models/internvl/configuration_internvl.py` in transformers 5.17.

use serde::Deserialize;
use serde_json::Value;

use crate::chat::TokenIds;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::DecoderConfig;
use crate::layers::Activation;

pub(super) const FILE: &str = "config.json";
/// Of queries and keys in transformers, whatever the configuration says.
const QK_EPSILON: f64 = 1e-6;
/// More tiles than any checkpoint cuts a picture into.
const MOST_TILES: u32 = 1024;

/// Whose names and files a checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// OpenGVLab's own: `vision_model`, `mlp1`, `language_model`.
    Original,
    /// That of transformers: `vision_tower`, `multi_modal_projector`, `language_model`.
    Transformers,
}

/// What the model is built from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose names the checkpoint has.
    pub layout: Layout,
    /// The language model.
    pub text: DecoderConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// How pictures are cut, if `config.json` says so: in the original layout.
    pub tiles: Option<TileLimits>,
    /// Stands once for each feature of a picture, if `config.json` says so: in the layout of transformers.
    pub image_token: Option<u32>,
    /// Where answers end, if the configuration says so.
    pub eos: Option<TokenIds>,
}

/// InternViT's dimensions, and those of what joins it to the language model.
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
    /// Edge of a tile in pixels.
    pub tile: usize,
    /// Edge of a patch in pixels.
    pub patch: usize,
    /// Patches along an edge of the square that becomes one token.
    pub merge: usize,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Layer norms, or else RMS norms.
    pub layer_norm: bool,
    /// In the norms.
    pub epsilon: f64,
    /// In the RMS norms of queries and keys, each over all heads; `None`: there are none.
    pub qk_epsilon: Option<f64>,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
}

impl VisionConfig {
    /// Patches along an edge of a tile.
    pub fn grid(&self) -> usize {
        self.tile / self.patch
    }

    /// Tokens of a tile.
    pub fn tokens(&self) -> usize {
        (self.grid() / self.merge).pow(2)
    }
}

/// How many tiles a picture is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileLimits {
    /// At least so many.
    pub fewest: u32,
    /// At most so many.
    pub most: u32,
    /// Whether the whole picture follows as one tile more if it was cut.
    pub thumbnail: bool,
}

impl TileLimits {
    pub(super) fn check(self, path: &str) -> Result<Self> {
        ensure(path, 0 < self.fewest && self.fewest <= self.most && self.most <= MOST_TILES, || {
            format!(
                "pictures of {} to {} tiles; expected a range within 1 to {MOST_TILES}",
                self.fewest, self.most
            )
        })?;
        Ok(self)
    }
}

/// The top of the original layout.
#[derive(Deserialize)]
struct RawOriginal {
    llm_config: Value,
    vision_config: RawOriginalVision,
    force_image_size: Option<usize>,
    #[serde(default = "last")]
    select_layer: i64,
    #[serde(default = "half")]
    downsample_ratio: f64,
    #[serde(default = "transposed")]
    ps_version: String,
    #[serde(default)]
    pad2square: bool,
    #[serde(default)]
    dynamic_image_size: bool,
    #[serde(default)]
    use_thumbnail: bool,
    #[serde(default = "one")]
    min_dynamic_patch: u32,
    #[serde(default = "six")]
    max_dynamic_patch: u32,
}

fn last() -> i64 {
    -1
}

fn half() -> f64 {
    0.5
}

fn transposed() -> String {
    "v1".to_owned()
}

fn one() -> u32 {
    1
}

fn six() -> u32 {
    6
}

#[derive(Deserialize)]
#[serde(default)]
struct RawOriginalVision {
    num_channels: usize,
    patch_size: usize,
    image_size: usize,
    qkv_bias: bool,
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    qk_normalization: bool,
    num_hidden_layers: usize,
    hidden_act: String,
    norm_type: String,
    layer_norm_eps: f64,
}

impl Default for RawOriginalVision {
    fn default() -> Self {
        Self {
            num_channels: 3,
            patch_size: 14,
            image_size: 224,
            qkv_bias: false,
            hidden_size: 3200,
            num_attention_heads: 25,
            intermediate_size: 12_800,
            qk_normalization: true,
            num_hidden_layers: 48,
            hidden_act: "gelu".to_owned(),
            norm_type: "rms_norm".to_owned(),
            layer_norm_eps: 1e-6,
        }
    }
}

/// The top of the layout of transformers.
#[derive(Deserialize)]
#[serde(default)]
struct RawTransformers {
    text_config: Value,
    vision_config: RawTransformersVision,
    image_token_id: u32,
    downsample_ratio: f64,
    projector_hidden_act: String,
    vision_feature_layer: Value,
    vision_feature_select_strategy: String,
    tie_word_embeddings: bool,
}

impl Default for RawTransformers {
    fn default() -> Self {
        Self {
            text_config: Value::Object(serde_json::Map::new()),
            vision_config: RawTransformersVision::default(),
            image_token_id: 151_667,
            downsample_ratio: 0.5,
            projector_hidden_act: "gelu".to_owned(),
            vision_feature_layer: Value::from(-1),
            vision_feature_select_strategy: "default".to_owned(),
            tie_word_embeddings: true,
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct RawTransformersVision {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    attention_bias: bool,
    use_qk_norm: bool,
    intermediate_size: usize,
    hidden_act: String,
    norm_type: String,
    layer_norm_eps: f64,
    image_size: Sides,
    patch_size: Sides,
    num_channels: usize,
    use_mask_token: bool,
    use_absolute_position_embeddings: bool,
    use_mean_pooling: bool,
}

impl Default for RawTransformersVision {
    fn default() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            attention_bias: false,
            use_qk_norm: false,
            intermediate_size: 4096,
            hidden_act: "gelu".to_owned(),
            norm_type: "layer_norm".to_owned(),
            layer_norm_eps: 1e-6,
            image_size: Sides::One(448),
            patch_size: Sides::One(14),
            num_channels: 3,
            use_mask_token: false,
            use_absolute_position_embeddings: true,
            use_mean_pooling: true,
        }
    }
}

/// One number for both sides, or one for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum Sides {
    One(usize),
    Both([usize; 2]),
}

/// The only field of the language model's configuration that the decoder does not read.
#[derive(Deserialize)]
struct RawText {
    eos_token_id: Option<TokenIds>,
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for a missing field or dimensions that do not fit each other; `Unsupported` for
    /// another family, language model, norm, activation, or a way to read pictures that no published checkpoint has.
    pub fn load(tree: &FileTree) -> Result<Self> {
        let value: Value = tree.read_json(FILE)?;
        let path = tree.path_of(FILE);
        match value.get("model_type").and_then(Value::as_str) {
            Some("internvl_chat") => original(&path, &value),
            Some("internvl") => transformers(&path, &value),
            other => {
                let found = other.unwrap_or("none");
                Err(ModelError::unsupported(path, "model_type", found, "internvl_chat, internvl"))
            }
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(path: &str, value: &'a Value) -> Result<T> {
    T::deserialize(value).map_err(|e| ModelError::malformed(path, e.to_string()))
}

fn ensure(path: &str, holds: bool, message: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(ModelError::malformed(path, message())) }
}

/// Refuses the first property that is not as it has to be: what it is called, what it is, what it has to be.
fn only<const N: usize>(path: &str, properties: [(&str, String, &str); N]) -> Result<()> {
    match properties.into_iter().find(|(_, found, expected)| found != expected) {
        None => Ok(()),
        Some((what, found, expected)) => Err(ModelError::unsupported(path, what, found, expected)),
    }
}

fn original(path: &str, value: &Value) -> Result<Config> {
    let raw: RawOriginal = parse(path, value)?;
    let vision = &raw.vision_config;
    let tile = raw.force_image_size.unwrap_or(vision.image_size);
    only(
        path,
        [
            ("select_layer", raw.select_layer.to_string(), "-1"),
            ("ps_version", raw.ps_version, "v2"),
            ("pad2square", raw.pad2square.to_string(), "false"),
            ("vision_config.num_channels", vision.num_channels.to_string(), "3"),
            // Positions would have to be resized.
            ("vision_config.image_size", vision.image_size.to_string(), tile.to_string().as_str()),
        ],
    )?;
    let vision = VisionConfig {
        depth: vision.num_hidden_layers,
        width: vision.hidden_size,
        heads: vision.num_attention_heads,
        intermediate: vision.intermediate_size,
        tile,
        patch: vision.patch_size,
        merge: merge(path, raw.downsample_ratio)?,
        activation: activation(path, &vision.hidden_act)?,
        layer_norm: layer_norm(path, &vision.norm_type)?,
        epsilon: vision.layer_norm_eps,
        qk_epsilon: vision.qk_normalization.then_some(vision.layer_norm_eps),
        qkv_bias: vision.qkv_bias,
    };
    let tiles = if raw.dynamic_image_size {
        let thumbnail = raw.use_thumbnail;
        TileLimits { fewest: raw.min_dynamic_patch, most: raw.max_dynamic_patch, thumbnail }
    } else {
        TileLimits { fewest: 1, most: 1, thumbnail: false }
    };
    Ok(Config {
        layout: Layout::Original,
        text: DecoderConfig::read(path, &raw.llm_config)?,
        vision: checked(path, vision)?,
        tiles: Some(tiles.check(path)?),
        image_token: None,
        eos: parse::<RawText>(path, &raw.llm_config)?.eos_token_id,
    })
}

fn transformers(path: &str, value: &Value) -> Result<Config> {
    let mut raw: RawTransformers = parse(path, value)?;
    let vision = &raw.vision_config;
    only(
        path,
        [
            ("vision_feature_layer", raw.vision_feature_layer.to_string(), "-1"),
            ("vision_feature_select_strategy", raw.vision_feature_select_strategy, "default"),
            ("projector_hidden_act", raw.projector_hidden_act, "gelu"),
            ("vision_config.num_channels", vision.num_channels.to_string(), "3"),
            ("vision_config.use_mask_token", vision.use_mask_token.to_string(), "false"),
            (
                "vision_config.use_absolute_position_embeddings",
                vision.use_absolute_position_embeddings.to_string(),
                "true",
            ),
            ("vision_config.use_mean_pooling", vision.use_mean_pooling.to_string(), "true"),
        ],
    )?;
    let vision = VisionConfig {
        depth: vision.num_hidden_layers,
        width: vision.hidden_size,
        heads: vision.num_attention_heads,
        intermediate: vision.intermediate_size,
        tile: side(path, "vision_config.image_size", &vision.image_size)?,
        patch: side(path, "vision_config.patch_size", &vision.patch_size)?,
        merge: merge(path, raw.downsample_ratio)?,
        activation: activation(path, &vision.hidden_act)?,
        layer_norm: layer_norm(path, &vision.norm_type)?,
        epsilon: vision.layer_norm_eps,
        qk_epsilon: vision.use_qk_norm.then_some(QK_EPSILON),
        qkv_bias: vision.attention_bias,
    };
    if let Value::Object(text) = &mut raw.text_config {
        text.entry("model_type").or_insert_with(|| Value::from("qwen2"));
    }
    let mut text = DecoderConfig::read(path, &raw.text_config)?;
    // What is said at the top counts; published files say yes by default and hold an output layer all the same.
    text.tied = raw.tie_word_embeddings;
    ensure(path, (raw.image_token_id as usize) < text.vocabulary, || {
        format!(
            "`image_token_id` is {}, expected less than `vocab_size` {}",
            raw.image_token_id, text.vocabulary
        )
    })?;
    Ok(Config {
        layout: Layout::Transformers,
        text,
        vision: checked(path, vision)?,
        tiles: None,
        image_token: Some(raw.image_token_id),
        eos: parse::<RawText>(path, &raw.text_config)?.eos_token_id,
    })
}

fn side(path: &str, name: &str, sides: &Sides) -> Result<usize> {
    match *sides {
        Sides::One(side) => Ok(side),
        Sides::Both([height, width]) if height == width => Ok(width),
        Sides::Both(both) => Err(ModelError::unsupported(path, name, format!("{both:?}"), "a square")),
    }
}

/// How many patches along an edge become one token, from the ratio of the edges.
fn merge(path: &str, ratio: f64) -> Result<usize> {
    let merge = (1.0 / ratio).round();
    ensure(path, (1.0..=64.0).contains(&merge) && ratio == 1.0 / merge, || {
        format!("`downsample_ratio` is {ratio}, expected 1, 0.5, 0.25 or so: one over a whole number")
    })?;
    Ok(merge as usize)
}

fn activation(path: &str, name: &str) -> Result<Activation> {
    Activation::from_name(name)
        .ok_or_else(|| ModelError::unsupported(path, "vision_config.hidden_act", name, Activation::NAMES))
}

fn layer_norm(path: &str, name: &str) -> Result<bool> {
    match name {
        "layer_norm" => Ok(true),
        "rms_norm" => Ok(false),
        _ => Err(ModelError::unsupported(path, "vision_config.norm_type", name, "layer_norm, rms_norm")),
    }
}

fn checked(path: &str, config: VisionConfig) -> Result<VisionConfig> {
    let VisionConfig { depth, width, heads, patch, tile, merge, .. } = config;
    ensure(path, depth > 0 && width > 0 && heads > 0 && width.is_multiple_of(heads), || {
        format!("a vision tower of {depth} layers whose width {width} is divided between {heads} heads")
    })?;
    ensure(path, patch > 0 && tile > 0 && tile.is_multiple_of(patch * merge), || {
        format!("tiles of {tile} pixels are no multiple of {merge} patches of {patch}")
    })?;
    Ok(config)
}
