//! `cluegate label` and `cluegate distill`: labels from the whole method, and a student that learns them (CLUE, Appendix E).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(super) mod args;
mod distilling;
mod labelling;

pub(super) use distilling::distill;
pub(super) use labelling::{label, pictures as pictures_below};

/// Name of the file that says what the labels are.
const ABOUT_FILE: &str = "labels.json";

/// What labels are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// Name of the constitution.
    constitution: String,
    /// Its revision.
    revision: String,
    /// Its rules, in order.
    rules: Vec<String>,
    /// Revision of the method: models, prompts, thresholds.
    method: String,
    /// The folder of the pictures, absolute.
    pictures: PathBuf,
    /// Pictures that have labels.
    labelled: usize,
    /// Those of them that are unsafe.
    unsafe_pictures: usize,
    /// Pictures without, which errors.jsonl names.
    failed: usize,
}
