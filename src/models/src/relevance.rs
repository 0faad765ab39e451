//! Pictures and texts in one space, for the relevance scan (CLUE s 3.2): what every family of dual encoders shares.
//!
//! A family brings [`Towers`]; batching, the cache of texts and the memory of pictures are here.

use candle_core::{DType, Device, Tensor};
use cluegate_cache::{Bound, Cache, Scope};
use cluegate_perception::{Call, Embedding, Fingerprint, Picture, RelevanceEncoder, TextLength};
use serde::Deserialize;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::seen::Seen;
use crate::weights::Weights;
use crate::{clip, siglip};

/// Pictures of one forward pass; more are computed in turn, so that memory stays bounded.
const BATCH: usize = 16;

/// Texts of one forward pass.
const TEXT_BATCH: usize = 64;

/// Embeddings of pictures that are remembered. The domain test and the relevance scan look at the same views of a
/// picture, and so does the next tenant.
const SEEN: Bound = Bound { entries: 4096, bytes: 16 << 20 };

/// What a remembered picture takes beside the values of its embedding.
const SEEN_OVERHEAD: usize = 192;

/// Kind of the numbers in the cache: projected states of texts, not normalised, so that what is read from it becomes
/// the same unit vector as what was computed.
const TEXT_FEATURES: &str = "relevance text features";

/// Files beside the weights and the tokenizer's that decide about the answers.
const FILES: [&str; 3] = ["config.json", "preprocessor_config.json", "processor_config.json"];

/// What a family of dual encoders computes. All tensors are of the model's device and data type.
pub(crate) trait Towers: Send + Sync {
    /// Model inputs of pictures, `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// No picture, or a failed tensor operation.
    fn pixel_values(&self, pictures: &[Picture]) -> Result<Tensor>;

    /// Features of model inputs, not normalised: `(pictures, width)`.
    ///
    /// # Errors
    /// Inputs of another shape, or a failed tensor operation.
    fn picture_features(&self, pixel_values: &Tensor) -> Result<Tensor>;

    /// The ids of a text as [`Self::text_features`] takes them, at most as many as the model holds.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    fn tokens(&self, text: &str) -> Result<Vec<u32>>;

    /// How long a text is before it is cut.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    fn text_length(&self, text: &str) -> Result<TextLength>;

    /// Features of texts given as token ids, not normalised: `(texts, width)`.
    ///
    /// # Errors
    /// No text, one that is too long, or a failed tensor operation.
    fn text_features(&self, texts: &[Vec<u32>]) -> Result<Tensor>;

    /// Width of the common space.
    fn width(&self) -> usize;
}

/// How a model that was trained with a sigmoid reads a cosine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sigmoid {
    /// Multiplies the cosine; the exponential of the stored `logit_scale`.
    pub(crate) scale: f32,
    /// Is added.
    pub(crate) bias: f32,
}

/// What a family's loader found.
pub(crate) struct Loaded {
    pub(crate) towers: Box<dyn Towers>,
    pub(crate) weights: Weights,
    /// The files that the tokenizer was read from.
    pub(crate) tokenizer_files: &'static [&'static str],
    pub(crate) threshold: f32,
    pub(crate) sigmoid: Option<Sigmoid>,
}

/// A pair of encoders into one space, in Hugging Face layout: CLIP or SigLIP.
pub struct RelevanceModel {
    towers: Box<dyn Towers>,
    threshold: f32,
    sigmoid: Option<Sigmoid>,
    fingerprint: Fingerprint,
    cache: Cache,
    seen: Seen<Embedding>,
}

#[derive(Deserialize)]
struct Family {
    model_type: String,
}

impl RelevanceModel {
    /// Reads `config.json`, `preprocessor_config.json`, `tokenizer.json` and the weights of the family that
    /// `config.json` names; computes in `dtype` on `device`.
    ///
    /// # Errors
    /// `Unsupported` for another family; a file that is missing, malformed, or does not fit the others; a tensor that
    /// is missing, misshapen, or unknown.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        const CONFIG: &str = "config.json";
        let family = tree.read_json::<Family>(CONFIG)?.model_type;
        let loaded = match family.as_str() {
            "clip" => clip::load(tree, device, dtype)?,
            "siglip" => siglip::load(tree, device, dtype)?,
            other => {
                let supported = if other == "siglip2" {
                    "clip, siglip. This is a NaFlex checkpoint, whose pictures have any number of patches; take one \
                     of a fixed resolution, such as google/siglip2-so400m-patch14-384"
                } else {
                    "clip, siglip"
                };
                return Err(ModelError::unsupported(tree.path_of(CONFIG), "`model_type`", other, supported));
            }
        };
        let Loaded { towers, weights, tokenizer_files, threshold, sigmoid } = loaded;
        Ok(Self {
            towers,
            threshold,
            sigmoid,
            fingerprint: weights.fingerprint(tree, &[&FILES[..], tokenizer_files].concat())?,
            cache: Cache::in_memory(),
            seen: Seen::new(SEEN),
        })
    }

    /// The same model with another default threshold, a cosine.
    #[must_use]
    pub fn with_threshold(mut self, threshold: f32) -> Self {
        self.threshold = threshold;
        self
    }

    /// The same model with another cache for its texts, such as one on disk that outlives it.
    #[must_use]
    pub fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// Width of the common space.
    pub(crate) fn width(&self) -> usize {
        self.towers.width()
    }

    /// What the model makes of a cosine if it was trained with a sigmoid: the logit, whose sigmoid is the probability
    /// that picture and text belong together. `None` for CLIP, whose softmax compares texts with each other.
    pub fn sigmoid_logit(&self, cosine: f32) -> Option<f32> {
        self.sigmoid.map(|Sigmoid { scale, bias }| cosine * scale + bias)
    }

    /// The ids of a text as [`Self::text_features`] takes them, special tokens included; what is too long is cut.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or an id beyond the model's vocabulary.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.towers.tokens(text)
    }

    /// Model inputs of pictures, shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// No picture, or a failed tensor operation.
    pub fn pixel_values(&self, pictures: &[Picture]) -> Result<Tensor> {
        self.towers.pixel_values(pictures)
    }

    /// Features of model inputs, not normalised: `(pictures, width)`.
    ///
    /// # Errors
    /// Inputs of another shape, or a failed tensor operation.
    pub fn picture_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        self.towers.picture_features(pixel_values)
    }

    /// Features of texts given as token ids, not normalised: `(texts, width)`.
    ///
    /// # Errors
    /// No text, one that is too long, or a failed tensor operation.
    pub fn text_features(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        self.towers.text_features(texts)
    }

    fn pictures(&self, pictures: &[Picture]) -> Result<Vec<Embedding>> {
        let all: Vec<&Picture> = pictures.iter().collect();
        let known = self.seen.get_or_look(&all, BATCH, |part| {
            let part: Vec<Picture> = part.iter().map(|picture| (*picture).clone()).collect();
            let features =
                self.picture_features(&self.pixel_values(&part)?).map_err(|e| e.at("vision tower"))?;
            let rows = rows(&features, "the embedding of a picture")?.into_iter();
            let sized = |row: Vec<f32>| {
                let bytes = SEEN_OVERHEAD + size_of_val(row.as_slice());
                (Embedding::normalised(row), bytes)
            };
            Ok(rows.map(sized).collect())
        })?;
        Ok(pictures.iter().filter_map(|picture| known.get(&picture.hash()).cloned()).collect())
    }

    fn texts(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        let width = self.towers.width();
        let scope = Scope { kind: TEXT_FEATURES, model: &self.fingerprint, template: "", width };
        let features = self.cache.get_or_compute(&scope, texts, |missing| {
            let mut features = Vec::with_capacity(missing.len());
            for part in missing.chunks(TEXT_BATCH) {
                let ids = part.iter().map(|text| self.tokens(text)).collect::<Result<Vec<_>>>()?;
                let part = self.text_features(&ids).map_err(|e| e.at("text tower"))?;
                features.extend(rows(&part, "the embedding of a text")?.into_iter().map(widened));
            }
            Ok::<_, ModelError>(features)
        })?;
        Ok(features.iter().map(|row| Embedding::normalised(narrowed(row))).collect())
    }
}

/// The rows of a matrix, each of which has a direction.
pub(crate) fn rows(features: &Tensor, what: &str) -> Result<Vec<Vec<f32>>> {
    let rows = features.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    if rows.iter().flatten().any(|value| !value.is_finite())
        || rows.iter().any(|row| row.iter().all(|v| *v == 0.0))
    {
        return Err(ModelError::NotANumber(what.to_owned()));
    }
    Ok(rows)
}

/// A row as the cache keeps it.
pub(crate) fn widened(row: Vec<f32>) -> Vec<f64> {
    row.into_iter().map(f64::from).collect()
}

/// A row that was [`widened`], exactly as it was.
pub(crate) fn narrowed(row: &[f64]) -> Vec<f32> {
    row.iter().map(|value| *value as f32).collect()
}

impl RelevanceEncoder for RelevanceModel {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn default_threshold(&self) -> f32 {
        self.threshold
    }

    fn embed_pictures(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Embedding>> {
        call.check()?;
        Ok(self.pictures(pictures)?)
    }

    fn embed_texts(&self, texts: &[&str], call: &Call) -> cluegate_perception::Result<Vec<Embedding>> {
        call.check()?;
        Ok(self.texts(texts)?)
    }

    fn text_lengths(&self, texts: &[&str]) -> cluegate_perception::Result<Option<Vec<TextLength>>> {
        Ok(Some(texts.iter().map(|text| self.towers.text_length(text)).collect::<Result<_>>()?))
    }
}
