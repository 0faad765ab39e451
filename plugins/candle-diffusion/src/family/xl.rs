//! Stable Diffusion XL (Podell et al. 2023; diffusers 0.42.1,
//! `pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py`).

use candle_core::{D, Tensor};

use super::texts::Clip;
use super::{About, Conditioning, FEW_STEPS, Family, FamilyKind, Guidance, Loading, Text, inpaints};
use crate::error::Result;
use crate::request::{GenerateRequest, Notice};
use crate::unet::{Added, UNet};
use crate::vae::Vae;

#[derive(Debug)]
pub(super) struct StableDiffusionXl {
    about: About,
    first: Clip,
    second: Clip,
    unet: UNet,
    /// Whether an empty negative prompt is a conditioning of zeros, not an encoded empty text.
    zeros_for_empty: bool,
}

impl StableDiffusionXl {
    pub(super) fn load(loading: Loading<'_>, vae: &Vae, few_steps: bool) -> Result<Self> {
        let (first, second) = (Clip::load(loading, "")?, Clip::load(loading, "_2")?);
        let unet = UNet::load(&loading.folder("unet")?, loading.dtype, loading.device)?;
        let config = unet.config();
        loading.fit(
            "the two text encoders' `hidden_size` together and unet's `cross_attention_dim`",
            first.encoder().config().hidden_size + second.encoder().config().hidden_size,
            config.cross_attention_dim,
        )?;
        loading.fit(
            "text_encoder_2's `projection_dim` and what unet's `projection_class_embeddings_input_dim` leaves for it",
            second.encoder().pooled_width(),
            config.added.map_or(0, |added| added.pooled_width()),
        )?;
        let about = About {
            kind: FamilyKind::StableDiffusionXl,
            inpaints: inpaints(loading, vae, (config.in_channels, config.out_channels))?,
            patch: 1,
            sample_size: config.sample_size,
            most_latents: None,
            guidance: Guidance::Classifier,
            defaults: if few_steps { FEW_STEPS } else { (30, 5.0) },
        };
        let zeros_for_empty = loading.index.flag("force_zeros_for_empty_prompt", true)?;
        Ok(Self { about, first, second, unet, zeros_for_empty })
    }
}

impl Family for StableDiffusionXl {
    fn about(&self) -> &About {
        &self.about
    }

    fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Conditioning> {
        let (first, second) = (self.first.encode(texts, notices)?, self.second.encode(texts, notices)?);
        let states = Tensor::cat(&[first.penultimate, second.penultimate], D::Minus1)?;
        let mut pooled = second.pooled;
        let is_zero =
            |text: &Text<'_>| self.zeros_for_empty && text.field == Text::NEGATIVE && text.text.is_empty();
        if !texts.iter().any(is_zero) {
            return Ok(Conditioning { states, pooled: Some(pooled) });
        }
        let kept: Vec<f32> = texts.iter().map(|text| if is_zero(text) { 0.0 } else { 1.0 }).collect();
        let kept = Tensor::from_vec(kept, (texts.len(), 1), states.device())?;
        pooled = pooled.broadcast_mul(&kept)?;
        Ok(Conditioning { states: states.broadcast_mul(&kept.unsqueeze(1)?)?, pooled: Some(pooled) })
    }

    fn predict(
        &self,
        latents: &Tensor,
        timestep: f64,
        conditioning: &Conditioning,
        request: &GenerateRequest,
    ) -> Result<Tensor> {
        let (height, width) = (f64::from(request.height), f64::from(request.width));
        // As of a picture that was trained on in its own size, without a crop.
        let time_ids = [height, width, 0.0, 0.0, height, width];
        let added = Added { pooled: conditioning.pooled()?.clone(), time_ids };
        Ok(self.unet.forward_added(latents, timestep, &conditioning.states, Some(&added))?)
    }
}
