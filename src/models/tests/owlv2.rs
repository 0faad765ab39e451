//! OWLv2 against transformers 5.17; `goldens/make_owlv2.py` made the models and the expected numbers: `owlv2` in the
//! layout that 5.17 saves, `owlv2_large` in the proportions and the layout of the published large checkpoint.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod clip_support;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use cluegate_models::clip::{Activation, DualConfig, EncoderConfig};
use cluegate_models::owlv2::{Owlv2Model, Owlv2Processor, RelativeBox};
use cluegate_models::{FileTree, ModelError, ModelErrorKind};
use cluegate_perception::{Call, Detection, DetectionRequest, PerceptionErrorKind, Picture, RegionDetector};
use image::{Rgb, RgbImage, imageops};
use serde_json::json;

use clip_support::{
    NAMES, assert_pixels, assert_relative, change_json, change_weights, copy, golden, ids, pictures, tensors,
    values,
};

const QUERIES: [&str; 3] = ["fire", "a dog", "person who holds a weapon and stands"];
const MARKED: [&str; 3] = ["fire!", "a dog", "Person who holds a weapon and stands"];
/// Each golden folder with its queries.
const GOLDENS: [(&str, [&str; 3]); 2] = [("owlv2", QUERIES), ("owlv2_large", MARKED)];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

fn load(folder: impl AsRef<std::path::Path>) -> Result<Owlv2Model, ModelError> {
    Owlv2Model::load(&FileTree::open(folder)?, &Device::Cpu, DType::F32)
}

fn model() -> Owlv2Model {
    load(golden("owlv2")).unwrap()
}

fn expected() -> HashMap<String, Tensor> {
    expected_of("owlv2")
}

fn expected_of(name: &str) -> HashMap<String, Tensor> {
    tensors(golden(name).join("expected.safetensors"))
}

fn detect(model: &Owlv2Model, picture: &Picture, queries: &[&str], least: f32) -> Vec<Detection> {
    model.detect(&[DetectionRequest { picture, queries }], least, &Call::default()).unwrap().remove(0)
}

#[test]
fn pixels_are_within_one_level() {
    let pictures = pictures();
    for (name, _) in GOLDENS {
        let expected = &expected_of(name)["pixel_values"];
        let got = load(golden(name)).unwrap().pixel_values(&pictures.iter().collect::<Vec<_>>()).unwrap();
        assert_pixels(&got, expected, STD);
        // Far better than asked for: nothing is rounded to 8 bits on the way.
        assert_relative(&got, expected, 1e-4, "pixel values");
    }
}

#[test]
fn tokens_equal_the_reference() {
    for (name, queries) in GOLDENS {
        let model = load(golden(name)).unwrap();
        let got: Vec<_> = queries.iter().map(|query| model.tokenizer().encode(query).unwrap()).collect();
        assert_eq!(got, ids(&expected_of(name)), "{name}");
        let long = model.tokenizer().encode(&"fire dog ".repeat(40)).unwrap();
        assert_eq!((long.len(), long.last()), (16, Some(&model.tokenizer().end_token())));
    }
}

#[test]
fn a_vocabulary_and_merges_are_the_tokenizer_that_the_reference_builds_of_them() {
    let model = load(golden("owlv2_large")).unwrap();
    let expected = std::fs::read(golden("owlv2_large/expected.json")).unwrap();
    let expected: HashMap<String, Vec<u32>> = serde_json::from_slice(&expected).unwrap();
    assert!(expected["fire!"].contains(&0) && expected.len() > 5, "{expected:?}");
    for (text, ids) in &expected {
        assert_eq!(&model.tokenizer().encode(text).unwrap(), ids, "{text}");
    }
    let damage = |file: &str, content: Option<&str>, kind: ModelErrorKind, named: &str| {
        let folder = copy("owlv2_large");
        match content {
            Some(content) => std::fs::write(folder.path().join(file), content).unwrap(),
            None => std::fs::remove_file(folder.path().join(file)).unwrap(),
        }
        refused(folder.path(), kind, named);
    };
    damage("vocab.json", None, ModelErrorKind::MissingFile, "tokenizer.json");
    damage("merges.txt", None, ModelErrorKind::MissingFile, "merges.txt");
    damage("merges.txt", Some("#version: 0.2\nq zz\n"), ModelErrorKind::Tokenizer, "vocab.json");
    damage("vocab.json", Some("{\"a\": 0}"), ModelErrorKind::Tokenizer, "<|startoftext|>");
    damage("vocab.json", Some("{\"a\": -1}"), ModelErrorKind::Malformed, "vocab.json");
}

#[test]
fn logits_boxes_and_objectness_equal_the_reference() {
    for (name, _) in GOLDENS {
        let (model, expected) = (load(golden(name)).unwrap(), expected_of(name));
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
}

#[test]
fn post_processing_equals_the_references_in_pictures_of_every_shape() {
    const THRESHOLD: f32 = 0.3;
    let (model, expected) = (load(golden("owlv2_large")).unwrap(), expected_of("owlv2_large"));
    let mut compared = 0;
    for (index, picture) in pictures().iter().enumerate() {
        let read = |key: &str| expected[&format!("found_{key}.{index}")].clone();
        let (labels, boxes) =
            (read("labels").to_vec1::<i64>().unwrap(), read("boxes").to_vec2::<f32>().unwrap());
        let mut reference: Vec<_> = labels.into_iter().zip(values(&read("scores"))).zip(boxes).collect();
        reference.sort_by(|((_, a), _), ((_, b), _)| b.total_cmp(a));
        let found = model.post_process(picture, &MARKED, THRESHOLD).unwrap();
        assert_eq!(found.len(), reference.len(), "{}", NAMES[index]);
        let side = picture.width().max(picture.height()) as f32;
        for (found, ((label, score), corners)) in found.iter().zip(reference) {
            assert_eq!(found.query as i64, label, "{}: {found:?}", NAMES[index]);
            assert!((found.score - score).abs() < 1e-4, "{}: {found:?} instead of {score}", NAMES[index]);
            for (got, expected) in found.corners.iter().zip(&corners) {
                assert!((got - expected).abs() < 1e-4 * side, "{}: {found:?} {corners:?}", NAMES[index]);
            }
            compared += 1;
        }
    }
    assert!(compared > 60, "only {compared} boxes were compared");
    let none = model.post_process(&pictures()[0], &[], 0.1).expect_err("nothing is looked for");
    assert_eq!(none.kind(), ModelErrorKind::Request);
}

#[test]
fn what_the_reference_finds_is_found_by_each_query_on_its_own() {
    let model = load(golden("owlv2_large")).unwrap().with_suppression(None);
    let (mut compared, mut in_padding) = (0, 0);
    for (picture, name) in pictures().iter().zip(NAMES) {
        let found = detect(&model, picture, &MARKED, 0.3);
        for reference in model.post_process(picture, &MARKED, 0.3).unwrap() {
            let [left, top, right, bottom] = reference.corners;
            let (width, height) = (picture.width() as f32, picture.height() as f32);
            let clipped = [
                left.clamp(0.0, width),
                top.clamp(0.0, height),
                right.clamp(0.0, width),
                bottom.clamp(0.0, height),
            ];
            if clipped[0] >= clipped[2] || clipped[1] >= clipped[3] {
                in_padding += 1;
                continue;
            }
            let same = |d: &&Detection| {
                let own = [d.region.left, d.region.top, d.region.right, d.region.bottom];
                (d.query, d.confidence, own) == (reference.query, reference.score, clipped)
            };
            assert_eq!(found.iter().filter(same).count(), 1, "{name}: {reference:?}");
            compared += 1;
        }
    }
    assert!(compared > 30 && in_padding > 3, "{compared} boxes were compared, {in_padding} lie in padding");
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

/// `config.json` and `preprocessor_config.json` as published, word for word but for the order of fields.
fn published(name: &str) -> tempfile::TempDir {
    let large = name.contains("large");
    let side = if large { 1008 } else { 960 };
    let (text, vision) = if large {
        (
            json!({"hidden_size": 768, "intermediate_size": 3072, "model_type": "owlv2_text_model",
                "num_attention_heads": 12}),
            json!({"hidden_size": 1024, "image_size": 1008, "intermediate_size": 4096,
                "model_type": "owlv2_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
                "patch_size": 14}),
        )
    } else {
        (
            json!({"model_type": "owlv2_text_model"}),
            json!({"image_size": 960, "model_type": "owlv2_vision_model", "patch_size": 16}),
        )
    };
    let config = json!({
        "architectures": ["Owlv2ForObjectDetection"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "owlv2", "projection_dim": if large { 768 } else { 512 }, "text_config": text,
        "torch_dtype": "float32", "transformers_version": "4.35.0.dev0", "vision_config": vision,
    });
    let preprocessor = json!({
        "do_normalize": true, "do_pad": true, "do_rescale": true, "do_resize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "Owlv2ImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "Owlv2Processor", "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"height": side, "width": side},
    });
    let folder = tempfile::tempdir().unwrap();
    for (file, value) in [("config.json", config), ("preprocessor_config.json", preprocessor)] {
        std::fs::write(folder.path().join(file), value.to_string()).unwrap();
    }
    folder
}

#[test]
fn published_configurations_are_read_with_the_references_defaults() {
    let encoder = |hidden_size, intermediate_size, num_hidden_layers, num_attention_heads| EncoderConfig {
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    // The ensembles and the fine-tuned checkpoints have the same files.
    for (name, text, vision, sides) in [
        ("owlv2-base-patch16", encoder(512, 2048, 12, 8), encoder(768, 3072, 12, 12), (960, 16, 60)),
        ("owlv2-large-patch14", encoder(768, 3072, 12, 12), encoder(1024, 4096, 24, 16), (1008, 14, 72)),
    ] {
        let folder = published(name);
        let tree = FileTree::open(folder.path()).unwrap();
        let config = DualConfig::load_owlv2(&tree).unwrap();
        assert_eq!((&config.text.encoder, &config.vision.encoder), (&text, &vision), "{name}");
        assert_eq!((config.text.vocab_size, config.text.max_position_embeddings), (49408, 16), "{name}");
        assert_eq!(config.projection_dim, text.hidden_size, "{name}");
        let vision = &config.vision;
        assert_eq!((vision.image_size, vision.patch_size, vision.patches_per_side()), sides, "{name}");
        let processor = Owlv2Processor::load(&tree, vision.image_size).unwrap();
        let pixels = processor.batch(&[&RgbImage::new(31, 17)], &Device::Cpu).unwrap();
        assert_eq!(pixels.dims(), [1, 3, vision.image_size, vision.image_size], "{name}");

        // Saved anew by version 5, the processor's fields lie in another file and below another key.
        let preprocessor = tree.read_text("preprocessor_config.json").unwrap();
        let fields: serde_json::Value = serde_json::from_str(&preprocessor).unwrap();
        std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
        let whole = json!({"image_processor": fields, "processor_class": "Owlv2Processor"});
        std::fs::write(folder.path().join("processor_config.json"), whole.to_string()).unwrap();
        Owlv2Processor::load(&tree, vision.image_size).unwrap();
    }
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
