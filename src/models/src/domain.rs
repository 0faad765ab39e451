//! What a suite of models knows, so that it can refuse what it cannot judge.
//!
//! Two cheap tests: a picture is foreign if its relevance embedding lies far from those of the domain (Mahalanobis
//! distance; Lee et al. 2018, arXiv 1807.03888) or is unlike the text that describes the domain; a statement is
//! foreign if it uses words that its models never read.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use candle_core::{DType, Device};
use cluegate_perception::{Call, Embedding, PerceptionError, PerceptionErrorKind, Picture, RelevanceEncoder};
use serde::Deserialize;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::weights::Weights;

const FILE: &str = "domain.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    relevance: RawRelevance,
    vocabulary: BTreeSet<String>,
    advice: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRelevance {
    file: String,
    max_distance: f32,
    anchor: Option<RawAnchor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnchor {
    text: String,
    min_cosine: f32,
}

/// The pictures and words that a suite was made for.
#[derive(Debug)]
pub struct Domain {
    name: String,
    advice: String,
    vocabulary: BTreeSet<String>,
    mean: Vec<f32>,
    /// Inverse covariance, row by row.
    precision: Vec<f32>,
    max_distance: f32,
    anchor: Option<Anchor>,
}

#[derive(Debug)]
struct Anchor {
    text: String,
    min_cosine: f32,
    embedding: OnceLock<Embedding>,
}

/// Why a picture counts as foreign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OutOfDomain {
    /// Its embedding lies too far from those of the domain.
    Distance {
        /// Mahalanobis distance from the domain's mean.
        distance: f32,
        /// The largest one accepted.
        limit: f32,
    },
    /// Its embedding is too unlike the text that describes the domain.
    Anchor {
        /// Cosine between both.
        cosine: f32,
        /// The smallest one accepted.
        limit: f32,
    },
}

impl fmt::Display for OutOfDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distance { distance, limit } => {
                write!(
                    f,
                    "{distance:.2} away from the pictures that the models know, at most {limit:.2} is accepted"
                )
            }
            Self::Anchor { cosine, limit } => {
                write!(
                    f,
                    "too unlike the pictures that the models know: likeness {cosine:.4}, at least {limit:.4} is asked"
                )
            }
        }
    }
}

impl Domain {
    /// Reads `domain.json` and the tensors that it names; `None` if there is no such file.
    ///
    /// # Errors
    /// `Malformed` for unknown or missing fields and limits that are no numbers; errors of the tensors.
    pub fn load(tree: &FileTree) -> Result<Option<Self>> {
        if !tree.exists(FILE) {
            return Ok(None);
        }
        let raw: Raw = tree.read_json(FILE)?;
        let path = tree.path_of(FILE);
        let Some(stem) = raw.relevance.file.strip_suffix(".safetensors") else {
            let detail =
                format!("relevance.file is `{}`, expected a name in .safetensors", raw.relevance.file);
            return Err(ModelError::malformed(path, detail));
        };
        let limits = [Some(raw.relevance.max_distance), raw.relevance.anchor.as_ref().map(|a| a.min_cosine)];
        if limits.into_iter().flatten().any(|limit| !limit.is_finite()) {
            return Err(ModelError::malformed(path, "a limit is no number"));
        }
        let weights = Weights::load(tree, stem, DType::F32, &Device::Cpu)?;
        let width = weights.shape("mean").and_then(|shape| shape.first().copied()).unwrap_or(0);
        let read = weights.builder();
        let mean = read.get(width, "mean")?.to_vec1::<f32>()?;
        let precision = read.get((width, width), "precision")?.flatten_all()?.to_vec1::<f32>()?;
        weights.refuse_unused(&[])?;
        if !mean.iter().chain(&precision).all(|value| value.is_finite()) {
            return Err(ModelError::malformed(weights.path(), "a value is NaN or infinite"));
        }
        Ok(Some(Self {
            name: raw.name,
            advice: raw.advice,
            vocabulary: raw.vocabulary,
            mean,
            precision,
            max_distance: raw.relevance.max_distance,
            anchor: raw.relevance.anchor.map(|anchor| Anchor {
                text: anchor.text,
                min_cosine: anchor.min_cosine,
                embedding: OnceLock::new(),
            }),
        }))
    }

    /// What the domain is, in a sentence.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to do with anything else.
    pub fn advice(&self) -> &str {
        &self.advice
    }

    /// Why a picture does not belong to the domain, as `encoder`, the suite's own, sees it; `None` if it does.
    ///
    /// # Errors
    /// The encoder's, and `Request` if it is not the suite's.
    pub fn check_picture(
        &self,
        picture: &Picture,
        encoder: &dyn RelevanceEncoder,
        call: &Call,
    ) -> cluegate_perception::Result<Option<OutOfDomain>> {
        let embedding = first(encoder.embed_pictures(std::slice::from_ref(picture), call)?)?;
        self.check_embedding(&embedding, encoder)
    }

    /// The same for a picture that was embedded before.
    ///
    /// # Errors
    /// The encoder's, and `Request` for an embedding of another width.
    pub fn check_embedding(
        &self,
        picture: &Embedding,
        encoder: &dyn RelevanceEncoder,
    ) -> cluegate_perception::Result<Option<OutOfDomain>> {
        if picture.values().len() != self.mean.len() {
            let found = picture.values().len();
            let message = format!("the embedding has {found} values, this domain knows {}", self.mean.len());
            return Err(ModelError::Request(message).into());
        }
        let distance = self.distance(picture);
        if !distance.is_finite() {
            return Err(ModelError::NotANumber("the picture's distance from the domain".to_owned()).into());
        }
        if distance > self.max_distance {
            return Ok(Some(OutOfDomain::Distance { distance, limit: self.max_distance }));
        }
        if let Some(anchor) = &self.anchor {
            let cosine = picture.cosine(anchor.embedding(encoder)?);
            if cosine < anchor.min_cosine {
                return Ok(Some(OutOfDomain::Anchor { cosine, limit: anchor.min_cosine }));
            }
        }
        Ok(None)
    }

    /// The words of `texts` that the models never read, in lower case, sorted, each once.
    pub fn unknown_words<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let unknown: BTreeSet<String> =
            texts.into_iter().flat_map(words).filter(|word| !self.vocabulary.contains(word)).collect();
        unknown.into_iter().collect()
    }

    /// `sqrt((x - mean)' precision (x - mean))`; rounding below zero counts as zero.
    fn distance(&self, picture: &Embedding) -> f32 {
        let away: Vec<f64> =
            picture.values().iter().zip(&self.mean).map(|(x, mean)| f64::from(x - mean)).collect();
        let rows = self.precision.chunks_exact(self.mean.len());
        let squared: f64 = rows
            .zip(&away)
            .map(|(row, a)| a * row.iter().zip(&away).map(|(p, b)| f64::from(*p) * b).sum::<f64>())
            .sum();
        if squared < 0.0 { 0.0 } else { squared.sqrt() as f32 }
    }
}

impl Anchor {
    fn embedding(&self, encoder: &dyn RelevanceEncoder) -> cluegate_perception::Result<&Embedding> {
        if let Some(embedding) = self.embedding.get() {
            return Ok(embedding);
        }
        let found = first(encoder.embed_texts(&[&self.text], &Call::default())?)?;
        Ok(self.embedding.get_or_init(|| found))
    }
}

fn first(embeddings: Vec<Embedding>) -> cluegate_perception::Result<Embedding> {
    let missing = || {
        PerceptionError::new(
            PerceptionErrorKind::MissingAnswer,
            "the relevance encoder gave no embedding for one input",
        )
    };
    embeddings.into_iter().next().ok_or_else(missing)
}

/// Runs of letters in lower case, without the `s` of a possessive.
fn words(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase().replace("'s", " ").replace("\u{2019}s", " ");
    lower
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}
