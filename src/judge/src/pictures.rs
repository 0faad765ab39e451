//! Pictures made from the judged one: objects filled in, objects cut out.

use cluegate_perception::{Picture, Region};
use image::{Rgb, imageops};

/// A rectangle of whole pixels: left, top, width, height, each side at least 1.
type PixelRect = (u32, u32, u32, u32);

/// The pixels that `region` touches, at least one. `region` lies in the picture, which has pixels.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Casts from f32 saturate, and are clamped.
fn pixels_of(picture: &Picture, region: &Region) -> PixelRect {
    let left = (region.left.floor() as u32).min(picture.width() - 1);
    let top = (region.top.floor() as u32).min(picture.height() - 1);
    let right = (region.right.ceil() as u32).clamp(left + 1, picture.width());
    let bottom = (region.bottom.ceil() as u32).clamp(top + 1, picture.height());
    (left, top, right - left, bottom - top)
}

/// `picture` with `regions` filled with its mean colour, which is neutral after normalisation (clue.md, "Region
/// removed").
pub(crate) fn without_regions(picture: &Picture, regions: &[Region]) -> Picture {
    let mut pixels = picture.pixels().clone();
    let mean = mean_colour(picture);
    for region in regions {
        let (left, top, width, height) = pixels_of(picture, region);
        for y in top..top + height {
            for x in left..left + width {
                pixels.put_pixel(x, y, mean);
            }
        }
    }
    Picture::new(pixels)
}

/// The mean of each channel, rounded to the nearest.
fn mean_colour(picture: &Picture) -> Rgb<u8> {
    let mut sums = [0u64; 3];
    for pixel in picture.pixels().pixels() {
        for (sum, value) in sums.iter_mut().zip(pixel.0) {
            *sum += u64::from(value);
        }
    }
    let count = (u64::from(picture.width()) * u64::from(picture.height())).max(1);
    #[allow(clippy::cast_possible_truncation)] // A mean of bytes is a byte.
    Rgb(sums.map(|sum| ((sum + count / 2) / count) as u8))
}

/// Most squares that a picture is divided into for the relevance scan, one for each of its shorter sides.
pub(crate) const MAX_VIEWS: u32 = 64;

/// Part of the shorter side by which the longer one may exceed it before more than the whole picture is looked at.
const NEARLY_SQUARE: u32 = 16;

/// What the relevance scan looks at. A square picture is looked at as a whole, as in the paper. CLIP's processor cuts
/// the middle square out of any other, and what lies beside it would make no rule relevant: so the squares that cover
/// the picture from end to end are looked at too, as many as needed and at most 64.
///
/// The picture itself comes first. Whoever else asks such an encoder about a picture has to ask about all of these.
pub fn views(picture: &Picture) -> Vec<Picture> {
    let (width, height) = (picture.width(), picture.height());
    let (long, short) = (width.max(height), width.min(height));
    let mut views = vec![picture.clone()];
    if long - short > short / NEARLY_SQUARE {
        let count = long.div_ceil(short.max(1)).min(MAX_VIEWS);
        views.extend((0..count).map(|index| {
            // Evenly spaced from the first to the last, which end with the picture.
            let start = u64::from(long - short) * u64::from(index) / u64::from((count - 1).max(1));
            #[allow(clippy::cast_possible_truncation)] // At most `long - short`.
            let start = start as u32;
            let (left, top) = if width > height { (start, 0) } else { (0, start) };
            Picture::new(imageops::crop_imm(picture.pixels(), left, top, short, short).to_image())
        }));
    }
    views
}

/// Windows on each side of a view for [`parts`].
const WINDOWS: u32 = 3;

/// What a closer look sees: of each square view of a picture (the whole of a square one) nine windows of half its width and
/// height, evenly spaced, so that each reaches to the middle of the next. An encoder sees in them what is small at twice the
/// size.
pub fn parts(views: &[Picture]) -> Vec<Picture> {
    // The squares come after the whole, and cover it.
    let squares = if views.len() > 1 { &views[1..] } else { views };
    let windows = |view: &Picture| {
        let (width, height) = (view.width().div_ceil(2), view.height().div_ceil(2));
        let start = |room: u32, index: u32| room * index / (WINDOWS - 1);
        let at = |index: u32| {
            let (left, top) = (
                start(view.width() - width, index % WINDOWS),
                start(view.height() - height, index / WINDOWS),
            );
            Picture::new(imageops::crop_imm(view.pixels(), left, top, width, height).to_image())
        };
        (0..WINDOWS * WINDOWS).map(at).collect::<Vec<_>>()
    };
    squares.iter().flat_map(windows).collect()
}

/// The part of `picture` that `region` covers, each side widened around its middle to at least `min_side` pixels where
/// the picture is large enough.
pub(crate) fn crop(picture: &Picture, region: &Region, min_side: u32) -> Picture {
    let (left, top, width, height) = pixels_of(picture, region);
    let (left, width) = widen(left, width, min_side, picture.width());
    let (top, height) = widen(top, height, min_side, picture.height());
    Picture::new(imageops::crop_imm(picture.pixels(), left, top, width, height).to_image())
}

/// Widens the span at `start` of `length` to `min_length` around its middle, within 0 to `limit`.
fn widen(start: u32, length: u32, min_length: u32, limit: u32) -> (u32, u32) {
    let widened = length.max(min_length.min(limit));
    let start = start.saturating_sub((widened - length) / 2).min(limit - widened);
    (start, widened)
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use proptest::prelude::*;

    use super::*;

    fn region(left: f32, top: f32, right: f32, bottom: f32) -> Region {
        Region { left, top, right, bottom }
    }

    #[test]
    fn removal_fills_with_the_mean_and_leaves_the_rest() {
        let mut pixels = RgbImage::from_pixel(4, 2, Rgb([0, 100, 200]));
        pixels.put_pixel(0, 0, Rgb([80, 20, 200]));
        let picture = Picture::new(pixels);
        let removed = without_regions(&picture, &[region(0.2, 0.0, 0.9, 0.7), region(3.0, 1.0, 4.0, 2.0)]);
        assert_eq!(removed.pixels().get_pixel(0, 0), &Rgb([10, 90, 200]));
        assert_eq!(removed.pixels().get_pixel(3, 1), &Rgb([10, 90, 200]));
        let changed =
            picture.pixels().pixels().zip(removed.pixels().pixels()).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 2);
    }

    #[test]
    fn crop_keeps_the_region_and_reaches_the_least_side() {
        let mut pixels = RgbImage::new(100, 60);
        pixels.put_pixel(98, 2, Rgb([9, 9, 9]));
        let picture = Picture::new(pixels);
        let cropped = crop(&picture, &region(97.5, 1.0, 99.5, 3.5), 32);
        assert_eq!((cropped.width(), cropped.height()), (32, 32));
        assert!(cropped.pixels().pixels().any(|pixel| pixel.0 == [9, 9, 9]));
        let small = Picture::new(RgbImage::new(5, 3));
        let cropped = crop(&small, &region(1.0, 1.0, 2.0, 2.0), 32);
        assert_eq!((cropped.width(), cropped.height()), (5, 3));
    }

    #[test]
    fn a_square_is_seen_whole_and_a_strip_from_end_to_end() {
        let sizes = |width, height| -> Vec<(u32, u32)> {
            views(&Picture::new(RgbImage::new(width, height)))
                .iter()
                .map(|view| (view.width(), view.height()))
                .collect()
        };
        assert_eq!(sizes(64, 64), [(64, 64)]);
        assert_eq!(sizes(64, 67), [(64, 67)]);
        assert_eq!(sizes(90, 60), [(90, 60), (60, 60), (60, 60)]);
        // Every column of a strip lies in one of its squares.
        let strip = Picture::new(RgbImage::from_fn(95, 10, |x, _| Rgb([x as u8, 0, 0])));
        let squares = views(&strip).split_off(1);
        assert_eq!(squares.len(), 10);
        let seen = |column: u32| {
            squares.iter().any(|square| square.pixels().pixels().any(|pixel| u32::from(pixel.0[0]) == column))
        };
        assert!((0..95).all(seen));
    }

    proptest! {
        #[test]
        fn any_region_inside_is_cut_within_the_picture(
            width in 1u32..60, height in 1u32..60, l in 0.0f32..1.0, t in 0.0f32..1.0, w in 0.001f32..1.0,
            h in 0.001f32..1.0, min_side in 0u32..80,
        ) {
            let picture = Picture::new(RgbImage::new(width, height));
            let (pw, ph) = (width as f32, height as f32);
            let region = region(l * pw, t * ph, (l + w).min(1.0) * pw, (t + h).min(1.0) * ph);
            let cropped = crop(&picture, &region, min_side);
            prop_assert!(cropped.width() >= 1 && cropped.width() <= width);
            prop_assert!(cropped.height() >= min_side.min(height));
            prop_assert_eq!(without_regions(&picture, &[region]).width(), width);
        }
    }
}
