//! The authors' own layout of LLaVA checkpoints (liuhaotian/llava-v1.5-7b, llava-v1.6-mistral-7b and others): the
//! language model's fields flat in `config.json`, `mm_...` beside them, and a vision tower that is named there and may
//! lie in the checkpoint or elsewhere.
//!
//! Such a folder has no tokenizer.json, no chat template and no placeholder for pictures: in that code they are Python.
//! Whoever puts them into the folder can use it; everybody else is sent to the checkpoint that llava-hf has converted.
//!
//! Source: `llava/model/llava_arch.py`, `llava/mm_utils.py`, `llava/model/multimodal_encoder/clip_encoder.py` of
//! haotian-liu/LLaVA at 1.2.2, and `convert_llava_next_weights_to_hf.py` of transformers 4.

use serde_json::{Map, Value, json};

use super::config::{FILE, large_336};
use crate::clip::RawProcessor;
use crate::error::{ModelError, Result};
use crate::files::FileTree;

/// What only this layout has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// What happens to pictures that are not square.
    pub(super) aspect: Aspect,
    /// Name of the vision tower.
    pub(super) tower: String,
    /// The checkpoint of llava-hf that has the same weights, as far as its dimensions tell.
    pub(super) converted: String,
}

/// `image_aspect_ratio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aspect {
    /// The middle is cut out.
    Crop,
    /// They are padded with the mean colour.
    Pad,
    /// They are cut into tiles.
    Tiles,
}

/// Whether these fields of `config.json` are in the authors' layout. Some of their files say `llava` as those of
/// llava-hf do.
pub(super) fn is_original(file: &Map<String, Value>) -> bool {
    let kind = file.get("model_type").and_then(Value::as_str);
    matches!(kind, Some("llava_llama" | "llava_mistral")) || file.contains_key("mm_vision_tower")
}

/// The same configuration in the layout of llava-hf, and what that does not hold.
///
/// # Errors
/// `Unsupported` for another vision tower, projector or way to join tiles, with the checkpoint to use instead.
pub(super) fn translate(path: &str, file: &Map<String, Value>) -> Result<(Value, Layout)> {
    let word = |name: &str| file.get(name).and_then(Value::as_str);
    let aspect = match word("image_aspect_ratio").unwrap_or("square") {
        "square" => Aspect::Crop,
        "pad" => Aspect::Pad,
        "anyres" => Aspect::Tiles,
        other => {
            return Err(ModelError::unsupported(path, "`image_aspect_ratio`", other, "square, pad, anyres"));
        }
    };
    let converted = converted(file, aspect);
    let refuse = |name: &str, found: &str, supported: &str| {
        let supported = format!("{supported}; or use {converted}");
        ModelError::unsupported(path, format!("`{name}`"), found, supported)
    };
    let require = |name: &str, default: &str, expected: &str| match word(name).unwrap_or(default) {
        found if found == expected => Ok(()),
        found => Err(refuse(name, found, expected)),
    };
    require("mm_projector_type", "linear", "mlp2x_gelu")?;
    if aspect == Aspect::Tiles {
        require("mm_patch_merge_type", "flat", "spatial_unpad")?;
    }
    if file.get("mm_use_im_start_end") == Some(&Value::Bool(true)) {
        return Err(refuse("mm_use_im_start_end", "true", "false"));
    }
    let tower = word("mm_vision_tower").unwrap_or("absent");
    let mut vision = large_336();
    match tower {
        // Written into the file by hand, for towers that the name does not tell of.
        _ if file.get("vision_config").is_some_and(Value::is_object) => {
            vision = file["vision_config"].clone()
        }
        "openai/clip-vit-large-patch14-336" => {}
        "openai/clip-vit-large-patch14" => vision["image_size"] = 224.into(),
        other => {
            let supported = "openai/clip-vit-large-patch14-336, openai/clip-vit-large-patch14";
            return Err(refuse("mm_vision_tower", other, supported));
        }
    }
    let given = vision.get("hidden_size");
    if let Some(width) = file.get("mm_hidden_size").filter(|width| Some(*width) != given) {
        let detail = format!("`mm_hidden_size` is {width}, {tower} gives {}", given.unwrap_or(&Value::Null));
        return Err(ModelError::malformed(path, detail));
    }
    let strategy = match word("mm_vision_select_feature").unwrap_or("patch") {
        "patch" => "default",
        "cls_patch" => "full",
        other => return Err(refuse("mm_vision_select_feature", other, "patch, cls_patch")),
    };
    let mut text = file.clone();
    let mistral = word("model_type") == Some("llava_mistral");
    text.insert("model_type".to_owned(), if mistral { "mistral" } else { "llama" }.into());
    let translated = json!({
        "model_type": if aspect == Aspect::Tiles { "llava_next" } else { "llava" },
        "vision_config": vision,
        "vision_feature_layer": file.get("mm_vision_select_layer").cloned().unwrap_or_else(|| (-2).into()),
        "vision_feature_select_strategy": strategy,
        "image_grid_pinpoints": turned(file.get("image_grid_pinpoints")),
        "text_config": text,
        // Not known yet: it is the tokenizer's. Any token that exists will do.
        "image_token_index": 0,
    });
    Ok((translated, Layout { aspect, tower: tower.to_owned(), converted }))
}

/// The authors write widths before heights.
fn turned(pairs: Option<&Value>) -> Value {
    let turned = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([width, height]) => json!([height, width]),
        _ => pair.clone(),
    };
    match pairs {
        Some(Value::Array(pairs)) => pairs.iter().map(turned).collect(),
        other => other.cloned().unwrap_or(Value::Null),
    }
}

/// By the dimensions, the checkpoint that llava-hf has made of this one.
fn converted(file: &Map<String, Value>, aspect: Aspect) -> String {
    let mistral = file.get("model_type").and_then(Value::as_str) == Some("llava_mistral");
    let name = match (aspect, file.get("hidden_size").and_then(Value::as_u64)) {
        (Aspect::Tiles, _) if mistral => "llava-v1.6-mistral-7b-hf",
        (Aspect::Tiles, Some(5120)) => "llava-v1.6-vicuna-13b-hf",
        (Aspect::Tiles, Some(7168)) => "llava-v1.6-34b-hf",
        (Aspect::Tiles, _) => "llava-v1.6-vicuna-7b-hf",
        (_, Some(5120)) => "llava-1.5-13b-hf",
        _ => "llava-1.5-7b-hf",
    };
    format!("the checkpoint llava-hf/{name}")
}

/// Refuses a folder that lacks what the authors' code holds in Python.
///
/// # Errors
/// `Unsupported`, with what is missing and the checkpoint to use instead.
pub(super) fn check_files(tree: &FileTree, layout: &Layout) -> Result<()> {
    let any = |names: &[&str]| names.iter().any(|name| tree.exists(name));
    let mut lacking = Vec::new();
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    if !any(&["model.safetensors", "model.safetensors.index.json"]) && !any(&pickled) {
        lacking.push("model.safetensors");
    }
    if !tree.exists("tokenizer.json") {
        lacking.push("tokenizer.json with a token <image>");
    }
    let template = tree.exists("tokenizer_config.json")
        && tree.read_json::<Value>("tokenizer_config.json")?.get("chat_template").is_some();
    if !template && !any(&["chat_template.jinja", "chat_template.json"]) {
        lacking.push("chat_template.jinja");
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let found = format!("the authors' layout without {}", lacking.join(", "));
    Err(ModelError::unsupported(tree.path_of(FILE), "this checkpoint", found, &layout.converted))
}

/// Of a checkpoint whose vision tower is not inside.
pub(super) fn tower_elsewhere(path: &str, layout: &Layout) -> ModelError {
    let found = format!("{}, which is not inside this checkpoint", layout.tower);
    ModelError::unsupported(path, "`mm_vision_tower`", found, &layout.converted)
}

/// The vision tower's image processor: its file where there is one, else what openai publishes with these towers.
///
/// # Errors
/// `Malformed` or `Unsupported` for a file of another kind.
pub(super) fn processor(tree: &FileTree, side: u32) -> Result<(RawProcessor, String)> {
    const PROCESSOR: &str = "preprocessor_config.json";
    if tree.exists(PROCESSOR) {
        return RawProcessor::load(tree, &["CLIP"]);
    }
    let path = tree.path_of(FILE);
    let published = json!({"size": side, "crop_size": side, "resample": 3});
    let raw = serde_json::from_value(published).map_err(|e| ModelError::malformed(&path, e.to_string()))?;
    Ok((raw, path))
}
