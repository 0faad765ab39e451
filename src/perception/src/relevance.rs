//! Which rules could matter for a picture at all: one cosine each (CLUE s 3.2).

use crate::{Call, Fingerprint, Picture, Result};

/// A unit vector in the space shared by pictures and texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Normalises `values` to length 1. A vector that has no length is returned as it is.
    pub fn normalised(mut values: Vec<f32>) -> Self {
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        if length > 0.0 {
            values.iter_mut().for_each(|v| *v /= length);
        }
        Self(values)
    }

    /// The components.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// Cosine of the angle between two embeddings of one model, -1 to 1. NaN if either holds a NaN.
    pub fn cosine(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

impl AsRef<[f32]> for Embedding {
    fn as_ref(&self) -> &[f32] {
        self.values()
    }
}

/// How long a text is for an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLength {
    /// Its tokens, special ones included, before anything is cut.
    pub tokens: usize,
    /// The most that are read: 77 for CLIP, 64 for SigLIP.
    pub limit: usize,
}

/// A pair of encoders into one space, such as CLIP or SigLIP.
pub trait RelevanceEncoder: Send + Sync {
    /// Identity for caches.
    fn fingerprint(&self) -> &Fingerprint;

    /// The cosine from which a rule counts as relevant when the constitution names none: 0.22 for CLIP ViT-B/16
    /// (CLUE s 4.1); other families need their own.
    fn default_threshold(&self) -> f32;

    /// One embedding for each picture.
    fn embed_pictures(&self, pictures: &[Picture], call: &Call) -> Result<Vec<Embedding>>;

    /// One embedding for each text. Longer texts than the encoder holds are cut as its tokenizer cuts them.
    fn embed_texts(&self, texts: &[&str], call: &Call) -> Result<Vec<Embedding>>;

    /// The length of each text; none if the encoder cannot tell, as one on another machine. Nothing is computed but
    /// tokens.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    fn text_lengths(&self, texts: &[&str]) -> Result<Option<Vec<TextLength>>> {
        let _ = texts;
        Ok(None)
    }
}
