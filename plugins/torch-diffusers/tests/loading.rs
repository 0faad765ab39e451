//! The library's tables, and what it refuses to load.

#![allow(clippy::unwrap_used, clippy::panic, unsafe_code, dead_code)]

mod support;

use std::path::Path;

use cluegate_abi::{ErrorCode, MAJOR, MINOR};
use support::{Instance, Order, altered, changed, edited, generator, plugin};

#[test]
fn the_tables_say_what_it_is() {
    let plugin = plugin();
    assert_eq!((plugin.major, plugin.minor, plugin.flags), (MAJOR, MINOR, 0));
    assert_eq!(unsafe { plugin.name.text() }, Some("torch-diffusers"));
    assert_eq!(unsafe { plugin.version.text() }, Some(env!("CARGO_PKG_VERSION")));
    assert!(plugin.judge.is_null() && plugin.action.is_null() && !plugin.pipeline.is_null());
    let schema: serde_json::Value = serde_json::from_str(unsafe { plugin.schema.text() }.unwrap()).unwrap();
    assert_eq!(schema["required"], serde_json::json!(["model"]));
    assert_eq!(schema["additionalProperties"], false);
}

/// It finds libtorch by itself, without LD_LIBRARY_PATH.
#[test]
fn the_library_names_the_folder_of_libtorch() {
    let bytes = std::fs::read(support::library()).unwrap();
    let folder = format!("{}/lib:$ORIGIN", std::env::var("LIBTORCH_LIB").unwrap());
    assert!(bytes.windows(folder.len()).any(|window| window == folder.as_bytes()), "{folder}");
}

#[test]
fn a_relative_model_is_in_the_configurations_folder() {
    let folder = generator();
    let (parent, name) = (folder.parent().unwrap(), folder.file_name().unwrap().to_str().unwrap());
    let instance = Instance::create(&serde_json::json!({ "model": name }), parent).unwrap();
    assert_eq!(instance.fingerprint(), Instance::new().fingerprint());
    assert_eq!(instance.fingerprint().len(), 64);
    let other = edited("scheduler/scheduler_config.json", "0.012", "0.011");
    assert_ne!(Instance::of(other.path()).unwrap().fingerprint(), instance.fingerprint());
}

/// The code and words of a refusal to load.
fn refused(model: &Path) -> String {
    let Err((code, said)) = Instance::of(model) else { panic!("{} was loaded", model.display()) };
    assert_eq!(code, ErrorCode::Config, "{said}");
    said
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused() {
    for (config, word) in [
        (serde_json::json!({ "model": generator(), "step": 3 }), "step"),
        (serde_json::json!({}), "model"),
        (serde_json::json!([]), "expected"),
        (serde_json::json!({ "model": generator(), "width": 126 }), "width"),
        (serde_json::json!({ "model": "/nowhere/at/all" }), "/nowhere/at/all"),
    ] {
        let Err((code, said)) = Instance::create(&config, Path::new("")) else {
            panic!("{config} was taken")
        };
        assert!(code == ErrorCode::Config && said.contains(word), "{said}");
    }
}

const FILES: [(&str, &str); 4] = [
    ("text_encoder/model.safetensors", "encoder.layers.1.self_attn.k_proj.weight"),
    ("unet/diffusion_pytorch_model-00001-of-00002.safetensors", "conv_in.bias"),
    ("vae/diffusion_pytorch_model.safetensors", "decoder.up_blocks.0.upsamplers.0.conv.bias"),
    ("vae/diffusion_pytorch_model.safetensors", "decoder.mid_block.attentions.0.to_q.weight"),
];

#[test]
fn a_tensor_that_is_missing_misshapen_or_unknown_is_named() {
    for (file, name) in FILES {
        // Some versions of the text encoder's files have a prefix.
        let whole = |tensors: &std::collections::BTreeMap<String, support::Raw>| {
            tensors.keys().find(|key| key.ends_with(name)).unwrap_or_else(|| panic!("{file}: {name}")).clone()
        };
        let missing = altered(file, |tensors| {
            tensors.remove(&whole(tensors)).unwrap();
        });
        let said = refused(missing.path());
        assert!(said.contains("no tensor") && said.contains(name), "{said}");
        let misshapen = altered(file, |tensors| {
            let (_, shape, data) = tensors.get_mut(&whole(tensors)).unwrap();
            (*shape, _) = (vec![7], data.truncate(14));
        });
        let said = refused(misshapen.path());
        assert!(said.contains(name) && said.contains("[7]") && said.contains(file), "{said}");
        let unknown = altered(file, |tensors| {
            tensors.insert("extra.weight".to_owned(), (safetensors::Dtype::F16, vec![1], vec![0, 0]));
        });
        let said = refused(unknown.path());
        assert!(said.contains("extra.weight") && said.contains(file), "{said}");
        let whole_numbers = altered(file, |tensors| {
            tensors.get_mut(&whole(tensors)).unwrap().0 = safetensors::Dtype::I16;
        });
        let said = refused(whole_numbers.path());
        assert!(said.contains("floating-point") && said.contains("I16"), "{said}");
    }
}

#[test]
fn older_tensor_names_load_and_draw_the_same() {
    let older = altered("vae/diffusion_pytorch_model.safetensors", |tensors| {
        let names = [
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ];
        let old = |name: String| names.iter().fold(name, |name, (new, old)| name.replace(new, old));
        *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (old(name), tensor)).collect();
    });
    let order = Order { steps: 1, ..Order::default() };
    assert_eq!(Instance::of(older.path()).unwrap().picture(&order), Instance::new().picture(&order));
}

#[test]
fn a_file_that_is_missing_or_broken_is_named() {
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        let missing = changed(|folder| std::fs::remove_file(folder.join(file)).unwrap());
        let said = refused(missing.path());
        assert!(said.contains(file), "{said}");
        let broken = changed(|folder| std::fs::write(folder.join(file), "{").unwrap());
        let said = refused(broken.path());
        assert!(said.contains(file), "{said}");
    }
}

#[test]
fn a_model_that_diffusers_rs_cannot_express_is_refused_by_option() {
    for (file, from, to, words) in [
        ("model_index.json", "StableDiffusionPipeline", "StableDiffusionXLPipeline", ["_class_name", "XL"]),
        ("model_index.json", "AutoencoderKL", "AutoencoderTiny", ["vae", "AutoencoderTiny"]),
        ("text_encoder/config.json", "quick_gelu", "relu", ["hidden_act", "relu"]),
        (
            "text_encoder/config.json",
            "\"hidden_size\": 192",
            "\"hidden_size\": 194",
            ["num_attention_heads", "194"],
        ),
        (
            "unet/config.json",
            "\"flip_sin_to_cos\"",
            "\"flip_cos_to_sin\"",
            ["flip_cos_to_sin", "does not know"],
        ),
        (
            "unet/config.json",
            "\"time_embedding_dim\": null",
            "\"time_embedding_dim\": 3",
            ["time_embedding_dim", "256"],
        ),
        (
            "unet/config.json",
            "CrossAttnUpBlock2D",
            "UpBlock2D",
            ["CrossAttnDownBlock2D with UpBlock2D", "level"],
        ),
        ("unet/config.json", "\"norm_num_groups\": 32", "\"norm_num_groups\": 31", ["norm_num_groups", "31"]),
        ("vae/config.json", "\"shift_factor\": null", "\"shift_factor\": 0.1", ["shift_factor", "0.1"]),
        ("vae/config.json", "\"latents_mean\": null", "\"latents_mean\": [1]", ["latents_mean", "[1]"]),
        (
            "scheduler/scheduler_config.json",
            "\"clip_sample\": false",
            "\"clip_sample\": true",
            ["clip_sample", "true"],
        ),
        ("scheduler/scheduler_config.json", "\"leading\"", "\"trailing\"", ["timestep_spacing", "trailing"]),
        (
            "scheduler/scheduler_config.json",
            "scaled_linear",
            "squaredcos_cap_v2",
            ["beta_schedule", "squaredcos"],
        ),
        (
            "tokenizer/tokenizer_config.json",
            "\"pad_token\": \"<|endoftext|>\"",
            "\"pad_token\": \"<none>\"",
            ["pad_token", "<none>"],
        ),
    ] {
        let said = refused(edited(file, from, to).path());
        assert!(said.contains(file) && words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    let part = "\"diffusion_pytorch_model-00002-of-00002.safetensors\"";
    let said = refused(edited(index, part, "\"../vae/diffusion_pytorch_model.safetensors\"").path());
    assert!(said.contains(index) && said.contains("../vae"), "{said}");
}
