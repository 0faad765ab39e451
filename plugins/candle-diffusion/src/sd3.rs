//! The denoiser of Stable Diffusion 3 and 3.5: `SD3Transformer2DModel` (diffusers 0.42.1,
//! `models/transformers/transformer_sd3.py`, `JointTransformerBlock` of `models/attention.py`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::Sd3Config;
use crate::nn::{
    FeedForward, FinalNorm, Linear, Modulation, PICTURE, Projections, TEXT, TimeText, add_gated,
    attend_jointly, modulate, normalise, to_patches,
};

type Result<T> = std::result::Result<T, ModelError>;

/// How the text goes through a block.
#[derive(Debug)]
enum TextStream {
    Whole {
        norm: Modulation,
        out: Linear,
        feed_forward: FeedForward,
    },
    /// In the last block, which only the picture leaves.
    AttendedOnly(FinalNorm),
}

/// The picture's attention to itself alone, in the blocks that have it.
#[derive(Debug)]
struct SelfAttention {
    projections: Projections,
    out: Linear,
}

/// Attention of picture and text together, and a feed-forward block for each.
#[derive(Debug)]
struct Block {
    norm: Modulation,
    picture: Projections,
    text: Projections,
    out: Linear,
    itself: Option<SelfAttention>,
    feed_forward: FeedForward,
    text_stream: TextStream,
    heads: usize,
}

impl Block {
    fn load(vb: &VarBuilder, config: &Sd3Config, index: usize) -> candle_core::Result<Self> {
        let (width, shape) = (config.width, (config.width, config.heads));
        let dual = config.dual_layers.contains(&index);
        let attention = vb.pp("attn");
        let projections = |vb: &VarBuilder, names| Projections::load(vb, names, shape, config.qk_norm);
        let text_stream = if index + 1 == config.layers {
            TextStream::AttendedOnly(FinalNorm::load(&vb.pp("norm1_context"), width)?)
        } else {
            TextStream::Whole {
                norm: Modulation::load(&vb.pp("norm1_context"), width, 6)?,
                out: Linear::load(&attention.pp("to_add_out"), width, width)?,
                feed_forward: FeedForward::load(&vb.pp("ff_context"), width)?,
            }
        };
        let itself = dual.then(|| -> candle_core::Result<SelfAttention> {
            let vb = vb.pp("attn2");
            let out = Linear::load(&vb.pp("to_out.0"), width, width)?;
            Ok(SelfAttention { projections: projections(&vb, PICTURE)?, out })
        });
        Ok(Self {
            norm: Modulation::load(&vb.pp("norm1"), width, if dual { 9 } else { 6 })?,
            picture: projections(&attention, PICTURE)?,
            text: projections(&attention, TEXT)?,
            out: Linear::load(&attention.pp("to_out.0"), width, width)?,
            itself: itself.transpose()?,
            feed_forward: FeedForward::load(&vb.pp("ff"), width)?,
            text_stream,
            heads: config.heads,
        })
    }

    /// Picture and text after the block.
    fn forward(
        &self,
        x: &Tensor,
        text: &Tensor,
        conditioning: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let plain = normalise(x)?;
        let (parts, second) = match &self.itself {
            None => (self.norm.forward::<6>(conditioning)?, None),
            Some(itself) => {
                let [a, b, c, d, e, f, shift, scale, gate] = self.norm.forward::<9>(conditioning)?;
                let alone = itself.projections.forward(&modulate(&plain, &shift, &scale)?)?;
                ([a, b, c, d, e, f], Some((itself, alone, gate)))
            }
        };
        let [shift, scale, gate, feed_shift, feed_scale, feed_gate] = parts;
        let (normed_text, text_parts) = match &self.text_stream {
            TextStream::AttendedOnly(norm) => (norm.forward(text, conditioning)?, None),
            TextStream::Whole { norm, out, feed_forward } => {
                let [shift, scale, rest @ ..] = norm.forward::<6>(conditioning)?;
                (modulate(&normalise(text)?, &shift, &scale)?, Some((rest, out, feed_forward)))
            }
        };
        let streams =
            [self.text.forward(&normed_text)?, self.picture.forward(&modulate(&plain, &shift, &scale)?)?];
        let attended = attend_jointly(&streams, self.heads, None)?;
        let tokens = text.dim(1)?;
        let of_picture = attended.narrow(1, tokens, attended.dim(1)? - tokens)?;
        let mut x = add_gated(x, &gate, &self.out.forward(&of_picture)?)?;
        if let Some((itself, alone, gate)) = second {
            let attended = attend_jointly(&[alone], self.heads, None)?;
            x = add_gated(&x, &gate, &itself.out.forward(&attended)?)?;
        }
        let hidden = self.feed_forward.forward(&modulate(&normalise(&x)?, &feed_shift, &feed_scale)?)?;
        let x = add_gated(&x, &feed_gate, &hidden)?;
        let Some(([gate, feed_shift, feed_scale, feed_gate], out, feed_forward)) = text_parts else {
            return Ok((x, text.clone()));
        };
        let text = add_gated(text, &gate, &out.forward(&attended.narrow(1, 0, tokens)?)?)?;
        let hidden = feed_forward.forward(&modulate(&normalise(&text)?, &feed_shift, &feed_scale)?)?;
        Ok((x, add_gated(&text, &feed_gate, &hidden)?))
    }
}

/// A loaded transformer of Stable Diffusion 3.
#[derive(Debug)]
pub struct Sd3Transformer {
    config: Sd3Config,
    dtype: DType,
    patches: Linear,
    /// `(1, max_patches * max_patches, width)`.
    positions: Tensor,
    time_text: TimeText,
    text: Linear,
    blocks: Vec<Block>,
    norm_out: FinalNorm,
    out: Linear,
}

impl Sd3Transformer {
    /// Loads the folder `transformer`: `config.json` and `diffusion_pytorch_model.safetensors`, sharded or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, dtype: DType, device: &Device) -> Result<Self> {
        let config = Sd3Config::load(tree)?;
        let weights = Weights::load(tree, "diffusion_pytorch_model", dtype, device)?;
        let transformer = Self::from_builder(config, &weights.builder())?;
        weights.refuse_unused(&[])?;
        Ok(transformer)
    }

    fn from_builder(config: Sd3Config, vb: &VarBuilder<'static>) -> Result<Self> {
        let (width, patch) = (config.width, config.patch);
        let places = config.max_patches * config.max_patches;
        Ok(Self {
            dtype: vb.dtype(),
            patches: Linear::load_patches(&vb.pp("pos_embed.proj"), (config.channels, patch), width)?,
            positions: vb.get((1, places, width), "pos_embed.pos_embed")?,
            time_text: TimeText::load(&vb.pp("time_text_embed"), config.pooled_width, width, false)?,
            text: Linear::load(&vb.pp("context_embedder"), config.text_width, width)?,
            blocks: (0..config.layers)
                .map(|i| Block::load(&vb.pp(format!("transformer_blocks.{i}")), &config, i))
                .collect::<candle_core::Result<_>>()?,
            norm_out: FinalNorm::load(&vb.pp("norm_out"), width)?,
            out: Linear::load(&vb.pp("proj_out"), width, patch * patch * config.channels)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// The prediction, f32, for `sample` `(batch, channels, height, width)` at `timestep` (0 to 1000), given the text
    /// encoders' states `text` `(batch, tokens, text_width)` and `pooled` `(batch, pooled_width)`.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that do not fit.
    pub fn forward(&self, sample: &Tensor, timestep: f64, text: &Tensor, pooled: &Tensor) -> Result<Tensor> {
        self.run(sample, timestep, text, pooled).map_err(|e| ModelError::from(e).at("the transformer"))
    }

    fn run(
        &self,
        sample: &Tensor,
        timestep: f64,
        text: &Tensor,
        pooled: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let (batch, channels, height, width) = sample.dims4()?;
        let patch = self.config.patch;
        let (rows, columns) = (height / patch, width / patch);
        let tokens = self.patches.forward(&to_patches(&sample.to_dtype(self.dtype)?, patch)?)?;
        let mut x = tokens.broadcast_add(&self.places(rows, columns)?)?;
        let conditioning = self.time_text.forward(timestep, &pooled.to_dtype(self.dtype)?, 0.0)?;
        let mut text = self.text.forward(&text.to_dtype(self.dtype)?)?;
        for block in &self.blocks {
            (x, text) = block.forward(&x, &text, &conditioning)?;
        }
        let out = self.out.forward(&self.norm_out.forward(&x, &conditioning)?)?;
        // Unlike on the way in, a patch's channels come last.
        out.reshape(&[batch, rows, columns, patch, patch, channels])?
            .permute([0, 5, 1, 3, 2, 4])?
            .reshape((batch, channels, height, width))?
            .to_dtype(DType::F32)
    }

    /// The middle of the table of positions.
    fn places(&self, rows: usize, columns: usize) -> candle_core::Result<Tensor> {
        let (most, width) = (self.config.max_patches, self.config.width);
        if rows > most || columns > most {
            candle_core::bail!("expected at most {most} x {most} patches, found {columns} x {rows}");
        }
        self.positions
            .reshape((most, most, width))?
            .narrow(0, (most - rows) / 2, rows)?
            .narrow(1, (most - columns) / 2, columns)?
            .reshape((1, rows * columns, width))
    }
}
