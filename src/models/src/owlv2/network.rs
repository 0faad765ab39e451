//! OWLv2's towers and heads (transformers 5.17, `models/owlv2/modeling_owlv2.py`, `Owlv2ForObjectDetection`).

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{VarBuilder, ops::sigmoid};

use crate::clip::{Activation, DualConfig, TextTower, VisionTower};
use crate::layers::{Linear, Norm, normalise_rows};

/// Added to a vector's length before dividing by it (`Owlv2ClassPredictionHead`).
const LENGTH_EPSILON: f64 = 1e-6;

/// What the network says about each patch of each picture, before any query is known.
#[derive(Debug, Clone)]
pub struct PatchPredictions {
    /// Class embeddings of unit length, shape `(pictures, patches, text width)`.
    pub class_embeddings: Tensor,
    /// Added to each cosine, shape `(pictures, patches, 1)`.
    pub logit_shift: Tensor,
    /// Factor of the shifted cosine, shape `(pictures, patches, 1)`.
    pub logit_scale: Tensor,
    /// Boxes relative to the padded square as centre, width, height, 0 to 1, shape `(pictures, patches, 4)`.
    pub boxes: Tensor,
    /// Whether a patch shows any object at all, a logit, shape `(pictures, patches)`.
    pub objectness: Tensor,
}

impl PatchPredictions {
    /// Logits of queries, shape `(pictures, patches, queries)`. `queries` are text embeddings of shape
    /// `(pictures, queries, text width)`; where `padding` says that a query is none (shape `(pictures, queries)`, not
    /// zero for a query), its logits are the smallest number of their type.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn logits(&self, queries: &Tensor, padding: Option<&Tensor>) -> Result<Tensor> {
        let cosines =
            self.class_embeddings.matmul(&normalise_rows(queries, LENGTH_EPSILON)?.transpose(1, 2)?)?;
        let logits = cosines.broadcast_add(&self.logit_shift)?.broadcast_mul(&self.logit_scale)?;
        let Some(real) = padding else { return logits.to_dtype(DType::F32) };
        let logits = logits.to_dtype(DType::F32)?;
        let real = real.unsqueeze(1)?.broadcast_as(logits.shape())?;
        let lowest = Tensor::full(f32::MIN, logits.shape(), logits.device())?;
        real.ne(0u32)?.where_cond(&logits, &lowest)
    }

    /// The predictions about one picture, with a first axis of length 1.
    ///
    /// # Errors
    /// An index out of range.
    pub fn picture(&self, index: usize) -> Result<Self> {
        // Copied, so that a cached picture does not hold its whole batch.
        let own = |tensor: &Tensor| tensor.narrow(0, index, 1)?.force_contiguous();
        Ok(Self {
            class_embeddings: own(&self.class_embeddings)?,
            logit_shift: own(&self.logit_shift)?,
            logit_scale: own(&self.logit_scale)?,
            boxes: own(&self.boxes)?,
            objectness: own(&self.objectness)?,
        })
    }
}

/// Three affine maps with exact GELU between them.
#[derive(Debug, Clone)]
struct BoxHead([Linear; 3]);

impl BoxHead {
    fn load(width: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        let layer = |name: &str, outputs| Linear::load(width, outputs, &weights.pp(name));
        Ok(Self([layer("dense0", width)?, layer("dense1", width)?, layer("dense2", outputs)?]))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second, last] = &self.0;
        let x = first.forward_activate(x, Activation::Gelu)?;
        last.forward(&second.forward_activate(&x, Activation::Gelu)?)
    }
}

/// The network without tokenizer and preprocessing.
#[derive(Debug, Clone)]
pub struct Owlv2Network {
    text: TextTower,
    text_projection: Tensor,
    vision: VisionTower,
    merged_norm: Norm,
    class_embedding: Linear,
    logit_shift: Linear,
    logit_scale: Linear,
    box_head: BoxHead,
    objectness_head: BoxHead,
    box_bias: Tensor,
}

impl Owlv2Network {
    /// Reads all tensors below `weights`.
    ///
    /// # Errors
    /// A missing or misshapen tensor.
    pub fn load(config: &DualConfig, weights: VarBuilder) -> Result<Self> {
        let text_width = config.text.encoder.hidden_size;
        let vision = &config.vision.encoder;
        let width = vision.hidden_size;
        let (base, class_head) = (weights.pp("owlv2"), weights.pp("class_head"));
        Ok(Self {
            text: TextTower::load_highest_id(&config.text, base.pp("text_model"))?,
            text_projection: base.get((config.projection_dim, text_width), "text_projection.weight")?,
            vision: VisionTower::load(&config.vision, "pre_layernorm", base.pp("vision_model"))?,
            merged_norm: Norm::layer(width, vision.layer_norm_eps, &weights.pp("layer_norm"))?,
            class_embedding: Linear::load(width, text_width, &class_head.pp("dense0"))?,
            logit_shift: Linear::load(width, 1, &class_head.pp("logit_shift"))?,
            logit_scale: Linear::load(width, 1, &class_head.pp("logit_scale"))?,
            box_head: BoxHead::load(width, 4, weights.pp("box_head"))?,
            objectness_head: BoxHead::load(width, 1, weights.pp("objectness_head"))?,
            box_bias: box_bias(config.vision.patches_per_side(), &weights)?,
        })
    }

    /// Embeddings of texts given as token ids, of unit length, shape `(texts, projection)`.
    ///
    /// # Errors
    /// See [`TextTower::forward`].
    pub fn embed_texts(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        normalise_rows(&self.text.forward(texts)?.matmul(&self.text_projection.t()?)?, 0.0)
    }

    /// One pass over pictures, `pixel_values` of shape `(pictures, 3, side, side)`.
    ///
    /// # Errors
    /// Inputs of another shape, or a failed tensor operation.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<PatchPredictions> {
        let states = self.vision.forward_all(pixel_values)?;
        let (pictures, tokens, width) = states.dims3()?;
        let patches = tokens - 1;
        // Each patch is weighted by the class token, which is dropped.
        let merged = states.narrow(1, 1, patches)?.broadcast_mul(&states.narrow(1, 0, 1)?)?;
        let merged = self.merged_norm.forward(&merged.reshape((pictures * patches, width))?)?;
        let shape = |x: Tensor| {
            let last = x.dim(D::Minus1)?;
            x.reshape((pictures, patches, last))
        };
        let boxes = shape(self.box_head.forward(&merged)?)?.broadcast_add(&self.box_bias)?;
        Ok(PatchPredictions {
            class_embeddings: shape(normalise_rows(
                &self.class_embedding.forward(&merged)?,
                LENGTH_EPSILON,
            )?)?,
            logit_shift: shape(self.logit_shift.forward(&merged)?)?,
            logit_scale: (shape(self.logit_scale.forward(&merged)?)?.elu(1.0)? + 1.0)?,
            boxes: sigmoid(&boxes)?,
            objectness: shape(self.objectness_head.forward(&merged)?)?.squeeze(2)?,
        })
    }
}

/// What is added to the box head's output, so that a zero means: a box of one patch's size whose centre is the lower
/// right corner of the patch (`compute_box_bias`). Shape `(patches, 4)`.
fn box_bias(side: usize, weights: &VarBuilder) -> Result<Tensor> {
    let logit = |x: f32| (x + 1e-4).ln() - (-x + 1e-4).ln_1p();
    let size = logit(1.0 / side as f32);
    let place = |index: usize| logit((index + 1) as f32 / side as f32);
    let values: Vec<f32> = (0..side)
        .flat_map(|row| (0..side).flat_map(move |column| [place(column), place(row), size, size]))
        .collect();
    Tensor::from_vec(values, (side * side, 4), weights.device())?.to_dtype(weights.dtype())
}
