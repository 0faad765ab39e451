//! The safety checker of Stable Diffusion (CompVis/stable-diffusion-safety-checker): cosines of CLIP's embedding with
//! seventeen concepts and three that ask for special care, each with a threshold of its own.
//!
//! Reference: `pipelines/stable_diffusion/safety_checker.py` of diffusers 0.36, `StableDiffusionSafetyChecker.forward`,
//! with the rounding to three decimals and the adjustment of 0.01 that it makes. Its sums are in f32, as they are with
//! NumPy 2. What the concepts are was never published, so they are called by their numbers.

use candle_core::{DType, Device, Tensor};
use cluegate_perception::{Call, ClassLabel, Classification, Fingerprint, Picture, PictureClassifier};

use super::finite;
use crate::clip::{DualConfig, PictureProcessor, ProcessorKind, VisionTower};
use crate::error::Result;
use crate::files::FileTree;
use crate::weights::Weights;

/// Concepts, and those that ask for special care.
const CONCEPTS: usize = 17;
const SPECIAL: usize = 3;

/// What is added to later scores once a special concept was found.
const ADJUSTMENT: f32 = 0.01;

/// Pictures of one forward pass.
const BATCH: usize = 16;

/// Files beside the weights that decide about the answers.
const FILES: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// Buffers that older versions of the reference saved.
const KNOWN_BUFFERS: [&str; 1] = ["embeddings.position_ids"];

/// The margins of one picture: cosine less threshold, rounded to three decimals, the adjustment included.
#[derive(Debug, Clone, PartialEq)]
pub struct Margins {
    /// Of the special concepts; one above 0 makes the later ones stricter.
    pub special: [f32; SPECIAL],
    /// Of the concepts; one above 0 makes the picture unsafe.
    pub concepts: [f32; CONCEPTS],
}

/// Embeddings with their thresholds.
struct Concepts {
    /// Unit vectors, `(count, width)`, transposed.
    embeddings: Tensor,
    thresholds: Vec<f32>,
}

/// The safety checker.
pub struct SafetyChecker {
    processor: PictureProcessor,
    vision: VisionTower,
    projection: Tensor,
    special: Concepts,
    concepts: Concepts,
    device: Device,
    fingerprint: Fingerprint,
}

impl SafetyChecker {
    /// Reads `config.json`, `preprocessor_config.json` and the weights, as published.
    ///
    /// # Errors
    /// A file that is missing, malformed, or does not fit the others; a tensor that is missing, misshapen or unknown.
    pub fn load(tree: &FileTree, device: &Device) -> Result<Self> {
        let config = DualConfig::load_clip(tree)?;
        let processor = PictureProcessor::load(tree, ProcessorKind::Clip, config.vision.image_size)?;
        let weights = Weights::load(tree, "model", DType::F32, device)?;
        let builder = weights.builder();
        // transformers 5 no longer nests the vision model in itself.
        let nested = weights.contains_prefix("vision_model.vision_model.");
        let tower = if nested { builder.pp("vision_model.vision_model") } else { builder.pp("vision_model") };
        let vision = VisionTower::load(&config.vision, "pre_layrnorm", tower)?;
        let width = config.projection_dim;
        let projection =
            builder.get((width, config.vision.encoder.hidden_size), "visual_projection.weight")?;
        let concepts = |name: &str, count: usize| -> Result<Concepts> {
            let embeddings = unit_rows(&builder.get((count, width), name)?)?.t()?.contiguous()?;
            let thresholds = builder.get(count, &format!("{name}_weights"))?.to_vec1::<f32>()?;
            Ok(Concepts { embeddings, thresholds })
        };
        let special = concepts("special_care_embeds", SPECIAL)?;
        let concepts = concepts("concept_embeds", CONCEPTS)?;
        weights.refuse_unused(&KNOWN_BUFFERS)?;
        Ok(Self {
            processor,
            vision,
            projection: projection.t()?.contiguous()?,
            special,
            concepts,
            device: device.clone(),
            fingerprint: super::fingerprint("sd-safety-checker", "", &weights.fingerprint(tree, &FILES)?),
        })
    }

    /// The margins of pictures.
    ///
    /// # Errors
    /// CLIP failed, or computed something that is not a number.
    pub fn margins(&self, pictures: &[Picture]) -> Result<Vec<Margins>> {
        let mut all = Vec::with_capacity(pictures.len());
        for part in pictures.chunks(BATCH) {
            all.extend(self.margins_of(&self.processor.batch(part, &self.device)?)?);
        }
        Ok(all)
    }

    /// The margins of model inputs, `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// As [`Self::margins`]; inputs of another shape.
    pub fn margins_of(&self, pixel_values: &Tensor) -> Result<Vec<Margins>> {
        let embeddings = self.vision.forward_class(pixel_values)?.matmul(&self.projection)?;
        let embeddings = unit_rows(&embeddings)?;
        let cosines = |concepts: &Concepts| embeddings.matmul(&concepts.embeddings)?.to_vec2::<f32>();
        let (special, concepts) = (cosines(&self.special)?, cosines(&self.concepts)?);
        let margins = special.iter().zip(&concepts).map(|(special, concepts)| {
            let mut adjustment = 0.0;
            let mut margins = Margins { special: [0.0; SPECIAL], concepts: [0.0; CONCEPTS] };
            for (index, margin) in margins.special.iter_mut().enumerate() {
                *margin = round(special[index] - self.special.thresholds[index] + adjustment)?;
                if *margin > 0.0 {
                    adjustment = ADJUSTMENT;
                }
            }
            for (index, margin) in margins.concepts.iter_mut().enumerate() {
                *margin = round(concepts[index] - self.concepts.thresholds[index] + adjustment)?;
            }
            Ok(margins)
        });
        margins.collect()
    }
}

/// Rows of length 1; a row shorter than 1e-12 is divided by that, as `torch.nn.functional.normalize` does.
fn unit_rows(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?)
}

/// To three decimals, ties to the even one.
fn round(margin: f32) -> Result<f32> {
    Ok((finite(margin, "a cosine of the safety checker")? * 1000.0).round_ties_even() / 1000.0)
}

impl PictureClassifier for SafetyChecker {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn classify(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Classification>> {
        call.check()?;
        // A margin of -1 to 1 as a score: one half where the reference begins to refuse.
        let score = |margin: f32| f32::midpoint(margin, 1.0).clamp(0.0, 1.0);
        let answer = |margins: Margins| {
            let largest = margins.concepts.iter().copied().fold(-1.0, f32::max);
            let named = |name: &'static str, margins: Vec<f32>| {
                margins.into_iter().enumerate().map(move |(index, margin)| ClassLabel {
                    name: format!("{name}-{index}"),
                    score: score(margin),
                    region: None,
                })
            };
            let special = named("special-care", margins.special.to_vec());
            let labels = special.chain(named("concept", margins.concepts.to_vec())).collect();
            Classification { flagged: largest > 0.0, score: score(largest), labels }
        };
        Ok(self.margins(pictures)?.into_iter().map(answer).collect())
    }
}
