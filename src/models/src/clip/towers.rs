//! The text and the vision tower (transformers 5.17, `CLIPTextTransformer` and `CLIPVisionTransformer` in
//! `models/clip/modeling_clip.py`; OWLv2's differ in the name of one layer norm and in what is pooled).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{TextConfig, VisionConfig};
use super::encoder::Encoder;
use crate::layers::{Linear, Norm, on_all_cores};

/// Which token of a text stands for the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pooling {
    /// The first token of the highest id: checkpoints whose `eos_token_id` is 2 although their end token is another,
    /// and OWLv2 always.
    HighestId,
    /// The first token that is one of these.
    FirstOf(Vec<u32>),
    /// The last place, in a text that is padded to the full length, whose tokens all see each other: SigLIP.
    Last,
}

/// Token embeddings, an encoder, and the state of the token that stands for the whole text.
#[derive(Debug, Clone)]
pub struct TextTower {
    tokens: Tensor,
    positions: Tensor,
    encoder: Encoder,
    norm: Norm,
    pooling: Pooling,
}

impl TextTower {
    /// Reads the tensors below `weights` (`text_model`).
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(config: &TextConfig, weights: VarBuilder) -> Result<Self> {
        let pooling = match config.eos_token_ids[..] {
            [2] => Pooling::HighestId,
            _ => Pooling::FirstOf(config.eos_token_ids.clone()),
        };
        Self::load_pooling(config, pooling, weights)
    }

    /// Like [`Self::load`] with the highest id as the end token, whatever the configuration says, as OWLv2 has it.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load_highest_id(config: &TextConfig, weights: VarBuilder) -> Result<Self> {
        Self::load_pooling(config, Pooling::HighestId, weights)
    }

    /// Like [`Self::load`] as SigLIP has it: every token sees every other one, padding included, and the last place is
    /// looked at.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn load_last(config: &TextConfig, weights: VarBuilder) -> Result<Self> {
        Self::load_pooling(config, Pooling::Last, weights)
    }

    fn load_pooling(config: &TextConfig, pooling: Pooling, weights: VarBuilder) -> Result<Self> {
        let width = config.encoder.hidden_size;
        let embeddings = weights.pp("embeddings");
        Ok(Self {
            tokens: embeddings.get((config.vocab_size, width), "token_embedding.weight")?,
            positions: embeddings
                .get((config.max_position_embeddings, width), "position_embedding.weight")?,
            encoder: Encoder::load(&config.encoder, pooling != Pooling::Last, weights.pp("encoder"))?,
            norm: Norm::layer(width, config.encoder.layer_norm_eps, &weights.pp("final_layer_norm"))?,
            pooling,
        })
    }

    /// Where in a text its end token is.
    fn end_of(&self, ids: &[u32]) -> Result<usize> {
        let position = match &self.pooling {
            Pooling::HighestId => {
                let highest = ids.iter().max();
                ids.iter().position(|id| Some(id) == highest)
            }
            Pooling::FirstOf(ends) => ids.iter().position(|id| ends.contains(id)),
            Pooling::Last => {
                let most = self.positions.dim(0)?;
                if ids.len() != most {
                    candle_core::bail!("a text of {} tokens, expected it padded to {most}", ids.len());
                }
                ids.len().checked_sub(1)
            }
        };
        match position {
            Some(position) => Ok(position),
            None => candle_core::bail!("no end token in a text of {} tokens {ids:?}", ids.len()),
        }
    }

    /// One pooled state for each text, shape `(texts, width)`. A text is its token ids, beginning and end included,
    /// at most as many as there are positions. Padding is not needed where no token sees what follows it.
    ///
    /// # Errors
    /// No text, an empty text, one that is too long, an id beyond the vocabulary, or one without an end token.
    pub fn forward(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let length = texts.iter().map(Vec::len).max().unwrap_or(0);
        let most = self.positions.dim(0)?;
        if length > most {
            candle_core::bail!("a text of {length} tokens, this model holds {most}");
        }
        let ends = texts.iter().map(|ids| self.end_of(ids)).collect::<Result<Vec<_>>>()?;
        // Any id may fill up, since nothing before it sees it.
        let ids: Vec<u32> = texts
            .iter()
            .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat_n(0, length - ids.len())))
            .collect();
        let ids = Tensor::from_vec(ids, texts.len() * length, self.tokens.device())?;
        let width = self.tokens.dim(1)?;
        let x = self
            .tokens
            .index_select(&ids, 0)?
            .reshape((texts.len(), length, width))?
            .broadcast_add(&self.positions.narrow(0, 0, length)?)?
            .reshape((texts.len() * length, width))?;
        on_all_cores(self.tokens.device(), || self.norm.forward(&self.encoder.forward_one(x, &ends)?))
    }
}

/// Pixels of shape `(pictures, 3, side, side)` to one row of `3 * patch * patch` values a patch, patches in reading order:
/// what a convolution whose stride is its size multiplies. Pixels at the right and bottom that fill no patch are left
/// out, as the convolution does.
///
/// # Errors
/// Pixels of another shape.
pub(crate) fn patch_rows(pixels: &Tensor, side: usize, patch: usize) -> Result<Tensor> {
    let (pictures, channels, height, width) = pixels.dims4()?;
    if (channels, height, width) != (3, side, side) {
        candle_core::bail!("expected pixels of shape [any, 3, {side}, {side}], got {:?}", pixels.shape());
    }
    let count = side / patch;
    pixels
        .narrow(2, 0, count * patch)?
        .narrow(3, 0, count * patch)?
        .contiguous()?
        .reshape(&[pictures, 3, count, patch, count, patch][..])?
        .permute([0, 2, 4, 1, 3, 5])?
        .reshape((pictures * count * count, 3 * patch * patch))
}

/// Patch embeddings with a class token in front, and an encoder.
#[derive(Debug, Clone)]
pub struct VisionTower {
    class: Tensor,
    /// From `3 * patch * patch` values: a convolution whose stride is its size is a matrix product.
    patch: Linear,
    positions: Tensor,
    first_norm: Norm,
    encoder: Encoder,
    last_norm: Norm,
    patch_size: usize,
    image_size: usize,
}

impl VisionTower {
    /// Reads the tensors below `weights` (`vision_model`). `first_norm` is the name of the norm before the encoder:
    /// `pre_layrnorm` in CLIP, whose checkpoints hold that spelling, and `pre_layernorm` in OWLv2.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(config: &VisionConfig, first_norm: &str, weights: VarBuilder) -> Result<Self> {
        let (width, patch) = (config.encoder.hidden_size, config.patch_size);
        let embeddings = weights.pp("embeddings");
        let tokens = config.patches_per_side().pow(2) + 1;
        let norm = |name: &str| Norm::layer(width, config.encoder.layer_norm_eps, &weights.pp(name));
        Ok(Self {
            class: embeddings.get(width, "class_embedding")?,
            patch: Linear::new(
                &embeddings.get((width, 3, patch, patch), "patch_embedding.weight")?.flatten_from(1)?,
                None,
            )?,
            positions: embeddings.get((tokens, width), "position_embedding.weight")?,
            first_norm: norm(first_norm)?,
            encoder: Encoder::load(&config.encoder, false, weights.pp("encoder"))?,
            last_norm: norm("post_layernorm")?,
            patch_size: patch,
            image_size: config.image_size,
        })
    }

    /// The same tower with the first `layers` layers of its encoder only, for models that read an inner state.
    #[must_use]
    pub(crate) fn cut(mut self, layers: usize) -> Self {
        self.encoder = self.encoder.cut(layers);
        self
    }

    /// All states after the last layer and before the last norm, the class token first, shape
    /// `(pictures * tokens, width)`. `pixels` has shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// Pixels of another shape, or a failed tensor operation.
    pub(crate) fn forward_inner(&self, pixels: &Tensor) -> Result<Tensor> {
        on_all_cores(pixels.device(), || self.encoder.forward(self.embed(pixels)?, pixels.dim(0)?))
    }

    /// Pixels of shape `(pictures, 3, side, side)` to embedded tokens of shape `(pictures * tokens, width)`.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (pictures, side) = (pixels.dim(0)?, self.image_size / self.patch_size);
        let rows = patch_rows(pixels, self.image_size, self.patch_size)?;
        let width = self.class.dim(0)?;
        let patches = self.patch.forward(&rows)?.reshape((pictures, side * side, width))?;
        let class = self.class.reshape((1, 1, width))?.broadcast_as((pictures, 1, width))?;
        let x = Tensor::cat(&[&class.contiguous()?, &patches], 1)?.broadcast_add(&self.positions)?;
        self.first_norm.forward(&x.reshape((pictures * (side * side + 1), width))?)
    }

    /// The class token's state of each picture after the last norm, shape `(pictures, width)`. `pixels` has shape
    /// `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// Pixels of another shape, or a failed tensor operation.
    pub fn forward_class(&self, pixels: &Tensor) -> Result<Tensor> {
        let classes = vec![0; pixels.dim(0)?];
        on_all_cores(pixels.device(), || {
            self.last_norm.forward(&self.encoder.forward_one(self.embed(pixels)?, &classes)?)
        })
    }

    /// All states after the last norm, the class token first, shape `(pictures, tokens, width)`. `pixels` has shape
    /// `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// Pixels of another shape, or a failed tensor operation.
    pub fn forward_all(&self, pixels: &Tensor) -> Result<Tensor> {
        let pictures = pixels.dim(0)?;
        let x = on_all_cores(pixels.device(), || {
            self.last_norm.forward(&self.encoder.forward(self.embed(pixels)?, pictures)?)
        })?;
        let (rows, width) = x.dims2()?;
        x.reshape((pictures, rows / pictures, width))
    }
}
