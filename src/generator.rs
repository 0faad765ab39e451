//! The built-in Stable Diffusion loop as a generator that the gate can drive.

use cluegate_candle_diffusion::{Control, DiffusionError, GenerateRequest, Outcome, Pipeline, SchedulerKind};
use cluegate_gate::{DrawJob, DrawOptions, Drawn, Generator, GeneratorError, Step, StepHook};
use cluegate_perception::Picture;

/// Guidance scale where the caller names none.
pub const GUIDANCE: f64 = 5.0;

/// Draws with a candle [`Pipeline`], one picture at a time.
pub struct CandleGenerator {
    pipeline: Pipeline,
    fingerprint: String,
    scheduler: SchedulerKind,
}

impl CandleGenerator {
    /// A generator over `pipeline`, whose files have this fingerprint.
    pub fn new(pipeline: Pipeline, fingerprint: String) -> Self {
        Self { pipeline, fingerprint, scheduler: SchedulerKind::Ddim }
    }

    /// Draws with another scheduler than DDIM.
    #[must_use]
    pub fn with_scheduler(mut self, scheduler: SchedulerKind) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// Width and height of its pictures in pixels, unless a job says otherwise.
    pub fn default_size(&self) -> (u32, u32) {
        self.pipeline.default_size()
    }

    fn request(&self, prompt: &str, seed: u64, options: &DrawOptions) -> GenerateRequest {
        let (width, height) = self.pipeline.default_size();
        let default = self.pipeline.default_request(prompt);
        let named = options.sampler.as_deref().and_then(scheduler_named);
        GenerateRequest {
            negative_prompt: options.negative_prompt.clone().unwrap_or_default(),
            seed,
            steps: options.steps.map_or(default.steps, |steps| steps as usize),
            guidance_scale: options.guidance.unwrap_or(GUIDANCE),
            width: options.width.unwrap_or(width),
            height: options.height.unwrap_or(height),
            scheduler: named.unwrap_or(self.scheduler),
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
        let request = self.request(&job.prompt, job.seed, &job.options);
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

    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        if let Some(name) = options.sampler.as_deref().filter(|name| scheduler_named(name).is_none()) {
            return Err(GeneratorError::new(format!(
                "expected the sampler `DDIM` or `Euler a`, or none, got {name:?}"
            )));
        }
        let checked = self.request("", 0, options).check(self.pipeline.factor());
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

/// The scheduler that image servers and their clients call `name`.
fn scheduler_named(name: &str) -> Option<SchedulerKind> {
    match name.to_ascii_lowercase().replace([' ', '-'], "_").as_str() {
        "ddim" => Some(SchedulerKind::Ddim),
        "euler_a" | "k_euler_a" | "euler_ancestral" => Some(SchedulerKind::EulerAncestral),
        _ => None,
    }
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

    fn on_step(&mut self, step: cluegate_candle_diffusion::Step) -> Control {
        let Some(preview) = step.preview else { return Control::Continue };
        match self.hook.preview(self.job, step.index as u32 + 1, step.total as u32, &Picture::new(preview)) {
            Step::Continue => Control::Continue,
            Step::Stop => Control::Abort,
        }
    }
}
