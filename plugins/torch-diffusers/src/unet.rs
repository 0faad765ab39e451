//! The denoiser: `UNet2DConditionModel` of diffusers-rs, told the sizes of `unet/config.json` (diffusers 0.42.1,
//! `models/unets/unet_2d_condition.py`).

use diffusers::models::unet_2d::{BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig};
use serde_json::{Value, json};
use tch::{Device, Tensor, nn};

use crate::error::{Result, TorchError};
use crate::files::{Files, Options};
use crate::weights;

const CONFIG: &str = "unet/config.json";

/// Options without effect here: dropout is for training, all is computed in 32 bits, and the last is only read together
/// with `addition_embed_type`.
const IGNORED: &[&str] = &["dropout", "upcast_attention", "addition_embed_type_num_heads"];

/// A loaded UNet.
pub(crate) struct UNet {
    model: UNet2DConditionModel,
    /// Width of the text encoder's states.
    pub(crate) cross_attention: i64,
    /// Channels of the latents.
    pub(crate) channels: i64,
    /// Latents of a picture of the size that the model was trained for: height and width.
    pub(crate) sample: Option<(i64, i64)>,
}

impl UNet {
    /// Loads the folder `unet`; with `sliced`, attention is computed head by head.
    pub(crate) fn load(files: &mut Files, sliced: bool) -> Result<Self> {
        let mut options = Options::read(files, CONFIG)?;
        let (channels, sample) = (options.count("in_channels", 4)?, sample_size(&mut options)?);
        options.only("out_channels", &Value::from(channels))?;
        let config = config(&mut options, sliced)?;
        for (key, value) in [
            ("act_fn", json!("silu")),
            ("attention_type", json!("default")),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("mid_block_scale_factor", json!(1)),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("resnet_out_scale_factor", json!(1)),
            ("resnet_time_scale_shift", json!("default")),
            ("time_embedding_type", json!("positional")),
            ("transformer_layers_per_block", json!(1)),
            ("time_embedding_dim", json!(4 * config.blocks[0].out_channels)),
        ] {
            options.only(key, &value)?;
        }
        options.finish(IGNORED)?;
        let cross_attention = config.cross_attention_dim;
        let mut store = nn::VarStore::new(Device::Cpu);
        let model = UNet2DConditionModel::new(store.root(), channels, channels, config);
        let rename = |name: &str| Some(name.to_owned());
        let source = weights::Source { folder: "unet", stem: "diffusion_pytorch_model", rename };
        weights::load(&mut store, files, &source)?;
        Ok(Self { model, cross_attention, channels, sample })
    }

    /// The prediction for latents `(batch, channels, height, width)` with the states `(batch, tokens, width)` of the text.
    pub(crate) fn forward(&self, latents: &Tensor, timestep: usize, text: &Tensor) -> Tensor {
        self.model.forward(latents, timestep as f64, text)
    }
}

fn sample_size(options: &mut Options) -> Result<Option<(i64, i64)>> {
    // 0 cannot be in the file: it says that nothing is.
    let size = options.counts("sample_size", &[0], Some(2))?;
    Ok((size[0] > 0).then_some((size[0], size[1])))
}

fn config(options: &mut Options, sliced: bool) -> Result<UNet2DConditionModelConfig> {
    let channels = options.counts("block_out_channels", &[320, 640, 1280, 1280], None)?;
    let heads = options.counts("attention_head_dim", &[8], Some(channels.len()))?;
    let groups = options.count("norm_num_groups", 32)?;
    let attends = attends(options, channels.len())?;
    for ((channels, heads), attends) in channels.iter().zip(&heads).zip(&attends) {
        check_groups(options, *channels, groups)?;
        if *attends && channels % heads != 0 {
            let problem = format!(
                "`attention_head_dim` {heads} (the number of heads) does not divide {channels} channels"
            );
            return Err(TorchError::malformed(&options.path, problem));
        }
    }
    let block = |((&out_channels, &attention_head_dim), &use_cross_attn)| BlockConfig {
        out_channels,
        use_cross_attn,
        attention_head_dim,
    };
    let layers = options.counts("layers_per_block", &[2], Some(channels.len()))?;
    let downsample_padding = options.number("downsample_padding", 1.0)?;
    if layers.iter().any(|&count| count != layers[0]) || ![0.0, 1.0].contains(&downsample_padding) {
        let found = format!("{layers:?} and {downsample_padding}");
        let expected = "one number of layers for all levels, and a padding of 0 or 1";
        return Err(TorchError::unsupported(
            &options.path,
            "`layers_per_block` and `downsample_padding`",
            found,
            expected,
        ));
    }
    Ok(UNet2DConditionModelConfig {
        center_input_sample: options.flag("center_input_sample", false)?,
        flip_sin_to_cos: options.flag("flip_sin_to_cos", true)?,
        freq_shift: options.number("freq_shift", 0.0)?,
        blocks: channels.iter().zip(&heads).zip(&attends).map(block).collect(),
        layers_per_block: layers[0],
        downsample_padding: downsample_padding as i64,
        mid_block_scale_factor: 1.0,
        norm_num_groups: groups,
        norm_eps: options.number("norm_eps", 1e-5)?,
        cross_attention_dim: options.count("cross_attention_dim", 1280)?,
        // Any number that does not divide batch times heads would leave some of them out.
        sliced_attention_size: sliced.then_some(1),
        use_linear_projection: options.flag("use_linear_projection", false)?,
    })
}

/// Which levels, from the highest resolution, attend to the text: the same on the way down and up.
fn attends(options: &mut Options, levels: usize) -> Result<Vec<bool>> {
    let down = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
    let up = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
    let down = options.words("down_block_types", &down)?;
    let up = options.words("up_block_types", &up)?;
    if down.len() != levels || up.len() != levels {
        let problem = format!(
            "{} `down_block_types` and {} `up_block_types` for {levels} `block_out_channels`",
            down.len(),
            up.len()
        );
        return Err(TorchError::malformed(&options.path, problem));
    }
    // The list of the way up starts at the lowest resolution.
    let pairs = down.iter().zip(up.iter().rev());
    pairs
        .map(|(down, up)| match (down.as_str(), up.as_str()) {
            ("DownBlock2D", "UpBlock2D") => Ok(false),
            ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D") => Ok(true),
            _ => Err(TorchError::unsupported(
                &options.path,
                "a level",
                format!("{down} with {up}"),
                "DownBlock2D with UpBlock2D, or CrossAttnDownBlock2D with CrossAttnUpBlock2D,",
            )),
        })
        .collect()
}

/// Refuses a number of channels that the groups of a group norm do not divide.
pub(crate) fn check_groups(options: &Options, channels: i64, groups: i64) -> Result<()> {
    if channels % groups == 0 {
        return Ok(());
    }
    let problem =
        format!("`norm_num_groups` {groups} does not divide the {channels} channels of `block_out_channels`");
    Err(TorchError::malformed(&options.path, problem))
}
