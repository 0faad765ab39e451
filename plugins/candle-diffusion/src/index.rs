//! `model_index.json`: which family a folder is, and which classes its parts are.

use std::collections::BTreeMap;

use cluegate_models::{FileTree, ModelError};
use serde_json::Value;

use crate::family::FamilyKind;

type Result<T> = std::result::Result<T, ModelError>;

/// Pipelines that are implemented. Those that draw from text, from a picture or into a picture have the same parts.
const CLASSES: [(FamilyKind, [&str; 3]); 4] = [
    (
        FamilyKind::StableDiffusion,
        ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"],
    ),
    (
        FamilyKind::StableDiffusionXl,
        ["StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"],
    ),
    (
        FamilyKind::StableDiffusion3,
        ["StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"],
    ),
    (FamilyKind::Flux, ["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"]),
];

/// Parts that judge or condition by a picture, and flags that are read elsewhere or only concern training; this pipeline
/// only draws, and judging is the gate's work.
const NOT_LOADED: &[&str] = &[
    "scheduler",
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "requires_safety_checker",
    "force_zeros_for_empty_prompt",
    "add_watermarker",
];

const CLIP: &[&str] = &["CLIPTextModel"];
const CLIP_PROJECTING: &[&str] = &["CLIPTextModelWithProjection"];
const T5: &[&str] = &["T5EncoderModel"];
const CLIP_TOKENIZER: &[&str] =
    &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];
const T5_TOKENIZER: &[&str] =
    &["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"];
const UNET: &[&str] = &["UNet2DConditionModel"];
const VAE: &[&str] = &["AutoencoderKL"];

/// A part of a pipeline, the classes of it that are implemented, and whether it may be missing.
type Part = (&'static str, &'static [&'static str], bool);

fn parts(kind: FamilyKind) -> &'static [Part] {
    match kind {
        FamilyKind::StableDiffusion => &[
            ("text_encoder", CLIP, false),
            ("tokenizer", CLIP_TOKENIZER, false),
            ("unet", UNET, false),
            ("vae", VAE, false),
        ],
        FamilyKind::StableDiffusionXl => &[
            ("text_encoder", CLIP, false),
            ("tokenizer", CLIP_TOKENIZER, false),
            ("text_encoder_2", CLIP_PROJECTING, false),
            ("tokenizer_2", CLIP_TOKENIZER, false),
            ("unet", UNET, false),
            ("vae", VAE, false),
        ],
        FamilyKind::StableDiffusion3 => &[
            ("text_encoder", CLIP_PROJECTING, false),
            ("tokenizer", CLIP_TOKENIZER, false),
            ("text_encoder_2", CLIP_PROJECTING, false),
            ("tokenizer_2", CLIP_TOKENIZER, false),
            ("text_encoder_3", T5, true),
            ("tokenizer_3", T5_TOKENIZER, true),
            ("transformer", &["SD3Transformer2DModel"], false),
            ("vae", VAE, false),
        ],
        FamilyKind::Flux => &[
            ("text_encoder", CLIP, false),
            ("tokenizer", CLIP_TOKENIZER, false),
            ("text_encoder_2", T5, false),
            ("tokenizer_2", T5_TOKENIZER, false),
            ("transformer", &["FluxTransformer2DModel"], false),
            ("vae", VAE, false),
        ],
    }
}

/// A checked `model_index.json`.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) kind: FamilyKind,
    path: String,
    entries: BTreeMap<String, Value>,
}

impl Index {
    /// Reads it, and refuses the one of another pipeline, or with other parts than those that are implemented.
    pub(crate) fn load(tree: &FileTree) -> Result<Self> {
        let path = tree.path_of("model_index.json");
        let entries: BTreeMap<String, Value> = tree.read_json("model_index.json")?;
        let class = entries.get("_class_name").and_then(Value::as_str).unwrap_or("absent").to_owned();
        let family = CLASSES.iter().find(|(_, classes)| classes.contains(&class.as_str()));
        let Some((kind, _)) = family else {
            let supported: Vec<&str> = CLASSES.iter().flat_map(|(_, classes)| *classes).collect();
            return Err(ModelError::unsupported(path, "`_class_name`", class, supported.join(", ")));
        };
        let index = Self { kind: *kind, path, entries };
        index.check(&class)?;
        Ok(index)
    }

    fn check(&self, class: &str) -> Result<()> {
        for (name, classes, optional) in parts(self.kind) {
            let found = self.class_of(name);
            if found.is_some_and(|found| classes.contains(&found)) || (found.is_none() && *optional) {
                continue;
            }
            let (found, supported) = (found.unwrap_or("absent"), classes.join(", "));
            return Err(ModelError::unsupported(&self.path, format!("`{name}`"), found, supported));
        }
        for (name, value) in &self.entries {
            let known = name.starts_with('_')
                || NOT_LOADED.contains(&name.as_str())
                || parts(self.kind).iter().any(|(part, ..)| part == name);
            let empty = value.as_array().is_some_and(|pair| pair.iter().all(Value::is_null));
            if !known && !empty && !value.is_null() && *value != Value::Bool(false) {
                let supported = format!("the parts of a {class}");
                return Err(ModelError::unsupported(&self.path, format!("part `{name}`"), value, supported));
            }
        }
        Ok(())
    }

    /// The class of a part, if the index has it.
    pub(crate) fn class_of(&self, part: &str) -> Option<&str> {
        self.entries.get(part)?.get(1)?.as_str()
    }

    /// A flag, or its default in diffusers if it is absent.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.entries.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(found) => {
                Err(ModelError::unsupported(&self.path, format!("`{name}`"), found, "true or false"))
            }
        }
    }
}
