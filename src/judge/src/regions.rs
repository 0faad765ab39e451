//! The central objects of a picture: the best box of each word, checked, and what follows for each statement.

use cluegate_perception::{Detection, Picture, Region};

use crate::error::JudgeError;
use crate::evidence::FoundRegion;
use crate::report::Stage;

/// How far outside the picture a box may reach by rounding, in pixels.
const EDGE_TOLERANCE: f32 = 0.5;

/// Checks a detector's answer and picks the most confident box above `threshold` for each word; none where the word
/// was not found.
pub(crate) fn best_regions(
    picture: &Picture,
    words: &[&str],
    detections: &[Detection],
    threshold: f32,
) -> Result<Vec<Option<FoundRegion>>, JudgeError> {
    let mut best: Vec<Option<FoundRegion>> = vec![None; words.len()];
    for detection in detections {
        let region = check(picture, words.len(), detection)?;
        let slot = &mut best[detection.query];
        let better = slot.as_ref().is_none_or(|found| detection.confidence > found.confidence);
        if detection.confidence > threshold && better {
            *slot = Some(found(picture, words[detection.query], detection.confidence, region));
        }
    }
    Ok(best)
}

/// The detection's box, clipped to the picture.
fn check(picture: &Picture, words: usize, detection: &Detection) -> Result<Region, JudgeError> {
    if detection.query >= words {
        return Err(JudgeError::InvalidDetection {
            expected: format!("a query below {words}"),
            came: detection.query.to_string(),
        });
    }
    let confidence = f64::from(detection.confidence);
    let Region { left, top, right, bottom } = detection.region;
    for value in [confidence, left.into(), top.into(), right.into(), bottom.into()] {
        if !value.is_finite() {
            let what = "confidence and box of a detection".to_owned();
            return Err(JudgeError::NotANumber { stage: Stage::Detection, what, value });
        }
    }
    if !(0.0..=1.0).contains(&confidence) {
        let what = "the confidence of a detection".to_owned();
        return Err(JudgeError::OutOfRange {
            stage: Stage::Detection,
            what,
            value: confidence,
            min: 0.0,
            max: 1.0,
        });
    }
    #[allow(clippy::cast_precision_loss)] // Pictures are smaller than 2^24 pixels a side.
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let inside = left >= -EDGE_TOLERANCE
        && top >= -EDGE_TOLERANCE
        && right <= width + EDGE_TOLERANCE
        && bottom <= height + EDGE_TOLERANCE;
    let clipped = Region {
        left: left.max(0.0),
        top: top.max(0.0),
        right: right.min(width),
        bottom: bottom.min(height),
    };
    if inside && clipped.left < clipped.right && clipped.top < clipped.bottom {
        Ok(clipped)
    } else {
        Err(JudgeError::InvalidDetection {
            expected: format!("a box with an area inside a picture of {width} x {height}"),
            came: format!("left {left}, top {top}, right {right}, bottom {bottom}"),
        })
    }
}

fn found(picture: &Picture, word: &str, confidence: f32, region: Region) -> FoundRegion {
    FoundRegion {
        word: word.to_owned(),
        confidence,
        left: region.left,
        top: region.top,
        right: region.right,
        bottom: region.bottom,
        area_share: area_share(picture, &region),
    }
}

fn area_share(picture: &Picture, region: &Region) -> f64 {
    f64::from(region.area()) / (f64::from(picture.width()) * f64::from(picture.height()))
}

/// The central objects of one statement in one picture.
#[derive(Debug, Clone, Default)]
pub(crate) struct CentralObjects {
    /// The best box of each word that was found, in the order of the words.
    pub(crate) found: Vec<FoundRegion>,
    /// The rectangle to look at instead of the whole picture, if the objects are small.
    pub(crate) crop: Option<Region>,
}

impl CentralObjects {
    /// From the best boxes of a statement's words. Objects count as small if every word was found, so that the crop
    /// holds all that the statement speaks of, and the rectangle around all their boxes covers less than
    /// `small_area` of the picture.
    pub(crate) fn new(picture: &Picture, best: Vec<Option<FoundRegion>>, small_area: Option<f64>) -> Self {
        let words = best.len();
        let found: Vec<FoundRegion> = best.into_iter().flatten().collect();
        let around = found.iter().map(FoundRegion::region).reduce(|a, b| Region {
            left: a.left.min(b.left),
            top: a.top.min(b.top),
            right: a.right.max(b.right),
            bottom: a.bottom.max(b.bottom),
        });
        let small = |region: &Region| small_area.is_some_and(|limit| area_share(picture, region) < limit);
        let crop = around.filter(|region| found.len() == words && small(region));
        Self { found, crop }
    }
}
