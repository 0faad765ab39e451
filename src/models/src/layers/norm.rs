//! Layer norm and RMS norm.

use candle_core::{DType, Result, Tensor};
use candle_nn::{VarBuilder, ops};

use super::{dense, division, has_kernels, rows, values};

/// Layer norm, or RMS norm if it has no bias, over the last axis.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f32,
    /// The same in f32 on the CPU.
    kernel: Option<Kernel>,
}

#[derive(Debug, Clone)]
struct Kernel {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Norm {
    /// Layer norm: `weight` and `bias` below `weights`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn layer(width: usize, epsilon: f64, weights: &VarBuilder<'_>) -> Result<Self> {
        Self::new(weights.get(width, "weight")?, Some(weights.get(width, "bias")?), epsilon)
    }

    /// RMS norm: `weight` below `weights`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub(crate) fn rms(width: usize, epsilon: f64, weights: &VarBuilder<'_>) -> Result<Self> {
        Self::new(weights.get(width, "weight")?, None, epsilon)
    }

    pub(super) fn new(weight: Tensor, bias: Option<Tensor>, epsilon: f64) -> Result<Self> {
        let kernel = if has_kernels(&weight) {
            let all = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.to_vec1();
            Some(Kernel { weight: all(&weight)?, bias: bias.as_ref().map(all).transpose()? })
        } else {
            None
        };
        Ok(Self { weight, bias, epsilon: epsilon as f32, kernel })
    }

    /// Any shape to the same.
    ///
    /// # Errors
    /// A last axis of another length.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if crate::cuda::normalises(x) {
            return crate::cuda::normalise(&x.contiguous()?, &self.weight, self.bias.as_ref(), self.epsilon);
        }
        let (Some(_), true) = (&self.kernel, x.dims().last() == Some(&self.weight.elem_count())) else {
            return match &self.bias {
                Some(bias) => ops::layer_norm(&x.contiguous()?, &self.weight, bias, self.epsilon),
                None => ops::rms_norm(&x.contiguous()?, &self.weight, self.epsilon),
            };
        };
        let dtype = x.dtype();
        let x = dense(x)?;
        let mut out = vec![0f32; x.elem_count()];
        let width = self.weight.elem_count();
        let access = values(&x);
        let input = access.dense()?;
        // About ten operations a value.
        let threads = division::threads(10 * out.len());
        division::by_rows(input.len() / width.max(1), width, threads, &mut out, |range, out| {
            self.rows(&input[range.start * width..range.end * width], out);
        });
        Tensor::from_vec(out, x.shape(), x.device())?.to_dtype(dtype)
    }

    /// Rows on the CPU.
    pub(super) fn rows(&self, rows: &[f32], out: &mut [f32]) {
        if let Some(kernel) = &self.kernel {
            rows::normalise(rows, &kernel.weight, kernel.bias.as_deref(), self.epsilon, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn norms_agree_with_candles() -> Result<()> {
        let device = Device::Cpu;
        for width in [1, 5, 16, 192] {
            let x = (Tensor::randn(0f32, 2.0, (3, 41, width), &device)? + 0.5)?;
            let weight = Tensor::randn(1f32, 0.5, width, &device)?;
            let bias = Tensor::randn(0f32, 0.5, width, &device)?;
            let expected = [ops::layer_norm(&x, &weight, &bias, 1e-5)?, ops::rms_norm(&x, &weight, 1e-5)?];
            let norms = [Norm::new(weight.clone(), Some(bias), 1e-5)?, Norm::new(weight, None, 1e-5)?];
            for (norm, expected) in norms.iter().zip(expected) {
                let gap = (norm.forward(&x)? - expected)?.abs()?.flatten_all()?.max(0)?;
                // Rows of few numbers may lie close together, and their rounding is scaled up with them.
                assert!(gap.to_scalar::<f32>()? < 1e-4, "{norm:?}: {gap}");
            }
        }
        Ok(())
    }
}
