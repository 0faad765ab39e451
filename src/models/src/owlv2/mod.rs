//! OWLv2: where in a picture the objects are that a few words name (CLUE s 3.4).
//!
//! Written after transformers 5.17 (`models/owlv2`), and held to it by golden tests. Three things differ from its
//! post-processing, on purpose:
//! - **Queries are independent.** The reference gives each patch to its best query only, so that asking for more words
//!   can hide what one of them finds. Here each patch is scored for each query, and the answer for a query does not
//!   depend on what else is asked.
//! - **Doubles are suppressed.** Neighbouring patches report the same object with nearly the same box, and OWLv2 has no
//!   step against that. Detections of one query that overlap a more confident one by an intersection over union of
//!   more than 0.7 are dropped ([`Owlv2Model::with_suppression`] changes or removes that).
//! - **Boxes are clipped** to the picture, and those of which nothing is left are dropped.
//!
//! [`Owlv2Model::post_process`] does none of this, for comparison with the reference.

mod boxes;
mod network;
mod processor;

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use cluegate_cache::{Bound, Cache, Scope};
use cluegate_perception::{
    Call, ContentHash, Detection, DetectionRequest, Fingerprint, Picture, RegionDetector,
};

pub use boxes::RelativeBox;
pub use network::{Owlv2Network, PatchPredictions};
pub use processor::Owlv2Processor;

use crate::clip::{ClipTokenizer, DualConfig, KNOWN_BUFFERS};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::relevance::{narrowed, rows, widened};
use crate::seen::Seen;
use crate::weights::Weights;

/// Overlap beyond which a detection counts as a double of a more confident one.
const SUPPRESSION: f32 = 0.7;

/// Predictions about pictures that are remembered: the judge, a redaction and the next tenant ask about one picture
/// several times. At 960 px one takes 7.5 MB in f32, so that there is room for eight.
const SEEN: Bound = Bound { entries: 1024, bytes: 64 << 20 };

/// Kind of the numbers in the cache: projected texts of unit length.
const QUERY_EMBEDDING: &str = "detector query embedding";

/// Patch tokens of one forward pass; pictures beyond them are computed in turn, so that memory stays bounded.
const TOKENS_PER_PASS: usize = 4096;

/// Texts of one forward pass.
const TEXT_BATCH: usize = 64;

/// Files beside the weights and the tokenizer's that decide about the answers.
const FILES: [&str; 3] = ["config.json", "preprocessor_config.json", "processor_config.json"];

/// Tensors of a checkpoint that detection does not use: the picture projection and temperature of the contrastive
/// pre-training, and a buffer whose values follow from the configuration.
const UNUSED: [&str; 3] = ["owlv2.visual_projection.weight", "owlv2.logit_scale", "box_bias"];

/// The threshold of the reference's post-processing where none is given.
pub const DEFAULT_THRESHOLD: f32 = 0.1;

/// What one patch shows, as the reference reports it. See [`Owlv2Model::post_process`].
#[derive(Debug, Clone, PartialEq)]
pub struct PatchDetection {
    /// Index of the query.
    pub query: usize,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, right and bottom edge in pixels of the picture; not clipped to it.
    pub corners: [f32; 4],
}

/// An OWLv2 detector in Hugging Face layout.
pub struct Owlv2Model {
    network: Owlv2Network,
    tokenizer: ClipTokenizer,
    processor: Owlv2Processor,
    pictures_per_pass: usize,
    device: Device,
    dtype: DType,
    /// Width of a query's embedding.
    text_width: usize,
    suppression: Option<f32>,
    fingerprint: Fingerprint,
    cache: Cache,
    seen: Seen<Arc<PatchPredictions>>,
}

impl Owlv2Model {
    /// Reads `config.json`, `preprocessor_config.json`, `tokenizer.json` and the weights; computes in `dtype` on
    /// `device`.
    ///
    /// # Errors
    /// A file that is missing, malformed, or does not fit the others; a tensor that is missing, misshapen, or unknown.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let config = DualConfig::load_owlv2(tree)?;
        if config.projection_dim != config.text.encoder.hidden_size {
            // The class head compares patches of the text tower's width with projected texts.
            let detail = format!(
                "`projection_dim` is {}, expected `text_config.hidden_size`, {}",
                config.projection_dim, config.text.encoder.hidden_size
            );
            return Err(ModelError::malformed(tree.path_of("config.json"), detail));
        }
        let processor = Owlv2Processor::load(tree, config.vision.image_size)?;
        if !processor.pads() {
            let path = tree.path_of("preprocessor_config.json");
            return Err(ModelError::unsupported(path, "`do_pad`", "false", "true"));
        }
        let text = &config.text;
        let tokenizer = ClipTokenizer::load(tree, text.max_position_embeddings, text.vocab_size)?;
        if tokenizer.start_token() == 0 {
            let detail =
                "begins a text with token 0, which marks an empty query in OWLv2; expected another id";
            return Err(ModelError::tokenizer(tokenizer.path(), detail));
        }
        let weights = Weights::load(tree, "model", dtype, device)?;
        let network = Owlv2Network::load(&config, weights.builder())?;
        weights.refuse_unused(&[&KNOWN_BUFFERS[..], &UNUSED[..]].concat())?;
        let fingerprint = weights.fingerprint(tree, &[&FILES[..], tokenizer.files()].concat())?;
        let tokens = config.vision.patches_per_side().pow(2);
        Ok(Self {
            network,
            tokenizer,
            processor,
            pictures_per_pass: (TOKENS_PER_PASS / tokens).max(1),
            device: device.clone(),
            dtype,
            text_width: config.projection_dim,
            suppression: Some(SUPPRESSION),
            fingerprint,
            cache: Cache::in_memory(),
            seen: Seen::new(SEEN),
        })
    }

    /// The same detector with another overlap (0 to 1) beyond which detections of one query count as one object;
    /// `None` reports every patch, as the reference does.
    #[must_use]
    pub fn with_suppression(mut self, overlap: Option<f32>) -> Self {
        self.suppression = overlap;
        self
    }

    /// The same detector with another cache for its queries, such as one on disk that outlives it.
    #[must_use]
    pub fn with_cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// The tokenizer, with the model's limits.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// The network, for what the trait does not offer, such as objectness.
    pub fn network(&self) -> &Owlv2Network {
        &self.network
    }

    /// Model inputs of pictures, shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// No picture, or one without pixels.
    pub fn pixel_values(&self, pictures: &[&Picture]) -> Result<Tensor> {
        let pixels: Vec<_> = pictures.iter().map(|picture| picture.pixels()).collect();
        Ok(self.processor.batch(&pixels, &self.device)?.to_dtype(self.dtype)?)
    }

    /// The predictions for each picture, each picture computed once.
    fn look(&self, pictures: &[&Picture]) -> Result<HashMap<ContentHash, Arc<PatchPredictions>>> {
        self.seen.get_or_look(pictures, self.pictures_per_pass, |part| {
            let predictions = self.network.forward(&self.pixel_values(part)?)?;
            let own = |index| {
                let own = predictions.picture(index)?;
                let bytes = bytes_of(&own);
                Ok((Arc::new(own), bytes))
            };
            (0..part.len()).map(own).collect()
        })
    }

    /// The embedding of each query, of unit length.
    fn embed(&self, queries: &[&str]) -> Result<Vec<Arc<[f64]>>> {
        let scope =
            Scope { kind: QUERY_EMBEDDING, model: &self.fingerprint, template: "", width: self.text_width };
        self.cache.get_or_compute(&scope, queries, |missing| {
            let mut embeddings = Vec::with_capacity(missing.len());
            for part in missing.chunks(TEXT_BATCH) {
                let ids =
                    part.iter().map(|query| self.tokenizer.encode(query)).collect::<Result<Vec<_>>>()?;
                let part = rows(&self.network.embed_texts(&ids)?, "the embedding of a query")?;
                embeddings.extend(part.into_iter().map(widened));
            }
            Ok(embeddings)
        })
    }

    fn find(&self, requests: &[DetectionRequest<'_>], min_confidence: f32) -> Result<Vec<Vec<Detection>>> {
        check_confidence(min_confidence)?;
        let queries: Vec<&str> = requests.iter().flat_map(|request| request.queries).copied().collect();
        let embeddings = self.embed(&queries).map_err(|error| error.at("text tower"))?;
        let asked = requests.iter().filter(|request| !request.queries.is_empty());
        let pictures: Vec<&Picture> = asked.map(|request| request.picture).collect();
        let predictions = self.look(&pictures).map_err(|error| error.at("vision tower"))?;
        let mut embeddings = embeddings.iter();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let own: Vec<_> = embeddings.by_ref().take(request.queries.len()).collect();
            if own.is_empty() {
                answers.push(Vec::new());
                continue;
            }
            let patches = self.scores(request.picture, &predictions, &own)?;
            answers.push(self.choose(request.picture, &patches, min_confidence));
        }
        Ok(answers)
    }

    /// What transformers' `post_process_grounded_object_detection` makes of one picture: each patch with its best query,
    /// if its score lies above `threshold` (0 to 1; the reference's default is [`DEFAULT_THRESHOLD`]). Doubles stay, and
    /// boxes may reach beyond the picture. The best first; among equals in the order of the patches.
    ///
    /// # Errors
    /// `Request` for a threshold out of range, a picture without pixels or no query; `NotANumber`.
    pub fn post_process(
        &self,
        picture: &Picture,
        queries: &[&str],
        threshold: f32,
    ) -> Result<Vec<PatchDetection>> {
        check_confidence(threshold)?;
        if queries.is_empty() {
            return Err(ModelError::Request("no query; expected what to look for".to_owned()));
        }
        let embeddings = self.embed(queries).map_err(|error| error.at("text tower"))?;
        let predictions = self.look(&[picture]).map_err(|error| error.at("vision tower"))?;
        let patches = self.scores(picture, &predictions, &embeddings.iter().collect::<Vec<_>>())?;
        let mut found: Vec<PatchDetection> = patches
            .iter()
            .filter_map(|(relative, scores)| {
                // The first of equals, as the reference's `max` has it.
                let best = |best: Option<(usize, f32)>, (query, &score): (usize, &f32)| match best {
                    Some((_, most)) if score <= most => best,
                    _ => Some((query, score)),
                };
                let (query, score) = scores.iter().enumerate().fold(None, best)?;
                let corners = relative.corners(picture.width(), picture.height());
                (score > threshold).then_some(PatchDetection { query, score, corners })
            })
            .collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(found)
    }

    /// Of each patch of a picture its box, and the score (0 to 1) of each query.
    fn scores(
        &self,
        picture: &Picture,
        predictions: &HashMap<ContentHash, Arc<PatchPredictions>>,
        queries: &[&Arc<[f64]>],
    ) -> Result<Vec<(RelativeBox, Vec<f32>)>> {
        // Nothing found is an answer, so that nothing seen must not look like it.
        let predictions = predictions
            .get(&picture.hash())
            .ok_or_else(|| ModelError::NotANumber("what the detector sees in a picture".to_owned()))?;
        let values: Vec<f32> = queries.iter().flat_map(|row| narrowed(row)).collect();
        let shape = (1, queries.len(), self.text_width);
        let queries = Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)?;
        let logits = predictions.logits(&queries, None)?.squeeze(0)?.to_vec2::<f32>()?;
        let boxes = predictions.boxes.squeeze(0)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        if logits.iter().chain(&boxes).flatten().any(|value| value.is_nan()) {
            return Err(ModelError::NotANumber("a score or box of the detector".to_owned()));
        }
        let patches = logits.into_iter().zip(&boxes).filter_map(|(logits, corners)| {
            let [x, y, width, height] = corners[..] else { return None };
            let scores = logits.into_iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect();
            Some((RelativeBox { x, y, width, height }, scores))
        });
        Ok(patches.collect())
    }

    /// Detections of one picture, every query on its own.
    fn choose(
        &self,
        picture: &Picture,
        patches: &[(RelativeBox, Vec<f32>)],
        min_confidence: f32,
    ) -> Vec<Detection> {
        let mut found = Vec::new();
        for (relative, scores) in patches {
            for (query, &confidence) in scores.iter().enumerate() {
                if confidence >= min_confidence
                    && let Some(region) = relative.in_picture(picture.width(), picture.height())
                {
                    found.push(Detection { query, confidence, region });
                }
            }
        }
        boxes::sort(&mut found);
        match self.suppression {
            Some(overlap) => boxes::suppress(found, overlap),
            None => found,
        }
    }
}

fn check_confidence(least: f32) -> Result<()> {
    if (0.0..=1.0).contains(&least) {
        return Ok(());
    }
    Err(ModelError::Request(format!("a confidence of {least}, expected 0 to 1")))
}

/// What predictions take in memory.
fn bytes_of(predictions: &PatchPredictions) -> usize {
    let PatchPredictions { class_embeddings, logit_shift, logit_scale, boxes, objectness } = predictions;
    let tensors = [class_embeddings, logit_shift, logit_scale, boxes, objectness];
    tensors.iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
}

impl RegionDetector for Owlv2Model {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn detect(
        &self,
        requests: &[DetectionRequest<'_>],
        min_confidence: f32,
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Vec<Detection>>> {
        call.check()?;
        Ok(self.find(requests, min_confidence)?)
    }
}
