//! The gate driving a generator.

use std::collections::HashMap;
use std::sync::Mutex;

use cluegate_gate::{
    DrawJob, DrawOptions, DrawSource, Drawn, Gate, Generator, GeneratorError, MemberOutcome, Reason,
    RequestInfo, Step, StepHook,
};
use cluegate_perception::Picture;
use image::RgbImage;

use cluegate_gate::fakes::{World, gate, picture, violated};

/// What one attempt gives.
#[derive(Debug, Clone)]
pub(crate) enum Draw {
    /// A picture of these objects, with a preview of those.
    Picture(Vec<usize>, Vec<usize>),
    Black,
    Fails,
    Panics,
    StopsByItself,
    /// Answers one job too few.
    LosesAJob,
}

/// Draws by script, from (member, attempt); a safe picture where the script says nothing.
pub(crate) struct Script {
    pub(crate) draws: HashMap<(usize, u32), Draw>,
    pub(crate) batch: usize,
    pub(crate) jobs: Mutex<Vec<DrawJob>>,
}

const STEPS: u32 = 10;

impl Script {
    pub(crate) fn new(draws: impl IntoIterator<Item = ((usize, u32), Draw)>, batch: usize) -> Self {
        Self { draws: draws.into_iter().collect(), batch, jobs: Mutex::default() }
    }

    fn one(&self, index: usize, job: &DrawJob, hook: &mut dyn StepHook) -> Result<Drawn, GeneratorError> {
        let safe = Draw::Picture(Vec::new(), Vec::new());
        let draw = self.draws.get(&(job.member, job.attempt)).unwrap_or(&safe);
        let salt = (job.member as u8) * 5 + job.attempt as u8;
        if let Draw::Picture(_, preview) = draw {
            let preview = picture(preview, salt);
            for step in 1..=STEPS {
                let wanted = hook.wants_preview(index, step, STEPS);
                let mut said = hook.step(index, step, STEPS, wanted.then_some(&preview));
                // A step takes longer than it takes to judge what violates a rule.
                while wanted && !violated(preview.pixels()).is_empty() && said == Step::Continue {
                    std::thread::yield_now();
                    said = hook.step(index, step, STEPS, None);
                }
                if said == Step::Stop {
                    return Ok(Drawn::Stopped);
                }
            }
        }
        match draw {
            Draw::Picture(objects, _) => Ok(Drawn::Finished(picture(objects, salt))),
            Draw::Black => Ok(Drawn::Finished(Picture::new(RgbImage::new(64, 64)))),
            Draw::Fails => Err(GeneratorError::new("the latents are not numbers at step 3")),
            Draw::Panics => panic!("shape mismatch"),
            Draw::StopsByItself | Draw::LosesAJob => Ok(Drawn::Stopped),
        }
    }
}

impl Generator for Script {
    fn fingerprint(&self) -> &str {
        "script"
    }

    fn batch_size(&self) -> usize {
        self.batch
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        self.jobs.lock().unwrap().extend_from_slice(jobs);
        let mut answers: Vec<_> = jobs.iter().enumerate().map(|(i, job)| self.one(i, job, hook)).collect();
        let loses =
            |job: &DrawJob| matches!(self.draws.get(&(job.member, job.attempt)), Some(Draw::LosesAJob));
        if jobs.iter().any(loses) {
            answers.pop();
        }
        answers
    }
}

pub(crate) fn drive(gate: &Gate, script: &Script, count: u32) -> Vec<MemberOutcome> {
    gate.drive(script, RequestInfo::new("t", "people", 7, count), DrawOptions::default()).unwrap()
}

fn reasons(outcomes: &[MemberOutcome]) -> Vec<Reason> {
    outcomes.iter().map(|outcome| outcome.decision().reason).collect()
}

#[test]
fn every_member_gets_its_own_decision() {
    for batch in [1, 3, 8] {
        let script = Script::new(
            [
                ((1, 1), Draw::Picture(vec![1], vec![])),
                ((2, 1), Draw::Picture(vec![0, 3], vec![])),
                ((2, 2), Draw::Picture(vec![], vec![2])),
                ((3, 1), Draw::Picture(vec![2], vec![2])),
                ((3, 2), Draw::Picture(vec![2], vec![2])),
                ((3, 3), Draw::Picture(vec![2], vec![])),
                ((4, 1), Draw::Black),
                ((5, 1), Draw::Fails),
                ((6, 1), Draw::StopsByItself),
            ],
            batch,
        );
        let actions =
            "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.action.rule]\nbeer = \"redact\"";
        let (gate, log) = gate(&World::new([]), "previews = [0.5]", actions);
        let outcomes = drive(&gate, &script, 8);
        let failed = Reason::GeneratorFailure;
        let expected = [
            Reason::Safe,
            Reason::Redacted,
            Reason::Safe,
            Reason::TriesExhausted,
            failed,
            failed,
            failed,
            Reason::Safe,
        ];
        assert_eq!(reasons(&outcomes), expected, "batches of {batch}");
        assert!(outcomes.iter().enumerate().all(|(member, outcome)| outcome.member() == member));
        assert_eq!(log.records().len(), 8);
        // The log knows the seed of every attempt that the generator was given.
        for job in script.jobs.lock().unwrap().iter() {
            let attempts = &outcomes[job.member].decision().attempts;
            assert_eq!(attempts[job.attempt as usize - 1].seed, job.seed);
        }
        assert_eq!(outcomes[0].decision().models.get("generator").map(String::as_str), Some("script"));
        let MemberOutcome::Released(third) = &outcomes[2] else { panic!("not released") };
        assert_eq!(third.decision().attempts.len(), 3);
        assert!(third.decision().attempts[1].previews[0].aborted);
    }
}

#[test]
fn a_generator_that_panics_or_loses_jobs_takes_down_its_batch_only() {
    for draw in [Draw::Panics, Draw::LosesAJob] {
        let script = Script::new([((2, 1), draw.clone())], 2);
        let (gate, _) = gate(&World::new([]), "", "");
        let outcomes = drive(&gate, &script, 6);
        let failed = Reason::GeneratorFailure;
        let expected = [Reason::Safe, Reason::Safe, failed, failed, Reason::Safe, Reason::Safe];
        assert_eq!(reasons(&outcomes), expected, "{draw:?}");
        let message = &outcomes[2].decision().message;
        let why =
            if matches!(draw, Draw::Panics) { "panicked: shape mismatch" } else { "1 answers to 2 jobs" };
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_generator_that_draws_from_text_alone_is_not_asked_to_draw_from_a_picture() {
    let script = Script::new([], 2);
    let (gate, _) = gate(&World::new([]), "", "");
    let source = DrawSource { picture: picture(&[0], 1), mask: None, strength: None };
    let options = DrawOptions { source: Some(source), ..DrawOptions::default() };
    let outcomes = gate.drive(&script, RequestInfo::new("t", "people", 7, 3), options).unwrap();
    assert_eq!(reasons(&outcomes), [Reason::GeneratorFailure; 3]);
    let message = &outcomes[0].decision().message;
    assert!(message.contains("from text alone"), "{message}");
    assert!(script.jobs.lock().unwrap().is_empty());
}

#[test]
fn a_second_attempt_knows_what_to_avoid() {
    let script = Script::new([((0, 1), Draw::Picture(vec![2], vec![]))], 1);
    let (gate, _) = gate(&World::new([]), "", "[tenant.t.action]\ndefault = \"regenerate\"");
    drive(&gate, &script, 1);
    let jobs = script.jobs.lock().unwrap();
    assert_eq!(jobs[1].avoid, ["a sword is visible"]);
    assert_eq!((jobs[0].seed, jobs[0].attempt, jobs[1].attempt), (7, 1, 2));
}

#[test]
fn the_same_request_asks_for_the_same_seeds() {
    let draws = [((0, 1), Draw::Picture(vec![2], vec![])), ((0, 2), Draw::Picture(vec![2], vec![]))];
    let (gate, _) = gate(&World::new([]), "", "[tenant.t.action]\ndefault = \"regenerate\"");
    let seeds = || {
        let script = Script::new(draws.clone(), 1);
        drive(&gate, &script, 1);
        script.jobs.into_inner().unwrap().iter().map(|job| job.seed).collect::<Vec<_>>()
    };
    assert_eq!(seeds(), seeds());
}
