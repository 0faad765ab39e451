//! Generation driven by the gate: it runs a generator through a session until every picture has its decision.

use std::sync::Arc;

use cluegate_perception::Picture;
use thiserror::Error;

use crate::policy::SafetyGuidance;
use crate::previewing::PreviewInstruction;
use crate::released::{DrawAgain, Instruction, MemberOutcome};
use crate::request::RequestInfo;
use crate::session::Session;
use crate::signing::Origin;
use crate::watchdog::guard;
use crate::{Gate, GateError};

/// One picture to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawJob {
    /// Index of the picture in the request, from 0.
    pub member: usize,
    /// From 1.
    pub attempt: u32,
    /// What to draw.
    pub prompt: Arc<str>,
    /// Seed of this attempt.
    pub seed: u64,
    /// Statements that made an earlier attempt violate a rule: words for a negative prompt, if the generator knows
    /// them. Empty at the first attempt.
    pub avoid: Vec<String>,
    /// The same for every job of the request.
    pub options: Arc<DrawOptions>,
}

/// How to draw; what is left out is the generator's own default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DrawOptions {
    /// Number of denoising steps.
    pub steps: Option<u32>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Weight of the prompt (classifier-free guidance).
    pub guidance: Option<f64>,
    /// What not to draw.
    pub negative_prompt: Option<String>,
    /// Sampler by the generator's name.
    pub sampler: Option<String>,
    /// A picture to begin from.
    pub source: Option<DrawSource>,
    /// How a job is guided away from what it is to avoid, for generators that know more than a negative prompt. No effect on
    /// a job that avoids nothing.
    pub safety: SafetyGuidance,
}

/// A picture that a drawing begins from, instead of noise alone.
#[derive(Debug, Clone)]
pub struct DrawSource {
    /// The picture.
    pub picture: Picture,
    /// White where to draw anew, black where the picture stays; `None` for everywhere.
    pub mask: Option<Picture>,
    /// How far the result may be from the picture, over 0 and at most 1; `None` for the generator's own.
    pub strength: Option<f64>,
}

impl PartialEq for DrawSource {
    fn eq(&self, other: &Self) -> bool {
        let key = |source: &Self| {
            let mask = source.mask.as_ref().map(Picture::hash);
            (source.picture.hash(), mask, source.strength)
        };
        key(self) == key(other)
    }
}

/// How one job ended.
#[derive(Debug, Clone)]
pub enum Drawn {
    /// With a picture.
    Finished(Picture),
    /// Given up because the hook said [`Step::Stop`].
    Stopped,
}

/// A picture could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct GeneratorError(String);

impl GeneratorError {
    /// An error with a sentence that says what was expected and what came.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// What a generator does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Draws on.
    Continue,
    /// Gives this job up; the others go on.
    Stop,
}

/// Called by a generator while it draws. `job` is the index into the jobs of the call, `step` the number of finished
/// steps out of `total`. Neither call waits for a judge: what a preview shows may end the job at a later step.
pub trait StepHook {
    /// Whether the gate wants to see a preview after this step. Cheap; asked before or after the step is computed.
    fn wants_preview(&mut self, job: usize, step: u32, total: u32) -> bool;

    /// Whether the preview after this step, which is wanted, may end the job. It is worth some time then, for a generator that
    /// can tell more of the finished picture; one for somebody's eyes is not.
    fn may_end(&mut self, job: usize, step: u32, total: u32) -> bool {
        let _ = (job, step, total);
        true
    }

    /// Tells of a finished step, with a decoded preview if one is wanted. Called after every step of every job. On
    /// [`Step::Stop`] the generator gives the job up and answers [`Drawn::Stopped`] for it.
    fn step(&mut self, job: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step;
}

/// A text-to-image model that the gate can drive.
pub trait Generator: Send + Sync {
    /// Identity for the log: two generators with the same fingerprint draw the same picture from the same job.
    fn fingerprint(&self) -> &str;

    /// Whether it knows what to do with a picture to begin from ([`DrawOptions::source`]). One that does not is not asked to
    /// draw from one.
    fn draws_from_pictures(&self) -> bool {
        false
    }

    /// Most jobs of one call.
    fn batch_size(&self) -> usize {
        1
    }

    /// Refuses options that no job can be drawn with, before anything is drawn.
    ///
    /// # Errors
    /// A sentence that names the option, what it may be, and what it is. By default any sampler: a generator that knows
    /// several says so here.
    fn check(&self, options: &DrawOptions) -> Result<(), GeneratorError> {
        match &options.sampler {
            Some(name) => {
                Err(GeneratorError::new(format!("it has one sampler, and none by the name {name:?}")))
            }
            None => Ok(()),
        }
    }

    /// Draws every job and answers in the same order and number. Calls `hook` after each step.
    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>>;
}

impl Gate {
    /// Draws the pictures of `request` with `generator`, each through the same session as any host's, until every one
    /// has its decision: as many outcomes as pictures asked for, in order. How a job is guided away from what it is to avoid,
    /// the policy says.
    ///
    /// # Errors
    /// If the request is refused as a whole: an unknown tenant, or over a limit.
    pub fn drive(
        &self,
        generator: &dyn Generator,
        request: RequestInfo,
        options: DrawOptions,
    ) -> Result<Vec<MemberOutcome>, GateError> {
        let origin = if options.source.is_some() { Origin::Reworked } else { request.origin };
        let request = RequestInfo { generator: Some(generator.fingerprint().to_owned()), origin, ..request };
        let prompt: Arc<str> = Arc::from(request.prompt.as_str());
        let session = self.session(request)?;
        let options = Arc::new(DrawOptions { safety: session.policy().regenerate.guidance, ..options });
        Driver { outcomes: (0..session.count()).map(|_| None).collect(), session, prompt, options }
            .run(generator)
    }
}

struct Driver {
    session: Session,
    prompt: Arc<str>,
    options: Arc<DrawOptions>,
    outcomes: Vec<Option<MemberOutcome>>,
}

impl Driver {
    fn run(mut self, generator: &dyn Generator) -> Result<Vec<MemberOutcome>, GateError> {
        let mut due: Vec<DrawJob> = (0..self.session.count()).map(|member| self.first_job(member)).collect();
        for refused in self.session.check_prompt() {
            let member = refused.decision().member as usize;
            due.retain(|job| job.member != member);
            self.keep(member, MemberOutcome::Withheld(refused));
        }
        while !due.is_empty() {
            let mut again = Vec::new();
            for jobs in due.chunks(generator.batch_size().max(1)) {
                again.extend(self.round(generator, jobs)?);
            }
            due = again;
        }
        let mut left = self.session.withhold_undecided().into_iter();
        let outcomes = self
            .outcomes
            .into_iter()
            .filter_map(|outcome| outcome.or_else(|| left.next().map(MemberOutcome::Withheld)));
        Ok(outcomes.collect())
    }

    fn first_job(&self, member: usize) -> DrawJob {
        let (prompt, options) = (Arc::clone(&self.prompt), Arc::clone(&self.options));
        DrawJob {
            member,
            attempt: 1,
            prompt,
            seed: self.session.first_seed(member),
            avoid: Vec::new(),
            options,
        }
    }

    /// Draws `jobs` once and returns the jobs that are to be drawn again.
    fn round(&mut self, generator: &dyn Generator, jobs: &[DrawJob]) -> Result<Vec<DrawJob>, GateError> {
        jobs.iter().try_for_each(|job| self.session.start_attempt(job.member))?;
        let mut hook =
            SessionHook { session: &mut self.session, jobs, stopped: jobs.iter().map(|_| None).collect() };
        let drawn = if self.options.source.is_some() && !generator.draws_from_pictures() {
            let refused = GeneratorError::new("it draws from text alone, not from a picture");
            Ok(jobs.iter().map(|_| Err(refused.clone())).collect())
        } else {
            guard(|| generator.draw(jobs, &mut hook))
        };
        let stopped = hook.stopped;
        let failure = match &drawn {
            Ok(drawn) if drawn.len() == jobs.len() => None,
            Ok(drawn) => Some(format!("the generator gave {} answers to {} jobs", drawn.len(), jobs.len())),
            Err(panic) => Some(format!("the generator panicked: {panic}")),
        };
        let mut drawn = drawn.unwrap_or_default().into_iter();
        let mut again = Vec::new();
        for (job, stopped) in jobs.iter().zip(stopped) {
            let answer = drawn.next();
            let instruction = match (stopped, &failure, answer) {
                // The gate has given this attempt up: whatever the generator made of it is not looked at.
                (Some(instruction), _, _) => instruction,
                (None, None, Some(Ok(Drawn::Finished(picture)))) => {
                    self.session.finished(job.member, picture)?
                }
                (None, None, Some(Ok(Drawn::Stopped))) => self
                    .session
                    .generator_failed(job.member, "the generator stopped without being asked to")?,
                (None, None, Some(Err(error))) => {
                    self.session.generator_failed(job.member, &error.to_string())?
                }
                (None, failure, _) => {
                    let why = failure.as_deref().unwrap_or("the generator gave no answer");
                    self.session.generator_failed(job.member, why)?
                }
            };
            match instruction.into_outcome() {
                Ok(outcome) => self.keep(job.member, outcome),
                Err(DrawAgain { attempt, seed, avoid, prompt, .. }) => {
                    let prompt = prompt.map_or_else(|| Arc::clone(&self.prompt), Arc::from);
                    again.push(DrawJob { attempt, seed, avoid, prompt, ..job.clone() });
                }
            }
        }
        Ok(again)
    }

    fn keep(&mut self, member: usize, outcome: MemberOutcome) {
        if let Some(slot) = self.outcomes.get_mut(member) {
            *slot = Some(outcome);
        }
    }
}

/// Passes the steps of a generator on to the session.
struct SessionHook<'a> {
    session: &'a mut Session,
    jobs: &'a [DrawJob],
    /// What follows for the jobs that were given up.
    stopped: Vec<Option<Instruction>>,
}

impl StepHook for SessionHook<'_> {
    fn wants_preview(&mut self, job: usize, step: u32, total: u32) -> bool {
        let running = self.stopped.get(job).is_some_and(Option::is_none) && !self.session.is_over();
        let job = self.jobs.get(job).filter(|_| running);
        job.is_some_and(|job| self.session.wants_preview(job.member, step, total))
    }

    fn step(&mut self, job: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        let (Some(member), Some(slot)) =
            (self.jobs.get(job).map(|job| job.member), self.stopped.get_mut(job))
        else {
            return Step::Stop;
        };
        if slot.is_some() {
            return Step::Stop;
        }
        self.session.drew(member, step, total);
        let told = match preview {
            Some(preview) => self.session.begin_preview(member, step, total, preview),
            None => self.session.poll_preview(member),
        };
        match told {
            Ok(Some(PreviewInstruction::Abort(then))) => {
                *slot = Some(then);
                Step::Stop
            }
            Ok(Some(PreviewInstruction::Continue(_)) | None) => Step::Continue,
            // The member is decided or does not exist: there is nothing to draw for.
            Err(_) => Step::Stop,
        }
    }
}
