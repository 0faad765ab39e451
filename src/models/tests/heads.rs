//! Classifiers over CLIP against their references; `goldens/make_heads.py` made the heads and the expected numbers.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod clip_support;

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use cluegate_models::heads::{LaionNsfw, Q16, SafetyChecker};
use cluegate_models::{FileTree, ModelErrorKind};
use cluegate_perception::{Call, PictureClassifier};

use clip_support::{assert_relative, change_weights, copy, golden, pictures, tensors, values};

/// A folder with a head and the CLIP that it is for, in `clip` below it.
fn folder(head: &str, name: &str) -> tempfile::TempDir {
    let folder = copy("clip/current");
    let made = tempfile::tempdir().unwrap();
    let clip = made.path().join("clip");
    fs::create_dir(&clip).unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), clip.join(file.file_name())).unwrap();
    }
    fs::copy(golden("heads").join(head), made.path().join(name)).unwrap();
    made
}

fn tree(folder: impl AsRef<Path>) -> FileTree {
    FileTree::open(folder).unwrap()
}

fn q16(folder: impl AsRef<Path>) -> cluegate_models::error::Result<Q16> {
    Q16::load(&tree(folder), &Device::Cpu, DType::F32)
}

fn laion(folder: impl AsRef<Path>) -> cluegate_models::error::Result<LaionNsfw> {
    LaionNsfw::load(&tree(folder), &Device::Cpu, DType::F32)
}

#[test]
fn q16_equals_the_reference() {
    let expected = &tensors(golden("heads").join("expected.safetensors"))["q16"].to_vec2::<f32>().unwrap();
    for file in ["prompts.p", "prompts-4.p"] {
        let folder = folder(file, "prompts.p");
        let model = q16(folder.path()).unwrap();
        let got = model.similarities(&pictures(), &Call::default()).unwrap();
        // Pictures are resized within 1/255 of the reference.
        for (got, expected) in got.iter().zip(expected) {
            assert!((0..2).all(|index| (got[index] - expected[index]).abs() < 0.1), "{got:?} {expected:?}");
        }
        let said = model.classify(&pictures(), &Call::default()).unwrap();
        let flagged: Vec<bool> = said.iter().map(|said| said.flagged).collect();
        let truth: Vec<bool> = expected.iter().map(|row| row[1] > row[0]).collect();
        assert_eq!(flagged, truth);
        assert!(truth.contains(&true) && truth.contains(&false));
        assert!(said.iter().all(|said| said.flagged == (said.score > 0.5)), "{said:?}");
    }
}

#[test]
fn prompts_of_another_clip_are_refused_and_nothing_is_executed() {
    let folder = folder("prompts.p", "prompts.p");
    let path = folder.path().join("prompts.p");
    let good = fs::read(&path).unwrap();
    // A side of 20 becomes one of 10, with as many rows of half the width.
    let mut narrow = good.clone();
    let at = narrow.windows(4).position(|bytes| bytes == [b'K', 2, b'K', 20]).unwrap();
    narrow[at..at + 4].copy_from_slice(&[b'K', 4, b'K', 10]);
    fs::write(&path, &narrow).unwrap();
    let error = q16(folder.path()).err().unwrap();
    assert!(error.to_string().contains("4 x 10, expected two rows"), "{error}");
    fs::write(&path, b"\x80\x03cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
    let error = q16(folder.path()).err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::Malformed);
    assert!(error.to_string().contains("nothing in a pickle is executed"), "{error}");
    fs::remove_file(&path).unwrap();
    assert_eq!(q16(folder.path()).err().unwrap().kind(), ModelErrorKind::MissingFile);
}

#[test]
fn the_nsfw_detector_equals_the_reference() {
    let expected = tensors(golden("heads").join("expected.safetensors"));
    let embeddings = tensors(golden("clip").join("current/expected.safetensors"));
    let folder = folder("tiny_nsfw_head.pth", "clip_ViT-T_openai_binary_nsfw_head.pth");
    let model = laion(folder.path()).unwrap();
    let rows = embeddings["picture_embeds"].to_vec2::<f32>().unwrap();
    let got = model.scores(&rows).unwrap();
    let truth = values(&expected["laion"]);
    assert!(got.iter().zip(&truth).all(|(got, truth)| (got - truth).abs() < 1e-4), "{got:?} {truth:?}");
    let said = model.classify(&pictures(), &Call::default()).unwrap();
    assert!(
        said.iter().zip(&truth).all(|(said, truth)| (said.score - truth).abs() < 0.02),
        "{said:?} {truth:?}"
    );
    assert!(truth.iter().any(|score| *score > 0.5) && truth.iter().any(|score| *score < 0.45), "{truth:?}");
}

#[test]
fn a_head_is_whole_and_the_only_one() {
    let named = "x_nsfw_head.pth";
    let none = folder("prompts.p", "prompts.p");
    let error = laion(none.path()).err().unwrap().to_string();
    assert!(error.contains("nsfw_head.pth or nsfw_head.safetensors, got none"), "{error}");
    let two = folder("tiny_nsfw_head.pth", named);
    fs::copy(golden("heads").join("tiny_nsfw_head.pth"), two.path().join("y_nsfw_head.pth")).unwrap();
    let error = laion(two.path()).err().unwrap().to_string();
    assert!(error.contains("got x_nsfw_head.pth, y_nsfw_head.pth"), "{error}");
    let damaged = folder("tiny_nsfw_head.pth", named);
    let bytes = fs::read(damaged.path().join(named)).unwrap();
    fs::write(damaged.path().join(named), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(laion(damaged.path()).err().unwrap().kind(), ModelErrorKind::Malformed);
}

#[test]
fn the_safety_checker_equals_the_reference() {
    let expected = tensors(golden("heads").join("expected.safetensors"));
    let model = SafetyChecker::load(&tree(golden("heads").join("safety_checker")), &Device::Cpu).unwrap();
    let margins = model.margins_of(&expected["checker_pixels"]).unwrap();
    let got: Vec<f32> = margins.iter().flat_map(|margins| margins.concepts).collect();
    for (got, expected) in got.iter().zip(values(&expected["checker_concepts"])) {
        assert!((got - expected).abs() < 0.001_5, "{got} instead of {expected}");
    }
    let got: Vec<f32> = margins.iter().flat_map(|margins| margins.special).collect();
    for (got, expected) in got.iter().zip(values(&expected["checker_special"])) {
        assert!((got - expected).abs() < 0.001_5, "{got} instead of {expected}");
    }
    let flagged: Vec<bool> =
        margins.iter().map(|margins| margins.concepts.iter().any(|margin| *margin > 0.0)).collect();
    let truth: Vec<bool> = values(&expected["checker_flagged"]).iter().map(|value| *value > 0.0).collect();
    assert_eq!(flagged, truth);
    let said = model.classify(&pictures(), &Call::default()).unwrap();
    assert!(said.iter().all(|said| said.flagged == (said.score > 0.5) && said.labels.len() == 20));
}

#[test]
fn the_safety_checkers_weights_are_strict() {
    let folder = copy("heads/safety_checker");
    change_weights(folder.path(), |tensors| {
        tensors.remove("special_care_embeds_weights").unwrap();
    });
    let error = SafetyChecker::load(&tree(folder.path()), &Device::Cpu).err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::MissingTensor);
    assert!(error.to_string().contains("special_care_embeds_weights"), "{error}");
    let folder = copy("heads/safety_checker");
    change_weights(folder.path(), |tensors| {
        let first = tensors["concept_embeds"].narrow(0, 0, 16).unwrap();
        tensors.insert("concept_embeds".to_owned(), first);
    });
    let error = SafetyChecker::load(&tree(folder.path()), &Device::Cpu).err().unwrap();
    assert_eq!(error.kind(), ModelErrorKind::ShapeMismatch);
}

#[test]
fn embeddings_are_those_that_the_heads_were_made_for() {
    let expected = tensors(golden("clip").join("current/expected.safetensors"));
    let unit = &expected["picture_embeds"];
    let norms = unit.sqr().unwrap().sum(1).unwrap();
    assert_relative(&norms, &norms.ones_like().unwrap(), 1e-5, "lengths");
}
