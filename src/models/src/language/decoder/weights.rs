//! A layer's matrices, whatever a checkpoint calls them and however it arranges them.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::awq;
use super::config::{DecoderConfig, Naming};
use crate::error::ModelError;
use crate::layers::{Blocks, Matrix, Quantisation};

/// A matrix `[out, in]` and the bias of its map, if it has one.
pub(super) type Map = (Matrix, Option<Tensor>);

/// Reads the parts of a layer.
pub(super) struct LayerWeights<'a, 'b> {
    config: &'a DecoderConfig,
    vb: &'a VarBuilder<'b>,
    quantisation: Option<Quantisation>,
}

impl<'a, 'b> LayerWeights<'a, 'b> {
    /// `vb` leads to the layer.
    pub(super) fn new(
        config: &'a DecoderConfig,
        vb: &'a VarBuilder<'b>,
        quantisation: Option<Quantisation>,
    ) -> Self {
        Self { config, vb, quantisation }
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
                self.map(&vb.pp("q_proj"), (queries, hidden), bias)?,
                self.map(&vb.pp("k_proj"), (keys, hidden), bias)?,
                self.map(&vb.pp("v_proj"), (keys, hidden), bias)?,
            ]),
            Naming::InternLm2 => {
                let (weight, bias) = self.map(&vb.pp("wqkv"), (queries + 2 * keys, hidden), bias)?;
                let group = heads / kv_heads;
                // Each key-value head with its queries before it.
                let part = |first: usize, count: usize| -> Result<Map> {
                    let of_head = |head: usize| {
                        let first = (head * (group + 2) + first) * head_dim;
                        (first..first + count * head_dim).map(|row| row as u32)
                    };
                    let rows: Vec<u32> = (0..kv_heads).flat_map(of_head).collect();
                    let cut = |bias: &Tensor| bias.index_select(&Tensor::new(&*rows, bias.device())?, 0);
                    Ok((weight.select(&rows)?, bias.as_ref().map(cut).transpose()?))
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
        self.map(&self.attention().pp(name), shape, self.config.biases.output)
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
            self.map(&vb.pp(names[0]), (inner, outer), bias)?,
            self.map(&vb.pp(names[1]), (inner, outer), bias)?,
            self.map(&vb.pp(names[2]), (outer, inner), bias)?,
        ])
    }

    fn map(&self, vb: &VarBuilder<'_>, shape: (usize, usize), bias: bool) -> Result<Map> {
        map(vb, shape, bias, self.quantisation)
    }
}

/// The one place where a matrix of the language model is read: as it is, quantised if that is asked for and possible, or
/// as AWQ left it. One that is quantised is in memory as f32 until it is, no other with it.
pub(super) fn map(
    vb: &VarBuilder<'_>,
    shape: (usize, usize),
    bias: bool,
    quantisation: Option<Quantisation>,
) -> Result<Map> {
    let named = |e: candle_core::Error| ModelError::from(e).at(&format!("reading `{}`", vb.prefix()));
    let weight = if awq::is_packed(vb) {
        awq::read(vb, shape, quantisation.is_some()).map_err(named)?
    } else if let Some(format) = quantisation.and_then(|kind| kind.format(shape.1)) {
        let on_cpu = vb.clone().set_device(Device::Cpu);
        let weight = on_cpu.get_with_hints_dtype(shape, "weight", Default::default(), DType::F32)?;
        Matrix::Quantised(Blocks::quantise(&weight, format).map_err(named)?, vb.device().clone())
    } else {
        Matrix::Dense(vb.get(shape, "weight")?)
    };
    let bias = if bias { Some(vb.get(shape.0, "bias")?) } else { None };
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
