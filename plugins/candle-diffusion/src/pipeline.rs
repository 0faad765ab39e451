//! Loading a diffusers folder and drawing pictures with it (diffusers 0.42.1,
//! `pipelines/stable_diffusion/pipeline_stable_diffusion.py`).

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use cluegate_models::{FileTree, ModelError};
use image::RgbImage;
use serde_json::Value;

use crate::config::{NoiseConfig, RawScheduler};
use crate::error::{DiffusionError, GeneratorFailure, GeneratorFailureKind, Result};
use crate::hook::{Control, Start, Step, StepHook};
use crate::noise::{NoiseSource, SeededNoise};
use crate::request::{GenerateRequest, Notice, Outcome, Timings};
use crate::scheduler::{Plan, SchedulerKind};
use crate::text_encoder::TextEncoder;
use crate::tokenizer::PromptTokenizer;
use crate::unet::UNet;
use crate::vae::Vae;

/// A loaded text-to-image pipeline. It keeps no state between pictures and may be shared by threads.
#[derive(Debug)]
pub struct Pipeline {
    tokenizer: PromptTokenizer,
    text_encoder: TextEncoder,
    unet: UNet,
    vae: Vae,
    ddim: NoiseConfig,
    euler_ancestral: NoiseConfig,
    device: Device,
}

/// Components that are loaded, and the classes of theirs that are implemented.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];

/// Components that judge or condition by a picture; this pipeline only draws, and judging is the gate's work.
const NOT_LOADED: &[&str] =
    &["scheduler", "safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"];

impl Pipeline {
    /// Loads a diffusers folder. UNet and VAE compute in `dtype` (f32 on a CPU), the text encoder and the scheduler
    /// in f32.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name; parts that do not
    /// fit together.
    pub fn load(tree: &FileTree, device: &Device, dtype: DType) -> Result<Self> {
        check_index(tree)?;
        let scheduler_folder = tree.folder("scheduler")?;
        let scheduler = RawScheduler::load(&scheduler_folder)?;
        let path = scheduler_folder.path_of("scheduler_config.json");
        let text_encoder = TextEncoder::load(&tree.folder("text_encoder")?, device)?;
        let pipeline = Self {
            tokenizer: PromptTokenizer::load(&tree.folder("tokenizer")?, text_encoder.config().positions)?,
            text_encoder,
            unet: UNet::load(&tree.folder("unet")?, dtype, device)?,
            vae: Vae::load(&tree.folder("vae")?, dtype, device)?,
            ddim: scheduler.build(SchedulerKind::Ddim, &path)?,
            euler_ancestral: scheduler.build(SchedulerKind::EulerAncestral, &path)?,
            device: device.clone(),
        };
        pipeline.check_fit(tree)?;
        tracing::debug!(model = tree.label(), "loaded a diffusion pipeline");
        Ok(pipeline)
    }

    /// That each part's output is what the next one takes.
    fn check_fit(&self, tree: &FileTree) -> Result<()> {
        let (text, unet, vae) = (self.text_encoder.config(), self.unet.config(), self.vae.config());
        let differ = |what: &str, a: usize, b: usize| -> Result<()> {
            if a == b {
                return Ok(());
            }
            let detail = format!("{what} differ: {a} and {b}");
            Err(ModelError::malformed(tree.path_of("model_index.json"), detail).into())
        };
        differ(
            "text_encoder's `hidden_size` and unet's `cross_attention_dim`",
            text.hidden_size,
            unet.cross_attention_dim,
        )?;
        differ("unet's `in_channels` and vae's `latent_channels`", unet.in_channels, vae.latent_channels)?;
        differ("unet's `out_channels` and `in_channels`", unet.out_channels, unet.in_channels)?;
        if self.tokenizer.vocabulary() > text.vocab_size {
            let detail = format!(
                "{} tokens, but text_encoder's `vocab_size` is {}",
                self.tokenizer.vocabulary(),
                text.vocab_size
            );
            return Err(ModelError::tokenizer(tree.path_of("tokenizer"), detail).into());
        }
        Ok(())
    }

    /// The size that the model was trained for, in pixels (width, height); 512 x 512 if its files do not say.
    pub fn default_size(&self) -> (u32, u32) {
        let factor = self.factor();
        match self.unet.config().sample_size {
            Some((height, width)) => ((width * factor) as u32, (height * factor) as u32),
            None => (512, 512),
        }
    }

    /// Pixels for one of the latents: width and height of a request are multiples of it.
    pub fn factor(&self) -> usize {
        self.vae.config().downscale()
    }

    /// The device that the weights are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A request for the model's own size: seed 0, 20 steps of DDIM, guidance 7.5, no negative prompt.
    pub fn default_request(&self, prompt: impl Into<String>) -> GenerateRequest {
        let (width, height) = self.default_size();
        GenerateRequest {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            seed: 0,
            index: 0,
            steps: 20,
            guidance_scale: 7.5,
            width,
            height,
            scheduler: SchedulerKind::Ddim,
        }
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
        request.check(self.factor())?;
        let config = match request.scheduler {
            SchedulerKind::Ddim => &self.ddim,
            SchedulerKind::EulerAncestral => &self.euler_ancestral,
        };
        let plan = Plan::new(request.scheduler, config, request.steps)?;
        let mut run = Run { pipeline: self, request, plan, timings: Timings::default(), notices: Vec::new() };
        run.draw(noise, hook)
    }

    /// Decodes latents in the scale of the diffusion model into a picture; `step` is for the error.
    fn decode(&self, latents: &Tensor, step: Option<usize>) -> Result<RgbImage> {
        let decoded = self.vae.decode_scaled(latents)?;
        let (_, _, height, width) = decoded.dims4()?;
        let values = decoded.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(GeneratorFailure { kind: GeneratorFailureKind::PixelsNotFinite, step }.into());
        }
        let bytes = values.iter().map(|v| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8);
        RgbImage::from_raw(width as u32, height as u32, bytes.collect()).ok_or_else(|| {
            DiffusionError::Model(ModelError::Tensor {
                op: "the VAE's decoder".to_owned(),
                detail: format!("expected one picture of three channels, found {:?}", decoded.dims()),
            })
        })
    }
}

/// Channel value up to which a pixel counts as black: what is left of a safety checker's black picture after rounding.
const BLACK: u8 = 2;

/// One generation under way.
struct Run<'a> {
    pipeline: &'a Pipeline,
    request: &'a GenerateRequest,
    plan: Plan,
    timings: Timings,
    notices: Vec<Notice>,
}

impl Run<'_> {
    fn draw(&mut self, noise: &mut dyn NoiseSource, hook: &mut dyn StepHook) -> Result<Outcome> {
        let request = self.request;
        let total = self.plan.len();
        let start = Start {
            total,
            seed: request.seed,
            index: request.index,
            width: request.width,
            height: request.height,
        };
        if self.timed_hook(|| hook.start(&start)) == Control::Abort {
            return Ok(self.aborted(0));
        }
        let text = self.encode_texts()?;
        let factor = self.pipeline.factor();
        let shape = [
            1,
            self.pipeline.unet.config().in_channels,
            request.height as usize / factor,
            request.width as usize / factor,
        ];
        let mut latents = (noise.draw(&shape, &self.pipeline.device)? * self.plan.initial_scale())?;
        for index in 0..total {
            let wanted = self.timed_hook(|| hook.wants_preview(index, total));
            let (next, origin) = self.step(index, &latents, &text, noise)?;
            latents = next;
            let preview = if wanted { Some(self.preview(&origin, index)?) } else { None };
            let step = Step { index, total, timestep: self.plan.timestep(index), preview };
            if self.timed_hook(|| hook.on_step(step)) == Control::Abort {
                return Ok(self.aborted(index + 1));
            }
        }
        self.finish(&latents)
    }

    /// The text encoder's states: of the negative prompt and the prompt if there is guidance, else of the prompt.
    fn encode_texts(&mut self) -> Result<Tensor> {
        let clock = Instant::now();
        let request = self.request;
        let mut texts = vec![("prompt", &request.prompt)];
        if self.guided() {
            texts.insert(0, ("negative_prompt", &request.negative_prompt));
        }
        let length = self.pipeline.tokenizer.length();
        let mut ids = Vec::with_capacity(texts.len() * length);
        for (field, text) in &texts {
            let tokens = self.pipeline.tokenizer.encode(text)?;
            if let Some(lost) = tokens.lost {
                self.notices.push(Notice::TextCut { field, tokens: tokens.tokens, limit: length, lost });
            }
            ids.extend(tokens.ids);
        }
        let ids = Tensor::from_vec(ids, (texts.len(), length), &self.pipeline.device)?;
        let states = self.pipeline.text_encoder.forward(&ids)?;
        self.timings.text += clock.elapsed();
        Ok(states)
    }

    fn guided(&self) -> bool {
        self.request.guidance_scale > 1.0
    }

    /// One step: the latents after it and what its prediction takes the finished latents to be.
    fn step(
        &mut self,
        index: usize,
        latents: &Tensor,
        text: &Tensor,
        noise: &mut dyn NoiseSource,
    ) -> Result<(Tensor, Tensor)> {
        let clock = Instant::now();
        let input = self.plan.model_input(index, latents)?;
        let timestep = self.plan.timestep(index);
        let prediction = if self.guided() {
            let both = Tensor::cat(&[&input, &input], 0)?;
            let both = self.pipeline.unet.forward(&both, timestep, text)?;
            let (without, with) = (both.narrow(0, 0, 1)?, both.narrow(0, 1, 1)?);
            (&without + ((with - &without)? * self.request.guidance_scale)?)?
        } else {
            self.pipeline.unet.forward(&input, timestep, text)?
        };
        let fresh = if self.plan.takes_noise(index) {
            Some(noise.draw(latents.dims(), &self.pipeline.device)?)
        } else {
            None
        };
        let result = self.plan.step(index, latents, &prediction, fresh.as_ref())?;
        let finite = all_finite(&result.latents)? && all_finite(&result.origin)?;
        self.timings.denoise += clock.elapsed();
        if finite {
            Ok((result.latents, result.origin))
        } else {
            let kind = GeneratorFailureKind::LatentsNotFinite;
            Err(GeneratorFailure { kind, step: Some(index) }.into())
        }
    }

    fn preview(&mut self, origin: &Tensor, index: usize) -> Result<RgbImage> {
        let clock = Instant::now();
        let picture = self.pipeline.decode(origin, Some(index))?;
        self.timings.previews += clock.elapsed();
        Ok(picture)
    }

    fn finish(&mut self, latents: &Tensor) -> Result<Outcome> {
        let clock = Instant::now();
        let picture = self.pipeline.decode(latents, None)?;
        self.timings.decode += clock.elapsed();
        if picture.as_raw().iter().all(|value| *value <= BLACK) {
            return Err(GeneratorFailure { kind: GeneratorFailureKind::AllBlack, step: None }.into());
        }
        Ok(Outcome::Finished {
            picture,
            seed: self.request.seed,
            index: self.request.index,
            steps: self.plan.len(),
            timings: self.timings,
            notices: std::mem::take(&mut self.notices),
        })
    }

    fn aborted(&mut self, at_step: usize) -> Outcome {
        let notices = std::mem::take(&mut self.notices);
        Outcome::Aborted { at_step, timings: self.timings, notices }
    }

    fn timed_hook<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let clock = Instant::now();
        let answer = call();
        self.timings.hook += clock.elapsed();
        answer
    }
}

/// Whether no value is NaN or infinite.
fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite()))
}

/// Refuses a `model_index.json` of another pipeline, or with other parts than those that are implemented.
fn check_index(tree: &FileTree) -> Result<()> {
    let path = tree.path_of("model_index.json");
    let index: BTreeMap<String, Value> = tree.read_json("model_index.json")?;
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("absent");
    if class != "StableDiffusionPipeline" {
        let supported = "StableDiffusionPipeline";
        return Err(ModelError::unsupported(path, "`_class_name`", class, supported).into());
    }
    for (name, classes) in COMPONENTS {
        let found = index.get(*name).and_then(|c| c.get(1)).and_then(Value::as_str).unwrap_or("absent");
        if !classes.contains(&found) {
            let supported = classes.join(", ");
            return Err(ModelError::unsupported(path, format!("`{name}`"), found, supported).into());
        }
    }
    for (name, value) in &index {
        let known = name.starts_with('_')
            || NOT_LOADED.contains(&name.as_str())
            || COMPONENTS.iter().any(|(component, _)| component == name);
        let empty = value.as_array().is_some_and(|pair| pair.iter().all(Value::is_null));
        if !known && !empty {
            let supported = "the parts of a StableDiffusionPipeline";
            return Err(ModelError::unsupported(path, format!("part `{name}`"), value, supported).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slices of a golden tensor, one after the other.
    struct Replay(Tensor, usize);

    impl NoiseSource for Replay {
        fn draw(&mut self, _shape: &[usize], _device: &Device) -> Result<Tensor> {
            self.1 += 1;
            Ok(self.0.narrow(0, self.1 - 1, 1)?)
        }
    }

    /// Latents of a whole generation with guidance, step by step, within 1e-3 of diffusers': pictures are compared in
    /// `tests/goldens.rs`, and those are rounded to 8 bits.
    #[test]
    fn latents_of_a_generation_equal_diffusers() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/data");
        let golden =
            candle_core::safetensors::load(folder.join("pipeline.safetensors"), &Device::Cpu).unwrap();
        let tree = FileTree::open(folder.join("pipeline")).unwrap();
        let pipeline = Pipeline::load(&tree, &Device::Cpu, DType::F32).unwrap();
        for (name, scheduler, config) in [
            ("ddim", SchedulerKind::Ddim, &pipeline.ddim),
            ("euler-a", SchedulerKind::EulerAncestral, &pipeline.euler_ancestral),
        ] {
            let request = GenerateRequest {
                negative_prompt: "a man at night".to_owned(),
                guidance_scale: 4.0,
                scheduler,
                ..pipeline.default_request("a dog and a cat on the grass")
            };
            let plan = Plan::new(scheduler, config, 5).unwrap();
            let mut noise = Replay(golden["noise"].clone(), 0);
            let mut latents = (noise.draw(&[], &Device::Cpu).unwrap() * plan.initial_scale()).unwrap();
            let (timings, notices) = (Timings::default(), Vec::new());
            let mut run = Run { pipeline: &pipeline, request: &request, plan, timings, notices };
            let text = run.encode_texts().unwrap();
            for step in 0..5 {
                latents = run.step(step, &latents, &text, &mut noise).unwrap().0;
                let expected = golden[&format!("{name}.latents")].narrow(0, step, 1).unwrap();
                let largest = |x: &Tensor| {
                    let largest = x.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                    largest.to_scalar::<f32>().unwrap()
                };
                let error = largest(&(&latents - &expected).unwrap()) / largest(&expected);
                assert!(error < 1e-3, "{name}, step {step}: {error}");
            }
        }
    }
}
