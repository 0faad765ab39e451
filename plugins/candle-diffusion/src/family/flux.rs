//! Flux schnell and dev (diffusers 0.42.1, `pipelines/flux/pipeline_flux.py`).

use candle_core::Tensor;

use super::texts::{Clip, T5};
use super::{About, Conditioning, FEW_STEPS, Family, FamilyKind, Guidance, Loading, Text};
use crate::config::FluxConfig;
use crate::error::Result;
use crate::flux::FluxTransformer;
use crate::request::{GenerateRequest, Notice};
use crate::vae::Vae;

#[derive(Debug)]
pub(super) struct Flux {
    about: About,
    /// Only its pooled state is used.
    short: Clip,
    long: T5,
    transformer: FluxTransformer,
}

impl Flux {
    pub(super) fn load(loading: Loading<'_>, vae: &Vae) -> Result<Self> {
        let short = Clip::load(loading, "")?;
        let transformer =
            FluxTransformer::load(&loading.folder("transformer")?, loading.dtype, loading.device)?;
        let config = transformer.config();
        // Tokens of a text for T5 that the two models were trained with, unless its tokenizer says fewer.
        let long = T5::load(loading, "_2", if config.guidance { 512 } else { 256 })?;
        loading.fit(
            "a quarter of transformer's `in_channels` and vae's `latent_channels`",
            config.channels,
            vae.config().latent_channels,
        )?;
        let what = "text_encoder's `hidden_size` and transformer's `pooled_projection_dim`";
        loading.fit(what, short.encoder().pooled_width(), config.pooled_width)?;
        let what = "text_encoder_2's `d_model` and transformer's `joint_attention_dim`";
        loading.fit(what, long.width(), config.text_width)?;
        /// Side of the latents of 1024 pixels, which the configuration does not state.
        const SAMPLE: usize = 128;
        let about = About {
            kind: FamilyKind::Flux,
            inpaints: false,
            patch: FluxConfig::PATCH,
            sample_size: Some((SAMPLE, SAMPLE)),
            most_latents: None,
            guidance: if config.guidance { Guidance::Embedded } else { Guidance::Ignored },
            defaults: if config.guidance { (28, 3.5) } else { FEW_STEPS },
        };
        Ok(Self { about, short, long, transformer })
    }
}

impl Family for Flux {
    fn about(&self) -> &About {
        &self.about
    }

    fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Conditioning> {
        let pooled = self.short.encode(texts, notices)?.pooled;
        Ok(Conditioning { states: self.long.encode(texts, notices)?, pooled: Some(pooled) })
    }

    fn predict(
        &self,
        latents: &Tensor,
        timestep: f64,
        conditioning: &Conditioning,
        request: &GenerateRequest,
    ) -> Result<Tensor> {
        let text = (&conditioning.states, conditioning.pooled()?);
        Ok(self.transformer.forward(latents, timestep, text, request.guidance_scale)?)
    }
}
