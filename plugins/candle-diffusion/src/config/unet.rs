//! `unet/config.json`: `UNet2DConditionModel` (diffusers 0.42.1, `models/unets/unet_2d_condition.py`).

use cluegate_models::{FileTree, ModelError};
use serde::Deserialize;

use super::{OtherOptions, PerLevel, Result, check_groups, check_options, ensure};

/// Options with one implemented value each, as JSON.
const FIXED: &[(&str, &[&str])] = &[
    ("act_fn", &["\"silu\"", "\"swish\""]),
    ("attention_type", &["\"default\""]),
    ("conv_in_kernel", &["3"]),
    ("conv_out_kernel", &["3"]),
    ("mid_block_scale_factor", &["1", "1.0"]),
    ("mid_block_type", &["\"UNetMidBlock2DCrossAttn\""]),
    ("resnet_out_scale_factor", &["1", "1.0"]),
    ("resnet_time_scale_shift", &["\"default\""]),
    ("time_embedding_type", &["\"positional\""]),
];

/// Options without effect here: dropout is for training, the attention is always computed in f32, and the last is
/// only read with another `addition_embed_type` than is implemented.
const IGNORED: &[&str] = &["dropout", "upcast_attention", "addition_embed_type_num_heads"];

/// The file as it is; defaults are those of diffusers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawUNet {
    sample_size: Option<PerLevel<usize>>,
    in_channels: usize,
    out_channels: usize,
    center_input_sample: bool,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: PerLevel<usize>,
    downsample_padding: usize,
    norm_num_groups: Option<usize>,
    norm_eps: f64,
    cross_attention_dim: PerLevel<usize>,
    transformer_layers_per_block: PerLevel<usize>,
    attention_head_dim: PerLevel<usize>,
    time_embedding_dim: Option<usize>,
    use_linear_projection: bool,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    #[serde(flatten)]
    other: OtherOptions,
}

impl Default for RawUNet {
    fn default() -> Self {
        let types = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let cross = "CrossAttnDownBlock2D";
        let cross_up = "CrossAttnUpBlock2D";
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: types([cross, cross, cross, "DownBlock2D"]),
            up_block_types: types(["UpBlock2D", cross_up, cross_up, cross_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerLevel::One(2),
            downsample_padding: 1,
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerLevel::One(1280),
            transformer_layers_per_block: PerLevel::One(1),
            attention_head_dim: PerLevel::One(8),
            time_embedding_dim: None,
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            other: OtherOptions::new(),
        }
    }
}

/// One resolution of the UNet, on its way down and up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UNetLevel {
    /// Channels.
    pub channels: usize,
    /// Residual blocks on the way down; the way up has one more.
    pub layers: usize,
    /// Attention heads. In the file this is `attention_head_dim`: diffusers keeps the old name for what has always
    /// been the number of heads.
    pub heads: usize,
    /// Transformer blocks after each residual block, where there is attention.
    pub transformer_layers: usize,
    /// Whether the way down attends to the text at this level.
    pub attends_down: bool,
    /// Whether the way up attends to the text at this level.
    pub attends_up: bool,
}

/// A checked UNet configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetConfig {
    /// Side or (height, width) of the latents that the model was trained on, if the file says so.
    pub sample_size: Option<(usize, usize)>,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Whether the input is mapped from 0..1 to -1..1 first.
    pub center_input_sample: bool,
    /// Whether the time embedding holds cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Shift of the time embedding's frequencies.
    pub freq_shift: f64,
    /// Width of the time embedding.
    pub time_embedding_dim: usize,
    /// From the highest resolution to the lowest; at least one.
    pub levels: Vec<UNetLevel>,
    /// Padding of the downsampling convolutions: 1, or 0 for one pixel right and below.
    pub downsample_padding: usize,
    /// Groups of every group norm.
    pub norm_groups: usize,
    /// Epsilon of the group norms in residual blocks.
    pub norm_eps: f64,
    /// Width of the text encoder's states.
    pub cross_attention_dim: usize,
    /// Whether the projections around the transformer blocks are stored as linear layers, not 1x1 convolutions.
    pub linear_projection: bool,
    /// What the time embedding is added to, in SDXL.
    pub added: Option<AddedConfig>,
}

/// SDXL's added conditioning (`addition_embed_type` `text_time`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedConfig {
    /// Sines and cosines for each of the six sizes.
    pub time_width: usize,
    /// Width of pooled text and sizes together.
    pub input: usize,
}

impl AddedConfig {
    /// Sizes that a picture is described by.
    pub const SIZES: usize = 6;

    /// Width of the pooled text.
    pub fn pooled_width(self) -> usize {
        self.input - Self::SIZES * self.time_width
    }
}

impl UNetConfig {
    /// Reads and checks `config.json` of the UNet's folder.
    ///
    /// # Errors
    /// `MissingFile`, `Malformed`, `Unsupported`.
    pub fn load(tree: &FileTree) -> Result<Self> {
        Self::build(tree.read_json("config.json")?, &tree.path_of("config.json"))
    }

    fn build(raw: RawUNet, path: &str) -> Result<Self> {
        check_options(path, &raw.other, FIXED, IGNORED)?;
        let groups = raw.norm_num_groups.ok_or_else(|| {
            ModelError::unsupported(path, "`norm_num_groups`", "null", "a number of groups")
        })?;
        let levels = levels(&raw, path)?;
        for level in &levels {
            check_groups(path, level.channels, groups)?;
            ensure(level.heads > 0 && level.channels.is_multiple_of(level.heads), path, || {
                format!(
                    "`attention_head_dim` {} (the number of heads) does not divide {} channels",
                    level.heads, level.channels
                )
            })?;
            ensure(level.layers > 0, path, || "`layers_per_block` is 0, expected at least 1".to_owned())?;
        }
        let cross = raw.cross_attention_dim.expand(path, "cross_attention_dim", levels.len())?;
        if cross.iter().any(|dim| *dim != cross[0]) {
            let found = format!("{cross:?}");
            return Err(ModelError::unsupported(
                path,
                "`cross_attention_dim`",
                found,
                "the same for all levels",
            ));
        }
        if raw.downsample_padding > 1 {
            let found = raw.downsample_padding;
            return Err(ModelError::unsupported(path, "`downsample_padding`", found, "0 or 1"));
        }
        Ok(Self {
            sample_size: match &raw.sample_size {
                None => None,
                Some(size) => size.expand(path, "sample_size", 2).map(|s| Some((s[0], s[1])))?,
            },
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            center_input_sample: raw.center_input_sample,
            flip_sin_to_cos: raw.flip_sin_to_cos,
            freq_shift: raw.freq_shift,
            time_embedding_dim: raw.time_embedding_dim.unwrap_or(levels[0].channels * 4),
            cross_attention_dim: cross[0],
            levels,
            downsample_padding: raw.downsample_padding,
            norm_groups: groups,
            norm_eps: raw.norm_eps,
            linear_projection: raw.use_linear_projection,
            added: added(&raw, path)?,
        })
    }

    /// By how much the way down divides height and width of the latents.
    pub fn downscale(&self) -> usize {
        1 << (self.levels.len() - 1)
    }
}

fn added(raw: &RawUNet, path: &str) -> Result<Option<AddedConfig>> {
    let sizes = (raw.addition_time_embed_dim, raw.projection_class_embeddings_input_dim);
    match (raw.addition_embed_type.as_deref(), sizes) {
        (None, (None, None)) => Ok(None),
        (Some("text_time"), (Some(time_width), Some(input))) if input > AddedConfig::SIZES * time_width => {
            Ok(Some(AddedConfig { time_width, input }))
        }
        (None | Some("text_time"), (time_width, input)) => Err(ModelError::malformed(
            path,
            format!(
                "`addition_embed_type` text_time needs `projection_class_embeddings_input_dim`, over six times \
                 `addition_time_embed_dim`; without it both are null; found {input:?} and {time_width:?}"
            ),
        )),
        (Some(found), _) => {
            Err(ModelError::unsupported(path, "`addition_embed_type`", found, "null or \"text_time\""))
        }
    }
}

fn levels(raw: &RawUNet, path: &str) -> Result<Vec<UNetLevel>> {
    let n = raw.block_out_channels.len();
    ensure((1..=8).contains(&n), path, || format!("`block_out_channels` has {n} values, expected 1 to 8"))?;
    ensure(raw.down_block_types.len() == n && raw.up_block_types.len() == n, path, || {
        format!(
            "{} `down_block_types` and {} `up_block_types` for {n} `block_out_channels`",
            raw.down_block_types.len(),
            raw.up_block_types.len()
        )
    })?;
    let layers = raw.layers_per_block.expand(path, "layers_per_block", n)?;
    let heads = raw.attention_head_dim.expand(path, "attention_head_dim", n)?;
    let depth = raw.transformer_layers_per_block.expand(path, "transformer_layers_per_block", n)?;
    (0..n)
        .map(|i| {
            Ok(UNetLevel {
                channels: raw.block_out_channels[i],
                layers: layers[i],
                heads: heads[i],
                transformer_layers: depth[i],
                attends_down: attends(
                    path,
                    "down_block_types",
                    &raw.down_block_types[i],
                    ("DownBlock2D", "CrossAttnDownBlock2D"),
                )?,
                // The list starts at the lowest resolution.
                attends_up: attends(
                    path,
                    "up_block_types",
                    &raw.up_block_types[n - 1 - i],
                    ("UpBlock2D", "CrossAttnUpBlock2D"),
                )?,
            })
        })
        .collect()
}

fn attends(path: &str, key: &str, found: &str, (plain, attending): (&str, &str)) -> Result<bool> {
    if found == plain {
        Ok(false)
    } else if found == attending {
        Ok(true)
    } else {
        Err(ModelError::unsupported(
            path,
            format!("a block of `{key}`"),
            found,
            format!("{plain}, {attending}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(json: &str) -> Result<UNetConfig> {
        UNetConfig::build(serde_json::from_str(json).unwrap(), "unet/config.json")
    }

    #[test]
    fn an_empty_file_means_stable_diffusion_defaults() {
        let config = build("{}").unwrap();
        assert_eq!(config.levels.iter().map(|l| l.channels).collect::<Vec<_>>(), [320, 640, 1280, 1280]);
        assert_eq!(
            config.levels.iter().map(|l| l.attends_down).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert_eq!(config.levels.iter().map(|l| l.attends_up).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(config.levels.iter().all(|l| l.heads == 8 && l.layers == 2));
        assert_eq!(config.time_embedding_dim, 1280);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (json, word) in [
            (r#"{"class_embed_type": "timestep"}"#, "class_embed_type"),
            (r#"{"dual_cross_attention": true}"#, "dual_cross_attention"),
            (r#"{"addition_embed_type": "text_image"}"#, "addition_embed_type"),
            (r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#, "mid_block_type"),
            (r#"{"act_fn": "gelu"}"#, "act_fn"),
            (r#"{"something_of_next_year": 3}"#, "something_of_next_year"),
            (r#"{"cross_attention_dim": [1, 2, 3, 4]}"#, "cross_attention_dim"),
            (
                r#"{"up_block_types": ["UpBlock2D", "UpBlock2D", "SkipUpBlock2D", "UpBlock2D"]}"#,
                "SkipUpBlock2D",
            ),
        ] {
            let error = build(json).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("unet/config.json"), "{error}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_malformed() {
        for (json, word) in [
            (r#"{"norm_num_groups": 7}"#, "norm_num_groups"),
            (r#"{"addition_embed_type": "text_time"}"#, "addition_time_embed_dim"),
            (
                r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 1536}"#,
                "projection_class_embeddings_input_dim",
            ),
            (r#"{"attention_head_dim": [5, 10]}"#, "attention_head_dim"),
            (r#"{"attention_head_dim": 0}"#, "heads"),
            (r#"{"block_out_channels": []}"#, "block_out_channels"),
            (r#"{"down_block_types": ["DownBlock2D"]}"#, "down_block_types"),
        ] {
            let error = build(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn options_of_null_and_false_pass() {
        assert!(build(r#"{"class_embed_type": null, "something_of_next_year": false, "_x": 1}"#).is_ok());
    }
}
