//! Qwen3-VL, on the files made by `goldens/make_qwen3_vl.py`.

use cluegate_models::ModelErrorKind;
use serde_json::Value;

use crate::checks::golden_tests;
use crate::harness::{Golden, flatten_rope, relative_gap, values};

const GOLDEN: Golden = Golden("qwen3_vl");

golden_tests!(GOLDEN, pictures);

/// As published: the rotary parameters by their older names, the vision tower under the name of the family.
#[test]
fn the_configuration_before_transformers_5_loads_as_well() {
    let copy = GOLDEN.copy();
    let mut config = copy.json("config.json");
    flatten_rope(&mut config["text_config"]);
    let vision = config["vision_config"].as_object_mut().unwrap();
    vision.remove("rope_parameters");
    vision.insert("model_type".to_owned(), "qwen3_vl".into());
    copy.write("config.json", &config.to_string());
    GOLDEN.assert_logits(&copy.load());
}

/// Learned positions, and what the first layers of the language model get, are seen.
#[test]
fn learned_positions_and_deep_features_matter() {
    let copy = GOLDEN.copy();
    let prompt = &GOLDEN.prompts()[..1];
    let logits = GOLDEN.model().next_logits(prompt).unwrap().remove(0);
    let zeroed = |name: &str| {
        let original = copy.tensors();
        copy.change_tensors(|tensors| {
            let tensor = tensors.get_mut(name).unwrap();
            *tensor = tensor.zeros_like().unwrap();
        });
        let changed = copy.load().next_logits(prompt).unwrap().remove(0);
        copy.save("model.safetensors", original);
        changed
    };
    for name in [
        "model.visual.pos_embed.weight",
        "model.visual.deepstack_merger_list.0.linear_fc2.weight",
        "model.visual.deepstack_merger_list.1.linear_fc2.weight",
    ] {
        assert!(relative_gap(&zeroed(name), &logits) > 1e-3, "{name}");
    }
    let features = GOLDEN.model().image_features(&GOLDEN.picture("wide")).unwrap();
    assert!(values(&features).iter().any(|value| *value != 0.0));
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = |pointer: &str, value: Value| GOLDEN.refused_with(pointer, value).kind();
    let experts = GOLDEN.refused_with("/model_type", "qwen3_vl_moe");
    assert_eq!(experts.kind(), ModelErrorKind::Unsupported);
    assert!(experts.to_string().contains("qwen3_vl_moe"), "{experts}");
    assert_eq!(kind("/vision_config/num_position_embeddings", 24.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/num_position_embeddings", 16.into()), ModelErrorKind::ShapeMismatch);
    assert_eq!(kind("/vision_config/deepstack_visual_indexes", vec![0, 4].into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/deepstack_visual_indexes", vec![2, 0].into()), ModelErrorKind::Malformed);
    assert_eq!(
        kind("/vision_config/deepstack_visual_indexes", vec![0].into()),
        ModelErrorKind::UnknownTensor
    );
    assert_eq!(kind("/vision_config/hidden_act", "tanh".into()), ModelErrorKind::Unsupported);
    assert_eq!(
        kind("/text_config/rope_parameters/mrope_section", vec![4, 2, 1].into()),
        ModelErrorKind::Malformed
    );
}
