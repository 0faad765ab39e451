//! Two published models against onnxruntime, on scenes of the scene world; `goldens/make_onnx.py` ran them. The models are
//! not in this repository: `cluegate models pull nudenet` and `open-nsfw` fetch them.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use cluegate_onnx_classifier::{Config, Fit, OnnxClassifier, SHIPPED};
use cluegate_perception::{Call, Picture, PictureClassifier};
use serde_json::Value;

const SCENES: [usize; 2] = [1, 2];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

fn picture(name: &str) -> Picture {
    Picture::new(image::open(golden(name)).unwrap().to_rgb8())
}

fn config(name: &str) -> Config {
    Config::parse(SHIPPED.iter().find(|(other, _)| *other == name).unwrap().1).unwrap()
}

fn model(name: &str) -> OnnxClassifier {
    let folder = std::env::var_os("CLUEGATE_ONNX_MODELS")
        .unwrap_or_else(|| panic!("CLUEGATE_ONNX_MODELS names no folder with 320n.onnx and open-nsfw.onnx"));
    let config = config(name);
    let path = Path::new(&folder).join(&config.model);
    OnnxClassifier::build(config, fs::read(&path).unwrap(), &path).unwrap()
}

fn expected(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_slice(&fs::read(golden("published.json")).unwrap()).unwrap();
    all[name].as_array().unwrap().clone()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// A picture that the reference's own code made to fit, as the model's input.
fn fitted(model: &OnnxClassifier, scene: usize, name: &str) -> (Vec<usize>, Vec<f32>) {
    let mut config = model.config().clone();
    config.input.fit = Fit::Stretch;
    let picture = picture(&format!("scene-{scene}-{name}.png"));
    assert_eq!((picture.width(), picture.height()), (config.input.width, config.input.height));
    config.input(&picture).unwrap()
}

#[test]
fn pictures_are_made_to_fit_as_by_the_packages() {
    for name in ["nudenet", "open-nsfw"] {
        let config = config(name);
        for scene in SCENES {
            let (_, got) = config.input(&picture(&format!("scene-{scene}.png"))).unwrap();
            let mut whole = config.clone();
            whole.input.fit = Fit::Stretch;
            let (_, expected) = whole.input(&picture(&format!("scene-{scene}-{name}.png"))).unwrap();
            let level = config.input.scale * 1.01;
            let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= level && got.len() == expected.len(), "{name} {scene}: {worst}");
        }
    }
}

#[test]
#[ignore = "needs the models of two PyPI packages: CLUEGATE_ONNX_MODELS=FOLDER"]
fn nudenet_equals_onnxruntime() {
    let model = model("nudenet");
    for (scene, expected) in SCENES.into_iter().zip(expected("nudenet")) {
        let (shape, values) = fitted(&model, scene, "nudenet");
        let (shape, got) = model.output(&shape, values).unwrap();
        assert_eq!(shape, [1, 22, 2100]);
        let boxes = expected["boxes"].as_array().unwrap();
        for (index, column) in boxes.iter().zip(expected["columns"].as_array().unwrap()) {
            let index = index.as_u64().unwrap() as usize;
            for (row, expected) in floats(column).into_iter().enumerate() {
                // Boxes are in pixels of 320.
                let scale = if row < 4 { 320.0 } else { 1.0 };
                let error = (got[row * 2100 + index] - expected).abs() / scale;
                assert!(error < 1e-3, "box {index}, row {row}: {error}");
            }
        }
        let sum: f64 = got[4 * 2100..].iter().map(|score| f64::from(*score)).sum();
        let total = expected["scores_sum"].as_f64().unwrap();
        assert!((sum - total).abs() < 1e-3 * 2100.0, "{sum} {total}");
        let said = model.classify(&[picture(&format!("scene-{scene}.png"))], &Call::default()).unwrap();
        let found = expected["found"].as_array().unwrap();
        let names: Vec<&str> = said[0].labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(names, found.iter().map(|found| found["class"].as_str().unwrap()).collect::<Vec<_>>());
        assert!(!said[0].flagged, "{said:?}");
    }
}

#[test]
#[ignore = "needs the models of two PyPI packages: CLUEGATE_ONNX_MODELS=FOLDER"]
fn open_nsfw_equals_onnxruntime() {
    let model = model("open-nsfw");
    for (scene, expected) in SCENES.into_iter().zip(expected("open-nsfw")) {
        let (shape, values) = fitted(&model, scene, "open-nsfw");
        let (_, got) = model.output(&shape, values).unwrap();
        let expected = floats(&expected);
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3), "{got:?} {expected:?}");
        let said = model.classify(&[picture(&format!("scene-{scene}.png"))], &Call::default()).unwrap();
        assert!((said[0].score - expected[1]).abs() < 0.02 && !said[0].flagged, "{said:?} {expected:?}");
    }
}
