//! Attention of sequences over keys and values that lie in one or several places.
//!
//! The scores of a block of queries stay in a core's own cache: they are never a tensor, whatever the number of
//! tokens. Sequences of different lengths run side by side without padding, and what several of them look at (the
//! beginning that many questions share) is laid out for the products once.

use std::ops::{Deref, Range};

use candle_core::{DType, Result, Storage, Tensor};
use candle_nn::ops::softmax_last_dim;
use rayon::prelude::*;

use super::product::{Packed, Rows, multiply};
use super::{Values, division, has_kernels, rows, values, widened};

/// Scores of one block of queries: 256 KiB, which a core's own cache holds beside the keys.
const SCORES: usize = 1 << 16;
/// The same on candle's operations, where all heads are computed at a time: 64 MiB in f32.
const SCORES_PLAIN: usize = 1 << 24;
/// Queries of one block at most.
const MOST_QUERIES: usize = 64;
/// From so many queries on it pays to lay out the keys and values for the products.
const FEW_QUERIES: usize = 6;

/// Keys and values that queries look at: `[tokens, kv heads, head]` each, any strides but the last.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    keys: Tensor,
    values: Tensor,
    /// Where the heads are on the second axis: the first one, and how far apart.
    first: usize,
    step: usize,
}

impl Memory {
    /// Keys and values of one sequence.
    pub(crate) fn new(keys: Tensor, values: Tensor) -> Self {
        Self { keys, values, first: 0, step: 1 }
    }

    /// Those of one of `rows` sequences that lie beside each other, `[tokens, kv heads * rows, head]`: the first head of
    /// each, then the second of each, and so on.
    pub(crate) fn of_row(keys: Tensor, values: Tensor, row: usize, rows: usize) -> Self {
        Self { keys, values, first: row, step: rows }
    }

    /// The first `tokens` tokens.
    ///
    /// # Errors
    /// There are fewer.
    pub(crate) fn first(&self, tokens: usize) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.narrow(0, 0, tokens);
        Ok(Self { keys: part(&self.keys)?, values: part(&self.values)?, ..*self })
    }

    /// In f32.
    fn widened(&self) -> Result<Self> {
        Ok(Self { keys: widened(&self.keys)?, values: widened(&self.values)?, ..*self })
    }

    fn tokens(&self) -> usize {
        self.keys.dims()[0]
    }

    fn heads(&self) -> Result<usize> {
        Ok(self.keys.dim(1)? / self.step.max(1))
    }
}

/// Queries that look at the same memories.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    /// Rows of the queries.
    pub(crate) queries: Range<usize>,
    /// Indices of the memories, one behind the other; at least one.
    pub(crate) memories: Vec<usize>,
    /// Whether the last query sees all of the last memory and each one before it a token less; else everyone sees
    /// everything.
    pub(crate) causal: bool,
}

/// What each query gathers, `[queries, heads * head]`. `queries` has shape `[queries, heads, head]`, any strides but
/// the last; scores are multiplied by `scale`. The heads of the queries are divided evenly between those of the keys.
/// The sequences cover all queries in order.
///
/// # Errors
/// Shapes or indices that do not fit.
pub(crate) fn attention(
    queries: &Tensor,
    memories: &[Memory],
    sequences: &[Sequence],
    scale: f64,
) -> Result<Tensor> {
    check(queries, memories, sequences)?;
    #[cfg(feature = "cuda")]
    if crate::cuda::applies(queries) && crate::cuda::HEADS.contains(&queries.dim(2)?) {
        return on_gpu(queries, memories, sequences, scale);
    }
    if has_kernels(queries) && memories.iter().all(|m| has_kernels(&m.keys) && has_kernels(&m.values)) {
        if queries.dtype() == DType::F32 {
            return fused(queries, memories, sequences, scale as f32);
        }
        let wide = memories.iter().map(Memory::widened).collect::<Result<Vec<_>>>()?;
        let mixed = fused(&widened(queries)?, &wide, sequences, scale as f32)?;
        return mixed.to_dtype(queries.dtype());
    }
    let parts = sequences
        .iter()
        .map(|sequence| plain(queries, memories, sequence, scale))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0)
}

fn check(queries: &Tensor, memories: &[Memory], sequences: &[Sequence]) -> Result<()> {
    let (count, heads, head) = queries.dims3()?;
    if count == 0 || head == 0 {
        candle_core::bail!("attention over nothing: queries {:?}", queries.shape());
    }
    for memory in memories {
        let (tokens, all, width) = memory.keys.dims3()?;
        let kv_heads = memory.heads()?;
        let fits = memory.values.dims() == [tokens, all, width]
            && width == head
            && kv_heads > 0
            && memory.first + (kv_heads - 1) * memory.step < all;
        if !fits || !heads.is_multiple_of(kv_heads) || kv_heads != memories[0].heads()? {
            candle_core::bail!(
                "queries {:?}, keys {:?}, values {:?}",
                queries.shape(),
                memory.keys.shape(),
                memory.values.shape()
            );
        }
    }
    let mut next = 0;
    for Sequence { queries, memories: seen, causal } in sequences {
        let tokens = |index: &usize| memories.get(*index).map_or(0, Memory::tokens);
        let enough = !causal || seen.last().map_or(0, tokens) >= queries.len();
        if queries.start != next || queries.is_empty() || seen.iter().all(|i| tokens(i) == 0) || !enough {
            candle_core::bail!("a sequence of queries {queries:?} that look at the memories {seen:?}");
        }
        next = queries.end;
    }
    if next != count {
        candle_core::bail!("sequences of {next} queries, there are {count}");
    }
    Ok(())
}

/// A tensor `[tokens, heads, head]` in memory.
#[derive(Clone, Copy)]
struct Heads<'a> {
    values: &'a [f32],
    token: usize,
    head: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    /// Every `step`th head from `first` on.
    fn new<S: Deref<Target = Storage>>(access: &'a Values<'_, S>, first: usize, step: usize) -> Result<Self> {
        let (stride, dims) = (access.layout.stride(), access.layout.dims());
        let values = &access.strided()?[first * stride[1]..];
        Ok(Self { values, token: stride[0], head: stride[1] * step, width: dims[2] })
    }

    /// From the first value of a head on; tokens are `self.token` values apart.
    fn of(&self, head: usize) -> &'a [f32] {
        &self.values[head * self.head..]
    }

    fn at(&self, token: usize, head: usize) -> &'a [f32] {
        &self.values[token * self.token + head * self.head..][..self.width]
    }
}

/// A memory on the CPU.
struct Seen<'a> {
    keys: Heads<'a>,
    values: Heads<'a>,
    tokens: usize,
    /// Of each head: keys as columns, values as rows. Empty if too few queries look here.
    packed: Vec<(Packed, Packed)>,
}

/// A block of queries of one sequence.
struct Task<'a, 'b> {
    queries: Range<usize>,
    sequence: &'b Sequence,
    out: &'a mut [f32],
}

fn fused(queries: &Tensor, memories: &[Memory], sequences: &[Sequence], scale: f32) -> Result<Tensor> {
    let (count, heads, width) = queries.dims3()?;
    let kv_heads = memories[0].heads()?;
    let access = values(queries);
    let queries_in = Heads::new(&access, 0, 1)?;
    let both: Vec<_> = memories.iter().map(|m| (values(&m.keys), values(&m.values))).collect();
    let mut looking = vec![0; memories.len()];
    let mut scores = 0;
    for sequence in sequences {
        for &index in &sequence.memories {
            looking[index] += sequence.queries.len() * heads / kv_heads;
            scores += sequence.queries.len() * memories[index].tokens();
        }
    }
    let threads = division::threads(4 * scores * heads * width);
    let mut seen = both
        .iter()
        .zip(memories)
        .map(|((keys, values), memory)| {
            let (first, step) = (memory.first, memory.step);
            let (keys, values) = (Heads::new(keys, first, step)?, Heads::new(values, first, step)?);
            Ok(Seen { keys, values, tokens: memory.tokens(), packed: Vec::new() })
        })
        .collect::<Result<Vec<_>>>()?;
    let pack = |(seen, looking): (&mut Seen<'_>, usize)| {
        if looking < FEW_QUERIES {
            return;
        }
        let head = |head| {
            let keys = Packed::from_columns(width, seen.tokens, |token| seen.keys.at(token, head));
            (keys, Packed::from_rows(seen.tokens, width, |token| seen.values.at(token, head)))
        };
        seen.packed = if threads > 1 {
            (0..kv_heads).into_par_iter().map(head).collect()
        } else {
            (0..kv_heads).map(head).collect()
        };
    };
    if threads > 1 {
        seen.par_iter_mut().zip(looking).for_each(pack);
    } else {
        seen.iter_mut().zip(looking).for_each(pack);
    }
    let mut out = vec![0f32; count * heads * width];
    let tasks = tasks(sequences, &seen, threads, heads / kv_heads, &mut out, heads * width);
    let block = Block { queries: queries_in, seen: &seen, kv_heads, group: heads / kv_heads, scale };
    if threads > 1 {
        tasks.into_par_iter().for_each(|task| block.run(task));
    } else {
        tasks.into_iter().for_each(|task| block.run(task));
    }
    Tensor::from_vec(out, (count, heads * width), queries.device())
}

/// Divides the sequences into blocks of queries, each with its part of the result.
fn tasks<'a, 'b>(
    sequences: &'b [Sequence],
    seen: &[Seen<'_>],
    threads: usize,
    group: usize,
    mut out: &'a mut [f32],
    row: usize,
) -> Vec<Task<'a, 'b>> {
    let mut tasks = Vec::new();
    for sequence in sequences {
        let count = sequence.queries.len();
        let keys: usize = sequence.memories.iter().map(|&index| seen[index].tokens).sum();
        let most = (SCORES / (keys * group).max(1)).clamp(1, MOST_QUERIES);
        // As many blocks for each thread as for any other, unless other sequences fill them.
        let turns = if sequences.len() >= threads {
            count.div_ceil(most)
        } else {
            threads * count.div_ceil(threads * most)
        };
        let step = count.div_ceil(turns.max(1)).max(1);
        for start in sequence.queries.clone().step_by(step) {
            let queries = start..(start + step).min(sequence.queries.end);
            let (own, rest) = out.split_at_mut(queries.len() * row);
            out = rest;
            tasks.push(Task { queries, sequence, out: own });
        }
    }
    tasks
}

/// What all blocks of queries have in common.
struct Block<'a> {
    queries: Heads<'a>,
    seen: &'a [Seen<'a>],
    kv_heads: usize,
    /// Heads of the queries for each one of the keys.
    group: usize,
    scale: f32,
}

impl Block<'_> {
    fn run(&self, task: Task<'_, '_>) {
        let (group, width) = (self.group, self.queries.width);
        let row = self.kv_heads * group * width;
        let sequence = task.sequence;
        let keys: usize = sequence.memories.iter().map(|&index| self.seen[index].tokens).sum();
        // A query sees all of these keys but the ones that come after it.
        let visible = |query: usize| {
            if sequence.causal { keys - (sequence.queries.end - 1 - query) } else { keys }
        };
        // Nobody of this block sees more.
        let keys = visible(task.queries.end - 1);
        let count = task.queries.len() * group;
        let mut scaled = vec![0f32; count * width];
        let mut scores = vec![0f32; count * keys];
        let mut mixed = vec![0f32; count * width];
        for kv_head in 0..self.kv_heads {
            // Rows of a block: the heads of the first query, those of the second, ...
            let places = || task.queries.clone().flat_map(|query| (0..group).map(move |head| (query, head)));
            for ((query, head), out) in places().zip(scaled.chunks_exact_mut(width)) {
                let values = self.queries.at(query, kv_head * group + head);
                for (out, value) in out.iter_mut().zip(values) {
                    *out = value * self.scale;
                }
            }
            self.each_memory(sequence, keys, |seen, first, tokens| {
                seen.score(&scaled, kv_head, tokens, &mut scores[first..], keys);
            });
            for ((query, _), row) in places().zip(scores.chunks_exact_mut(keys)) {
                let (seen, hidden) = row.split_at_mut(visible(query));
                rows::softmax(seen);
                hidden.fill(0.0);
            }
            mixed.fill(0.0);
            self.each_memory(sequence, keys, |seen, first, tokens| {
                seen.gather(&scores[first..], keys, kv_head, tokens, &mut mixed);
            });
            for ((query, head), mixed) in places().zip(mixed.chunks_exact(width)) {
                let start = (query - task.queries.start) * row + (kv_head * group + head) * width;
                task.out[start..start + width].copy_from_slice(mixed);
            }
        }
    }

    /// Calls `work(memory, first, tokens)` for each memory of which any of the first `keys` keys are seen: where they
    /// begin and how many there are.
    fn each_memory(&self, sequence: &Sequence, keys: usize, mut work: impl FnMut(&Seen<'_>, usize, usize)) {
        let mut first = 0;
        for &index in &sequence.memories {
            let seen = &self.seen[index];
            let tokens = seen.tokens.min(keys - first);
            if tokens > 0 {
                work(seen, first, tokens);
            }
            first += tokens;
        }
    }
}

impl Seen<'_> {
    /// Scores of queries (rows without gaps) with the first `tokens` keys of a head; rows of `out` are `stride` values
    /// apart.
    fn score(&self, queries: &[f32], head: usize, tokens: usize, out: &mut [f32], stride: usize) {
        let width = self.keys.width;
        match self.packed.get(head) {
            Some((keys, _)) => {
                multiply(Rows::dense(queries, width), keys.first_columns(tokens), out, stride, false);
            }
            None => {
                for (query, out) in queries.chunks_exact(width).zip(out.chunks_mut(stride)) {
                    rows::dots(query, self.keys.of(head), self.keys.token, &mut out[..tokens]);
                }
            }
        }
    }

    /// Adds to rows of `out` the first `tokens` values of a head, each times its share; rows of `shares` are `stride`
    /// values apart.
    fn gather(&self, shares: &[f32], stride: usize, head: usize, tokens: usize, out: &mut [f32]) {
        let width = self.values.width;
        match self.packed.get(head) {
            Some((_, values)) => {
                let rows = Rows { values: shares, stride, count: out.len() / width };
                multiply(rows, values.first_rows(tokens), out, width, true);
            }
            None => {
                for (shares, out) in shares.chunks(stride).zip(out.chunks_exact_mut(width)) {
                    rows::mix(&shares[..tokens], self.values.of(head), self.values.token, out);
                }
            }
        }
    }
}

/// One kernel for each sequence.
#[cfg(feature = "cuda")]
fn on_gpu(queries: &Tensor, memories: &[Memory], sequences: &[Sequence], scale: f64) -> Result<Tensor> {
    let (_, heads, width) = queries.dims3()?;
    let by_head = |index: &usize| -> Result<(Tensor, Tensor)> {
        Ok((memories[*index].keys.transpose(0, 1)?, memories[*index].values.transpose(0, 1)?))
    };
    let one = |sequence: &Sequence| -> Result<Tensor> {
        let (before, own) = match sequence.memories.as_slice() {
            [own] => (None, own),
            [before, own] => (Some(by_head(before)?), own),
            _ => return plain(queries, memories, sequence, scale),
        };
        let own = by_head(own)?;
        let count = sequence.queries.len();
        let rows = queries.narrow(0, sequence.queries.start, count)?.unsqueeze(0)?;
        let past = before.as_ref().map(|(keys, values)| (keys, values));
        let visible = crate::cuda::Visible { causal: sequence.causal, ..Default::default() };
        let kv_heads = own.0.dim(0)?;
        let mixed = crate::cuda::attention(&rows, kv_heads, (past, (&own.0, &own.1)), visible, scale as f32)?;
        mixed.reshape((count, heads * width))
    };
    match sequences {
        [only] => one(only),
        all => Tensor::cat(&all.iter().map(one).collect::<Result<Vec<_>>>()?, 0),
    }
}

/// One sequence on candle's operations.
fn plain(queries: &Tensor, memories: &[Memory], sequence: &Sequence, scale: f64) -> Result<Tensor> {
    let (_, heads, width) = queries.dims3()?;
    let kv_heads = memories[0].heads()?;
    // `[kv heads, tokens, head]`
    let part = |of: fn(&Memory) -> &Tensor| -> Result<Tensor> {
        let heads = (0..kv_heads)
            .map(|head| {
                let seen = sequence.memories.iter().map(|&index| {
                    let memory = &memories[index];
                    of(memory).narrow(1, memory.first + head * memory.step, 1)?.squeeze(1)
                });
                Tensor::cat(&seen.collect::<Result<Vec<_>>>()?, 0)
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::stack(&heads, 0)
    };
    // Scores are long sums; in 16 bits they would be rounded, or be too large for f16.
    let (keys, values) = (widened(&part(|memory| &memory.keys)?)?, part(|memory| &memory.values)?);
    let tokens = keys.dim(1)?;
    let group = heads / kv_heads;
    let count = sequence.queries.len();
    let step = (SCORES_PLAIN / (heads * tokens)).clamp(1, count);
    let mut blocks = Vec::with_capacity(count.div_ceil(step));
    for start in (0..count).step_by(step) {
        let length = step.min(count - start);
        let block = queries.narrow(0, sequence.queries.start + start, length)?;
        let block = (widened(&block)? * scale)?;
        let block = block.reshape((length, kv_heads, group, width))?.permute((1, 2, 0, 3))?;
        let mut scores = block.reshape((kv_heads, group * length, width))?.matmul(&keys.t()?)?;
        if sequence.causal {
            let seen = |i: usize, j: usize| j + count <= tokens + start + i;
            let mask: Vec<f32> = (0..length)
                .flat_map(|i| (0..tokens).map(move |j| if seen(i, j) { 0.0 } else { f32::NEG_INFINITY }))
                .collect();
            let mask =
                Tensor::from_vec(mask, (length, tokens), queries.device())?.to_dtype(scores.dtype())?;
            scores = scores.reshape((kv_heads, group, length, tokens))?.broadcast_add(&mask)?;
        }
        let shares = softmax_last_dim(&scores.reshape((kv_heads, group * length, tokens))?)?;
        let mixed =
            shares.to_dtype(values.dtype())?.matmul(&values)?.reshape((kv_heads, group, length, width))?;
        blocks.push(mixed.permute((2, 0, 1, 3))?.reshape((length, heads * width))?);
    }
    Tensor::cat(&blocks, 0)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn memory(tokens: usize, kv_heads: usize, width: usize) -> Memory {
        let random = || Tensor::randn(0f32, 1.0, (kv_heads, tokens + 3, width), &Device::Cpu).unwrap();
        // As a cache lies in memory: head by head, with room for more tokens.
        let part = || random().transpose(0, 1).unwrap().narrow(0, 0, tokens).unwrap();
        Memory::new(part(), part())
    }

    fn assert_agrees(heads: usize, kv_heads: usize, lengths: &[usize], width: usize, causal: bool) {
        let shared = memory(37, kv_heads, width);
        let mut memories = vec![shared];
        let mut sequences = Vec::new();
        let mut first = 0;
        for &length in lengths {
            let beside = memory(length, 3 * kv_heads, width);
            memories.push(Memory::of_row(beside.keys, beside.values, 1, 3));
            // Some look at the shared beginning and some do not.
            let seen = if length % 3 == 0 { vec![memories.len() - 1] } else { vec![0, memories.len() - 1] };
            sequences.push(Sequence { queries: first..first + length, memories: seen, causal });
            first += length;
        }
        let wide = Tensor::randn(0f32, 1.0, (first, heads * width + 5), &Device::Cpu).unwrap();
        let queries = wide
            .narrow(1, 3, heads * width)
            .unwrap()
            .reshape((first, heads, width))
            .unwrap()
            .contiguous()
            .unwrap();
        let got = attention(&queries, &memories, &sequences, 0.3).unwrap();
        let exact = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        let memories: Vec<_> = memories
            .iter()
            .map(|memory| Memory { keys: exact(&memory.keys), values: exact(&memory.values), ..*memory })
            .collect();
        let expected = attention(&exact(&queries), &memories, &sequences, 0.3).unwrap();
        let gap = (exact(&got) - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(gap.to_scalar::<f64>().unwrap() < 1e-5, "{heads} heads, {lengths:?}: off by {gap}");
    }

    #[test]
    fn kernels_agree_with_candle_in_f64() {
        for causal in [false, true] {
            for width in [8, 20, 64] {
                assert_agrees(4, 2, &[5, 12, 1, 9, 2], width, causal);
                assert_agrees(3, 3, &[200], width, causal);
                assert_agrees(6, 1, &[1, 1, 1], width, causal);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let queries = Tensor::zeros((4, 4, 8), DType::F32, &Device::Cpu).unwrap();
        let memories = [memory(3, 2, 8)];
        let whole = |queries, memories, causal| [Sequence { queries, memories, causal }];
        assert!(attention(&queries, &memories, &whole(0..4, vec![0], false), 1.0).is_ok());
        // More queries than tokens that they could stand for.
        assert!(attention(&queries, &memories, &whole(0..4, vec![0], true), 1.0).is_err());
        assert!(attention(&queries, &memories, &whole(0..3, vec![0], false), 1.0).is_err());
        assert!(attention(&queries, &memories, &whole(0..4, vec![], false), 1.0).is_err());
        assert!(attention(&queries, &memories, &whole(0..4, vec![1], false), 1.0).is_err());
        assert!(attention(&queries, &[memory(3, 3, 8)], &whole(0..4, vec![0], false), 1.0).is_err());
        assert!(attention(&queries, &[memory(3, 2, 9)], &whole(0..4, vec![0], false), 1.0).is_err());
    }
}
