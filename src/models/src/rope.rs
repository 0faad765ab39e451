//! Rotary positions: one angle for each pair of a head's components.

use candle_core::{DType, Device, Result, Tensor};

/// Cosines and sines, `[tokens, head / 2]` each, for `candle_nn::rotary_emb::rope_thd`.
#[derive(Debug, Clone)]
pub(crate) struct Angles {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

impl Angles {
    /// From the angles in radians, row by row. Computed in f32, as transformers does even for bf16 models.
    pub(crate) fn new(angles: Vec<f32>, pairs: usize, device: &Device, dtype: DType) -> Result<Self> {
        let tokens = angles.len() / pairs;
        let angles = Tensor::from_vec(angles, (tokens, pairs), device)?;
        Ok(Self { cos: angles.cos()?.to_dtype(dtype)?, sin: angles.sin()?.to_dtype(dtype)? })
    }

    /// The angles of some of the tokens.
    pub(crate) fn at(&self, tokens: &Tensor) -> Result<Self> {
        Ok(Self { cos: self.cos.index_select(tokens, 0)?, sin: self.sin.index_select(tokens, 0)? })
    }
}

/// `theta^(-2 i / width)` for `i` in `0..width / 2`.
pub(crate) fn inverse_frequencies(theta: f32, width: usize) -> Vec<f32> {
    (0..width / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / width as f32)).collect()
}
