//! Weights in PyTorch's own format (`goldens/make_pickled.py`): read as the same tensors as in safetensors, and refused by
//! name where they are damaged or hold more than tensors.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, LoadOptions, ModelError, ModelErrorKind, Weights, load_judge};
use cluegate_perception::{Prefix, Prompt, VisionLanguageModel};
use proptest::prelude::*;

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

fn weights(folder: &Path) -> Result<Weights, ModelError> {
    Weights::load(&FileTree::open(folder)?, "model", DType::F32, &Device::Cpu)
}

/// A folder with `bytes` as its only file.
fn single(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), bytes).unwrap();
    folder
}

/// The error of a folder with `bytes` as its only file, which has to hold `parts`.
fn refused(bytes: &[u8], kind: ModelErrorKind, parts: &[&str]) {
    let folder = single(bytes);
    let error = weights(folder.path()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for part in ["pytorch_model.bin"].iter().chain(parts) {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

fn bits(tensor: &Tensor) -> Vec<u8> {
    tensor
        .flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1::<f64>()
        .unwrap()
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect()
}

#[test]
fn every_type_and_layout_is_read_as_the_same_numbers() {
    let folder = goldens("pickled/tensors");
    let expected = candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(expected.len(), 16);
    let weights = weights(&folder).unwrap();
    for (name, tensor) in &expected {
        assert_eq!(weights.shape(name), Some(tensor.dims()), "{name}");
        let found =
            weights.builder().get_with_hints_dtype(tensor.shape(), name, Default::default(), tensor.dtype());
        let found = found.unwrap();
        assert_eq!((found.dtype(), bits(&found)), (tensor.dtype(), bits(tensor)), "{name}");
    }
    assert!(weights.unused().is_empty());
}

#[test]
fn pickled_weights_are_as_strict_as_others() {
    let weights = weights(&goldens("pickled/tensors")).unwrap();
    let get = |name: &str, shape: &[usize]| ModelError::from(weights.builder().get(shape, name).unwrap_err());
    for (name, shape, kind) in [
        ("absent", vec![2], ModelErrorKind::MissingTensor),
        ("f16", vec![4], ModelErrorKind::ShapeMismatch),
        ("i32", vec![1, 2], ModelErrorKind::Unsupported),
    ] {
        let error = get(name, &shape);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // The second name of the same numbers is no unknown tensor.
    weights.builder().get((4, 6), "f32").unwrap();
    let unused = weights.unused();
    assert!(
        !unused.contains(&"shared".to_owned()) && unused.contains(&"transposed".to_owned()),
        "{unused:?}"
    );
    let error = weights.refuse_unused(&[]).unwrap_err();
    assert_eq!(error.kind(), ModelErrorKind::UnknownTensor);
    assert!(error.to_string().contains("bf16"), "{error}");
}

/// The folder `awq` with its weights in shards.
fn judge() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for from in [goldens("awq/model"), goldens("pickled/awq")] {
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            if file.file_name() != "model.safetensors" {
                std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
            }
        }
    }
    folder
}

#[test]
fn a_judge_in_pickled_shards_answers_as_in_safetensors() {
    let load = |folder: &Path| load_judge(&FileTree::open(folder)?, &LoadOptions::default());
    let folder = judge();
    let prompts = [Prompt::new(Prefix { picture: None, text: "".into() }, "a cat.")];
    let pickled = load(folder.path()).unwrap();
    let expected = load(&goldens("awq/model")).unwrap();
    assert_eq!(pickled.next_logits(&prompts).unwrap(), expected.next_logits(&prompts).unwrap());
    assert_ne!(pickled.fingerprint(), expected.fingerprint());
    // A tensor that is not where the index says, a shard that is not there, and one that is cut.
    let index = folder.path().join("pytorch_model.bin.index.json");
    let listed = std::fs::read_to_string(&index).unwrap();
    let name = "model.norm.weight";
    assert!(listed.contains(name));
    std::fs::write(&index, listed.replace(name, "elsewhere")).unwrap();
    assert!(load(folder.path()).unwrap_err().to_string().contains("elsewhere"));
    std::fs::write(&index, &listed).unwrap();
    let shard = folder.path().join("pytorch_model-00002-of-00002.bin");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    let error = load(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("00002-of-00002.bin") && error.to_string().contains("truncated"),
        "{error}"
    );
    std::fs::remove_file(&shard).unwrap();
    assert_eq!(load(folder.path()).unwrap_err().kind(), ModelErrorKind::MissingFile);
    // Where there are safetensors, pickles are not looked at.
    std::fs::copy(goldens("awq/model/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    assert_eq!(load(folder.path()).unwrap().fingerprint(), expected.fingerprint());
}

#[test]
fn what_is_not_a_dictionary_of_tensors_is_refused_by_name() {
    let file = |name: &str| std::fs::read(goldens(&format!("pickled/{name}.bin"))).unwrap();
    for (name, parts) in [
        ("legacy", ["before 1.6", "save it again"]),
        ("call", ["posix.system", "nothing in a pickle is executed"]),
        ("nested", ["state_dict", "a dictionary"]),
        ("bool", ["flags", "BoolStorage"]),
        ("repeated", ["many", "repeats"]),
    ] {
        refused(&file(name), ModelErrorKind::Unsupported, &parts);
    }
    refused(b"", ModelErrorKind::Malformed, &["0 bytes"]);
    refused(b"PK\x03\x04", ModelErrorKind::Malformed, &["truncated"]);
    refused(b"version https://git-lfs.github.com/spec/v1\n", ModelErrorKind::Malformed, &["LFS"]);
}

/// Loads `bytes` and all tensors that they give. What matters is that it ends without a panic.
fn read_all(bytes: &[u8]) {
    let folder = single(bytes);
    if let Ok(weights) = weights(folder.path()) {
        for name in weights.unused() {
            let shape = weights.shape(&name).unwrap().to_vec();
            let _ = weights.builder().get(shape, &name);
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = std::fs::read(goldens("pickled/tensors/pytorch_model.bin")).unwrap();
    for length in (0..whole.len()).step_by(7) {
        refused(&whole[..length], ModelErrorKind::Malformed, &["truncated"]);
    }
}

proptest! {
    #[test]
    fn damaged_files_do_not_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), near in any::<bool>()) {
        let mut bytes = std::fs::read(goldens("pickled/tensors/pytorch_model.bin")).unwrap();
        // Half of them in the pickle, which is at the beginning, or in the directory, which is at the end.
        for (number, (place, value)) in flips.into_iter().enumerate() {
            let at = match near {
                true if number % 2 == 0 => place.index(1600),
                true => bytes.len() - 1 - place.index(1600),
                false => place.index(bytes.len()),
            };
            bytes[at] = value;
        }
        read_all(&bytes);
    }
}
