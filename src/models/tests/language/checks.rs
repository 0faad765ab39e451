//! What holds for every family, each check on the golden files of one.

use candle_core::{DType, Device, Tensor};
use cluegate_models::language::Limits;
use cluegate_models::{FileTree, LoadOptions, ModelErrorKind, Quantisation, fingerprint};
use cluegate_perception::{
    Call, CompletionRequest, FinishReason, PerceptionErrorKind, Picture, Prefix, Prompt, VisionLanguageModel,
};
use serde_json::Value;

use crate::harness::{Golden, assert_close, logits_key, relative_gap, stretched, values};

/// A test for each check of a family without pictures; `pictures` adds those of one with them.
macro_rules! golden_tests {
    ($golden:expr, pictures) => {
        crate::checks::golden_tests!($golden);
        crate::checks::golden_tests!(@tests $golden;
            pixel_values_are_those_of_the_reference_processor
            image_features_are_those_of_the_reference
            pictures_of_one_size_are_never_mixed_up
            a_strip_of_a_picture_is_refused_or_answered
        );
    };
    ($golden:expr) => {
        crate::checks::golden_tests!(@tests $golden;
            tokens_are_those_of_the_reference
            logits_are_those_of_the_reference
            tight_bounds_change_no_logits
            a_batch_answers_as_its_members_do_alone
            a_raw_prompt_is_taken_as_it_stands
            greedy_answers_are_those_of_the_reference
            scores_are_masses_of_the_whole_softmax
            shards_load_as_well
            half_precision_files_are_converted
            other_precisions_are_close
            every_missing_tensor_is_named
            every_misshapen_tensor_is_named
            every_tensor_of_another_type_is_named
            unknown_tensors_are_named
            truncated_and_foreign_weight_files_are_refused
            weights_that_are_not_numbers_give_an_error_and_no_score
            requests_that_cannot_be_served_are_refused
            the_fingerprint_follows_every_file_that_matters
        );
    };
    (@tests $golden:expr; $($check:ident)*) => {
        $(#[test]
        fn $check() {
            crate::checks::$check($golden);
        })*
    };
}
pub(crate) use golden_tests;

pub(crate) fn tokens_are_those_of_the_reference(golden: Golden) {
    let model = golden.model();
    for case in golden.cases() {
        assert_eq!(model.prompt_tokens(&golden.prompt(&case)).unwrap(), case.tokens, "{}", case.name);
    }
}

pub(crate) fn pixel_values_are_those_of_the_reference_processor(golden: Golden) {
    let (model, expected) = (golden.model(), golden.expected());
    let smallest_std = smallest_std(golden);
    for name in golden.pictures() {
        let (found, reference) =
            (model.pixel_values(&golden.picture(&name)).unwrap(), &expected[&format!("pixels.{name}")]);
        assert_eq!(found.dims(), reference.dims(), "{name}");
        let gap = (found - reference).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        let gap = gap.to_scalar::<f32>().unwrap();
        assert!(gap * smallest_std <= 1.0 / 255.0 + 1e-6, "{name}: off by {gap}");
    }
}

/// By which differences of pixel values are multiplied to be differences of colour, from 0 to 1.
fn smallest_std(golden: Golden) -> f32 {
    let copy = golden.copy();
    let file = |name: &str| copy.path().join(name).exists().then(|| copy.json(name));
    let config = file("preprocessor_config.json")
        .or_else(|| Some(file("processor_config.json")?["image_processor"].clone()))
        .unwrap_or_default();
    let std = config["image_std"].as_array().expect("`image_std` of the golden processor");
    std.iter().map(|value| value.as_f64().unwrap() as f32).fold(1.0, f32::min)
}

pub(crate) fn image_features_are_those_of_the_reference(golden: Golden) {
    let (model, expected) = (golden.model(), golden.expected());
    for name in golden.pictures() {
        let found = model.image_features(&golden.picture(&name)).unwrap();
        let reference = &expected[&format!("features.{name}")];
        assert_eq!(found.dims(), reference.dims(), "{name}");
        assert_close(&values(&found), &values(reference), &name);
    }
}

pub(crate) fn logits_are_those_of_the_reference(golden: Golden) {
    let model = golden.model();
    golden.assert_logits(&model);
    // Again, from what is remembered by now.
    golden.assert_logits(&model);
}

/// Every question is cut into pieces, pictures included.
pub(crate) fn tight_bounds_change_no_logits(golden: Golden) {
    let tight = Limits { remembered: 2, batch_tokens: 7, batch_scores: 600, ..Limits::of(&Device::Cpu) };
    golden.assert_logits(&golden.model().with_limits(tight));
}

pub(crate) fn a_batch_answers_as_its_members_do_alone(golden: Golden) {
    let (expected, cases, prompts) = (golden.expected(), golden.cases(), golden.prompts());
    let model = golden.model();
    for (case, logits) in cases.iter().zip(model.next_logits(&prompts).unwrap()) {
        assert_close(&logits, &values(&expected[&logits_key(case)]), &case.name);
    }
    for prefix_alone in [true, false] {
        // Only those of one beginning, with and without a picture: one past, and all ends against it.
        let of_prefix = |prompt: &&Prompt| !prefix_alone || !prompt.prefix.text.is_empty();
        let prompts: Vec<Prompt> = prompts.iter().filter(of_prefix).cloned().collect();
        let together = golden.model().score(&prompts, &Call::default()).unwrap();
        for (prompt, batched) in prompts.iter().zip(together) {
            let alone =
                golden.model().score(std::slice::from_ref(prompt), &Call::default()).unwrap().remove(0);
            assert!((alone.yes - batched.yes).abs() < 1e-4 && (alone.no - batched.no).abs() < 1e-4);
            assert!(alone.yes > 0.0 && alone.no > 0.0 && alone.yes + alone.no < 1.0);
        }
    }
}

/// The rendered conversation with the family's placeholder gives the same tokens and logits.
pub(crate) fn a_raw_prompt_is_taken_as_it_stands(golden: Golden) {
    let (model, expected) = (golden.model(), golden.expected());
    for case in golden.cases() {
        let picture = case.picture.as_deref().map(|name| golden.picture(name));
        let probe = model.probe(&case.prompt, picture.as_ref()).unwrap();
        assert_eq!(probe.token_ids, case.tokens, "{}", case.name);
        assert_close(&probe.logits, &values(&expected[&logits_key(&case)]), &case.name);
    }
}

pub(crate) fn greedy_answers_are_those_of_the_reference(golden: Golden) {
    let (model, requests) = (golden.model(), golden.requests());
    // The second time every question is remembered whole.
    for _ in 0..2 {
        let answers = model.complete(&requests, &Call::default()).unwrap();
        for (case, answer) in golden.cases().iter().zip(answers) {
            assert_eq!(answer.text, case.answer_text, "{}", case.name);
            assert_eq!((answer.tokens, answer.finish), (case.answer_tokens.len(), FinishReason::Length));
        }
    }
}

/// Of every token that spells Yes or No in any case, with or without a space before it.
pub(crate) fn scores_are_masses_of_the_whole_softmax(golden: Golden) {
    let model = golden.model();
    let tokenizer = golden.tokenizer();
    let prompt = golden.prompts().remove(0);
    let score = model.score(std::slice::from_ref(&prompt), &Call::default()).unwrap().remove(0);
    let logits = model.next_logits(&[prompt]).unwrap().remove(0);
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    for (word, found) in [("yes", score.yes), ("no", score.no)] {
        let spells = |piece: &str| piece.trim_start_matches(['\u{120}', '\u{2581}']).to_lowercase() == word;
        let ids: Vec<u32> = tokenizer
            .get_vocab(true)
            .into_iter()
            .filter(|(piece, _)| spells(piece))
            .map(|(_, id)| id)
            .collect();
        assert!(ids.len() > 1, "the golden tokenizer spells {word} in several ways");
        let mass = ids.iter().map(|&id| f64::from(logits[id as usize]).exp()).sum::<f64>() / total;
        assert!((found - mass).abs() < 1e-9, "{word}: {found}, not {mass}");
    }
}

pub(crate) fn pictures_of_one_size_are_never_mixed_up(golden: Golden) {
    let model = golden.model();
    let ask = |picture: &Picture| {
        let prefix = Prefix { picture: Some(picture.clone()), text: "Look. ".into() };
        model.next_logits(&[Prompt::new(prefix, "a cat.")]).unwrap().remove(0)
    };
    let first = golden.picture(&golden.pictures()[0]);
    let mut pixels = first.pixels().clone();
    image::imageops::invert(&mut pixels);
    let second = Picture::new(pixels);
    let answers = [ask(&first), ask(&second), ask(&first)];
    assert_eq!(answers[0], answers[2]);
    assert!(relative_gap(&answers[0], &answers[1]) > 1e-3);
}

/// Extreme sizes give an answer or a refusal of the request, and nothing else.
pub(crate) fn a_strip_of_a_picture_is_refused_or_answered(golden: Golden) {
    let model = golden.model();
    for (width, height) in [(1000, 2), (2, 1000), (1, 1), (300, 7)] {
        let picture = Some(Picture::new(image::RgbImage::new(width, height)));
        let prompt = Prompt::new(Prefix { picture, text: "".into() }, "x");
        match model.score(&[prompt], &Call::default()) {
            Ok(scores) => assert!(scores[0].yes > 0.0 && scores[0].no > 0.0, "{width} x {height}"),
            Err(error) => assert_eq!(error.kind(), PerceptionErrorKind::Request, "{error}"),
        }
    }
}

pub(crate) fn shards_load_as_well(golden: Golden) {
    let copy = golden.copy();
    let tensors = copy.tensors();
    let [_, (second, names), (third, others)] = copy.shard(&tensors);
    golden.assert_logits(&copy.load());

    let named = |names: &[String]| -> Vec<(String, Tensor)> {
        names.iter().map(|name| (name.clone(), tensors[name].clone())).collect()
    };
    // A tensor in two shards.
    let twice = &others[0];
    copy.save(&second, named(&names).into_iter().chain(named(&others[..1])));
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(error.to_string().contains(twice) && error.to_string().contains("another shard"), "{error}");

    // A listed tensor that is not there.
    copy.save(&second, named(&names));
    copy.save(&third, named(&others[1..]));
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(error.to_string().contains(&others[0]), "{error}");
}

pub(crate) fn half_precision_files_are_converted(golden: Golden) {
    let copy = golden.copy();
    copy.change_tensors(|tensors| {
        for tensor in tensors.values_mut() {
            *tensor = tensor.to_dtype(DType::BF16).unwrap();
        }
    });
    let case = golden.cases().remove(0);
    let found = copy.load().next_logits(&[golden.prompt(&case)]).unwrap().remove(0);
    let gap = relative_gap(&found, &values(&golden.expected()[&logits_key(&case)]));
    assert!(gap > 0.0 && gap < 0.2, "bf16 keeps 8 bits: off by {gap}");
}

/// Whatever the family has of its own computes in 16 bits and beside quantised matrices too.
pub(crate) fn other_precisions_are_close(golden: Golden) {
    let (expected, cases, prompts) = (golden.expected(), golden.cases(), golden.prompts());
    for (dtype, quantisation, most) in [
        (DType::BF16, None, 0.1),
        (DType::F16, None, 0.02),
        (DType::F32, Some(Quantisation::Q8_0), 0.1),
        (DType::BF16, Some(Quantisation::Q8_0), 0.15),
    ] {
        let model = golden.model_with(&LoadOptions { dtype, quantisation, ..LoadOptions::default() });
        let (mut gaps, mut sizes) = (0.0, 0.0);
        for (case, found) in cases.iter().zip(model.next_logits(&prompts).unwrap()) {
            for (found, reference) in found.into_iter().zip(values(&expected[&logits_key(case)])) {
                gaps += f64::from(found - reference).powi(2);
                sizes += f64::from(reference).powi(2);
            }
        }
        let gap = (gaps / sizes).sqrt();
        // Matrices of a small model may be too narrow for blocks; 16 bits always leave a trace.
        let rounded = dtype == DType::F32 || gap > 1e-5;
        assert!(rounded && gap < most, "{dtype:?}, {quantisation:?}: off by {gap}");
    }
}

pub(crate) fn every_missing_tensor_is_named(golden: Golden) {
    let copy = golden.copy();
    let tensors = copy.tensors();
    for missing in tensors.keys() {
        copy.save("model.safetensors", tensors.clone().into_iter().filter(|(name, _)| name != missing));
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::MissingTensor, "{missing}: {error}");
        assert!(error.to_string().contains(missing), "{missing}: {error}");
    }
}

pub(crate) fn every_misshapen_tensor_is_named(golden: Golden) {
    let copy = golden.copy();
    let tensors = copy.tensors();
    for (name, tensor) in &tensors {
        let mut changed = tensors.clone();
        let other = stretched(tensor);
        changed.insert(name.clone(), other.clone());
        copy.save("model.safetensors", changed);
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::ShapeMismatch, "{name}: {error}");
        let text = error.to_string();
        let shapes = [format!("{:?}", tensor.dims()), format!("{:?}", other.dims())];
        assert!(text.contains(name) && shapes.iter().all(|shape| text.contains(shape)), "{text}");
    }
}

/// Whole numbers where the model has fractions are not its weights.
pub(crate) fn every_tensor_of_another_type_is_named(golden: Golden) {
    let copy = golden.copy();
    let tensors = copy.tensors();
    for (name, tensor) in &tensors {
        let mut changed = tensors.clone();
        changed.insert(name.clone(), tensor.to_dtype(DType::I64).unwrap());
        copy.save("model.safetensors", changed);
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::Unsupported, "{name}: {error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("I64"), "{error}");
    }
}

pub(crate) fn unknown_tensors_are_named(golden: Golden) {
    let copy = golden.copy();
    copy.change_tensors(|tensors| {
        let tensor = tensors.values().next().unwrap().clone();
        tensors.insert("model.surprise".to_owned(), tensor);
    });
    let error = copy.refused();
    assert_eq!(error.kind(), ModelErrorKind::UnknownTensor);
    assert!(error.to_string().contains("model.surprise"), "{error}");
}

pub(crate) fn truncated_and_foreign_weight_files_are_refused(golden: Golden) {
    let whole = std::fs::read(golden.folder().join("model/model.safetensors")).unwrap();
    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let pointer = b"version https://git-lfs.github.com/spec/v1\n".to_vec();
    let copy = golden.copy();
    for bytes in [
        whole[..whole.len() - 5].to_vec(),
        whole[..100].to_vec(),
        whole[..3].to_vec(),
        Vec::new(),
        huge,
        pointer,
    ] {
        std::fs::write(copy.path().join("model.safetensors"), bytes).unwrap();
        let error = copy.refused();
        assert_eq!(error.kind(), ModelErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
    copy.remove("model.safetensors");
    assert_eq!(copy.refused().kind(), ModelErrorKind::MissingFile);
}

pub(crate) fn weights_that_are_not_numbers_give_an_error_and_no_score(golden: Golden) {
    let prompt = golden.prompts().remove(0);
    let names: Vec<String> = golden.copy().tensors().into_keys().collect();
    let norms: Vec<&String> =
        names.iter().filter(|name| name.contains("norm") && name.ends_with(".weight")).collect();
    let feed_forward = |name: &&String| name.contains("mlp.up_proj") || name.contains("feed_forward.w3");
    let feed_forward = names.iter().find(feed_forward);
    for name in [norms.first(), norms.last(), feed_forward.as_ref()].into_iter().flatten() {
        let copy = golden.copy();
        copy.change_tensors(|tensors| {
            let tensor = tensors.get_mut(*name).unwrap();
            *tensor = (tensor.zeros_like().unwrap() / 0.0).unwrap();
        });
        let model = copy.load();
        let error = model.score(std::slice::from_ref(&prompt), &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::NotANumber, "{name}: {error}");
        let request = CompletionRequest { prompt: prompt.clone(), max_tokens: 2 };
        let error = model.complete(&[request], &Call::default()).unwrap_err();
        assert_eq!(error.kind(), PerceptionErrorKind::NotANumber, "{name}: {error}");
    }
}

pub(crate) fn requests_that_cannot_be_served_are_refused(golden: Golden) {
    let model = golden.model();
    let without = || Prefix { picture: None, text: "".into() };
    let kind = |prompt: Prompt| model.score(&[prompt], &Call::default()).unwrap_err().kind();
    let tokenizer = golden.tokenizer();
    for mark in tokenizer.get_added_tokens_decoder().into_values().filter(|token| token.special) {
        let text = format!("x{}y", mark.content);
        assert_eq!(kind(Prompt::new(without(), text)), PerceptionErrorKind::Request, "{}", mark.content);
    }
    assert_eq!(kind(Prompt::new(without(), "long ".repeat(2000))), PerceptionErrorKind::Request);
    assert!(model.score(&[], &Call::default()).unwrap().is_empty());
}

pub(crate) fn the_fingerprint_follows_every_file_that_matters(golden: Golden) {
    let original = golden.model();
    assert_eq!(original.fingerprint(), golden.copy().load().fingerprint());
    let copy = golden.copy();
    copy.change_tensors(|tensors| {
        let tensor = tensors.values_mut().next().unwrap();
        *tensor = (&*tensor * 1.5).unwrap();
    });
    assert_ne!(original.fingerprint(), copy.load().fingerprint());
    let copy = golden.copy();
    copy.write("chat_template.jinja", "{{ messages[0].content[0].text }}");
    assert_ne!(original.fingerprint(), copy.load().fingerprint());
    let copy = golden.copy();
    let mut config: Value = copy.json("config.json");
    config["unheard_of"] = 1.into();
    copy.write("config.json", &config.to_string());
    assert_ne!(original.fingerprint(), copy.load().fingerprint());
    let tree = FileTree::open(golden.folder().join("model")).unwrap();
    let of = |name: &str| fingerprint(&tree, &[name]).unwrap();
    assert_ne!(of("config.json"), of("tokenizer.json"));
}
