//! CLIP: pictures and texts in one space, for the relevance scan (CLUE s 3.2).
//!
//! Written after transformers 5.17, `models/clip/modeling_clip.py` (`CLIPModel`), and held to it by golden tests.
//! Unlike candle's own port it knows both activations and both ways to find the end token, and it never invents a
//! tensor that the checkpoint lacks.

mod config;
mod encoder;
mod processor;
mod tokenizer;
mod towers;
mod vocabulary;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_cache::{Bound, Cache, Scope};
use cluegate_perception::{Call, Embedding, Fingerprint, Picture, RelevanceEncoder};

pub use config::{DualConfig, TextConfig, VisionConfig};
pub use encoder::{Encoder, EncoderConfig};
pub use processor::ClipProcessor;
pub use tokenizer::ClipTokenizer;
pub use towers::{TextTower, VisionTower};

pub(crate) use processor::RawProcessor;

use crate::error::{ModelError, Result};
use crate::files::FileTree;
pub use crate::layers::Activation;
use crate::seen::Seen;
use crate::weights::Weights;

/// From which cosine a rule counts as relevant with CLIP ViT-B/16 (CLUE s 4.1).
const DEFAULT_THRESHOLD: f32 = 0.22;

/// Pictures of one forward pass; more are computed in turn, so that memory stays bounded.
const BATCH: usize = 16;

/// Texts of one forward pass.
const TEXT_BATCH: usize = 64;

/// Embeddings of pictures that are remembered. The domain test and the relevance scan look at the same views of a
/// picture, and so does the next tenant.
const SEEN: Bound = Bound { entries: 4096, bytes: 16 << 20 };

/// What a remembered picture takes beside the values of its embedding.
const SEEN_OVERHEAD: usize = 192;

/// Kind of the numbers in the cache: projected end states of texts, not normalised, so that what is read from it
/// becomes the same unit vector as what was computed.
const TEXT_FEATURES: &str = "relevance text features";

/// Files beside the weights and the tokenizer's that decide about the answers.
const FILES: [&str; 3] = ["config.json", "preprocessor_config.json", "processor_config.json"];

/// Buffers that older versions of the reference saved; their values follow from the configuration.
pub(crate) const KNOWN_BUFFERS: [&str; 1] = ["embeddings.position_ids"];

/// A CLIP model in Hugging Face layout.
pub struct ClipModel {
    text: TextTower,
    vision: VisionTower,
    text_projection: Tensor,
    visual_projection: Tensor,
    tokenizer: ClipTokenizer,
    processor: ClipProcessor,
    device: Device,
    dtype: DType,
    threshold: f32,
    fingerprint: Fingerprint,
    cache: Cache,
    seen: Seen<Embedding>,
}

impl ClipModel {
    /// Reads `config.json`, `preprocessor_config.json`, `tokenizer.json` and the weights; computes in `dtype` on
    /// `device`.
    ///
    /// # Errors
    /// A file that is missing, malformed, or does not fit the others; a tensor that is missing, misshapen, or unknown.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let config = DualConfig::load_clip(tree)?;
        let processor = ClipProcessor::load(tree, config.vision.image_size)?;
        let text = &config.text;
        let tokenizer = ClipTokenizer::load(tree, text.max_position_embeddings, text.vocab_size)?;
        if text.eos_token_ids[..] != [2] && !text.eos_token_ids.contains(&tokenizer.end_token()) {
            let detail = format!(
                "ends a text with token {}, config.json names {:?} as `eos_token_id`",
                tokenizer.end_token(),
                text.eos_token_ids
            );
            return Err(ModelError::tokenizer(tokenizer.path(), detail));
        }
        let weights = Weights::load(tree, "model", dtype, device)?;
        let built = Self::build(&config, &weights.builder())?;
        weights.refuse_unused(&KNOWN_BUFFERS)?;
        let fingerprint = weights.fingerprint(tree, &[&FILES[..], tokenizer.files()].concat())?;
        let (text, vision, text_projection, visual_projection) = built;
        Ok(Self {
            text,
            vision,
            text_projection,
            visual_projection,
            tokenizer,
            processor,
            device: device.clone(),
            dtype,
            threshold: DEFAULT_THRESHOLD,
            fingerprint,
            cache: Cache::in_memory(),
            seen: Seen::new(SEEN),
        })
    }

    fn build(
        config: &DualConfig,
        weights: &VarBuilder,
    ) -> candle_core::Result<(TextTower, VisionTower, Tensor, Tensor)> {
        // Of no use for cosines, and part of every checkpoint.
        weights.get((), "logit_scale")?;
        let projection = |name: &str, width: usize| weights.get((config.projection_dim, width), name);
        Ok((
            TextTower::load(&config.text, weights.pp("text_model"))?,
            VisionTower::load(&config.vision, "pre_layrnorm", weights.pp("vision_model"))?,
            projection("text_projection.weight", config.text.encoder.hidden_size)?,
            projection("visual_projection.weight", config.vision.encoder.hidden_size)?,
        ))
    }

    /// The same model with another default threshold, for checkpoints that are not the paper's.
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

    /// The tokenizer, with the model's limits.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// Model inputs of pictures, shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// No picture, or a failed tensor operation.
    pub fn pixel_values(&self, pictures: &[Picture]) -> Result<Tensor> {
        let fitted: Vec<_> = pictures.iter().map(|picture| self.processor.fit(picture.pixels())).collect();
        Ok(self.processor.normalisation().batch(&fitted, &self.device)?.to_dtype(self.dtype)?)
    }

    /// Projected class states of model inputs, not normalised: `(pictures, projection)`.
    ///
    /// # Errors
    /// Inputs of another shape, or a failed tensor operation.
    pub fn picture_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward_class(pixel_values)?.matmul(&self.visual_projection.t()?)?)
    }

    /// Projected end states of texts given as token ids, not normalised: `(texts, projection)`.
    ///
    /// # Errors
    /// See [`TextTower::forward`].
    pub fn text_features(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        Ok(self.text.forward(texts)?.matmul(&self.text_projection.t()?)?)
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
        let width = self.text_projection.dim(0)?;
        let scope = Scope { kind: TEXT_FEATURES, model: &self.fingerprint, template: "", width };
        let features = self.cache.get_or_compute(&scope, texts, |missing| {
            let mut features = Vec::with_capacity(missing.len());
            for part in missing.chunks(TEXT_BATCH) {
                let ids = part.iter().map(|text| self.tokenizer.encode(text)).collect::<Result<Vec<_>>>()?;
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

impl RelevanceEncoder for ClipModel {
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
}
