//! Models that were trained to say whether a picture is unsafe, whatever the rules: what CLUE is compared with, and what
//! may look at pictures beside it.

use crate::{Call, Fingerprint, Picture, Region, Result};

/// One thing that a classifier found or looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassLabel {
    /// Its name, by the model's own list.
    pub name: String,
    /// How sure the model is of it, 0 to 1.
    pub score: f32,
    /// Where it is, in pixels of the picture, for a model that finds boxes.
    pub region: Option<Region>,
}

/// What a classifier says of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// Whether the picture is called unsafe, by the model's own thresholds.
    pub flagged: bool,
    /// How sure it is of that, 0 to 1: larger for pictures that are more likely unsafe.
    pub score: f32,
    /// What the score rests on, in the model's order for a classifier and surest first for a detector.
    pub labels: Vec<ClassLabel>,
}

/// A classifier of pictures with a fixed idea of what is unsafe.
pub trait PictureClassifier: Send + Sync {
    /// Identity for caches and reports: model, configuration and thresholds.
    fn fingerprint(&self) -> &Fingerprint;

    /// What it says of each picture.
    ///
    /// # Errors
    /// The model failed, or computed something that is not a number; never to be read as safe.
    fn classify(&self, pictures: &[Picture], call: &Call) -> Result<Vec<Classification>>;
}
