//! Pictures on their way into LLaVA: one view, or the whole and its tiles.
//!
//! Sources in transformers 5.17: `models/clip/image_processing_clip.py`, `models/llava/image_processing_llava.py`,
//! `models/llava_next/image_processing_llava_next.py`, `image_processing_utils.py` (`select_best_resolution`,
//! `get_patch_output_size`).

use image::{Rgb, RgbImage, imageops};

use super::config::{Config, RESOLUTIONS, Views};
use super::original::{self, Aspect};
use crate::clip::{PictureProcessor, ProcessorKind, RawProcessor};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::pixels::{Filter, Normalisation, resize};

/// Rows of a padded picture that are narrowed at a time.
const STRIP: u32 = 64;

/// The image processor of a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct ImageProcessor {
    kind: Kind,
    /// Side of a view in pixels.
    side: u32,
    normalisation: Normalisation,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The shortest edge resized, the middle cut out.
    Cropped(PictureProcessor),
    /// Padded to a square with one colour, in the middle, and resized.
    Padded { fill: [u8; 3], filter: Filter },
    /// The picture squeezed into a square; then, fitted into the best of these heights and widths, its tiles.
    Tiled { resolutions: Vec<[u32; 2]>, filter: Filter },
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json`, or the `image_processor` part of `processor_config.json`. The authors'
    /// layout, which has neither, says the same in `config.json`.
    ///
    /// # Errors
    /// `MissingFile`; `Malformed` or `Unsupported` for another kind of processor, or views that do not fit the tower.
    pub(super) fn load(tree: &FileTree, config: &Config) -> Result<Self> {
        let side = config.vision.image_size as u32;
        if let Some(layout) = &config.original {
            let (raw, path) = original::processor(tree, side)?;
            return Self::build(&raw, &path, config, layout.aspect == Aspect::Pad);
        }
        let kinds: &[&str] = if config.views == Views::One { &["CLIP", "Llava"] } else { &["LlavaNext"] };
        let (raw, path) = RawProcessor::load(tree, kinds)?;
        let padded = config.views == Views::One && raw.do_pad == Some(true);
        if padded && raw.image_processor_type.as_deref().is_none_or(|name| name.starts_with("CLIP")) {
            return Err(ModelError::unsupported(path, "`do_pad`", true, "false, or a LlavaImageProcessor"));
        }
        Self::build(&raw, &path, config, padded)
    }

    fn build(raw: &RawProcessor, path: &str, config: &Config, padded: bool) -> Result<Self> {
        let side = config.vision.image_size as u32;
        let kind = match &config.views {
            Views::One if !padded => {
                let kind = ProcessorKind::Clip;
                Kind::Cropped(PictureProcessor::build(raw, path, kind, config.vision.image_size)?)
            }
            Views::One => {
                check_square(raw, path, side)?;
                // Python's `int(value * 255)` in double precision.
                let fill = raw.mean().map(|value| (f64::from(value) * 255.0) as u8);
                Kind::Padded { fill, filter: raw.filter(path)? }
            }
            Views::Tiles(resolutions) => {
                check_square(raw, path, side)?;
                // The authors' processor file knows of no tiles.
                let own = raw.image_grid_pinpoints.as_deref().unwrap_or(&RESOLUTIONS);
                if own != resolutions.as_slice() && config.original.is_none() {
                    let detail =
                        format!("`image_grid_pinpoints` is {own:?}, config.json has {resolutions:?}");
                    return Err(ModelError::malformed(path, detail));
                }
                Kind::Tiled { resolutions: resolutions.clone(), filter: raw.filter(path)? }
            }
        };
        Ok(Self { kind, side, normalisation: raw.normalisation(path)? })
    }

    /// How many rows and columns of tiles a picture is cut into beside the view of its whole; `None` if there is but
    /// one view.
    pub(super) fn tiles(&self, width: u32, height: u32) -> Option<(usize, usize)> {
        match &self.kind {
            Kind::Cropped(_) | Kind::Padded { .. } => None,
            Kind::Tiled { resolutions, .. } => {
                let [high, wide] = best_resolution(width, height, resolutions);
                Some(((high / self.side) as usize, (wide / self.side) as usize))
            }
        }
    }

    /// The views of a picture, squares of the tower's side: the whole, then the tiles in reading order.
    pub(super) fn views(&self, picture: &RgbImage) -> Vec<RgbImage> {
        match &self.kind {
            Kind::Cropped(processor) => vec![processor.fit(picture)],
            Kind::Padded { fill, filter } => vec![padded_square(picture, *fill, self.side, *filter)],
            Kind::Tiled { resolutions, filter } => {
                let side = self.side;
                let [high, wide] = best_resolution(picture.width(), picture.height(), resolutions);
                let whole = fit(picture, wide, high, *filter);
                let mut views = vec![resize(picture, side, side, *filter)];
                for (y, x) in (0..high)
                    .step_by(side as usize)
                    .flat_map(|y| (0..wide).step_by(side as usize).map(move |x| (y, x)))
                {
                    views.push(imageops::crop_imm(&whole, x, y, side, side).to_image());
                }
                views
            }
        }
    }

    /// What follows [`Self::views`].
    pub(super) fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }
}

/// Where a view must be a square of the tower's side: what `size` and `crop_size` say is then the same, and resizing
/// or cropping a view once more, as the reference does, changes nothing.
fn check_square(raw: &RawProcessor, path: &str, side: u32) -> Result<()> {
    for (name, size) in [("size", &raw.size), ("crop_size", &raw.crop_size)] {
        let found =
            size.as_ref().map_or(Some((224, 224)), |size| size.edge().map(|e| (e, e)).or(size.exact()));
        if found != Some((side, side)) {
            let shown = size.as_ref().map_or("absent (224)".to_owned(), |size| format!("{size:?}"));
            let supported = format!("the side of the vision tower, {side}");
            return Err(ModelError::unsupported(path, format!("`{name}`"), shown, supported));
        }
    }
    Ok(())
}

/// Of the resolutions, as height and width, the one in which most of the picture's pixels survive; of several such,
/// the one that is padded least; of several such, the first.
pub(super) fn best_resolution(width: u32, height: u32, resolutions: &[[u32; 2]]) -> [u32; 2] {
    let (w, h) = (f64::from(width), f64::from(height));
    let mut best = ([0, 0], 0, u64::MAX);
    for &[high, wide] in resolutions {
        let scale = (f64::from(wide) / w).min(f64::from(high) / h);
        let scaled = (w * scale) as u64 * (h * scale) as u64;
        let kept = scaled.min(u64::from(width) * u64::from(height));
        let wasted = u64::from(high) * u64::from(wide) - kept;
        if kept > best.1 || (kept == best.1 && wasted < best.2) {
            best = ([high, wide], kept, wasted);
        }
    }
    best.0
}

/// The picture as large as it fits, in the middle of black; the odd pixel at the right and bottom.
fn fit(picture: &RgbImage, wide: u32, high: u32, filter: Filter) -> RgbImage {
    let (w, h) = (f64::from(picture.width()), f64::from(picture.height()));
    let (across, down) = (f64::from(wide) / w, f64::from(high) / h);
    let (width, height) = if across < down {
        (wide, ((h * across).ceil() as u32).min(high))
    } else {
        (((w * down).ceil() as u32).min(wide), high)
    };
    let resized = resize(picture, width, height, filter);
    let mut out = RgbImage::new(wide, high);
    imageops::replace(&mut out, &resized, i64::from((wide - width) / 2), i64::from((high - height) / 2));
    out
}

/// The picture in the middle of a square of one colour, resized to `side`; the square itself, which the longest edge
/// of a strip would make huge, is never built.
fn padded_square(picture: &RgbImage, fill: [u8; 3], side: u32, filter: Filter) -> RgbImage {
    let (width, height) = picture.dimensions();
    let edge = width.max(height);
    let (left, top) = ((edge - width) / 2, (edge - height) / 2);
    // The width comes first, as in `resize`; one colour stays itself.
    let mut narrow = RgbImage::from_pixel(side, edge, Rgb(fill));
    for y in (0..height).step_by(STRIP as usize) {
        let rows = STRIP.min(height - y);
        let mut strip = RgbImage::from_pixel(edge, rows, Rgb(fill));
        let part = imageops::crop_imm(picture, 0, y, width, rows).to_image();
        imageops::replace(&mut strip, &part, i64::from(left), 0);
        imageops::replace(&mut narrow, &resize(&strip, side, rows, filter), 0, i64::from(top + y));
    }
    resize(&narrow, side, side, filter)
}
