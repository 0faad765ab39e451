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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use super::*;
    use crate::layers::Linear;

    /// Queries, keys and values of InternLM2's joint map, dense and packed by AWQ: the same numbers.
    #[test]
    fn a_joint_map_is_cut_into_its_heads_whatever_its_form() {
        const HIDDEN: usize = 64;
        let value = serde_json::json!({
            "model_type": "internlm2", "vocab_size": 50, "hidden_size": HIDDEN, "intermediate_size": 96,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "bias": false, "hidden_act": "silu",
        });
        let config = DecoderConfig::read("config.json", &value).unwrap();
        let outputs = (config.heads + 2 * config.kv_heads) * config.head_dim;
        let code = |row: usize, column: usize| (row * 31 + column * 7) % 16;
        // Columns of eight, as AWQ orders them, all with the zero 8 and a scale by output.
        let words: Vec<i64> = (0..HIDDEN * outputs / 8)
            .map(|at| {
                let (column, first) = (at / (outputs / 8), at % (outputs / 8) * 8);
                let order = [0, 2, 4, 6, 1, 3, 5, 7];
                let word =
                    (0..8).fold(0u32, |word, i| word | (code(first + order[i], column) as u32) << (4 * i));
                i64::from(word.cast_signed())
            })
            .collect();
        let scales: Vec<f32> = (0..outputs).map(|output| (output + 1) as f32 / 1024.0).collect();
        let on_cpu = |values: Vec<i64>, shape: (usize, usize)| {
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(DType::I32).unwrap()
        };
        let zero = i64::from(0x8888_8888_u32.cast_signed());
        let packed = HashMap::from([
            ("attention.wqkv.qweight".to_owned(), on_cpu(words, (HIDDEN, outputs / 8))),
            ("attention.wqkv.qzeros".to_owned(), on_cpu(vec![zero; outputs / 8], (1, outputs / 8))),
            (
                "attention.wqkv.scales".to_owned(),
                Tensor::from_vec(scales.clone(), (1, outputs), &Device::Cpu).unwrap(),
            ),
        ]);
        let dense: Vec<f32> = (0..outputs * HIDDEN)
            .map(|at| (code(at / HIDDEN, at % HIDDEN) as f32 - 8.0) * scales[at / HIDDEN])
            .collect();
        let dense = Tensor::from_vec(dense, (outputs, HIDDEN), &Device::Cpu).unwrap();
        let dense = HashMap::from([("attention.wqkv.weight".to_owned(), dense)]);
        let x = Tensor::randn(0f32, 1.0, (3, HIDDEN), &Device::Cpu).unwrap();
        let all = |tensors: &HashMap<String, Tensor>, quantisation| -> Vec<Vec<Vec<f32>>> {
            let vb = VarBuilder::from_tensors(tensors.clone(), DType::F32, &Device::Cpu);
            let maps = LayerWeights::new(&config, &vb, quantisation).inputs().unwrap();
            let run = |map| Linear::of(vec![map]).unwrap().forward(&x).unwrap().to_vec2().unwrap();
            maps.into_iter().map(run).collect()
        };
        let expected = all(&dense, None);
        let widths: Vec<usize> = expected.iter().map(|part| part[0].len()).collect();
        assert_eq!(widths, [config.heads * 8, config.kv_heads * 8, config.kv_heads * 8]);
        // Of the second key-value head: the rows after those of the first, its queries before its key and value.
        let row = |row: usize| -> f32 {
            let x = x.to_vec2::<f32>().unwrap();
            (0..HIDDEN).map(|at| x[0][at] * (code(row, at) as f32 - 8.0) * scales[row]).sum()
        };
        for (part, at, rows) in [(0, 2 * 8, 4 * 8), (1, 8, 6 * 8), (2, 8, 7 * 8)] {
            let (found, expected) = (expected[part][0][at], row(rows));
            assert!((found - expected).abs() < 1e-4, "part {part}: {found}, not {expected}");
        }
        for quantisation in [None, Some(Quantisation::Q4_0)] {
            for (found, expected) in
                all(&packed, quantisation).iter().flatten().flatten().zip(expected.iter().flatten().flatten())
            {
                assert!((found - expected).abs() < 1e-4, "{quantisation:?}: {found}, not {expected}");
            }
        }
    }
}
