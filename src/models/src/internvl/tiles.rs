//! Pictures on their way into InternVL: as many square tiles as come nearest to their shape, and a thumbnail.
//!
//! Source: `models/got_ocr2/image_processing_pil_got_ocr2.py` in transformers 5.17, which `models/internvl` uses, and
//! `dynamic_preprocess` in `internvl_chat/internvl/train/dataset.py` of github.com/OpenGVLab/InternVL at 2410d1d.

use candle_core::{Device, Tensor};
use image::{RgbImage, imageops};
use serde::Deserialize;
use serde_json::Value;

use super::config::{Config, TileLimits, VisionConfig};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{self, Filter, Normalisation};

pub(super) const FILE: &str = "preprocessor_config.json";
pub(super) const PARENT: &str = "processor_config.json";
/// ImageNet's, which the original code brings along.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Cuts pictures into tiles.
#[derive(Debug, Clone)]
pub(super) struct Tiler {
    limits: TileLimits,
    /// Edge of a tile in pixels.
    tile: u32,
    filter: Filter,
    normalisation: Normalisation,
}

/// `preprocessor_config.json` in the layout of transformers; defaults are those of transformers 5.17.
/// `crop_to_patches` is not read: the processor of InternVL always cuts.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    size: RawSize,
    min_patches: u32,
    max_patches: u32,
    do_rescale: bool,
    do_normalize: bool,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    resample: u64,
}

#[derive(Debug, Deserialize)]
struct RawSize {
    height: usize,
    width: usize,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            size: RawSize { height: 384, width: 384 },
            min_patches: 1,
            max_patches: 12,
            do_rescale: true,
            do_normalize: true,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            resample: 3,
        }
    }
}

/// `processor_config.json` in the layout of transformers.
#[derive(Deserialize)]
struct RawParent {
    image_seq_length: Option<usize>,
    image_processor: Option<Value>,
}

impl Tiler {
    /// In the original layout by `config.json` and with the constants of the original code; in that of transformers by
    /// `preprocessor_config.json` or the `image_processor` part of `processor_config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for an unknown filter, tiles of another size than the vision tower's, or a number of
    /// tokens that is not the tower's.
    pub(super) fn load(tree: &FileTree, config: &Config) -> Result<Self> {
        if let Some(limits) = config.tiles {
            let normalisation = Normalisation::new(1.0 / 255.0, MEAN, STD);
            return Ok(Self {
                limits,
                tile: config.vision.tile as u32,
                filter: Filter::Bicubic,
                normalisation,
            });
        }
        let parent: Option<RawParent> =
            if tree.exists(PARENT) { Some(tree.read_json(PARENT)?) } else { None };
        let tokens = parent.as_ref().and_then(|parent| parent.image_seq_length);
        if let Some(tokens) = tokens.filter(|&tokens| tokens != config.vision.tokens()) {
            let detail =
                format!("`image_seq_length` is {tokens}, a tile has {} tokens", config.vision.tokens());
            return Err(ModelError::malformed(tree.path_of(PARENT), detail));
        }
        match parent.and_then(|parent| parent.image_processor).filter(|_| !tree.exists(FILE)) {
            Some(part) => {
                let path = tree.path_of(PARENT);
                let raw = serde_json::from_value(part)
                    .map_err(|e| ModelError::malformed(&path, format!("`image_processor`: {e}")))?;
                Self::build(path, &raw, &config.vision)
            }
            None => Self::build(tree.path_of(FILE), &tree.read_json(FILE)?, &config.vision),
        }
    }

    fn build(path: String, raw: &Raw, config: &VisionConfig) -> Result<Self> {
        if (raw.size.height, raw.size.width) != (config.tile, config.tile) {
            let detail =
                format!("`size` is {:?}, the vision tower takes squares of {}", raw.size, config.tile);
            return Err(ModelError::malformed(path, detail));
        }
        let filter = Filter::from_pillow(raw.resample).ok_or_else(|| {
            let known = "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic";
            ModelError::unsupported(&path, "resample", raw.resample, known)
        })?;
        if raw.do_normalize && raw.image_std.contains(&0.0) {
            let detail = format!("`image_std` holds a zero: {:?}", raw.image_std);
            return Err(ModelError::malformed(path, detail));
        }
        let (mean, std) =
            if raw.do_normalize { (raw.image_mean, raw.image_std) } else { ([0.0; 3], [1.0; 3]) };
        let scale = if raw.do_rescale { raw.rescale_factor as f32 } else { 1.0 };
        let limits = TileLimits { fewest: raw.min_patches, most: raw.max_patches, thumbnail: true };
        Ok(Self {
            limits: limits.check(&path)?,
            tile: config.tile as u32,
            filter,
            normalisation: Normalisation::new(scale, mean, std),
        })
    }

    /// Columns and rows of tiles that come nearest to the shape of a picture. Of two that are equally near, the one of
    /// more tiles if the picture has more than half of its pixels.
    fn grid(&self, width: u32, height: u32) -> (u32, u32) {
        let TileLimits { fewest, most, .. } = self.limits;
        let mut grids: Vec<(u32, u32)> = (1..=most)
            .flat_map(|columns| (1..=most / columns).map(move |rows| (columns, rows)))
            .filter(|(columns, rows)| columns * rows >= fewest)
            .collect();
        grids.sort_by_key(|(columns, rows)| columns * rows);
        let shape = f64::from(width) / f64::from(height);
        let area = f64::from(width) * f64::from(height);
        let tile = f64::from(self.tile);
        let (mut best, mut nearest) = ((1, 1), f64::INFINITY);
        for (columns, rows) in grids {
            let gap = (shape - f64::from(columns) / f64::from(rows)).abs();
            let fills = area > 0.5 * tile * tile * f64::from(columns) * f64::from(rows);
            if gap < nearest || (gap == nearest && fills) {
                (best, nearest) = ((columns, rows), gap);
            }
        }
        best
    }

    /// How many tiles a picture of this size becomes, the thumbnail included.
    ///
    /// # Errors
    /// `Request` for a picture without pixels.
    pub(super) fn count(&self, width: u32, height: u32) -> Result<usize> {
        if width == 0 || height == 0 {
            return Err(ModelError::Request(format!("the picture is {width} x {height} pixels: empty")));
        }
        let (columns, rows) = self.grid(width, height);
        let tiles = columns * rows;
        Ok((tiles + u32::from(self.has_thumbnail(tiles))) as usize)
    }

    fn has_thumbnail(&self, tiles: u32) -> bool {
        self.limits.thumbnail && tiles > 1
    }

    /// A picture's tiles in reading order, then the thumbnail: `[tiles, 3, tile, tile]` on the CPU.
    ///
    /// # Errors
    /// As [`Self::count`]; `Tensor`.
    pub(super) fn tiles(&self, picture: &RgbImage) -> Result<Tensor> {
        let count = self.count(picture.width(), picture.height())?;
        let (columns, rows) = self.grid(picture.width(), picture.height());
        let edge = self.tile;
        let mut values = Vec::new();
        let whole = self.resized(picture, columns * edge, rows * edge);
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let tile = imageops::crop_imm(&whole, column * edge, row * edge, edge, edge).to_image();
            self.normalisation.extend_planar(&tile, &mut values);
        }
        if self.has_thumbnail(columns * rows) {
            self.normalisation.extend_planar(&self.resized(picture, edge, edge), &mut values);
        }
        let edge = edge as usize;
        Ok(Tensor::from_vec(values, (count, 3, edge, edge), &Device::Cpu)?)
    }

    fn resized(&self, picture: &RgbImage, width: u32, height: u32) -> RgbImage {
        pixels::resize(picture, width, height, self.filter)
    }
}
