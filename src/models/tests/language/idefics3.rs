//! Idefics3 and SmolVLM, on the files made by `goldens/make_idefics3.py`.

use candle_core::{DType, Tensor};
use cluegate_models::{FileTree, LoadOptions, ModelErrorKind, load_judge};
use cluegate_perception::Picture;
use serde_json::{Value, json};

use crate::harness::{Copy, Golden, assert_close, flatten_rope, logits_key, relative_gap, values};

const IDEFICS3: Golden = Golden("idefics3");
const SMOLVLM: Golden = Golden("smolvlm");

mod text_marks {
    use super::IDEFICS3;
    crate::checks::golden_tests!(IDEFICS3, pictures);
}

mod token_marks {
    use super::SMOLVLM;
    crate::checks::golden_tests!(SMOLVLM, pictures);
}

/// Changes a JSON file of a copy.
fn change(copy: &Copy, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value = copy.json(file);
    change(&mut value);
    copy.write(file, &value.to_string());
}

#[test]
fn the_layout_before_version_5_loads_as_well() {
    for golden in [IDEFICS3, SMOLVLM] {
        let copy = golden.copy();
        change(&copy, "config.json", |config| {
            let text = &mut config["text_config"];
            flatten_rope(text);
            // What published files leave out, and what they have beside it.
            text.as_object_mut().unwrap().retain(|key, _| key != "model_type" && key != "head_dim");
            text["qk_layer_norms"] = false.into();
            text["perceiver_config"] = json!({ "hidden_act": "silu" });
            config["vision_config"]
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "hidden_act" && key != "model_type");
            config["vision_config"]["use_base_siglip"] = true.into();
        });
        golden.assert_logits(&copy.load());
    }
}

#[test]
fn a_processor_saved_whole_is_read_too() {
    let copy = IDEFICS3.copy();
    let part = copy.json("preprocessor_config.json");
    copy.remove("preprocessor_config.json");
    copy.write("processor_config.json", &json!({ "image_seq_len": 4, "image_processor": part }).to_string());
    IDEFICS3.assert_logits(&copy.load());
}

#[test]
fn a_tied_head_may_be_stored_twice() {
    let copy = SMOLVLM.copy();
    copy.change_tensors(|tensors| {
        let table = tensors["model.text_model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".to_owned(), table);
    });
    SMOLVLM.assert_logits(&copy.load());
    change(&copy, "config.json", |config| config["tie_word_embeddings"] = false.into());
    SMOLVLM.assert_logits(&copy.load());
    // The text model's own field says nothing about it.
    let copy = IDEFICS3.copy();
    change(&copy, "config.json", |config| config["text_config"]["tie_word_embeddings"] = true.into());
    IDEFICS3.assert_logits(&copy.load());
}

#[test]
fn pictures_that_are_not_cut_are_one_tile() {
    let copy = SMOLVLM.copy();
    change(&copy, "preprocessor_config.json", |config| config["do_image_splitting"] = false.into());
    let (model, expected, case) = (copy.load(), SMOLVLM.expected(), SMOLVLM.cases().remove(0));
    let picture = SMOLVLM.picture(case.picture.as_deref().unwrap());
    let (pixels, reference) = (model.pixel_values(&picture).unwrap(), &expected["whole.pixels"]);
    assert_eq!(pixels.dims(), reference.dims());
    assert_close(&values(&pixels), &values(reference), "pixels");
    assert_close(
        &values(&model.image_features(&picture).unwrap()),
        &values(&expected["whole.features"]),
        "features",
    );
    let tokens: Vec<u32> =
        expected["whole.tokens"].to_vec1::<i64>().unwrap().into_iter().map(|id| id as u32).collect();
    assert_eq!(model.prompt_tokens(&SMOLVLM.prompt(&case)).unwrap(), tokens);
    let logits = model.next_logits(&[SMOLVLM.prompt(&case)]).unwrap().remove(0);
    assert_close(&logits, &values(&expected["whole.logits"]), "logits");
    // A picture that fits one tile becomes the same tokens when pictures are cut.
    change(&copy, "preprocessor_config.json", |config| {
        config["do_image_splitting"] = true.into();
        config["size"] = json!({ "longest_edge": 38 });
    });
    assert_eq!(copy.load().prompt_tokens(&SMOLVLM.prompt(&case)).unwrap(), tokens);
}

#[test]
fn a_narrow_picture_is_resized_in_the_references_order() {
    for golden in [IDEFICS3, SMOLVLM] {
        let (model, expected, picture) = (golden.model(), golden.expected(), golden.picture("narrow"));
        assert_close(
            &values(&model.pixel_values(&picture).unwrap()),
            &values(&expected["pixels.narrow"]),
            "pixels",
        );
        assert_close(
            &values(&model.image_features(&picture).unwrap()),
            &values(&expected["features.narrow"]),
            "features",
        );
    }
}

#[test]
fn half_precision_is_near() {
    for golden in [IDEFICS3, SMOLVLM] {
        let (expected, case) = (golden.expected(), golden.cases().remove(0));
        for (dtype, most) in [(DType::BF16, 0.1), (DType::F16, 0.01)] {
            let options = LoadOptions { dtype, ..LoadOptions::default() };
            let tree = FileTree::open(golden.folder().join("model")).unwrap();
            let model = load_judge(&tree, &options).unwrap();
            let logits = model.next_logits(&[golden.prompt(&case)]).unwrap().remove(0);
            let gap = relative_gap(&logits, &values(&expected[&logits_key(&case)]));
            assert!(gap > 0.0 && gap < most, "{golden:?} in {dtype:?}: off by {gap}");
        }
    }
}

#[test]
fn every_tile_matters() {
    let model = IDEFICS3.model();
    let picture = IDEFICS3.picture("large");
    let before = model.image_features(&picture).unwrap();
    let (width, height) = (picture.width(), picture.height());
    let mut pixels = picture.pixels().clone();
    // The last pixels of the last of nine tiles, and of the whole.
    for pixel in [(width - 1, height - 1), (width - 2, height - 1), (width - 1, height - 2)] {
        pixels.get_pixel_mut(pixel.0, pixel.1).0 = [255, 0, 255];
    }
    let after = model.image_features(&Picture::new(pixels)).unwrap();
    for tile in 0..10 {
        let rows =
            |features: &Tensor| values(&features.narrow(0, tile * 4, 4).unwrap().contiguous().unwrap());
        let gap = relative_gap(&rows(&after), &rows(&before));
        assert_eq!(gap > 1e-3, tile >= 8, "tile {tile}: {gap}");
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = |pointer: &str, value: Value| IDEFICS3.refused_with(pointer, value).kind();
    assert_eq!(kind("/model_type", "idefics2".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/scale_factor", 3.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/hidden_act", "relu".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/num_channels", 1.into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/image_size", 30.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/num_hidden_layers", 1.into()), ModelErrorKind::UnknownTensor);
    assert_eq!(kind("/text_config/model_type", "mamba".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/text_config/vocab_size", 300.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/image_token_id", 3.into()), ModelErrorKind::Tokenizer);
    let refused = |file: &str, key: &str, value: Value| {
        let copy = IDEFICS3.copy();
        change(&copy, file, |config| config[key] = value);
        let error = copy.refused();
        assert!(error.to_string().contains(file) && error.to_string().contains(key), "{error}");
        error.kind()
    };
    let file = "preprocessor_config.json";
    assert_eq!(refused(file, "do_resize", false.into()), ModelErrorKind::Unsupported);
    assert_eq!(refused(file, "resample", 9.into()), ModelErrorKind::Unsupported);
    assert_eq!(refused(file, "size", json!({ "shortest_edge": 72 })), ModelErrorKind::Unsupported);
    assert_eq!(refused(file, "max_image_size", json!({ "longest_edge": 36 })), ModelErrorKind::Malformed);
    assert_eq!(refused(file, "image_std", json!([0.5, 0.0, 0.5])), ModelErrorKind::Malformed);
    assert_eq!(refused("processor_config.json", "image_seq_len", 169.into()), ModelErrorKind::Malformed);
}
