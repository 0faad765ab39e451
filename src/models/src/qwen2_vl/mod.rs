//! Qwen2-VL: a vision-language model with dynamic picture sizes and rotary positions in time, row and column.
//!
//! Source: Wang et al., "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
//! (arXiv 2409.12191), and `models/qwen2_vl` in transformers 5.17, against which the golden tests hold this port.

mod config;
mod image;
mod vision;

use candle_core::{DType, Device, Tensor};
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Decoding, Fingerprint, LocalLanguageModel, Picture,
    Prompt, VisionLanguageModel,
};

pub use self::config::{Config, VisionConfig};
pub use self::image::{ImageProcessor, Patches};
use self::vision::VisionTower;
use crate::chat::CHAT_FILES;
use crate::error::{ModelError, Result};
use crate::files::FileTree;
use crate::language::{Chat, Decoder, Limits, Multimodal, PictureEncoder, PictureTokens};
use crate::weights::Weights;

/// Buffers that older versions of transformers saved beside the weights.
const KNOWN_BUFFERS: &[&str] = &["rotary_emb.inv_freq", "rotary_pos_emb.inv_freq"];

/// A loaded Qwen2-VL checkpoint.
#[derive(Debug)]
pub struct Qwen2Vl {
    model: Multimodal<Eyes>,
    config: Config,
}

/// The image processor and the vision tower.
#[derive(Debug)]
struct Eyes {
    processor: ImageProcessor,
    tower: VisionTower,
    /// Edge in pixels of the square that becomes one token.
    token: usize,
}

impl PictureEncoder for Eyes {
    /// Rows and columns of merged patches: they share one time and count from where the picture begins, and what
    /// follows starts after the longer edge (`get_rope_index` in `models/qwen2_vl/modeling_qwen2_vl.py`).
    fn tokens(&self, picture: &Picture) -> Result<PictureTokens> {
        let (width, height) = self.processor.size(picture.width(), picture.height())?;
        let edge = self.token as u32;
        let (rows, columns) = (height / edge, width / edge);
        let positions = (0..rows).flat_map(|y| (0..columns).map(move |x| [0, y, x])).collect();
        Ok(PictureTokens { positions, span: rows.max(columns) })
    }

    fn features(&self, picture: &Picture) -> Result<Tensor> {
        let patches = self.processor.patches(picture.pixels())?;
        self.tower.forward(&patches).map_err(|e| ModelError::from(e).at("the vision tower"))
    }
}

impl Qwen2Vl {
    /// Loads a checkpoint from a folder in Hugging Face layout. Weights are converted to `dtype`.
    ///
    /// # Errors
    /// A missing or malformed file, a missing, misshapen or unknown tensor, an unsupported configuration, a
    /// tokenizer without a token for Yes or No: each a [`ModelError`] that names it.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let config = Config::load(tree)?;
        let chat = Chat::load(tree, config.text.vocabulary, config.image_token, config.eos.clone())?;
        let processor = ImageProcessor::load(tree, &config.vision)?;
        let weights = Weights::load(tree, "model", dtype, device)?;
        let (tower, decoder) = build(&config, &weights)?;
        let mut files = vec!["config.json", "preprocessor_config.json", "processor_config.json"];
        files.extend_from_slice(CHAT_FILES);
        let fingerprint = weights.fingerprint(tree, &files)?;
        let eyes = Eyes { processor, tower, token: config.vision.patch * config.vision.merge };
        Ok(Self { model: Multimodal::new(eyes, decoder, chat, fingerprint), config })
    }

    /// The same model within other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { model: self.model.with_limits(limits), ..self }
    }

    /// The configuration that the checkpoint came with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The image processor that the checkpoint came with.
    pub fn processor(&self) -> &ImageProcessor {
        &self.model.encoder().processor
    }

    /// What the language model sees of a picture: `[tokens, hidden]`, tokens in reading order.
    ///
    /// # Errors
    /// `Request` for a picture that the processor refuses; `Tensor`.
    pub fn image_features(&self, picture: &Picture) -> Result<Tensor> {
        self.model.encoder().features(picture)
    }

    /// Logits of the next token, `vocabulary` values, for each prompt. Prompts with the same prefix run as a batch.
    ///
    /// # Errors
    /// `Request` for a prompt that is too long or holds control tokens; `NotANumber`; `Tensor`.
    pub fn next_logits(&self, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>> {
        self.model.next_logits(prompts)
    }
}

impl VisionLanguageModel for Qwen2Vl {
    fn fingerprint(&self) -> &Fingerprint {
        self.model.fingerprint()
    }

    fn score(&self, prompts: &[Prompt], call: &Call) -> cluegate_perception::Result<Vec<AnswerScore>> {
        Ok(self.model.score(prompts, call)?)
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        call: &Call,
    ) -> cluegate_perception::Result<Vec<Completion>> {
        self.model.complete(requests, call)
    }
}

impl LocalLanguageModel for Qwen2Vl {
    fn decoding(&self) -> Box<dyn Decoding + '_> {
        self.model.decoding()
    }
}

/// Builds both towers and sees that every tensor has found its place, whichever way the names are nested.
fn build(config: &Config, weights: &Weights) -> Result<(VisionTower, Decoder)> {
    let root = weights.builder();
    let nested = weights.contains_prefix("model.language_model.");
    let visual = if weights.contains_prefix("model.visual.") { "model.visual" } else { "visual" };
    let text = if nested { "model.language_model" } else { "model" };
    let tower = VisionTower::load(&config.vision, &root.pp(visual))?;
    let decoder = Decoder::load(&config.text, &root.pp(text), &root)?;
    let mut allowed = KNOWN_BUFFERS.to_vec();
    if config.text.tied {
        // Some converters store the shared table twice.
        allowed.push("lm_head.weight");
    }
    weights.refuse_unused(&allowed)?;
    Ok((tower, decoder))
}
