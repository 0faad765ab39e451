//! The language model of Qwen2-VL with an owned key-value cache: many rows of tokens against one shared past.
//!
//! Source: `models/qwen2_vl/modeling_qwen2_vl.py` in transformers 5.17 (`Qwen2VLTextModel`). What differs is only
//! where intermediate results live.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, RmsNorm, VarBuilder, ops::softmax_last_dim};

use super::config::TextConfig;
use super::rope::{Angles, inverse_frequencies};
use crate::ops::swiglu;

/// Time, row and column of a token; all three equal for text.
pub(super) type Position = [u32; 3];

/// Keys and values of a sequence: for each layer two tensors `[kv heads, capacity, head]`, of which the first
/// `length` columns count. A value that is shared (behind `Arc`) never changes; only its one owner appends.
#[derive(Debug)]
pub(super) struct KeyValues {
    layers: Vec<(Tensor, Tensor)>,
    length: usize,
}

impl KeyValues {
    /// Number of tokens.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Size in memory.
    pub(super) fn bytes(&self) -> usize {
        self.layers.iter().map(|(k, v)| (k.elem_count() + v.elem_count()) * k.dtype().size_in_bytes()).sum()
    }

    /// The first `length` tokens, without copying.
    fn view(&self, layer: usize, length: usize) -> Result<Option<(Tensor, Tensor)>> {
        if length == 0 {
            return Ok(None);
        }
        let (k, v) = &self.layers[layer];
        Ok(Some((k.narrow(1, 0, length)?, v.narrow(1, 0, length)?)))
    }
}

/// A shared past: the first `length` tokens of a sequence, or nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past<'a>(pub(super) Option<(&'a KeyValues, usize)>);

impl Past<'_> {
    pub(super) fn length(&self) -> usize {
        self.0.map_or(0, |(_, length)| length)
    }

    fn layer(&self, layer: usize) -> Result<Option<(Tensor, Tensor)>> {
        self.0.map_or(Ok(None), |(kv, length)| kv.view(layer, length))
    }
}

/// The decoder.
#[derive(Debug)]
pub(super) struct Decoder {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    config: TextConfig,
    /// Inverse frequency of each pair of a head, and which coordinate of the position turns it.
    turns: Vec<(f32, usize)>,
    device: Device,
    dtype: DType,
}

impl Decoder {
    /// `vb` leads to the layers, `head` to `lm_head`.
    pub(super) fn load(config: &TextConfig, vb: &VarBuilder<'_>, head: &VarBuilder<'_>) -> Result<Self> {
        let embedding = candle_nn::embedding(config.vocabulary, config.hidden, vb.pp("embed_tokens"))?;
        let head = if config.tied {
            Linear::new(embedding.embeddings().clone(), None)
        } else {
            candle_nn::linear_no_bias(config.hidden, config.vocabulary, head.pp("lm_head"))?
        };
        let layers = (0..config.layers)
            .map(|i| Layer::load(config, &vb.pp("layers").pp(i)))
            .collect::<Result<Vec<_>>>()?;
        let axes =
            config.mrope_sections.iter().enumerate().flat_map(|(axis, &n)| std::iter::repeat_n(axis, n));
        Ok(Self {
            embedding,
            layers,
            norm: candle_nn::rms_norm(config.hidden, config.epsilon, vb.pp("norm"))?,
            head,
            turns: inverse_frequencies(config.rope_theta, config.head_dim).into_iter().zip(axes).collect(),
            config: config.clone(),
            device: vb.device().clone(),
            dtype: vb.dtype(),
        })
    }

    /// Where it computes.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Embeddings of tokens, `[tokens, hidden]`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.embedding.forward(&Tensor::new(tokens, &self.device)?)
    }

    /// An empty sequence with room for `capacity` tokens, starting with a copy of `past`.
    pub(super) fn start(&self, past: Past<'_>, capacity: usize) -> Result<KeyValues> {
        let shape = (self.config.kv_heads, capacity, self.config.head_dim);
        let mut layers = Vec::with_capacity(self.layers.len());
        for i in 0..self.layers.len() {
            let buffers = (
                Tensor::zeros(shape, self.dtype, &self.device)?,
                Tensor::zeros(shape, self.dtype, &self.device)?,
            );
            if let Some((k, v)) = past.layer(i)? {
                buffers.0.slice_set(&k.contiguous()?, 1, 0)?;
                buffers.1.slice_set(&v.contiguous()?, 1, 0)?;
            }
            layers.push(buffers);
        }
        Ok(KeyValues { layers, length: past.length() })
    }

    /// Appends tokens (`[tokens, hidden]` embeddings, their positions) to a sequence; the logits after the last of
    /// them, `[1, vocabulary]`, if `logits` is set. The caller leaves room.
    pub(super) fn extend(
        &self,
        sequence: &mut KeyValues,
        embeddings: &Tensor,
        positions: &[Position],
        logits: bool,
    ) -> Result<Option<Tensor>> {
        let length = positions.len();
        let rows = Rows { batch: 1, length };
        let angles = self.angles(positions)?;
        let mask = causal_mask(length, self.dtype, &self.device)?;
        let last = Picks::new(&[length], length, &angles, &self.device)?;
        let mut xs = embeddings.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            let past = sequence.view(i, sequence.length)?;
            let normed = layer.norm1.forward(&xs)?;
            let own = layer.attention.keys_values(&normed, rows, &angles)?;
            if i + 1 < self.layers.len() {
                let queries = layer.attention.queries(&normed, rows, &angles)?;
                let mixed = layer.attention.mix(&queries, &own, past.as_ref(), mask.as_ref())?;
                xs = layer.finish(&xs, &mixed)?;
            } else if logits {
                // Nobody reads the last layer elsewhere than at the end.
                xs = layer.forward_picked(&xs, &normed, &own, past.as_ref(), &last)?;
            }
            // Batch of one: `[kv heads, 1, tokens, head]`.
            let (k, v) = &sequence.layers[i];
            k.slice_set(&own.0.squeeze(1)?, 1, sequence.length)?;
            v.slice_set(&own.1.squeeze(1)?, 1, sequence.length)?;
        }
        sequence.length += length;
        if logits { Ok(Some(self.logits(&xs)?)) } else { Ok(None) }
    }

    /// Rows of tokens, each against the same past, padded to one length at their ends: `tokens` row by row,
    /// `lengths[i]` of them real in row `i`, all at the positions `positions`. The logits after the last real token
    /// of each row, `[rows, vocabulary]`. Nothing is appended.
    pub(super) fn score(
        &self,
        past: Past<'_>,
        tokens: &[u32],
        lengths: &[usize],
        positions: &[Position],
    ) -> Result<Tensor> {
        let rows = Rows { batch: lengths.len(), length: positions.len() };
        let angles = self.angles(positions)?;
        // What follows a token, padding included, is hidden from it by the causal mask.
        let mask = causal_mask(rows.length, self.dtype, &self.device)?;
        let ends = Picks::new(lengths, rows.length, &angles, &self.device)?;
        let mut xs = self.embed(tokens)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let past = past.layer(i)?;
            let normed = layer.norm1.forward(&xs)?;
            let own = layer.attention.keys_values(&normed, rows, &angles)?;
            if i + 1 < self.layers.len() {
                let queries = layer.attention.queries(&normed, rows, &angles)?;
                let mixed = layer.attention.mix(&queries, &own, past.as_ref(), mask.as_ref())?;
                xs = layer.finish(&xs, &mixed)?;
            } else {
                xs = layer.forward_picked(&xs, &normed, &own, past.as_ref(), &ends)?;
            }
        }
        self.logits(&xs)
    }

    fn logits(&self, xs: &Tensor) -> Result<Tensor> {
        self.head.forward(&self.norm.forward(xs)?)
    }

    fn angles(&self, positions: &[Position]) -> Result<Angles> {
        let turns = &self.turns;
        let angles =
            positions.iter().flat_map(|p| turns.iter().map(move |&(f, axis)| p[axis] as f32 * f)).collect();
        Angles::new(angles, turns.len(), &self.device, self.dtype)
    }
}

/// The shape of a batch.
#[derive(Debug, Clone, Copy)]
struct Rows {
    batch: usize,
    length: usize,
}

/// The last real token of each row.
struct Picks {
    /// Indices into `[batch * length]`.
    indices: Tensor,
    /// Angles at these tokens, one for each row.
    angles: Angles,
    /// What each of them may see of its own row, `[batch, 1, 1, length]`; `None` if everything.
    mask: Option<Tensor>,
    batch: usize,
}

impl Picks {
    fn new(lengths: &[usize], padded: usize, angles: &Angles, device: &Device) -> Result<Self> {
        let batch = lengths.len();
        let ends: Vec<u32> = lengths.iter().map(|&n| (n - 1) as u32).collect();
        let flat: Vec<u32> = ends.iter().enumerate().map(|(row, end)| (row * padded) as u32 + end).collect();
        let mask = if lengths.iter().all(|&n| n == padded) {
            None
        } else {
            let seen = |n: usize, i: usize| if i < n { 0f32 } else { f32::NEG_INFINITY };
            let values: Vec<f32> =
                lengths.iter().flat_map(|&n| (0..padded).map(move |i| seen(n, i))).collect();
            Some(Tensor::from_vec(values, (batch, 1, 1, padded), device)?.to_dtype(angles.cos.dtype())?)
        };
        let angles = angles.at(&Tensor::from_vec(ends, batch, device)?)?;
        Ok(Self { indices: Tensor::from_vec(flat, batch, device)?, angles, mask, batch })
    }
}

/// What a token may see of its own row, `[length, length]`; `None` for a single token.
fn causal_mask(length: usize, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
    if length == 1 {
        return Ok(None);
    }
    let seen = |i: usize, j: usize| if j <= i { 0f32 } else { f32::NEG_INFINITY };
    let values: Vec<f32> = (0..length).flat_map(|i| (0..length).map(move |j| seen(i, j))).collect();
    Ok(Some(Tensor::from_vec(values, (length, length), device)?.to_dtype(dtype)?))
}

#[derive(Debug)]
struct Layer {
    norm1: RmsNorm,
    attention: Attention,
    norm2: RmsNorm,
    /// Gate and up projections, one below the other.
    gate_up: Linear,
    down: Linear,
}

impl Layer {
    fn load(config: &TextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let mlp = vb.pp("mlp");
        let gate = mlp.pp("gate_proj").get((inner, hidden), "weight")?;
        let up = mlp.pp("up_proj").get((inner, hidden), "weight")?;
        Ok(Self {
            norm1: candle_nn::rms_norm(hidden, config.epsilon, vb.pp("input_layernorm"))?,
            attention: Attention::load(config, &vb.pp("self_attn"))?,
            norm2: candle_nn::rms_norm(hidden, config.epsilon, vb.pp("post_attention_layernorm"))?,
            gate_up: Linear::new(Tensor::cat(&[gate, up], 0)?, None),
            down: candle_nn::linear_no_bias(inner, hidden, mlp.pp("down_proj"))?,
        })
    }

    /// Adds the attention's result and what the feed-forward layers make of the sum.
    fn finish(&self, xs: &Tensor, mixed: &Tensor) -> Result<Tensor> {
        let xs = (xs + self.attention.output.forward(mixed)?)?;
        let inner = swiglu(&self.gate_up.forward(&self.norm2.forward(&xs)?)?)?;
        &xs + self.down.forward(&inner)?
    }

    /// The layer at the picked tokens only, `[batch, hidden]`.
    fn forward_picked(
        &self,
        xs: &Tensor,
        normed: &Tensor,
        own: &(Tensor, Tensor),
        past: Option<&(Tensor, Tensor)>,
        picks: &Picks,
    ) -> Result<Tensor> {
        let queries = self.attention.picked_queries(&normed.index_select(&picks.indices, 0)?, picks)?;
        let mixed = self.attention.mix(&queries, own, past, picks.mask.as_ref())?;
        self.finish(&xs.index_select(&picks.indices, 0)?, &mixed)
    }
}

/// Grouped-query attention. The axes of all its tensors start with the key-value head and the row of the batch, so
/// that the past, which all rows share, is multiplied once for each head and never copied.
#[derive(Debug)]
struct Attention {
    /// Scaled by `1 / sqrt(head)`.
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    kv_heads: usize,
    group: usize,
    head: usize,
}

impl Attention {
    fn load(config: &TextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let head = config.head_dim;
        let (queries, keys) = (config.heads * head, config.kv_heads * head);
        let query = candle_nn::linear(config.hidden, queries, vb.pp("q_proj"))?;
        Ok(Self {
            query: scaled(&query, 1.0 / (head as f64).sqrt())?,
            key: candle_nn::linear(config.hidden, keys, vb.pp("k_proj"))?,
            value: candle_nn::linear(config.hidden, keys, vb.pp("v_proj"))?,
            output: candle_nn::linear_no_bias(queries, config.hidden, vb.pp("o_proj"))?,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            head,
        })
    }

    /// Keys and values of `[batch * length, hidden]`, each `[kv heads, batch, length, head]`.
    fn keys_values(&self, normed: &Tensor, rows: Rows, angles: &Angles) -> Result<(Tensor, Tensor)> {
        let shape = (rows.batch, rows.length, self.kv_heads, self.head);
        let k = angles.turn(&self.key.forward(normed)?.reshape(shape)?)?;
        let v = self.value.forward(normed)?.reshape(shape)?;
        Ok((k.permute((2, 0, 1, 3))?.contiguous()?, v.permute((2, 0, 1, 3))?.contiguous()?))
    }

    /// Queries, `[kv heads, batch, group, length, head]`.
    fn queries(&self, normed: &Tensor, rows: Rows, angles: &Angles) -> Result<Tensor> {
        let heads = self.kv_heads * self.group;
        let q = self.query.forward(normed)?.reshape((rows.batch, rows.length, heads, self.head))?;
        let q = angles.turn(&q)?.reshape((rows.batch, rows.length, self.kv_heads, self.group, self.head))?;
        q.permute((2, 0, 3, 1, 4))?.contiguous()
    }

    /// Queries of one token a row, `[kv heads, batch, group, 1, head]`.
    fn picked_queries(&self, normed: &Tensor, picks: &Picks) -> Result<Tensor> {
        let heads = self.kv_heads * self.group;
        // For the rotation the rows are tokens of one sequence: each has its own position.
        let q = self.query.forward(normed)?.reshape((1, picks.batch, heads, self.head))?;
        let q = picks.angles.turn(&q)?.reshape((picks.batch, self.kv_heads, self.group, 1, self.head))?;
        q.transpose(0, 1)?.contiguous()
    }

    /// What the queries gather from the past and from their own row, `[batch * length, heads * head]`. `mask` is
    /// added to the scores of the own row and broadcasts to `[kv heads, batch, group, queries, keys]`.
    fn mix(
        &self,
        queries: &Tensor,
        own: &(Tensor, Tensor),
        past: Option<&(Tensor, Tensor)>,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (kv, batch, group, length, head) = queries.dims5()?;
        let keys = own.0.dim(2)?;
        let by_row = (kv * batch, group * length, head);
        let own_keys = own.0.flatten(0, 1)?;
        let mut scores = queries.reshape(by_row)?.matmul(&own_keys.t()?)?;
        if let Some(mask) = mask {
            scores = scores.reshape((kv, batch, group, length, keys))?.broadcast_add(mask)?.reshape((
                kv * batch,
                group * length,
                keys,
            ))?;
        }
        let own_values = own.1.flatten(0, 1)?;
        let mixed = match past {
            None => softmax_last_dim(&scores)?.matmul(&own_values)?,
            Some((past_keys, past_values)) => {
                let before = past_keys.dim(1)?;
                let together = (kv, batch * group * length, head);
                let past_scores = queries.reshape(together)?.matmul(&past_keys.t()?)?;
                let past_scores = past_scores.reshape((kv * batch, group * length, before))?;
                let weights = softmax_last_dim(&Tensor::cat(&[&past_scores, &scores], 2)?)?;
                let from_own = weights.narrow(2, before, keys)?.matmul(&own_values)?;
                let weights = weights.reshape((kv, batch * group * length, before + keys))?;
                let from_past = weights.narrow(2, 0, before)?.matmul(past_values)?;
                (from_past.reshape(by_row)? + from_own)?
            }
        };
        mixed
            .reshape((kv, batch, group, length, head))?
            .permute((1, 3, 0, 2, 4))?
            .reshape((batch * length, kv * group * head))
    }
}

/// The layer with its outputs multiplied by `factor`.
pub(super) fn scaled(layer: &Linear, factor: f64) -> Result<Linear> {
    Ok(Linear::new((layer.weight() * factor)?, layer.bias().map(|bias| bias * factor).transpose()?))
}
