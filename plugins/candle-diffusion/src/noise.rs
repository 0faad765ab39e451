//! Where the random numbers of a generation come from.

use candle_core::{Device, Tensor};

use crate::error::Result;

pub use crate::normal::SeededNoise;

/// A source of standard normal noise: once for the initial latents, then once for each step that takes noise.
pub trait NoiseSource {
    /// A tensor of `shape` in f32 on `device`.
    ///
    /// # Errors
    /// A failed tensor operation, or a source that has run dry.
    fn draw(&mut self, shape: &[usize], device: &Device) -> Result<Tensor>;
}

impl NoiseSource for SeededNoise {
    fn draw(&mut self, shape: &[usize], device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.numbers(shape.iter().product()), shape, device)?)
    }
}
