//! Q16 (Schramowski et al., "Can Machines Help Us Answering Question 16 in Datasheets?", arXiv 2202.06675): two embeddings
//! learned by prompt tuning, of which the nearer one says whether a picture is inappropriate.
//!
//! Reference: `main/clip_classifier/classify/utils.py` of ml-research/Q16 at 33de788 (`SimClassifier`, `load_prompts`). The
//! reference computes in half precision on a GPU; here it is f32.

use candle_core::{DType, Device};
use cluegate_perception::{
    Call, ClassLabel, Classification, Fingerprint, Picture, PictureClassifier, RelevanceEncoder as _,
};

use super::{clip_folder, embed, fingerprint, finite, numpy};
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::relevance::RelevanceModel;

/// The learned embeddings, as published (`data/ViT-L-14/prompts.p`).
const PROMPTS: &str = "prompts.p";

/// What the embeddings stand for, in their order.
const LABELS: [&str; 2] = ["appropriate", "inappropriate"];

/// The reference multiplies cosines by this.
const SCALE: f32 = 100.0;

/// Q16 over its CLIP.
pub struct Q16 {
    clip: RelevanceModel,
    /// Unit vectors.
    prompts: [Vec<f32>; 2],
    fingerprint: Fingerprint,
}

impl Q16 {
    /// Reads `prompts.p`, and CLIP in Hugging Face layout from the same folder or from `clip` in it.
    ///
    /// # Errors
    /// What [`RelevanceModel::load`] refuses; a `prompts.p` that is no matrix of two rows as wide as CLIP's space.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let clip = RelevanceModel::load(&clip_folder(tree)?, device, dtype)?;
        let path = tree.path_of(PROMPTS);
        let rows = numpy::matrix(&path, &tree.read(PROMPTS)?)?;
        let shape = (rows.len(), rows.first().map_or(0, Vec::len));
        let malformed = |detail: String| ModelError::malformed(&path, detail);
        let prompts: [Vec<f32>; 2] = rows.try_into().map_err(|_| {
            malformed(format!("a matrix of {} x {}, expected two rows: {LABELS:?}", shape.0, shape.1))
        })?;
        if shape.1 != clip.width() {
            return Err(malformed(format!(
                "embeddings of {} numbers, the CLIP beside it has {}: take the prompts of that CLIP",
                shape.1,
                clip.width()
            )));
        }
        let prompts = prompts.map(unit);
        if prompts.iter().flatten().any(|value| !value.is_finite()) {
            return Err(malformed("an embedding that is zero or holds what is no number".to_owned()));
        }
        let own = crate::files::fingerprint(tree, &[PROMPTS])?;
        let fingerprint = fingerprint("q16", clip.fingerprint(), &own);
        Ok(Self { clip, prompts, fingerprint })
    }

    /// A hundred times the cosine with each of the two embeddings, as the reference has it.
    ///
    /// # Errors
    /// CLIP failed.
    pub fn similarities(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<[f32; 2]>> {
        let rows = embed(&self.clip, pictures, call)?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        Ok(rows.iter().map(|row| [0, 1].map(|index: usize| SCALE * dot(row, &self.prompts[index]))).collect())
    }
}

/// A vector of length 1; not a number where it has no length.
fn unit(values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}

impl PictureClassifier for Q16 {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn classify(
        &self,
        pictures: &[Picture],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Classification>> {
        let answer = |[appropriate, inappropriate]: [f32; 2]| {
            let score = super::sigmoid(finite(inappropriate - appropriate, "Q16's similarity")?);
            let labels = [1.0 - score, score].into_iter().zip(LABELS);
            let label =
                |(score, name): (f32, &str)| ClassLabel { name: name.to_owned(), score, region: None };
            // The reference takes the first of the largest: a tie is appropriate.
            let flagged = inappropriate > appropriate;
            Ok(Classification { flagged, score, labels: labels.map(label).collect() })
        };
        let answers = self.similarities(pictures, call)?.into_iter().map(answer).collect::<Result<_>>();
        Ok(answers?)
    }
}
