//! What differs between the families of models: text encoders, denoiser, and what a request means by default.

mod flux;
#[cfg(test)]
mod goldens;
mod sd3;
mod stable_diffusion;
mod texts;
mod xl;

use std::fmt;

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, ModelError};

use crate::error::Result;
use crate::index::Index;
use crate::request::{GenerateRequest, Notice};
use crate::vae::Vae;

pub(crate) use texts::Text;

/// The families of models that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FamilyKind {
    /// Stable Diffusion 1.x and 2.x, SD-Turbo.
    StableDiffusion,
    /// Stable Diffusion XL, SDXL-Turbo.
    StableDiffusionXl,
    /// Stable Diffusion 3 and 3.5.
    StableDiffusion3,
    /// Flux schnell and dev.
    Flux,
}

impl FamilyKind {
    /// Stable name in kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StableDiffusion => "stable-diffusion",
            Self::StableDiffusionXl => "stable-diffusion-xl",
            Self::StableDiffusion3 => "stable-diffusion-3",
            Self::Flux => "flux",
        }
    }

    /// Whether the models were trained by flow matching, and so want its scheduler.
    pub fn is_flow(self) -> bool {
        matches!(self, Self::StableDiffusion3 | Self::Flux)
    }
}

/// What a guidance scale means to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guidance {
    /// A second prediction for the negative prompt in every step.
    Classifier,
    /// A conditioning of the only prediction.
    Embedded,
    /// Nothing.
    Ignored,
}

/// What the loop has to know of a model.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) kind: FamilyKind,
    /// Whether the denoiser also sees mask and masked picture, and so draws only into pictures.
    pub(crate) inpaints: bool,
    /// Both sides of the latents are multiples of it.
    pub(crate) patch: usize,
    /// Height and width of the latents that the model was trained on.
    pub(crate) sample_size: Option<(usize, usize)>,
    /// Most latents of a side.
    pub(crate) most_latents: Option<usize>,
    pub(crate) guidance: Guidance,
    /// Steps and guidance scale of a request that names none.
    pub(crate) defaults: (usize, f64),
}

/// What the text encoders made of a request's texts, a row each; the negative prompt's first.
#[derive(Debug, Clone)]
pub(crate) struct Conditioning {
    /// `(texts, tokens, width)`.
    pub(crate) states: Tensor,
    /// `(texts, width)`, for the families that use it.
    pub(crate) pooled: Option<Tensor>,
}

impl Conditioning {
    /// The pooled text of a family that uses it.
    fn pooled(&self) -> Result<&Tensor> {
        let missing = || {
            let detail = "expected pooled text, found none".to_owned();
            ModelError::Tensor { op: "the conditioning".to_owned(), detail }.into()
        };
        self.pooled.as_ref().ok_or_else(missing)
    }
}

/// Text encoders and denoiser of one model.
pub(crate) trait Family: fmt::Debug + Send + Sync {
    fn about(&self) -> &About;

    /// Encodes `texts`; writes down what was cut off.
    fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Conditioning>;

    /// The prediction, f32, for as many copies of the latents as there are texts.
    fn predict(
        &self,
        latents: &Tensor,
        timestep: f64,
        conditioning: &Conditioning,
        request: &GenerateRequest,
    ) -> Result<Tensor>;
}

/// Where a model is loaded from and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loading<'a> {
    pub(crate) tree: &'a FileTree,
    pub(crate) index: &'a Index,
    pub(crate) device: &'a Device,
    pub(crate) dtype: DType,
}

impl Loading<'_> {
    fn folder(&self, name: &str) -> Result<FileTree> {
        Ok(self.tree.folder(name)?)
    }

    /// Refuses parts of which one's output is not what the other takes.
    fn fit(&self, what: &str, a: usize, b: usize) -> Result<()> {
        if a == b {
            return Ok(());
        }
        let detail = format!("{what} differ: {a} and {b}");
        Err(ModelError::malformed(self.tree.path_of("model_index.json"), detail).into())
    }
}

/// Loads text encoders and denoiser of the model that the index names. `few_steps` says whether its scheduler is that of a
/// distilled model.
pub(crate) fn load(loading: Loading<'_>, vae: &Vae, few_steps: bool) -> Result<Box<dyn Family>> {
    Ok(match loading.index.kind {
        FamilyKind::StableDiffusion => {
            Box::new(stable_diffusion::StableDiffusion::load(loading, vae, few_steps)?)
        }
        FamilyKind::StableDiffusionXl => Box::new(xl::StableDiffusionXl::load(loading, vae, few_steps)?),
        FamilyKind::StableDiffusion3 => Box::new(sd3::StableDiffusion3::load(loading, vae)?),
        FamilyKind::Flux => Box::new(flux::Flux::load(loading, vae)?),
    })
}

/// Steps and guidance scale of a distilled model.
const FEW_STEPS: (usize, f64) = (4, 1.0);

/// Whether a UNet with these channels in and out draws into pictures; refused if it does neither that nor draw alone.
fn inpaints(loading: Loading<'_>, vae: &Vae, channels: (usize, usize)) -> Result<bool> {
    let latent = vae.config().latent_channels;
    loading.fit("unet's `out_channels` and vae's `latent_channels`", channels.1, latent)?;
    // Latents, mask, latents of the masked picture.
    if channels.0 == 2 * latent + 1 {
        return Ok(true);
    }
    loading.fit("unet's `in_channels` and vae's `latent_channels`", channels.0, latent)?;
    Ok(false)
}
