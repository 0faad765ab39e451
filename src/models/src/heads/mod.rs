//! Classifiers on top of CLIP with a fixed idea of what is unsafe, in the layouts in which they are published: what CLUE is
//! measured against (CLUE, Table 2).
//!
//! Each looks at a picture as `preprocessor_config.json` of its CLIP says, in one forward pass.

mod laion;
mod numpy;
mod q16;
mod safety_checker;

use cluegate_perception::{Call, Picture, RelevanceEncoder as _};

pub use laion::LaionNsfw;
#[doc(hidden)]
pub use numpy::matrix as read_numpy_matrix;
pub use q16::Q16;
pub use safety_checker::SafetyChecker;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::relevance::RelevanceModel;

/// The folder of a head's CLIP: `clip` in the head's folder, or that folder itself.
fn clip_folder(tree: &FileTree) -> Result<FileTree> {
    if tree.exists("clip/config.json") { tree.folder("clip") } else { Ok(tree.clone()) }
}

/// Unit vectors of pictures.
fn embed(
    clip: &RelevanceModel,
    pictures: &[Picture],
    call: &Call,
) -> cluegate_perception::Result<Vec<Vec<f32>>> {
    let embeddings = clip.embed_pictures(pictures, call)?;
    Ok(embeddings.iter().map(|embedding| embedding.values().to_vec()).collect())
}

/// The logistic function.
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Refuses what is not a number.
fn finite(value: f32, what: &str) -> Result<f32> {
    if value.is_finite() { Ok(value) } else { Err(ModelError::NotANumber(what.to_owned())) }
}

/// Fingerprint of a head over an encoder.
fn fingerprint(kind: &str, encoder: &str, head: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [kind, encoder, head] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
