//! Rotary positions: one angle for each pair of a head's components.

use candle_core::{DType, Device, Result, Tensor};

/// Cosines and sines, `[tokens, head / 2]` each, for `candle_nn::rotary_emb::rope_thd`.
#[derive(Debug, Clone)]
pub(super) struct Angles {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Angles {
    /// From the angles in radians, row by row. Computed in f32, as transformers does even for bf16 models.
    pub(super) fn new(angles: Vec<f32>, pairs: usize, device: &Device, dtype: DType) -> Result<Self> {
        let tokens = angles.len() / pairs;
        let cos = angles.iter().map(|a| a.cos()).collect::<Vec<_>>();
        let sin = angles.iter().map(|a| a.sin()).collect::<Vec<_>>();
        let tensor = |values| Tensor::from_vec(values, (tokens, pairs), device)?.to_dtype(dtype);
        Ok(Self { cos: tensor(cos)?, sin: tensor(sin)? })
    }

    /// The angles of some of the tokens.
    pub(super) fn at(&self, tokens: &Tensor) -> Result<Self> {
        Ok(Self { cos: self.cos.index_select(tokens, 0)?, sin: self.sin.index_select(tokens, 0)? })
    }

    /// Turns `xs` (`[batch, tokens, heads, head]`, contiguous); the angles are the same for every row of the batch.
    pub(super) fn turn(&self, xs: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(xs, &self.cos, &self.sin)
    }
}

/// `theta^(-2 i / width)` for `i` in `0..width / 2`.
pub(super) fn inverse_frequencies(theta: f32, width: usize) -> Vec<f32> {
    (0..width / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / width as f32)).collect()
}
