//! Hiding regions of a picture so that what they showed cannot be made out.

use cluegate_perception::{Picture, Region};
use image::{Rgb, RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::policy::RedactionMethod;

/// Cells along the longer side of a pixelated box.
const PIXELATE_CELLS: u32 = 5;
/// Smallest cell in pixels: below it a small box would stay legible.
const MIN_CELL: u32 = 8;
/// Blur width (standard deviation) as a fraction of the box's longer side.
const BLUR_SHARE: f32 = 0.3;
/// Smallest blur width in pixels.
const MIN_BLUR: f32 = 6.0;

/// A box in whole pixels, `left < right <= width`, `top < bottom <= height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Column after the last.
    pub right: u32,
    /// Row after the last.
    pub bottom: u32,
}

impl PixelBox {
    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.right - self.left
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.bottom - self.top
    }

    fn area(&self) -> u64 {
        u64::from(self.width()) * u64::from(self.height())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn union(&self, other: &Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    pub(crate) fn contains(&self, x: u32, y: u32) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }
}

/// A region, and how far beyond it is hidden.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grown {
    /// Where the object is, in pixels.
    pub(crate) region: Region,
    /// The statement that holds because of it; none for what an extension wants hidden.
    pub(crate) statement: Option<String>,
    /// What is added on every side, as a fraction of the region's own width and height.
    pub(crate) grow: f64,
}

/// Grows each region on every side, rounds outwards, clips to the picture of `width` x `height` pixels and merges boxes that
/// overlap, until none do. Regions that are not numbers or lie outside the picture give no box.
pub(crate) fn plan(regions: &[Grown], width: u32, height: u32) -> Vec<PixelBox> {
    let mut boxes: Vec<PixelBox> = Vec::new();
    for grown in regions {
        let Some(mut merged) = pixel_box(grown, width, height) else { continue };
        while let Some(at) = boxes.iter().position(|b| b.overlaps(&merged)) {
            merged = merged.union(&boxes.swap_remove(at));
        }
        boxes.push(merged);
    }
    boxes.sort_by_key(|b| (b.top, b.left));
    boxes
}

/// The statements that a box of [`plan`] answers for, each once.
pub(crate) fn answers_for(area: &PixelBox, regions: &[Grown], width: u32, height: u32) -> Vec<String> {
    let inside = |grown: &&Grown| pixel_box(grown, width, height).is_some_and(|own| own.overlaps(area));
    let mut statements: Vec<String> = Vec::new();
    for statement in regions.iter().filter(inside).filter_map(|grown| grown.statement.as_ref()) {
        if !statements.contains(statement) {
            statements.push(statement.clone());
        }
    }
    statements
}

fn pixel_box(Grown { region, grow, .. }: &Grown, width: u32, height: u32) -> Option<PixelBox> {
    let grow = *grow as f32;
    let edges = [region.left, region.top, region.right, region.bottom];
    if edges.iter().any(|edge| !edge.is_finite()) {
        return None;
    }
    let dx = (region.right - region.left).max(0.0) * grow;
    let dy = (region.bottom - region.top).max(0.0) * grow;
    let low = |edge: f32, size: u32| edge.floor().clamp(0.0, size as f32) as u32;
    let high = |edge: f32, size: u32| edge.ceil().clamp(0.0, size as f32) as u32;
    let found = PixelBox {
        left: low(region.left - dx, width),
        top: low(region.top - dy, height),
        right: high(region.right + dx, width),
        bottom: high(region.bottom + dy, height),
    };
    (found.left < found.right && found.top < found.bottom).then_some(found)
}

/// Share of a picture of `width` x `height` pixels that `boxes`, which do not overlap, cover: 0 to 1.
pub(crate) fn share(boxes: &[PixelBox], width: u32, height: u32) -> f64 {
    let all = u64::from(width) * u64::from(height);
    if all == 0 { 1.0 } else { boxes.iter().map(PixelBox::area).sum::<u64>() as f64 / all as f64 }
}

/// A copy of `picture` in which nothing inside `boxes` can be made out.
pub(crate) fn hide(picture: &Picture, boxes: &[PixelBox], method: RedactionMethod) -> Picture {
    let mut pixels = picture.pixels().clone();
    let fill = mean_outside(&pixels, boxes);
    for area in boxes {
        match method {
            RedactionMethod::Blur => blur(&mut pixels, area),
            RedactionMethod::Pixelate => pixelate(&mut pixels, area),
            // What nobody draws anew is filled.
            RedactionMethod::Fill | RedactionMethod::Inpaint => paint(&mut pixels, area, fill),
        }
    }
    Picture::new(pixels)
}

/// Mean colour of the pixels outside `boxes`, middle grey if there are none.
fn mean_outside(pixels: &RgbImage, boxes: &[PixelBox]) -> Rgb<u8> {
    let outside = pixels.enumerate_pixels().filter(|(x, y, _)| !boxes.iter().any(|b| b.contains(*x, *y)));
    mean(outside.map(|(_, _, colour)| *colour))
}

fn mean(colours: impl Iterator<Item = Rgb<u8>>) -> Rgb<u8> {
    let (mut sum, mut count) = ([0_u64; 3], 0_u64);
    for colour in colours {
        count += 1;
        sum.iter_mut().zip(colour.0).for_each(|(s, c)| *s += u64::from(c));
    }
    if count == 0 { Rgb([128; 3]) } else { Rgb(sum.map(|s| (s / count) as u8)) }
}

pub(crate) fn paint(pixels: &mut RgbImage, area: &PixelBox, colour: Rgb<u8>) {
    for y in area.top..area.bottom {
        for x in area.left..area.right {
            pixels.put_pixel(x, y, colour);
        }
    }
}

fn pixelate(pixels: &mut RgbImage, area: &PixelBox) {
    let cell = area.width().max(area.height()).div_ceil(PIXELATE_CELLS).max(MIN_CELL);
    for top in (area.top..area.bottom).step_by(cell as usize) {
        for left in (area.left..area.right).step_by(cell as usize) {
            let part = PixelBox {
                left,
                top,
                right: (left + cell).min(area.right),
                bottom: (top + cell).min(area.bottom),
            };
            let view = imageops::crop_imm(&*pixels, left, top, part.width(), part.height()).to_image();
            paint(pixels, &part, mean(view.pixels().copied()));
        }
    }
}

fn blur(pixels: &mut RgbImage, area: &PixelBox) {
    let sigma = (area.width().max(area.height()) as f32 * BLUR_SHARE).max(MIN_BLUR);
    let inside = imageops::crop_imm(&*pixels, area.left, area.top, area.width(), area.height()).to_image();
    let blurred = imageops::fast_blur(&inside, sigma);
    imageops::replace(pixels, &blurred, i64::from(area.left), i64::from(area.top));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grown(regions: &[Region], grow: f64) -> Vec<Grown> {
        let about = |index: usize| Some(format!("statement {index}"));
        let regions = regions.iter().enumerate();
        regions.map(|(index, region)| Grown { region: *region, statement: about(index), grow }).collect()
    }

    fn region(left: f32, top: f32, right: f32, bottom: f32) -> Region {
        Region { left, top, right, bottom }
    }

    /// A fine checkerboard of noise: any detail that survives shows as contrast.
    fn noise(width: u32, height: u32) -> Picture {
        Picture::new(RgbImage::from_fn(width, height, |x, y| {
            let value = if (x + y) % 2 == 0 { 255 } else { 0 };
            Rgb([value, 255 - value, (x * 7 + y * 13) as u8])
        }))
    }

    #[test]
    fn grows_clips_and_merges() {
        let boxes = plan(&grown(&[region(10.0, 10.0, 20.0, 20.0)], 0.5), 100, 100);
        assert_eq!(boxes, [PixelBox { left: 5, top: 5, right: 25, bottom: 25 }]);
        let clipped = plan(&grown(&[region(-5.0, 90.0, 20.0, 120.0)], 0.0), 100, 100);
        assert_eq!(clipped, [PixelBox { left: 0, top: 90, right: 20, bottom: 100 }]);
        // The third bridges the first two: all become one.
        let chain =
            [region(0.0, 0.0, 10.0, 10.0), region(20.0, 0.0, 30.0, 10.0), region(8.0, 2.0, 22.0, 8.0)];
        assert_eq!(
            plan(&grown(&chain, 0.0), 100, 100),
            [PixelBox { left: 0, top: 0, right: 30, bottom: 10 }]
        );
        let nowhere = [region(f32::NAN, 0.0, 1.0, 1.0), region(200.0, 0.0, 210.0, 5.0)];
        assert!(plan(&grown(&nowhere, 0.1), 100, 100).is_empty());
    }

    #[test]
    fn a_box_answers_for_the_statements_of_all_that_it_was_merged_from() {
        let apart =
            [region(0.0, 0.0, 10.0, 10.0), region(40.0, 0.0, 50.0, 10.0), region(8.0, 2.0, 22.0, 8.0)];
        let regions = grown(&apart, 0.0);
        let boxes = plan(&regions, 100, 100);
        let answers: Vec<_> = boxes.iter().map(|area| answers_for(area, &regions, 100, 100)).collect();
        assert_eq!(answers, [vec!["statement 0", "statement 2"], vec!["statement 1"]]);
        let unnamed: Vec<Grown> =
            regions.into_iter().map(|grown| Grown { statement: None, ..grown }).collect();
        assert!(answers_for(&boxes[0], &unnamed, 100, 100).is_empty());
    }

    #[test]
    fn hides_detail_inside_and_changes_nothing_outside() {
        let picture = noise(96, 64);
        let area = PixelBox { left: 20, top: 10, right: 60, bottom: 50 };
        for method in [RedactionMethod::Blur, RedactionMethod::Pixelate, RedactionMethod::Fill] {
            let hidden = hide(&picture, &[area], method);
            for (x, y, colour) in hidden.pixels().enumerate_pixels() {
                if !area.contains(x, y) {
                    assert_eq!(colour, picture.pixels().get_pixel(x, y), "{method:?} at {x},{y}");
                } else if x + 1 < area.right {
                    // The original jumps by 255 between neighbours; at a cell's edge a little may remain.
                    let next = hidden.pixels().get_pixel(x + 1, y);
                    assert!(colour.0[0].abs_diff(next.0[0]) < 16, "{method:?} at {x},{y}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn boxes_lie_inside_and_apart(
            raw in prop::collection::vec((-50.0_f32..150.0, -50.0_f32..150.0, 0.0_f32..80.0, 0.0_f32..80.0), 0..12),
            grow in 0.0_f64..1.0,
        ) {
            let regions: Vec<Region> = raw.iter().map(|(x, y, w, h)| region(*x, *y, x + w, y + h)).collect();
            let boxes = plan(&grown(&regions, grow), 100, 70);
            for (i, a) in boxes.iter().enumerate() {
                prop_assert!(a.left < a.right && a.right <= 100 && a.top < a.bottom && a.bottom <= 70);
                prop_assert!(boxes[i + 1..].iter().all(|b| !a.overlaps(b)));
            }
            prop_assert!(share(&boxes, 100, 70) <= 1.0);
            // Every pixel of every region is covered.
            for r in &regions {
                for x in (r.left.max(0.0).ceil() as u32)..(r.right.clamp(0.0, 100.0) as u32) {
                    for y in (r.top.max(0.0).ceil() as u32)..(r.bottom.clamp(0.0, 70.0) as u32) {
                        prop_assert!(boxes.iter().any(|b| b.contains(x, y)));
                    }
                }
            }
        }
    }
}
