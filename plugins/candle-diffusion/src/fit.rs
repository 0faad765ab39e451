//! Fitting the linear map of latents to colours by which cheap previews are made: least squares against what the VAE's
//! decoder makes of the same latents.

use std::time::{Duration, Instant};

use candle_core::Tensor;
use image::RgbImage;
use serde::Serialize;

use crate::error::{DiffusionError, Result};
use crate::noise::SeededNoise;
use crate::pipeline::Pipeline;
use crate::preview::LatentRgb;
use crate::request::GenerateRequest;
use crate::run::Run;
use crate::source::Source;

/// Steps of a drawing whose predictions are taken: an early one is as much a preview as a late one.
const STEPS: usize = 4;
/// What is added to the sums of squares, as a share of their mean, so that latents that do not vary have no say.
const RIDGE: f64 = 1e-6;
/// Error below which pictures count as the same, in grey levels squared.
const SAME: f64 = 1e-3;

/// How well a map does on samples that it was not fitted to, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FitReport {
    /// Samples (pictures, or predictions of drawings) that the map was fitted to.
    pub fitted: usize,
    /// Samples that were held out.
    pub held_out: usize,
    /// Share of the variance of the held-out colours that the map explains, at the size of the latents; at most 1.
    pub r_squared: f64,
    /// Peak signal-to-noise ratio of the held-out previews against the VAE's pictures, in full size, in decibels.
    pub psnr_db: f64,
    /// Mean time of a preview by the map, in milliseconds.
    pub linear_ms: f64,
    /// Mean time of a preview by the VAE's decoder, in milliseconds.
    pub vae_ms: f64,
}

/// A map that is being fitted. Every other picture or drawing is held out.
#[derive(Debug)]
pub struct PreviewFit<'a> {
    pipeline: &'a Pipeline,
    sums: Sums,
    fitted: usize,
    held_out: Vec<Sample>,
    given: usize,
    decoding: Duration,
}

/// Latents and what the VAE makes of them.
#[derive(Debug)]
struct Sample {
    latents: Tensor,
    picture: RgbImage,
    /// The picture's colours, -1 to 1, averaged over what each latent stands for.
    colours: Vec<[f64; 3]>,
    /// The latents' channels and a 1, at the same places.
    inputs: Vec<Vec<f64>>,
}

/// The normal equations of least squares.
#[derive(Debug)]
struct Sums {
    squares: Vec<Vec<f64>>,
    products: Vec<[f64; 3]>,
}

impl Sums {
    fn new(width: usize) -> Self {
        Self { squares: vec![vec![0.0; width]; width], products: vec![[0.0; 3]; width] }
    }

    fn add(&mut self, input: &[f64], colour: &[f64; 3]) {
        for (i, value) in input.iter().enumerate() {
            for (sum, other) in self.squares[i].iter_mut().zip(input) {
                *sum += value * other;
            }
            for (sum, colour) in self.products[i].iter_mut().zip(colour) {
                *sum += value * colour;
            }
        }
    }

    /// The solution by Gaussian elimination; none without samples.
    fn solve(mut self) -> Option<Vec<[f64; 3]>> {
        let width = self.products.len();
        let ridge = RIDGE * (0..width).map(|i| self.squares[i][i]).sum::<f64>() / width as f64;
        (0..width).for_each(|i| self.squares[i][i] += ridge);
        for at in 0..width {
            let largest = (at..width)
                .max_by(|a, b| self.squares[*a][at].abs().total_cmp(&self.squares[*b][at].abs()))?;
            self.squares.swap(at, largest);
            self.products.swap(at, largest);
            let (pivots, product) = (self.squares[at].clone(), self.products[at]);
            if pivots[at] == 0.0 || !pivots[at].is_finite() {
                return None;
            }
            for row in (0..width).filter(|row| *row != at) {
                let factor = self.squares[row][at] / pivots[at];
                for (value, pivot) in self.squares[row].iter_mut().zip(&pivots) {
                    *value -= factor * pivot;
                }
                for (value, product) in self.products[row].iter_mut().zip(&product) {
                    *value -= factor * product;
                }
            }
        }
        Some((0..width).map(|i| self.products[i].map(|value| value / self.squares[i][i])).collect())
    }
}

impl<'a> PreviewFit<'a> {
    /// A fit for the VAE of `pipeline`, without samples.
    pub fn new(pipeline: &'a Pipeline) -> Self {
        let sums = Sums::new(pipeline.vae().config().latent_channels + 1);
        Self { pipeline, sums, fitted: 0, held_out: Vec::new(), given: 0, decoding: Duration::ZERO }
    }

    /// Adds what the VAE's encoder makes of a picture, at the size nearest to its own that the model can draw.
    ///
    /// # Errors
    /// An empty picture; a failed tensor operation.
    pub fn add_picture(&mut self, picture: &RgbImage) -> Result<()> {
        if picture.width() == 0 || picture.height() == 0 {
            return Err(DiffusionError::request("image", "expected at least one pixel, found none"));
        }
        let size = self.pipeline.nearest_size(picture.dimensions());
        let source = Source::new(picture.clone(), None, None);
        let pixels = source.pixels(size, self.pipeline.device())?;
        let latents = self.pipeline.vae().encode_scaled(&pixels)?;
        self.given += 1;
        self.add(latents)
    }

    /// Draws `request` and adds what some of its steps take the finished latents to be.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn add_drawing(&mut self, request: &GenerateRequest) -> Result<()> {
        self.pipeline.check(request)?;
        let mut noise = SeededNoise::new(request.seed, request.index);
        let origins = Run::new(self.pipeline, request)?.origins(&mut noise)?;
        let apart = origins.len().div_ceil(STEPS).max(1);
        self.given += 1;
        origins.into_iter().rev().step_by(apart).try_for_each(|origin| self.add(origin))
    }

    fn add(&mut self, latents: Tensor) -> Result<()> {
        let clock = Instant::now();
        let picture = self.pipeline.decode(&latents, None)?;
        self.decoding += clock.elapsed();
        let sample = Sample::new(latents, picture, self.pipeline.vae().config().downscale())?;
        if self.given.is_multiple_of(2) {
            self.held_out.push(sample);
        } else {
            self.fitted += 1;
            sample
                .inputs
                .iter()
                .zip(&sample.colours)
                .for_each(|(input, colour)| self.sums.add(input, colour));
        }
        Ok(())
    }

    /// The map, and how well it does.
    ///
    /// # Errors
    /// Fewer than two pictures or drawings; a failed tensor operation.
    pub fn finish(self) -> Result<(LatentRgb, FitReport)> {
        let too_few = || {
            let detail = format!("expected at least 2, one of them to be held out, found {}", self.given);
            DiffusionError::request("pictures or drawings to fit previews to", detail)
        };
        if self.held_out.is_empty() {
            return Err(too_few());
        }
        let samples = self.fitted + self.held_out.len();
        let vae_ms = self.decoding.as_secs_f64() * 1e3 / samples as f64;
        let mut factors = self.sums.solve().ok_or_else(|| {
            let detail = "expected latents that are not all 0: the model's VAE or denoiser is broken";
            DiffusionError::request("pictures or drawings to fit previews to", detail)
        })?;
        let bias = factors.pop().unwrap_or_default();
        let single = |colour: [f64; 3]| colour.map(|value| value as f32);
        let map = LatentRgb { factors: factors.into_iter().map(single).collect(), bias: single(bias) };
        let (psnr_db, linear_ms) = compare(&map, &self.held_out)?;
        let r_squared = r_squared(&map, &self.held_out);
        let held_out = self.held_out.len();
        Ok((map, FitReport { fitted: self.fitted, held_out, r_squared, psnr_db, linear_ms, vae_ms }))
    }
}

impl Sample {
    /// `latents` `(1, channels, height, width)` and their picture of `factor` pixels a latent.
    fn new(latents: Tensor, picture: RgbImage, factor: usize) -> Result<Self> {
        let (_, channels, height, width) = latents.dims4()?;
        let values = latents.flatten_all()?.to_vec1::<f32>()?;
        let input = |at: usize| {
            let channel = (0..channels).map(|channel| f64::from(values[channel * height * width + at]));
            channel.chain([1.0]).collect()
        };
        let colour = |at: usize| {
            let (left, top) = (at % width * factor, at / width * factor);
            let mut sum = [0.0; 3];
            for (x, y) in (0..factor).flat_map(|y| (0..factor).map(move |x| (x, y))) {
                let pixel = picture.get_pixel((left + x) as u32, (top + y) as u32);
                sum.iter_mut().zip(pixel.0).for_each(|(sum, value)| *sum += f64::from(value));
            }
            sum.map(|sum| sum / (factor * factor) as f64 / 127.5 - 1.0)
        };
        let places = 0..height * width;
        let (inputs, colours) = (places.clone().map(input).collect(), places.map(colour).collect());
        Ok(Self { latents, picture, colours, inputs })
    }
}

/// Decibels of the map's previews against the VAE's, and milliseconds of one.
fn compare(map: &LatentRgb, samples: &[Sample]) -> Result<(f64, f64)> {
    let (mut squares, mut values, mut taken) = (0.0, 0_usize, Duration::ZERO);
    for sample in samples {
        let clock = Instant::now();
        let preview = map.picture(&sample.latents, sample.picture.dimensions())?;
        taken += clock.elapsed();
        let Some(preview) = preview else { continue };
        for (one, two) in preview.as_raw().iter().zip(sample.picture.as_raw()) {
            squares += (f64::from(*one) - f64::from(*two)).powi(2);
        }
        values += preview.as_raw().len();
    }
    let error = (squares / values.max(1) as f64).max(SAME);
    Ok((10.0 * (255.0 * 255.0 / error).log10(), taken.as_secs_f64() * 1e3 / samples.len().max(1) as f64))
}

/// Share of the variance of all colours that the map explains.
fn r_squared(map: &LatentRgb, samples: &[Sample]) -> f64 {
    let colours = || samples.iter().flat_map(|sample| &sample.colours);
    let count = colours().count().max(1) as f64;
    let mean: [f64; 3] = std::array::from_fn(|i| colours().map(|colour| colour[i]).sum::<f64>() / count);
    let (mut left, mut all) = (0.0, 0.0);
    for (input, colour) in samples.iter().flat_map(|sample| sample.inputs.iter().zip(&sample.colours)) {
        for (i, (colour, mean)) in colour.iter().zip(&mean).enumerate() {
            let rows = map.factors.iter().chain([&map.bias]);
            let found: f64 = rows.zip(input).map(|(row, value)| f64::from(row[i]) * value).sum();
            left += (found - colour).powi(2);
            all += (colour - mean).powi(2);
        }
    }
    if all > 0.0 { 1.0 - left / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use cluegate_models::FileTree;

    use super::*;

    #[test]
    fn a_linear_world_is_found_again() {
        let mut sums = Sums::new(3);
        for number in 0..50 {
            let (a, b) = (f64::from(number % 7) - 3.0, f64::from(number % 5) * 0.5);
            sums.add(&[a, b, 1.0], &[2.0 * a - b, 0.5 * b + 1.0, -a + 0.25]);
        }
        let found = sums.solve().unwrap();
        let expected = [[2.0, 0.0, -1.0], [-1.0, 0.5, 0.0], [0.0, 1.0, 0.25]];
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
        assert!(Sums::new(2).solve().is_none());
    }

    fn pipeline() -> Pipeline {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data/pipeline");
        Pipeline::load(&FileTree::open(folder).unwrap(), &Device::Cpu, DType::F32).unwrap()
    }

    #[test]
    fn pictures_and_drawings_give_a_map_that_the_pipeline_takes() {
        let pipeline = pipeline();
        let mut fit = PreviewFit::new(&pipeline);
        assert!(PreviewFit::new(&pipeline).finish().unwrap_err().to_string().contains("found 0"));
        for number in 0_u8..4 {
            let picture =
                RgbImage::from_fn(17, 16, |x, y| image::Rgb([x as u8 * 15, y as u8 * 15, number * 60]));
            fit.add_picture(&picture).unwrap();
        }
        let empty = fit.add_picture(&RgbImage::new(0, 3)).unwrap_err().to_string();
        assert!(empty.starts_with("image"), "{empty}");
        for seed in 0..2 {
            fit.add_drawing(&GenerateRequest { seed, steps: 6, ..pipeline.default_request("a cat") })
                .unwrap();
        }
        let (map, report) = fit.finish().unwrap();
        // Two pictures of four, and of each of two drawings the predictions of three of six steps.
        assert_eq!((report.fitted, report.held_out), (2 + 3, 2 + 3));
        assert_eq!(map.factors.len(), pipeline.vae().config().latent_channels);
        assert!(report.r_squared <= 1.0 && report.psnr_db.is_finite() && report.vae_ms > 0.0, "{report:?}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(crate::LATENT_RGB);
        std::fs::write(file, serde_json::to_vec(&map).unwrap()).unwrap();
        let tree = FileTree::open(folder.path()).unwrap();
        assert_eq!(LatentRgb::load(&tree, pipeline.vae().config()).unwrap(), Some(map));
    }
}
