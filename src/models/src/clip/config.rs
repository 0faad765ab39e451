//! `config.json` of CLIP, OWLv2 and SigLIP, and of their towers on their own.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::encoder::EncoderConfig;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::layers::Activation;

/// Families that differ in what their configuration classes hold for absent fields (transformers 5.17,
/// `configuration_clip.py`, `configuration_owlv2.py`, `configuration_siglip.py`, `configuration_idefics3.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Clip,
    Owlv2,
    Siglip,
    /// The vision tower of Idefics3 and SmolVLM.
    Idefics3,
}

/// What a family's towers are where their fields are absent.
struct Defaults {
    hidden_act: &'static str,
    epsilon: f64,
    /// Width, width inside the feed-forward blocks, heads.
    text: [usize; 3],
    vision: [usize; 3],
    vocab_size: usize,
    positions: usize,
    image_size: usize,
    patch_size: usize,
    /// Whether pixels that fill no patch are cut off, as published SigLIP checkpoints have it (384 is no multiple of 14).
    cuts: bool,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::Owlv2 => "owlv2",
            Self::Siglip => "siglip",
            Self::Idefics3 => "idefics3",
        }
    }

    fn defaults(self) -> Defaults {
        let clip = Defaults {
            hidden_act: "quick_gelu",
            epsilon: 1e-5,
            text: [512, 2048, 8],
            vision: [768, 3072, 12],
            vocab_size: 49_408,
            positions: 77,
            image_size: 224,
            patch_size: 32,
            cuts: false,
        };
        let siglip = Defaults {
            hidden_act: "gelu_pytorch_tanh",
            epsilon: 1e-6,
            text: [768, 3072, 12],
            vocab_size: 32_000,
            positions: 64,
            patch_size: 16,
            cuts: true,
            ..clip
        };
        match self {
            Self::Clip => clip,
            Self::Owlv2 => Defaults { positions: 16, image_size: 768, patch_size: 16, ..clip },
            Self::Siglip => siglip,
            Self::Idefics3 => Defaults { vision: [1152, 3072, 16], patch_size: 32, ..siglip },
        }
    }
}

/// A text tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Measures of the encoder.
    pub encoder: EncoderConfig,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Most tokens of a text, the beginning and end tokens included.
    pub max_position_embeddings: usize,
    /// Ids of the end token. The value 2 alone marks checkpoints from before transformers' pull request 24773, whose
    /// end token is the one with the highest id.
    pub eos_token_ids: Vec<u32>,
    /// Width of the text projection of a tower on its own.
    pub projection_dim: usize,
}

/// A vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Measures of the encoder.
    pub encoder: EncoderConfig,
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Side of a square patch, in pixels. Where it does not divide `image_size` the rest is not looked at.
    pub patch_size: usize,
}

impl VisionConfig {
    /// Patches along one side.
    pub fn patches_per_side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// Two towers and the width of their common space.
#[derive(Debug, Clone, PartialEq)]
pub struct DualConfig {
    /// The text tower.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Width of the common space.
    pub projection_dim: usize,
}

impl DualConfig {
    /// Reads `config.json` of a `CLIPModel`. The towers' fields are those of `text_config` and `vision_config`, or of
    /// the older `text_config_dict` and `vision_config_dict` where these are present. Absent fields have the defaults
    /// of the reference, and fields that do not change the computation are ignored.
    ///
    /// # Errors
    /// A missing or malformed file, another `model_type`, or values that do not fit together.
    pub fn load_clip(tree: &FileTree) -> Result<Self> {
        Self::load(tree, Family::Clip)
    }

    /// Like [`Self::load_clip`] for an `Owlv2ForObjectDetection`.
    ///
    /// # Errors
    /// As [`Self::load_clip`].
    pub fn load_owlv2(tree: &FileTree) -> Result<Self> {
        Self::load(tree, Family::Owlv2)
    }

    /// Like [`Self::load_clip`] for a `SiglipModel`, whose common space is as wide as the vision tower.
    ///
    /// # Errors
    /// As [`Self::load_clip`]; towers whose features are not of one width.
    pub fn load_siglip(tree: &FileTree) -> Result<Self> {
        let mut config = Self::load(tree, Family::Siglip)?;
        let (text, vision) = (config.text.projection_dim, config.vision.encoder.hidden_size);
        if text != vision {
            let detail = format!("the text tower's features have width {text}, the vision tower's {vision}");
            return Err(ModelError::malformed(tree.path_of(CONFIG), detail));
        }
        config.projection_dim = vision;
        Ok(config)
    }

    fn load(tree: &FileTree, family: Family) -> Result<Self> {
        let source = Source { path: tree.path_of(CONFIG), family };
        let fields: Map<String, Value> = tree.read_json(CONFIG)?;
        if let Some(found) = fields.get("model_type").and_then(Value::as_str)
            && found != family.name()
        {
            return Err(ModelError::unsupported(source.path, "`model_type`", found, family.name()));
        }
        let projection_dim = match fields.get("projection_dim") {
            None => 512,
            Some(value) => source.parse(value.clone(), "projection_dim")?,
        };
        source.positive(projection_dim, "projection_dim")?;
        Ok(Self {
            text: source.text(source.tower(&fields, "text_config")?, "text_config")?,
            vision: source.vision(source.tower(&fields, "vision_config")?, "vision_config")?,
            projection_dim,
        })
    }
}

impl TextConfig {
    /// Reads `config.json` of a text tower on its own (`CLIPTextModel`, as in Stable Diffusion), whose fields lie
    /// flat in the file, or the `text_config` of a whole `CLIPModel`.
    ///
    /// # Errors
    /// As [`DualConfig::load_clip`].
    pub fn load(tree: &FileTree) -> Result<Self> {
        let source = Source { path: tree.path_of(CONFIG), family: Family::Clip };
        let fields: Map<String, Value> = tree.read_json(CONFIG)?;
        let fields = source.flat_or_nested(fields, "text_config", "clip_text_model")?;
        source.text(fields, "the text tower")
    }
}

impl VisionConfig {
    /// Reads `config.json` of a vision tower on its own (`CLIPVisionModel`), whose fields lie flat in the file, or
    /// the `vision_config` of a whole `CLIPModel`.
    ///
    /// # Errors
    /// As [`DualConfig::load_clip`].
    pub fn load(tree: &FileTree) -> Result<Self> {
        let source = Source { path: tree.path_of(CONFIG), family: Family::Clip };
        let fields: Map<String, Value> = tree.read_json(CONFIG)?;
        let fields = source.flat_or_nested(fields, "vision_config", "clip_vision_model")?;
        source.vision(fields, "the vision tower")
    }

    /// From the fields of a `vision_config` in the file `path`.
    pub(crate) fn read(path: &str, family: Family, fields: Map<String, Value>) -> Result<Self> {
        Source { path: path.to_owned(), family }.vision(fields, "vision_config")
    }
}

const CONFIG: &str = "config.json";

/// Fields that both kinds of tower have.
#[derive(Deserialize)]
struct RawEncoder {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
}

#[derive(Deserialize)]
struct RawText {
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    eos_token_id: Option<OneOrMany<u32>>,
    projection_dim: Option<usize>,
    /// SigLIP's name for it.
    projection_size: Option<usize>,
}

#[derive(Deserialize)]
struct RawVision {
    num_channels: Option<usize>,
    image_size: Option<OneOrMany<usize>>,
    patch_size: Option<OneOrMany<usize>>,
    vision_use_head: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// The file that is being read, for messages and defaults.
struct Source {
    path: String,
    family: Family,
}

impl Source {
    fn parse<T: serde::de::DeserializeOwned>(&self, value: Value, what: &str) -> Result<T> {
        serde_json::from_value(value)
            .map_err(|error| ModelError::malformed(&self.path, format!("`{what}`: {error}")))
    }

    /// The fields of a nested tower. The older `..._dict`, where there is one, replaces the newer object whole: what
    /// it does not name has the reference's default, even if the newer object names it (`CLIPConfig.__post_init__`).
    fn tower(&self, fields: &Map<String, Value>, name: &str) -> Result<Map<String, Value>> {
        for name in [format!("{name}_dict"), name.to_owned()] {
            match fields.get(&name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(own)) => return Ok(own.clone()),
                Some(other) => {
                    let detail = format!("`{name}`: expected an object, got {other}");
                    return Err(ModelError::malformed(&self.path, detail));
                }
            }
        }
        Ok(Map::new())
    }

    fn flat_or_nested(
        &self,
        fields: Map<String, Value>,
        nested: &str,
        model_type: &str,
    ) -> Result<Map<String, Value>> {
        match fields.get("model_type").and_then(Value::as_str) {
            Some("clip") => self.tower(&fields, nested),
            Some(found) if found != model_type => {
                let supported = format!("{model_type}, clip");
                Err(ModelError::unsupported(&self.path, "`model_type`", found, supported))
            }
            _ if fields.contains_key(nested) => self.tower(&fields, nested),
            _ => Ok(fields),
        }
    }

    fn positive(&self, value: usize, what: &str) -> Result<()> {
        if value > 0 {
            return Ok(());
        }
        Err(ModelError::malformed(&self.path, format!("`{what}` is 0, expected at least 1")))
    }

    fn encoder(
        &self,
        fields: &Map<String, Value>,
        tower: &str,
        defaults: [usize; 3],
    ) -> Result<EncoderConfig> {
        let raw: RawEncoder = self.parse(Value::Object(fields.clone()), tower)?;
        let [hidden_size, intermediate_size, num_attention_heads] = defaults;
        let family = self.family.defaults();
        let act = raw.hidden_act.as_deref().unwrap_or(family.hidden_act);
        let Some(hidden_act) = Activation::from_name(act) else {
            let what = format!("`hidden_act` of {tower}");
            return Err(ModelError::unsupported(&self.path, what, act, Activation::NAMES));
        };
        let config = EncoderConfig {
            hidden_size: raw.hidden_size.unwrap_or(hidden_size),
            intermediate_size: raw.intermediate_size.unwrap_or(intermediate_size),
            num_hidden_layers: raw.num_hidden_layers.unwrap_or(12),
            num_attention_heads: raw.num_attention_heads.unwrap_or(num_attention_heads),
            hidden_act,
            layer_norm_eps: raw.layer_norm_eps.unwrap_or(family.epsilon),
        };
        for (value, name) in [
            (config.hidden_size, "hidden_size"),
            (config.intermediate_size, "intermediate_size"),
            (config.num_attention_heads, "num_attention_heads"),
        ] {
            self.positive(value, &format!("{tower}.{name}"))?;
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let detail = format!(
                "{tower}: `hidden_size` is {}, no multiple of `num_attention_heads`, {}",
                config.hidden_size, config.num_attention_heads
            );
            return Err(ModelError::malformed(&self.path, detail));
        }
        Ok(config)
    }

    fn text(&self, fields: Map<String, Value>, tower: &str) -> Result<TextConfig> {
        let defaults = self.family.defaults();
        let encoder = self.encoder(&fields, tower, defaults.text)?;
        let raw: RawText = self.parse(Value::Object(fields), tower)?;
        let projection_dim = match self.family {
            Family::Siglip => raw.projection_size.unwrap_or(encoder.hidden_size),
            _ => raw.projection_dim.unwrap_or(512),
        };
        let config = TextConfig {
            encoder,
            vocab_size: raw.vocab_size.unwrap_or(defaults.vocab_size),
            max_position_embeddings: raw.max_position_embeddings.unwrap_or(defaults.positions),
            eos_token_ids: raw.eos_token_id.map_or_else(|| vec![49_407], OneOrMany::into_vec),
            projection_dim,
        };
        self.positive(config.vocab_size, &format!("{tower}.vocab_size"))?;
        self.positive(config.projection_dim, &format!("{tower}.projection_dim"))?;
        if config.max_position_embeddings < 3 {
            let detail = format!(
                "{tower}: `max_position_embeddings` is {}, expected at least 3: a word between two marks",
                config.max_position_embeddings
            );
            return Err(ModelError::malformed(&self.path, detail));
        }
        Ok(config)
    }

    fn vision(&self, fields: Map<String, Value>, tower: &str) -> Result<VisionConfig> {
        let defaults = self.family.defaults();
        let encoder = self.encoder(&fields, tower, defaults.vision)?;
        let raw: RawVision = self.parse(Value::Object(fields), tower)?;
        if let Some(channels) = raw.num_channels.filter(|channels| *channels != 3) {
            let what = format!("`num_channels` of {tower}");
            return Err(ModelError::unsupported(&self.path, what, channels, "3"));
        }
        if raw.vision_use_head == Some(false) && self.family == Family::Siglip {
            let what = format!("`vision_use_head` of {tower}");
            return Err(ModelError::unsupported(&self.path, what, "false", "true"));
        }
        let image_size =
            self.side(raw.image_size, defaults.image_size, &format!("`image_size` of {tower}"))?;
        let patch_size =
            self.side(raw.patch_size, defaults.patch_size, &format!("`patch_size` of {tower}"))?;
        if image_size < patch_size || !(defaults.cuts || image_size.is_multiple_of(patch_size)) {
            let detail =
                format!("{tower}: `image_size` {image_size} is no multiple of `patch_size` {patch_size}");
            return Err(ModelError::malformed(&self.path, detail));
        }
        Ok(VisionConfig { encoder, image_size, patch_size })
    }

    /// A side that may be written once or as height and width.
    fn side(&self, raw: Option<OneOrMany<usize>>, default: usize, what: &str) -> Result<usize> {
        let sides = raw.map_or_else(|| vec![default], OneOrMany::into_vec);
        match sides[..] {
            [side] | [side, _] if side > 0 && sides.iter().all(|other| *other == side) => Ok(side),
            _ => Err(ModelError::unsupported(
                &self.path,
                what,
                format!("{sides:?}"),
                "a square of at least 1 px",
            )),
        }
    }
}
