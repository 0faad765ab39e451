//! OWLv2 against transformers 5.17; `goldens/make_owlv2.py` made the model and the expected numbers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod clip_support;

use candle_core::{DType, Device, Tensor};
use cluegate_models::owlv2::{Owlv2Model, RelativeBox};
use cluegate_models::{FileTree, ModelError, ModelErrorKind};
use cluegate_perception::{Call, Detection, DetectionRequest, PerceptionErrorKind, Picture, RegionDetector};
use image::{Rgb, RgbImage, imageops};
use serde_json::json;

use clip_support::{
    assert_pixels, assert_relative, change_json, change_weights, copy, golden, ids, pictures, tensors, values,
};

const QUERIES: [&str; 3] = ["fire", "a dog", "person who holds a weapon and stands"];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

fn load(folder: impl AsRef<std::path::Path>) -> Result<Owlv2Model, ModelError> {
    Owlv2Model::load(&FileTree::open(folder)?, &Device::Cpu, DType::F32)
}

fn model() -> Owlv2Model {
    load(golden("owlv2")).unwrap()
}

fn expected() -> std::collections::HashMap<String, Tensor> {
    tensors(golden("owlv2/expected.safetensors"))
}

fn detect(model: &Owlv2Model, picture: &Picture, queries: &[&str], least: f32) -> Vec<Detection> {
    model.detect(&[DetectionRequest { picture, queries }], least, &Call::default()).unwrap().remove(0)
}

#[test]
fn pixels_are_within_one_level() {
    let pictures = pictures();
    let got = model().pixel_values(&pictures.iter().collect::<Vec<_>>()).unwrap();
    assert_pixels(&got, &expected()["pixel_values"], STD);
    // Far better than asked for: nothing is rounded to 8 bits on the way.
    assert_relative(&got, &expected()["pixel_values"], 1e-4, "pixel values");
}

#[test]
fn tokens_equal_the_reference() {
    let model = model();
    let got: Vec<_> = QUERIES.iter().map(|query| model.tokenizer().encode(query).unwrap()).collect();
    assert_eq!(got, ids(&expected()));
    let long = model.tokenizer().encode(&"fire dog ".repeat(40)).unwrap();
    assert_eq!((long.len(), long.last()), (16, Some(&model.tokenizer().end_token())));
}

#[test]
fn logits_boxes_and_objectness_equal_the_reference() {
    let (model, expected) = (model(), expected());
    let texts = model.network().embed_texts(&ids(&expected)).unwrap();
    assert_relative(&texts, &expected["text_embeds"], 1e-4, "text embeddings");
    let found = model.network().forward(&expected["pixel_values"]).unwrap();
    assert_relative(&found.boxes, &expected["pred_boxes"], 1e-4, "boxes");
    assert_relative(&found.objectness, &expected["objectness_logits"], 1e-4, "objectness");
    let queries = Tensor::stack(&[&texts; 6], 0).unwrap();
    let logits = found.logits(&queries, None).unwrap();
    assert_relative(&logits, &expected["logits"], 1e-4, "logits");
    let one = found.picture(3).unwrap().logits(&texts.unsqueeze(0).unwrap(), None).unwrap();
    assert_relative(&one, &expected["logits"].narrow(0, 3, 1).unwrap(), 1e-4, "logits of one picture");
}

#[test]
fn padded_queries_get_the_lowest_logit() {
    let (model, expected) = (model(), expected());
    let texts = model.network().embed_texts(&ids(&expected)).unwrap();
    let found = model.network().forward(&expected["pixel_values"]).unwrap();
    let queries = Tensor::stack(&[&texts; 6], 0).unwrap();
    let real = Tensor::new(&[[1u32, 1, 0]; 6], &Device::Cpu).unwrap();
    let got = found.logits(&queries, Some(&real)).unwrap();
    let padded = expected["padded_logits"].narrow(2, 2, 1).unwrap();
    assert!(values(&padded).iter().all(|logit| *logit == f32::MIN), "the golden has no padded query");
    assert_eq!(values(&got.narrow(2, 2, 1).unwrap()), values(&padded));
    let (got, expected) = (got.narrow(2, 0, 2).unwrap(), expected["padded_logits"].narrow(2, 0, 2).unwrap());
    assert_relative(&got, &expected, 1e-4, "logits of real queries");
}

#[test]
fn regions_are_the_references_boxes_clipped() {
    let expected = expected();
    let relative = expected["pred_boxes"].to_vec3::<f32>().unwrap();
    let corners = expected["corners"].to_vec3::<f32>().unwrap();
    let mut kept = 0;
    for (picture, (relative, corners)) in pictures().iter().zip(relative.iter().zip(&corners)) {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        for (relative, corners) in relative.iter().zip(corners) {
            let relative =
                RelativeBox { x: relative[0], y: relative[1], width: relative[2], height: relative[3] };
            let clipped = [
                corners[0].clamp(0.0, width),
                corners[1].clamp(0.0, height),
                corners[2].clamp(0.0, width),
                corners[3].clamp(0.0, height),
            ];
            match relative.in_picture(picture.width(), picture.height()) {
                Some(region) => {
                    let got = [region.left, region.top, region.right, region.bottom];
                    for (got, expected) in got.iter().zip(clipped) {
                        assert!((got - expected).abs() < 1e-3, "{got} instead of {expected}");
                    }
                    kept += 1;
                }
                None => {
                    assert!(clipped[2] - clipped[0] < 1e-3 || clipped[3] - clipped[1] < 1e-3, "{clipped:?}")
                }
            }
        }
    }
    assert!(kept > 100, "only {kept} boxes lie in the pictures");
}

#[test]
fn detections_are_the_references_scores_for_each_query() {
    let model = model().with_suppression(None);
    let logits = expected()["logits"].to_vec3::<f32>().unwrap();
    let pictures = pictures();
    for (index, picture) in pictures.iter().enumerate() {
        let least = 0.3;
        let found = detect(&model, picture, &QUERIES, least);
        assert!(found.windows(2).all(|pair| pair[0].confidence >= pair[1].confidence));
        for detection in &found {
            let confidences = logits[index].iter().map(|patch| 1.0 / (1.0 + (-patch[detection.query]).exp()));
            let nearest = confidences.fold(f32::MAX, |near, c| near.min((c - detection.confidence).abs()));
            assert!(nearest < 1e-3, "confidence {} is not the reference's", detection.confidence);
        }
        if picture.width() == picture.height() {
            // Without padding no box is lost, so the numbers agree too.
            let many = logits[index].iter().flatten().filter(|l| 1.0 / (1.0 + (-**l).exp()) >= least).count();
            assert_eq!(found.len(), many);
        }
    }
}

#[test]
fn suppression_reports_an_object_once() {
    let pictures = pictures();
    let all = detect(&model().with_suppression(None), &pictures[5], &QUERIES, 0.05);
    let kept = detect(&model(), &pictures[5], &QUERIES, 0.05);
    assert!(!kept.is_empty() && kept.len() <= all.len());
    for query in 0..QUERIES.len() {
        let best = |found: &[Detection]| found.iter().find(|d| d.query == query).cloned();
        assert_eq!(best(&kept), best(&all), "the best of a query is never suppressed");
    }
    for (index, detection) in kept.iter().enumerate() {
        for other in &kept[..index] {
            assert!(other.query != detection.query || other.region.iou(&detection.region) <= 0.7);
        }
    }
}

#[test]
fn a_batch_equals_single_calls_and_queries_do_not_touch_each_other() {
    let pictures = pictures();
    let lists: [&[&str]; 4] = [&QUERIES, &QUERIES[1..2], &[], &["fire", "fire"]];
    let requests: Vec<_> = pictures
        .iter()
        .cycle()
        .zip(lists.iter().cycle())
        .take(13)
        .map(|(picture, queries)| DetectionRequest { picture, queries })
        .collect();
    let together = model().detect(&requests, 0.1, &Call::default()).unwrap();
    assert_eq!(together.len(), requests.len());
    assert!(together.iter().any(|found| !found.is_empty()));
    let other = model();
    for (request, found) in requests.iter().zip(&together) {
        let alone = detect(&other, request.picture, request.queries, 0.1);
        assert_close(&alone, found);
        for (index, query) in request.queries.iter().enumerate() {
            let own: Vec<_> = found.iter().filter(|d| d.query == index).cloned().collect();
            let mut one = detect(&other, request.picture, &[query], 0.1);
            one.iter_mut().for_each(|d| d.query = index);
            assert_close(&one, &own);
        }
    }
    assert!(model().detect(&[], 0.1, &Call::default()).unwrap().is_empty());
}

fn assert_close(got: &[Detection], expected: &[Detection]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got.query, expected.query);
        assert!((got.confidence - expected.confidence).abs() < 1e-5);
        assert!(got.region.iou(&expected.region) > 0.999, "{got:?} instead of {expected:?}");
    }
}

#[test]
fn the_value_of_the_padding_can_be_set() {
    let wide = Picture::new(RgbImage::from_pixel(96, 48, Rgb([255, 255, 255])));
    let lower_left = |model: &Owlv2Model| {
        let pixels = model.pixel_values(&[&wide]).unwrap();
        // Last row of the first channel, before normalisation.
        let value = values(&pixels)[47 * 48];
        value * STD[0] + 0.481_454_66
    };
    assert!(lower_left(&model()).abs() < 1e-5);
    let folder = copy("owlv2");
    change_json(folder.path(), "preprocessor_config.json", |v| v["pad_value"] = json!(0.5));
    assert!((lower_left(&load(folder.path()).unwrap()) - 0.5).abs() < 1e-5);
    change_json(folder.path(), "preprocessor_config.json", |v| v["pad_value"] = json!(2.0));
    refused(folder.path(), ModelErrorKind::Malformed, "pad_value");
}

#[test]
fn padding_in_the_picture_or_by_the_processor_is_the_same() {
    // A black bar that a user adds changes nothing but what counts as picture.
    let picture = pictures().remove(1);
    let mut square = RgbImage::new(picture.width(), picture.width());
    imageops::replace(&mut square, picture.pixels(), 0, 0);
    let model = model();
    let (got, expected) =
        (model.pixel_values(&[&picture]).unwrap(), model.pixel_values(&[&Picture::new(square)]).unwrap());
    assert_relative(&got, &expected, 1e-5, "pixel values");
}

fn refused(folder: &std::path::Path, kind: ModelErrorKind, named: &str) {
    let error = load(folder).map(|_| ()).expect_err("a damaged model was loaded");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn damaged_models_are_refused_by_name() {
    for name in ["owlv2.vision_model.embeddings.class_embedding", "box_head.dense2.bias", "layer_norm.weight"]
    {
        let folder = copy("owlv2");
        change_weights(folder.path(), |weights| {
            weights.remove(name).expect("no such tensor in the golden model");
        });
        refused(folder.path(), ModelErrorKind::MissingTensor, name);
    }
    let name = "class_head.logit_scale.weight";
    let folder = copy("owlv2");
    change_weights(folder.path(), |weights| {
        let doubled = Tensor::cat(&[&weights[name], &weights[name]], 0).unwrap();
        weights.insert(name.to_owned(), doubled);
    });
    refused(folder.path(), ModelErrorKind::ShapeMismatch, name);
    let folder = copy("owlv2");
    change_weights(folder.path(), |weights| {
        // A buffer that older versions saved, and a stranger.
        let zeros = Tensor::zeros((36, 4), DType::F32, &Device::Cpu).unwrap();
        weights.insert("box_bias".to_owned(), zeros.clone());
        weights.insert("mask_head.weight".to_owned(), zeros);
    });
    refused(
        folder.path(),
        ModelErrorKind::UnknownTensor,
        "1 tensor(s) that the configuration has no place for: `mask_head",
    );
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let damage = |file: &str, change: &dyn Fn(&mut serde_json::Value), kind, named: &str| {
        let folder = copy("owlv2");
        change_json(folder.path(), file, |value| change(value));
        refused(folder.path(), kind, named);
    };
    use ModelErrorKind::{Malformed, Unsupported};
    damage("config.json", &|v| v["model_type"] = json!("owlvit"), Unsupported, "owlvit");
    damage("config.json", &|v| v["projection_dim"] = json!(25), Malformed, "projection_dim");
    let file = "preprocessor_config.json";
    damage(file, &|v| v["size"] = json!({"height": 40, "width": 40}), Malformed, "48x48");
    damage(file, &|v| v["do_pad"] = json!(false), Unsupported, "do_pad");
    damage(file, &|v| v["do_resize"] = json!(false), Unsupported, "do_resize");
    damage(file, &|v| v["image_processor_type"] = json!("OwlViTImageProcessor"), Unsupported, "OwlViT");
}

#[test]
fn not_a_number_is_an_error() {
    for name in ["class_head.dense0.bias", "box_head.dense2.bias"] {
        let folder = copy("owlv2");
        change_weights(folder.path(), |weights| {
            let nan = weights[name].affine(f64::NAN, 0.0).unwrap();
            weights.insert(name.to_owned(), nan);
        });
        let model = load(folder.path()).unwrap();
        let picture = pictures().remove(0);
        let request = DetectionRequest { picture: &picture, queries: &QUERIES };
        let error = model.detect(&[request], 0.05, &Call::default()).expect_err("a detection of NaN");
        assert_eq!(error.kind(), PerceptionErrorKind::NotANumber, "{error}");
    }
}

#[test]
fn requests_out_of_range_are_refused() {
    let model = model();
    let picture = pictures().remove(0);
    for least in [-0.1, 1.5, f32::NAN] {
        let request = DetectionRequest { picture: &picture, queries: &QUERIES };
        let error = model.detect(&[request], least, &Call::default()).expect_err("a confidence out of range");
        assert_eq!(error.kind(), PerceptionErrorKind::Request, "{error}");
    }
    let empty = Picture::new(RgbImage::new(0, 4));
    let request = DetectionRequest { picture: &empty, queries: &QUERIES };
    assert_eq!(
        model.detect(&[request], 0.1, &Call::default()).expect_err("no pixels").kind(),
        PerceptionErrorKind::Request
    );
}
