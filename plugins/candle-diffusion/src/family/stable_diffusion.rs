//! Stable Diffusion 1.x and 2.x (diffusers 0.42.1, `pipelines/stable_diffusion/pipeline_stable_diffusion.py`).

use candle_core::Tensor;

use super::texts::Clip;
use super::{About, Conditioning, FEW_STEPS, Family, FamilyKind, Guidance, Loading, Text, inpaints};
use crate::error::Result;
use crate::request::{GenerateRequest, Notice};
use crate::unet::UNet;
use crate::vae::Vae;

#[derive(Debug)]
pub(super) struct StableDiffusion {
    about: About,
    text: Clip,
    unet: UNet,
}

impl StableDiffusion {
    pub(super) fn load(loading: Loading<'_>, vae: &Vae, few_steps: bool) -> Result<Self> {
        let text = Clip::load(loading, "")?;
        let unet = UNet::load(&loading.folder("unet")?, loading.dtype, loading.device)?;
        let config = unet.config();
        loading.fit(
            "text_encoder's `hidden_size` and unet's `cross_attention_dim`",
            text.encoder().config().hidden_size,
            config.cross_attention_dim,
        )?;
        // An added conditioning is SDXL's.
        loading.fit("unet's added conditionings and those of its pipeline", config.added.iter().len(), 0)?;
        let about = About {
            kind: FamilyKind::StableDiffusion,
            inpaints: inpaints(loading, vae, (config.in_channels, config.out_channels))?,
            patch: 1,
            sample_size: config.sample_size,
            most_latents: None,
            guidance: Guidance::Classifier,
            defaults: if few_steps { FEW_STEPS } else { (20, 7.5) },
        };
        Ok(Self { about, text, unet })
    }
}

impl Family for StableDiffusion {
    fn about(&self) -> &About {
        &self.about
    }

    fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Conditioning> {
        Ok(Conditioning { states: self.text.encode(texts, notices)?.last, pooled: None })
    }

    fn predict(
        &self,
        latents: &Tensor,
        timestep: f64,
        conditioning: &Conditioning,
        _request: &GenerateRequest,
    ) -> Result<Tensor> {
        Ok(self.unet.forward(latents, timestep, &conditioning.states)?)
    }
}
