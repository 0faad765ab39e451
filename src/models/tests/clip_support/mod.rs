//! What the golden tests of CLIP, OWLv2 and preprocessing share.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_perception::Picture;
use image::RgbImage;

/// The pictures of `make_pixels.py`, in the order of the other scripts.
pub const NAMES: [&str; 6] = ["square", "wide", "tall", "strip", "small", "large"];

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens").join(name)
}

pub fn tensors(path: impl AsRef<Path>) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

pub fn rgb(name: &str) -> RgbImage {
    image::open(golden("pixels").join(format!("{name}.png"))).unwrap().to_rgb8()
}

pub fn pictures() -> Vec<Picture> {
    NAMES.iter().map(|name| Picture::new(rgb(name))).collect()
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Token ids of a golden: rows cut to their lengths.
pub fn ids(expected: &HashMap<String, Tensor>) -> Vec<Vec<u32>> {
    let rows = expected["input_ids"].to_dtype(DType::U32).unwrap().to_vec2::<u32>().unwrap();
    let lengths = expected["lengths"].to_vec1::<i64>().unwrap();
    rows.into_iter().zip(lengths).map(|(row, length)| row[..length as usize].to_vec()).collect()
}

/// Fails unless `got` equals `expected` within `tolerance`, relative to the largest expected value.
pub fn assert_relative(got: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(got.dims(), expected.dims(), "{what}: shape");
    let (got, expected) = (values(got), values(expected));
    let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
    assert!(largest > 0.0, "{what}: a golden of zeros shows nothing");
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let error = (got - expected).abs() / largest;
        assert!(error <= tolerance, "{what}[{index}]: {got} instead of {expected}, relative error {error}");
    }
}

/// Fails unless pixel values of shape (pictures, 3, height, width) are within 1/255 before normalisation.
pub fn assert_pixels(got: &Tensor, expected: &Tensor, std: [f32; 3]) {
    assert_eq!(got.dims(), expected.dims(), "shape of the pixel values");
    let plane = got.dim(2).unwrap() * got.dim(3).unwrap();
    for (index, (got, expected)) in values(got).iter().zip(values(expected)).enumerate() {
        let channel = index / plane % 3;
        let error = (got - expected).abs() * std[channel];
        let picture = NAMES[index / plane / 3];
        assert!(error <= 1.0 / 255.0 + 1e-6, "{picture}, value {}: off by {error}", index % (3 * plane));
    }
}

/// A copy of a golden folder, to be damaged.
pub fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// Changes the weights of a copy.
pub fn change_weights(folder: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let path = folder.join("model.safetensors");
    let mut weights = tensors(&path);
    change(&mut weights);
    candle_core::safetensors::save(&weights, &path).unwrap();
}

/// Changes a JSON file of a copy.
pub fn change_json(folder: &Path, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let path = folder.join(file);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(&path, serde_json::to_vec(&value).unwrap()).unwrap();
}
