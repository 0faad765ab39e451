//! Qwen2.5-VL, on the files made by `goldens/make_qwen2_5_vl.py`.

use cluegate_models::ModelErrorKind;
use serde_json::Value;

use crate::checks::golden_tests;
use crate::harness::Golden;
use crate::qwen2_vl::nested_names;

const GOLDEN: Golden = Golden("qwen2_5_vl");

golden_tests!(GOLDEN, pictures);

#[test]
fn the_flat_configuration_and_the_nested_names_load_as_well() {
    let copy = GOLDEN.copy();
    copy.flatten_config(&["image_token_id"]);
    GOLDEN.assert_logits(&copy.load());
    copy.shard(&nested_names(copy.tensors()));
    GOLDEN.assert_logits(&copy.load());
}

/// The golden tower looks through windows in two of three layers: other windows are other features.
#[test]
fn windows_matter() {
    let copy = GOLDEN.copy();
    let mut config = copy.json("config.json");
    let picture = GOLDEN.picture("large");
    let features = || copy.load().image_features(&picture).unwrap();
    let mut seen = vec![crate::harness::values(&features())];
    for (key, value) in [("window_size", Value::from(36)), ("fullatt_block_indexes", vec![0].into())] {
        let before = std::mem::replace(&mut config["vision_config"][key], value);
        copy.write("config.json", &config.to_string());
        let other = crate::harness::values(&features());
        assert!(seen.iter().all(|one| crate::harness::relative_gap(one, &other) > 1e-3), "{key}");
        seen.push(other);
        config["vision_config"][key] = before;
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = |pointer: &str, value: Value| GOLDEN.refused_with(pointer, value).kind();
    assert_eq!(kind("/vision_config/hidden_act", "gelu".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/vision_config/out_hidden_size", 64.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/window_size", 11.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/intermediate_size", 24.into()), ModelErrorKind::ShapeMismatch);
    assert_eq!(kind("/vision_config/depth", 2.into()), ModelErrorKind::UnknownTensor);
    // It has an output layer of its own.
    assert_eq!(kind("/vision_config/in_channels", 1.into()), ModelErrorKind::Unsupported);
}
