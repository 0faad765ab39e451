//! Stable Diffusion 3 and 3.5 (Esser et al. 2024; diffusers 0.42.1,
//! `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py`).

use candle_core::{D, DType, Tensor};

use super::texts::{Clip, T5};
use super::{About, Conditioning, Family, FamilyKind, Guidance, Loading, Text};
use crate::error::Result;
use crate::request::{GenerateRequest, Notice};
use crate::sd3::Sd3Transformer;
use crate::vae::Vae;

/// Tokens of a text for T5, unless its tokenizer says fewer.
const LENGTH: usize = 256;

#[derive(Debug)]
pub(super) struct StableDiffusion3 {
    about: About,
    first: Clip,
    second: Clip,
    /// May be left out, which saves most of the memory; its states are zeros then.
    third: Option<T5>,
    transformer: Sd3Transformer,
}

impl StableDiffusion3 {
    pub(super) fn load(loading: Loading<'_>, vae: &Vae) -> Result<Self> {
        let (first, second) = (Clip::load(loading, "")?, Clip::load(loading, "_2")?);
        let third = loading.index.class_of("text_encoder_3").map(|_| T5::load(loading, "_3", LENGTH));
        let third = third.transpose()?;
        let transformer =
            Sd3Transformer::load(&loading.folder("transformer")?, loading.dtype, loading.device)?;
        let config = transformer.config();
        loading.fit(
            "transformer's `in_channels` and vae's `latent_channels`",
            config.channels,
            vae.config().latent_channels,
        )?;
        loading.fit(
            "the two CLIP encoders' `projection_dim` together and transformer's `pooled_projection_dim`",
            first.encoder().pooled_width() + second.encoder().pooled_width(),
            config.pooled_width,
        )?;
        if let Some(third) = &third {
            let what = "text_encoder_3's `d_model` and transformer's `joint_attention_dim`";
            loading.fit(what, third.width(), config.text_width)?;
        }
        let clip = first.encoder().config().hidden_size + second.encoder().config().hidden_size;
        loading.fit(
            "the two CLIP encoders' `hidden_size` beyond transformer's `joint_attention_dim` and nothing",
            clip.saturating_sub(config.text_width),
            0,
        )?;
        let about = About {
            kind: FamilyKind::StableDiffusion3,
            inpaints: false,
            patch: config.patch,
            sample_size: Some((config.sample_size, config.sample_size)),
            most_latents: Some(config.max_patches * config.patch),
            guidance: Guidance::Classifier,
            defaults: (28, 7.0),
        };
        Ok(Self { about, first, second, third, transformer })
    }
}

impl Family for StableDiffusion3 {
    fn about(&self) -> &About {
        &self.about
    }

    fn encode(&self, texts: &[Text<'_>], notices: &mut Vec<Notice>) -> Result<Conditioning> {
        let (first, second) = (self.first.encode(texts, notices)?, self.second.encode(texts, notices)?);
        let width = self.transformer.config().text_width;
        let clip = Tensor::cat(&[first.penultimate, second.penultimate], D::Minus1)?;
        let missing = width - clip.dim(D::Minus1)?;
        let clip = clip.pad_with_zeros(D::Minus1, 0, missing)?;
        let long = match &self.third {
            Some(third) => third.encode(texts, notices)?,
            None => Tensor::zeros((texts.len(), LENGTH, width), DType::F32, clip.device())?,
        };
        Ok(Conditioning {
            states: Tensor::cat(&[clip, long], 1)?,
            pooled: Some(Tensor::cat(&[first.pooled, second.pooled], 1)?),
        })
    }

    fn predict(
        &self,
        latents: &Tensor,
        timestep: f64,
        conditioning: &Conditioning,
        _request: &GenerateRequest,
    ) -> Result<Tensor> {
        Ok(self.transformer.forward(latents, timestep, &conditioning.states, conditioning.pooled()?)?)
    }
}
