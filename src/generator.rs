//! The built-in diffusion loop as a generator that the gate can drive.

use cluegate_candle_diffusion::{
    Control, DiffusionError, FamilyKind, GenerateRequest, Outcome, Pipeline, PreviewKind, SafeGuidance,
    SchedulerKind, Source,
};
use cluegate_gate::{
    DrawJob, DrawOptions, DrawSource, Drawn, Generator, GeneratorError, SafetyGuidance, Step, StepHook,
};
use cluegate_perception::Picture;

/// Guidance scale of Stable Diffusion 1.x and 2.x where the caller names none; other models have their own.
pub const GUIDANCE: f64 = 5.0;

/// Draws with a candle [`Pipeline`], one picture at a time.
pub struct CandleGenerator {
    pipeline: Pipeline,
    fingerprint: String,
    scheduler: Option<SchedulerKind>,
    previews: Option<PreviewKind>,
    look_ahead: Option<usize>,
}

impl CandleGenerator {
    /// A generator over `pipeline`, whose files have this fingerprint.
    pub fn new(pipeline: Pipeline, fingerprint: String) -> Self {
        Self { pipeline, fingerprint, scheduler: None, previews: None, look_ahead: None }
    }

    /// Draws with another scheduler than the model's own.
    #[must_use]
    pub fn with_scheduler(mut self, scheduler: SchedulerKind) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// Makes previews in another way than the model's own: by its small decoder, or by its VAE if it has none.
    #[must_use]
    pub fn with_previews(mut self, previews: PreviewKind) -> Self {
        self.previews = Some(previews);
        self
    }

    /// Has previews that may end a drawing take so many predictions beyond that of their step
    /// ([`GenerateRequest::look_ahead`]).
    #[must_use]
    pub fn with_look_ahead(mut self, predictions: usize) -> Self {
        self.look_ahead = Some(predictions);
        self
    }

    /// Which family its model is of.
    pub fn family(&self) -> FamilyKind {
        self.pipeline.family()
    }

    /// Width and height of its pictures in pixels, unless a job says otherwise.
    pub fn default_size(&self) -> (u32, u32) {
        self.pipeline.default_size()
    }

    /// Width and height of the pictures that it draws with these options: a picture that it begins from gives its own size,
    /// as near as the model comes to it.
    pub fn size(&self, options: &DrawOptions) -> (u32, u32) {
        let (width, height) = match &options.source {
            None => self.pipeline.default_size(),
            Some(DrawSource { picture, .. }) => {
                self.pipeline.nearest_size((picture.width(), picture.height()))
            }
        };
        (options.width.unwrap_or(width), options.height.unwrap_or(height))
    }

    /// How it draws with these options, in words.
    pub fn in_words(&self, options: &DrawOptions) -> String {
        let request = self.request("", 0, options);
        let previews = match request.previews {
            PreviewKind::Vae => "the VAE",
            PreviewKind::Tiny => "the small decoder",
            PreviewKind::Linear => "a linear map",
        };
        let ahead = match request.look_ahead(request.steps.saturating_sub(1)) {
            0 => String::new(),
            predictions => format!(" from up to {predictions} predictions ahead"),
        };
        format!(
            "{} steps by {}, {} x {} pixels, guidance {}, previews by {previews}{ahead}",
            request.steps,
            request.scheduler.as_str(),
            request.width,
            request.height,
            request.guidance_scale
        )
    }

    fn guidance(&self, default: f64) -> f64 {
        let plain = self.family() == FamilyKind::StableDiffusion && !self.pipeline.is_few_step();
        if plain { GUIDANCE } else { default }
    }

    fn request(&self, prompt: &str, seed: u64, options: &DrawOptions) -> GenerateRequest {
        let (width, height) = self.size(options);
        let default = self.pipeline.default_request(prompt);
        let named = options.sampler.as_deref().and_then(SchedulerKind::named);
        GenerateRequest {
            negative_prompt: options.negative_prompt.clone().unwrap_or_default(),
            seed,
            steps: options.steps.map_or(default.steps, |steps| steps as usize),
            guidance_scale: options.guidance.unwrap_or_else(|| self.guidance(default.guidance_scale)),
            width,
            height,
            scheduler: named.or(self.scheduler).unwrap_or(default.scheduler),
            source: options.source.as_ref().map(source),
            previews: self.previews.unwrap_or(default.previews),
            look_ahead: self.look_ahead,
            ..default
        }
    }

    fn draw_one(
        &self,
        index: usize,
        job: &DrawJob,
        hook: &mut dyn StepHook,
    ) -> Result<Drawn, DiffusionError> {
        let mut hook = JobHook { job: index, hook };
        let request =
            keep_out(self.request(&job.prompt, job.seed, &job.options), &job.avoid, job.options.safety);
        Ok(match self.pipeline.generate(&request, &mut hook)? {
            Outcome::Finished { picture, notices, .. } => {
                for notice in notices {
                    tracing::warn!(?notice, "the generator did not use all that was asked");
                }
                Drawn::Finished(Picture::new(picture))
            }
            Outcome::Aborted { .. } => Drawn::Stopped,
        })
    }
}

impl Generator for CandleGenerator {
    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn draws_from_pictures(&self) -> bool {
        true
    }

    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        if let Some(name) = options.sampler.as_deref().filter(|name| SchedulerKind::named(name).is_none()) {
            return Err(GeneratorError::new(format!(
                "expected the sampler `DDIM`, `Euler` or `Euler a`, or none, got {name:?}"
            )));
        }
        let checked = self.pipeline.check(&self.request("", 0, options));
        checked.map_err(|error: DiffusionError| GeneratorError::new(error.to_string()))
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let draw = |(index, job)| {
            self.draw_one(index, job, hook)
                .map_err(|error: DiffusionError| GeneratorError::new(error.to_string()))
        };
        jobs.iter().enumerate().map(draw).collect()
    }
}

/// The request, guided away from `avoid`. The statements stand in the negative prompt or are kept out by Safe Latent Diffusion,
/// never both: its push leads from the negative prompt to them, and there would be no way to go.
fn keep_out(request: GenerateRequest, avoid: &[String], guidance: SafetyGuidance) -> GenerateRequest {
    if avoid.is_empty() {
        return request;
    }
    let concept = avoid.join(", ");
    let safety = match guidance {
        SafetyGuidance::NegativePrompt => None,
        SafetyGuidance::Weak => Some(SafeGuidance::weak(concept)),
        SafetyGuidance::Medium => Some(SafeGuidance::medium(concept)),
        SafetyGuidance::Strong => Some(SafeGuidance::strong(concept)),
        SafetyGuidance::Maximum => Some(SafeGuidance::maximum(concept)),
    };
    let own = Some(request.negative_prompt.clone()).filter(|text| !text.trim().is_empty());
    let negative_prompt = match safety {
        Some(_) => request.negative_prompt,
        None => own.iter().chain(avoid).map(String::as_str).collect::<Vec<_>>().join(", "),
    };
    GenerateRequest { negative_prompt, safety, ..request }
}

/// A picture to begin from, as the pipeline takes it.
fn source(source: &DrawSource) -> Source {
    let mask = source.mask.as_ref().map(|mask| image::imageops::grayscale(mask.pixels()));
    Source::new(source.picture.pixels().clone(), mask, source.strength)
}

/// The gate counts finished steps, the pipeline begins at 0.
struct JobHook<'a> {
    job: usize,
    hook: &'a mut dyn StepHook,
}

impl cluegate_candle_diffusion::StepHook for JobHook<'_> {
    fn wants_preview(&mut self, index: usize, total: usize) -> bool {
        self.hook.wants_preview(self.job, index as u32 + 1, total as u32)
    }

    fn looks_ahead(&mut self, index: usize, total: usize) -> bool {
        self.hook.may_end(self.job, index as u32 + 1, total as u32)
    }

    fn on_step(&mut self, step: cluegate_candle_diffusion::Step) -> Control {
        let preview = step.preview.map(Picture::new);
        match self.hook.step(self.job, step.index as u32 + 1, step.total as u32, preview.as_ref()) {
            Step::Continue => Control::Continue,
            Step::Stop => Control::Abort,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::path::Path;
    use std::sync::Arc;

    use image::RgbImage;

    use super::*;

    fn generator() -> CandleGenerator {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/candle-diffusion/goldens/data/pipeline");
        crate::open_generator(&folder).unwrap()
    }

    fn from(width: u32, height: u32, strength: Option<f64>) -> DrawOptions {
        let picture = Picture::new(RgbImage::from_pixel(width, height, image::Rgb([200, 90, 30])));
        let source = DrawSource { picture, mask: None, strength };
        DrawOptions { source: Some(source), ..DrawOptions::default() }
    }

    #[test]
    fn a_picture_to_begin_from_gives_the_size() {
        let generator = generator();
        assert_eq!(generator.size(&DrawOptions::default()), (16, 16));
        assert_eq!(generator.size(&from(37, 21, None)), (36, 20));
        assert_eq!(generator.size(&from(1, 9000, None)), (2, 2048));
        assert_eq!(generator.size(&DrawOptions { width: Some(8), ..from(37, 21, None) }), (8, 20));
    }

    #[test]
    fn what_to_avoid_is_kept_out_in_one_way() {
        let generator = generator();
        let plain = generator.request("a cat", 1, &DrawOptions::default());
        let avoid = ["a dog is visible".to_owned(), "a cup is visible".to_owned()];
        assert_eq!(keep_out(plain.clone(), &[], SafetyGuidance::Maximum), plain);
        let own = GenerateRequest { negative_prompt: "fog".to_owned(), ..plain.clone() };
        let negative = keep_out(own.clone(), &avoid, SafetyGuidance::NegativePrompt);
        assert_eq!(negative.negative_prompt, "fog, a dog is visible, a cup is visible");
        assert!(negative.safety.is_none());
        let guided = keep_out(own, &avoid, SafetyGuidance::Strong);
        assert_eq!(guided.negative_prompt, "fog");
        assert_eq!(guided.safety, Some(SafeGuidance::strong("a dog is visible, a cup is visible")));
        // And it changes what is drawn.
        struct Blind;
        impl StepHook for Blind {
            fn wants_preview(&mut self, _: usize, _: u32, _: u32) -> bool {
                false
            }

            fn step(&mut self, _: usize, _: u32, _: u32, preview: Option<&Picture>) -> Step {
                assert!(preview.is_none(), "no preview was asked for");
                Step::Continue
            }
        }
        let draw = |avoid: &[String], safety: SafetyGuidance| {
            let options = DrawOptions { steps: Some(4), safety, ..DrawOptions::default() };
            let (avoid, options) = (avoid.to_vec(), Arc::new(options));
            let job = DrawJob { member: 0, attempt: 2, prompt: "a cat".into(), seed: 1, avoid, options };
            match generator.draw(&[job], &mut Blind).remove(0).unwrap() {
                Drawn::Finished(picture) => picture.hash(),
                Drawn::Stopped => panic!("stopped"),
            }
        };
        let [plain, negative, guided] = [
            draw(&[], SafetyGuidance::Maximum),
            draw(&avoid, SafetyGuidance::NegativePrompt),
            draw(&avoid, SafetyGuidance::Maximum),
        ];
        assert!(plain != negative && plain != guided && negative != guided);
    }

    /// Wants the first preview, which may end the job or not.
    struct Eyes {
        may_end: bool,
        seen: Option<Picture>,
    }

    impl StepHook for Eyes {
        fn wants_preview(&mut self, _: usize, step: u32, _: u32) -> bool {
            step == 1
        }

        fn may_end(&mut self, _: usize, _: u32, _: u32) -> bool {
            self.may_end
        }

        fn step(&mut self, _: usize, _: u32, _: u32, preview: Option<&Picture>) -> Step {
            self.seen = self.seen.take().or(preview.cloned());
            Step::Continue
        }
    }

    #[test]
    fn a_preview_looks_ahead_where_it_may_end_the_drawing() {
        let seen = |look_ahead: usize, may_end: bool| {
            let options = Arc::new(DrawOptions { steps: Some(4), ..DrawOptions::default() });
            let job = DrawJob {
                member: 0,
                attempt: 1,
                prompt: "a cat".into(),
                seed: 1,
                avoid: Vec::new(),
                options,
            };
            let mut eyes = Eyes { may_end, seen: None };
            generator().with_look_ahead(look_ahead).draw(&[job], &mut eyes).remove(0).unwrap();
            eyes.seen.unwrap().hash()
        };
        assert_ne!(seen(2, true), seen(0, true));
        assert_eq!(seen(2, false), seen(0, true));
        let options = DrawOptions::default();
        assert!(generator().in_words(&options).ends_with("by the VAE from up to 3 predictions ahead"));
        assert!(generator().with_look_ahead(0).in_words(&options).ends_with("by the VAE"));
    }

    #[test]
    fn options_are_refused_by_name() {
        let generator = generator();
        generator.check(&from(37, 21, None)).unwrap();
        let sampler = |name: &str| DrawOptions { sampler: Some(name.to_owned()), ..DrawOptions::default() };
        for name in ["DDIM", "Euler", "Euler a", "k_euler_a"] {
            generator.check(&sampler(name)).unwrap();
        }
        for (options, word) in [
            (sampler("Heun"), "Heun"),
            (from(16, 16, Some(1.5)), "strength"),
            (DrawOptions { guidance: Some(0.5), ..DrawOptions::default() }, "guidance"),
        ] {
            let error = generator.check(&options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
