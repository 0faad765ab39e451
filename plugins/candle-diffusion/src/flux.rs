//! The denoiser of Flux: `FluxTransformer2DModel` (diffusers 0.42.1, `models/transformers/transformer_flux.py`).

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_models::{FileTree, ModelError, Weights};

use crate::config::FluxConfig;
use crate::nn::{
    FeedForward, FinalNorm, Linear, Modulation, PICTURE, Projected, Projections, Rope, TEXT, TimeText,
    add_gated, attend_jointly, from_patches, modulate, normalise, to_patches,
};

type Result<T> = std::result::Result<T, ModelError>;

/// One of the two streams of a double block.
#[derive(Debug)]
struct Stream {
    norm: Modulation,
    projections: Projections,
    out: Linear,
    feed_forward: FeedForward,
}

/// A stream on its way into the attention.
struct Entered {
    gates: [Tensor; 4],
    projected: Projected,
}

impl Stream {
    fn enter(&self, x: &Tensor, conditioning: &Tensor) -> candle_core::Result<Entered> {
        let [shift, scale, gates @ ..] = self.norm.forward::<6>(conditioning)?;
        let projected = self.projections.forward(&modulate(&normalise(x)?, &shift, &scale)?)?;
        Ok(Entered { gates, projected })
    }

    fn leave(&self, x: &Tensor, attended: &Tensor, gates: &[Tensor; 4]) -> candle_core::Result<Tensor> {
        let [gate, feed_shift, feed_scale, feed_gate] = gates;
        let x = add_gated(x, gate, &self.out.forward(attended)?)?;
        let hidden = self.feed_forward.forward(&modulate(&normalise(&x)?, feed_shift, feed_scale)?)?;
        add_gated(&x, feed_gate, &hidden)
    }
}

/// Picture and text attend together and have weights of their own.
#[derive(Debug)]
struct DoubleBlock {
    picture: Stream,
    text: Stream,
    heads: usize,
}

impl DoubleBlock {
    fn load(vb: &VarBuilder, config: &FluxConfig) -> candle_core::Result<Self> {
        let (width, attention) = (config.width, vb.pp("attn"));
        let stream = |end: &str, names, out: &str| -> candle_core::Result<Stream> {
            Ok(Stream {
                norm: Modulation::load(&vb.pp(format!("norm1{end}")), width, 6)?,
                projections: Projections::load(&attention, names, (width, config.heads), true)?,
                out: Linear::load(&attention.pp(out), width, width)?,
                feed_forward: FeedForward::load(&vb.pp(format!("ff{end}")), width)?,
            })
        };
        Ok(Self {
            picture: stream("", PICTURE, "to_out.0")?,
            text: stream("_context", TEXT, "to_add_out")?,
            heads: config.heads,
        })
    }

    fn forward(
        &self,
        (x, text): (&Tensor, &Tensor),
        conditioning: &Tensor,
        rope: &Rope,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (picture_in, text_in) =
            (self.picture.enter(x, conditioning)?, self.text.enter(text, conditioning)?);
        let streams = [text_in.projected, picture_in.projected];
        let attended = attend_jointly(&streams, self.heads, Some(rope))?;
        let tokens = text.dim(1)?;
        let of_picture = attended.narrow(1, tokens, attended.dim(1)? - tokens)?;
        let x = self.picture.leave(x, &of_picture, &picture_in.gates)?;
        let text = self.text.leave(text, &attended.narrow(1, 0, tokens)?, &text_in.gates)?;
        Ok((x, text))
    }
}

/// Attention and feed-forward side by side over all tokens.
#[derive(Debug)]
struct SingleBlock {
    norm: Modulation,
    projections: Projections,
    expand: Linear,
    out: Linear,
    heads: usize,
}

impl SingleBlock {
    fn load(vb: &VarBuilder, config: &FluxConfig) -> candle_core::Result<Self> {
        /// Widening of the feed-forward part; fixed in diffusers.
        const WIDENING: usize = 4;
        let width = config.width;
        Ok(Self {
            norm: Modulation::load(&vb.pp("norm"), width, 3)?,
            projections: Projections::load(&vb.pp("attn"), PICTURE, (width, config.heads), true)?,
            expand: Linear::load(&vb.pp("proj_mlp"), width, WIDENING * width)?,
            out: Linear::load(&vb.pp("proj_out"), (1 + WIDENING) * width, width)?,
            heads: config.heads,
        })
    }

    fn forward(&self, x: &Tensor, conditioning: &Tensor, rope: &Rope) -> candle_core::Result<Tensor> {
        let [shift, scale, gate] = self.norm.forward(conditioning)?;
        let normed = modulate(&normalise(x)?, &shift, &scale)?;
        let attended = attend_jointly(&[self.projections.forward(&normed)?], self.heads, Some(rope))?;
        let hidden = self.expand.forward(&normed)?.gelu()?;
        add_gated(x, &gate, &self.out.forward(&Tensor::cat(&[&attended, &hidden], 2)?)?)
    }
}

/// A loaded transformer of Flux.
#[derive(Debug)]
pub struct FluxTransformer {
    config: FluxConfig,
    dtype: DType,
    time_text: TimeText,
    text: Linear,
    picture: Linear,
    double: Vec<DoubleBlock>,
    single: Vec<SingleBlock>,
    norm_out: FinalNorm,
    out: Linear,
}

impl FluxTransformer {
    /// Loads the folder `transformer`: `config.json` and `diffusion_pytorch_model.safetensors`, sharded or not.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name.
    pub fn load(tree: &FileTree, dtype: DType, device: &Device) -> Result<Self> {
        let config = FluxConfig::load(tree)?;
        let weights = Weights::load(tree, "diffusion_pytorch_model", dtype, device)?;
        let transformer = Self::from_builder(config, &weights.builder())?;
        weights.refuse_unused(&[])?;
        Ok(transformer)
    }

    fn from_builder(config: FluxConfig, vb: &VarBuilder<'static>) -> Result<Self> {
        let (width, token) = (config.width, config.channels * FluxConfig::PATCH * FluxConfig::PATCH);
        Ok(Self {
            dtype: vb.dtype(),
            time_text: TimeText::load(
                &vb.pp("time_text_embed"),
                config.pooled_width,
                width,
                config.guidance,
            )?,
            text: Linear::load(&vb.pp("context_embedder"), config.text_width, width)?,
            picture: Linear::load(&vb.pp("x_embedder"), token, width)?,
            double: (0..config.layers)
                .map(|i| DoubleBlock::load(&vb.pp(format!("transformer_blocks.{i}")), &config))
                .collect::<candle_core::Result<_>>()?,
            single: (0..config.single_layers)
                .map(|i| SingleBlock::load(&vb.pp(format!("single_transformer_blocks.{i}")), &config))
                .collect::<candle_core::Result<_>>()?,
            norm_out: FinalNorm::load(&vb.pp("norm_out"), width)?,
            out: Linear::load(&vb.pp("proj_out"), width, token)?,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// The prediction, f32, for `sample` `(batch, channels, height, width)` of even sides at `timestep` (0 to 1000), given
    /// T5's states `text` `(batch, tokens, text_width)` and `pooled` `(batch, pooled_width)`; `guidance` counts only if the
    /// configuration says so.
    ///
    /// # Errors
    /// A failed tensor operation, such as shapes that do not fit.
    pub fn forward(
        &self,
        sample: &Tensor,
        timestep: f64,
        (text, pooled): (&Tensor, &Tensor),
        guidance: f64,
    ) -> Result<Tensor> {
        let pooled = pooled.to_dtype(self.dtype).map_err(ModelError::from)?;
        let conditioning = self.time_text.forward(timestep, &pooled, guidance);
        conditioning
            .and_then(|conditioning| self.run(sample, text, &conditioning))
            .map_err(|e| ModelError::from(e).at("the transformer"))
    }

    fn run(&self, sample: &Tensor, text: &Tensor, conditioning: &Tensor) -> candle_core::Result<Tensor> {
        let (_, _, height, width) = sample.dims4()?;
        let patch = FluxConfig::PATCH;
        let (rows, columns) = (height / patch, width / patch);
        let mut x = self.picture.forward(&to_patches(&sample.to_dtype(self.dtype)?, patch)?)?;
        let mut text = self.text.forward(&text.to_dtype(self.dtype)?)?;
        let tokens = text.dim(1)?;
        // All text is at the origin.
        let places: Vec<Vec<f64>> = (0..tokens)
            .map(|_| vec![0.0; 3])
            .chain((0..rows * columns).map(|i| vec![0.0, (i / columns) as f64, (i % columns) as f64]))
            .collect();
        let rope = Rope::new(&places, &self.config.axes, self.dtype, sample.device())?;
        for block in &self.double {
            (x, text) = block.forward((&x, &text), conditioning, &rope)?;
        }
        let mut both = Tensor::cat(&[&text, &x], 1)?;
        for block in &self.single {
            both = block.forward(&both, conditioning, &rope)?;
        }
        let x = both.narrow(1, tokens, rows * columns)?;
        let out = self.out.forward(&self.norm_out.forward(&x, conditioning)?)?;
        from_patches(&out, patch, rows)?.to_dtype(DType::F32)
    }
}
