//! Loading a diffusers folder and drawing pictures with it (diffusers 0.42.1,
//! `pipelines/stable_diffusion/pipeline_stable_diffusion.py`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cluegate_abi::{
    Call, Control, Drawn, ErrorCode, Host, LogLevel, PictureBuf, PluginError, Preview, Steps,
};
use serde_json::Value;
use tch::Tensor;

use crate::config::{Config, ModelSize, Request};
use crate::error::{Result, TorchError};
use crate::files::Files;
use crate::normal::SeededNoise;
use crate::scheduler::{Plan, Schedule};
use crate::text_encoder::TextEncoder;
use crate::tokenizer::PromptTokenizer;
use crate::unet::UNet;
use crate::vae::{Vae, all_finite};

const INDEX: &str = "model_index.json";

/// Components that are loaded, and the classes of theirs that are implemented.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]),
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
];

/// Components that judge or condition by a picture; this plugin only draws, and judging is the gate's work.
const NOT_LOADED: &[&str] =
    &["scheduler", "safety_checker", "feature_extractor", "image_encoder", "requires_safety_checker"];

/// Pixels of a picture without a size in its files.
const USUAL_SIDE: u32 = 512;

/// Level up to which a pixel counts as black: what is left of a safety checker's black picture after rounding.
const BLACK: u8 = 2;

/// The parts that compute. Tensors of libtorch may be used by one thread at a time.
struct Models {
    text_encoder: TextEncoder,
    unet: UNet,
    vae: Vae,
}

/// A loaded text-to-image pipeline. It keeps no state between pictures.
pub(crate) struct Pipeline {
    tokenizer: PromptTokenizer,
    schedule: Schedule,
    models: Mutex<Models>,
    size: ModelSize,
    fingerprint: String,
    threads: Option<i32>,
    host: Host,
}

impl Pipeline {
    /// Loads the folder that `config` names.
    ///
    /// # Errors
    /// A missing, malformed or unsupported file; a missing, misshapen or unknown tensor, by name; parts that do not fit
    /// together.
    pub(crate) fn load(config: &Config, host: Host) -> Result<Self> {
        set_threads(config.threads);
        let mut files = Files::open(&config.model)?;
        check_index(&mut files)?;
        let schedule = Schedule::read(&mut files)?;
        let text_encoder = TextEncoder::load(&mut files)?;
        let (positions, vocabulary) = (text_encoder.config.positions, text_encoder.config.vocabulary);
        let tokenizer = PromptTokenizer::load(&mut files, positions, vocabulary)?;
        let unet = UNet::load(&mut files, config.sliced_attention)?;
        let vae = Vae::load(&mut files)?;
        for (what, a, b) in [
            (
                "text_encoder's `hidden_size` and unet's `cross_attention_dim`",
                text_encoder.config.width,
                unet.cross_attention,
            ),
            ("unet's `in_channels` and vae's `latent_channels`", unet.channels, vae.channels()),
        ] {
            if a != b {
                let problem = format!("expected the same of {what}, found {a} and {b}");
                return Err(TorchError::malformed(&files.path(INDEX), problem));
            }
        }
        let factor = vae.factor();
        let pixels =
            |latents: i64| u32::try_from(latents).map_or(USUAL_SIDE, |side| side.saturating_mul(factor));
        let (height, width) = unet.sample.map_or((USUAL_SIDE, USUAL_SIDE), |(h, w)| (pixels(h), pixels(w)));
        Ok(Self {
            tokenizer,
            size: ModelSize { width, height, factor, steps: schedule.most_steps() },
            schedule,
            models: Mutex::new(Models { text_encoder, unet, vae }),
            fingerprint: files.fingerprint(),
            threads: config.threads,
            host,
        })
    }

    /// What a request has to fit.
    pub(crate) fn size(&self) -> ModelSize {
        self.size
    }

    /// A digest of all files that the pictures depend on.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Draws one picture.
    ///
    /// # Errors
    /// A generator that makes NaN, infinity or a black picture; a call that is over. What libtorch refuses in the middle of
    /// a model, such as memory that is not there, is a panic of diffusers-rs, which the boundary turns into an error.
    pub(crate) fn draw(&self, request: &Request, call: &Call<'_>, steps: &mut Steps<'_>) -> Result<Drawn> {
        set_threads(self.threads);
        let begin = Instant::now();
        let _inference = tch::no_grad_guard();
        // Nothing is written to the models: what a panic left behind is as good as before.
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = self.tokens(request)?;
        let plan = self.schedule.plan(request.steps);
        let mut run = Run { models: &models, request, plan, text: models.text_encoder.forward(&ids) };
        let mut latents = run.noise(self.size.factor);
        for index in 0..request.steps {
            in_time(call, begin)?;
            let step = index + 1;
            let wanted = steps.wants_preview(step, request.steps);
            let (next, preview) = run.step(index, &latents, wanted)?;
            latents = next;
            let preview = preview.as_ref().map(|picture| Preview::Picture(picture.view()));
            if steps.step(step, request.steps, preview) == Control::Abort {
                return Ok(Drawn::Aborted);
            }
        }
        in_time(call, begin)?;
        let picture = models.vae.picture(&latents, "at the end")?;
        if picture.view().pixels().flatten().all(|level| *level <= BLACK) {
            return Err(TorchError::Generator { what: "a picture that is black throughout".to_owned() });
        }
        Ok(Drawn::Finished(picture))
    }

    /// The ids of the negative prompt and the prompt if there is guidance, else of the prompt.
    fn tokens(&self, request: &Request) -> Result<Tensor> {
        let mut texts = vec![("prompt", &request.prompt)];
        if request.guidance > 1.0 {
            texts.insert(0, ("negative prompt", &request.negative_prompt));
        }
        let mut ids = Vec::new();
        for (what, text) in &texts {
            let tokens = self.tokenizer.encode(text)?;
            if let Some(lost) = tokens.lost {
                let message = format!("the {what} is longer than the text encoder takes; not used: {lost:?}");
                self.host.log(LogLevel::Warning, &message);
            }
            ids.extend(tokens.ids);
        }
        Ok(Tensor::f_from_slice(&ids)?.f_view([texts.len() as i64, -1])?)
    }
}

/// One drawing under way.
struct Run<'a> {
    models: &'a Models,
    request: &'a Request,
    plan: Plan,
    /// The text encoder's states, of the negative prompt first if there is guidance.
    text: Tensor,
}

impl Run<'_> {
    /// The noise that a drawing starts from: the same as the built-in generator's of this seed.
    fn noise(&self, factor: u32) -> Tensor {
        let side = |pixels: u32| i64::from(pixels / factor);
        let shape = [1, self.models.unet.channels, side(self.request.height), side(self.request.width)];
        let count = shape.iter().product::<i64>() as usize;
        Tensor::from_slice(&SeededNoise::new(self.request.seed, 0).numbers(count)).view(shape)
    }

    /// Step `index` (from 0): the latents after it, and if it is wanted the picture that they are taken to become.
    fn step(&mut self, index: u32, latents: &Tensor, wanted: bool) -> Result<(Tensor, Option<PictureBuf>)> {
        let timestep = self.plan.timesteps()[index as usize];
        let prediction = if self.request.guidance > 1.0 {
            let both = Tensor::cat(&[latents, latents], 0);
            let both = self.models.unet.forward(&both, timestep, &self.text);
            let (without, with) = (both.narrow(0, 0, 1), both.narrow(0, 1, 1));
            &without + (with - &without) * self.request.guidance
        } else {
            self.models.unet.forward(latents, timestep, &self.text)
        };
        let next = self.plan.step(latents, &prediction, timestep);
        if !all_finite(&next) {
            let what = format!("latents that are NaN or infinite after step {}", index + 1);
            return Err(TorchError::Generator { what });
        }
        if !wanted {
            return Ok((next, None));
        }
        let origin = self.plan.origin(latents, &prediction, timestep);
        let preview = self.models.vae.picture(&origin, &format!("in the preview of step {}", index + 1))?;
        Ok((next, Some(preview)))
    }
}

/// Whether somebody still waits for the picture.
fn in_time(call: &Call<'_>, begin: Instant) -> Result<()> {
    call.check()?;
    if begin.elapsed() < call.deadline() {
        return Ok(());
    }
    let message = format!("the picture was not finished within {} ms", call.deadline().as_millis());
    Err(PluginError::new(ErrorCode::Timeout, message).into())
}

/// libtorch keeps the number for the process, and each thread reads it when it computes for the first time.
fn set_threads(threads: Option<i32>) {
    if let Some(threads) = threads {
        tch::set_num_threads(threads);
    }
}

/// Refuses a `model_index.json` of another pipeline, or with other parts than those that are implemented.
fn check_index(files: &mut Files) -> Result<()> {
    let path = files.path(INDEX);
    let index: BTreeMap<String, Value> = files.json(INDEX)?;
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("absent");
    if class != "StableDiffusionPipeline" {
        return Err(TorchError::unsupported(&path, "`_class_name`", class, "StableDiffusionPipeline"));
    }
    for (name, classes) in COMPONENTS {
        let found = index.get(*name).and_then(|part| part.get(1)).and_then(Value::as_str).unwrap_or("absent");
        if !classes.contains(&found) {
            return Err(TorchError::unsupported(&path, format!("`{name}`"), found, classes.join(" or ")));
        }
    }
    for (name, value) in &index {
        let known = name.starts_with('_')
            || NOT_LOADED.contains(&name.as_str())
            || COMPONENTS.iter().any(|(component, _)| component == name);
        let empty = value.as_array().is_some_and(|pair| pair.iter().all(Value::is_null));
        if !known && !empty {
            let what = format!("part `{name}`");
            let expected = "the parts of a StableDiffusionPipeline";
            return Err(TorchError::unsupported(&path, what, value.to_string(), expected));
        }
    }
    Ok(())
}
