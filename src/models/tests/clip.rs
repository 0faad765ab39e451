//! CLIP against transformers 5.17; `goldens/make_clip.py` made the models and the expected numbers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod clip_support;

use candle_core::{DType, Device, Tensor};
use cluegate_models::RelevanceModel;
use cluegate_models::clip::{Activation, DualConfig, TextConfig, VisionConfig};
use cluegate_models::{FileTree, ModelError, ModelErrorKind};
use cluegate_perception::{Call, Picture, RelevanceEncoder};
use image::RgbImage;
use serde_json::json;

use clip_support::{
    assert_pixels, assert_relative, change_json, change_weights, copy, golden, ids, pictures, tensors,
};

const TEXTS: [&str; 6] = [
    "a person on fire",
    "",
    "A Dog,  and a cat's toy!",
    "a person who holds a weapon and stands near a house beside a tree with a dog and a cat and a car",
    "fire",
    "a <|extra|> dog",
];

fn load(folder: impl AsRef<std::path::Path>) -> Result<RelevanceModel, ModelError> {
    RelevanceModel::load(&FileTree::open(folder)?, &Device::Cpu, DType::F32)
}

fn cases() -> [(&'static str, usize, [f32; 3]); 2] {
    [("legacy", 5, [0.268_629_54, 0.261_302_6, 0.275_777_1]), ("current", 6, [0.2, 0.3, 0.4])]
}

#[test]
fn pixels_are_within_one_level() {
    for (name, _, std) in cases() {
        let folder = golden("clip").join(name);
        let expected = tensors(folder.join("expected.safetensors"));
        let got = load(&folder).unwrap().pixel_values(&pictures()).unwrap();
        assert_pixels(&got, &expected["pixel_values"], std);
    }
}

#[test]
fn tokens_equal_the_reference() {
    for (name, count, _) in cases() {
        let folder = golden("clip").join(name);
        let expected = ids(&tensors(folder.join("expected.safetensors")));
        let model = load(&folder).unwrap();
        let got: Vec<_> = TEXTS[..count].iter().map(|text| model.tokens(text).unwrap()).collect();
        assert_eq!(got, expected, "{name}");
        // The second text is empty.
        assert!(got.iter().all(|ids| ids.last() == got[1].last()), "{name}");
    }
}

#[test]
fn features_equal_the_reference() {
    for (name, _, _) in cases() {
        let folder = golden("clip").join(name);
        let expected = tensors(folder.join("expected.safetensors"));
        let model = load(&folder).unwrap();
        let texts = model.text_features(&ids(&expected)).unwrap();
        assert_relative(&texts, &expected["text_features"], 1e-4, &format!("{name}: text features"));
        let pictures = model.picture_features(&expected["pixel_values"]).unwrap();
        assert_relative(&pictures, &expected["picture_features"], 1e-4, &format!("{name}: picture features"));
    }
}

#[test]
fn embeddings_equal_the_reference_from_end_to_end() {
    for (name, count, _) in cases() {
        let folder = golden("clip").join(name);
        let expected = tensors(folder.join("expected.safetensors"));
        let model = load(&folder).unwrap();
        let unit = |embeddings: Vec<cluegate_perception::Embedding>| {
            let rows: Vec<_> = embeddings.iter().map(|e| e.values().to_vec()).collect();
            let (count, width) = (rows.len(), rows[0].len());
            Tensor::from_vec(rows.concat(), (count, width), &Device::Cpu).unwrap()
        };
        let texts = unit(model.embed_texts(&TEXTS[..count], &Call::default()).unwrap());
        assert_relative(&texts, &expected["text_embeds"], 1e-4, &format!("{name}: texts"));
        // One grey level in a pixel moves an embedding of this random model by more than rounding does.
        let pictures = unit(model.embed_pictures(&pictures(), &Call::default()).unwrap());
        assert_relative(&pictures, &expected["picture_embeds"], 2e-2, &format!("{name}: pictures"));
    }
}

#[test]
fn a_batch_equals_single_calls() {
    // The second model has not seen the pictures and texts before.
    let (model, other) = (load(golden("clip/current")).unwrap(), load(golden("clip/current")).unwrap());
    // More than one forward pass holds.
    let many: Vec<Picture> = pictures().into_iter().cycle().take(20).collect();
    let together = model.embed_pictures(&many, &Call::default()).unwrap();
    assert_eq!(together.len(), many.len());
    for (picture, embedding) in many.iter().zip(&together) {
        let alone = other.embed_pictures(std::slice::from_ref(picture), &Call::default()).unwrap();
        let cosine = alone[0].cosine(embedding);
        assert!((cosine - 1.0).abs() < 1e-5, "cosine {cosine}");
    }
    let texts: Vec<&str> = TEXTS.into_iter().cycle().take(9).collect();
    let together = model.embed_texts(&texts, &Call::default()).unwrap();
    for (text, embedding) in texts.iter().zip(&together) {
        let alone = other.embed_texts(&[text], &Call::default()).unwrap();
        assert!((alone[0].cosine(embedding) - 1.0).abs() < 1e-5, "{text}");
        assert!(
            other.embed_texts(&[text], &Call::default()).unwrap() == alone,
            "{text}: a remembered text changed"
        );
    }
    assert!(model.embed_pictures(&[], &Call::default()).unwrap().is_empty());
    assert!(model.embed_texts(&[], &Call::default()).unwrap().is_empty());
}

#[test]
fn extreme_shapes_are_served() {
    let model = load(golden("clip/legacy")).unwrap();
    for (width, height) in [(1, 1), (20_000, 1), (1, 20_000)] {
        let picture = Picture::new(RgbImage::from_pixel(width, height, image::Rgb([200, 100, 50])));
        let embedding = model.embed_pictures(&[picture], &Call::default()).unwrap();
        let length: f32 = embedding[0].values().iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{width}x{height}");
    }
}

#[test]
fn the_default_threshold_is_the_papers() {
    let model = load(golden("clip/current")).unwrap();
    assert_eq!(model.default_threshold(), 0.22);
    assert_eq!(model.with_threshold(0.1).default_threshold(), 0.1);
}

#[test]
fn the_fingerprint_follows_the_weights() {
    let first = load(golden("clip/current")).unwrap();
    let folder = copy("clip/current");
    assert_eq!(load(folder.path()).unwrap().fingerprint(), first.fingerprint());
    change_weights(folder.path(), |weights| {
        let scale = weights["text_projection.weight"].affine(1.5, 0.0).unwrap();
        weights.insert("text_projection.weight".to_owned(), scale);
    });
    assert_ne!(load(folder.path()).unwrap().fingerprint(), first.fingerprint());
}

fn refused(folder: &std::path::Path, kind: ModelErrorKind, named: &str) {
    let error = load(folder).map(|_| ()).expect_err("a damaged model was loaded");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn a_missing_tensor_is_named_and_never_invented() {
    for name in [
        "vision_model.embeddings.class_embedding",
        "vision_model.pre_layrnorm.bias",
        "text_model.encoder.layers.1.self_attn.k_proj.bias",
        "visual_projection.weight",
        "logit_scale",
    ] {
        let folder = copy("clip/current");
        change_weights(folder.path(), |weights| {
            weights.remove(name).expect("no such tensor in the golden model");
        });
        refused(folder.path(), ModelErrorKind::MissingTensor, name);
    }
}

#[test]
fn a_misshapen_tensor_is_named() {
    let name = "vision_model.embeddings.patch_embedding.weight";
    let folder = copy("clip/current");
    change_weights(folder.path(), |weights| {
        let part = weights[name].narrow(0, 0, 31).unwrap().contiguous().unwrap();
        weights.insert(name.to_owned(), part);
    });
    refused(folder.path(), ModelErrorKind::ShapeMismatch, name);
}

#[test]
fn weights_that_an_old_torch_wrote_are_refused_with_advice() {
    let folder = copy("clip/current");
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    refused(folder.path(), ModelErrorKind::MissingFile, "model.safetensors");
    let legacy = concat!(env!("CARGO_MANIFEST_DIR"), "/goldens/pickled/legacy.bin");
    std::fs::copy(legacy, folder.path().join("pytorch_model.bin")).unwrap();
    refused(folder.path(), ModelErrorKind::Unsupported, "refs/pr");
}

#[test]
fn unknown_tensors_are_refused_except_known_buffers() {
    let folder = copy("clip/current");
    change_weights(folder.path(), |weights| {
        let ids = Tensor::arange(0i64, 17, &Device::Cpu).unwrap();
        weights.insert("vision_model.embeddings.position_ids".to_owned(), ids);
    });
    load(folder.path()).unwrap();
    change_weights(folder.path(), |weights| {
        let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        weights.insert("text_model.adapter.weight".to_owned(), extra);
    });
    refused(folder.path(), ModelErrorKind::UnknownTensor, "text_model.adapter.weight");
}

#[test]
fn not_a_number_is_an_error() {
    let folder = copy("clip/current");
    change_weights(folder.path(), |weights| {
        let name = "vision_model.post_layernorm.bias";
        let nan = weights[name].affine(f64::NAN, 0.0).unwrap();
        weights.insert(name.to_owned(), nan);
    });
    let error = load(folder.path())
        .unwrap()
        .embed_pictures(&pictures(), &Call::default())
        .expect_err("an embedding of NaN");
    assert_eq!(error.kind(), cluegate_perception::PerceptionErrorKind::NotANumber, "{error}");
}

#[test]
fn configuration_layouts_agree() {
    let tree = FileTree::open(golden("clip/legacy")).unwrap();
    let nested = DualConfig::load_clip(&tree).unwrap();
    assert_eq!(nested.text.encoder.hidden_act, Activation::QuickGelu);
    assert_eq!(nested.text.encoder.num_hidden_layers, 2);
    assert_eq!(nested.text.eos_token_ids, [2]);
    // Each tower's fields flat in a file of its own, as for a text encoder of Stable Diffusion.
    let folder = tempfile::tempdir().unwrap();
    let whole: serde_json::Value = tree.read_json("config.json").unwrap();
    let flat = FileTree::open(folder.path()).unwrap();
    std::fs::write(folder.path().join("config.json"), whole["text_config_dict"].to_string()).unwrap();
    assert_eq!(TextConfig::load(&flat).unwrap(), nested.text);
    assert_eq!(TextConfig::load(&tree).unwrap(), nested.text);
    std::fs::write(folder.path().join("config.json"), whole["vision_config_dict"].to_string()).unwrap();
    assert_eq!(VisionConfig::load(&flat).unwrap(), nested.vision);
    assert_eq!(VisionConfig::load(&tree).unwrap(), nested.vision);
    assert_eq!(TextConfig::load(&flat).expect_err("a vision tower").kind(), ModelErrorKind::Unsupported);
}

fn published(value: &serde_json::Value) -> DualConfig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), value.to_string()).unwrap();
    DualConfig::load_clip(&FileTree::open(folder.path()).unwrap()).unwrap()
}

#[test]
fn published_configurations_are_read() {
    let sizes = |config: &DualConfig| {
        let (text, vision) = (&config.text.encoder, &config.vision.encoder);
        let patches = config.vision.patches_per_side();
        (text.hidden_size, vision.hidden_size, vision.num_hidden_layers, patches, config.projection_dim)
    };
    // openai/clip-vit-base-patch32 and -patch16: everything written down, the older form empty.
    for (patch, patches) in [(32, 7), (16, 14)] {
        let base = published(&json!({
            "model_type": "clip", "projection_dim": 512, "text_config_dict": null, "vision_config_dict": null,
            "text_config": {
                "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 12,
                "hidden_act": "quick_gelu", "eos_token_id": 2, "vocab_size": 49_408, "layer_norm_eps": 1e-05,
            },
            "vision_config": {
                "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                "num_hidden_layers": 12, "image_size": 224, "patch_size": patch,
            },
        }));
        assert_eq!(sizes(&base), (512, 768, 12, patches, 512));
        assert_eq!(base.text.encoder.hidden_act, Activation::QuickGelu);
    }
    // openai/clip-vit-large-patch14 and -336: the older form beside the newer one.
    for (image, patches) in [(224, 16), (336, 24)] {
        let text = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
            "projection_dim": 768,
        });
        let vision = json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
            "patch_size": 14, "image_size": image, "projection_dim": 768,
        });
        let large = published(&json!({
            "model_type": "clip", "projection_dim": 768, "text_config": text, "vision_config": vision,
            "text_config_dict": text, "vision_config_dict": vision,
        }));
        assert_eq!(sizes(&large), (768, 1024, 24, patches, 768));
        assert_eq!(large.text.eos_token_ids, [49_407]);
    }
    // laion/CLIP-ViT-H-14-laion2B-s32B-b79K: the exact GELU, heads of 80.
    let huge = published(&json!({
        "model_type": "clip", "projection_dim": 1024,
        "text_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
            "hidden_act": "gelu", "projection_dim": 512,
        },
        "vision_config": {
            "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32,
            "hidden_act": "gelu", "image_size": 224, "patch_size": 14,
        },
    }));
    assert_eq!(sizes(&huge), (1024, 1280, 32, 16, 1024));
    assert_eq!(huge.vision.encoder.hidden_act, Activation::Gelu);
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let damage = |file: &str, change: &dyn Fn(&mut serde_json::Value), kind, named: &str| {
        let folder = copy("clip/current");
        change_json(folder.path(), file, |value| change(value));
        refused(folder.path(), kind, named);
    };
    use ModelErrorKind::{Malformed, MissingFile, ShapeMismatch, Tokenizer, Unsupported};
    damage("config.json", &|v| v["text_config"]["hidden_act"] = json!("mish"), Unsupported, "mish");
    damage("config.json", &|v| v["model_type"] = json!("altclip"), Unsupported, "altclip");
    damage("config.json", &|v| v["model_type"] = json!("siglip2"), Unsupported, "fixed resolution");
    damage("config.json", &|v| v["vision_config"]["hidden_size"] = json!(33), Malformed, "hidden_size");
    damage("config.json", &|v| v["vision_config"]["patch_size"] = json!(7), Malformed, "patch_size");
    damage("config.json", &|v| v["text_config"]["hidden_size"] = json!("x"), Malformed, "text_config");
    damage("config.json", &|v| v["projection_dim"] = json!(21), ShapeMismatch, "projection.weight");
    damage("config.json", &|v| v["text_config"]["eos_token_id"] = json!(5), Tokenizer, "eos_token_id");
    damage("config.json", &|v| v["text_config"]["vocab_size"] = json!(50), Tokenizer, "vocabulary");
    let file = "preprocessor_config.json";
    damage(file, &|v| v["resample"] = json!(5), Unsupported, "resample");
    damage(file, &|v| v["size"] = json!({"longest_edge": 3}), Unsupported, "size");
    damage(file, &|v| v["size"] = json!({"height": 40, "width": 32}), Malformed, "40x32");
    damage(file, &|v| v["image_std"] = json!([0.0, 1.0, 1.0]), Malformed, "image_std");
    damage(
        file,
        &|v| v["image_processor_type"] = json!("ViTImageProcessor"),
        Unsupported,
        "ViTImageProcessor",
    );
    let folder = copy("clip/current");
    std::fs::remove_file(folder.path().join(file)).unwrap();
    refused(folder.path(), MissingFile, file);
}

#[test]
fn a_whole_processor_file_is_read_too() {
    let folder = copy("clip/current");
    let file = folder.path().join("preprocessor_config.json");
    let fields: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let whole = json!({ "image_processor": fields, "processor_class": "CLIPProcessor" });
    std::fs::write(folder.path().join("processor_config.json"), whole.to_string()).unwrap();
    let expected =
        load(golden("clip/current")).unwrap().embed_pictures(&pictures(), &Call::default()).unwrap();
    assert_eq!(load(folder.path()).unwrap().embed_pictures(&pictures(), &Call::default()).unwrap(), expected);
}
