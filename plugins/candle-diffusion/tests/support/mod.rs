//! What the tests share: the golden folder, its tensors, and a comparison that says how far off.

#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use cluegate_candle_diffusion::{NoiseSource, Pipeline, Result};
use cluegate_models::FileTree;

/// `goldens/data/NAME`.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data").join(name)
}

pub fn tree(name: &str) -> FileTree {
    FileTree::open(golden(name)).unwrap()
}

pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(name), &Device::Cpu).unwrap()
}

pub fn pipeline() -> Pipeline {
    Pipeline::load(&tree("pipeline"), &Device::Cpu, DType::F32).unwrap()
}

/// Fails unless the largest difference is within `tolerance` of the largest expected value.
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let (found, expected) = (flat(found), flat(expected));
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let error = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, |m, d| {
        // `max` would drop a NaN.
        if d <= m { m } else { d }
    });
    assert!(error <= tolerance * scale, "{what}: off by {error:e}, {:e} of the largest value", error / scale);
}

/// Noise from the golden files: one `(1, ..)` slice after the other.
pub struct Replay {
    noise: Tensor,
    next: usize,
}

impl Replay {
    pub fn new(noise: Tensor) -> Self {
        Self { noise, next: 0 }
    }
}

impl NoiseSource for Replay {
    fn draw(&mut self, shape: &[usize], _device: &Device) -> Result<Tensor> {
        let drawn = self.noise.narrow(0, self.next, 1)?;
        self.next += 1;
        assert_eq!(drawn.dims(), shape);
        Ok(drawn)
    }
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A copy of the golden pipeline in which `change` may alter the tensors of one file.
pub fn altered_pipeline(file: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("pipeline"), folder.path());
    let path = folder.path().join(file);
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    folder
}

pub fn load(folder: &tempfile::TempDir) -> Result<Pipeline> {
    Pipeline::load(&FileTree::open(folder.path()).unwrap(), &Device::Cpu, DType::F32)
}
