//! The vision tower and its pooling head (transformers 5.17, `SiglipVisionModel` and
//! `SiglipMultiheadAttentionPoolingHead` in `models/siglip/modeling_siglip.py`; `Idefics3VisionTransformer` in
//! `models/idefics3/modeling_idefics3.py` has the same tensors and no head).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::clip::{Encoder, VisionConfig, patch_rows};
use crate::layers::{FeedForward, Inner, Linear, Memory, Norm, Sequence, attention, on_all_cores};

/// Patch embeddings with learned positions, an encoder, and a norm.
#[derive(Debug)]
pub(crate) struct PatchTower {
    /// From `3 * patch * patch` values: a convolution whose stride is its size is a matrix product.
    patch: Linear,
    positions: Tensor,
    encoder: Encoder,
    norm: Norm,
    patch_size: usize,
    image_size: usize,
}

impl PatchTower {
    /// Reads the tensors below `weights` (`vision_model`).
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn load(config: &VisionConfig, weights: &VarBuilder<'_>) -> Result<Self> {
        let (width, patch) = (config.encoder.hidden_size, config.patch_size);
        let embeddings = weights.pp("embeddings");
        let filters = embeddings.get((width, 3, patch, patch), "patch_embedding.weight")?.flatten_from(1)?;
        let places = config.patches_per_side().pow(2);
        Ok(Self {
            patch: Linear::new(&filters, Some(&embeddings.get(width, "patch_embedding.bias")?))?,
            positions: embeddings.get((places, width), "position_embedding.weight")?,
            encoder: Encoder::load(&config.encoder, false, weights.pp("encoder"))?,
            norm: Norm::layer(width, config.encoder.layer_norm_eps, &weights.pp("post_layernorm"))?,
            patch_size: patch,
            image_size: config.image_size,
        })
    }

    /// The states of all patches after the last norm, `(pictures * patches, width)`, patches in reading order. `pixels`
    /// has shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// Pixels of another shape, or a failed tensor operation.
    pub(crate) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let pictures = pixels.dim(0)?;
        let rows = patch_rows(pixels, self.image_size, self.patch_size)?;
        on_all_cores(pixels.device(), || {
            let (places, width) = self.positions.dims2()?;
            let x = self
                .patch
                .forward(&rows)?
                .reshape((pictures, places, width))?
                .broadcast_add(&self.positions)?
                .reshape((pictures * places, width))?;
            self.norm.forward(&self.encoder.forward(x, pictures)?)
        })
    }
}

/// One learned query looks at all patches of a picture; what it gathers goes through a feed-forward block.
#[derive(Debug)]
pub(crate) struct PoolingHead {
    /// The projected query, `(1, heads, head)`.
    query: Tensor,
    /// Keys and values in one product.
    memory: Linear,
    output: Linear,
    feed_forward: FeedForward,
}

impl PoolingHead {
    /// Reads the tensors below `weights` (`vision_model.head`).
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn load(config: &VisionConfig, weights: &VarBuilder<'_>) -> Result<Self> {
        let config = &config.encoder;
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let heads = config.num_attention_heads;
        let attention = weights.pp("attention");
        let weight = attention.get((3 * width, width), "in_proj_weight")?;
        let bias = attention.get(3 * width, "in_proj_bias")?;
        let part = |first: usize, count: usize| -> Result<Linear> {
            Linear::new(&weight.narrow(0, first, count)?, Some(&bias.narrow(0, first, count)?))
        };
        let probe = weights.get((1, 1, width), "probe")?.reshape((1, width))?;
        let mlp = weights.pp("mlp");
        Ok(Self {
            query: part(0, width)?.forward(&probe)?.reshape((1, heads, width / heads))?,
            memory: part(width, 2 * width)?,
            output: Linear::load(width, width, &attention.pp("out_proj"))?,
            feed_forward: FeedForward {
                norm: Norm::layer(width, config.layer_norm_eps, &weights.pp("layernorm"))?,
                expand: Linear::load(width, inner, &mlp.pp("fc1"))?,
                inner: Inner::Activation(config.hidden_act),
                contract: Linear::load(inner, width, &mlp.pp("fc2"))?,
            },
        })
    }

    /// States of shape `(pictures * patches, width)` to `(pictures, width)`.
    ///
    /// # Errors
    /// States of another shape, or a failed tensor operation.
    pub(crate) fn forward(&self, states: &Tensor, pictures: usize) -> Result<Tensor> {
        let (_, heads, head) = self.query.dims3()?;
        let rows = states.dim(0)?;
        let patches = rows / pictures.max(1);
        on_all_cores(states.device(), || {
            let both = self.memory.forward(states)?.reshape((rows, 2 * heads, head))?;
            let (keys, values) = (both.narrow(1, 0, heads)?, both.narrow(1, heads, heads)?);
            let own = |index: usize| -> Result<Memory> {
                let part = |tensor: &Tensor| tensor.narrow(0, index * patches, patches);
                Ok(Memory::new(part(&keys)?, part(&values)?))
            };
            let memories = (0..pictures).map(own).collect::<Result<Vec<_>>>()?;
            let looks: Vec<_> = (0..pictures)
                .map(|index| Sequence { queries: index..index + 1, memories: vec![index], causal: false })
                .collect();
            let queries = self.query.broadcast_as((pictures, heads, head))?.contiguous()?;
            let gathered = attention(&queries, &memories, &looks, (head as f64).powf(-0.5))?;
            self.feed_forward.forward(&self.output.forward(&gathered)?)
        })
    }
}
