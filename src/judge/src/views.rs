//! What the questions of one inspection look at, each picture made once however many statements share it.

use std::collections::HashMap;

use cluegate_perception::{Picture, Region};

use crate::fold::Look;
use crate::pictures;
use crate::regions::CentralObjects;

/// A region to the last bit: only the same regions make the same picture.
type Bits = [u32; 4];

fn bits(region: &Region) -> Bits {
    [region.left, region.top, region.right, region.bottom].map(f32::to_bits)
}

/// The judged picture and those made from it so far.
pub(crate) struct Views<'a> {
    picture: &'a Picture,
    min_crop_side: u32,
    crops: HashMap<Bits, Picture>,
    removed: HashMap<Vec<Bits>, Picture>,
}

impl<'a> Views<'a> {
    /// Crops are widened to `min_crop_side` pixels within the picture.
    pub(crate) fn new(picture: &'a Picture, min_crop_side: u32) -> Self {
        Self { picture, min_crop_side, crops: HashMap::new(), removed: HashMap::new() }
    }

    /// The picture that a look at a statement with these central objects sees.
    pub(crate) fn see(&mut self, objects: &CentralObjects, look: Look) -> Picture {
        let picture = self.picture;
        match (look, objects.crop) {
            (Look::Seen, Some(region)) => {
                let crop = || pictures::crop(picture, &region, self.min_crop_side);
                self.crops.entry(bits(&region)).or_insert_with(crop).clone()
            }
            (Look::Seen, None) | (Look::Whole, _) => picture.clone(),
            (Look::Removed, _) => {
                let mut regions: Vec<Region> = objects.found.iter().map(|found| found.region()).collect();
                // In whatever order they are filled in, the picture is the same.
                regions.sort_by_key(bits);
                let key = regions.iter().map(bits).collect();
                let remove = || pictures::without_regions(picture, &regions);
                self.removed.entry(key).or_insert_with(remove).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::evidence::FoundRegion;

    fn objects(regions: &[[f32; 4]], crop: Option<[f32; 4]>) -> CentralObjects {
        let found = |[left, top, right, bottom]: &[f32; 4]| FoundRegion {
            word: "object".to_owned(),
            confidence: 0.9,
            left: *left,
            top: *top,
            right: *right,
            bottom: *bottom,
            area_share: 0.1,
        };
        let region = |[left, top, right, bottom]: [f32; 4]| Region { left, top, right, bottom };
        CentralObjects { found: regions.iter().map(found).collect(), crop: crop.map(region) }
    }

    #[test]
    fn the_same_regions_are_removed_once_in_any_order() {
        let picture = Picture::new(RgbImage::from_fn(30, 20, |x, y| Rgb([x as u8 * 8, y as u8 * 12, 7])));
        let mut views = Views::new(&picture, 4);
        let (a, b) = ([1.0, 1.0, 5.0, 6.0], [10.0, 3.0, 20.0, 12.0]);
        let both = views.see(&objects(&[a, b], None), Look::Removed);
        assert_eq!(both.hash(), views.see(&objects(&[b, a], None), Look::Removed).hash());
        let one = views.see(&objects(&[a], None), Look::Removed);
        assert_ne!(both.hash(), one.hash());
        assert_eq!((views.removed.len(), views.crops.len()), (2, 0));
        assert_eq!(both.hash(), pictures::without_regions(&picture, &[region_of(a), region_of(b)]).hash());

        let small = objects(&[a], Some(a));
        let crop = views.see(&small, Look::Seen);
        assert_eq!(crop.hash(), views.see(&small, Look::Seen).hash());
        assert_eq!((crop.width(), crop.height(), views.crops.len()), (4, 5, 1));
        assert_eq!(views.see(&small, Look::Whole).hash(), picture.hash());
    }

    fn region_of([left, top, right, bottom]: [f32; 4]) -> Region {
        Region { left, top, right, bottom }
    }
}
