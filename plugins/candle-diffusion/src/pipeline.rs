//! Loading a diffusers folder and drawing pictures with it.

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, ModelError};
use image::RgbImage;

use crate::config::{FlowConfig, RawScheduler};
use crate::error::{DiffusionError, GeneratorFailure, GeneratorFailureKind, Result};
use crate::family::{self, About, Family, FamilyKind, Loading};
use crate::hook::StepHook;
use crate::index::Index;
use crate::noise::{NoiseSource, SeededNoise};
use crate::preview::{LATENT_RGB, LatentRgb, PreviewKind, VAE_APPROX};
use crate::request::{GenerateRequest, Outcome};
use crate::run::Run;
use crate::scheduler::{Plan, SchedulerKind};
use crate::tiny::TinyDecoder;
use crate::vae::Vae;

/// The noise levels that a model was trained on.
#[derive(Debug)]
enum Schedule {
    /// As a growing share of noise; each kind of scheduler reads the file in its own way.
    Betas { raw: RawScheduler, path: String },
    /// As a flow.
    Flow(FlowConfig),
}

/// A loaded text-to-image pipeline. It keeps no state between pictures and may be shared by threads.
#[derive(Debug)]
pub struct Pipeline {
    family: Box<dyn Family>,
    vae: Vae,
    schedule: Schedule,
    scheduler: SchedulerKind,
    few_steps: bool,
    tiny: Option<TinyDecoder>,
    latent_rgb: Option<LatentRgb>,
    device: Device,
}

impl Pipeline {
    /// Loads a diffusers folder. Denoiser, VAE and T5 compute in `dtype` (f32 on a CPU), CLIP's text encoders and the
    /// scheduler in f32.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name; parts that do not
    /// fit together.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let mut pipeline = Self::load_without_map(tree, device, dtype)?;
        pipeline.latent_rgb = LatentRgb::load(tree, pipeline.vae.config())?;
        Ok(pipeline)
    }

    /// [`Self::load`] without the map for linear previews: the file is not looked at.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_without_map(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        let index = Index::load(tree)?;
        let folder = tree.folder("scheduler")?;
        let raw = RawScheduler::load(&folder)?;
        let (scheduler, few_steps) = (raw.default_kind(), raw.is_few_step());
        let schedule = schedule(&folder, raw, index.kind)?;
        let vae = Vae::load(&tree.folder("vae")?, dtype, device)?;
        let tiny = tree
            .exists(&format!("{VAE_APPROX}/config.json"))
            .then(|| TinyDecoder::load(&tree.folder(VAE_APPROX)?, vae.config(), dtype, device))
            .transpose()?;
        let family = family::load(Loading { tree, index: &index, device, dtype }, &vae, few_steps)?;
        tracing::debug!(model = tree.label(), family = index.kind.as_str(), "loaded a diffusion pipeline");
        let device = device.clone();
        Ok(Self { family, vae, schedule, scheduler, few_steps, tiny, latent_rgb: None, device })
    }

    /// Hash over all files of a folder that decide what its pipeline draws, and what its previews look like.
    ///
    /// # Errors
    /// `Unreadable` if one of them cannot be read.
    pub fn fingerprint(tree: &FileTree) -> Result<String> {
        const PARTS: [&str; 13] = [
            "model_index.json",
            "text_encoder",
            "unet",
            "vae",
            "tokenizer",
            "scheduler",
            "text_encoder_2",
            "text_encoder_3",
            "tokenizer_2",
            "tokenizer_3",
            "transformer",
            VAE_APPROX,
            LATENT_RGB,
        ];
        Ok(cluegate_models::fingerprint(tree, &PARTS)?)
    }

    /// Which family the model is of.
    pub fn family(&self) -> FamilyKind {
        self.about().kind
    }

    /// Whether the folder's scheduler is that of a model which was distilled to a few steps without guidance: Euler steps
    /// at trailing timesteps, as Turbo and Lightning.
    pub fn is_few_step(&self) -> bool {
        self.few_steps
    }

    /// The size that the model was trained for, in pixels (width, height); 512 x 512 if its files do not say.
    pub fn default_size(&self) -> (u32, u32) {
        let factor = self.vae.config().downscale();
        match self.about().sample_size {
            Some((height, width)) => ((width * factor) as u32, (height * factor) as u32),
            None => (512, 512),
        }
    }

    /// Width and height of a request, in pixels, are multiples of it.
    pub fn factor(&self) -> usize {
        self.vae.config().downscale() * self.about().patch
    }

    /// Most pixels of a side that the model takes, whatever [`crate::MAX_SIDE`] allows.
    pub fn largest_side(&self) -> u32 {
        let most = self.about().most_latents.map(|most| most * self.vae.config().downscale());
        most.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// The size nearest to `width` x `height` pixels, from below, that it can draw.
    pub fn nearest_size(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let factor = self.factor() as u32;
        let most = self.largest_side().min(crate::MAX_SIDE) / factor * factor;
        let near = |side: u32| (side / factor * factor).clamp(factor, most);
        (near(width), near(height))
    }

    /// The device that the weights are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A request for the model's own size, steps, guidance and scheduler: seed 0, no negative prompt, previews by its small
    /// decoder, or by the VAE if it has none.
    pub fn default_request(&self, prompt: impl Into<String>) -> GenerateRequest {
        let (width, height) = self.default_size();
        let (steps, guidance_scale) = self.about().defaults;
        GenerateRequest {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            seed: 0,
            index: 0,
            steps,
            guidance_scale,
            safety: None,
            width,
            height,
            scheduler: self.scheduler,
            source: None,
            previews: if self.tiny.is_some() { PreviewKind::Tiny } else { PreviewKind::Vae },
            look_ahead: None,
        }
    }

    /// Checks a request against its ranges and against this model, without drawing anything.
    ///
    /// # Errors
    /// A request error that names the first bad field, what it may be and what it is.
    pub fn check(&self, request: &GenerateRequest) -> Result<()> {
        request.check(self.factor())?;
        let about = self.about();
        let most = self.largest_side();
        for (field, side) in [("width", request.width), ("height", request.height)] {
            if side > most {
                let detail = format!("expected at most {most}, the model's largest, found {side}");
                return Err(DiffusionError::request(field, detail));
            }
        }
        let masked = request.source.as_ref().is_some_and(|source| source.mask.is_some());
        if about.inpaints && !masked {
            let detail = "this model only draws into pictures: expected an image and a mask, found none";
            return Err(DiffusionError::request("mask", detail));
        }
        let missing = match request.previews {
            PreviewKind::Linear if self.latent_rgb.is_none() => Some(format!(
                "this model's VAE is none of the published ones: linear previews need a file {LATENT_RGB} in its folder"
            )),
            PreviewKind::Tiny if self.tiny.is_none() => Some(format!(
                "tiny previews need a small decoder for this model's latents, such as TAESD, as {VAE_APPROX}/ in its folder"
            )),
            _ => None,
        };
        if let Some(detail) = missing {
            return Err(DiffusionError::request("previews", detail));
        }
        self.plan(request).map(drop)
    }

    /// Draws one picture. All random numbers come from the request's seed and index.
    ///
    /// # Errors
    /// A request out of range; [`GeneratorFailure`] for NaN, infinity or a black picture; a failed tensor operation.
    pub fn generate(&self, request: &GenerateRequest, hook: &mut dyn StepHook) -> Result<Outcome> {
        self.generate_with_noise(request, &mut SeededNoise::new(request.seed, request.index), hook)
    }

    /// [`Self::generate`] with random numbers from elsewhere, such as those of another implementation.
    ///
    /// # Errors
    /// As [`Self::generate`], and what the source reports.
    pub fn generate_with_noise(
        &self,
        request: &GenerateRequest,
        noise: &mut dyn NoiseSource,
        hook: &mut dyn StepHook,
    ) -> Result<Outcome> {
        self.check(request)?;
        Run::new(self, request)?.draw(noise, hook)
    }

    pub(crate) fn about(&self) -> &About {
        self.family.about()
    }

    pub(crate) fn model(&self) -> &dyn Family {
        self.family.as_ref()
    }

    pub(crate) fn vae(&self) -> &Vae {
        &self.vae
    }

    /// The steps of a request; with a picture to begin from, only the last of them.
    pub(crate) fn plan(&self, request: &GenerateRequest) -> Result<Plan> {
        let plan = match &self.schedule {
            Schedule::Betas { raw, path } => {
                if request.scheduler == SchedulerKind::FlowMatchEuler {
                    return Err(other_scheduler(request.scheduler, "ddim, euler or euler-ancestral"));
                }
                Plan::new(request.scheduler, &raw.build(request.scheduler, path)?, request.steps)?
            }
            Schedule::Flow(config) => {
                if request.scheduler != SchedulerKind::FlowMatchEuler {
                    return Err(other_scheduler(request.scheduler, SchedulerKind::FlowMatchEuler.as_str()));
                }
                let tokens = |side: u32| side as usize / self.factor();
                let tokens = tokens(request.width) * tokens(request.height);
                Plan::flow(config, request.steps, tokens, self.family() == FamilyKind::Flux)?
            }
        };
        let skipped = |source: &crate::Source| source.skipped(request.steps, self.family().is_flow());
        Ok(plan.without_first(request.source.as_ref().map_or(0, skipped)))
    }

    /// A preview of latents in the scale of the diffusion model.
    pub(crate) fn preview(
        &self,
        latents: &Tensor,
        request: &GenerateRequest,
        step: usize,
    ) -> Result<RgbImage> {
        match (request.previews, &self.tiny, &self.latent_rgb) {
            (PreviewKind::Tiny, Some(tiny), _) => to_picture(&tiny.decode_scaled(latents)?, Some(step)),
            (PreviewKind::Linear, _, Some(map)) => {
                let failure =
                    GeneratorFailure { kind: GeneratorFailureKind::PixelsNotFinite, step: Some(step) };
                map.picture(latents, (request.width, request.height))?.ok_or_else(|| failure.into())
            }
            _ => self.decode(latents, Some(step)),
        }
    }

    /// Decodes latents in the scale of the diffusion model into a picture; `step` is for the error.
    pub(crate) fn decode(&self, latents: &Tensor, step: Option<usize>) -> Result<RgbImage> {
        to_picture(&self.vae.decode_scaled(latents)?, step)
    }
}

/// The picture of a decoder's output `(1, 3, height, width)`, -1 to 1; `step` is for the error.
fn to_picture(decoded: &Tensor, step: Option<usize>) -> Result<RgbImage> {
    let (_, _, height, width) = decoded.dims4()?;
    let values = decoded.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(GeneratorFailure { kind: GeneratorFailureKind::PixelsNotFinite, step }.into());
    }
    let bytes = values.iter().map(|v| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
    RgbImage::from_raw(width as u32, height as u32, bytes.collect()).ok_or_else(|| {
        DiffusionError::Model(ModelError::Tensor {
            op: "the picture of a decoder".to_owned(),
            detail: format!("expected one picture of three channels, found {:?}", decoded.dims()),
        })
    })
}

fn other_scheduler(found: SchedulerKind, expected: &str) -> DiffusionError {
    let detail = format!("this model was trained for {expected}, found {}", found.as_str());
    DiffusionError::request("scheduler", detail)
}

/// The folder's schedule, checked as far as every request needs it.
fn schedule(folder: &FileTree, raw: RawScheduler, kind: FamilyKind) -> Result<Schedule> {
    let path = folder.path_of("scheduler_config.json");
    if kind.is_flow() && raw.is_flow() {
        return Ok(Schedule::Flow(FlowConfig::load(folder)?));
    }
    if kind.is_flow() {
        let supported = "FlowMatchEulerDiscreteScheduler for this family";
        return Err(ModelError::unsupported(path, "`_class_name`", raw.class(), supported).into());
    }
    for kind in [SchedulerKind::Ddim, SchedulerKind::EulerAncestral, raw.default_kind()] {
        raw.build(kind, &path)?;
    }
    Ok(Schedule::Betas { raw, path })
}
