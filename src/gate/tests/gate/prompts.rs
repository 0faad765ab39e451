//! The prompt, read before anything is drawn.

use std::sync::Mutex;

use cluegate_gate::{
    DrawJob, DrawOptions, Drawn, Gate, Generator, GeneratorError, Instruction, Judgment, MemberOutcome,
    PreviewInstruction, Reason, RequestInfo, StepHook,
};

use cluegate_gate::fakes::{Fault, World, gate, picture};

/// Draws what the prompt names, and counts.
#[derive(Default)]
struct Painter(Mutex<usize>);

impl Generator for Painter {
    fn fingerprint(&self) -> &str {
        "painter"
    }

    fn draw(&self, jobs: &[DrawJob], _: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let draw = |job: &DrawJob| {
            *self.0.lock().unwrap() += 1;
            let objects: &[usize] = if job.prompt.contains("a sword") { &[2] } else { &[] };
            Ok(Drawn::Finished(picture(objects, job.member as u8)))
        };
        jobs.iter().map(draw).collect()
    }
}

fn policy(mode: &str, rest: &str) -> String {
    format!("[tenant.t.prompt_check]\nmode = \"{mode}\"\n{rest}")
}

fn drive(gate: &Gate, prompt: &str) -> (Vec<MemberOutcome>, usize) {
    let painter = Painter::default();
    let outcomes = gate.drive(&painter, RequestInfo::new("t", prompt, 7, 2), DrawOptions::default()).unwrap();
    let drawn = *painter.0.lock().unwrap();
    (outcomes, drawn)
}

#[test]
fn a_prompt_that_asks_for_what_is_blocked_is_not_drawn() {
    let (gate, log) = gate(&World::new([]), "", &policy("enforce", ""));
    let (outcomes, drawn) = drive(&gate, "a knight with a sword");
    assert_eq!((outcomes.len(), drawn), (2, 0));
    for outcome in &outcomes {
        let decision = outcome.decision();
        assert!(matches!(outcome, MemberOutcome::Withheld(_)));
        assert_eq!(decision.reason, Reason::Violation);
        assert!(decision.message.contains("the prompt asks for what violates sword"), "{}", decision.message);
        let check = decision.prompt_check.as_ref().unwrap();
        assert_eq!((check.judgment.violated.as_slice(), check.agrees), (&["sword".to_owned()][..], None));
    }
    // Counted once.
    let judgments: Vec<u64> = log.records().iter().map(|record| record.cost.judgments).collect();
    assert_eq!(judgments, [1, 0]);
    let (outcomes, drawn) = drive(&gate, "a knight with a lance");
    assert_eq!(drawn, 2);
    let check = outcomes[1].decision().prompt_check.as_ref().unwrap();
    assert_eq!((check.judgment.verdict, check.agrees), (Judgment::Safe, Some(true)));
}

#[test]
fn a_milder_action_leaves_it_to_the_picture_and_so_do_advice_and_shadow() {
    let mild = "[tenant.t.action]\ndefault = \"redact\"";
    for (head, tables) in [
        ("", policy("enforce", mild)),
        ("", policy("advise", "")),
        ("mode = \"shadow\"", policy("enforce", "")),
    ] {
        let (gate, _) = gate(&World::new([]), head, &tables);
        let (outcomes, drawn) = drive(&gate, "a knight with a sword");
        assert_eq!(drawn, 2, "{head} {tables}");
        let decision = outcomes[0].decision();
        assert_eq!(decision.prompt_check.as_ref().unwrap().agrees, Some(true));
        // What the words do not say, the picture shows: both are told.
        let mut session = gate.session(RequestInfo::new("t", "a knight", 1, 1)).unwrap();
        session.check_prompt();
        session.finished(0, picture(&[2], 1)).unwrap();
        assert_eq!(session.decision(0).unwrap().prompt_check.as_ref().unwrap().agrees, Some(false));
    }
}

#[test]
fn a_judge_that_cannot_read_fails_closed_where_the_policy_enforces() {
    for fault in [Fault::Error, Fault::Panic] {
        let world = World::new([fault, Fault::None, Fault::None]);
        let (gate, _) = gate(&world, "on_error = \"release-unjudged\"", &policy("enforce", ""));
        let (outcomes, drawn) = drive(&gate, "a knight");
        assert_eq!(drawn, 0, "{fault:?}");
        assert!(outcomes.iter().all(|outcome| outcome.decision().reason == Reason::JudgeError));
        assert!(outcomes[0].decision().message.starts_with("the prompt: the judge failed"));
    }
    let (gate, _) = gate(&World::new([Fault::Error]), "", &policy("advise", ""));
    let (outcomes, drawn) = drive(&gate, "a knight");
    assert!(drawn == 2 && outcomes.iter().all(|outcome| matches!(outcome, MemberOutcome::Released(_))));
    let check = outcomes[0].decision().prompt_check.as_ref().unwrap();
    assert!(check.judgment.error.is_some() && check.agrees.is_none());
}

#[test]
fn a_host_that_does_not_ask_is_told_at_its_first_preview_or_picture() {
    let (gate, log) = gate(&World::new([]), "previews = [0.5]", &policy("enforce", ""));
    let asked = RequestInfo::new("t", "a sword", 7, 2);
    let mut session = gate.session(asked.clone()).unwrap();
    let refused = session.finished(1, picture(&[], 1)).unwrap();
    assert!(matches!(refused, Instruction::Withhold(_)), "{refused:?}");
    assert!(session.finished(0, picture(&[], 1)).is_err(), "it is decided");
    drop(session);
    let mut session = gate.session(asked).unwrap();
    let refused = session.preview(0, 5, 10, &picture(&[], 1)).unwrap();
    assert!(matches!(refused, PreviewInstruction::Abort(Instruction::Withhold(_))), "{refused:?}");
    drop(session);
    assert_eq!(log.records().len(), 4);
}

#[test]
fn the_encoder_needs_an_encoder_and_a_threshold_in_range() {
    let (gate, _) = gate(&World::new([]), "", &policy("enforce", "by = \"encoder\""));
    let (outcomes, drawn) = drive(&gate, "a knight");
    assert_eq!(drawn, 0);
    let message = &outcomes[0].decision().message;
    assert!(message.contains("expected a relevance encoder"), "{message}");
    let text = "[tenant.t]\n[tenant.t.prompt_check]\nthreshold = 2.0";
    let error = cluegate_gate::Policies::from_toml(text, "policy.toml").unwrap_err().to_string();
    assert!(error.contains("prompt_check.threshold"), "{error}");
}
