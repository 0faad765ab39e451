//! Geometry of detections: from the padded square to the original picture, and suppression of doubles.

use cluegate_perception::{Detection, Region};

/// A predicted box relative to the padded square: centre, width and height, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelativeBox {
    /// Horizontal centre.
    pub x: f32,
    /// Vertical centre.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

impl RelativeBox {
    /// The box in pixels of a picture of `width` x `height` pixels, which lies in the upper left of a square whose
    /// side is the longer of the two (transformers 5.17, `_scale_boxes` in `image_processing_owlv2.py`). It is clipped
    /// to the picture; `None` if nothing of it is left, as for a box that lies in the padding.
    pub fn in_picture(&self, width: u32, height: u32) -> Option<Region> {
        let [left, top, right, bottom] = self.corners(width, height);
        let (width, height) = (width as f32, height as f32);
        let (left, right) = (left.clamp(0.0, width), right.clamp(0.0, width));
        let (top, bottom) = (top.clamp(0.0, height), bottom.clamp(0.0, height));
        // Written so that a NaN gives nothing too.
        (left < right && top < bottom).then_some(Region { left, top, right, bottom })
    }

    /// Left, top, right and bottom edge in pixels of such a picture, wherever they lie.
    pub(crate) fn corners(&self, width: u32, height: u32) -> [f32; 4] {
        let side = width.max(height) as f32;
        let edge = |centre: f32, half: f32| (centre + half) * side;
        [
            edge(self.x, -0.5 * self.width),
            edge(self.y, -0.5 * self.height),
            edge(self.x, 0.5 * self.width),
            edge(self.y, 0.5 * self.height),
        ]
    }
}

/// The most confident first; among equals the earlier query, then the earlier patch (their order in `detections`).
pub(crate) fn sort(detections: &mut [Detection]) {
    detections.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.query.cmp(&b.query)));
}

/// Greedy suppression for each query on its own: a detection goes if it overlaps a more confident one of the same
/// query by more than `most` (intersection over union). `detections` come sorted and stay so.
pub(crate) fn suppress(detections: Vec<Detection>, most: f32) -> Vec<Detection> {
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in detections {
        let double = kept
            .iter()
            .any(|other| other.query == candidate.query && other.region.iou(&candidate.region) > most);
        if !double {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn detection(query: usize, confidence: f32, left: f32, right: f32) -> Detection {
        Detection { query, confidence, region: Region { left, top: 0.0, right, bottom: 10.0 } }
    }

    #[test]
    fn a_box_in_the_padding_is_nothing() {
        // 100 x 50 pixels: the lower half of the square is padding.
        let below = RelativeBox { x: 0.5, y: 0.8, width: 0.2, height: 0.2 };
        assert_eq!(below.in_picture(100, 50), None);
        let across = RelativeBox { x: 0.5, y: 0.5, width: 0.25, height: 0.5 };
        let region = across.in_picture(100, 50);
        assert_eq!(region, Some(Region { left: 37.5, top: 25.0, right: 62.5, bottom: 50.0 }));
    }

    #[test]
    fn suppression_keeps_queries_apart() {
        let mut all = vec![
            detection(0, 0.5, 0.0, 10.0),
            detection(0, 0.9, 1.0, 10.0),
            detection(1, 0.7, 0.0, 10.0),
            detection(0, 0.4, 0.0, 6.0),
        ];
        sort(&mut all);
        let kept: Vec<f32> = suppress(all, 0.7).iter().map(|d| d.confidence).collect();
        assert_eq!(kept, [0.9, 0.7, 0.4]);
    }

    proptest! {
        #[test]
        fn regions_lie_in_the_picture(
            x in -0.5f32..1.5, y in -0.5f32..1.5, w in 0f32..2.0, h in 0f32..2.0,
            width in 1u32..5000, height in 1u32..5000,
        ) {
            if let Some(region) = (RelativeBox { x, y, width: w, height: h }).in_picture(width, height) {
                prop_assert!(0.0 <= region.left && region.left < region.right);
                prop_assert!(region.right <= width as f32);
                prop_assert!(0.0 <= region.top && region.top < region.bottom);
                prop_assert!(region.bottom <= height as f32);
                prop_assert!(region.area() > 0.0);
            }
        }

        #[test]
        fn no_box_inside_the_picture_is_lost_or_moved(
            left in 0f32..0.4, top in 0f32..0.4, w in 0.01f32..0.5, h in 0.01f32..0.5, side in 1u32..5000,
        ) {
            let whole = RelativeBox { x: left + w / 2.0, y: top + h / 2.0, width: w, height: h };
            let region = whole.in_picture(side, side);
            prop_assert!(region.is_some());
            let error = region.map_or(f32::MAX, |r| (r.area() / (w * h * (side as f32).powi(2)) - 1.0).abs());
            prop_assert!(error < 1e-3, "area is off by {error}");
        }

        #[test]
        fn suppression_only_removes_doubles(
            spans in prop::collection::vec((0usize..3, 0f32..1.0, 0f32..50.0, 1f32..50.0), 0..30),
        ) {
            let mut all: Vec<Detection> =
                spans.iter().map(|(q, c, left, length)| detection(*q, *c, *left, left + length)).collect();
            sort(&mut all);
            let kept = suppress(all.clone(), 0.7);
            for (index, detection) in kept.iter().enumerate() {
                prop_assert!(all.contains(detection));
                for other in &kept[..index] {
                    prop_assert!(other.confidence >= detection.confidence);
                    prop_assert!(other.query != detection.query || other.region.iou(&detection.region) <= 0.7);
                }
            }
            for gone in all.iter().filter(|detection| !kept.contains(detection)) {
                let doubled = kept.iter().any(|other| {
                    other.query == gone.query
                        && other.confidence >= gone.confidence
                        && other.region.iou(&gone.region) > 0.7
                });
                prop_assert!(doubled, "{gone:?} went without a more confident double");
            }
        }
    }
}
