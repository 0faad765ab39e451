//! The generator, drawing each picture once however many ladders come to it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cluegate::CandleGenerator;
use cluegate::gate::{
    DrawJob, DrawOptions, Drawn, Generator, GeneratorError, SafetyGuidance, Step, StepHook,
};
use cluegate::perception::Picture;

/// What a picture follows from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    prompt: String,
    seed: u64,
    avoid: Vec<String>,
    guidance: &'static str,
}

impl Key {
    fn of(job: &DrawJob) -> Self {
        let (prompt, seed, avoid) = (job.prompt.to_string(), job.seed, job.avoid.clone());
        let guidance = match job.options.safety {
            _ if avoid.is_empty() => "",
            SafetyGuidance::NegativePrompt => "negative",
            SafetyGuidance::Weak => "weak",
            SafetyGuidance::Medium => "medium",
            SafetyGuidance::Strong => "strong",
            SafetyGuidance::Maximum => "maximum",
        };
        Self { prompt, seed, avoid, guidance }
    }
}

/// The generator with what it has drawn.
pub(super) struct Studio {
    generator: CandleGenerator,
    steps: u32,
    kept: Mutex<HashMap<Key, Picture>>,
}

impl Studio {
    pub(super) fn new(generator: CandleGenerator, steps: u32) -> Self {
        Self { generator, steps, kept: Mutex::default() }
    }

    /// Denoising steps of a picture.
    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    /// How every picture is drawn.
    pub(super) fn options(&self) -> DrawOptions {
        DrawOptions { steps: Some(self.steps), ..DrawOptions::default() }
    }

    /// How it draws, in words.
    pub(super) fn in_words(&self) -> String {
        self.generator.in_words(&self.options())
    }

    /// Predictions of the denoiser for each step of a picture: for the negative prompt and the prompt, and where something is
    /// kept out by guidance for that.
    pub(super) fn predictions(guided: bool) -> u64 {
        if guided { 3 } else { 2 }
    }

    /// Draws a picture that nobody watches.
    pub(super) fn unwatched(&self, job: &DrawJob) -> Result<Picture, GeneratorError> {
        match self.one(0, job, &mut Unwatched)? {
            Drawn::Finished(picture) => Ok(picture),
            _ => Err(GeneratorError::new("a picture that nobody watches is finished")),
        }
    }

    /// Draws a picture that `hook` watches.
    pub(super) fn watched(
        &self,
        job: &DrawJob,
        hook: &mut dyn StepHook,
    ) -> Result<Option<Picture>, GeneratorError> {
        let drawn = self.generator.draw(std::slice::from_ref(job), hook).into_iter().next();
        let Some(Drawn::Finished(picture)) = drawn.transpose()? else { return Ok(None) };
        self.keep(Key::of(job), &picture);
        Ok(Some(picture))
    }

    fn keep(&self, key: Key, picture: &Picture) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key, picture.clone());
    }

    fn one(&self, index: usize, job: &DrawJob, hook: &mut dyn StepHook) -> Result<Drawn, GeneratorError> {
        let key = Key::of(job);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        // The gate counts steps, whether they are carried out or known.
        for step in 1..=self.steps {
            hook.step(index, step, self.steps, None);
        }
        if let Some(picture) = kept {
            return Ok(Drawn::Finished(picture));
        }
        let drawn = self.generator.draw(std::slice::from_ref(job), &mut Unwatched).into_iter().next();
        let drawn = drawn.unwrap_or_else(|| Err(GeneratorError::new("it gave no answer")))?;
        if let Drawn::Finished(picture) = &drawn {
            self.keep(key, picture);
        }
        Ok(drawn)
    }
}

impl Generator for Studio {
    fn fingerprint(&self) -> &str {
        self.generator.fingerprint()
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        jobs.iter().enumerate().map(|(index, job)| self.one(index, job, hook)).collect()
    }
}

/// Nobody looks.
struct Unwatched;

impl StepHook for Unwatched {
    fn wants_preview(&mut self, _: usize, _: u32, _: u32) -> bool {
        false
    }

    fn step(&mut self, _: usize, _: u32, _: u32, _: Option<&Picture>) -> Step {
        Step::Continue
    }
}
