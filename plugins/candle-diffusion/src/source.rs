//! A picture that a generation begins from, and the part of it that is to be drawn anew.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};

use crate::error::{DiffusionError, Result};

/// A picture to begin from instead of noise alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The picture; scaled to the request's width and height if it has others.
    pub picture: Arc<RgbImage>,
    /// Where to draw: from the middle grey (128) up. In the picture's size, or scaled as it is. `None` for everywhere.
    pub mask: Option<Arc<GrayImage>>,
    /// Share of the steps that are carried out, over 0 and at most 1: how far the result may be from the picture.
    pub strength: f64,
}

impl Source {
    /// A picture with a mask or without; where no strength is named, 0.8 for a whole picture and 1 for a part of one.
    pub fn new(picture: RgbImage, mask: Option<GrayImage>, strength: Option<f64>) -> Self {
        let strength = strength.unwrap_or(if mask.is_some() { 1.0 } else { 0.8 });
        Self { picture: Arc::new(picture), mask: mask.map(Arc::new), strength }
    }

    /// Checks strength and sizes.
    ///
    /// # Errors
    /// A request error that names the field, its range and its value.
    pub(crate) fn check(&self, steps: usize) -> Result<()> {
        if !(self.strength > 0.0 && self.strength <= 1.0) {
            let detail = format!("expected over 0 and at most 1, found {}", self.strength);
            return Err(DiffusionError::request("strength", detail));
        }
        if self.strength * (steps as f64) < 1.0 {
            let detail = format!(
                "{} of {steps} steps is less than one; ask for more steps or a larger strength",
                self.strength
            );
            return Err(DiffusionError::request("strength", detail));
        }
        let empty = |width: u32, height: u32| width == 0 || height == 0;
        if empty(self.picture.width(), self.picture.height()) {
            return Err(DiffusionError::request("image", "expected at least one pixel, found none"));
        }
        if self.mask.as_ref().is_some_and(|mask| empty(mask.width(), mask.height())) {
            return Err(DiffusionError::request("mask", "expected at least one pixel, found none"));
        }
        Ok(())
    }

    /// Steps of `steps` that are left out at the beginning. Flow models round the other way (diffusers 0.42.1,
    /// `get_timesteps` of the pipelines).
    pub(crate) fn skipped(&self, steps: usize, flow: bool) -> usize {
        let carried = (steps as f64 * self.strength).min(steps as f64);
        if flow { (steps as f64 - carried) as usize } else { steps - carried as usize }
    }

    /// The picture as `(1, 3, height, width)` of -1 to 1.
    pub(crate) fn pixels(&self, (width, height): (u32, u32), device: &Device) -> Result<Tensor> {
        let scaled;
        let picture = if self.picture.dimensions() == (width, height) {
            self.picture.as_ref()
        } else {
            scaled = imageops::resize(self.picture.as_ref(), width, height, FilterType::Lanczos3);
            &scaled
        };
        let values: Vec<f32> = picture.as_raw().iter().map(|v| f32::from(*v) / 255.0 * 2.0 - 1.0).collect();
        let pixels = Tensor::from_vec(values, (height as usize, width as usize, 3), device)?;
        Ok(pixels.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?)
    }

    /// 1 where to draw and 0 elsewhere, in the size of the request.
    fn marks(&self, (width, height): (u32, u32)) -> Option<Vec<f32>> {
        let mask = self.mask.as_ref()?;
        let scaled;
        let mask = if mask.dimensions() == (width, height) {
            mask.as_ref()
        } else {
            scaled = imageops::resize(mask.as_ref(), width, height, FilterType::Lanczos3);
            &scaled
        };
        Some(mask.as_raw().iter().map(|value| if *value >= 128 { 1.0 } else { 0.0 }).collect())
    }

    /// The mask over latents, each of which stands for `factor` x `factor` pixels: `(1, 1, height, width)` of 0 and 1.
    pub(crate) fn latent_mask(
        &self,
        (width, height): (u32, u32),
        factor: usize,
        device: &Device,
    ) -> Result<Option<Tensor>> {
        let Some(marks) = self.marks((width, height)) else { return Ok(None) };
        let (rows, columns) = (height as usize / factor, width as usize / factor);
        let mark = |i: usize| marks[i / columns * factor * width as usize + i % columns * factor];
        let values: Vec<f32> = (0..rows * columns).map(mark).collect();
        Ok(Some(Tensor::from_vec(values, (1, 1, rows, columns), device)?))
    }

    /// The picture with grey where it is to be drawn anew: what inpainting UNets see of it.
    pub(crate) fn masked_pixels(&self, size: (u32, u32), device: &Device) -> Result<Tensor> {
        let pixels = self.pixels(size, device)?;
        let Some(marks) = self.marks(size) else { return Ok(pixels) };
        let kept: Vec<f32> = marks.iter().map(|mark| 1.0 - mark).collect();
        let kept = Tensor::from_vec(kept, (1, 1, size.1 as usize, size.0 as usize), device)?;
        Ok(pixels.broadcast_mul(&kept)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(strength: f64) -> Source {
        let picture = RgbImage::from_fn(4, 2, |x, y| image::Rgb([x as u8 * 80, y as u8 * 255, 0]));
        let mask = GrayImage::from_fn(4, 2, |x, _| image::Luma([if x < 2 { 127 } else { 128 }]));
        Source { picture: Arc::new(picture), mask: Some(Arc::new(mask)), strength }
    }

    #[test]
    fn strengths_that_leave_no_step_are_refused() {
        for (strength, steps) in [(0.0, 20), (-0.5, 20), (1.1, 20), (f64::NAN, 20), (0.04, 20)] {
            let error = source(strength).check(steps).unwrap_err().to_string();
            assert!(error.starts_with("strength"), "{error}");
        }
        assert!(source(0.05).check(20).is_ok() && source(1.0).check(1).is_ok());
        let mut empty = source(1.0);
        empty.mask = Some(Arc::new(GrayImage::new(0, 0)));
        assert!(empty.check(4).unwrap_err().to_string().starts_with("mask"));
    }

    #[test]
    fn skipped_steps_are_rounded_as_the_family_does() {
        assert_eq!((source(0.6).skipped(4, false), source(0.6).skipped(4, true)), (2, 1));
        assert_eq!((source(1.0).skipped(4, false), source(1.0).skipped(4, true)), (0, 0));
    }

    #[test]
    fn pixels_and_mask_keep_their_places() {
        let source = source(1.0);
        let pixels =
            source.pixels((4, 2), &Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!((pixels[3] - (240.0 / 127.5 - 1.0)).abs() < 1e-6 && (pixels[8] + 1.0).abs() < 1e-6);
        let mask = source.latent_mask((4, 2), 2, &Device::Cpu).unwrap().unwrap();
        assert_eq!(mask.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
        let masked = source.masked_pixels((4, 2), &Device::Cpu).unwrap().flatten_all().unwrap();
        let masked = masked.to_vec1::<f32>().unwrap();
        assert!(masked[3].abs() < 1e-6 && (masked[1] - pixels[1]).abs() < 1e-6);
        // Another size is scaled.
        assert_eq!(source.pixels((8, 6), &Device::Cpu).unwrap().dims(), [1, 3, 6, 8]);
    }
}
