//! Pictures on their way into Idefics3: tiles of the vision tower's size, and the whole picture at that size.
//!
//! Source: `models/idefics3/image_processing_pil_idefics3.py` in transformers 5.17, which takes that one by default
//! (torchvision before 0.27 has no Lanczos filter). Every step rounds to 8 bits, as there.

use candle_core::{Device, Tensor};
use image::{RgbImage, imageops};
use serde::Deserialize;
use serde_json::Value;

use super::config::Config;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{Filter, Normalisation, resize_in_pillows_order as resize};

/// No edge becomes longer than this, whatever the file says.
const MOST_PIXELS: u32 = 4096;

/// How large a picture becomes before it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// The longest edge gets this length.
    Longest(u32),
    Exact {
        height: u32,
        width: u32,
    },
}

/// The image processor of a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct ImageProcessor {
    size: Size,
    /// Edge of a tile in pixels.
    tile: u32,
    /// Whether pictures are cut, or only shrunk to one tile.
    splits: bool,
    filter: Filter,
    normalisation: Normalisation,
}

/// What becomes of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Width and height after each resize, one after the other.
    sizes: Vec<(u32, u32)>,
    /// Rows of tiles; 0 if there is only the whole picture.
    pub(super) rows: u32,
    /// Columns of tiles; 0 if there is only the whole picture.
    pub(super) columns: u32,
}

/// `preprocessor_config.json`; defaults are those of transformers 5.17.
#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    do_image_splitting: bool,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    resample: u64,
    size: RawSize,
    max_image_size: RawSize,
}

#[derive(Deserialize, Debug, Default)]
struct RawSize {
    longest_edge: Option<u32>,
    height: Option<u32>,
    width: Option<u32>,
}

impl RawSize {
    fn longest(edge: u32) -> Self {
        Self { longest_edge: Some(edge), ..Self::default() }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
            do_image_splitting: true,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            resample: 1,
            size: RawSize::longest(4 * 364),
            max_image_size: RawSize::longest(364),
        }
    }
}

/// The part of `processor_config.json` that matters; its image processor lies there since transformers 5.
#[derive(Deserialize, Default)]
struct RawProcessor {
    image_seq_len: Option<usize>,
    image_processor: Option<Value>,
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json` and `processor_config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` for tiles that do not fit the vision tower; `Unsupported` for an unknown filter or a
    /// processor that does not resize.
    pub(super) fn load(tree: &FileTree, config: &Config) -> Result<Self> {
        const FILE: &str = "preprocessor_config.json";
        const PARENT: &str = "processor_config.json";
        let parent: RawProcessor =
            if tree.exists(PARENT) { tree.read_json(PARENT)? } else { RawProcessor::default() };
        let expected = config.tokens_per_tile();
        // The default is that of the 8B model.
        if let Some(tokens) = parent.image_seq_len.filter(|&tokens| tokens != expected) {
            let detail =
                format!("`image_seq_len` is {tokens}, a tile becomes {expected} tokens by config.json");
            return Err(ModelError::malformed(tree.path_of(PARENT), detail));
        }
        let (path, raw) = match parent.image_processor {
            Some(part) if !tree.exists(FILE) => {
                let path = tree.path_of(PARENT);
                let raw = serde_json::from_value(part)
                    .map_err(|e| ModelError::malformed(&path, format!("`image_processor`: {e}")))?;
                (path, raw)
            }
            _ => (tree.path_of(FILE), tree.read_json(FILE)?),
        };
        Self::build(&path, &raw, config.vision.image_size)
    }

    fn build(path: &str, raw: &Raw, edge: usize) -> Result<Self> {
        if !raw.do_resize {
            return Err(ModelError::unsupported(path, "`do_resize`", false, "true"));
        }
        let filter = Filter::from_pillow(raw.resample).ok_or_else(|| {
            let supported = "0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic";
            ModelError::unsupported(path, "`resample`", raw.resample, supported)
        })?;
        let size = match raw.size {
            RawSize { longest_edge: Some(edge), .. } if edge > 0 => Size::Longest(edge),
            RawSize { height: Some(height), width: Some(width), .. }
                if (1..=MOST_PIXELS).contains(&height) && (1..=MOST_PIXELS).contains(&width) =>
            {
                Size::Exact { height, width }
            }
            _ => {
                let supported = "`longest_edge`, or `height` and `width`, at least 1";
                return Err(ModelError::unsupported(path, "`size`", format!("{:?}", raw.size), supported));
            }
        };
        let tile = raw.max_image_size.longest_edge.unwrap_or(0);
        if tile as usize != edge {
            let detail =
                format!("`max_image_size` has `longest_edge` {tile}, the vision tower takes {edge}x{edge}");
            return Err(ModelError::malformed(path, detail));
        }
        let (mean, std) =
            if raw.do_normalize { (raw.image_mean, raw.image_std) } else { ([0.0; 3], [1.0; 3]) };
        if !std.iter().all(|std| *std > 0.0) {
            let detail = format!("`image_std` is {std:?}, expected positive numbers");
            return Err(ModelError::malformed(path, detail));
        }
        let scale = if raw.do_rescale { raw.rescale_factor as f32 } else { 1.0 };
        let normalisation = Normalisation::new(scale, mean, std);
        Ok(Self { size, tile, splits: raw.do_image_splitting, filter, normalisation })
    }

    /// Most tiles of a row or column.
    pub(super) fn most_tiles(&self) -> u32 {
        let longest = match self.size {
            Size::Longest(edge) => edge.min(MOST_PIXELS),
            Size::Exact { height, width } => height.max(width),
        };
        if self.splits { longest.div_ceil(self.tile) } else { 0 }
    }

    /// What becomes of a picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// `Request` for a picture without pixels.
    pub(super) fn plan(&self, width: u32, height: u32) -> Result<Plan> {
        if width == 0 || height == 0 {
            return Err(ModelError::Request(format!(
                "the picture is {width} x {height} pixels; this model takes pictures that have some"
            )));
        }
        let first = match self.size {
            Size::Longest(edge) => bounded(longest(width, height, edge)),
            Size::Exact { height, width } => (width, height),
        };
        if !self.splits {
            return Ok(Plan { sizes: vec![first, (self.tile, self.tile)], rows: 0, columns: 0 });
        }
        let second = self.multiples(first);
        let (columns, rows) = (second.0 / self.tile, second.1 / self.tile);
        // A single tile is the whole picture.
        let (rows, columns) = if rows * columns == 1 { (0, 0) } else { (rows, columns) };
        Ok(Plan { sizes: vec![first, second], rows, columns })
    }

    /// The size rounded up to whole tiles; the shorter edge follows from the longer one.
    fn multiples(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let whole = |edge: u32| edge.div_ceil(self.tile) * self.tile;
        let ratio = f64::from(width) / f64::from(height);
        if width >= height {
            let width = whole(width);
            (width, whole((f64::from(width) / ratio) as u32))
        } else {
            let height = whole(height);
            (whole((f64::from(height) * ratio) as u32), height)
        }
    }

    /// Tiles row by row and then the whole picture, `(tiles, 3, edge, edge)`, f32 on the CPU.
    ///
    /// # Errors
    /// `Request` for a picture without pixels.
    pub(super) fn tiles(&self, picture: &RgbImage) -> Result<Tensor> {
        let plan = self.plan(picture.width(), picture.height())?;
        let mut sized = resize(picture, plan.sizes[0].0, plan.sizes[0].1, self.filter);
        for &(width, height) in &plan.sizes[1..] {
            sized = resize(&sized, width, height, self.filter);
        }
        let edge = self.tile;
        let mut tiles = Vec::with_capacity((plan.rows * plan.columns + 1) as usize);
        for row in 0..plan.rows {
            for column in 0..plan.columns {
                tiles.push(imageops::crop_imm(&sized, column * edge, row * edge, edge, edge).to_image());
            }
        }
        tiles.push(resize(&sized, edge, edge, self.filter));
        Ok(self.normalisation.batch(&tiles, &Device::Cpu)?)
    }
}

/// The size with the longest edge `edge` pixels long, the other one rounded down and then up to an even number.
fn longest(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let ratio = f64::from(width) / f64::from(height);
    let even = |other: f64| {
        let other = other as u32;
        (other + other % 2).max(1)
    };
    if width >= height {
        (edge.max(1), even(f64::from(edge) / ratio))
    } else {
        (even(f64::from(edge) * ratio), edge.max(1))
    }
}

/// The size with no edge beyond [`MOST_PIXELS`].
fn bounded((width, height): (u32, u32)) -> (u32, u32) {
    let ratio = f64::from(width) / f64::from(height);
    let most = f64::from(MOST_PIXELS);
    if width >= height && width > MOST_PIXELS {
        (MOST_PIXELS, ((most / ratio) as u32).max(1))
    } else if height > MOST_PIXELS {
        (((most * ratio) as u32).max(1), MOST_PIXELS)
    } else {
        (width, height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(longest: u32, tile: u32) -> ImageProcessor {
        let raw =
            Raw { size: RawSize::longest(longest), max_image_size: RawSize::longest(tile), ..Raw::default() };
        ImageProcessor::build("preprocessor_config.json", &raw, tile as usize).unwrap()
    }

    /// Rows and columns that the reference's processors make.
    #[test]
    fn pictures_become_the_tiles_of_the_reference() {
        // SmolVLM 256M and 500M, SmolVLM 2.2B, Idefics3 8B.
        for (longest, tile) in [(2048, 512), (1536, 384), (1456, 364)] {
            let processor = processor(longest, tile);
            for ((width, height), expected) in [
                ((1024, 1024), (4, 4)),
                ((640, 480), (3, 4)),
                ((1920, 1080), (3, 4)),
                ((100, 1000), (4, 1)),
                ((3000, 20), (1, 4)),
                ((1, 1), (4, 4)),
            ] {
                let plan = processor.plan(width, height).unwrap();
                assert_eq!((plan.rows, plan.columns), expected, "{width} x {height}");
                assert!(plan.rows.max(plan.columns) <= processor.most_tiles());
            }
        }
        let single = processor(512, 512).plan(1000, 300).unwrap();
        assert_eq!((single.rows, single.columns, &single.sizes[..]), (0, 0, &[(512, 154), (512, 512)][..]));
        // Beyond the bound of the reference.
        assert_eq!(processor(9000, 512).plan(90, 45).unwrap().sizes, [(4096, 2048), (4096, 2048)]);
        assert!(processor(2048, 512).plan(0, 3).is_err());
    }
}
