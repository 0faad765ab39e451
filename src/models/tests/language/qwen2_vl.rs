//! Qwen2-VL, on the files made by `goldens/make_qwen2_vl.py`.

use std::collections::BTreeMap;

use candle_core::Tensor;
use cluegate_models::ModelErrorKind;
use cluegate_perception::{
    Call, CompletionRequest, FinishReason, PerceptionErrorKind, Picture, Prefix, Prompt, VisionLanguageModel,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::checks::golden_tests;
use crate::harness::{Golden, assert_close, relative_gap};

pub(crate) const GOLDEN: Golden = Golden("qwen2_vl");

golden_tests!(GOLDEN, pictures);

#[test]
fn an_answer_ends_at_any_of_the_end_tokens() {
    let copy = GOLDEN.copy();
    let case = GOLDEN.cases().remove(0);
    let end = case.answer_tokens[3];
    let length = case.answer_tokens.iter().position(|&token| token == end).unwrap();
    copy.write("generation_config.json", &format!("{{\"eos_token_id\": [1, {end}]}}"));
    let request = CompletionRequest { prompt: GOLDEN.prompt(&case), max_tokens: 12 };
    let answer = copy.load().complete(&[request], &Call::default()).unwrap().remove(0);
    assert_eq!((answer.tokens, answer.finish), (length, FinishReason::Stop));
    assert!(case.answer_text.starts_with(&answer.text));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is asked together, in whatever order, cut wherever: the answers are those of one question alone.
    #[test]
    fn batches_never_change_an_answer(
        texts in prop::collection::vec("[ a-zA-Z.\u{e9}]{0,40}", 1..6),
        prefix in "[ a-z]{0,12}",
        shown in prop::option::of(prop::sample::select(vec!["wide", "tall"])),
    ) {
        let model = GOLDEN.model();
        let prefix =
            Prefix { picture: shown.map(|name| GOLDEN.picture(name)), text: prefix.as_str().into() };
        let prompts: Vec<Prompt> = texts.iter().map(|text| Prompt::new(prefix.clone(), text.as_str())).collect();
        let together = model.next_logits(&prompts).unwrap();
        for (prompt, batched) in prompts.iter().zip(together) {
            // The same question with nothing shared: all of it is the suffix, for a model that remembers nothing.
            let mut whole = prompt.clone();
            whole.suffix = format!("{}{}", prompt.prefix.text, prompt.suffix);
            whole.prefix.text = "".into();
            let alone = GOLDEN.model().next_logits(&[whole]).unwrap().remove(0);
            prop_assert!(relative_gap(&batched, &alone) < 1e-4);
        }
    }
}

/// As transformers names the parts since 4.52.
pub(crate) fn nested_names(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let nested = |(name, tensor): (String, Tensor)| match name.split_once('.') {
        Some(("visual", rest)) => (format!("model.visual.{rest}"), tensor),
        Some(("model", rest)) => (format!("model.language_model.{rest}"), tensor),
        _ => (name, tensor),
    };
    tensors.into_iter().map(nested).collect()
}

#[test]
fn nested_names_and_an_untied_head_load_as_well() {
    let copy = GOLDEN.copy();
    let mut tensors = copy.tensors();
    tensors.insert("lm_head.weight".to_owned(), tensors["model.embed_tokens.weight"].clone());
    copy.shard(&nested_names(tensors));
    GOLDEN.assert_logits(&copy.load());
    let mut config = copy.json("config.json");
    config["tie_word_embeddings"] = Value::Bool(false);
    copy.write("config.json", &config.to_string());
    GOLDEN.assert_logits(&copy.load());
}

#[test]
fn the_flat_configuration_of_older_checkpoints_loads_as_well() {
    let copy = GOLDEN.copy();
    copy.flatten_config(&["image_token_id", "vision_start_token_id", "vision_end_token_id"]);
    // Of the same age: limits by their old names, the template in a file of its own.
    let mut processor = copy.json("preprocessor_config.json");
    let size = processor.as_object_mut().unwrap().remove("size").unwrap();
    processor["min_pixels"] = size["shortest_edge"].clone();
    processor["max_pixels"] = size["longest_edge"].clone();
    copy.write("preprocessor_config.json", &processor.to_string());
    let mut tokenizer = copy.json("tokenizer_config.json");
    let template = tokenizer.as_object_mut().unwrap().remove("chat_template").unwrap();
    copy.write("tokenizer_config.json", &tokenizer.to_string());
    copy.write("chat_template.json", &serde_json::json!({ "chat_template": template }).to_string());
    GOLDEN.assert_logits(&copy.load());
    copy.remove("chat_template.json");
    copy.write("chat_template.jinja", template.as_str().unwrap());
    GOLDEN.assert_logits(&copy.load());
}

/// A template that puts the picture after the words: nothing before it is shared.
#[test]
fn words_before_the_picture_are_those_of_each_question() {
    let copy = GOLDEN.copy();
    let mut tokenizer = copy.json("tokenizer_config.json");
    let template = tokenizer["chat_template"].as_str().unwrap();
    let turned = template.replace("in message['content'] %}", "in message['content'] | reverse %}");
    assert_ne!(turned, template);
    tokenizer["chat_template"] = turned.into();
    copy.write("tokenizer_config.json", &tokenizer.to_string());
    let prefix = Prefix { picture: Some(GOLDEN.picture("wide")), text: "Look. ".into() };
    let prompts = ["a cat.", "no dog at all.", "fire?"].map(|text| Prompt::new(prefix.clone(), text));
    let together = copy.load().next_logits(&prompts).unwrap();
    for (prompt, together) in prompts.iter().zip(&together) {
        let alone = copy.load().next_logits(std::slice::from_ref(prompt)).unwrap();
        assert_close(together, &alone[0], &prompt.suffix);
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = |pointer: &str, value: Value| GOLDEN.refused_with(pointer, value).kind();
    assert_eq!(kind("/model_type", "unheard_of".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/text_config/hidden_act", "gelu".into()), ModelErrorKind::Unsupported);
    let yarn = GOLDEN.refused_with("/text_config/rope_parameters/rope_type", "yarn");
    assert!(yarn.to_string().contains("yarn"), "{yarn}");
    assert_eq!(
        kind("/text_config/rope_parameters/mrope_section", vec![2, 2, 1].into()),
        ModelErrorKind::Malformed
    );
    assert_eq!(kind("/text_config/num_key_value_heads", 3.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/hidden_size", 64.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/num_heads", 5.into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/vision_config/hidden_act", "tanh".into()), ModelErrorKind::Unsupported);
    assert_eq!(kind("/text_config/num_hidden_layers", "many".into()), ModelErrorKind::Malformed);
    assert_eq!(kind("/image_token_id", 100_000.into()), ModelErrorKind::Malformed);
    // One layer fewer leaves tensors over, one more lacks some.
    assert_eq!(kind("/text_config/num_hidden_layers", 2.into()), ModelErrorKind::UnknownTensor);
    assert_eq!(kind("/text_config/num_hidden_layers", 4.into()), ModelErrorKind::MissingTensor);
}

/// Within the window it changes nothing; longer questions are refused.
#[test]
fn a_sliding_window_bounds_the_question() {
    let copy = GOLDEN.copy();
    let mut config = copy.json("config.json");
    config["text_config"]["use_sliding_window"] = true.into();
    config["text_config"]["sliding_window"] = 60.into();
    copy.write("config.json", &config.to_string());
    let model = copy.load();
    let prompts = GOLDEN.prompts();
    assert_close(
        &model.next_logits(&prompts[..1]).unwrap()[0],
        &GOLDEN.model().next_logits(&prompts[..1]).unwrap()[0],
        "a question within the window",
    );
    let error = model.score(&prompts[1..2], &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Request, "{error}");
}

#[test]
fn a_tokenizer_without_yes_is_refused() {
    let copy = GOLDEN.copy();
    let tokenizer = std::fs::read_to_string(copy.path().join("tokenizer.json")).unwrap();
    // Other words in the place of every spelling; merges are cut off with them.
    let mut json: Value = serde_json::from_str(&tokenizer).unwrap();
    let spellings = ["Yes", "yes", "\u{120}Yes", "\u{120}yes"];
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    let gone: Vec<(String, Value)> =
        spellings.iter().filter_map(|s| Some((s.to_string(), vocabulary.remove(*s)?))).collect();
    for (word, id) in gone {
        vocabulary.insert(format!("{word}~"), id);
    }
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    merges.retain(|pair| {
        let joined = format!("{}{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
        !spellings.contains(&joined.as_str())
    });
    copy.write("tokenizer.json", &json.to_string());
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::Tokenizer);
    assert!(error.to_string().contains("a tokenizer without Yes"), "{error}");
}

#[test]
fn a_picture_longer_than_the_processor_takes_is_refused() {
    let strip = Picture::new(image::RgbImage::new(1000, 2));
    let prompt = Prompt::new(Prefix { picture: Some(strip), text: "".into() }, "x");
    let error = GOLDEN.model().score(&[prompt], &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Request);
}
