//! From a model's output to what it says of a picture.

use cluegate_perception::{ClassLabel, Classification, Region};

use crate::config::{Config, OutputKind};
use crate::error::{OnnxError, Result};

/// Most boxes that are compared with each other.
const MAX_BOXES: usize = 4096;

/// How far a score may leave 0 to 1 by rounding.
const TOLERANCE: f32 = 1e-3;

/// Reads an output of finite numbers.
pub(crate) fn read(
    config: &Config,
    shape: &[usize],
    values: &[f32],
    picture: (u32, u32),
) -> Result<Classification> {
    let labels = &config.output.labels;
    if config.output.kind == OutputKind::Yolo {
        return boxes(config, shape, values, picture);
    }
    if values.len() != labels.len() {
        let shown = format!("an output of shape {shape:?}");
        return Err(OnnxError::run(format!(
            "{shown}, expected a number for each of {} labels",
            labels.len()
        )));
    }
    let scores = match config.output.kind {
        OutputKind::Softmax => softmax(values),
        OutputKind::Sigmoid => values.iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        OutputKind::Scores | OutputKind::Yolo => values.to_vec(),
    };
    let scores = scores.into_iter().map(checked).collect::<Result<Vec<f32>>>()?;
    let label = |(name, score): (&String, f32)| ClassLabel { name: name.clone(), score, region: None };
    let found: Vec<(usize, ClassLabel)> = labels.iter().zip(scores).map(label).enumerate().collect();
    Ok(classification(config, found))
}

fn checked(score: f32) -> Result<f32> {
    if (-TOLERANCE..=1.0 + TOLERANCE).contains(&score) {
        Ok(score.clamp(0.0, 1.0))
    } else {
        Err(OnnxError::run(format!(
            "expected scores of 0 to 1, got {score}; is the kind of the output softmax or sigmoid?"
        )))
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let total: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// The verdict over what was found, each with the number of its label.
fn classification(config: &Config, found: Vec<(usize, ClassLabel)>) -> Classification {
    let counted =
        || found.iter().filter_map(|(index, label)| Some((label.score, config.thresholds[*index]?)));
    let flagged = counted().any(|(score, threshold)| score >= threshold);
    let score = counted().map(|(score, _)| score).fold(0.0, f32::max);
    Classification { flagged, score, labels: found.into_iter().map(|(_, label)| label).collect() }
}

/// YOLOv8's boxes: the surest class of each, and of boxes that overlap the surest (`cv2.dnn.NMSBoxes`).
fn boxes(config: &Config, shape: &[usize], values: &[f32], picture: (u32, u32)) -> Result<Classification> {
    let classes = config.output.labels.len();
    let [1, rows, count] = shape else {
        return Err(OnnxError::run(format!("an output of shape {shape:?}, expected [1, 4 + labels, boxes]")));
    };
    if *rows != classes + 4 {
        return Err(OnnxError::run(format!(
            "an output of {rows} rows, expected 4 and one for each of {classes} labels"
        )));
    }
    let at = |row: usize, index: usize| values[row * count + index];
    let mut found = Vec::new();
    for index in 0..*count {
        let scores = (0..classes).map(|class| (class, at(4 + class, index)));
        // The first of the largest, as `argmax` has it.
        let surest =
            scores.fold((0, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best });
        let score = checked(surest.1)?;
        if score <= config.output.confidence {
            continue;
        }
        let centre = [at(0, index), at(1, index), at(2, index), at(3, index)];
        if let Some(region) = region(config, centre, picture) {
            found.push((surest.0, score, region));
        }
    }
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found.truncate(MAX_BOXES);
    let mut kept: Vec<(usize, f32, Region)> = Vec::new();
    for candidate in found {
        if kept.iter().all(|other| overlap(&other.2, &candidate.2) <= config.output.overlap) {
            kept.push(candidate);
        }
    }
    let label = |(class, score, region): (usize, f32, Region)| {
        let name = config.output.labels[class].clone();
        (class, ClassLabel { name, score, region: Some(region) })
    };
    Ok(classification(config, kept.into_iter().map(label).collect()))
}

/// A box in pixels of the picture, none if nothing of it lies there.
fn region(config: &Config, [x, y, width, height]: [f32; 4], picture: (u32, u32)) -> Option<Region> {
    use crate::config::Fit;
    let input = &config.input;
    let (input_width, input_height) = (input.width as f32, input.height as f32);
    let (own_width, own_height) = (picture.0 as f32, picture.1 as f32);
    // Pixels of the picture to a pixel of the input, and what was cut off at the left and the top.
    let (across, down, left, top) = match input.fit {
        Fit::Stretch => (own_width / input_width, own_height / input_height, 0.0, 0.0),
        Fit::Pad => {
            let side = own_width.max(own_height);
            (side / input_width, side / input_height, 0.0, 0.0)
        }
        Fit::Crop(edge) => {
            let scale = own_width.min(own_height) / edge as f32;
            let cut = |own: f32, input: f32| (own / scale - input) / 2.0;
            (scale, scale, cut(own_width, input_width), cut(own_height, input_height))
        }
        Fit::StretchCrop(edge) => {
            let edge = edge as f32;
            let (across, down) = (own_width / edge, own_height / edge);
            (across, down, (edge - input_width) / 2.0, (edge - input_height) / 2.0)
        }
    };
    let region = Region {
        left: ((x - width / 2.0 + left) * across).clamp(0.0, own_width),
        top: ((y - height / 2.0 + top) * down).clamp(0.0, own_height),
        right: ((x + width / 2.0 + left) * across).clamp(0.0, own_width),
        bottom: ((y + height / 2.0 + top) * down).clamp(0.0, own_height),
    };
    (region.left < region.right && region.top < region.bottom).then_some(region)
}

/// Intersection over union.
fn overlap(a: &Region, b: &Region) -> f32 {
    let side = |low: f32, high: f32| (high - low).max(0.0);
    let area = |region: &Region| side(region.left, region.right) * side(region.top, region.bottom);
    let common =
        side(a.left.max(b.left), a.right.min(b.right)) * side(a.top.max(b.top), a.bottom.min(b.bottom));
    common / (area(a) + area(b) - common)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn config(kind: &str) -> Config {
        let text = format!(
            r#"
            model = "m"
            input = {{ layout = "nchw", channels = "rgb", width = 100, height = 100, fit = "pad" }}
            output = {{ kind = "{kind}", labels = ["a", "b"] }}
            unsafe = {{ b = 0.5 }}
            "#
        );
        Config::parse(&text).unwrap()
    }

    #[test]
    fn scores_are_read_by_their_kind() {
        let say = |kind: &str, values: &[f32]| read(&config(kind), &[1, values.len()], values, (10, 10));
        let said = say("scores", &[0.9, 0.5]).unwrap();
        assert!(said.flagged && said.score == 0.5 && said.labels[0].name == "a");
        assert!(!say("softmax", &[2.0, 1.0]).unwrap().flagged);
        assert!((say("softmax", &[2.0, 1.0]).unwrap().score - 0.268_94).abs() < 1e-4);
        assert!((say("sigmoid", &[2.0, 1.0]).unwrap().score - 0.731_06).abs() < 1e-4);
        assert!(say("scores", &[2.0, 1.0]).unwrap_err().to_string().contains("softmax or sigmoid"));
        assert!(say("scores", &[0.5]).unwrap_err().to_string().contains("each of 2 labels"));
    }

    #[test]
    fn the_surest_of_overlapping_boxes_stays_in_pixels_of_the_picture() {
        // Three boxes: two nearly the same, one elsewhere; columns are boxes.
        let values = [
            20.0, 22.0, 80.0, 20.0, 20.0, 20.0, 20.0, 20.0, 30.0, 20.0, 20.0,
            20.0, // x, y, width, height
            0.1, 0.2, 0.6, 0.7, 0.8, 0.1,
        ];
        let said = read(&config("yolo"), &[1, 6, 3], &values, (200, 50)).unwrap();
        let names: Vec<(&str, f32)> = said.labels.iter().map(|l| (l.name.as_str(), l.score)).collect();
        assert_eq!(names, [("b", 0.8), ("a", 0.6)]);
        assert!(said.flagged && said.score == 0.8);
        // The square was 200 wide; the picture ends at 50.
        let region = said.labels[0].region.unwrap();
        assert_eq!((region.left, region.top, region.right, region.bottom), (24.0, 20.0, 64.0, 50.0));
        assert!(read(&config("yolo"), &[1, 5, 3], &values[..15], (200, 50)).is_err());
    }

    proptest! {
        #[test]
        fn boxes_lie_in_the_picture(values in prop::collection::vec(-200.0f32..300.0, 4 * 5), width in 1u32..300, height in 1u32..300) {
            let mut values = values;
            values.extend([0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0.2, 0.3, 0.4, 0.95]);
            let said = read(&config("yolo"), &[1, 6, 5], &values, (width, height)).unwrap();
            for label in said.labels {
                let region = label.region.unwrap();
                prop_assert!(region.left >= 0.0 && region.left < region.right && region.right <= width as f32);
                prop_assert!(region.top >= 0.0 && region.top < region.bottom && region.bottom <= height as f32);
            }
        }
    }
}
