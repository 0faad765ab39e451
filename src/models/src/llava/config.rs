//! `config.json` of LLaVA and LLaVA-NeXT, as llava-hf publishes it and as the authors do.
//!
//! Source: `configuration_llava.py` and `configuration_llava_next.py` in transformers 5.17, whose defaults stand for
//! what a file leaves out.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::original;
use crate::chat::TokenIds;
use crate::clip::{Activation, Family, VisionConfig};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::DecoderConfig;

/// The file.
pub(super) const FILE: &str = "config.json";

/// Heights and widths that LLaVA-NeXT fits a picture into, if the files do not say otherwise.
pub(super) const RESOLUTIONS: [[u32; 2]; 5] = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];

/// What the model is built from.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// The language model.
    pub(super) text: DecoderConfig,
    /// The vision tower.
    pub(super) vision: VisionConfig,
    /// How many of the tower's layers come before the state that is read.
    pub(super) layers: usize,
    /// Whether the class token's state is read too, before those of the patches.
    pub(super) with_class: bool,
    /// Between the two maps of the projector.
    pub(super) activation: Activation,
    /// Whether they have a bias.
    pub(super) projector_bias: bool,
    /// Stands once for each feature of a picture; by the files, `None` if they name none.
    pub(super) image_token: Option<u32>,
    /// What becomes of a picture.
    pub(super) views: Views,
    /// Where answers end, if the configuration says so.
    pub(super) eos: Option<TokenIds>,
    /// Set for the authors' layout.
    pub(super) original: Option<original::Layout>,
}

/// How a model looks at a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Views {
    /// Once (LLaVA-1.5).
    One,
    /// As a whole and tile by tile (LLaVA-NeXT), fitted into one of these heights and widths in pixels.
    Tiles(Vec<[u32; 2]>),
}

#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    text_config: Option<Map<String, Value>>,
    vision_config: Option<Map<String, Value>>,
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    projector_hidden_act: Option<String>,
    vision_feature_select_strategy: Option<String>,
    vision_feature_layer: Option<Value>,
    multimodal_projector_bias: Option<bool>,
    image_grid_pinpoints: Option<Vec<[u32; 2]>>,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<TokenIds>,
}

impl Config {
    /// Reads and checks `config.json` in either layout.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for fields that do not fit each other; `Unsupported` for another family, tower,
    /// projector or way to select features.
    pub(super) fn load(tree: &FileTree) -> Result<Self> {
        let path = tree.path_of(FILE);
        let file: Map<String, Value> = tree.read_json(FILE)?;
        if !original::is_original(&file) {
            return Self::read(&path, &Value::Object(file));
        }
        let (translated, layout) = original::translate(&path, &file)?;
        Ok(Self { original: Some(layout), image_token: None, ..Self::read(&path, &translated)? })
    }

    /// Of a file in the layout of llava-hf, which messages call `path`.
    ///
    /// # Errors
    /// As [`Self::load`], but for `MissingFile`.
    pub(super) fn read(path: &str, file: &Value) -> Result<Self> {
        let raw = Raw::deserialize(file).map_err(|e| ModelError::malformed(path, e.to_string()))?;
        let tiled = match raw.model_type.as_deref() {
            Some("llava") => false,
            Some("llava_next") => true,
            other => {
                let found = other.unwrap_or("absent");
                return Err(ModelError::unsupported(path, "`model_type`", found, "llava, llava_next"));
            }
        };
        let vision = vision(path, raw.vision_config)?;
        let layers =
            feature_layer(path, raw.vision_feature_layer.as_ref(), vision.encoder.num_hidden_layers)?;
        let with_class = match raw.vision_feature_select_strategy.as_deref().unwrap_or("default") {
            "default" => false,
            // Tiles are laid side by side, in which a class token has no place.
            "full" if !tiled => true,
            other => {
                let supported = if tiled { "default" } else { "default, full" };
                let what = "`vision_feature_select_strategy`";
                return Err(ModelError::unsupported(path, what, other, supported));
            }
        };
        let act = raw.projector_hidden_act.as_deref().unwrap_or("gelu");
        let Some(activation) = Activation::from_name(act) else {
            let supported = Activation::NAMES;
            return Err(ModelError::unsupported(path, "`projector_hidden_act`", act, supported));
        };
        let (text, eos) = text(path, raw.text_config, raw.tie_word_embeddings)?;
        let views = match raw.image_grid_pinpoints {
            _ if !tiled => Views::One,
            None => Views::Tiles(RESOLUTIONS.to_vec()),
            Some(resolutions) => Views::Tiles(resolutions),
        };
        if let Views::Tiles(resolutions) = &views {
            check_resolutions(path, resolutions, vision.image_size)?;
        }
        Ok(Self {
            image_token: Some(image_token(path, raw.image_token_index, raw.image_token_id, text.vocabulary)?),
            text,
            vision,
            layers,
            with_class,
            activation,
            projector_bias: raw.multimodal_projector_bias.unwrap_or(true),
            views,
            eos: raw.eos_token_id.or(eos),
            original: None,
        })
    }

    /// Patches along one side of a view.
    pub(super) fn side(&self) -> usize {
        self.vision.patches_per_side()
    }
}

/// The language model and the end of its answers. Its fields are as `text_config` has them, a Llama's by default.
fn text(
    path: &str,
    fields: Option<Map<String, Value>>,
    tied: Option<bool>,
) -> Result<(DecoderConfig, Option<TokenIds>)> {
    let mut fields = fields.unwrap_or_default();
    let family = fields.entry("model_type").or_insert_with(|| "llama".into()).clone();
    let eos = match fields.get("eos_token_id") {
        Some(Value::Null) => None,
        Some(ids) => Some(
            TokenIds::deserialize(ids)
                .map_err(|e| ModelError::malformed(path, format!("`text_config.eos_token_id` {ids}: {e}")))?,
        ),
        // `configuration_llama.py`, `configuration_mistral.py`; the others have no default.
        None => (family == "llama" || family == "mistral").then_some(TokenIds::One(2)),
    };
    let mut text = DecoderConfig::read(path, &Value::Object(fields))?;
    text.tied |= tied.unwrap_or(false);
    Ok((text, eos))
}

fn vision(path: &str, fields: Option<Map<String, Value>>) -> Result<VisionConfig> {
    let fields = match fields {
        Some(fields) => fields,
        // That of the checkpoints, which is not the default of a CLIP tower.
        None => match large_336() {
            Value::Object(fields) => fields,
            _ => Map::new(),
        },
    };
    let kind = fields.get("model_type").and_then(Value::as_str).unwrap_or("clip_vision_model");
    if kind != "clip_vision_model" {
        let what = "`vision_config.model_type`";
        return Err(ModelError::unsupported(path, what, kind, "clip_vision_model"));
    }
    VisionConfig::read(path, Family::Clip, fields)
}

/// CLIP ViT-L/14 at 336 pixels, the tower of all published checkpoints.
pub(super) fn large_336() -> Value {
    json!({
        "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    })
}

/// How many of `layers` layers come before the hidden state of that index: state 0 is what the first layer reads,
/// negative indices count from the last layer's result.
fn feature_layer(path: &str, index: Option<&Value>, layers: usize) -> Result<usize> {
    let index = match index {
        None => -2,
        Some(value) => value.as_i64().ok_or_else(|| {
            ModelError::unsupported(path, "`vision_feature_layer`", value, "one layer, such as -2")
        })?,
    };
    let states = layers as i64 + 1;
    let state = if index < 0 { states + index } else { index };
    if !(0..states).contains(&state) {
        let detail = format!("`vision_feature_layer` is {index}, the vision tower has {layers} layers");
        return Err(ModelError::malformed(path, detail));
    }
    Ok(state as usize)
}

fn image_token(path: &str, index: Option<u32>, id: Option<u32>, vocabulary: usize) -> Result<u32> {
    if let (Some(index), Some(id)) = (index, id)
        && index != id
    {
        let detail =
            format!("`image_token_index` is {index} and `image_token_id` is {id}: they mean the same");
        return Err(ModelError::malformed(path, detail));
    }
    let token = index.or(id).unwrap_or(32_000);
    if token as usize >= vocabulary {
        let detail = format!("`image_token_index` is {token}, expected less than `vocab_size` {vocabulary}");
        return Err(ModelError::malformed(path, detail));
    }
    Ok(token)
}

fn check_resolutions(path: &str, resolutions: &[[u32; 2]], side: usize) -> Result<()> {
    let fits = |edge: &u32| *edge > 0 && (*edge as usize).is_multiple_of(side);
    match resolutions.iter().find(|resolution| !resolution.iter().all(fits)) {
        Some(odd) => Err(ModelError::unsupported(
            path,
            "an entry of `image_grid_pinpoints`",
            format!("{odd:?}"),
            format!("multiples of the vision tower's side of {side} pixels"),
        )),
        None if resolutions.is_empty() => {
            Err(ModelError::malformed(path, "`image_grid_pinpoints` is empty, expected heights and widths"))
        }
        None => Ok(()),
    }
}
