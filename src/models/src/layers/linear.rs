//! Affine maps, with what precedes and follows them.

use std::sync::Arc;

use candle_core::quantized::QMatMul;
use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::{VarBuilder, rotary_emb::rope_thd};
use rayon::prelude::*;

use super::blocks::Blocks;
use super::product::{Packed, Part, Rows, multiply};
use super::{Activation, Norm, dense, division, has_kernels, rows, values};
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
    /// On the CPU, in 32, 16, 8 or 4 bits; the bias is empty if there is none.
    Packed(Arc<Packed>, Arc<[f32]>),
    /// For candle's products, `(out, in)` dense or quantised, and the bias.
    Product(QMatMul, Option<Tensor>),
}

/// A weight `(out, in)` as a checkpoint has it or as it was quantised.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    Dense(Tensor),
    /// And where it will be multiplied.
    Quantised(Blocks, Device),
}

impl Matrix {
    /// Some of the outputs, in that order.
    ///
    /// # Errors
    /// An output that is not there.
    pub(crate) fn select(&self, outputs: &[u32]) -> Result<Self> {
        match self {
            Self::Dense(weight) => {
                let outputs = Tensor::new(outputs, weight.device())?;
                Ok(Self::Dense(weight.index_select(&outputs, 0)?))
            }
            Self::Quantised(blocks, device) => Ok(Self::Quantised(blocks.select(outputs)?, device.clone())),
        }
    }

    /// In the place and the precision of `like`.
    fn dense(self, like: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => Ok(weight),
            Self::Quantised(blocks, _) => {
                blocks.dequantise()?.to_dtype(like.dtype())?.to_device(like.device())
            }
        }
    }

    /// One below the other.
    fn stack(parts: Vec<Self>) -> Result<Self> {
        let like = parts.iter().find_map(|part| match part {
            Self::Dense(weight) => Some(weight.clone()),
            Self::Quantised(..) => None,
        });
        if let Some(like) = like {
            let parts = parts.into_iter().map(|part| part.dense(&like)).collect::<Result<Vec<_>>>()?;
            return Ok(Self::Dense(Tensor::cat(&parts, 0)?));
        }
        let (mut all, mut place) = (Vec::with_capacity(parts.len()), Device::Cpu);
        for part in parts {
            if let Self::Quantised(blocks, device) = part {
                all.push(blocks);
                place = device;
            }
        }
        Ok(Self::Quantised(Blocks::stack(all)?, place))
    }
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
        check_bias(outputs, bias)?;
        if !has_kernels(weight) {
            let weight = Weight::Product(QMatMul::Tensor(weight.clone()), bias.cloned());
            return Ok(Self { inputs, outputs, weight });
        }
        let packed = match weight.dtype() {
            DType::F16 => Packed::from_f16(inputs, outputs, &weight.flatten_all()?.to_vec1()?),
            DType::BF16 => Packed::from_bf16(inputs, outputs, &weight.flatten_all()?.to_vec1()?),
            _ => {
                let weight = weight.contiguous()?;
                let access = values(&weight);
                let all = access.dense()?;
                Packed::from_columns(inputs, outputs, |i| &all[i * inputs..(i + 1) * inputs])
            }
        };
        Ok(Self { inputs, outputs, weight: Weight::packed(packed, bias)? })
    }

    /// Several maps of the same input as one, whose outputs come one behind the other; quantised ones stay it unless
    /// others are dense. Either all have a bias, or none has.
    ///
    /// # Errors
    /// Parts that do not fit together.
    pub(crate) fn of(parts: Vec<(Matrix, Option<Tensor>)>) -> Result<Self> {
        let (matrices, biases): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let bias = stack_biases(&biases)?;
        let (blocks, device) = match Matrix::stack(matrices)? {
            Matrix::Dense(weight) => return Self::new(&weight, bias.as_ref()),
            Matrix::Quantised(blocks, device) => (blocks, device),
        };
        let (inputs, outputs) = (blocks.inner(), blocks.rows());
        check_bias(outputs, bias.as_ref())?;
        let weight = if device.is_cpu() {
            Weight::packed(Packed::from_blocks(&blocks), bias.as_ref())?
        } else {
            Weight::Product(QMatMul::from_qtensor(blocks.to_device(&device)?)?, bias)
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
        let biases: Vec<Option<Tensor>> = parts.iter().map(|(_, bias)| bias.clone()).collect();
        Self::new(&Tensor::cat(&weights, 0)?, stack_biases(&biases)?.as_ref())
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
            Weight::Product(weight, bias) => self.plain(x, weight, bias.as_ref()),
        }
    }

    /// The map of the normalised input.
    ///
    /// # Errors
    /// An input of another width.
    pub(crate) fn forward_normed(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => self.run(x, Some(norm), Then::Nothing),
            Weight::Product(weight, bias) => self.plain(&norm.forward(x)?, weight, bias.as_ref()),
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
            Weight::Product(weight, Some(bias))
                if activation == Activation::QuickGelu && cuda::takes(x, self.outputs) =>
            {
                cuda::bias_quick_gelu(&self.plain(x, weight, None)?, bias)
            }
            Weight::Product(weight, bias) => activation.apply(&self.plain(x, weight, bias.as_ref())?),
        }
    }

    /// The map's result plus `other`, which has its shape.
    ///
    /// # Errors
    /// An input or another summand of another shape.
    pub(crate) fn forward_add(&self, x: &Tensor, other: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(..) => {
                let other = dense(other)?;
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
            Weight::Product(weight, Some(bias)) if cuda::takes(x, self.outputs) => {
                cuda::add_bias(&other.contiguous()?, &self.plain(x, weight, None)?, bias)
            }
            Weight::Product(weight, bias) => self.plain(x, weight, bias.as_ref())? + other,
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
                let (cos, sin) = (dense(&turn.angles.cos)?, dense(&turn.angles.sin)?);
                let (cos, sin) = (values(&cos), values(&sin));
                let (cos, sin) = (cos.dense()?, sin.dense()?);
                self.run(x, norm, Then::Turn { cos, sin, pairs, heads: turn.heads })
            }
            #[cfg(feature = "cuda")]
            Weight::Product(weight, Some(bias)) if cuda::rotates(x, pairs, self.outputs) => {
                let normed = norm.map(|norm| norm.forward(x)).transpose()?;
                let out = self.plain(normed.as_ref().unwrap_or(x), weight, None)?;
                cuda::bias_rotate(&out, bias, turn.angles, turn.heads)
            }
            Weight::Product(weight, bias) => {
                let normed = norm.map(|norm| norm.forward(x)).transpose()?;
                turned(&self.plain(normed.as_ref().unwrap_or(x), weight, bias.as_ref())?, turn)
            }
        }
    }

    /// Bytes of the weight in memory.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Packed(packed, bias) => packed.bytes() + size_of_val(&**bias),
            Weight::Product(product, bias) => {
                let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
                let weight = match product {
                    QMatMul::QTensor(weight) => weight.storage_size_in_bytes(),
                    QMatMul::Tensor(weight) | QMatMul::TensorF16(weight) => bytes(weight),
                };
                weight + bias.as_ref().map_or(0, bytes)
            }
        }
    }

    /// The weight and bias on the CPU.
    pub(super) fn packed(&self) -> Option<(&Packed, &[f32])> {
        match &self.weight {
            Weight::Packed(packed, bias) => Some((packed, bias)),
            Weight::Product(..) => None,
        }
    }

    fn run(&self, x: &Tensor, norm: Option<&Norm>, then: Then<'_>) -> Result<Tensor> {
        let Some((packed, bias)) = self.packed() else { candle_core::bail!("no weights on the CPU") };
        let mut shape = x.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == self.inputs && self.inputs > 0 => *last = self.outputs,
            _ => candle_core::bail!("expected [.., {}], got {:?}", self.inputs, x.shape()),
        }
        let dtype = x.dtype();
        let x = dense(x)?;
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
        Tensor::from_vec(out, shape, x.device())?.to_dtype(dtype)
    }

    /// `[.., in]` to `[.., out]` on candle's operations.
    fn plain(&self, x: &Tensor, product: &QMatMul, bias: Option<&Tensor>) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        if shape.pop() != Some(self.inputs) {
            candle_core::bail!("expected [.., {}], got {:?}", self.inputs, x.shape());
        }
        shape.push(self.outputs);
        let x = x.reshape(((), self.inputs))?;
        let out = match product {
            QMatMul::QTensor(_) => product.forward(&x.contiguous()?)?,
            _ => product.forward(&x)?,
        };
        let out = match bias {
            Some(bias) => out.broadcast_add(bias)?,
            None => out,
        };
        out.reshape(shape)
    }
}

impl Weight {
    fn packed(packed: Packed, bias: Option<&Tensor>) -> Result<Self> {
        let bias = bias.map(|bias| bias.to_dtype(DType::F32)?.to_vec1()).transpose()?.unwrap_or_default();
        Ok(Self::Packed(Arc::new(packed), bias.into()))
    }
}

fn check_bias(outputs: usize, bias: Option<&Tensor>) -> Result<()> {
    match bias.filter(|bias| bias.dims() != [outputs]) {
        Some(bias) => candle_core::bail!("{outputs} outputs and a bias of shape {:?}", bias.shape()),
        None => Ok(()),
    }
}

/// One behind the other, if there are any.
fn stack_biases(biases: &[Option<Tensor>]) -> Result<Option<Tensor>> {
    let all: Vec<&Tensor> = biases.iter().flatten().collect();
    match all.len() {
        0 => Ok(None),
        some if some == biases.len() => Ok(Some(Tensor::cat(&all, 0)?)),
        some => candle_core::bail!("{some} of {} maps have a bias", biases.len()),
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
        let (cos, sin) = (dense(&turn.angles.cos)?, dense(&turn.angles.sin)?);
        let (cos, sin) = (values(&cos), values(&sin));
        let mut out = x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Then::Turn { cos: cos.dense()?, sin: sin.dense()?, pairs, heads: turn.heads }
            .finish(0, width, &mut out);
        return Tensor::from_vec(out, (tokens, width), x.device())?.to_dtype(x.dtype());
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

/// Rows divided by their Euclidean length plus `epsilon`.
///
/// # Errors
/// A failed tensor operation.
pub(crate) fn normalise_rows(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + epsilon)?)
}

#[cfg(test)]
mod tests;
