//! Affine maps, with what precedes and follows them.

use std::sync::Arc;

use candle_core::{D, Result, Tensor};
use candle_nn::{VarBuilder, rotary_emb::rope_thd};
use rayon::prelude::*;

use super::product::{Packed, Part, Rows, multiply};
use super::{Activation, Norm, division, has_kernels, rows, values};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::rope::Angles;

/// An affine map of the last axis, with or without bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Weight,
}

#[derive(Debug, Clone)]
enum Weight {
    /// On the CPU in f32; the bias is empty if there is none.
    Packed(Arc<Packed>, Arc<[f32]>),
    /// `(out, in)`, and the bias.
    Tensor(Tensor, Option<Tensor>),
}

/// Rotary positions for the first heads of a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// One row of angles for each token, or for each of as many tokens as divide all, which then share them in turns.
    pub(crate) angles: &'a Angles,
    /// How many heads are turned; the rest of a row stays as it is.
    pub(crate) heads: usize,
}

impl Turn<'_> {
    /// Pairs of components of a head, if the angles fit so many rows of that width.
    fn pairs(&self, tokens: usize, width: usize) -> Result<usize> {
        let (rows, pairs) = self.angles.cos.dims2()?;
        if rows == 0 || !tokens.is_multiple_of(rows) || 2 * pairs * self.heads > width {
            candle_core::bail!("{self:?} of {tokens} tokens and {width} outputs");
        }
        Ok(pairs)
    }
}

/// What follows the product and the bias.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Activate(Activation),
    Add(&'a [f32]),
    Turn { cos: &'a [f32], sin: &'a [f32], pairs: usize, heads: usize },
}

impl Linear {
    /// From a weight of shape `(out, in)` and a bias of shape `out`.
    ///
    /// # Errors
    /// Other shapes.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        if let Some(bias) = bias.filter(|bias| bias.dims() != [outputs]) {
            candle_core::bail!("{outputs} outputs and a bias of shape {:?}", bias.shape());
        }
        let weight = if has_kernels(weight) {
            let weight = weight.contiguous()?;
            let access = values(&weight);
            let all = access.dense()?;
            let packed = Packed::from_columns(inputs, outputs, |i| &all[i * inputs..(i + 1) * inputs]);
            let bias = bias.map(Tensor::to_vec1).transpose()?.unwrap_or_default();
            Weight::Packed(Arc::new(packed), bias.into())
        } else {
            Weight::Tensor(weight.clone(), bias.cloned())
        };
        Ok(Self { inputs, outputs, weight })
    }

    /// Reads `weight` and `bias` below `weights`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn load(inputs: usize, outputs: usize, weights: &VarBuilder<'_>) -> Result<Self> {
        Self::new(&weights.get((outputs, inputs), "weight")?, Some(&weights.get(outputs, "bias")?))
    }

    /// Reads `weight` below `weights`; there is no bias.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn load_no_bias(inputs: usize, outputs: usize, weights: &VarBuilder<'_>) -> Result<Self> {
        Self::new(&weights.get((outputs, inputs), "weight")?, None)
    }

    /// Several maps of the same input as one, whose outputs come one behind the other. Either all have a bias, or
    /// none has.
    ///
    /// # Errors
    /// Parts that do not fit together.
    pub(crate) fn stack(parts: &[(Tensor, Option<Tensor>)]) -> Result<Self> {
        let weights: Vec<&Tensor> = parts.iter().map(|(weight, _)| weight).collect();
        let biases: Vec<&Tensor> = parts.iter().filter_map(|(_, bias)| bias.as_ref()).collect();
        if !biases.is_empty() && biases.len() < parts.len() {
            candle_core::bail!("{} of {} maps have a bias", biases.len(), parts.len());
        }
        let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
        Self::new(&Tensor::cat(&weights, 0)?, bias.as_ref())
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Errors
    /// An input of another width.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => self.run(x, None, Then::Nothing),
            Weight::Tensor(weight, bias) => plain(x, weight, bias.as_ref()),
        }
    }

    /// The map of the normalised input.
    ///
    /// # Errors
    /// An input of another width.
    pub(crate) fn forward_normed(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => self.run(x, Some(norm), Then::Nothing),
            Weight::Tensor(weight, bias) => plain(&norm.forward(x)?, weight, bias.as_ref()),
        }
    }

    /// The activation of the map's result.
    ///
    /// # Errors
    /// An input of another width.
    pub(crate) fn forward_activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => self.run(x, None, Then::Activate(activation)),
            #[cfg(feature = "cuda")]
            Weight::Tensor(weight, Some(bias)) if activation == Activation::QuickGelu && cuda::applies(x) => {
                cuda::bias_quick_gelu(&plain(x, weight, None)?, bias)
            }
            Weight::Tensor(weight, bias) => activation.apply(&plain(x, weight, bias.as_ref())?),
        }
    }

    /// The map's result plus `other`, which has its shape.
    ///
    /// # Errors
    /// An input or another summand of another shape.
    pub(crate) fn forward_add(&self, x: &Tensor, other: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => {
                let other = other.contiguous()?;
                let access = values(&other);
                let other = access.dense()?;
                if Some(other.len()) != (x.elem_count() / self.inputs.max(1)).checked_mul(self.outputs) {
                    candle_core::bail!(
                        "{:?} to {} outputs, plus {} values",
                        x.shape(),
                        self.outputs,
                        other.len()
                    );
                }
                self.run(x, None, Then::Add(other))
            }
            #[cfg(feature = "cuda")]
            Weight::Tensor(weight, Some(bias)) if cuda::applies(x) => {
                cuda::add_bias(&other.contiguous()?, &plain(x, weight, None)?, bias)
            }
            Weight::Tensor(weight, bias) => plain(x, weight, bias.as_ref())? + other,
        }
    }

    /// The map of the input, normalised if there is a norm, `[tokens, in]` to `[tokens, out]`, of which the first heads
    /// are turned by their positions.
    ///
    /// # Errors
    /// An input of another width, or angles of other tokens.
    pub(crate) fn forward_turned(&self, x: &Tensor, norm: Option<&Norm>, turn: Turn<'_>) -> Result<Tensor> {
        let pairs = turn.pairs(x.dims2()?.0, self.outputs)?;
        match &self.weight {
            Weight::Packed(..) => {
                let (cos, sin) = (values(&turn.angles.cos), values(&turn.angles.sin));
                let (cos, sin) = (cos.dense()?, sin.dense()?);
                self.run(x, norm, Then::Turn { cos, sin, pairs, heads: turn.heads })
            }
            #[cfg(feature = "cuda")]
            Weight::Tensor(weight, Some(bias)) if cuda::rotates(x, pairs, self.outputs) => {
                let normed = norm.map(|norm| norm.forward(x)).transpose()?;
                let out = plain(normed.as_ref().unwrap_or(x), weight, None)?;
                cuda::bias_rotate(&out, bias, turn.angles, turn.heads)
            }
            Weight::Tensor(weight, bias) => {
                let normed = norm.map(|norm| norm.forward(x)).transpose()?;
                turned(&plain(normed.as_ref().unwrap_or(x), weight, bias.as_ref())?, turn)
            }
        }
    }

    /// The weight and bias on the CPU in f32.
    pub(super) fn packed(&self) -> Option<(&Packed, &[f32])> {
        match &self.weight {
            Weight::Packed(packed, bias) => Some((packed, bias)),
            Weight::Tensor(..) => None,
        }
    }

    fn run(&self, x: &Tensor, norm: Option<&Norm>, then: Then<'_>) -> Result<Tensor> {
        let Some((packed, bias)) = self.packed() else { candle_core::bail!("no weights on the CPU in f32") };
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs && self.inputs > 0 => *last = self.outputs,
            _ => candle_core::bail!("expected [.., {}], got {:?}", self.inputs, x.shape()),
        }
        let x = x.contiguous()?;
        let access = values(&x);
        let input = access.dense()?;
        let count = input.len() / self.inputs;
        let threads = division::threads(2 * input.len() * self.outputs);
        let mut out = vec![0f32; count * self.outputs];
        let finish = |first: usize, out: &mut [f32]| {
            rows::add_bias(out, bias);
            then.finish(first, self.outputs, out);
        };
        if division::enough_rows(count, threads) {
            division::by_rows(count, self.outputs, threads, &mut out, |range, out| {
                let block = &input[range.start * self.inputs..range.end * self.inputs];
                match norm {
                    Some(norm) => {
                        let mut normed = vec![0f32; block.len()];
                        norm.rows(block, &mut normed);
                        multiply(Rows::dense(&normed, self.inputs), packed.all(), out, self.outputs, false);
                    }
                    None => multiply(Rows::dense(block, self.inputs), packed.all(), out, self.outputs, false),
                }
                finish(range.start, out);
            });
        } else {
            let mut normed = Vec::new();
            let input = match norm {
                Some(norm) => {
                    normed.resize(input.len(), 0.0);
                    norm.rows(input, &mut normed);
                    normed.as_slice()
                }
                None => input,
            };
            by_columns(Rows::dense(input, self.inputs), &packed.divide(threads), self.outputs, &mut out);
            finish(0, &mut out);
        }
        Tensor::from_vec(out, shape, x.device())
    }
}

/// Each thread computes some of the columns of few rows.
fn by_columns(rows: Rows<'_>, parts: &[Part<'_>], width: usize, out: &mut [f32]) {
    let computed: Vec<Vec<f32>> = parts
        .par_iter()
        .map(|part| {
            let mut out = vec![0f32; rows.count * part.columns()];
            multiply(rows, *part, &mut out, part.columns(), false);
            out
        })
        .collect();
    let mut first = 0;
    for (part, computed) in parts.iter().zip(&computed) {
        let columns = part.columns();
        for (out, row) in out.chunks_exact_mut(width).zip(computed.chunks_exact(columns)) {
            out[first..first + columns].copy_from_slice(row);
        }
        first += columns;
    }
}

impl Then<'_> {
    /// Works on rows of `width` values, the first of which is row `first` of the whole.
    fn finish(&self, first: usize, width: usize, out: &mut [f32]) {
        match *self {
            Self::Nothing => {}
            Self::Activate(activation) => rows::activate(out, activation),
            Self::Add(other) => rows::add(out, &other[first * width..first * width + out.len()]),
            Self::Turn { cos, sin, pairs, heads } => {
                for (index, row) in out.chunks_exact_mut(width).enumerate() {
                    let token = (first + index) % (cos.len() / pairs);
                    let angles = token * pairs..(token + 1) * pairs;
                    rows::turn(row, heads, &cos[angles.clone()], &sin[angles]);
                }
            }
        }
    }
}

/// Rows `[tokens, width]` of which the first heads are turned by their positions.
///
/// # Errors
/// Angles of other tokens.
pub(crate) fn turned(x: &Tensor, turn: Turn<'_>) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let pairs = turn.pairs(tokens, width)?;
    if has_kernels(x) {
        let (cos, sin) = (values(&turn.angles.cos), values(&turn.angles.sin));
        let mut out = x.flatten_all()?.to_vec1::<f32>()?;
        Then::Turn { cos: cos.dense()?, sin: sin.dense()?, pairs, heads: turn.heads }
            .finish(0, width, &mut out);
        return Tensor::from_vec(out, (tokens, width), x.device());
    }
    let rows = turn.angles.cos.dim(0)?;
    let first = 2 * pairs * turn.heads;
    let heads = x.narrow(1, 0, first)?.contiguous()?;
    let heads = heads.reshape((tokens / rows, rows, turn.heads, 2 * pairs))?;
    let heads = rope_thd(&heads, &turn.angles.cos, &turn.angles.sin)?;
    let heads = heads.reshape((tokens, first))?;
    if first == width {
        return Ok(heads);
    }
    Tensor::cat(&[&heads, &x.narrow(1, first, width - first)?], 1)
}

/// `[.., in]` to `[.., out]` on candle's operations.
fn plain(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let inputs = shape.pop().unwrap_or(0);
    shape.push(weight.dim(0)?);
    let out = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    let out = match bias {
        Some(bias) => out.broadcast_add(bias)?,
        None => out,
    };
    out.reshape(shape)
}

/// Rows divided by their Euclidean length plus `epsilon`.
///
/// # Errors
/// A failed tensor operation.
pub(crate) fn normalise_rows(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + epsilon)?)
}
