//! Weights in fewer bits: AWQ checkpoints against Hugging Face transformers with the same weights unpacked
//! (`goldens/make_awq.py`), and weights that are quantised while they are loaded against those that are not.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_models::{
    FileTree, LanguageModel, LoadOptions, ModelError, ModelErrorKind, Quantisation, load_judge,
};
use cluegate_perception::{Call, CompletionRequest, Picture, Prefix, Prompt, Reply, VisionLanguageModel};
use serde::Deserialize;
use serde_json::Value;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/awq")
}

fn load(
    folder: &Path,
    dtype: DType,
    quantisation: Option<Quantisation>,
) -> Result<LanguageModel, ModelError> {
    load_judge(&FileTree::open(folder)?, &LoadOptions { dtype, quantisation, ..LoadOptions::default() })
}

#[derive(Deserialize)]
struct Case {
    name: String,
    picture: Option<String>,
    turns: Vec<(String, String)>,
    answer_start: String,
    #[serde(default)]
    prefix: String,
    answer_text: String,
}

impl Case {
    fn prompt(&self) -> Prompt {
        let picture = |name: &String| {
            Picture::new(image::open(goldens().join(format!("{name}.png"))).unwrap().to_rgb8())
        };
        let prefix =
            Prefix { picture: self.picture.as_ref().map(picture), text: self.prefix.as_str().into() };
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

/// The root of the mean square of all logits' differences from the reference, in parts of that of the logits.
fn distance_to_reference(model: &LanguageModel) -> f64 {
    let expected =
        candle_core::safetensors::load(goldens().join("expected.safetensors"), &Device::Cpu).unwrap();
    let cases = cases();
    let prompts: Vec<Prompt> = cases.iter().map(Case::prompt).collect();
    let (mut gaps, mut sizes) = (0.0, 0.0);
    for (case, found) in cases.iter().zip(model.next_logits(&prompts).unwrap()) {
        let reference = &expected[&format!("logits.{}", case.name.replace(' ', "_"))];
        for (found, reference) in found.into_iter().zip(reference.to_vec1::<f32>().unwrap()) {
            gaps += f64::from(found - reference).powi(2);
            sizes += f64::from(reference).powi(2);
        }
    }
    (gaps / sizes).sqrt()
}

/// Two runs of one precision that round elsewhere differ by about as much as each differs from f32.
#[test]
fn sixteen_bits_are_as_close_to_f32_as_those_of_the_reference() {
    let of_reference: HashMap<String, f64> =
        serde_json::from_slice(&std::fs::read(goldens().join("halves.json")).unwrap()).unwrap();
    for (name, dtype) in [("bf16", DType::BF16), ("f16", DType::F16)] {
        let found = distance_to_reference(&load(&goldens().join("model"), dtype, None).unwrap());
        let allowed = of_reference[&format!("{name}.sdpa")].min(of_reference[&format!("{name}.eager")]);
        assert!(found > 0.0 && found <= allowed, "{name}: off by {found}, the reference by {allowed}");
    }
}

/// The largest difference of any logit from the reference, in parts of the largest one of its case.
fn gap_to_reference(model: &LanguageModel) -> f32 {
    let expected =
        candle_core::safetensors::load(goldens().join("expected.safetensors"), &Device::Cpu).unwrap();
    let cases = cases();
    let prompts: Vec<Prompt> = cases.iter().map(Case::prompt).collect();
    let mut largest = 0f32;
    for (case, found) in cases.iter().zip(model.next_logits(&prompts).unwrap()) {
        let reference = &expected[&format!("logits.{}", case.name.replace(' ', "_"))];
        let reference = reference.to_vec1::<f32>().unwrap();
        assert_eq!(found.len(), reference.len());
        let scale = reference.iter().fold(0f32, |most, value| most.max(value.abs()));
        let gap = found.iter().zip(&reference).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        largest = largest.max(gap / scale);
    }
    largest
}

/// A checkpoint to spoil.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(goldens().join("model")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        Self(folder)
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
        let path = self.0.path().join("model.safetensors");
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, &path).unwrap();
    }

    fn refused(&self, dtype: DType, quantisation: Option<Quantisation>) -> ModelError {
        load(self.0.path(), dtype, quantisation).expect_err("the checkpoint is spoilt")
    }
}

#[test]
fn unpacked_awq_weights_answer_as_the_reference() {
    let model = load(&goldens().join("model"), DType::F32, None).unwrap();
    let gap = gap_to_reference(&model);
    assert!(gap < 1e-4, "off by {gap}");
    let cases = cases();
    let requests: Vec<_> =
        cases.iter().map(|case| CompletionRequest { prompt: case.prompt(), max_tokens: 12 }).collect();
    for (case, answer) in cases.iter().zip(model.complete(&requests, &Call::default()).unwrap()) {
        assert_eq!(answer.text, case.answer_text, "{}", case.name);
    }
}

/// Only the products of scales and zeros are rounded, the output layer to 8 bits, and the one map that was left dense.
#[test]
fn awq_weights_stay_in_four_bits_if_any_are_to_be_quantised() {
    let whole = load(&goldens().join("model"), DType::F32, None).unwrap();
    let kept = load(&goldens().join("model"), DType::F32, Some(Quantisation::Q8_0)).unwrap();
    let gap = gap_to_reference(&kept);
    assert!(gap > 0.0 && gap < 0.03, "off by {gap}");
    assert!(kept.weight_bytes() * 2 < whole.weight_bytes());
    assert_ne!(kept.fingerprint(), whole.fingerprint());
}

#[test]
fn fewer_bits_are_further_off_and_smaller() {
    let dense = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mini/suite/judge");
    let prompt = |statement: &str| {
        let picture = Picture::new(image::open(goldens().join("large.png")).unwrap().to_rgb8());
        Prompt::new(Prefix { picture: Some(picture), text: "".into() }, statement)
    };
    let prompts = ["a cat.", "a person is holding a knife.", "the body of an animal is on fire."].map(prompt);
    let logits = |dtype, quantisation| {
        let model = load(&dense, dtype, quantisation).unwrap();
        (model.next_logits(&prompts).unwrap(), model.weight_bytes())
    };
    let (expected, whole) = logits(DType::F32, None);
    let mut last = (0.0, whole);
    for (dtype, quantisation, most) in [
        (DType::F16, None, 0.01),
        (DType::BF16, None, 0.05),
        (DType::F32, Some(Quantisation::Q8_0), 0.05),
        (DType::F32, Some(Quantisation::Q4K), 0.5),
    ] {
        let (found, bytes) = logits(dtype, quantisation);
        let scale = expected.iter().flatten().fold(0f32, |most, value| most.max(value.abs()));
        let pairs = found.iter().flatten().zip(expected.iter().flatten());
        let gap = pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs())) / scale;
        println!("{dtype:?} {quantisation:?}: {gap} with {bytes} bytes");
        assert!(gap > 0.0 && gap < most, "{dtype:?} {quantisation:?}: off by {gap}");
        assert!(bytes < whole);
        last = (gap, bytes);
    }
    assert!(last.1 * 4 < whole);
}

#[test]
fn spoilt_awq_tensors_are_named() {
    let whole =
        candle_core::safetensors::load(goldens().join("model/model.safetensors"), &Device::Cpu).unwrap();
    let packed = |name: &&String| ["qweight", "qzeros", "scales"].iter().any(|end| name.ends_with(end));
    let names: Vec<&String> = whole.keys().filter(packed).collect();
    assert_eq!(names.len(), 3 * 13);
    for name in names {
        let copy = Copy::new();
        copy.change(|tensors| drop(tensors.remove(name)));
        let error = copy.refused(DType::F32, None);
        assert_eq!(error.kind(), ModelErrorKind::MissingTensor, "{error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
        copy.change(|tensors| drop(tensors.insert(name.clone(), whole[name].to_dtype(DType::I64).unwrap())));
        let error = copy.refused(DType::F32, Some(Quantisation::Q8_0));
        assert_eq!(error.kind(), ModelErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(name.as_str()) && error.to_string().contains("I64"), "{error}");
        copy.change(|tensors| {
            let wide = Tensor::cat(&[&whole[name], &whole[name]], 1).unwrap();
            tensors.insert(name.clone(), wide);
        });
        let error = copy.refused(DType::F32, None);
        assert_eq!(error.kind(), ModelErrorKind::ShapeMismatch, "{error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
    }
}

#[test]
fn other_ways_to_pack_weights_are_refused_with_advice() {
    let copy = Copy::new();
    let path = copy.0.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["quantization_config"]["quant_method"] = "gptq".into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = copy.refused(DType::F32, None);
    assert_eq!(error.kind(), ModelErrorKind::Unsupported);
    assert!(error.to_string().contains("gptq") && error.to_string().contains("not quantised"), "{error}");
}

#[test]
fn numbers_that_a_format_cannot_hold_are_refused() {
    let name = "model.visual.merger.mlp.0.weight";
    let copy = Copy::new();
    copy.change(|tensors| {
        let found = tensors.keys().find(|key| key.ends_with("merger.mlp.0.weight")).unwrap().clone();
        let large = (tensors[&found].to_dtype(DType::F32).unwrap() * 1e9).unwrap();
        tensors.insert(found, large);
    });
    let error = copy.refused(DType::F16, None);
    assert_eq!(error.kind(), ModelErrorKind::NotANumber, "{error}");
    assert!(error.to_string().contains(&name[6..]) && error.to_string().contains("f16"), "{error}");
    assert!(load(copy.0.path(), DType::BF16, None).is_ok());
    // Values that overflow while it computes give an error, and no score.
    let copy = Copy::new();
    copy.change(|tensors| {
        let found = tensors
            .keys()
            .find(|key| key.ends_with("layers.1.post_attention_layernorm.weight"))
            .unwrap()
            .clone();
        tensors.insert(found.clone(), (tensors[&found].ones_like().unwrap() * 6e4).unwrap());
    });
    let prompt = cases()[0].prompt();
    let ask = |dtype| load(copy.0.path(), dtype, None).unwrap().next_logits(std::slice::from_ref(&prompt));
    assert!(ask(DType::F32).is_ok());
    assert_eq!(ask(DType::F16).unwrap_err().kind(), ModelErrorKind::NotANumber);
}
