//! The feed-forward block of a pre-norm transformer.

use candle_core::{DType, Result, Tensor};

use super::product::{Rows, multiply};
use super::{Activation, Linear, Norm, dense, division, has_kernels, rows, values};

/// What happens between the two maps of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    /// An activation of each value.
    Activation(Activation),
    /// SwiGLU: the first map gives twice the inner width, and SiLU of the first half multiplies the second.
    Gated,
}

/// `x + contract(inner(expand(norm(x))))`.
#[derive(Debug, Clone)]
pub(crate) struct FeedForward {
    pub(crate) norm: Norm,
    pub(crate) expand: Linear,
    pub(crate) inner: Inner,
    pub(crate) contract: Linear,
}

impl FeedForward {
    /// `[rows, width]` to the same.
    ///
    /// # Errors
    /// Another shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (count, width) = x.dims2()?;
        let expanded = self.expand.outputs();
        let threads = division::threads(4 * count * width * expanded);
        let (Some((expand, expand_bias)), Some((contract, contract_bias)), true) =
            (self.expand.packed(), self.contract.packed(), division::enough_rows(count, threads))
        else {
            return self.forward_in_turn(x);
        };
        let gated = self.inner == Inner::Gated;
        let inner = if gated { expanded / 2 } else { expanded };
        if (expand.inner(), contract.inner(), contract.columns()) != (width, inner, width) {
            candle_core::bail!("a feed-forward block of other widths than {:?}", x.shape());
        }
        let dtype = x.dtype();
        let x = dense(x)?;
        let access = values(&x);
        let input = access.dense()?;
        let mut out = vec![0f32; input.len()];
        division::by_rows(count, width, threads, &mut out, |range, out| {
            let block = &input[range.start * width..range.end * width];
            self.norm.rows(block, out);
            let mut middle = vec![0f32; range.len() * expanded];
            multiply(Rows::dense(out, width), expand.all(), &mut middle, expanded, false);
            rows::add_bias(&mut middle, expand_bias);
            match self.inner {
                Inner::Activation(activation) => rows::activate(&mut middle, activation),
                Inner::Gated => rows::gate(&mut middle, inner),
            }
            out.copy_from_slice(block);
            rows::add_bias(out, contract_bias);
            multiply(Rows::dense(&middle, expanded), contract.all(), out, width, true);
        });
        Tensor::from_vec(out, x.shape(), x.device())?.to_dtype(dtype)
    }

    fn forward_in_turn(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if crate::cuda::applies(x) {
            let normed = self.norm.forward(x)?;
            let middle = match self.inner {
                Inner::Activation(activation) => self.expand.forward_activate(&normed, activation)?,
                Inner::Gated if crate::cuda::takes(x, self.expand.outputs() / 2) => {
                    crate::cuda::swiglu(&self.expand.forward(&normed)?)?
                }
                Inner::Gated => candle_nn::ops::swiglu(&self.expand.forward(&normed)?)?,
            };
            return self.contract.forward_add(&middle, x);
        }
        let middle = self.expand.forward_normed(x, &self.norm)?;
        self.contract.forward_add(&self.inner.forward(&middle)?, x)
    }
}

impl Inner {
    /// Of `[rows, width]`.
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        if !has_kernels(x) {
            return match self {
                Self::Activation(activation) => activation.apply(x),
                Self::Gated => candle_nn::ops::swiglu(x),
            };
        }
        let (count, width) = x.dims2()?;
        let mut all = x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let out = match self {
            Self::Activation(activation) => {
                rows::activate(&mut all, activation);
                Tensor::from_vec(all, x.shape(), x.device())
            }
            Self::Gated => {
                rows::gate(&mut all, width / 2);
                let gated: Vec<f32> =
                    all.chunks_exact(width).flat_map(|row| &row[..width / 2]).copied().collect();
                Tensor::from_vec(gated, (count, width / 2), x.device())
            }
        };
        out?.to_dtype(x.dtype())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::ops;

    use super::*;

    /// The same formula on candle's operations, in f64.
    fn expected(x: &Tensor, inner: Inner, tensors: &[Tensor; 6]) -> Result<Tensor> {
        let [norm, norm_bias, expand, expand_bias, contract, contract_bias] =
            tensors.each_ref().map(|tensor| tensor.to_dtype(DType::F64));
        let x = x.to_dtype(DType::F64)?;
        let normed = ops::layer_norm_slow(&x, &norm?, &norm_bias?, 1e-5)?;
        let middle = normed.matmul(&expand?.t()?)?.broadcast_add(&expand_bias?)?;
        let middle = match inner {
            Inner::Activation(activation) => activation.apply(&middle)?,
            Inner::Gated => ops::swiglu(&middle)?,
        };
        (middle.matmul(&contract?.t()?)?.broadcast_add(&contract_bias?)? + x)?.to_dtype(DType::F32)
    }

    #[test]
    fn few_and_many_rows_agree_with_candle() -> Result<()> {
        let random = |shape: &[usize]| Tensor::randn(0f32, 0.3, shape, &Device::Cpu);
        let (width, inner) = (24, 70);
        for (kind, expanded) in [(Inner::Activation(Activation::Gelu), inner), (Inner::Gated, 2 * inner)] {
            let tensors = [
                random(&[width])?,
                random(&[width])?,
                random(&[expanded, width])?,
                random(&[expanded])?,
                random(&[width, inner])?,
                random(&[width])?,
            ];
            let layer = FeedForward {
                norm: Norm::new(tensors[0].clone(), Some(tensors[1].clone()), 1e-5)?,
                expand: Linear::new(&tensors[2], Some(&tensors[3]))?,
                inner: kind,
                contract: Linear::new(&tensors[4], Some(&tensors[5]))?,
            };
            for rows in [1, 3, 300] {
                let x = random(&[rows, width])?;
                let expected = expected(&x, kind, &tensors)?;
                for got in [layer.forward(&x)?, layer.forward_in_turn(&x)?] {
                    let gap = (got - &expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                    assert!(gap < 1e-5, "{kind:?}, {rows} rows: off by {gap}");
                }
            }
        }
        Ok(())
    }
}
