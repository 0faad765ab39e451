//! InternVL in both layouts, on the files made by `goldens/make_internvl.py` and `goldens/make_internvl_chat.py`.

use std::collections::BTreeMap;

use candle_core::Tensor;
use cluegate_models::chat::ChatTokenizer;
use cluegate_models::internvl::{Config, Layout, TileLimits};
use cluegate_models::language::Naming;
use cluegate_models::{FileTree, ModelErrorKind};
use cluegate_perception::{Call, FinishReason, Picture, VisionLanguageModel};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{Copy, Golden, relative_gap, values};

mod transformers {
    use crate::checks::golden_tests;

    golden_tests!(super::TRANSFORMERS, pictures);
}

mod original_with_internlm2 {
    use crate::checks::golden_tests;

    golden_tests!(super::INTERNLM2, pictures);
}

mod original_with_qwen2 {
    use crate::checks::golden_tests;

    golden_tests!(super::QWEN2, pictures);
}

const TRANSFORMERS: Golden = Golden("internvl");
const INTERNLM2: Golden = Golden("internvl_chat_internlm2");
const QWEN2: Golden = Golden("internvl_chat_qwen2");

#[derive(Deserialize)]
struct Tokenized {
    text: String,
    tokens: Vec<u32>,
}

/// The files of slow tokenizers, of SentencePiece among them, give their tokens.
#[test]
fn slow_tokenizers_are_read_from_their_own_files() {
    let llama = ["tokenizer_llama", "tokenizer_llama_legacy"].map(|name| Golden(name).folder());
    let others = [INTERNLM2, QWEN2].map(Golden::folder);
    let folders = llama.into_iter().map(|folder| (folder.clone(), folder));
    for (folder, model) in folders.chain(others.map(|folder| (folder.clone(), folder.join("model")))) {
        let file = std::fs::read(folder.join("tokenized.json")).unwrap();
        let texts: Vec<Tokenized> = serde_json::from_slice(&file).unwrap();
        assert!(texts.len() > 20);
        let tokenizer = ChatTokenizer::load(&FileTree::open(&model).unwrap()).unwrap();
        for Tokenized { text, tokens } in texts {
            assert_eq!(tokenizer.encode(&text).unwrap(), tokens, "{}: {text:?}", folder.display());
        }
    }
}

#[test]
fn tokenizer_files_that_would_be_read_wrongly_are_refused() {
    let change = |golden: Golden, file: &str, key: &str, value: Value| {
        let copy = golden.copy();
        let mut content = copy.json(file);
        content[key] = value;
        copy.write(file, &content.to_string());
        copy.refused()
    };
    for golden in [INTERNLM2, QWEN2] {
        let error = change(golden, "tokenizer_config.json", "tokenizer_class", "XLNetTokenizer".into());
        assert_eq!(error.kind(), ModelErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("XLNetTokenizer"), "{error}");
        // Without the added tokens there is none for pictures.
        let error = change(golden, "tokenizer_config.json", "added_tokens_decoder", json!({}));
        assert_eq!(error.kind(), ModelErrorKind::Tokenizer, "{error}");
        assert!(error.to_string().contains("`<img>`"), "{error}");
        // One of them would get another number.
        let mut added = golden.copy().json("tokenizer_config.json")["added_tokens_decoder"].clone();
        let last =
            added.as_object().unwrap().keys().max_by_key(|id| id.parse::<u32>().unwrap()).unwrap().clone();
        added["9999"] = added.as_object_mut().unwrap().remove(&last).unwrap();
        let error = change(golden, "tokenizer_config.json", "added_tokens_decoder", added);
        assert_eq!(error.kind(), ModelErrorKind::Tokenizer, "{error}");
        assert!(error.to_string().contains("9999"), "{error}");
    }
    let copy = INTERNLM2.copy();
    let whole = std::fs::read(copy.path().join("tokenizer.model")).unwrap();
    // Byte fallback, dummy prefix and so on are the last fields of the file; pieces come first.
    for bytes in [&whole[..whole.len() - 1], &whole[..1000], &whole[1..], b"version https://git-lfs", b""] {
        std::fs::write(copy.path().join("tokenizer.model"), bytes).unwrap();
        let error = copy.refused();
        assert!(matches!(error.kind(), ModelErrorKind::Tokenizer | ModelErrorKind::Unsupported), "{error}");
        assert!(error.to_string().contains("tokenizer.model"), "{error}");
    }
    let copy = QWEN2.copy();
    copy.write("merges.txt", "#version: 0.2\nab\n");
    assert!(copy.refused().to_string().contains("merges.txt"));
    copy.remove("merges.txt");
    assert_eq!(copy.refused().kind(), ModelErrorKind::MissingFile);
}

/// Renames tensors by the first prefix that fits.
fn rename(copy: &Copy, prefixes: &[(&str, &str)]) {
    copy.change_tensors(|tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| {
                let fitting = prefixes.iter().find_map(|(from, to)| Some((name.strip_prefix(from)?, to)));
                let (rest, to) = fitting.unwrap_or_else(|| panic!("{name} is renamed"));
                (format!("{to}{rest}"), tensor)
            })
            .collect();
    });
}

#[test]
fn the_names_inside_of_transformers_load_as_well() {
    let copy = TRANSFORMERS.copy();
    rename(
        &copy,
        &[
            ("language_model.model.", "model.language_model."),
            ("language_model.", ""),
            ("vision_tower.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ],
    );
    TRANSFORMERS.assert_logits(&copy.load());
}

#[test]
fn the_flat_rotary_fields_load_as_well() {
    let copy = TRANSFORMERS.copy();
    let mut config = copy.json("config.json");
    crate::harness::flatten_rope(&mut config["text_config"]);
    copy.write("config.json", &config.to_string());
    TRANSFORMERS.assert_logits(&copy.load());
}

/// Published configurations say that the output layer is the embedding table, and have one of its own.
#[test]
fn an_output_layer_that_is_there_is_used() {
    let copy = TRANSFORMERS.copy();
    let mut config = copy.json("config.json");
    config.as_object_mut().unwrap().remove("tie_word_embeddings");
    copy.write("config.json", &config.to_string());
    TRANSFORMERS.assert_logits(&copy.load());
    let prompt = TRANSFORMERS.prompts().remove(0);
    let first = || copy.load().next_logits(std::slice::from_ref(&prompt)).unwrap().remove(0);
    let (head, table) = ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight");
    copy.change_tensors(|tensors| {
        let table = tensors[table].clone();
        tensors.insert(head.to_owned(), table);
    });
    let expected = first();
    copy.change_tensors(|tensors| {
        tensors.remove(head);
    });
    assert!(relative_gap(&first(), &expected) < 1e-6);
    config["tie_word_embeddings"] = false.into();
    copy.write("config.json", &config.to_string());
    assert!(copy.refused().to_string().contains(head));
}

/// The tensors of a vision tower of the original layout by the names of transformers.
fn as_transformers(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let renamed = [
        ("vision_model.", "vision_tower."),
        ("class_embedding", "cls_token"),
        ("patch_embedding.", "patch_embeddings.projection."),
        ("position_embedding", "position_embeddings"),
        ("encoder.layers.", "encoder.layer."),
        (".attn.proj.", ".attention.projection_layer."),
        (".attn.", ".attention."),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".ls1", ".lambda_1"),
        (".ls2", ".lambda_2"),
        ("mlp1.0.", "multi_modal_projector.layer_norm."),
        ("mlp1.1.", "multi_modal_projector.linear_1."),
        ("mlp1.3.", "multi_modal_projector.linear_2."),
    ];
    let mut out = BTreeMap::new();
    for (name, tensor) in tensors {
        if name.starts_with("language_model.") {
            out.insert(name, tensor);
            continue;
        }
        let name = renamed.iter().fold(name, |name, (from, to)| name.replace(from, to));
        match name.split_once(".qkv.") {
            Some((before, after)) => {
                for (part, values) in ["q_proj", "k_proj", "v_proj"].iter().zip(tensor.chunk(3, 0).unwrap()) {
                    out.insert(format!("{before}.{part}.{after}"), values.contiguous().unwrap());
                }
            }
            None => _ = out.insert(name, tensor),
        }
    }
    out
}

/// Both layouts are one model: norms of either kind, of queries and keys, with and without biases.
#[test]
fn a_checkpoint_in_the_other_layout_is_the_same_model() {
    for golden in [INTERNLM2, QWEN2] {
        let copy = golden.copy();
        let config = copy.json("config.json");
        let vision = &config["vision_config"];
        let norm_of_queries = vision["qk_normalization"].as_bool().unwrap();
        let other = json!({
            "model_type": "internvl",
            "text_config": config["llm_config"],
            "image_token_id": ChatTokenizer::load(&FileTree::open(copy.path()).unwrap()).unwrap().id("<IMG_CONTEXT>"),
            "vision_config": {
                "hidden_size": vision["hidden_size"],
                "num_hidden_layers": vision["num_hidden_layers"],
                "num_attention_heads": vision["num_attention_heads"],
                "intermediate_size": vision["intermediate_size"],
                "image_size": vision["image_size"],
                "patch_size": [vision["patch_size"], vision["patch_size"]],
                "attention_bias": vision["qkv_bias"],
                "use_qk_norm": norm_of_queries,
                "norm_type": vision["norm_type"],
                "layer_norm_eps": vision["layer_norm_eps"],
            },
        });
        copy.write("config.json", &other.to_string());
        let tile = &vision["image_size"];
        let processor = json!({
            "size": {"height": tile, "width": tile}, "max_patches": config["max_dynamic_patch"],
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        });
        copy.remove("preprocessor_config.json");
        copy.write("processor_config.json", &json!({"image_processor": processor}).to_string());
        copy.change_tensors(|tensors| *tensors = as_transformers(std::mem::take(tensors)));
        let model = copy.load();
        for name in golden.pictures() {
            let found = model.image_features(&golden.picture(&name)).unwrap();
            let expected = &golden.expected()[&format!("features.{name}")];
            // Transformers' norms of queries and keys have an epsilon of their own.
            let most = if norm_of_queries { 1e-3 } else { 1e-4 };
            let gap = relative_gap(&values(&found), &values(expected));
            assert!(gap < most, "{golden:?}, {name}: off by {gap}");
        }
        if !norm_of_queries {
            golden.assert_logits(&model);
        }
    }
}

/// In the original code every turn ends there, also where `generation_config.json` says nothing.
#[test]
fn answers_end_with_the_turn() {
    let copy = QWEN2.copy();
    let end = ChatTokenizer::load(&FileTree::open(copy.path()).unwrap()).unwrap().id("<|im_end|>").unwrap();
    // Every other token has the logit 0: where that of the end is above, nothing is more probable.
    copy.change_tensors(|tensors| {
        let head = tensors.get_mut("language_model.lm_head.weight").unwrap();
        let (zeros, rows) = (head.zeros_like().unwrap(), head.dim(0).unwrap());
        let end = end as usize;
        let part = |all: &Tensor, first: usize, count: usize| all.narrow(0, first, count).unwrap();
        let parts = [part(&zeros, 0, end), part(head, end, 1), part(&zeros, end + 1, rows - end - 1)];
        *head = Tensor::cat(&parts, 0).unwrap();
    });
    let answers = copy.load().complete(&QWEN2.requests(), &Call::default()).unwrap();
    assert!(answers.iter().any(|answer| answer.finish == FinishReason::Stop && answer.tokens == 0));
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = |pointer: &str, value: Value| TRANSFORMERS.refused_with(pointer, value).kind();
    assert_eq!(kind("/vision_config/norm_type", "batch_norm".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/hidden_act", "relu".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/use_mean_pooling", false.into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/image_size", json!([16, 32])), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/num_channels", 1.into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/num_attention_heads", 3.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/image_size", 32.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/num_hidden_layers", 1.into()), ModelErrorKind::UnknownTensor);
    assert_eq!(kind("/vision_config/attention_bias", false.into()), ModelErrorKind::UnknownTensor);
    assert_eq!(kind("/vision_config/use_qk_norm", true.into()), ModelErrorKind::MissingTensor);
    assert_eq!(kind("/vision_feature_layer", json!([-2, -1])), ModelErrorKind::Unsupported);
    assert_eq!(kind("/downsample_ratio", 0.3.into()), ModelErrorKind::Malformed);
    // As many tokens as the processor has no places for.
    assert_eq!(kind("/downsample_ratio", 0.25.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/image_token_id", 100_000.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/text_config/model_type", "gemma".into()), ModelErrorKind::Unsupported);
    let kind = |pointer: &str, value: Value| INTERNLM2.refused_with(pointer, value).kind();
    assert_eq!(kind("/ps_version", "v1".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/select_layer", (-2).into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/force_image_size", 32.into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/max_dynamic_patch", 0.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/max_dynamic_patch", 1_000_000_000.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/llm_config/bias", true.into()), ModelErrorKind::MissingTensor);
    let error = TRANSFORMERS.copy();
    error.write("processor_config.json", r#"{"image_seq_length": 256}"#);
    assert!(error.refused().to_string().contains("image_seq_length"));
}

/// Pictures of one tile where the configuration does not ask for more.
#[test]
fn pictures_are_cut_as_the_configuration_says() {
    let tiles = |changes: &[(&str, Value)], width: u32, height: u32| {
        let copy = QWEN2.copy();
        let mut config = copy.json("config.json");
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        copy.write("config.json", &config.to_string());
        let picture = Picture::new(image::RgbImage::new(width, height));
        copy.load().pixel_values(&picture).unwrap().dims()[0]
    };
    let (no, yes) = (Value::from(false), Value::from(true));
    assert_eq!(tiles(&[], 90, 84), 5);
    assert_eq!(tiles(&[("use_thumbnail", no.clone())], 90, 84), 4);
    assert_eq!(tiles(&[("dynamic_image_size", no)], 90, 84), 1);
    assert_eq!(tiles(&[("dynamic_image_size", yes), ("max_dynamic_patch", 12.into())], 90, 84), 10);
    assert_eq!(tiles(&[("max_dynamic_patch", 12.into())], 1000, 1), 13);
    assert_eq!(tiles(&[("min_dynamic_patch", 6.into())], 16, 16), 7);
}

/// A published `llm_config`: family, hidden, intermediate, layers, heads, key-value heads, vocabulary.
type Text = (&'static str, usize, usize, usize, usize, usize, usize);

fn published(text: Text, large: bool) -> Value {
    let (family, hidden, intermediate, layers, heads, kv_heads, vocabulary) = text;
    let architecture = match family {
        "internlm2" => "InternLM2ForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "phi3" => "Phi3ForCausalLM",
        "internlm3" => "InternLM3ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let mut llm = json!({
        "architectures": [architecture], "model_type": family, "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "max_position_embeddings": 32768,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1_000_000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "use_cache": true, "attn_implementation": "flash_attention_2",
    });
    match family {
        "internlm2" => {
            llm["bias"] = false.into();
            llm["rope_scaling"] = json!({"factor": 2.0, "type": "dynamic"});
        }
        "qwen2" => {
            llm["use_sliding_window"] = false.into();
            llm["sliding_window"] = Value::Null;
            llm["rope_scaling"] = json!({"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"});
        }
        _ => {}
    }
    // The large tower's configuration leaves the kinds of its norms to the defaults.
    let vision = if large {
        json!({
            "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "attention_dropout": 0.0,
            "drop_path_rate": 0.0, "dropout": 0.0, "hidden_act": "gelu", "hidden_size": 3200, "image_size": 448,
            "initializer_factor": 0.1, "intermediate_size": 12800, "layer_norm_eps": 1e-6, "num_attention_heads": 25,
            "num_channels": 3, "num_hidden_layers": 45, "patch_size": 14, "qk_normalization": true, "qkv_bias": false,
            "use_flash_attn": true,
        })
    } else {
        json!({
            "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu",
            "hidden_size": 1024, "image_size": 448, "intermediate_size": 4096, "layer_norm_eps": 1e-6,
            "norm_type": "layer_norm", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24,
            "patch_size": 14, "qk_normalization": false, "qkv_bias": true, "use_flash_attn": true,
        })
    };
    json!({
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
        "dynamic_image_size": true, "force_image_size": 448, "llm_config": llm, "max_dynamic_patch": 12,
        "min_dynamic_patch": 1, "pad2square": false, "ps_version": "v2", "select_layer": -1, "template": "Hermes-2",
        "torch_dtype": "bfloat16", "use_backbone_lora": 0, "use_llm_lora": 0, "use_thumbnail": true,
        "vision_config": vision,
    })
}

fn read(config: &Value) -> Result<Config, cluegate_models::ModelError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    Config::load(&FileTree::open(folder.path()).unwrap())
}

#[test]
fn published_configurations_are_read() {
    let all: [(&str, Text, bool); 21] = [
        ("InternVL2-1B", ("qwen2", 896, 4864, 24, 14, 2, 151_655), false),
        ("InternVL2-2B", ("internlm2", 2048, 8192, 24, 16, 8, 92_553), false),
        ("InternVL2-8B", ("internlm2", 4096, 14_336, 32, 32, 8, 92_553), false),
        ("InternVL2-26B", ("internlm2", 6144, 16_384, 48, 48, 8, 92_553), true),
        ("InternVL2-40B", ("llama", 7168, 20_480, 60, 56, 8, 64_000), true),
        ("InternVL2-Llama3-76B", ("llama", 8192, 28_672, 80, 64, 8, 128_256), true),
        ("InternVL2_5-1B", ("qwen2", 896, 4864, 24, 14, 2, 151_674), false),
        ("InternVL2_5-2B", ("internlm2", 2048, 8192, 24, 16, 8, 92_553), false),
        ("InternVL2_5-4B", ("qwen2", 2048, 11_008, 36, 16, 2, 151_674), false),
        ("InternVL2_5-8B", ("internlm2", 4096, 14_336, 32, 32, 8, 92_553), false),
        ("InternVL2_5-26B", ("internlm2", 6144, 16_384, 48, 48, 8, 92_553), true),
        ("InternVL2_5-38B", ("qwen2", 5120, 27_648, 64, 40, 8, 151_674), true),
        ("InternVL2_5-78B", ("qwen2", 8192, 29_568, 80, 64, 8, 151_674), true),
        ("InternVL3-1B", ("qwen2", 896, 4864, 24, 14, 2, 151_674), false),
        ("InternVL3-2B", ("qwen2", 1536, 8960, 28, 12, 2, 151_674), false),
        ("InternVL3-8B", ("qwen2", 3584, 18_944, 28, 28, 4, 151_674), false),
        ("InternVL3-14B", ("qwen2", 5120, 13_824, 48, 40, 8, 151_674), false),
        ("InternVL3-38B", ("qwen2", 5120, 27_648, 64, 40, 8, 151_674), true),
        ("InternVL3-78B", ("qwen2", 8192, 29_568, 80, 64, 8, 151_674), true),
        ("InternVL2-4B", ("phi3", 3072, 8192, 32, 32, 32, 32_020), false),
        ("InternVL3-9B", ("internlm3", 4096, 10_240, 48, 32, 2, 128_521), false),
    ];
    for (name, text, large) in all {
        let (family, hidden, _, layers, heads, kv_heads, vocabulary) = text;
        let config = match (read(&published(text, large)), family) {
            (Err(error), "phi3" | "internlm3") => {
                assert_eq!(error.kind(), ModelErrorKind::Unsupported, "{name}: {error}");
                assert!(error.to_string().contains(family), "{name}: {error}");
                continue;
            }
            (config, _) => config.unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        let read = &config.text;
        assert_eq!(
            (read.hidden, read.layers, read.heads, read.kv_heads, read.vocabulary, read.tied),
            (hidden, layers, heads, kv_heads, vocabulary, false),
            "{name}"
        );
        let naming = if family == "internlm2" { Naming::InternLm2 } else { Naming::Llama };
        assert_eq!((read.naming, read.biases.inputs, read.biases.output), (naming, family == "qwen2", false));
        let vision = &config.vision;
        assert_eq!((config.layout, vision.tokens(), vision.grid()), (Layout::Original, 256, 32), "{name}");
        assert_eq!(config.tiles, Some(TileLimits { fewest: 1, most: 12, thumbnail: true }), "{name}");
        let kinds =
            (vision.layer_norm, vision.qk_epsilon.is_some(), vision.qkv_bias, vision.width, vision.depth);
        let expected = if large { (false, true, false, 3200, 45) } else { (true, false, true, 1024, 24) };
        assert_eq!(kinds, expected, "{name}");
    }
}

/// As `InternVL3-1B-hf` and its larger siblings are published, by transformers 4.52.
#[test]
fn published_configurations_of_transformers_are_read() {
    for large in [false, true] {
        let mut vision = json!({
            "architectures": ["InternVisionModel"], "attention_bias": true, "attention_dropout": 0.0, "dropout": 0.0,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 1024, "image_size": [448, 448],
            "initializer_factor": 0.1, "initializer_range": 1e-10, "intermediate_size": 4096, "layer_norm_eps": 1e-6,
            "layer_scale_init_value": 0.1, "model_type": "internvl_vision", "norm_type": "layer_norm",
            "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 24, "patch_size": [14, 14],
            "projection_dropout": 0.0, "torch_dtype": "bfloat16", "use_absolute_position_embeddings": true,
            "use_mask_token": false, "use_mean_pooling": true, "use_qk_norm": false,
        });
        if large {
            for (key, value) in [
                ("attention_bias", json!(false)),
                ("use_qk_norm", json!(true)),
                ("norm_type", json!("rms_norm")),
                ("hidden_size", json!(3200)),
                ("num_attention_heads", json!(25)),
                ("num_hidden_layers", json!(45)),
                ("intermediate_size", json!(12800)),
            ] {
                vision[key] = value;
            }
        }
        let config = json!({
            "architectures": ["InternVLForConditionalGeneration"], "downsample_ratio": 0.5, "image_seq_length": 256,
            "image_token_id": 151_667, "model_type": "internvl", "projector_hidden_act": "gelu",
            "text_config": {
                "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151_643,
                "eos_token_id": 151_643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
                "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 70,
                "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6, "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
                "rope_theta": 1_000_000.0, "sliding_window": null, "torch_dtype": "bfloat16", "use_cache": true,
                "use_sliding_window": false, "vocab_size": 151_674,
            },
            "torch_dtype": "bfloat16", "transformers_version": "4.52.0.dev0", "vision_config": vision,
            "vision_feature_layer": -1, "vision_feature_select_strategy": "default",
        });
        let config = read(&config).unwrap();
        assert_eq!((config.layout, config.image_token), (Layout::Transformers, Some(151_667)));
        assert_eq!((config.vision.tokens(), config.vision.layer_norm), (256, !large));
        assert_eq!(config.vision.qk_epsilon, large.then_some(1e-6));
        assert_eq!((config.text.vocabulary, config.text.biases.inputs), (151_674, true));
    }
}
