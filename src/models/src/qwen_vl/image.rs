//! Pictures on their way into a vision tower: a size that the patches divide, normalised values, patches in merge order.
//!
//! Source: `models/qwen2_vl/image_processing_pil_qwen2_vl.py` in transformers 5.17.

use image::RgbImage;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::config::VisionConfig;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{self, Filter, Normalisation};

/// Longest edge over shortest, the most that the processor takes.
const MAX_ASPECT: f64 = 200.0;

/// The patches of one picture.
#[derive(Debug, Clone)]
pub struct Patches {
    /// One row for each patch, `3 * patch * patch` values of one frame: channel, row, column. Patches come block by
    /// block of `merge x merge`, blocks in reading order, so that each block is a run of rows.
    pub values: Vec<f32>,
    /// Rows of patches in the picture; a multiple of `merge`.
    pub rows: usize,
    /// Columns of patches in the picture; a multiple of `merge`.
    pub columns: usize,
}

/// The image processor of a checkpoint.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    /// Least and most pixels after resizing; `None` if pictures are taken at their own size.
    limits: Option<(usize, usize)>,
    filter: Filter,
    normalisation: Normalisation,
    patch: usize,
    merge: usize,
}

/// `preprocessor_config.json`; defaults are those of transformers 5.17.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    resample: u64,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    size: Option<RawSize>,
    patch_size: usize,
    merge_size: usize,
    temporal_patch_size: usize,
}

/// The limits under the names of either generation of the processor.
#[derive(Deserialize)]
struct RawSize {
    #[serde(alias = "min_pixels")]
    shortest_edge: Option<usize>,
    #[serde(alias = "max_pixels")]
    longest_edge: Option<usize>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            resample: 3,
            min_pixels: None,
            max_pixels: None,
            size: None,
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
        }
    }
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json`, or the `image_processor` part of `processor_config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for an unknown filter, a limit that leaves no size, or patches of another size
    /// than the vision tower's.
    pub fn load(tree: &FileTree, config: &VisionConfig) -> Result<Self> {
        const FILE: &str = "preprocessor_config.json";
        const PARENT: &str = "processor_config.json";
        let (path, raw) = if !tree.exists(FILE) && tree.exists(PARENT) {
            let parent: Value = tree.read_json(PARENT)?;
            let path = tree.path_of(PARENT);
            let part = parent.get("image_processor").cloned().unwrap_or(Value::Null);
            let raw: Raw = serde_json::from_value(part)
                .map_err(|e| ModelError::malformed(&path, format!("`image_processor`: {e}")))?;
            (path, raw)
        } else {
            (tree.path_of(FILE), tree.read_json(FILE)?)
        };
        Self::build(path, &raw, config)
    }

    fn build(path: String, raw: &Raw, config: &VisionConfig) -> Result<Self> {
        let stated = (raw.patch_size, raw.merge_size, raw.temporal_patch_size);
        let expected = (config.patch, config.merge, config.frames);
        if stated != expected {
            return Err(ModelError::malformed(
                path,
                format!(
                    "`patch_size`, `merge_size`, `temporal_patch_size` are {stated:?}, config.json has {expected:?}"
                ),
            ));
        }
        let filter = Filter::from_pillow(raw.resample).ok_or_else(|| {
            ModelError::unsupported(
                &path,
                "resample",
                raw.resample,
                "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic",
            )
        })?;
        let (low, high) =
            raw.size.as_ref().map_or((None, None), |size| (size.shortest_edge, size.longest_edge));
        let low = raw.min_pixels.or(low).unwrap_or(56 * 56);
        let high = raw.max_pixels.or(high).unwrap_or(28 * 28 * 1280);
        let factor = config.patch * config.merge;
        if low > high || high < factor * factor {
            return Err(ModelError::malformed(
                path,
                format!(
                    "between {low} and {high} pixels are allowed: no room for one token of {factor} x {factor}"
                ),
            ));
        }
        if raw.do_normalize && raw.image_std.contains(&0.0) {
            return Err(ModelError::malformed(
                path,
                format!("`image_std` holds a zero: {:?}", raw.image_std),
            ));
        }
        let (mean, std) =
            if raw.do_normalize { (raw.image_mean, raw.image_std) } else { ([0.0; 3], [1.0; 3]) };
        let scale = if raw.do_rescale { raw.rescale_factor as f32 } else { 1.0 };
        Ok(Self {
            limits: raw.do_resize.then_some((low, high)),
            filter,
            normalisation: Normalisation::new(scale, mean, std),
            patch: config.patch,
            merge: config.merge,
        })
    }

    /// Width and height that a picture is resized to.
    ///
    /// # Errors
    /// `Request` for an empty or extremely long picture, and without resizing for one that the patches do not fill.
    pub fn size(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        let factor = self.patch * self.merge;
        let (w, h) = (f64::from(width), f64::from(height));
        if width == 0 || height == 0 || w.max(h) / w.min(h) > MAX_ASPECT {
            return Err(ModelError::Request(format!(
                "the picture is {width} x {height} pixels; this model takes at most {MAX_ASPECT} to 1: cut or pad it"
            )));
        }
        let Some((low, high)) = self.limits else {
            if (width as usize).is_multiple_of(factor) && (height as usize).is_multiple_of(factor) {
                return Ok((width, height));
            }
            return Err(ModelError::Request(format!(
                "the picture is {width} x {height} pixels; this model does not resize and takes multiples of {factor}"
            )));
        };
        let f = factor as f64;
        // Python rounds halves to even.
        let mut rounded = ((w / f).round_ties_even() * f, (h / f).round_ties_even() * f);
        if rounded.0 * rounded.1 > high as f64 {
            let shrink = (w * h / high as f64).sqrt();
            let fit = |edge: f64| ((edge / shrink / f).floor() * f).max(f);
            rounded = (fit(w), fit(h));
        } else if rounded.0 * rounded.1 < low as f64 {
            let grow = (low as f64 / (w * h)).sqrt();
            let fit = |edge: f64| (edge * grow / f).ceil() * f;
            rounded = (fit(w), fit(h));
        }
        Ok((rounded.0 as u32, rounded.1 as u32))
    }

    /// Resizes, normalises and cuts a picture.
    ///
    /// # Errors
    /// As [`Self::size`].
    pub fn patches(&self, picture: &RgbImage) -> Result<Patches> {
        let (width, height) = self.size(picture.width(), picture.height())?;
        let resized;
        let picture = if (width, height) == picture.dimensions() {
            picture
        } else {
            resized = pixels::resize(picture, width, height, self.filter);
            &resized
        };
        let (rows, columns) = (height as usize / self.patch, width as usize / self.patch);
        Ok(Patches { values: self.cut(picture), rows, columns })
    }

    /// Normalises and cuts into rows of patches in merge order.
    fn cut(&self, picture: &RgbImage) -> Vec<f32> {
        let (p, m, width) = (self.patch, self.merge, picture.width() as usize);
        let pixels = picture.as_raw().as_chunks::<3>().0;
        let levels: [_; 3] = std::array::from_fn(|channel| self.normalisation.levels(channel));
        let mut values = vec![0f32; pixels.len() * 3];
        // One row of blocks at a time.
        values.par_chunks_exact_mut(3 * p * m * width).enumerate().for_each(|(block_y, values)| {
            let mut lines = values.chunks_exact_mut(p);
            for block_x in 0..width / (p * m) {
                for y in (0..m).map(|i| (block_y * m + i) * p) {
                    for x in (0..m).map(|i| (block_x * m + i) * p) {
                        for (channel, levels) in levels.iter().enumerate() {
                            for (line, out) in (0..p).zip(&mut lines) {
                                let start = (y + line) * width + x;
                                for (value, pixel) in out.iter_mut().zip(&pixels[start..start + p]) {
                                    *value = levels[usize::from(pixel[channel])];
                                }
                            }
                        }
                    }
                }
            }
        });
        values
    }
}
