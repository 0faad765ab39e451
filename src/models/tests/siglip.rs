//! SigLIP against transformers 5.17; `goldens/make_siglip.py` made the models and the expected numbers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clip_support;

use candle_core::{DType, Device, Tensor};
use cluegate_models::clip::DualConfig;
use cluegate_models::{FileTree, ModelError, ModelErrorKind, RelevanceModel};
use cluegate_perception::{Call, Embedding, Picture, RelevanceEncoder};
use serde_json::{Value, json};

use clip_support::{
    assert_pixels, assert_relative, change_json, change_weights, copy, golden, ids, pictures, tensors, values,
};

const NAMES: [&str; 2] = ["first", "second"];
const TEXTS: [&str; 6] = [
    "a person on fire",
    "",
    "A Dog,  and a cat's toy!",
    "a person who holds a weapon and stands near a house beside a tree with a dog and a cat and a car and a knife",
    "  - A KNIFE \u{96ea}\u{96ea} is \u{ff21} CAF\u{c9}\tof \u{fb01}re? ",
    "?!",
];

fn load(folder: impl AsRef<std::path::Path>) -> Result<RelevanceModel, ModelError> {
    RelevanceModel::load(&FileTree::open(folder)?, &Device::Cpu, DType::F32)
}

fn both() -> impl Iterator<Item = (RelevanceModel, std::collections::HashMap<String, Tensor>)> {
    NAMES.iter().map(|name| {
        let folder = golden("siglip").join(name);
        (load(&folder).unwrap(), tensors(folder.join("expected.safetensors")))
    })
}

#[test]
fn pixel_values_equal_the_reference() {
    for (model, expected) in both() {
        assert_pixels(&model.pixel_values(&pictures()).unwrap(), &expected["pixel_values"], [0.5; 3]);
    }
}

#[test]
fn tokens_equal_the_reference() {
    for (model, expected) in both() {
        let got: Vec<_> = TEXTS.iter().map(|text| model.tokens(text).unwrap()).collect();
        assert_eq!(got, ids(&expected));
    }
}

#[test]
fn the_slow_tokenizers_file_gives_the_same_tokens() {
    let folder = copy("siglip/first");
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let model = load(folder.path()).unwrap();
    let got: Vec<_> = TEXTS.iter().map(|text| model.tokens(text).unwrap()).collect();
    assert_eq!(got, ids(&tensors(folder.path().join("expected.safetensors"))));
    std::fs::write(folder.path().join("spiece.model"), b"no model").unwrap();
    refused(folder.path(), ModelErrorKind::Tokenizer, "spiece.model");
    std::fs::remove_file(folder.path().join("spiece.model")).unwrap();
    refused(folder.path(), ModelErrorKind::MissingFile, "tokenizer.json");
}

#[test]
fn the_tokenizer_class_decides_about_case_and_side() {
    let folder = copy("siglip/second");
    change_json(folder.path(), "tokenizer_config.json", |config| {
        config["tokenizer_class"] = json!("Siglip2Tokenizer");
        config.as_object_mut().unwrap().remove("padding_side");
    });
    let model = load(folder.path()).unwrap();
    let expected = &tensors(golden("siglip/second/expected.safetensors"))["lower_case_ids"];
    let expected = expected.to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let got: Vec<_> = TEXTS.iter().map(|text| model.tokens(text).unwrap()).collect();
    assert_eq!(got, expected);
    // What the file's own processor adds may be overruled, as the reference does.
    change_json(folder.path(), "tokenizer_config.json", |config| {
        config["add_eos_token"] = json!(false);
        config["add_bos_token"] = json!(true);
    });
    let tokens = load(folder.path()).unwrap().tokens("").unwrap();
    assert_eq!((tokens[14], tokens[15]), (0, 2));
}

#[test]
fn features_equal_the_reference() {
    for (model, expected) in both() {
        let texts = model.text_features(&ids(&expected)).unwrap();
        assert_relative(&texts, &expected["text_features"], 1e-4, "text features");
        let pictures = model.picture_features(&expected["pixel_values"]).unwrap();
        assert_relative(&pictures, &expected["picture_features"], 1e-4, "picture features");
    }
}

#[test]
fn cosines_and_logits_equal_the_reference_from_end_to_end() {
    for (model, expected) in both() {
        let pictures = model.embed_pictures(&pictures(), &Call::default()).unwrap();
        let texts = model.embed_texts(&TEXTS, &Call::default()).unwrap();
        let logits = values(&expected["logits"]);
        for (index, logit) in logits.iter().enumerate() {
            let cosine = pictures[index / TEXTS.len()].cosine(&texts[index % TEXTS.len()]);
            let got = model.sigmoid_logit(cosine).unwrap();
            // One grey level in a pixel moves an embedding of this random model by more than rounding does.
            assert!((got - logit).abs() < 0.05, "{got} instead of {logit}");
        }
        let spread = |all: &[f32]| {
            all.iter().fold(f32::MIN, |m, v| m.max(*v)) - all.iter().fold(f32::MAX, |m, v| m.min(*v))
        };
        assert!(spread(&logits) > 2.0, "pictures and texts are all alike");
    }
    let clip = load(golden("clip/current")).unwrap();
    assert_eq!(clip.sigmoid_logit(0.3), None);
}

#[test]
fn half_precision_is_near() {
    for name in NAMES {
        let folder = golden("siglip").join(name);
        let logits = |dtype| {
            let model = RelevanceModel::load(&FileTree::open(&folder).unwrap(), &Device::Cpu, dtype).unwrap();
            let pictures = model.embed_pictures(&pictures(), &Call::default()).unwrap();
            let texts = model.embed_texts(&TEXTS, &Call::default()).unwrap();
            let pairs = pictures.iter().flat_map(|picture| texts.iter().map(|text| picture.cosine(text)));
            pairs.map(|cosine| model.sigmoid_logit(cosine).unwrap()).collect::<Vec<f32>>()
        };
        let expected = logits(DType::F32);
        for (dtype, most) in [(DType::BF16, 0.3), (DType::F16, 0.03)] {
            let gaps = logits(dtype).into_iter().zip(&expected).map(|(half, whole)| (half - whole).abs());
            let gap = gaps.fold(0f32, f32::max);
            assert!(gap > 0.0 && gap < most, "{name} in {dtype:?}: off by {gap}");
        }
    }
}

#[test]
fn a_batch_equals_single_calls() {
    for name in NAMES {
        // The second model has not seen the pictures and texts before.
        let folder = golden("siglip").join(name);
        let (model, other) = (load(&folder).unwrap(), load(&folder).unwrap());
        let alike = |alone: &Embedding, together: &Embedding| {
            assert!((alone.cosine(together) - 1.0).abs() < 1e-5);
        };
        // More than one forward pass holds.
        let many: Vec<Picture> = pictures().into_iter().cycle().take(20).collect();
        let together = model.embed_pictures(&many, &Call::default()).unwrap();
        for (picture, embedding) in many.iter().zip(&together) {
            alike(
                &other.embed_pictures(std::slice::from_ref(picture), &Call::default()).unwrap()[0],
                embedding,
            );
        }
        let texts: Vec<&str> = TEXTS.into_iter().cycle().take(9).collect();
        for (text, embedding) in texts.iter().zip(&model.embed_texts(&texts, &Call::default()).unwrap()) {
            alike(&other.embed_texts(&[text], &Call::default()).unwrap()[0], embedding);
        }
    }
}

#[test]
fn the_default_threshold_is_siglips_own() {
    let model = load(golden("siglip/first")).unwrap();
    assert_eq!(model.default_threshold(), 0.0);
    assert_eq!(model.with_threshold(0.03).default_threshold(), 0.03);
}

fn config(value: &Value) -> Result<DualConfig, ModelError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), value.to_string()).unwrap();
    DualConfig::load_siglip(&FileTree::open(folder.path()).unwrap())
}

#[test]
fn published_configurations_are_read() {
    let tower = |kind: &str| json!({ "model_type": format!("siglip_{kind}_model") });
    let of = |text: Value, vision: Value| {
        let (mut own, mut other) = (tower("text"), tower("vision"));
        own.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
        other.as_object_mut().unwrap().extend(vision.as_object().unwrap().clone());
        config(&json!({ "model_type": "siglip", "text_config": own, "vision_config": other })).unwrap()
    };
    // google/siglip-base-patch16-224 and google/siglip2-base-patch16-512
    let base = of(json!({}), json!({}));
    assert_eq!((base.text.vocab_size, base.text.max_position_embeddings), (32_000, 64));
    assert_eq!((base.vision.image_size, base.vision.patches_per_side()), (224, 14));
    assert_eq!((base.projection_dim, base.vision.encoder.layer_norm_eps), (768, 1e-6));
    let second = of(json!({ "vocab_size": 256_000 }), json!({ "image_size": 512 }));
    assert_eq!((second.text.vocab_size, second.vision.patches_per_side()), (256_000, 32));
    // google/siglip-so400m-patch14-384
    let wide = json!({
        "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27,
    });
    let mut vision = wide.clone();
    vision
        .as_object_mut()
        .unwrap()
        .extend(json!({ "image_size": 384, "patch_size": 14 }).as_object().unwrap().clone());
    let so400m = of(wide.clone(), vision);
    assert_eq!((so400m.vision.patches_per_side(), so400m.projection_dim), (27, 1152));
    // google/siglip2-giant-opt-patch16-384, whose towers are of different widths
    let mut text = wide;
    text["projection_size"] = json!(1536);
    let giant = json!({
        "hidden_size": 1536, "intermediate_size": 6144, "num_attention_heads": 16, "num_hidden_layers": 40,
        "image_size": 384, "patch_size": 16,
    });
    assert_eq!(of(text, giant).projection_dim, 1536);
}

fn refused(folder: &std::path::Path, kind: ModelErrorKind, named: &str) {
    let error = load(folder).map(|_| ()).expect_err("a damaged model was loaded");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn damaged_weights_are_named() {
    for name in [
        "vision_model.head.probe",
        "text_model.head.bias",
        "logit_bias",
        "vision_model.head.attention.in_proj_bias",
    ] {
        let folder = copy("siglip/second");
        change_weights(folder.path(), |weights| {
            weights.remove(name).expect("no such tensor in the golden model");
        });
        refused(folder.path(), ModelErrorKind::MissingTensor, name);
    }
    let name = "vision_model.embeddings.position_embedding.weight";
    let folder = copy("siglip/second");
    change_weights(folder.path(), |weights| {
        let part = weights[name].narrow(0, 0, 9).unwrap().contiguous().unwrap();
        weights.insert(name.to_owned(), part);
    });
    refused(folder.path(), ModelErrorKind::ShapeMismatch, name);
    let folder = copy("siglip/second");
    change_weights(folder.path(), |weights| {
        weights.insert("classifier.weight".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    });
    refused(folder.path(), ModelErrorKind::UnknownTensor, "classifier.weight");
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let damage = |file: &str, change: &dyn Fn(&mut Value), kind, named: &str| {
        let folder = copy("siglip/second");
        change_json(folder.path(), file, |value| change(value));
        refused(folder.path(), kind, named);
    };
    use ModelErrorKind::{Malformed, ShapeMismatch, Tokenizer, Unsupported};
    damage("config.json", &|v| v["model_type"] = json!("siglip2"), Unsupported, "fixed resolution");
    damage(
        "config.json",
        &|v| v["vision_config"]["vision_use_head"] = json!(false),
        Unsupported,
        "vision_use_head",
    );
    damage("config.json", &|v| v["text_config"]["projection_size"] = json!(16), Malformed, "width 16");
    damage("config.json", &|v| v["text_config"]["vocab_size"] = json!(390), ShapeMismatch, "token_embedding");
    damage(
        "config.json",
        &|v| v["text_config"]["max_position_embeddings"] = json!(1),
        Malformed,
        "max_position",
    );
    let file = "preprocessor_config.json";
    damage(
        file,
        &|v| v["image_processor_type"] = json!("CLIPImageProcessor"),
        Unsupported,
        "CLIPImageProcessor",
    );
    damage(file, &|v| v["size"] = json!({"height": 30, "width": 32}), Malformed, "30x32");
    let file = "tokenizer_config.json";
    damage(file, &|v| v["pad_token"] = json!("<nothing>"), Tokenizer, "<nothing>");
    damage(file, &|v| v["padding_side"] = json!("middle"), Unsupported, "middle");
}
