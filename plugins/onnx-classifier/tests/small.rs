//! Small models against onnxruntime; `goldens/make_onnx.py` made them and the expected numbers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use cluegate_onnx_classifier::{Config, OnnxClassifier, OnnxErrorKind};
use cluegate_perception::{Call, Picture, PictureClassifier};
use image::{Rgb, RgbImage};
use serde_json::Value;

const CLASSIFIER: &str = r#"
model = "classifier.onnx"
[input]
layout = "nhwc"
channels = "rgb"
width = 16
height = 16
fit = "stretch"
[output]
tensor = "scores"
kind = "scores"
labels = ["a", "b", "c"]
[unsafe]
b = 0.3
"#;

const DETECTOR: &str = r#"
model = "detector.onnx"
[input]
layout = "nchw"
channels = "rgb"
width = 32
height = 32
fit = "pad"
[output]
kind = "yolo"
labels = ["a", "b"]
[unsafe]
a = 0.9
"#;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

fn build(config: &str) -> Result<OnnxClassifier, cluegate_onnx_classifier::OnnxError> {
    let config = Config::parse(config).unwrap();
    let path = golden(&config.model);
    OnnxClassifier::build(config, fs::read(&path).unwrap(), &path)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn outputs_equal_onnxruntimes() {
    let all: Value = serde_json::from_slice(&fs::read(golden("small.json")).unwrap()).unwrap();
    for (name, config, shape) in
        [("classifier", CLASSIFIER, vec![1, 16, 16, 3]), ("detector", DETECTOR, vec![1, 3, 32, 32])]
    {
        let model = build(config).unwrap();
        let (got_shape, got) = model.output(&shape, floats(&all[name]["input"])).unwrap();
        let expected = floats(&all[name]["output"]);
        assert_eq!(Value::from(got_shape), all[name]["shape"]);
        let error = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-3 && got.len() == expected.len(), "{name}: {error}");
    }
}

#[test]
fn a_picture_is_classified_and_searched() {
    let picture = Picture::new(RgbImage::from_fn(40, 24, |x, y| Rgb([x as u8 * 6, y as u8 * 9, 90])));
    let pictures = [picture.clone(), picture];
    let said = build(CLASSIFIER).unwrap().classify(&pictures, &Call::default()).unwrap();
    assert_eq!(said.len(), 2);
    assert_eq!(said[0], said[1]);
    let total: f32 = said[0].labels.iter().map(|label| label.score).sum();
    assert!((total - 1.0).abs() < 1e-3 && said[0].labels.iter().all(|label| label.region.is_none()));
    let found = build(DETECTOR).unwrap().classify(&pictures, &Call::default()).unwrap();
    assert!(!found[0].labels.is_empty());
    for label in &found[0].labels {
        let region = label.region.unwrap();
        assert!(region.right <= 40.0 && region.bottom <= 24.0 && label.score > 0.25, "{label:?}");
    }
}

#[test]
fn a_model_is_the_one_that_its_configuration_names() {
    let pinned = format!("sha256 = \"{}\"\n{CLASSIFIER}", "0".repeat(64));
    let error = build(&pinned).unwrap_err();
    assert_eq!(error.kind(), OnnxErrorKind::Checksum);
    let other = CLASSIFIER.replace("tensor = \"scores\"", "tensor = \"score\"");
    let error = build(&other).unwrap_err();
    assert!(error.to_string().contains("no output \"score\"; the model has logits, scores"), "{error}");
    let none = CLASSIFIER.replace("tensor = \"scores\"", "");
    let error = build(&none).unwrap_err();
    assert!(error.to_string().contains("2 outputs; name one of them"), "{error}");
    let fewer = CLASSIFIER.replace(", \"c\"", "");
    let picture = Picture::new(RgbImage::new(8, 8));
    let error = build(&fewer).unwrap().classify(&[picture], &Call::default()).unwrap_err();
    assert!(error.to_string().contains("a number for each of 2 labels"), "{error}");
}

#[test]
fn damaged_models_are_refused() {
    let bytes = fs::read(golden("classifier.onnx")).unwrap();
    let config = || Config::parse(CLASSIFIER).unwrap();
    for length in [0, 1, bytes.len() / 3, bytes.len() / 2] {
        let error =
            OnnxClassifier::build(config(), bytes[..length].to_vec(), Path::new("m.onnx")).unwrap_err();
        assert!(matches!(error.kind(), OnnxErrorKind::Model | OnnxErrorKind::Config), "{length}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    fs::write(&path, CLASSIFIER).unwrap();
    let error = OnnxClassifier::load(&path).unwrap_err();
    assert_eq!(error.kind(), OnnxErrorKind::Unreadable);
    fs::copy(golden("classifier.onnx"), folder.path().join("classifier.onnx")).unwrap();
    assert!(OnnxClassifier::load(&path).is_ok());
}
