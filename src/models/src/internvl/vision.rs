//! InternViT and what joins it to the language model: tiles to the tokens that the language model reads.
//!
//! Source: `models/internvl/modeling_internvl.py` in transformers 5.17; `modeling_intern_vit.py` and
//! `modeling_internvl_chat.py` in `internvl_chat/internvl/model/internvl_chat` of github.com/OpenGVLab/InternVL at
//! 2410d1d, which compute the same under other names.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{Layout, VisionConfig};
use crate::layers::{
    Activation, FeedForward, Inner, Linear, Memory, Norm, Sequence, attention, on_all_cores,
};

/// Of the projector's layer norm: torch's default.
const PROJECTOR_EPSILON: f64 = 1e-5;

/// The tower.
#[derive(Debug)]
pub(super) struct VisionTower {
    patch: Linear,
    /// `[1, 1, width]`.
    class: Tensor,
    /// `[1, 1 + patches, width]`.
    positions: Tensor,
    blocks: Vec<Block>,
    patch_size: usize,
    device: Device,
    dtype: DType,
}

impl VisionTower {
    /// Reads the tensors below `vb` (`vision_model` or `vision_tower`).
    pub(super) fn load(config: &VisionConfig, layout: Layout, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, edge) = (config.width, config.patch);
        let [class, patch, positions, layers] = match layout {
            Layout::Original => ["class_embedding", "patch_embedding", "position_embedding", "layers"],
            Layout::Transformers => {
                ["cls_token", "patch_embeddings.projection", "position_embeddings", "layer"]
            }
        };
        let embeddings = vb.pp("embeddings");
        let filters = embeddings.pp(patch);
        // Patches do not overlap: each is one row of a matrix.
        let filter = filters.get((width, 3, edge, edge), "weight")?.flatten_from(1)?;
        let encoder = vb.pp("encoder").pp(layers);
        let blocks = (0..config.depth).map(|i| Block::load(config, layout, &encoder.pp(i)));
        Ok(Self {
            patch: Linear::new(&filter, Some(&filters.get(width, "bias")?))?,
            class: embeddings.get((1, 1, width), class)?,
            positions: embeddings.get((1, 1 + config.grid().pow(2), width), positions)?,
            blocks: blocks.collect::<Result<_>>()?,
            patch_size: edge,
            device: vb.device().clone(),
            dtype: vb.dtype(),
        })
    }

    /// The last states of the patches of each tile, `[tiles, rows, columns, width]`, from `[tiles, 3, edge, edge]`.
    pub(super) fn forward(&self, tiles: &Tensor) -> Result<Tensor> {
        let (count, _, edge, _) = tiles.dims4()?;
        let (grid, patch) = (edge / self.patch_size, self.patch_size);
        let patches = tiles
            .reshape((count, 3, grid, patch, grid, patch))?
            .permute((0, 2, 4, 1, 3, 5))?
            .reshape((count * grid * grid, 3 * patch * patch))?
            .to_device(&self.device)?
            .to_dtype(self.dtype)?;
        on_all_cores(&self.device, || {
            let patches = self.patch.forward(&patches)?.reshape((count, grid * grid, ()))?;
            let width = patches.dim(2)?;
            let class = self.class.broadcast_as((count, 1, width))?;
            let mut xs = Tensor::cat(&[&class, &patches], 1)?
                .broadcast_add(&self.positions)?
                .reshape((count * (1 + grid * grid), width))?;
            for block in &self.blocks {
                xs = block.forward(&xs, count)?;
            }
            xs.reshape((count, 1 + grid * grid, width))?
                .narrow(1, 1, grid * grid)?
                .reshape((count, grid, grid, width))
        })
    }
}

#[derive(Debug)]
struct Block {
    norm: Norm,
    /// Queries, keys and values in one product.
    qkv: Linear,
    /// Of the queries and of the keys.
    qk_norms: Option<[Norm; 2]>,
    projection: Linear,
    feed_forward: FeedForward,
    heads: usize,
}

impl Block {
    fn load(config: &VisionConfig, layout: Layout, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner) = (config.width, config.intermediate);
        let original = layout == Layout::Original;
        let [attention, projection, norms @ .., scale, inner_scale] = if original {
            ["attn", "proj", "norm1", "norm2", "ls1", "ls2"]
        } else {
            let norms = ["layernorm_before", "layernorm_after"];
            ["attention", "projection_layer", norms[0], norms[1], "lambda_1", "lambda_2"]
        };
        let attention = vb.pp(attention);
        let bias = config.qkv_bias;
        let qkv = if original {
            vec![map(&attention.pp("qkv"), (3 * width, width), bias)?]
        } else {
            let part = |name: &str| map(&attention.pp(name), (width, width), bias);
            vec![part("q_proj")?, part("k_proj")?, part("v_proj")?]
        };
        let qk_norm = |name: &str, epsilon| Norm::rms(width, epsilon, &attention.pp(name));
        let qk_norms = config
            .qk_epsilon
            .map(|e| Ok::<_, candle_core::Error>([qk_norm("q_norm", e)?, qk_norm("k_norm", e)?]));
        let norm = |name: &str| {
            let vb = vb.pp(name);
            if config.layer_norm {
                Norm::layer(width, config.epsilon, &vb)
            } else {
                Norm::rms(width, config.epsilon, &vb)
            }
        };
        Ok(Self {
            norm: norm(norms[0])?,
            qkv: Linear::stack(&qkv)?,
            qk_norms: qk_norms.transpose()?,
            projection: scaled(&attention.pp(projection), (width, width), &vb.get(width, scale)?)?,
            feed_forward: FeedForward {
                norm: norm(norms[1])?,
                expand: Linear::load(width, inner, &vb.pp("mlp.fc1"))?,
                inner: Inner::Activation(config.activation),
                contract: scaled(&vb.pp("mlp.fc2"), (width, inner), &vb.get(width, inner_scale)?)?,
            },
            heads: config.heads,
        })
    }

    /// `[tiles * (1 + patches), width]` to the same.
    fn forward(&self, xs: &Tensor, tiles: usize) -> Result<Tensor> {
        self.feed_forward.forward(&self.attend(xs, tiles)?)
    }

    /// Every patch looks at every other one of its tile; what it gathers is added.
    fn attend(&self, xs: &Tensor, tiles: usize) -> Result<Tensor> {
        let (count, width) = xs.dims2()?;
        let (heads, head) = (self.heads, width / self.heads);
        let qkv = self.qkv.forward_normed(xs, &self.norm)?;
        let by_head = qkv.reshape((count, 3 * heads, head))?;
        let part = |index: usize| match &self.qk_norms {
            // Over all heads at a time.
            Some(norms) if index < norms.len() => {
                norms[index].forward(&qkv.narrow(1, index * width, width)?)?.reshape((count, heads, head))
            }
            _ => by_head.narrow(1, index * heads, heads),
        };
        let (queries, keys, values) = (part(0)?, part(1)?, part(2)?);
        let tokens = count / tiles;
        let memories = (0..tiles)
            .map(|tile| {
                let own = |all: &Tensor| all.narrow(0, tile * tokens, tokens);
                Ok(Memory::new(own(&keys)?, own(&values)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let sequences: Vec<Sequence> = (0..tiles)
            .map(|tile| Sequence {
                queries: tile * tokens..(tile + 1) * tokens,
                memories: vec![tile],
                causal: false,
            })
            .collect();
        let mixed = attention(&queries, &memories, &sequences, (head as f64).powf(-0.5))?;
        self.projection.forward_add(&mixed, xs)
    }
}

/// A weight of shape `(out, in)` and its bias.
fn map(vb: &VarBuilder<'_>, shape: (usize, usize), bias: bool) -> Result<(Tensor, Option<Tensor>)> {
    let bias = if bias { Some(vb.get(shape.0, "bias")?) } else { None };
    Ok((vb.get(shape, "weight")?, bias))
}

/// A map whose outputs are then scaled, each by its own factor, as one map.
fn scaled(vb: &VarBuilder<'_>, shape: (usize, usize), scale: &Tensor) -> Result<Linear> {
    let (weight, bias) = (vb.get(shape, "weight")?, vb.get(shape.0, "bias")?);
    // In f32: rounded once.
    let exact = |tensor: &Tensor| tensor.to_dtype(DType::F32);
    let scale = exact(scale)?;
    let weight = exact(&weight)?.broadcast_mul(&scale.unsqueeze(1)?)?.to_dtype(weight.dtype())?;
    let bias = (exact(&bias)? * scale)?.to_dtype(bias.dtype())?;
    Linear::new(&weight, Some(&bias))
}

/// Joins the patches of each square into one token of the language model.
#[derive(Debug)]
pub(super) struct Projector {
    norm: Norm,
    first: Linear,
    second: Linear,
    merge: usize,
}

impl Projector {
    /// Reads the tensors below `vb` (`mlp1` or `multi_modal_projector`).
    pub(super) fn load(
        config: &VisionConfig,
        hidden: usize,
        layout: Layout,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let [norm, first, second] = match layout {
            Layout::Original => ["0", "1", "3"],
            Layout::Transformers => ["layer_norm", "linear_1", "linear_2"],
        };
        let joined = config.width * config.merge * config.merge;
        Ok(Self {
            norm: Norm::layer(joined, PROJECTOR_EPSILON, &vb.pp(norm))?,
            first: Linear::load(joined, hidden, &vb.pp(first))?,
            second: Linear::load(hidden, hidden, &vb.pp(second))?,
            merge: config.merge,
        })
    }

    /// Features of a picture, `[tiles * tokens, hidden]`, tile by tile, each in reading order; from the tower's states.
    pub(super) fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let (tiles, rows, columns, width) = states.dims4()?;
        let merge = self.merge;
        // The shuffle of `ps_version` v2: rows and columns of a square one behind the other.
        let joined = states
            .reshape((tiles, rows / merge, merge, columns / merge, merge, width))?
            .permute((0, 1, 3, 2, 4, 5))?
            .reshape(((), merge * merge * width))?;
        on_all_cores(states.device(), || {
            let joined = self.norm.forward(&joined)?;
            self.second.forward(&self.first.forward_activate(&joined, Activation::Gelu)?)
        })
    }
}
