//! A layer's matrices, whatever a checkpoint calls them and however it arranges them.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{DecoderConfig, Naming};

/// A matrix `[out, in]` and the bias of its map, if it has one.
pub(super) type Map = (Tensor, Option<Tensor>);

/// Reads the parts of a layer.
pub(super) struct LayerWeights<'a, 'b> {
    config: &'a DecoderConfig,
    vb: &'a VarBuilder<'b>,
}

impl<'a, 'b> LayerWeights<'a, 'b> {
    /// `vb` leads to the layer.
    pub(super) fn new(config: &'a DecoderConfig, vb: &'a VarBuilder<'b>) -> Self {
        Self { config, vb }
    }

    /// Where the norm before the attention is.
    pub(super) fn attention_norm(&self) -> VarBuilder<'b> {
        self.vb.pp(match self.config.naming {
            Naming::Llama => "input_layernorm",
            Naming::InternLm2 => "attention_norm",
        })
    }

    /// Where the norm before the feed-forward block is.
    pub(super) fn feed_forward_norm(&self) -> VarBuilder<'b> {
        self.vb.pp(match self.config.naming {
            Naming::Llama => "post_attention_layernorm",
            Naming::InternLm2 => "ffn_norm",
        })
    }

    /// Where the norms of the heads are: `q_norm` and `k_norm`.
    pub(super) fn attention(&self) -> VarBuilder<'b> {
        self.vb.pp(match self.config.naming {
            Naming::Llama => "self_attn",
            Naming::InternLm2 => "attention",
        })
    }

    /// The maps to queries, keys and values.
    pub(super) fn inputs(&self) -> Result<[Map; 3]> {
        let DecoderConfig { hidden, heads, kv_heads, head_dim, .. } = *self.config;
        let (queries, keys, bias) = (heads * head_dim, kv_heads * head_dim, self.config.biases.inputs);
        let vb = self.attention();
        match self.config.naming {
            Naming::Llama => Ok([
                map(&vb.pp("q_proj"), (queries, hidden), bias)?,
                map(&vb.pp("k_proj"), (keys, hidden), bias)?,
                map(&vb.pp("v_proj"), (keys, hidden), bias)?,
            ]),
            Naming::InternLm2 => {
                let (weight, bias) = map(&vb.pp("wqkv"), (queries + 2 * keys, hidden), bias)?;
                let group = heads / kv_heads;
                // Each key-value head with its queries before it.
                let part = |first: usize, count: usize| -> Result<Map> {
                    let cut = |all: &Tensor, width: &[usize]| -> Result<Tensor> {
                        let grouped = [&[kv_heads, group + 2, head_dim], width].concat();
                        let part = all.reshape(grouped)?.narrow(1, first, count)?.contiguous()?;
                        part.reshape([&[kv_heads * count * head_dim], width].concat())
                    };
                    let bias = bias.as_ref().map(|bias| cut(bias, &[])).transpose()?;
                    Ok((cut(&weight, &[hidden])?, bias))
                };
                Ok([part(0, group)?, part(group, 1)?, part(group + 1, 1)?])
            }
        }
    }

    /// The map of what attention gathers.
    pub(super) fn output(&self) -> Result<Map> {
        let name = match self.config.naming {
            Naming::Llama => "o_proj",
            Naming::InternLm2 => "wo",
        };
        let shape = (self.config.hidden, self.config.heads * self.config.head_dim);
        map(&self.attention().pp(name), shape, self.config.biases.output)
    }

    /// The feed-forward block's gate, its other first map, and its second.
    pub(super) fn feed_forward(&self) -> Result<[Map; 3]> {
        let (vb, names) = match self.config.naming {
            Naming::Llama => (self.vb.pp("mlp"), ["gate_proj", "up_proj", "down_proj"]),
            Naming::InternLm2 => (self.vb.pp("feed_forward"), ["w1", "w3", "w2"]),
        };
        let (inner, outer) = (self.config.intermediate, self.config.hidden);
        let bias = self.config.biases.feed_forward;
        Ok([
            map(&vb.pp(names[0]), (inner, outer), bias)?,
            map(&vb.pp(names[1]), (inner, outer), bias)?,
            map(&vb.pp(names[2]), (outer, inner), bias)?,
        ])
    }
}

/// The one place where a matrix of the language model is read.
pub(super) fn map(vb: &VarBuilder<'_>, (outputs, inputs): (usize, usize), bias: bool) -> Result<Map> {
    let weight = vb.get((outputs, inputs), "weight")?;
    let bias = if bias { Some(vb.get(outputs, "bias")?) } else { None };
    Ok((weight, bias))
}

impl Naming {
    /// What the embedding table and the output layer are called.
    pub(super) fn ends(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("embed_tokens", "lm_head"),
            Self::InternLm2 => ("tok_embeddings", "output"),
        }
    }
}
