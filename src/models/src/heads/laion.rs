//! LAION's CLIP-based NSFW detector: a small network over CLIP's normalised embedding.
//!
//! Reference: `src/models.py`, `src/inference.py` and `convert_heads_to_pytorch.py` of LAION-AI/CLIP-based-NSFW-Detector at
//! 21072a2: the weights that were trained with Keras, saved anew as `models/clip_ViT-{L-14,B-32}_openai_binary_nsfw_head.pth`
//! (L/14: 768, 64, 512, 256, 1; B/32: 512, 32, 32, 1). Other widths and numbers of layers are read in the same layout.

use candle_core::{DType, Device, Tensor};
use cluegate_perception::{
    Call, ClassLabel, Classification, Fingerprint, Picture, PictureClassifier, RelevanceEncoder as _,
};

use super::{clip_folder, embed, fingerprint, finite, sigmoid};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::relevance::RelevanceModel;
use crate::weights::Weights;

/// What the head's file is called at its end.
const FILES: [&str; 2] = ["nsfw_head.pth", "nsfw_head.safetensors"];

/// Most layers of a head.
const MAX_LAYERS: usize = 16;

/// The reference adds this to the standard deviation.
const EPSILON: f64 = 1e-10;

/// From which score on a picture is unsafe (the reference's reports and CLUE's table count so).
const THRESHOLD: f32 = 0.5;

/// The detector over its CLIP.
pub struct LaionNsfw {
    clip: RelevanceModel,
    mean: Tensor,
    deviation: Tensor,
    /// Transposed weights and biases.
    layers: Vec<(Tensor, Tensor)>,
    device: Device,
    fingerprint: Fingerprint,
}

impl LaionNsfw {
    /// Reads the only file whose name ends with `nsfw_head.pth` or `nsfw_head.safetensors`, and CLIP in Hugging Face layout
    /// from the same folder or from `clip` in it.
    ///
    /// # Errors
    /// What [`RelevanceModel::load`] refuses; no head or several; a tensor that is missing, misshapen or unknown.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let clip = RelevanceModel::load(&clip_folder(tree)?, device, dtype)?;
        let name = head_file(tree)?;
        // The head is small, and its inputs are f32 whatever CLIP computes in.
        let weights = Weights::load_file(tree, &name, DType::F32, device)?;
        let builder = weights.builder();
        let width = clip.width();
        let norm = builder.pp("norm");
        let mean = norm.get(width, "mean")?;
        let deviation = (norm.get(width, "variance")?.sqrt()? + EPSILON)?;
        let mut layers = Vec::new();
        let mut inputs = width;
        for number in 1..=MAX_LAYERS {
            let layer = format!("linear_{number}");
            let Some(shape) = weights.shape(&format!("{layer}.weight")).map(<[usize]>::to_vec) else { break };
            let outputs = shape.first().copied().unwrap_or_default();
            let own = builder.pp(&layer);
            let weight = own.get((outputs, inputs), "weight")?.t()?.contiguous()?;
            layers.push((weight, own.get(outputs, "bias")?));
            inputs = outputs;
        }
        if layers.is_empty() || inputs != 1 {
            let detail = format!(
                "{} layers of which the last gives {inputs} numbers; expected linear_1, linear_2, ... of which the last \
                 gives one",
                layers.len()
            );
            return Err(ModelError::malformed(weights.path(), detail));
        }
        weights.refuse_unused(&[])?;
        let own = weights.fingerprint(tree, &[])?;
        let fingerprint = fingerprint("laion-nsfw", clip.fingerprint(), &own);
        Ok(Self { clip, mean, deviation, layers, device: device.clone(), fingerprint })
    }

    /// The head alone: scores, 0 to 1, of embeddings of length 1.
    ///
    /// # Errors
    /// Embeddings of another width; something that is not a number.
    pub fn scores(&self, embeddings: &[Vec<f32>]) -> Result<Vec<f32>> {
        let width = self.mean.dims()[0];
        let flat: Vec<f32> = embeddings.iter().flatten().copied().collect();
        let x = Tensor::from_vec(flat, (embeddings.len(), width), &self.device)?;
        let mut x = x.broadcast_sub(&self.mean)?.broadcast_div(&self.deviation)?;
        let last = self.layers.len() - 1;
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            x = x.matmul(weight)?.broadcast_add(bias)?;
            if index < last {
                x = x.relu()?;
            }
        }
        let logits = x.flatten_all()?.to_vec1::<f32>()?;
        logits
            .into_iter()
            .map(|logit| Ok(sigmoid(finite(logit, "the score of the NSFW detector")?)))
            .collect()
    }
}

fn head_file(tree: &FileTree) -> Result<String> {
    let is_head = |name: &String| !name.contains('/') && FILES.iter().any(|end| name.ends_with(end));
    let found: Vec<String> = tree.list()?.into_iter().filter(is_head).collect();
    match <[String; 1]>::try_from(found) {
        Ok([name]) => Ok(name),
        Err(found) => {
            let detail = format!(
                "expected one file whose name ends with {}, got {}",
                FILES.join(" or "),
                if found.is_empty() { "none".to_owned() } else { found.join(", ") }
            );
            Err(ModelError::malformed(tree.label(), detail))
        }
    }
}

impl PictureClassifier for LaionNsfw {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn classify(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Classification>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let scores = self.scores(&embed(&self.clip, pictures, call)?)?;
        let answer = |score: f32| {
            let label = ClassLabel { name: "nsfw".to_owned(), score, region: None };
            Classification { flagged: score > THRESHOLD, score, labels: vec![label] }
        };
        Ok(scores.into_iter().map(answer).collect())
    }
}
