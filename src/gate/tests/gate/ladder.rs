//! Drawing again: which strategy follows, from which prompt, within which bounds, and that nothing gets out on the way.

use std::sync::{Arc, Mutex};

use cluegate_gate::{
    DrawJob, DrawOptions, Drawn, Extensions, Gate, Generator, GeneratorError, InspectionError, Instruction,
    MemberOutcome, Outcome, Reason, RequestInfo, SafetyGuidance, Screening, StepHook, Strategy as Change,
};
use cluegate_perception::{Call, Picture, Region};
use proptest::collection::vec;
use proptest::prelude::*;

use cluegate_gate::fakes::{Fault, World, gate, picture, violated};

const AGAIN: &str = "[tenant.t.action]\ndefault = \"regenerate\"";
/// Steps of a drawing.
const STEPS: u32 = 10;

/// Draws a sword, until the attempt or the prompt is one that gives none.
struct Smith {
    /// Whether an attempt shows a sword.
    shows: fn(&DrawJob) -> bool,
    jobs: Mutex<Vec<DrawJob>>,
}

impl Smith {
    fn new(shows: fn(&DrawJob) -> bool) -> Self {
        Self { shows, jobs: Mutex::default() }
    }
}

impl Generator for Smith {
    fn fingerprint(&self) -> &str {
        "smith"
    }

    fn draw(&self, jobs: &[DrawJob], hook: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let draw = |(index, job): (usize, &DrawJob)| {
            self.jobs.lock().unwrap().push(job.clone());
            (1..=STEPS).for_each(|step| {
                hook.step(index, step, STEPS, None);
            });
            let objects: &[usize] = if (self.shows)(job) { &[2] } else { &[] };
            Ok(Drawn::Finished(picture(objects, (job.seed % 50) as u8)))
        };
        jobs.iter().enumerate().map(draw).collect()
    }
}

fn drive(gate: &Gate, smith: &Smith, prompt: &str, count: u32) -> Vec<MemberOutcome> {
    gate.drive(smith, RequestInfo::new("t", prompt, 7, count), DrawOptions::default()).unwrap()
}

fn strategies(outcome: &MemberOutcome) -> Vec<Change> {
    outcome.decision().attempts.iter().map(|attempt| attempt.strategy).collect()
}

fn with(regenerate: &str) -> String {
    format!("[tenant.t.regenerate]\n{regenerate}\n{AGAIN}")
}

#[test]
fn each_strategy_changes_what_it_says() {
    let fixed =
        with("strategies = [\"reseed\", \"avoid\", \"rewrite\"]\nleast_chance = 0\nguidance = \"strong\"");
    let (gate, _) = gate(&World::new([]), "tries = 5\nlog_prompts = true", &fixed);
    let smith = Smith::new(|job| job.prompt.contains("sword"));
    let outcome = drive(&gate, &smith, "a knight holding swords on a beach", 1).remove(0);
    assert!(matches!(outcome, MemberOutcome::Released(_)));
    assert_eq!(strategies(&outcome), [Change::First, Change::Reseed, Change::Avoid, Change::Rewrite]);
    let jobs = smith.jobs.lock().unwrap();
    let avoid: Vec<usize> = jobs.iter().map(|job| job.avoid.len()).collect();
    assert_eq!(avoid, [0, 0, 1, 1]);
    assert!(jobs[..3].iter().all(|job| &*job.prompt == "a knight holding swords on a beach"));
    assert_eq!(&*jobs[3].prompt, "a knight on a beach");
    assert!(jobs.iter().all(|job| job.options.safety == SafetyGuidance::Strong));
    let decision = outcome.decision();
    assert_eq!(decision.attempts[3].prompt.as_deref(), Some("a knight on a beach"));
    assert_eq!(decision.cost.steps, u64::from(4 * STEPS));
    assert!(decision.attempts[0].chance.is_none() && decision.attempts[1].chance.is_some());
    // Seeds differ, and what was rewritten goes on where it stood.
    let mut seeds: Vec<u64> = jobs.iter().map(|job| job.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 4);
}

#[test]
fn the_prompt_stays_where_nothing_in_it_is_against_a_rule() {
    let (gate, _) = gate(&World::new([]), "tries = 2", &with("strategies = [\"rewrite\"]"));
    let smith = Smith::new(|_| true);
    drive(&gate, &smith, "a knight on a beach", 1);
    let jobs = smith.jobs.lock().unwrap();
    assert_eq!((&*jobs[1].prompt, jobs[1].avoid.len()), ("a knight on a beach", 1));
}

#[test]
fn a_first_violation_goes_past_a_new_seed_and_a_rare_one_does_not() {
    let (gate, _) = gate(&World::new([]), "tries = 4", AGAIN);
    let smith = Smith::new(|_| true);
    let outcome = drive(&gate, &smith, "a sword", 1).remove(0);
    assert_eq!(strategies(&outcome), [Change::First, Change::Avoid, Change::Rewrite, Change::Rewrite]);
    // Of another prompt three of four pictures pass: the fourth is worth another seed.
    let fourth = Smith::new(|job| job.member == 3 && job.attempt == 1);
    let outcome = drive(&gate, &fourth, "a knight", 4).remove(3);
    assert_eq!(strategies(&outcome), [Change::First, Change::Reseed]);
    let chance = outcome.decision().attempts[1].chance.unwrap();
    assert!((chance - 4.06 / 5.64).abs() < 1e-9, "{chance}");
    // What one prompt taught says nothing of another, and the first is remembered: guided attempts failed there.
    let again = drive(&gate, &Smith::new(|_| true), "a sword", 1).remove(0);
    assert_eq!(strategies(&again), [Change::First, Change::Rewrite, Change::Rewrite, Change::Rewrite]);
}

#[test]
fn hopeless_prompts_are_given_up_before_the_tries_are_spent() {
    let (gate, _) = gate(&World::new([]), "tries = 100", &with("give_up_below = 0.2"));
    let smith = Smith::new(|_| true);
    let outcome = drive(&gate, &smith, "a sword", 1).remove(0);
    assert_eq!(outcome.decision().reason, Reason::TriesExhausted);
    let made = outcome.decision().attempts.len();
    assert!((3..10).contains(&made), "{made}");
    let message = &outcome.decision().message;
    assert!(message.contains("a chance of 16.7 % only"), "{message}");
    assert_eq!(drive(&gate, &smith, "a sword", 1)[0].decision().attempts.len(), 1);
}

#[test]
fn bounds_of_a_request_hold_and_name_themselves() {
    for (bound, attempts, word) in [
        ("max_steps = 30", 3, "regenerate.max_steps"),
        ("max_steps = 29", 2, "regenerate.max_steps"),
        ("max_seconds = 1e-9", 1, "regenerate.max_seconds"),
        ("max_cost = 25.0", 2, "regenerate.max_cost"),
    ] {
        let tables = format!("{}\n[tenant.t.quota]\nprice_per_step = 1.0", with(bound));
        let (gate, _) = gate(&World::new([]), "tries = 9", &tables);
        let outcome = drive(&gate, &Smith::new(|_| true), "a sword", 1).remove(0);
        let decision = outcome.decision();
        assert_eq!((decision.reason, decision.attempts.len()), (Reason::TriesExhausted, attempts), "{bound}");
        assert!(decision.message.contains(word), "{}", decision.message);
        assert_eq!(decision.cost.amount, f64::from(STEPS) * attempts as f64);
    }
}

#[test]
fn the_pictures_of_a_request_share_its_bounds_and_unknown_steps_end_it() {
    let (gate, _) = gate(&World::new([]), "tries = 9", &with("max_steps = 50"));
    let outcomes = drive(&gate, &Smith::new(|_| true), "a sword", 3);
    let attempts: usize = outcomes.iter().map(|outcome| outcome.decision().attempts.len()).sum();
    assert_eq!(attempts, 5);
    // A host that says nothing of steps gets no second attempt, one that names them does.
    for (steps, again) in [(None, false), (Some(20), true)] {
        let asked = RequestInfo { steps, ..RequestInfo::new("t", "a sword", 1, 1) };
        let mut session = gate.session(asked).unwrap();
        let instruction = session.finished(0, picture(&[2], 3)).unwrap();
        assert_eq!(instruction.into_outcome().is_err(), again, "{steps:?}");
    }
}

/// Keeps back, in its own way, the pictures in which nobody else finds anything.
struct Screener(Way);

/// What is said of a picture with this region.
type Way = fn(Region) -> Result<Screening, InspectionError>;

impl Extensions for Screener {
    fn screen(&self, picture: &Picture, _: &Call) -> Result<Screening, InspectionError> {
        let region = Region { left: 1.0, top: 1.0, right: 20.0, bottom: 20.0 };
        if violated(picture.pixels()).is_empty() { (self.0)(region) } else { Ok(Screening::default()) }
    }
}

/// What a plugin keeps back did not pass, and counts once, whatever becomes of a redacted copy. What it fails at says nothing.
#[test]
fn pictures_that_only_a_plugin_keeps_back_count_too() {
    fn why() -> Vec<String> {
        vec!["the plugin faces calls the picture unsafe".to_owned()]
    }
    let withhold = |_| Ok(Screening { withhold: why(), ..Screening::default() });
    let redact = |region| Ok(Screening { redact: why(), regions: vec![region], ..Screening::default() });
    let note = |region| Ok(Screening { regions: vec![region], ..Screening::default() });
    let fail = |_| Err(InspectionError::new("broken", "it is"));
    let ways: [(Way, f64, f64); 4] =
        [(withhold, 0.0, 3.0), (redact, 0.0, 3.0), (note, 3.0, 0.0), (fail, 0.0, 0.0)];
    for (way, passed, kept_back) in ways {
        let (gate, _) = gate(&World::new([]), "tries = 2", &with("strategies = [\"reseed\"]"));
        let gate = gate.with_extensions(Arc::new(Screener(way))).unwrap();
        let mut session = gate.session(RequestInfo::new("t", "a shop", 1, 4)).unwrap();
        for member in 0..3 {
            let told = session.finished(member, picture(&[3], 7)).unwrap();
            assert_eq!(matches!(told, Instruction::Release(_)), passed > 0.0);
        }
        assert!(matches!(session.finished(3, picture(&[2], 7)), Ok(Instruction::DrawAgain(_))));
        let decisions = session.close().decisions;
        let chance = decisions[3].attempts[1].chance.unwrap();
        // The violation itself counts as well.
        let expected = (1.06 + passed) / (1.64 + passed + kept_back + 1.0);
        assert!((chance - expected).abs() < 1e-9, "{chance}, expected {expected}");
    }
}

/// Whoever may not know what was violated draws again without it, and is told so.
#[test]
fn a_client_that_draws_follows_only_what_it_may_know() {
    for (client, strategy) in
        [("", Change::Reseed), ("instructions", Change::Rewrite), ("evidence", Change::Rewrite)]
    {
        let client =
            if client.is_empty() { String::new() } else { format!("\n[tenant.t.client]\n{client} = true") };
        let tables = with("strategies = [\"rewrite\"]") + &client;
        let (gate, _) = gate(&World::new([]), "tries = 2", &tables);
        for (drawn_by_client, strategy) in [(true, strategy), (false, Change::Rewrite)] {
            let asked =
                RequestInfo { drawn_by_client, ..RequestInfo::new("t", "a knight with a sword", 1, 1) };
            let mut session = gate.session(asked).unwrap();
            assert_eq!(session.strategies(), [strategy]);
            let told = session.finished(0, picture(&[2], 7)).unwrap();
            let Instruction::DrawAgain(again) = told else { panic!("{told:?}") };
            let is_told = strategy == Change::Rewrite;
            assert_eq!(again.strategy, strategy);
            assert_eq!((again.avoid.len(), again.prompt.is_some()), (usize::from(is_told), is_told));
        }
    }
}

const STRATEGIES: [&str; 3] = ["\"reseed\"", "\"avoid\"", "\"rewrite\""];

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![10 => Just(Fault::None), 1 => Just(Fault::Error), 1 => Just(Fault::Partial), 1 => Just(Fault::OtherPicture)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever ladder a policy names and whatever a generator makes of it: a picture that is released has a complete verdict of
    /// its own that calls it safe, no bound is passed, and the strategies come in the order of the list.
    #[test]
    fn no_ladder_releases_what_is_not_judged_safe(
        listed in vec(0_usize..3, 1..5),
        least_chance in 0.0_f64..=1.0,
        tries in 1_u32..6,
        max_steps in 10_u64..200,
        redact in any::<bool>(),
        faults in vec(fault(), 0..30),
        count in 1_u32..4,
        kind in 0_usize..4,
        requests in 1_usize..3,
    ) {
        let shows = [
            |_: &DrawJob| true,
            |job: &DrawJob| job.avoid.is_empty(),
            |job: &DrawJob| job.prompt.contains("sword"),
            |job: &DrawJob| !(job.seed + u64::from(job.attempt)).is_multiple_of(3),
        ][kind];
        let names: Vec<&str> = listed.iter().map(|index| STRATEGIES[*index]).collect();
        let after = if redact { "redact" } else { "block" };
        let tables = with(&format!(
            "strategies = [{}]\nleast_chance = {least_chance}\nmax_steps = {max_steps}", names.join(", ")
        ));
        let (gate, _) = gate(&World::new(faults), &format!("tries = {tries}\nafter_tries = \"{after}\""), &tables);
        for _ in 0..requests {
            let outcomes = drive(&gate, &Smith::new(shows), "a knight with a sword", count);
            prop_assert_eq!(outcomes.len(), count as usize);
            let mut steps = 0;
            let mut later = 0;
            for outcome in &outcomes {
                let decision = outcome.decision();
                prop_assert!(decision.attempts.len() <= tries as usize);
                steps += decision.cost.steps;
                later += decision.attempts.len() - 1;
                // Each strategy stands in the list behind the one before it, or is the last of it.
                let mut place = 0;
                for attempt in &decision.attempts[1..] {
                    let wanted = match attempt.strategy { Change::Reseed => 0, Change::Avoid => 1, _ => 2 };
                    let found = (place..listed.len()).find(|at| listed[*at] == wanted);
                    prop_assert!(found.is_some(), "{:?} of {listed:?} from {place}", attempt.strategy);
                    place = (found.unwrap() + 1).min(listed.len() - 1);
                    let chance = attempt.chance.unwrap();
                    prop_assert!(chance > 0.0 && chance < 1.0);
                }
                if let MemberOutcome::Released(released) = outcome {
                    prop_assert_eq!(decision.outcome, Outcome::Released);
                    prop_assert!(violated(released.pixels()).is_empty());
                    let last = decision.attempts.last().unwrap();
                    let redacted = last.redactions.last().and_then(|redaction| redaction.judgment.as_ref());
                    let judgment = redacted.or(last.judgment.as_ref()).unwrap();
                    prop_assert!(judgment.error.is_none() && judgment.violated.is_empty());
                    let judged = judgment.evidence.as_ref().and_then(|evidence| evidence["picture"].as_str());
                    let hash = released.picture().hash().to_hex();
                    prop_assert_eq!(judged, Some(hash.as_str()));
                }
            }
            if later > 0 {
                prop_assert!(steps <= max_steps.max(u64::from(count * STEPS)), "{steps} of {max_steps}");
            }
        }
    }
}
