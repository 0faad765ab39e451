//! SigLIP, and SigLIP 2 of a fixed resolution: pictures and texts in one space, trained with a sigmoid.
//!
//! Sources: Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343), and
//! `models/siglip/modeling_siglip.py` in transformers 5.17 (`SiglipModel`), against which the golden tests hold this
//! port. It differs from CLIP in a head that gathers the patches of a picture with one learned query, in texts whose
//! tokens all see each other and are padded to a fixed length, and in a scale and bias that make a logit of a cosine.

mod tokenizer;
mod towers;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use cluegate_perception::{Picture, TextLength};

pub use tokenizer::SiglipTokenizer;
pub(crate) use towers::PatchTower;
use towers::PoolingHead;

use crate::clip::{DualConfig, KNOWN_BUFFERS, PictureProcessor, ProcessorKind, TextTower};
use crate::error::Result;
use crate::files::FileTree;
use crate::layers::Linear;
use crate::relevance::{Loaded, Sigmoid, Towers};
use crate::weights::Weights;

/// From which cosine a rule counts as relevant: the middle of the range that the paper plots for SigLIP (-0.05 to 0.05),
/// where picture and text are neither alike nor opposed. The sigmoid was trained on one match among tens of thousands
/// of pairs and calls a pair a match only from a cosine of about 0.11 on; a rule may be touched without being what the
/// picture is about, and a rule that is lost is never asked, so the scan cuts far below.
const THRESHOLD: f32 = 0.0;

/// Both towers with what precedes and follows them.
struct Siglip {
    text: TextTower,
    text_head: Linear,
    vision: PatchTower,
    vision_head: PoolingHead,
    tokenizer: SiglipTokenizer,
    processor: PictureProcessor,
    device: Device,
    dtype: DType,
}

/// Reads a `SiglipModel`.
pub(crate) fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Loaded> {
    let config = DualConfig::load_siglip(tree)?;
    let processor = PictureProcessor::load(tree, ProcessorKind::Siglip, config.vision.image_size)?;
    let text = &config.text;
    let tokenizer = SiglipTokenizer::load(tree, text.max_position_embeddings, text.vocab_size)?;
    let weights = Weights::load(tree, "model", dtype, device)?;
    let builder = weights.builder();
    let model = Siglip {
        text: TextTower::load_last(text, builder.pp("text_model"))?,
        text_head: Linear::load(
            text.encoder.hidden_size,
            config.projection_dim,
            &builder.pp("text_model.head"),
        )?,
        vision: PatchTower::load(&config.vision, &builder.pp("vision_model"))?,
        vision_head: PoolingHead::load(&config.vision, &builder.pp("vision_model.head"))?,
        tokenizer,
        processor,
        device: device.clone(),
        dtype,
    };
    let sigmoid =
        Sigmoid { scale: scalar(&builder, "logit_scale")?.exp(), bias: scalar(&builder, "logit_bias")? };
    weights.refuse_unused(&KNOWN_BUFFERS)?;
    Ok(Loaded {
        towers: Box::new(model),
        weights,
        tokenizer_files: &tokenizer::FILES,
        threshold: THRESHOLD,
        sigmoid: Some(sigmoid),
    })
}

fn scalar(weights: &VarBuilder, name: &str) -> candle_core::Result<f32> {
    weights.get(1, name)?.to_dtype(DType::F32)?.squeeze(0)?.to_scalar()
}

impl Towers for Siglip {
    fn pixel_values(&self, pictures: &[Picture]) -> Result<Tensor> {
        Ok(self.processor.batch(pictures, &self.device)?.to_dtype(self.dtype)?)
    }

    fn picture_features(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision_head.forward(&self.vision.forward(pixel_values)?, pixel_values.dim(0)?)?)
    }

    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode(text)
    }

    fn text_length(&self, text: &str) -> Result<TextLength> {
        self.tokenizer.length(text)
    }

    fn text_features(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        Ok(self.text_head.forward(&self.text.forward(texts)?)?)
    }

    fn width(&self) -> usize {
        self.text_head.outputs()
    }
}
