//! One layer of the decoder.

use candle_core::{Device, Result, Tensor};
use candle_nn::{VarBuilder, ops::softmax_last_dim};

use super::config::DecoderConfig;
use super::key_values::{KeyValues, Past};
use super::weights::LayerWeights;
use crate::layers::{
    FeedForward, Inner, Linear, Memory, Norm, Quantisation, Sequence, Turn, attention, turned, widened,
};
use crate::rope::Angles;

/// The shape of a batch and where its tokens are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) batch: usize,
    pub(super) length: usize,
    /// Of one row if all are at the same positions, else of every token.
    pub(super) angles: &'a Angles,
}

/// What a row sees besides itself, and where its keys and values go.
pub(super) enum Context<'a, 'k> {
    /// A past of its own, to which they are appended.
    Append(&'a mut KeyValues),
    /// A past that all rows share; the rows' own keys and values are kept for later, or not.
    Shared { past: Past<'a>, kept: Option<&'k mut Vec<(Tensor, Tensor)>> },
}

/// Keys and values of a layer, as attention reads them.
struct Seen {
    /// `[kv heads * rows, columns, head]`.
    own: (Tensor, Tensor),
    /// `[kv heads, columns, head]`.
    shared: Option<(Tensor, Tensor)>,
}

impl Context<'_, '_> {
    fn see(&mut self, layer: usize, own: (Tensor, Tensor)) -> Result<Seen> {
        match self {
            Self::Append(sequences) => Ok(Seen { own: sequences.write(layer, &own)?, shared: None }),
            Self::Shared { past, kept } => {
                if let Some(kept) = kept {
                    kept.push(own.clone());
                }
                Ok(Seen { own, shared: past.layer(layer)? })
            }
        }
    }
}

/// What queries see of their own row.
pub(super) enum Visible {
    /// All of it.
    Everything,
    /// For the kernels of the CPU: of row `i` the columns from `starts[i]` to `ends[i]`, and if `causal` of these only
    /// what does not come after a query.
    Rows { causal: bool, starts: Vec<usize>, ends: Vec<usize> },
    /// Added to the scores, f32: broadcasts to `[kv heads, batch, group, queries, columns]`.
    Added(Tensor),
    /// For the fused kernel: only what does not come after a query, and of each row only the columns from its start to
    /// its end, where these are given.
    #[cfg(feature = "cuda")]
    Spans { causal: bool, starts: Option<Tensor>, ends: Option<Tensor> },
}

/// Where attention is computed, and whether by a fused kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) device: &'a Device,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub(super) fused: bool,
    /// Whether [`attention`] has kernels for it.
    pub(super) kernels: bool,
}

/// The last real token of each row.
pub(super) struct Picks {
    /// Indices into `[batch * length]`.
    indices: Tensor,
    /// Angles at these tokens.
    angles: Angles,
    /// What each of them may see of its own row.
    visible: Visible,
    batch: usize,
}

impl Picks {
    /// `lengths[i]` of `padded` new tokens are real in row `i`, which starts at `starts[i]` and had `before` columns.
    pub(super) fn new(
        lengths: &[usize],
        padded: usize,
        angles: Angles,
        (starts, before): (&[usize], usize),
        place: Place<'_>,
    ) -> Result<Self> {
        let batch = lengths.len();
        let flat: Vec<u32> =
            lengths.iter().enumerate().map(|(row, n)| (row * padded + n - 1) as u32).collect();
        let visible = Self::visible(lengths, padded, (starts, before), place)?;
        let indices = Tensor::from_vec(flat, batch, place.device)?;
        Ok(Self { indices, angles, visible, batch })
    }

    fn visible(
        lengths: &[usize],
        padded: usize,
        (starts, before): (&[usize], usize),
        place: Place<'_>,
    ) -> Result<Visible> {
        if place.kernels {
            let ends = lengths.iter().map(|n| before + n).collect();
            return Ok(Visible::Rows { causal: false, starts: starts.to_vec(), ends });
        }
        let aligned = starts.iter().all(|&start| start == 0);
        let whole = lengths.iter().all(|&n| n == padded);
        if aligned && whole {
            return Ok(Visible::Everything);
        }
        #[cfg(feature = "cuda")]
        if place.fused {
            let starts = if aligned { None } else { Some(numbers(starts.iter().copied(), place.device)?) };
            let ends = lengths.iter().map(|&n| before + n);
            let ends = if whole { None } else { Some(numbers(ends, place.device)?) };
            return Ok(Visible::Spans { causal: false, starts, ends });
        }
        let columns = before + padded;
        let values: Vec<f32> = lengths
            .iter()
            .zip(starts)
            .flat_map(|(&n, &start)| (0..columns).map(move |at| hidden(at >= start && at < before + n)))
            .collect();
        let mask = Tensor::from_vec(values, (lengths.len(), 1, 1, columns), place.device)?;
        Ok(Visible::Added(mask))
    }
}

/// What tokens may see of their own row, which starts at `starts[i]` and had `before` columns: nothing that comes after
/// them.
pub(super) fn causal(starts: &[usize], before: usize, length: usize, place: Place<'_>) -> Result<Visible> {
    let columns = before + length;
    if place.kernels {
        let ends = vec![columns; starts.len()];
        return Ok(Visible::Rows { causal: true, starts: starts.to_vec(), ends });
    }
    let aligned = starts.iter().all(|&start| start == 0);
    if aligned && length == 1 {
        return Ok(Visible::Everything);
    }
    #[cfg(feature = "cuda")]
    if place.fused {
        let starts = if aligned { None } else { Some(numbers(starts.iter().copied(), place.device)?) };
        return Ok(Visible::Spans { causal: true, starts, ends: None });
    }
    let starts = if aligned { &starts[..1] } else { starts };
    let mut values = Vec::with_capacity(starts.len() * length * columns);
    for &start in starts {
        for token in 0..length {
            values.extend((0..columns).map(|at| hidden(at >= start && at <= before + token)));
        }
    }
    let mask = if aligned {
        Tensor::from_vec(values, (length, columns), place.device)?
    } else {
        Tensor::from_vec(values, (starts.len(), 1, length, columns), place.device)?
    };
    Ok(Visible::Added(mask))
}

#[cfg(feature = "cuda")]
fn numbers(values: impl Iterator<Item = usize>, device: &Device) -> Result<Tensor> {
    Tensor::new(values.map(|value| value as u32).collect::<Vec<_>>(), device)
}

/// Added to a score.
fn hidden(seen: bool) -> f32 {
    if seen { 0.0 } else { f32::NEG_INFINITY }
}

/// One layer: attention, then the feed-forward block, each added to what came in.
#[derive(Debug)]
pub(super) struct Layer {
    norm: Norm,
    attention: Attention,
    feed_forward: FeedForward,
}

impl Layer {
    pub(super) fn load(
        config: &DecoderConfig,
        vb: &VarBuilder<'_>,
        quantisation: Option<Quantisation>,
    ) -> Result<Self> {
        let weights = LayerWeights::new(config, vb, quantisation);
        let norm = |vb: &VarBuilder<'_>| Norm::rms(config.hidden, config.epsilon, vb);
        let [gate, up, down] = weights.feed_forward()?;
        Ok(Self {
            norm: norm(&weights.attention_norm())?,
            attention: Attention::load(config, &weights)?,
            feed_forward: FeedForward {
                norm: norm(&weights.feed_forward_norm())?,
                expand: Linear::of(vec![gate, up])?,
                inner: Inner::Gated,
                contract: Linear::of(vec![down])?,
            },
        })
    }

    /// Bytes of its matrices in memory.
    pub(super) fn bytes(&self) -> usize {
        let Attention { query, key_value, output, .. } = &self.attention;
        let FeedForward { expand, contract, .. } = &self.feed_forward;
        [query, key_value, output, expand, contract].into_iter().map(Linear::bytes).sum()
    }

    /// `[batch * length, hidden]` to the same.
    pub(super) fn forward(
        &self,
        index: usize,
        xs: &Tensor,
        rows: Rows<'_>,
        visible: &Visible,
        context: &mut Context<'_, '_>,
    ) -> Result<Tensor> {
        let normed = self.norm.forward(xs)?;
        let seen = context.see(index, self.attention.keys_values(&normed, rows)?)?;
        self.finish(xs, &self.attention.gather(&normed, rows, &seen, visible)?)
    }

    /// The layer at the picked tokens only, `[batch, hidden]`.
    pub(super) fn forward_picked(
        &self,
        index: usize,
        xs: &Tensor,
        rows: Rows<'_>,
        picks: &Picks,
        context: &mut Context<'_, '_>,
    ) -> Result<Tensor> {
        let normed = self.norm.forward(xs)?;
        let seen = context.see(index, self.attention.keys_values(&normed, rows)?)?;
        let rows = Rows { batch: picks.batch, length: 1, angles: &picks.angles };
        let picked = normed.index_select(&picks.indices, 0)?;
        let mixed = self.attention.gather(&picked, rows, &seen, &picks.visible)?;
        self.finish(&xs.index_select(&picks.indices, 0)?, &mixed)
    }

    /// Keys and values only.
    pub(super) fn remember(
        &self,
        index: usize,
        xs: &Tensor,
        rows: Rows<'_>,
        context: &mut Context<'_, '_>,
    ) -> Result<Tensor> {
        context.see(index, self.attention.keys_values(&self.norm.forward(xs)?, rows)?)?;
        Ok(xs.clone())
    }

    /// Adds the attention's result and what the feed-forward layers make of the sum.
    fn finish(&self, xs: &Tensor, mixed: &Tensor) -> Result<Tensor> {
        self.feed_forward.forward(&self.attention.output.forward_add(mixed, xs)?)
    }
}

/// Grouped-query attention. The axes of all its tensors start with the key-value head and the row of the batch, so
/// that a past that all rows share is multiplied once for each head and never copied.
#[derive(Debug)]
struct Attention {
    query: Linear,
    /// Keys, then values.
    key_value: Linear,
    head_norms: Option<HeadNorms>,
    output: Linear,
    kv_heads: usize,
    group: usize,
    head: usize,
    /// Of the scores, `1 / sqrt(head)`. Not of the queries or their weights: in bf16 they would be rounded once more.
    scale: f64,
}

/// Norms of each head, before it is turned (`Qwen3Attention` in `models/qwen3/modeling_qwen3.py` of transformers 5.17).
#[derive(Debug)]
struct HeadNorms {
    query: Norm,
    key: Norm,
}

impl Attention {
    fn load(config: &DecoderConfig, weights: &LayerWeights<'_, '_>) -> Result<Self> {
        let head = config.head_dim;
        let [query, key, value] = weights.inputs()?;
        let head_norms = if config.head_norms {
            let norm = |name: &str| Norm::rms(head, config.epsilon, &weights.attention().pp(name));
            Some(HeadNorms { query: norm("q_norm")?, key: norm("k_norm")? })
        } else {
            None
        };
        Ok(Self {
            query: Linear::of(vec![query])?,
            key_value: Linear::of(vec![key, value])?,
            head_norms,
            output: Linear::of(vec![weights.output()?])?,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            head,
            scale: 1.0 / (head as f64).sqrt(),
        })
    }

    /// Keys and values of `[batch * length, hidden]`, each `[kv heads * batch, length, head]`.
    fn keys_values(&self, normed: &Tensor, rows: Rows<'_>) -> Result<(Tensor, Tensor)> {
        let turn = Turn { angles: rows.angles, heads: self.kv_heads };
        let both = match &self.head_norms {
            None => self.key_value.forward_turned(normed, None, turn)?,
            Some(norms) => {
                let both = self.key_value.forward(normed)?;
                let width = self.kv_heads * self.head;
                let keys = self.turned(&both.narrow(1, 0, width)?, &norms.key, turn)?;
                Tensor::cat(&[&keys, &both.narrow(1, width, width)?], 1)?
            }
        };
        let both = both.reshape((rows.batch, rows.length, 2 * self.kv_heads, self.head))?;
        let both = both.permute((2, 0, 1, 3))?.contiguous()?.flatten(0, 1)?;
        let half = self.kv_heads * rows.batch;
        Ok((both.narrow(0, 0, half)?, both.narrow(0, half, half)?))
    }

    /// Heads `[tokens, heads * head]`, each normalised, then turned.
    fn turned(&self, heads: &Tensor, norm: &Norm, turn: Turn<'_>) -> Result<Tensor> {
        let shape = heads.dims2()?;
        let normed = norm.forward(&heads.reshape((shape.0, turn.heads, self.head))?)?;
        turned(&normed.reshape(shape)?, turn)
    }

    /// What the tokens gather from their own row and from a shared past, `[batch * length, heads * head]`.
    fn gather(&self, normed: &Tensor, rows: Rows<'_>, seen: &Seen, visible: &Visible) -> Result<Tensor> {
        let turn = Turn { angles: rows.angles, heads: self.kv_heads * self.group };
        let queries = match &self.head_norms {
            None => self.query.forward_turned(normed, None, turn)?,
            Some(norms) => self.turned(&self.query.forward(normed)?, &norms.query, turn)?,
        };
        let mask = match visible {
            Visible::Rows { causal, starts, ends } => {
                return self.gather_rows(&queries, rows, seen, *causal, (starts, ends));
            }
            Visible::Everything => None,
            Visible::Added(mask) => Some(mask),
            #[cfg(feature = "cuda")]
            Visible::Spans { .. } => None,
        };
        #[cfg(feature = "cuda")]
        if mask.is_none() && crate::cuda::applies(normed) && crate::cuda::HEADS.contains(&self.head) {
            return self.gather_fused(&queries, rows, seen, visible);
        }
        // `[kv heads, batch, group, length, head]`
        let shape = (rows.batch, rows.length, self.kv_heads, self.group, self.head);
        self.mix(&queries.reshape(shape)?.permute((2, 0, 3, 1, 4))?.contiguous()?, seen, mask)
    }

    /// The same by the kernels of the CPU.
    fn gather_rows(
        &self,
        queries: &Tensor,
        rows: Rows<'_>,
        seen: &Seen,
        causal: bool,
        (starts, ends): (&[usize], &[usize]),
    ) -> Result<Tensor> {
        let Rows { batch, length, .. } = rows;
        let queries = queries.reshape((batch * length, self.kv_heads * self.group, self.head))?;
        let mut memories = Vec::with_capacity(batch + 1);
        if let Some((keys, values)) = &seen.shared {
            memories.push(Memory::new(keys.transpose(0, 1)?, values.transpose(0, 1)?));
        }
        let shared = memories.len();
        let mut sequences = Vec::with_capacity(batch);
        for (row, (&start, &end)) in starts.iter().zip(ends).enumerate() {
            let own = |all: &Tensor| all.transpose(0, 1)?.narrow(0, start, end - start);
            memories.push(Memory::of_row(own(&seen.own.0)?, own(&seen.own.1)?, row, batch));
            let memories = (0..shared).chain([shared + row]).collect();
            sequences.push(Sequence { queries: row * length..(row + 1) * length, memories, causal });
        }
        attention(&queries, &memories, &sequences, self.scale)
    }

    /// The same in one kernel.
    #[cfg(feature = "cuda")]
    fn gather_fused(
        &self,
        queries: &Tensor,
        rows: Rows<'_>,
        seen: &Seen,
        visible: &Visible,
    ) -> Result<Tensor> {
        let heads = self.kv_heads * self.group;
        let queries = queries.reshape((rows.batch, rows.length, heads, self.head))?;
        let spans = match visible {
            Visible::Spans { causal, starts, ends } => {
                crate::cuda::Visible { causal: *causal, starts: starts.as_ref(), ends: ends.as_ref() }
            }
            _ => crate::cuda::Visible::default(),
        };
        let own = (&seen.own.0, &seen.own.1);
        let past = seen.shared.as_ref().map(|(keys, values)| (keys, values));
        let scale = self.scale as f32;
        let mixed = crate::cuda::attention(&queries, self.kv_heads, (past, own), spans, scale)?;
        mixed.reshape((rows.batch * rows.length, heads * self.head))
    }

    /// What the queries gather from their own row and from a shared past, `[batch * length, heads * head]`. `mask` is
    /// added to the scores of the own row and broadcasts to `[kv heads, batch, group, queries, columns]`.
    fn mix(&self, queries: &Tensor, seen: &Seen, mask: Option<&Tensor>) -> Result<Tensor> {
        let (kv, batch, group, length, head) = queries.dims5()?;
        let (own_keys, own_values) = &seen.own;
        let columns = own_keys.dim(1)?;
        let by_row = (kv * batch, group * length, head);
        // Scores are long sums; in 16 bits they would be rounded, or be too large for f16.
        let queries = (widened(queries)? * self.scale)?;
        let mut scores = queries.reshape(by_row)?.matmul(&widened(own_keys)?.t()?)?;
        if let Some(mask) = mask {
            let mask = &mask.to_dtype(scores.dtype())?;
            scores = scores.reshape((kv, batch, group, length, columns))?.broadcast_add(mask)?.reshape((
                kv * batch,
                group * length,
                columns,
            ))?;
        }
        let mixed = match &seen.shared {
            None => softmax_last_dim(&scores)?.to_dtype(own_values.dtype())?.matmul(own_values)?,
            Some((past_keys, past_values)) => {
                let before = past_keys.dim(1)?;
                let together = (kv, batch * group * length, head);
                let past_scores = queries.reshape(together)?.matmul(&widened(past_keys)?.t()?)?;
                let past_scores = past_scores.reshape((kv * batch, group * length, before))?;
                let weights = softmax_last_dim(&Tensor::cat(&[&past_scores, &scores], 2)?)?;
                let weights = weights.to_dtype(own_values.dtype())?;
                let from_own = for_product(weights.narrow(2, before, columns)?)?.matmul(own_values)?;
                let weights = weights.reshape((kv, batch * group * length, before + columns))?;
                let from_past = for_product(weights.narrow(2, 0, before)?)?.matmul(past_values)?;
                (from_past.reshape(by_row)? + from_own)?
            }
        };
        mixed
            .reshape((kv, batch, group, length, head))?
            .permute((1, 3, 0, 2, 4))?
            .reshape((batch * length, kv * group * head))
    }
}

/// A part of a row as the left side of a product: the CPU takes it where it lies, cuBLAS does not.
fn for_product(part: Tensor) -> Result<Tensor> {
    if part.device().is_cpu() { Ok(part) } else { part.contiguous() }
}
