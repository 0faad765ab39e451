//! Previews that are judged while the host draws on: what they end, what waits, and what comes too late.

use std::sync::{Arc, Mutex};

use cluegate_gate::fakes::{Fault, Held, World, gate, picture};
use cluegate_gate::{
    DecisionRecord, DrawJob, DrawOptions, Drawn, Gate, Generator, GeneratorError, Instruction, MemoryLog,
    PreviewInstruction, PreviewRecord, Reason, RequestInfo, Session, Step, StepHook,
};

const TABLES: &str = "[tenant.t.action]\ndefault = \"regenerate\"";
const STEPS: u32 = 10;
const SWORD: [usize; 1] = [2];

/// A gate whose verdicts on previews the test lets come.
fn held(keys: &str) -> (Gate, Arc<MemoryLog>, Held) {
    let (world, held) = World::new([]).held();
    let (gate, log) = gate(&world, keys, TABLES);
    (gate, log, held)
}

fn session(gate: &Gate) -> Session {
    gate.session(RequestInfo::new("t", "a man", 7, 1)).unwrap()
}

fn begin(session: &mut Session, step: u32, objects: &[usize]) -> Option<PreviewInstruction> {
    session.begin_preview(0, step, STEPS, &picture(objects, step as u8)).unwrap()
}

/// Asks until there is a verdict.
fn verdict(session: &mut Session) -> PreviewInstruction {
    loop {
        match session.poll_preview(0).unwrap() {
            Some(told) => return told,
            None => std::thread::yield_now(),
        }
    }
}

fn is_continue(told: &Option<PreviewInstruction>) -> bool {
    matches!(told, Some(PreviewInstruction::Continue(None)))
}

fn last(log: &MemoryLog) -> DecisionRecord {
    log.records().pop().unwrap()
}

/// Step, whether it gave the attempt up, and the kind of error if there was one.
fn told(previews: &[PreviewRecord]) -> Vec<(u32, bool, Option<&str>)> {
    let told = |preview: &PreviewRecord| (preview.step, preview.aborted);
    let errors = previews.iter().map(|preview| preview.judgment.error.as_ref());
    let kinds = errors.map(|error| error.map(|error| error.kind.as_str()));
    previews.iter().map(told).zip(kinds).map(|((step, aborted), kind)| (step, aborted, kind)).collect()
}

#[test]
fn a_verdict_ends_the_attempt_when_the_host_asks_for_it_and_all_steps_count() {
    let (gate, log, held) = held("previews = [0.2]");
    let mut session = session(&gate);
    assert!(is_continue(&begin(&mut session, 2, &SWORD)));
    held.begun();
    for step in 3..=6 {
        session.drew(0, step, STEPS);
        assert!(session.poll_preview(0).unwrap().is_none(), "there is no verdict yet");
    }
    held.let_go();
    let PreviewInstruction::Abort(Instruction::DrawAgain(again)) = verdict(&mut session) else {
        panic!("it draws on")
    };
    assert!(again.message.starts_with("the preview after step 2 of 10 violates sword"), "{}", again.message);
    // The next attempt knows nothing of it.
    assert!(matches!(verdict(&mut session), PreviewInstruction::Continue(None)));
    assert!(matches!(session.finished(0, picture(&[], 9)).unwrap(), Instruction::Release(_)));
    let record = last(&log);
    assert_eq!((record.attempts.len(), record.attempts[0].steps, record.cost.steps), (2, 6, 16));
    assert_eq!(told(&record.attempts[0].previews), [(2, true, None)]);
    assert_eq!(record.cost.judgments, 2);
}

#[test]
fn one_is_judged_at_a_time_and_the_newest_of_the_schedule_waits() {
    let (gate, log, held) = held("previews = [0.2, 0.5, 0.7]");
    let mut session = session(&gate);
    assert!(is_continue(&begin(&mut session, 2, &[])));
    held.begun();
    assert!(begin(&mut session, 5, &[]).is_none());
    assert!(begin(&mut session, 7, &SWORD).is_none());
    // Nobody asked for this one, which could end nothing.
    assert!(begin(&mut session, 8, &[]).is_none());
    held.let_go();
    assert!(matches!(verdict(&mut session), PreviewInstruction::Continue(None)));
    held.begun();
    assert!(session.poll_preview(0).unwrap().is_none());
    held.let_go();
    assert!(matches!(verdict(&mut session), PreviewInstruction::Abort(Instruction::DrawAgain(_))));
    drop(session);
    assert_eq!(told(&last(&log).attempts[0].previews), [(2, false, None), (7, true, None)]);
}

#[test]
fn a_picture_that_is_finished_first_is_judged_whole_and_the_late_verdict_is_counted() {
    for objects in [&[][..], &SWORD] {
        let (gate, log, held) = held("tries = 1\npreviews = [0.5, 0.8]");
        let mut session = session(&gate);
        begin(&mut session, 5, &SWORD);
        held.begun();
        // What waits is of no use any more.
        begin(&mut session, 8, &SWORD);
        let told_of_picture = session.finished(0, picture(objects, 1)).unwrap();
        assert_eq!(matches!(told_of_picture, Instruction::Release(_)), objects.is_empty());
        assert!(held.was_called_off());
        let record = last(&log);
        assert_eq!(record.reason, if objects.is_empty() { Reason::Safe } else { Reason::TriesExhausted });
        assert_eq!(told(&record.attempts[0].previews), [(5, false, Some("given-up"))]);
        assert_eq!(record.cost.judgments, 2);
        assert!(record.attempts[0].previews[0].judgment.ms > 0.0);
        assert!(session.begin_preview(0, 9, STEPS, &picture(&SWORD, 2)).is_err(), "the decision is final");
    }
}

#[test]
fn a_judge_that_fails_beside_the_drawing_ends_and_releases_nothing() {
    for (fault, kind) in
        [(Fault::Error, "out-of-domain"), (Fault::Panic, "panic"), (Fault::OtherPicture, "unfit-verdict")]
    {
        let world = World::new([fault]);
        let (gate, log) = gate(&world, "tries = 1\npreviews = [0.5]", TABLES);
        let mut session = session(&gate);
        begin(&mut session, 5, &SWORD);
        assert!(matches!(verdict(&mut session), PreviewInstruction::Continue(None)), "{fault:?}");
        assert!(matches!(session.finished(0, picture(&SWORD, 1)).unwrap(), Instruction::Withhold(_)));
        assert_eq!(told(&last(&log).attempts[0].previews), [(5, false, Some(kind))]);
    }
}

#[test]
fn the_end_of_the_request_ends_the_judging_of_its_previews() {
    let (gate, log, held) = held("previews = [0.5]");
    let mut called_off = session(&gate);
    begin(&mut called_off, 5, &SWORD);
    held.begun();
    called_off.call().clone().cancel();
    let Some(PreviewInstruction::Abort(Instruction::Withhold(withheld))) =
        called_off.poll_preview(0).unwrap()
    else {
        panic!("it draws on")
    };
    assert_eq!(withheld.reason(), Reason::Cancelled);
    assert!(held.was_called_off());
    let mut left = session(&gate);
    begin(&mut left, 5, &SWORD);
    held.begun();
    drop(left);
    assert!(held.was_called_off());
    assert_eq!(last(&log).reason, Reason::NotFinished);
    assert_eq!(told(&last(&log).attempts[0].previews), [(5, false, Some("given-up"))]);
}

#[test]
fn outside_of_the_schedule_a_preview_is_judged_to_be_shown_and_ends_nothing() {
    for (client, unscheduled) in [("[tenant.t.client]\npreviews = true", 1), ("", 0)] {
        let world = World::new([]);
        let (gate, log) = gate(&world, "tries = 1\npreviews = [0.5]", &format!("{client}\n{TABLES}"));
        let mut session = session(&gate);
        assert!(!session.wants_preview(0, 4, STEPS));
        let seen = session.preview(0, 4, STEPS, &picture(&SWORD, 1)).unwrap();
        assert!(matches!(seen, PreviewInstruction::Continue(None)), "{seen:?}");
        assert_eq!(world.unfinished.lock().unwrap().len(), unscheduled);
        let seen = session.preview(0, 6, STEPS, &picture(&[], 1)).unwrap();
        let PreviewInstruction::Continue(seen) = seen else { panic!("it ends the attempt") };
        assert_eq!(seen.is_some(), unscheduled == 1);
        let seen = session.preview(0, 5, STEPS, &picture(&SWORD, 1)).unwrap();
        assert!(matches!(seen, PreviewInstruction::Abort(Instruction::Withhold(_))), "{seen:?}");
        let previews = &last(&log).attempts[0].previews;
        let aborted: Vec<_> = previews.iter().map(|preview| (preview.step, preview.aborted)).collect();
        let expected = [(4, false), (6, false), (5, true)];
        assert_eq!(aborted, expected[2 - 2 * unscheduled..]);
    }
}

/// Draws with a preview after half of the steps, whose verdict comes after some more.
struct Slow {
    held: Mutex<Held>,
    heard: u32,
}

impl Generator for Slow {
    fn fingerprint(&self) -> &str {
        "slow"
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let held = self.held.lock().unwrap();
        let mut draw = |job: &DrawJob| {
            let first = job.attempt == 1;
            for step in 1..=STEPS {
                let wanted = hook.wants_preview(0, step, STEPS);
                let preview = picture(if first { &SWORD } else { &[] }, step as u8);
                let mut said = hook.step(0, step, STEPS, wanted.then_some(&preview));
                if wanted {
                    assert_eq!(said, Step::Continue, "nobody waits for the judge");
                    held.begun();
                }
                if step == self.heard {
                    held.let_go();
                }
                while first && step == self.heard && said == Step::Continue {
                    std::thread::yield_now();
                    said = hook.step(0, step, STEPS, None);
                }
                if said == Step::Stop {
                    return Ok(Drawn::Stopped);
                }
            }
            Ok(Drawn::Finished(picture(&[], 1)))
        };
        jobs.iter().map(&mut draw).collect()
    }
}

#[test]
fn a_driven_generator_draws_on_until_there_is_a_verdict() {
    for heard in [5, 7, STEPS] {
        let (world, held) = World::new([]).held();
        let (gate, log) = gate(&world, "previews = [0.5]", TABLES);
        let request = RequestInfo::new("t", "a man", 7, 1);
        let slow = Slow { held: Mutex::new(held), heard };
        gate.drive(&slow, request, DrawOptions::default()).unwrap();
        let record = last(&log);
        assert_eq!((record.reason, record.attempts.len()), (Reason::Safe, 2));
        assert_eq!(told(&record.attempts[0].previews), [(5, true, None)]);
        assert_eq!((record.attempts[0].steps, record.attempts[1].steps), (heard, STEPS));
        assert_eq!(record.cost.steps, u64::from(heard + STEPS));
    }
}

#[test]
fn a_verdict_that_is_there_when_the_picture_is_finished_gives_it_up() {
    // When the judge's thread has handed its verdict over, nobody sees: soon after it was reached.
    for _ in 0..1000 {
        let (gate, log, held) = held("tries = 1\npreviews = [0.5]");
        let mut session = session(&gate);
        begin(&mut session, 5, &SWORD);
        held.begun();
        held.let_go();
        assert!(!held.was_called_off());
        std::thread::yield_now();
        let told = session.finished(0, picture(&[], 1)).unwrap();
        let record = last(&log);
        let aborted = record.attempts[0].previews[0].aborted;
        assert_eq!(aborted, matches!(told, Instruction::Withhold(_)));
        if aborted {
            assert_eq!((record.reason, record.cost.judgments), (Reason::TriesExhausted, 1));
            assert!(record.message.starts_with("the preview after step 5 of 10 violates sword"));
            return;
        }
    }
    panic!("no verdict was there in time");
}
