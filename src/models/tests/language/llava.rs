//! LLaVA-1.5 and LLaVA-NeXT, on the files made by `goldens/make_llava.py`.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, LoadOptions, ModelErrorKind, load_judge};
use cluegate_perception::{Picture, Prefix, Prompt};
use serde_json::{Value, json};

use crate::harness::{Copy, Golden, assert_close, flatten_rope, logits_key, relative_gap, values};

const ONE: Golden = Golden("llava");
const NEXT: Golden = Golden("llava_next");
const MISTRAL: Golden = Golden("llava_next_mistral");

mod one {
    crate::checks::golden_tests!(super::ONE, pictures);
}
mod next {
    crate::checks::golden_tests!(super::NEXT, pictures);
}
mod mistral {
    crate::checks::golden_tests!(super::MISTRAL, pictures);
}

type Tensors = BTreeMap<String, Tensor>;

/// Tensors by other names: the first pair whose beginning fits says how the name begins then.
fn renamed(tensors: Tensors, pairs: &[(&str, &str)]) -> Tensors {
    let other = |name: String| {
        let fits = |(from, to): &(&str, &str)| Some(format!("{to}{}", name.strip_prefix(from)?));
        pairs.iter().find_map(fits).unwrap_or_else(|| panic!("no other name for {name}"))
    };
    tensors.into_iter().map(|(name, tensor)| (other(name), tensor)).collect()
}

/// As the checkpoints were published; transformers 5 leaves out `vision_model` when it saves.
const PUBLISHED: [(&str, &str); 4] = [
    ("vision_tower.", "vision_tower.vision_model."),
    ("language_model.", "language_model."),
    ("multi_modal_projector.", "multi_modal_projector."),
    ("image_newline", "image_newline"),
];
/// As the modules are called since 4.52, when some tools save them as they are.
const MODULES: [(&str, &str); 5] = [
    ("vision_tower.", "model.vision_tower.vision_model."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("image_newline", "model.image_newline"),
];
/// Since 5.
const MODULES_5: [(&str, &str); 5] =
    [("vision_tower.", "model.vision_tower."), MODULES[1], MODULES[2], MODULES[3], MODULES[4]];
/// As the authors call them.
const AUTHORS: [(&str, &str); 6] = [
    ("vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    MODULES[1],
    ("language_model.model.", "model."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    MODULES[4],
];

#[test]
fn every_way_to_name_tensors_loads() {
    for golden in [ONE, NEXT] {
        for names in [&PUBLISHED[..], &MODULES, &MODULES_5] {
            let copy = golden.copy();
            copy.change_tensors(|tensors| *tensors = renamed(std::mem::take(tensors), names));
            golden.assert_logits(&copy.load());
            // Buffers of older versions.
            copy.change_tensors(|tensors| {
                let some = tensors.values().next().unwrap().clone();
                let tower = names.iter().find(|(from, _)| *from == "vision_tower.").unwrap().1;
                tensors.insert(format!("{tower}embeddings.position_ids"), some.clone());
                tensors.insert("model.language_model.rotary_emb.inv_freq".to_owned(), some);
            });
            copy.load();
        }
    }
}

fn change(copy: &Copy, name: &str, change: impl FnOnce(&mut Value)) {
    let mut json = copy.json(name);
    change(&mut json);
    copy.write(name, &json.to_string());
}

fn remove(value: &mut Value, keys: &[&str]) {
    for key in keys {
        value.as_object_mut().unwrap().remove(*key);
    }
}

/// Rotary parameters by their old names, defaults left out, the template in a file of its own, a processor file that
/// only has what version 4.36 wrote.
#[test]
fn files_of_older_checkpoints_load_as_well() {
    for golden in [ONE, NEXT, MISTRAL] {
        let copy = golden.copy();
        change(&copy, "config.json", |config| {
            remove(config, &["image_seq_length", "multimodal_projector_bias", "dtype"]);
            remove(
                config,
                &["vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act"],
            );
            config["ignore_index"] = (-100).into();
            let text = &mut config["text_config"];
            flatten_rope(text);
            remove(
                text,
                &["head_dim", "attention_bias", "mlp_bias", "hidden_act", "eos_token_id", "rope_scaling"],
            );
            remove(&mut config["vision_config"], &["hidden_act", "layer_norm_eps", "num_channels"]);
            if golden.0 == ONE.0 {
                remove(&mut config["text_config"], &["rope_theta", "num_key_value_heads", "model_type"]);
            }
        });
        change(&copy, "preprocessor_config.json", |processor| {
            processor["size"] = 24.into();
            processor["crop_size"] = 24.into();
            remove(processor, &["resample", "image_mean", "do_rescale", "rescale_factor"]);
        });
        let mut template = Value::Null;
        change(&copy, "tokenizer_config.json", |tokenizer| template = tokenizer["chat_template"].take());
        copy.write("chat_template.json", &json!({ "chat_template": template }).to_string());
        copy.remove("generation_config.json");
        golden.assert_logits(&copy.load());
        // Or the template is a field of the whole processor's file.
        copy.remove("chat_template.json");
        let whole = json!({"patch_size": 4, "processor_class": "LlavaProcessor", "chat_template": template});
        copy.write("processor_config.json", &whole.to_string());
        golden.assert_logits(&copy.load());
    }
}

/// Since 5 the image processor is a part of the whole, and the image token has a name of its own.
#[test]
fn files_of_newer_checkpoints_load_as_well() {
    for golden in [ONE, NEXT] {
        let copy = golden.copy();
        let processor = copy.json("preprocessor_config.json");
        copy.remove("preprocessor_config.json");
        let whole =
            json!({"image_processor": processor, "patch_size": 4, "processor_class": "LlavaProcessor"});
        copy.write("processor_config.json", &whole.to_string());
        change(&copy, "config.json", |config| {
            config["image_token_id"] = config["image_token_index"].take();
            remove(config, &["image_token_index"]);
        });
        golden.assert_logits(&copy.load());
    }
}

/// Without `add_bos_token` the tokenizer's own file decides, and a template that writes the token itself gets no
/// second one.
#[test]
fn the_token_that_begins_a_prompt_is_there_once() {
    let case = ONE.cases().remove(0);
    let prompt = ONE.prompt(&case);
    assert_eq!(case.tokens[..2].iter().filter(|&&token| token == 1).count(), 1);
    let with = |add: Option<bool>, template: &dyn Fn(&str) -> String| {
        let copy = ONE.copy();
        change(&copy, "tokenizer_config.json", |tokenizer| {
            match add {
                Some(add) => tokenizer["add_bos_token"] = add.into(),
                None => remove(tokenizer, &["add_bos_token"]),
            }
            tokenizer["chat_template"] = template(tokenizer["chat_template"].as_str().unwrap()).into();
        });
        copy.load().prompt_tokens(&prompt).unwrap()
    };
    assert_eq!(with(None, &str::to_owned), case.tokens);
    assert_eq!(with(Some(false), &str::to_owned), case.tokens[1..]);
    for add in [None, Some(true)] {
        assert_eq!(with(add, &|template| format!("{{{{ bos_token }}}}{template}")), case.tokens);
    }
}

#[test]
fn other_layers_strategies_and_padding_are_those_of_the_reference() {
    let other = candle_core::safetensors::load(ONE.folder().join("other.safetensors"), &Device::Cpu).unwrap();
    for (way, layer, strategy) in [("full", -1, "full"), ("first", 1, "default"), ("embedded", 0, "full")] {
        let copy = ONE.copy();
        change(&copy, "config.json", |config| {
            config["vision_feature_layer"] = layer.into();
            config["vision_feature_select_strategy"] = strategy.into();
        });
        let model = copy.load();
        for name in ONE.pictures() {
            let found = model.image_features(&ONE.picture(&name)).unwrap();
            let reference = &other[&format!("{way}.{name}")];
            assert_eq!(found.dims(), reference.dims(), "{way}, {name}");
            assert_close(&values(&found), &values(reference), &format!("{way}, {name}"));
            let count = model.picture_token_count(&ONE.picture(&name)).unwrap();
            assert_eq!(count, reference.dims()[0], "{way}, {name}");
        }
    }
    let copy = ONE.copy();
    change(&copy, "preprocessor_config.json", |processor| {
        processor["image_processor_type"] = "LlavaImageProcessor".into();
        processor["do_pad"] = true.into();
    });
    assert_padded(&copy, &other);
    // Which CLIP's processor does not do.
    change(&copy, "preprocessor_config.json", |file| {
        file["image_processor_type"] = "CLIPImageProcessor".into()
    });
    assert_eq!(copy.refused().kind(), ModelErrorKind::Unsupported);
}

fn assert_padded(copy: &Copy, other: &std::collections::HashMap<String, Tensor>) {
    let model = copy.load();
    for name in ONE.pictures() {
        let found = values(&model.pixel_values(&ONE.picture(&name)).unwrap());
        let reference = values(&other[&format!("padded.{name}")]);
        assert_eq!(found.len(), reference.len());
        let gap = found.iter().zip(&reference).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(gap * 0.261_302_6 <= 1.0 / 255.0 + 1e-6, "{name}: off by {gap}");
    }
}

/// The golden checkpoint in the authors' layout: its tokenizer has the placeholder, which has no row in the table.
fn authors(golden: Golden, aspect: &str) -> Copy {
    let copy = golden.copy();
    let config = copy.json("config.json");
    let mut flat = config["text_config"].clone();
    flatten_rope(&mut flat);
    flat["model_type"] = if golden.0 == MISTRAL.0 { "llava_mistral" } else { "llava_llama" }.into();
    flat["vision_config"] = config["vision_config"].clone();
    let turned = |pair: &Value| json!([pair[1], pair[0]]);
    let pinpoints = config["image_grid_pinpoints"].as_array();
    for (name, value) in [
        ("image_aspect_ratio", aspect.into()),
        ("image_grid_pinpoints", pinpoints.map(|pairs| pairs.iter().map(turned).collect::<Vec<_>>()).into()),
        ("mm_hidden_size", 16.into()),
        ("mm_patch_merge_type", if aspect == "anyres" { "spatial_unpad" } else { "flat" }.into()),
        ("mm_projector_type", "mlp2x_gelu".into()),
        ("mm_vision_select_feature", "patch".into()),
        ("mm_vision_select_layer", (-2).into()),
        ("mm_vision_tower", "openai/clip-vit-large-patch14-336".into()),
    ] {
        flat[name] = value;
    }
    copy.write("config.json", &flat.to_string());
    copy.remove("preprocessor_config.json");
    copy.change_tensors(|tensors| *tensors = renamed(std::mem::take(tensors), &AUTHORS));
    copy
}

#[test]
fn the_authors_layout_loads_with_the_tower_inside() {
    for (golden, aspect) in [(ONE, "square"), (NEXT, "anyres"), (MISTRAL, "anyres")] {
        let copy = authors(golden, aspect);
        golden.assert_logits(&copy.load());
        // Without rows for what the tokenizer has added.
        let rows = golden.cases().iter().flat_map(|case| case.tokens.clone()).filter(|&id| id < 379).max();
        let rows = rows.unwrap() as usize + 1;
        change(&copy, "config.json", |config| config["vocab_size"] = rows.into());
        copy.change_tensors(|tensors| {
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let tensor = tensors.get_mut(name).unwrap();
                *tensor = tensor.narrow(0, 0, rows).unwrap().contiguous().unwrap();
            }
        });
        let (model, expected) = (copy.load(), golden.expected());
        let case = golden.cases().remove(0);
        let found = model.next_logits(&[golden.prompt(&case)]).unwrap().remove(0);
        assert_close(&found, &values(&expected["logits.wide_picture"])[..rows], &case.name);
    }
    let other = candle_core::safetensors::load(ONE.folder().join("other.safetensors"), &Device::Cpu).unwrap();
    assert_padded(&authors(ONE, "pad"), &other);
}

/// Whatever the authors hold in Python or elsewhere: the checkpoint of llava-hf has it.
#[test]
fn the_authors_layout_without_its_parts_is_sent_to_the_converted_checkpoint() {
    let advice = |damage: &dyn Fn(&Copy)| {
        let copy = authors(NEXT, "anyres");
        damage(&copy);
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("llava-hf/llava-v1.6-vicuna-7b-hf"), "{error}");
        error.to_string()
    };
    assert!(advice(&|copy| copy.remove("tokenizer.json")).contains("tokenizer.json"));
    assert!(advice(&|copy| copy.remove("model.safetensors")).contains("model.safetensors"));
    let template = advice(&|copy| {
        change(copy, "tokenizer_config.json", |tokenizer| remove(tokenizer, &["chat_template"]));
    });
    assert!(template.contains("chat_template"), "{template}");
    let tower = advice(&|copy| {
        copy.change_tensors(|tensors| tensors.retain(|name, _| !name.contains("vision_tower")));
    });
    assert!(tower.contains("openai/clip-vit-large-patch14-336"), "{tower}");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let kind = |golden: Golden, pointer: &str, value: Value| golden.refused_with(pointer, value).kind();
    assert_eq!(
        kind(ONE, "/vision_config/model_type", "siglip_vision_model".into()),
        ModelErrorKind::Unsupported
    );
    assert_eq!(kind(NEXT, "/vision_feature_select_strategy", "full".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind(NEXT, "/text_config/num_hidden_layers", 1.into()), ModelErrorKind::UnknownTensor);
    assert_eq!(kind(NEXT, "/vision_config/num_hidden_layers", 4.into()), ModelErrorKind::MissingTensor);
    assert_eq!(kind(ONE, "/vision_config/image_size", 28.into()), ModelErrorKind::Malformed);
    assert_eq!(kind(NEXT, "/image_grid_pinpoints/0", json!([48, 48])), ModelErrorKind::Malformed);
    let processor = |golden: Golden, field: &str, value: Value| {
        let copy = golden.copy();
        change(&copy, "preprocessor_config.json", |processor| processor[field] = value);
        copy.refused().to_string()
    };
    assert!(processor(NEXT, "image_processor_type", "CLIPImageProcessor".into()).contains("LlavaNext"));
    assert!(processor(ONE, "image_processor_type", "SiglipImageProcessor".into()).contains("Siglip"));
    assert!(processor(ONE, "image_processor_type", "LlavaNextImageProcessor".into()).contains("LlavaNext"));
    assert!(processor(NEXT, "crop_size", 48.into()).contains("crop_size"));
    assert!(processor(NEXT, "size", json!({"shortest_edge": 12})).contains("size"));
}

/// Tiles, line ends and text come together in whatever type is computed in.
#[test]
fn half_precision_answers_are_near() {
    for golden in [ONE, NEXT] {
        let tree = FileTree::open(golden.folder().join("model")).unwrap();
        for (dtype, bound) in [(DType::BF16, 0.1), (DType::F16, 0.02)] {
            let model = load_judge(&tree, &LoadOptions { dtype, ..LoadOptions::default() }).unwrap();
            let expected = golden.expected();
            for case in golden.cases() {
                let found = model.next_logits(&[golden.prompt(&case)]).unwrap().remove(0);
                let gap = relative_gap(&found, &values(&expected[&logits_key(&case)]));
                assert!(gap > 0.0 && gap < bound, "{}, {dtype:?}: off by {gap}", case.name);
            }
        }
    }
}

/// Strips that leave no row or column of patches have those of the whole, and line ends.
#[test]
fn strips_are_answered() {
    let model = NEXT.model();
    for (width, height, tokens) in [(5000, 3, 36), (3, 5000, 42), (1, 1, 36 + 42), (24, 24, 36 + 42)] {
        let picture = Picture::new(image::RgbImage::new(width, height));
        assert_eq!(model.picture_token_count(&picture).unwrap(), tokens, "{width} x {height}");
        assert_eq!(model.image_features(&picture).unwrap().dims()[0], tokens);
        let prompt = Prompt::new(Prefix { picture: Some(picture), text: "".into() }, "a cat.");
        assert!(model.next_logits(&[prompt]).unwrap()[0].iter().all(|logit| logit.is_finite()));
    }
}
