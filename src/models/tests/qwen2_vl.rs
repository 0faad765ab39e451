//! The port of Qwen2-VL against Hugging Face transformers, on the files made by `goldens/make_qwen2_vl.py`.
//!
//! Tolerances: 1e-4 relative for features and logits in f32, 1/255 for pixel values, equal tokens for answers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, LanguageModel, LoadOptions, ModelErrorKind, fingerprint, load_judge};
use cluegate_perception::{
    Call, CompletionRequest, FinishReason, PerceptionErrorKind, Picture, Prefix, Prompt, Reply,
    VisionLanguageModel,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/qwen2_vl")
}

fn load(folder: &Path) -> Result<LanguageModel, cluegate_models::ModelError> {
    load_judge(&FileTree::open(folder)?, &LoadOptions::default())
}

fn picture(name: &str) -> Picture {
    Picture::new(image::open(goldens().join(format!("{name}.png"))).unwrap().to_rgb8())
}

#[derive(Deserialize)]
struct Case {
    name: String,
    picture: Option<String>,
    turns: Vec<(String, String)>,
    answer_start: String,
    #[serde(default)]
    prefix: String,
    answer_tokens: Vec<u32>,
    answer_text: String,
}

impl Case {
    fn prompt(&self) -> Prompt {
        let prefix =
            Prefix { picture: self.picture.as_deref().map(picture), text: self.prefix.as_str().into() };
        let mut prompt = Prompt::new(prefix, self.turns[0].0.strip_prefix(&self.prefix).unwrap());
        for pair in self.turns.windows(2) {
            prompt.turns.push(Reply { assistant: pair[0].1.clone(), user: pair[1].0.clone() });
        }
        prompt.answer_start = self.answer_start.clone();
        prompt
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(goldens().join("expected.json")).unwrap()).unwrap()
}

fn expected() -> BTreeMap<String, Tensor> {
    let path = goldens().join("expected.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

/// Largest difference, relative to the largest expected magnitude.
fn relative_gap(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn pixel_values_are_those_of_the_reference_processor() {
    let model = load(&goldens().join("model")).unwrap();
    let expected = expected();
    let smallest_std = 0.261_302_6_f32;
    for name in ["wide", "tall", "large"] {
        let patches = model.pixel_values(&picture(name)).unwrap();
        let reference = &expected[&format!("pixels.{name}")];
        let (count, _) = reference.dims2().unwrap();
        assert_eq!(patches.dim(0).unwrap(), count, "{name}");
        let patches = values(&patches);
        // The reference repeats a still picture as two frames: channel, frame, row, column.
        let frames = reference.reshape((count, 3, 2, 36)).unwrap();
        for frame in 0..2 {
            let frame = values(&frames.narrow(2, frame, 1).unwrap().contiguous().unwrap());
            let gap = patches.iter().zip(&frame).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(gap * smallest_std <= 1.0 / 255.0 + 1e-6, "{name}: off by {gap}");
        }
    }
}

#[test]
fn image_features_are_those_of_the_reference() {
    let model = load(&goldens().join("model")).unwrap();
    let expected = expected();
    for name in ["wide", "tall", "large"] {
        let gap = relative_gap(
            &values(&model.image_features(&picture(name)).unwrap()),
            &values(&expected[&format!("features.{name}")]),
        );
        assert!(gap < 1e-4, "{name}: off by {gap}");
    }
}

fn assert_logits(model: &LanguageModel) {
    let expected = expected();
    for case in cases() {
        let found = model.next_logits(&[case.prompt()]).unwrap().remove(0);
        let gap =
            relative_gap(&found, &values(&expected[&format!("logits.{}", case.name.replace(' ', "_"))]));
        assert!(gap < 1e-4, "{}: off by {gap}", case.name);
    }
}

#[test]
fn logits_are_those_of_the_reference() {
    let model = load(&goldens().join("model")).unwrap();
    assert_logits(&model);
    // Again, from what is remembered by now.
    assert_logits(&model);
}

#[test]
fn greedy_answers_are_those_of_the_reference() {
    let model = load(&goldens().join("model")).unwrap();
    let cases = cases();
    let requests: Vec<_> = cases
        .iter()
        .map(|case| CompletionRequest { prompt: case.prompt(), max_tokens: case.answer_tokens.len() })
        .collect();
    // The second time every question is remembered whole.
    for _ in 0..2 {
        for (case, answer) in cases.iter().zip(model.complete(&requests, &Call::default()).unwrap()) {
            assert_eq!(answer.text, case.answer_text, "{}", case.name);
            assert_eq!((answer.tokens, answer.finish), (case.answer_tokens.len(), FinishReason::Length));
        }
    }
}

#[test]
fn an_answer_ends_at_any_of_the_end_tokens() {
    let copy = Copy::new();
    let case = cases().remove(0);
    let end = case.answer_tokens[3];
    let length = case.answer_tokens.iter().position(|&token| token == end).unwrap();
    copy.write("generation_config.json", &format!("{{\"eos_token_id\": [1, {end}]}}"));
    let model = load(copy.path()).unwrap();
    let request = CompletionRequest { prompt: case.prompt(), max_tokens: 12 };
    let answer = model.complete(&[request], &Call::default()).unwrap().remove(0);
    assert_eq!((answer.tokens, answer.finish), (length, FinishReason::Stop));
    assert!(case.answer_text.starts_with(&answer.text));
}

#[test]
fn a_batch_answers_as_its_members_do_alone() {
    let expected = expected();
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.prefix.is_empty()).collect();
    let prompts: Vec<Prompt> = cases.iter().map(Case::prompt).collect();
    let model = load(&goldens().join("model")).unwrap();
    for (case, logits) in cases.iter().zip(model.next_logits(&prompts).unwrap()) {
        let gap =
            relative_gap(&logits, &values(&expected[&format!("logits.{}", case.name.replace(' ', "_"))]));
        assert!(gap < 1e-4, "{}: off by {gap}", case.name);
    }
    let together = model.score(&prompts, &Call::default()).unwrap();
    for (prompt, batched) in prompts.iter().zip(together) {
        let alone = load(&goldens().join("model"))
            .unwrap()
            .score(std::slice::from_ref(prompt), &Call::default())
            .unwrap()[0];
        assert!((alone.yes - batched.yes).abs() < 1e-4 && (alone.no - batched.no).abs() < 1e-4);
        assert!(alone.yes > 0.0 && alone.no > 0.0 && alone.yes + alone.no < 1.0);
    }
}

#[test]
fn scores_are_masses_of_the_whole_softmax_over_every_spelling() {
    let model = load(&goldens().join("model")).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(goldens().join("model/tokenizer.json")).unwrap();
    let mass = |logits: &[f32], words: &[&str]| {
        let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let ids: Vec<u32> = words.iter().filter_map(|word| tokenizer.token_to_id(word)).collect();
        assert!(ids.len() > 1, "the golden tokenizer spells {words:?} in several ways");
        ids.iter().map(|&id| f64::from(logits[id as usize]).exp()).sum::<f64>() / total
    };
    let prompt = cases()[0].prompt();
    let score = model.score(std::slice::from_ref(&prompt), &Call::default()).unwrap()[0];
    let logits = model.next_logits(&[prompt]).unwrap().remove(0);
    assert!((score.yes - mass(&logits, &["Yes", "yes", "\u{120}Yes", "\u{120}yes"])).abs() < 1e-9);
    assert!((score.no - mass(&logits, &["No", "no", "\u{120}No", "\u{120}no"])).abs() < 1e-9);
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
        let model = load(&goldens().join("model")).unwrap();
        let prefix = Prefix { picture: shown.map(picture), text: prefix.as_str().into() };
        let prompts: Vec<Prompt> = texts.iter().map(|text| Prompt::new(prefix.clone(), text.as_str())).collect();
        let together = model.next_logits(&prompts).unwrap();
        for (prompt, batched) in prompts.iter().zip(together) {
            // The same question with nothing shared: all of it is the suffix, for a model that remembers nothing.
            let mut whole = prompt.clone();
            whole.suffix = format!("{}{}", prompt.prefix.text, prompt.suffix);
            whole.prefix.text = "".into();
            let alone = load(&goldens().join("model")).unwrap().next_logits(&[whole]).unwrap().remove(0);
            prop_assert!(relative_gap(&batched, &alone) < 1e-4);
        }
    }
}

#[test]
fn pictures_of_one_size_are_never_mixed_up() {
    let model = load(&goldens().join("model")).unwrap();
    let ask = |model: &LanguageModel, picture: &Picture| {
        let prefix = Prefix { picture: Some(picture.clone()), text: "Look. ".into() };
        model.next_logits(&[Prompt::new(prefix, "a cat.")]).unwrap().remove(0)
    };
    let first = picture("wide");
    let mut pixels = first.pixels().clone();
    image::imageops::invert(&mut pixels);
    let second = Picture::new(pixels);
    let answers = [ask(&model, &first), ask(&model, &second), ask(&model, &first)];
    assert_eq!(answers[0], answers[2]);
    assert!(relative_gap(&answers[0], &answers[1]) > 1e-3);
    assert_eq!(answers[1], ask(&load(&goldens().join("model")).unwrap(), &second));
}

/// A copy of the golden model, to be changed.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(goldens().join("model")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path().join(name)).unwrap()).unwrap()
    }

    fn tensors(&self) -> BTreeMap<String, Tensor> {
        let path = self.path().join("model.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
    }

    fn save(&self, name: &str, tensors: impl IntoIterator<Item = (String, Tensor)>) {
        candle_core::safetensors::save(&tensors.into_iter().collect(), self.path().join(name)).unwrap();
    }

    fn change_tensors(&self, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
        let mut tensors = self.tensors();
        change(&mut tensors);
        self.save("model.safetensors", tensors);
    }

    fn refused(&self) -> cluegate_models::ModelError {
        load(self.path()).expect_err("a refusal")
    }
}

#[test]
fn shards_and_nested_names_and_an_untied_head_load_as_well() {
    let copy = Copy::new();
    let mut tensors = copy.tensors();
    tensors.insert("lm_head.weight".to_owned(), tensors["model.embed_tokens.weight"].clone());
    let renamed: BTreeMap<String, Tensor> = tensors
        .into_iter()
        .map(|(name, tensor)| match name.split_once('.') {
            Some(("visual", rest)) => (format!("model.visual.{rest}"), tensor),
            Some(("model", rest)) => (format!("model.language_model.{rest}"), tensor),
            _ => (name, tensor),
        })
        .collect();
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    let names: Vec<String> = renamed.keys().cloned().collect();
    let shard_of = |name: &String| names.iter().position(|n| n == name).unwrap() % 3 + 1;
    let file = |shard: usize| format!("model-{shard:05}-of-00003.safetensors");
    for shard in 1..=3 {
        let part = renamed.iter().filter(|(name, _)| shard_of(name) == shard);
        copy.save(&file(shard), part.map(|(name, tensor)| (name.clone(), tensor.clone())));
    }
    let map: BTreeMap<&String, String> = names.iter().map(|name| (name, file(shard_of(name)))).collect();
    copy.write(
        "model.safetensors.index.json",
        &serde_json::json!({"metadata": {}, "weight_map": map}).to_string(),
    );
    let mut config = copy.json("config.json");
    config["tie_word_embeddings"] = Value::Bool(false);
    copy.write("config.json", &config.to_string());
    assert_logits(&load(copy.path()).unwrap());

    // A tensor in two shards.
    let (name, tensor) = renamed.iter().find(|(name, _)| shard_of(name) == 1).unwrap();
    let part = renamed.iter().filter(|(name, _)| shard_of(name) == 2);
    let part: BTreeMap<String, Tensor> = part.map(|(n, t)| (n.clone(), t.clone())).collect();
    copy.save(&file(2), part.clone().into_iter().chain([(name.clone(), tensor.clone())]));
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(error.to_string().contains(name) && error.to_string().contains("another shard"), "{error}");

    // A listed tensor that is not there.
    let missing = part.keys().next().unwrap().clone();
    copy.save(&file(2), part.into_iter().skip(1));
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(error.to_string().contains(&missing), "{error}");
}

#[test]
fn the_flat_configuration_of_older_checkpoints_loads_as_well() {
    let copy = Copy::new();
    let nested = copy.json("config.json");
    let mut flat = nested["text_config"].clone();
    for key in ["image_token_id", "vision_start_token_id", "vision_end_token_id", "tie_word_embeddings"] {
        flat[key] = nested[key].clone();
    }
    let rope = flat.as_object_mut().unwrap().remove("rope_parameters").unwrap();
    flat["rope_theta"] = rope["rope_theta"].clone();
    flat["rope_scaling"] = serde_json::json!({"type": "mrope", "mrope_section": rope["mrope_section"]});
    flat["vision_config"] = nested["vision_config"].clone();
    flat["model_type"] = "qwen2_vl".into();
    copy.write("config.json", &flat.to_string());
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
    assert_logits(&load(copy.path()).unwrap());
    std::fs::remove_file(copy.path().join("chat_template.json")).unwrap();
    copy.write("chat_template.jinja", template.as_str().unwrap());
    assert_logits(&load(copy.path()).unwrap());
}

#[test]
fn half_precision_files_are_converted() {
    let copy = Copy::new();
    copy.change_tensors(|tensors| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::BF16).unwrap();
        }
    });
    let model = load(copy.path()).unwrap();
    let case = cases().remove(0);
    let found = model.next_logits(&[case.prompt()]).unwrap().remove(0);
    let gap = relative_gap(&found, &values(&expected()["logits.wide_picture"]));
    assert!(gap > 0.0 && gap < 0.1, "bf16 keeps 8 bits: off by {gap}");
}

#[test]
fn missing_misshapen_and_unknown_tensors_are_named() {
    const NAME: &str = "model.layers.1.mlp.down_proj.weight";
    let copy = Copy::new();
    copy.change_tensors(|tensors| drop(tensors.remove(NAME)));
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::MissingTensor);
    assert!(error.to_string().contains(NAME) && error.to_string().contains("[32, 40]"), "{error}");

    let copy = Copy::new();
    copy.change_tensors(|tensors| {
        *tensors.get_mut(NAME).unwrap() = Tensor::zeros((32, 41), DType::F32, &Device::Cpu).unwrap()
    });
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::ShapeMismatch);
    let text = error.to_string();
    assert!(text.contains(NAME) && text.contains("[32, 40]") && text.contains("[32, 41]"), "{text}");

    let copy = Copy::new();
    copy.change_tensors(|tensors| {
        drop(tensors.insert("model.surprise".to_owned(), tensors["model.norm.weight"].clone()))
    });
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::UnknownTensor);
    assert!(error.to_string().contains("model.surprise"), "{error}");
}

#[test]
fn truncated_and_foreign_weight_files_are_refused() {
    let whole = std::fs::read(goldens().join("model/model.safetensors")).unwrap();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let pointer = b"version https://git-lfs.github.com/spec/v1\n".to_vec();
    for bytes in [
        whole[..whole.len() - 5].to_vec(),
        whole[..100].to_vec(),
        whole[..3].to_vec(),
        Vec::new(),
        huge,
        pointer,
    ] {
        let copy = Copy::new();
        std::fs::write(copy.path().join("model.safetensors"), bytes).unwrap();
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    let copy = Copy::new();
    std::fs::remove_file(copy.path().join("model.safetensors")).unwrap();
    assert_eq!(copy.refused().kind(), ModelErrorKind::MissingFile);
}

/// A template that puts the picture after the words: nothing before it is shared.
#[test]
fn words_before_the_picture_are_those_of_each_question() {
    let copy = Copy::new();
    let mut tokenizer = copy.json("tokenizer_config.json");
    let template = tokenizer["chat_template"].as_str().unwrap();
    let turned = template.replace("in message['content'] %}", "in message['content'] | reverse %}");
    assert_ne!(turned, template);
    tokenizer["chat_template"] = turned.into();
    copy.write("tokenizer_config.json", &tokenizer.to_string());
    let prefix = Prefix { picture: Some(picture("wide")), text: "Look. ".into() };
    let prompts = ["a cat.", "no dog at all.", "fire?"].map(|text| Prompt::new(prefix.clone(), text));
    let together = load(copy.path()).unwrap().next_logits(&prompts).unwrap();
    for (prompt, together) in prompts.iter().zip(&together) {
        let alone = load(copy.path()).unwrap().next_logits(std::slice::from_ref(prompt)).unwrap();
        assert!(relative_gap(together, &alone[0]) < 1e-4, "{}", prompt.suffix);
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let change = |pointer: &str, value: Value| {
        let copy = Copy::new();
        let mut config = copy.json("config.json");
        *config.pointer_mut(pointer).expect(pointer) = value;
        copy.write("config.json", &config.to_string());
        copy.refused()
    };
    assert_eq!(change("/model_type", "llava".into()).kind(), ModelErrorKind::Unsupported);
    assert_eq!(change("/text_config/hidden_act", "gelu".into()).kind(), ModelErrorKind::Unsupported);
    let yarn = change("/text_config/rope_parameters/rope_type", "yarn".into());
    assert!(yarn.to_string().contains("yarn"), "{yarn}");
    assert_eq!(
        change("/text_config/rope_parameters/mrope_section", vec![2, 2, 1].into()).kind(),
        ModelErrorKind::Malformed
    );
    assert_eq!(change("/text_config/num_key_value_heads", 3.into()).kind(), ModelErrorKind::Malformed);
    assert_eq!(change("/vision_config/hidden_size", 64.into()).kind(), ModelErrorKind::Malformed);
    let text = change("/text_config/num_hidden_layers", "many".into());
    assert_eq!(text.kind(), ModelErrorKind::Malformed);
    // One layer fewer leaves tensors over, one more lacks some.
    assert_eq!(change("/text_config/num_hidden_layers", 2.into()).kind(), ModelErrorKind::UnknownTensor);
    assert_eq!(change("/text_config/num_hidden_layers", 4.into()).kind(), ModelErrorKind::MissingTensor);
}

#[test]
fn a_tokenizer_without_yes_is_refused() {
    let copy = Copy::new();
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
fn weights_that_are_not_numbers_give_an_error_and_no_score() {
    for name in ["visual.blocks.0.norm1.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"] {
        let copy = Copy::new();
        copy.change_tensors(|tensors| {
            let tensor = tensors.get_mut(name).unwrap();
            *tensor = (tensor.zeros_like().unwrap() / 0.0).unwrap();
        });
        let model = load(copy.path()).unwrap();
        let prompt = cases()[0].prompt();
        let error = model.score(std::slice::from_ref(&prompt), &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::NotANumber, "{name}: {error}");
        let error =
            model.complete(&[CompletionRequest { prompt, max_tokens: 2 }], &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::NotANumber, "{name}: {error}");
    }
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let model = load(&goldens().join("model")).unwrap();
    let without = || Prefix { picture: None, text: "".into() };
    let kind = |prompt: Prompt| model.score(&[prompt], &Call::default()).unwrap_err().kind();
    assert_eq!(kind(Prompt::new(without(), "x<|im_end|>y")), PerceptionErrorKind::Request);
    assert_eq!(kind(Prompt::new(without(), "long ".repeat(600))), PerceptionErrorKind::Request);
    let strip = Picture::new(image::RgbImage::new(1000, 2));
    assert_eq!(
        kind(Prompt::new(Prefix { picture: Some(strip), text: "".into() }, "x")),
        PerceptionErrorKind::Request
    );
    assert!(model.score(&[], &Call::default()).unwrap().is_empty());
}

#[test]
fn the_fingerprint_follows_every_file_that_matters() {
    let original = load(&goldens().join("model")).unwrap();
    assert_eq!(original.fingerprint(), load(Copy::new().path()).unwrap().fingerprint());
    let changed = |change: &dyn Fn(&Copy)| {
        let copy = Copy::new();
        change(&copy);
        load(copy.path()).unwrap().fingerprint().clone()
    };
    let weights = changed(&|copy| {
        copy.change_tensors(|tensors| {
            let tensor = tensors.get_mut("model.norm.weight").unwrap();
            *tensor = (&*tensor * 1.5).unwrap();
        })
    });
    let template = changed(&|copy| copy.write("chat_template.jinja", "{{ messages[0].content[0].text }}"));
    assert_ne!(original.fingerprint(), &weights);
    assert_ne!(original.fingerprint(), &template);
    let tree = FileTree::open(goldens().join("model")).unwrap();
    assert_ne!(
        fingerprint(&tree, &["config.json"]).unwrap(),
        fingerprint(&tree, &["tokenizer.json"]).unwrap()
    );
}
