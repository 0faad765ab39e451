//! A folder that is not right is refused with the name of what is wrong in it.

// Helpers outside of test functions fail a test as the functions do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use candle_core::{DType, Device, Tensor};
use cluegate_candle_diffusion::{DiffusionError, Pipeline};
use cluegate_models::{FileTree, ModelErrorKind};
use support::{altered_pipeline, copy, golden, load};

fn refused(folder: &tempfile::TempDir) -> (ModelErrorKind, String) {
    match load(folder).unwrap_err() {
        DiffusionError::Model(error) => (error.kind(), error.to_string()),
        other => panic!("{other}"),
    }
}

const FILES: [(&str, &str); 3] = [
    ("text_encoder/model.safetensors", "encoder.layers.1.self_attn.k_proj.weight"),
    (
        "unet/diffusion_pytorch_model.safetensors",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight",
    ),
    ("vae/diffusion_pytorch_model.safetensors", "decoder.up_blocks.0.upsamplers.0.conv.bias"),
];

#[test]
fn a_missing_tensor_is_named() {
    for (file, name) in FILES {
        let folder = altered_pipeline(file, |t| {
            t.remove(name).unwrap();
        });
        let (kind, message) = refused(&folder);
        assert_eq!(kind, ModelErrorKind::MissingTensor, "{message}");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_misshapen_tensor_is_named() {
    for (file, name) in FILES {
        let folder = altered_pipeline(file, |t| {
            t.insert(name.to_owned(), Tensor::zeros(7, DType::F16, &Device::Cpu).unwrap());
        });
        let (kind, message) = refused(&folder);
        assert_eq!(kind, ModelErrorKind::ShapeMismatch, "{message}");
        assert!(message.contains(name) && message.contains("[7]"), "{message}");
    }
}

#[test]
fn an_unknown_tensor_is_named() {
    for (file, _) in FILES {
        let folder = altered_pipeline(file, |t| {
            t.insert("extra.weight".to_owned(), Tensor::zeros(7, DType::F16, &Device::Cpu).unwrap());
        });
        let (kind, message) = refused(&folder);
        assert_eq!(kind, ModelErrorKind::UnknownTensor, "{message}");
        assert!(message.contains("extra.weight"), "{message}");
    }
}

#[test]
fn older_tensor_names_load() {
    let folder = altered_pipeline("text_encoder/model.safetensors", |t| {
        let renamed = t.drain().map(|(name, tensor)| (format!("text_model.{name}"), tensor)).collect();
        *t = renamed;
        let ids = Tensor::arange(0i64, 20, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        t.insert("text_model.embeddings.position_ids".to_owned(), ids);
    });
    let file = folder.path().join("vae/diffusion_pytorch_model.safetensors");
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let tensors: std::collections::HashMap<_, _> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let old =
                [("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn.")];
            (old.iter().fold(name, |name, (new, old)| name.replace(new, old)), tensor)
        })
        .collect();
    candle_core::safetensors::save(&tensors, &file).unwrap();
    load(&folder).unwrap();
}

#[test]
fn a_missing_file_is_named() {
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/tokenizer.json",
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(&golden("pipeline"), folder.path());
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let (kind, message) = refused(&folder);
        assert_eq!(kind, ModelErrorKind::MissingFile, "{message}");
        // Without tokenizer.json, vocab.json is looked for.
        let name = if file.ends_with("tokenizer.json") { "tokenizer/vocab.json" } else { file };
        assert!(message.contains(name), "{message}");
    }
}

/// The golden pipeline with one JSON file changed.
fn edited(file: &str, edit: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("pipeline"), folder.path());
    let path = folder.path().join(file);
    let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
    folder
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let cases = [
        ("model_index.json", "_class_name", serde_json::json!("KandinskyPipeline"), "KandinskyPipeline"),
        (
            "model_index.json",
            "text_encoder_2",
            serde_json::json!(["transformers", "CLIPTextModel"]),
            "text_encoder_2",
        ),
        ("model_index.json", "vae", serde_json::json!(["diffusers", "AutoencoderTiny"]), "AutoencoderTiny"),
        ("unet/config.json", "class_embed_type", serde_json::json!("timestep"), "class_embed_type"),
        ("scheduler/scheduler_config.json", "thresholding", serde_json::json!(true), "thresholding"),
        ("tokenizer/tokenizer_config.json", "pad_token", serde_json::json!("<none>"), "<none>"),
    ];
    for (file, key, value, word) in cases {
        let folder = edited(file, |json| json[key] = value);
        let (_, message) = refused(&folder);
        assert!(message.contains(word) && message.contains(file), "{message}");
    }
}

#[test]
fn files_in_the_program_load_as_those_on_disk() {
    fn collect(folder: &std::path::Path, prefix: &str, files: &mut Vec<(&'static str, &'static [u8])>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                collect(&entry.path(), &format!("{name}/"), files);
            } else {
                files.push((String::leak(name), Vec::leak(std::fs::read(entry.path()).unwrap())));
            }
        }
    }
    let mut files = Vec::new();
    collect(&golden("pipeline"), "generator/", &mut files);
    let tree = FileTree::embedded("suite", Vec::leak(files)).folder("generator").unwrap();
    let pipeline = Pipeline::load(&tree, &Device::Cpu, DType::F32).unwrap();
    assert_eq!(pipeline.default_size(), (16, 16));
}
