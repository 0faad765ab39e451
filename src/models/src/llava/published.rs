//! The configurations of published checkpoints, as they lie on the hub: most fields are left out there.

use serde_json::{Value, json};

use super::config::{Config, RESOLUTIONS, Views};
use super::original::{self, Aspect};
use crate::chat::TokenIds;
use crate::error::ModelErrorKind;
use crate::language::{Axes, Scaling};

/// The tower of all of them.
fn tower() -> Value {
    json!({
        "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
        "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
        "vocab_size": 32000,
    })
}

fn checkpoint(model_type: &str, image_token: u32, text: Value) -> Value {
    let mut file = json!({
        "ignore_index": -100, "image_token_index": image_token, "model_type": model_type,
        "projector_hidden_act": "gelu", "text_config": text, "tie_word_embeddings": false, "vision_config": tower(),
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    });
    if model_type == "llava_next" {
        file["image_grid_pinpoints"] = json!(RESOLUTIONS);
        file["use_image_newline_parameter"] = true.into();
    }
    file
}

/// Name of the checkpoint of llava-hf, its file, and what the language model must be: hidden, inner, layers, heads,
/// key-value heads, positions, base of the rotary frequencies, vocabulary, end of answers.
type Case = (&'static str, Value, [usize; 6], f32, usize, u32);

fn cases() -> Vec<Case> {
    let vicuna_7b = json!({
        "_name_or_path": "lmsys/vicuna-7b-v1.5", "max_position_embeddings": 4096, "model_type": "llama",
        "rms_norm_eps": 1e-5, "torch_dtype": "float16", "vocab_size": 32064,
    });
    let vicuna_13b = json!({
        "_name_or_path": "lmsys/vicuna-13b-v1.5", "hidden_size": 5120, "intermediate_size": 13824,
        "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 40, "num_hidden_layers": 40,
        "num_key_value_heads": 40, "rms_norm_eps": 1e-5, "torch_dtype": "float16", "vocab_size": 32064,
    });
    let mistral = json!({
        "_name_or_path": "mistralai/Mistral-7B-Instruct-v0.2", "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0, "sliding_window": null, "torch_dtype": "bfloat16", "vocab_size": 32064,
    });
    let yi = json!({
        "_name_or_path": "NousResearch/Nous-Hermes-2-Yi-34B", "eos_token_id": 7, "hidden_size": 7168,
        "intermediate_size": 20480, "max_position_embeddings": 4096, "model_type": "llama",
        "num_attention_heads": 56, "num_hidden_layers": 60, "num_key_value_heads": 8, "pad_token_id": 0,
        "rms_norm_eps": 1e-5, "rope_theta": 5_000_000.0, "use_cache": false, "vocab_size": 64064,
    });
    let llama3 = json!({
        "_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "bos_token_id": 128000, "eos_token_id": 128001,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama",
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "vocab_size": 128320,
    });
    let small = [4096, 11008, 32, 32, 32, 4096];
    let large = [5120, 13824, 40, 40, 40, 4096];
    vec![
        ("llava-1.5-7b-hf", checkpoint("llava", 32000, vicuna_7b.clone()), small, 1e4, 32064, 2),
        ("llava-1.5-13b-hf", checkpoint("llava", 32000, vicuna_13b.clone()), large, 1e4, 32064, 2),
        ("llava-v1.6-vicuna-7b-hf", checkpoint("llava_next", 32000, vicuna_7b), small, 1e4, 32064, 2),
        ("llava-v1.6-vicuna-13b-hf", checkpoint("llava_next", 32000, vicuna_13b), large, 1e4, 32064, 2),
        (
            "llava-v1.6-mistral-7b-hf",
            checkpoint("llava_next", 32000, mistral),
            [4096, 14336, 32, 32, 8, 32768],
            1e6,
            32064,
            2,
        ),
        (
            "llava-v1.6-34b-hf",
            checkpoint("llava_next", 64000, yi),
            [7168, 20480, 60, 56, 8, 4096],
            5e6,
            64064,
            7,
        ),
        (
            "llama3-llava-next-8b-hf",
            checkpoint("llava_next", 128256, llama3),
            [4096, 14336, 32, 32, 8, 8192],
            5e5,
            128320,
            128001,
        ),
    ]
}

#[test]
fn published_configurations_are_understood() {
    for (name, file, dimensions, theta, vocabulary, end) in cases() {
        let config = Config::read(name, &file).unwrap();
        let text = &config.text;
        let found =
            [text.hidden, text.intermediate, text.layers, text.heads, text.kv_heads, text.max_positions];
        assert_eq!(found, dimensions, "{name}");
        assert_eq!((text.head_dim, text.vocabulary, text.epsilon), (128, vocabulary, 1e-5), "{name}");
        assert_eq!((text.rope.theta, text.rope.scaling), (theta, Scaling::Unscaled), "{name}");
        assert_eq!((text.rope.axes, text.tied), (Axes::One, false), "{name}");
        assert!(!text.biases.inputs && !text.biases.output && !text.head_norms, "{name}");
        assert_eq!(config.eos.map(TokenIds::into_vec), Some(vec![end]), "{name}");
        let tiled = file["model_type"] == "llava_next";
        assert_eq!(
            config.views,
            if tiled { Views::Tiles(RESOLUTIONS.to_vec()) } else { Views::One },
            "{name}"
        );
        assert_eq!(config.image_token, file["image_token_index"].as_u64().map(|id| id as u32), "{name}");
        // The state before the last layer, 24 x 24 patches.
        assert_eq!((config.layers, config.with_class, config.vision.patches_per_side()), (23, false, 24));
        assert!(config.projector_bias && config.original.is_none());
    }
}

#[test]
fn fields_that_are_left_out_are_those_of_the_reference() {
    let config = Config::read("bare", &json!({"model_type": "llava", "image_token_index": 31999})).unwrap();
    let text = &config.text;
    assert_eq!((text.hidden, text.intermediate, text.layers, text.max_positions), (4096, 11008, 32, 2048));
    assert_eq!((text.vocabulary, text.epsilon), (32000, 1e-6));
    assert_eq!((config.vision.image_size, config.vision.encoder.num_hidden_layers), (336, 24));
    let next = json!({"model_type": "llava_next", "image_token_id": 5});
    let config = Config::read("bare", &next).unwrap();
    assert_eq!(config.views, Views::Tiles(RESOLUTIONS.to_vec()));
    assert_eq!(config.image_token, Some(5));
}

#[test]
fn variants_that_would_be_computed_wrongly_are_refused_by_name() {
    let file = |change: &dyn Fn(&mut Value)| {
        let text = json!({"model_type": "llama", "vocab_size": 32064});
        let mut file = checkpoint("llava_next", 32000, text);
        change(&mut file);
        Config::read("config.json", &file).unwrap_err()
    };
    // llava-interleave-qwen-7b-hf looks through SigLIP.
    let siglip = file(&|file| {
        file["model_type"] = "llava".into();
        file["vision_config"]["model_type"] = "siglip_vision_model".into();
        file["vision_feature_select_strategy"] = "full".into();
    });
    assert_eq!(siglip.kind(), ModelErrorKind::Unsupported);
    assert!(siglip.to_string().contains("siglip_vision_model"), "{siglip}");
    for (field, value, kind) in [
        ("model_type", json!("llava_onevision"), ModelErrorKind::Unsupported),
        ("vision_feature_select_strategy", json!("full"), ModelErrorKind::Unsupported),
        ("vision_feature_layer", json!([-2, 3]), ModelErrorKind::Unsupported),
        ("vision_feature_layer", json!(-26), ModelErrorKind::Malformed),
        ("projector_hidden_act", json!("silu"), ModelErrorKind::Unsupported),
        ("image_token_index", json!(32064), ModelErrorKind::Malformed),
        ("image_token_id", json!(31999), ModelErrorKind::Malformed),
        ("image_grid_pinpoints", json!([[336, 500]]), ModelErrorKind::Unsupported),
        ("image_grid_pinpoints", json!([]), ModelErrorKind::Malformed),
        ("text_config", json!({"model_type": "gemma"}), ModelErrorKind::Unsupported),
    ] {
        let error = file(&|file| file[field] = value.clone());
        assert_eq!(error.kind(), kind, "{field} {value}: {error}");
    }
}

/// `config.json` of liuhaotian/llava-v1.6-mistral-7b without what no model is built from.
fn authors() -> Value {
    json!({
        "architectures": ["LlavaMistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "freeze_mm_mlp_adapter": false, "hidden_act": "silu", "hidden_size": 4096,
        "image_aspect_ratio": "anyres",
        "image_crop_resolution": 224,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "intermediate_size": 14336, "max_position_embeddings": 32768, "mm_hidden_size": 1024,
        "mm_patch_merge_type": "spatial_unpad", "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": false, "mm_use_im_start_end": false, "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "model_type": "llava_mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "sliding_window": null,
        "tie_word_embeddings": false, "unfreeze_mm_vision_tower": true, "use_mm_proj": true, "vocab_size": 32000,
    })
}

#[test]
fn the_authors_layout_is_translated() {
    let file = authors().as_object().cloned().unwrap();
    assert!(original::is_original(&file));
    let (translated, layout) = original::translate("config.json", &file).unwrap();
    assert_eq!((layout.aspect, layout.converted.contains("llava-v1.6-mistral-7b-hf")), (Aspect::Tiles, true));
    let config = Config::read("config.json", &translated).unwrap();
    assert_eq!((config.text.kv_heads, config.text.rope.theta, config.text.vocabulary), (8, 1e6, 32000));
    assert_eq!((config.layers, config.with_class), (23, false));
    // Widths before heights there.
    let turned = RESOLUTIONS.map(|[height, width]| [width, height]);
    assert_eq!(config.views, Views::Tiles(turned.to_vec()));

    let refused = |field: &str, value: Value| {
        let mut file = file.clone();
        file.insert(field.to_owned(), value);
        original::translate("config.json", &file).unwrap_err().to_string()
    };
    for (field, value) in [
        ("mm_projector_type", "linear"),
        ("mm_patch_merge_type", "flat"),
        ("mm_vision_tower", "google/siglip-so400m-patch14-384"),
        ("mm_vision_select_feature", "slices"),
    ] {
        let error = refused(field, value.into());
        assert!(error.contains(value) && error.contains("llava-hf/llava-v1.6-mistral-7b-hf"), "{error}");
    }
    assert!(refused("mm_use_im_start_end", true.into()).contains("mm_use_im_start_end"));
    assert!(refused("mm_hidden_size", 768.into()).contains("768"));
}

#[test]
fn the_converted_checkpoint_is_named_by_the_dimensions() {
    for (kind, aspect, hidden, expected) in [
        ("llava", "pad", 4096, "llava-hf/llava-1.5-7b-hf"),
        ("llava", "pad", 5120, "llava-hf/llava-1.5-13b-hf"),
        ("llava_llama", "anyres", 4096, "llava-hf/llava-v1.6-vicuna-7b-hf"),
        ("llava_llama", "anyres", 5120, "llava-hf/llava-v1.6-vicuna-13b-hf"),
        ("llava_llama", "anyres", 7168, "llava-hf/llava-v1.6-34b-hf"),
    ] {
        let mut file = authors().as_object().cloned().unwrap();
        file.insert("model_type".to_owned(), kind.into());
        file.insert("image_aspect_ratio".to_owned(), aspect.into());
        file.insert("hidden_size".to_owned(), hidden.into());
        assert!(original::is_original(&file));
        let (translated, layout) = original::translate("config.json", &file).unwrap();
        assert!(layout.converted.ends_with(expected), "{} is not {expected}", layout.converted);
        assert_eq!(translated["model_type"], if aspect == "pad" { "llava" } else { "llava_next" });
        assert_eq!(translated["text_config"]["model_type"], "llama");
    }
}
