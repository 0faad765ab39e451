//! The decoder-only language model with owned keys and values, the same for every family: what differs is in its
//! configuration.
//!
//! Source: `models/qwen2/modeling_qwen2.py` and `models/qwen2_vl/modeling_qwen2_vl.py` in transformers 5.17
//! (`Qwen2VLTextModel`). What differs is only where intermediate results live.
//!
//! Two ways to run rows of tokens:
//!
//! ```text
//! score    one past ........ row 0      many rows against one shared past, which is never copied;
//!                     `..... row 1      nothing is appended, only the end of each row is looked at
//!
//! append   past 0 | new 0               every row has a past of its own; the new tokens are appended,
//!            past 1 | new 1             all rows end at the same column
//! ```

mod awq;
mod config;
mod key_values;
mod layer;
mod read;
mod weights;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Module, VarBuilder};

pub use self::config::{Axes, Biases, DecoderConfig, Naming, Rope, Scaling};
pub(crate) use self::key_values::{KeyValues, Past, Piece, Shape};
use self::layer::{Context, Layer, Picks, Place, Rows, Visible, causal};
use self::weights::map;
use crate::layers::{Linear, Norm, Quantisation, has_kernels, on_all_cores};
use crate::rope::Angles;

/// Time, row and column of a token; all three equal for text.
pub(crate) type Position = [u32; 3];

/// What tokens enter the layers as.
#[derive(Debug, Clone)]
pub(crate) struct Entering {
    /// `[tokens, hidden]`.
    pub(crate) embeddings: Tensor,
    /// Added to the residual stream after each of the first layers, of the same shape.
    pub(crate) deep: Vec<Tensor>,
}

impl From<Tensor> for Entering {
    fn from(embeddings: Tensor) -> Self {
        Self { embeddings, deep: Vec::new() }
    }
}

impl Entering {
    /// Some of the tokens.
    pub(crate) fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        let part = |all: &Tensor| all.narrow(0, first, count);
        Ok(Self {
            embeddings: part(&self.embeddings)?,
            deep: self.deep.iter().map(part).collect::<Result<_>>()?,
        })
    }
}

/// The decoder.
#[derive(Debug)]
pub(crate) struct Decoder {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    config: DecoderConfig,
    /// Inverse frequency of each pair of a head, and which coordinate of the position turns it.
    turns: Vec<(f32, usize)>,
    device: Device,
    dtype: DType,
    quantisation: Option<Quantisation>,
}

impl Decoder {
    /// `vb` leads to the layers, `head` to the output layer.
    pub(crate) fn load(
        config: &DecoderConfig,
        vb: &VarBuilder<'_>,
        head: &VarBuilder<'_>,
        quantisation: Option<Quantisation>,
    ) -> Result<Self> {
        if let Some(quantisation) = quantisation {
            say_what_does_not_fit(config, quantisation);
        }
        let (table, output) = config.naming.ends();
        let embedding = candle_nn::embedding(config.vocabulary, config.hidden, vb.pp(table))?;
        // An output layer that is there is the one that was trained, whatever the configuration says (`tie_weights` in
        // `modeling_utils.py` of transformers 5.17).
        let tied = config.tied && !head.pp(output).contains_tensor("weight");
        let head = if tied && quantisation.is_none() {
            Linear::new(embedding.embeddings(), None)?
        } else {
            let head = if tied { vb.pp(table) } else { head.pp(output) };
            // Errors of the output layer go straight into the answer.
            let quantisation = quantisation.map(|_| Quantisation::Q8_0);
            Linear::of(vec![map(&head, (config.vocabulary, config.hidden), false, quantisation)?])?
        };
        let layers = (0..config.layers)
            .map(|i| Layer::load(config, &vb.pp("layers").pp(i), quantisation))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            embedding,
            layers,
            norm: Norm::rms(config.hidden, config.epsilon, &vb.pp("norm"))?,
            head,
            turns: config.rope.turns(config.head_dim),
            config: config.clone(),
            device: vb.device().clone(),
            dtype: vb.dtype(),
            quantisation,
        })
    }

    /// How its matrices were asked to be stored, if not as they are.
    pub(crate) fn quantisation(&self) -> Option<Quantisation> {
        self.quantisation
    }

    /// Bytes of its embeddings and matrices in memory.
    pub(crate) fn bytes(&self) -> usize {
        let table = self.embedding.embeddings();
        let layers = self.layers.iter().map(Layer::bytes).sum::<usize>();
        table.elem_count() * table.dtype().size_in_bytes() + self.head.bytes() + layers
    }

    /// The configuration.
    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// What decides the size of keys and values.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            layers: self.layers.len(),
            kv_heads: self.config.kv_heads,
            head: self.config.head_dim,
            dtype: self.dtype,
            device: self.device.clone(),
        }
    }

    /// Embeddings of tokens, `[tokens, hidden]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.embedding.forward(&Tensor::new(tokens, &self.device)?)
    }

    /// Appends the same number of tokens to every row of `sequences`: what they enter as, `[rows * tokens, hidden]`, and
    /// `positions`, row by row. With `lengths`, the logits after the first `lengths[i]` of them in row `i`,
    /// `[rows, vocabulary]`; what follows there is padding. The caller leaves room.
    pub(crate) fn append(
        &self,
        sequences: &mut KeyValues,
        entering: &Entering,
        positions: &[Position],
        lengths: Option<&[usize]>,
    ) -> Result<Option<Tensor>> {
        let angles = self.angles(positions)?;
        let length = positions.len() / sequences.rows();
        let rows = Rows { batch: sequences.rows(), length, angles: &angles };
        let before = sequences.end();
        let visible = causal(sequences.starts(), before, rows.length, self.place())?;
        let picks = lengths.map(|lengths| {
            // Every token has an angle of its own.
            let ends = lengths.iter().enumerate().map(|(row, &n)| row * rows.length + n - 1);
            let angles = angles.at(&indices(ends, &self.device)?)?;
            let seen = (sequences.starts(), before);
            Picks::new(lengths, rows.length, angles, seen, self.place())
        });
        let picks = picks.transpose()?;
        let mut context = Context::Append(sequences);
        let xs = self.run(entering, rows, &visible, picks.as_ref(), &mut context)?;
        sequences.grow(rows.length);
        if lengths.is_some() { Ok(Some(self.logits(&xs)?)) } else { Ok(None) }
    }

    /// Rows of tokens, each against the same past, padded to one length at their ends: `tokens` row by row,
    /// `lengths[i]` of them real in row `i`, all at the positions `positions`. The logits after the last real token
    /// of each row, `[rows, vocabulary]`, and the rows' own keys and values if they are to be kept.
    pub(crate) fn score(
        &self,
        past: Past<'_>,
        tokens: &[u32],
        lengths: &[usize],
        positions: &[Position],
        keep: bool,
    ) -> Result<(Tensor, Option<KeyValues>)> {
        let angles = self.angles(positions)?;
        let rows = Rows { batch: lengths.len(), length: positions.len(), angles: &angles };
        // What follows a token, padding included, is hidden from it by the causal mask.
        let starts = vec![0; rows.batch];
        let visible = causal(&starts, 0, rows.length, self.place())?;
        let at_ends = angles.at(&indices(lengths.iter().map(|&n| n - 1), &self.device)?)?;
        let picks = Picks::new(lengths, rows.length, at_ends, (&starts, 0), self.place())?;
        let mut kept = Vec::with_capacity(self.layers.len());
        let mut context = Context::Shared { past, kept: keep.then_some(&mut kept) };
        let entering = self.embed(tokens)?.into();
        let xs = self.run(&entering, rows, &visible, Some(&picks), &mut context)?;
        let kept = keep.then(|| KeyValues::computed(kept, rows.batch)).transpose()?;
        Ok((self.logits(&xs)?, kept))
    }

    /// All layers. With `picks` the result is that of the picked tokens, `[rows, hidden]`; without, nobody reads it,
    /// and the last layer computes keys and values only.
    fn run(
        &self,
        entering: &Entering,
        rows: Rows<'_>,
        visible: &Visible,
        picks: Option<&Picks>,
        context: &mut Context<'_, '_>,
    ) -> Result<Tensor> {
        on_all_cores(&self.device, || {
            let mut xs = entering.embeddings.clone();
            for (index, layer) in self.layers.iter().enumerate() {
                let last = index + 1 == self.layers.len();
                xs = match picks {
                    _ if !last => layer.forward(index, &xs, rows, visible, context)?,
                    Some(picks) => layer.forward_picked(index, &xs, rows, picks, context)?,
                    None => layer.remember(index, &xs, rows, context)?,
                };
                // Picked tokens are text, to which nothing is added.
                if let Some(added) = entering.deep.get(index).filter(|_| !last) {
                    xs = (xs + added)?;
                }
            }
            Ok(xs)
        })
    }

    fn place(&self) -> Place<'_> {
        #[cfg(feature = "cuda")]
        let fused = crate::cuda::applies(self.embedding.embeddings())
            && crate::cuda::HEADS.contains(&self.config.head_dim);
        #[cfg(not(feature = "cuda"))]
        let fused = false;
        let kernels = has_kernels(self.embedding.embeddings());
        Place { device: &self.device, fused, kernels }
    }

    fn logits(&self, xs: &Tensor) -> Result<Tensor> {
        self.head.forward_normed(xs, &self.norm)
    }

    fn angles(&self, positions: &[Position]) -> Result<Angles> {
        let turns = &self.turns;
        let angles =
            positions.iter().flat_map(|p| turns.iter().map(move |&(f, axis)| p[axis] as f32 * f)).collect();
        Angles::new(angles, turns.len(), &self.device, self.dtype)
    }
}

/// Some formats have rows of certain lengths only.
fn say_what_does_not_fit(config: &DecoderConfig, wanted: Quantisation) {
    let mut widths = vec![config.hidden, config.heads * config.head_dim, config.intermediate];
    widths.sort_unstable();
    widths.dedup();
    for width in widths {
        match wanted.format(width) {
            Some(format) if format.name() == wanted.name() => {}
            Some(format) => {
                tracing::warn!(
                    "{wanted} does not divide {width} inputs: matrices with so many are {}",
                    format.name()
                );
            }
            None => tracing::warn!(
                "{wanted} does not divide {width} inputs: matrices with so many stay as they are"
            ),
        }
    }
}

fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Result<Tensor> {
    let values: Vec<u32> = values.map(|value| value as u32).collect();
    let count = values.len();
    Tensor::from_vec(values, count, device)
}
