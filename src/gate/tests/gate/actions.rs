//! What follows from a verdict.

use cluegate_gate::{
    Action, Instruction, Outcome, PreviewInstruction, Reason, RedactionRecord, RequestInfo, Session,
    Unfinished,
};
use cluegate_perception::{Picture, Region};

use cluegate_gate::fakes::{World, find, find_in_the_corner, find_nothing, gate, picture, shows};

const SMOKER: [usize; 2] = [0, 3];

fn request(count: u32) -> RequestInfo {
    RequestInfo::new("t", "a person at a table", 7, count)
}

/// What a host does with `member` after it finished a picture of `objects`.
fn finish(session: &mut Session, member: usize, objects: &[usize]) -> Instruction {
    session.finished(member, picture(objects, member as u8)).unwrap()
}

#[test]
fn a_safe_picture_is_released_as_it_is() {
    let (gate, log) = gate(&World::new([]), "", "");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &[3]) else { panic!("not released") };
    assert_eq!(released.reason(), Reason::Safe);
    assert_eq!(released.picture().hash(), picture(&[3], 0).hash());
    assert!(!released.is_unjudged() && !released.is_redacted());
    let records = log.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].released_picture.as_deref(), Some(picture(&[3], 0).hash().to_hex().as_str()));
    assert_eq!(records[0].decision_id, released.decision().decision_id);
}

#[test]
fn a_violation_is_blocked_by_default_with_a_placeholder_and_the_rule() {
    let (gate, _) = gate(&World::new([]), "", "");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &SMOKER) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::Violation);
    assert_eq!(withheld.message(), "violates smoking (No smoking person.)");
    assert_eq!(withheld.decision().violated, ["smoking"]);
    let placeholder = withheld.placeholder().unwrap().pixels();
    assert_eq!(placeholder.dimensions(), (64, 64));
    assert!((0..4).all(|object| !shows(placeholder, object)));
}

#[test]
fn no_placeholder_where_the_policy_wants_none() {
    let (gate, _) = gate(&World::new([]), "placeholder = \"none\"", "");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &[1]) else { panic!("not withheld") };
    assert!(withheld.placeholder().is_none());
}

#[test]
fn the_strictest_action_among_the_violated_rules_wins() {
    let actions = "[tenant.t.action]\ndefault = \"allow\"\n[tenant.t.action.severity]\nmedium = \"hold\"\n\
                   [tenant.t.action.rule]\nsword = \"block\"\nsmoking = \"allow\"";
    let (gate, _) = gate(&World::new([]), "", actions);
    let cases: [(&[usize], Action, Outcome); 3] = [
        (&[0, 3], Action::Allow, Outcome::Released),
        (&[0, 3, 1], Action::Hold, Outcome::Held),
        (&[1, 2], Action::Block, Outcome::Withheld),
    ];
    for (objects, action, outcome) in cases {
        let mut session = gate.session(request(1)).unwrap();
        finish(&mut session, 0, objects);
        let decision = session.decision(0).unwrap();
        assert_eq!((decision.action, decision.outcome), (Some(action), outcome), "{objects:?}");
    }
}

#[test]
fn an_allowed_violation_is_released_and_named() {
    let (gate, _) = gate(&World::new([]), "", "[tenant.t.action]\ndefault = \"allow\"");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &SMOKER) else { panic!("not released") };
    assert_eq!(released.reason(), Reason::Allowed);
    assert_eq!(released.decision().violated, ["smoking"]);
    assert!(released.decision().message.contains("which the policy allows"));
}

#[test]
fn a_held_picture_is_for_the_reviewer_only() {
    let (gate, log) = gate(&World::new([]), "", "[tenant.t.action]\ndefault = \"hold\"");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Hold(held) = finish(&mut session, 0, &[2]) else { panic!("not held") };
    assert!(held.placeholder().is_some());
    let reviewed = image::load_from_memory(&held.encode_png_for_review().unwrap()).unwrap().into_rgb8();
    assert!(shows(&reviewed, 2));
    assert_eq!(log.records()[0].reason, Reason::HeldForReview);
}

#[test]
fn regenerate_draws_again_with_other_seeds_until_it_is_safe() {
    let (gate, log) = gate(&World::new([]), "tries = 3", "[tenant.t.action]\ndefault = \"regenerate\"");
    let mut session = gate.session(request(1)).unwrap();
    let mut seeds = vec![session.first_seed(0)];
    for attempt in 2..=3 {
        let Instruction::DrawAgain(again) = finish(&mut session, 0, &SMOKER) else {
            panic!("not drawn again")
        };
        assert_eq!(again.attempt, attempt);
        assert_eq!(again.avoid, ["a cigarette is visible"]);
        assert!(again.seed < 1 << 32 && !seeds.contains(&again.seed));
        seeds.push(again.seed);
    }
    assert!(matches!(finish(&mut session, 0, &[3]), Instruction::Release(_)));
    let record = &log.records()[0];
    assert_eq!(record.attempts.iter().map(|attempt| attempt.seed).collect::<Vec<_>>(), seeds);
    assert_eq!(record.attempts.len(), 3);
    assert!(record.violated.is_empty());
}

#[test]
fn exhausted_tries_block_or_redact() {
    let regenerate = "[tenant.t.action]\ndefault = \"regenerate\"";
    let (blocking, _) = gate(&World::new([]), "tries = 2", regenerate);
    let mut session = blocking.session(request(1)).unwrap();
    finish(&mut session, 0, &SMOKER);
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &SMOKER) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::TriesExhausted);
    assert!(withheld.message().ends_with("at the last of 2 tries"));

    let (redacting, _) = gate(&World::new([]), "tries = 1\nafter_tries = \"redact\"", regenerate);
    let mut session = redacting.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &SMOKER) else { panic!("not released") };
    assert!(released.is_redacted());
}

#[test]
fn redaction_hides_the_decisive_object_and_passes_the_second_judgment() {
    for method in ["blur", "pixelate", "fill"] {
        let tables =
            format!("[tenant.t.redact]\nmethod = \"{method}\"\n[tenant.t.action]\ndefault = \"redact\"");
        let (gate, log) = gate(&World::new([]), "", &tables);
        let mut session = gate.session(request(1)).unwrap();
        let Instruction::Release(released) = finish(&mut session, 0, &SMOKER) else { panic!("not released") };
        assert_eq!(released.reason(), Reason::Redacted);
        assert!(!shows(released.pixels(), 0), "{method}: the cigarette is still there");
        assert!(shows(released.pixels(), 3), "{method}: the person was hidden too");
        let record = &log.records()[0];
        let redactions = &record.attempts[0].redactions;
        assert_eq!(redactions.len(), 1);
        let [hidden] = redactions[0].boxes.as_slice() else { panic!("{:?}", redactions[0].boxes) };
        assert_eq!(hidden.statements, ["a cigarette is visible"]);
        assert!(redactions[0].judgment.as_ref().unwrap().violated.is_empty());
        assert_eq!(record.attempts[0].judgment.as_ref().unwrap().violated, ["smoking"]);
        assert_ne!(record.attempts[0].picture, record.released_picture);
    }
}

#[test]
fn all_objects_are_hidden_where_the_policy_says_so() {
    let tables = "[tenant.t.redact]\nobjects = \"all\"\n[tenant.t.action]\ndefault = \"redact\"";
    let (gate, _) = gate(&World::new([]), "", tables);
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &SMOKER) else { panic!("not released") };
    assert!(!shows(released.pixels(), 0) && !shows(released.pixels(), 3));
}

#[test]
fn boxes_are_asked_for_where_the_evidence_has_none() {
    let redact = "[tenant.t.action]\ndefault = \"redact\"";
    let (found, _) = gate(&World::with_detector(find_nothing, find), "", redact);
    let mut session = found.session(request(1)).unwrap();
    assert!(matches!(finish(&mut session, 0, &SMOKER), Instruction::Release(_)));

    let (blind, log) = gate(&World::with_detector(find_nothing, find_nothing), "", redact);
    let mut session = blind.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &SMOKER) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::RedactionFailed);
    let redactions = &log.records()[0].attempts[0].redactions;
    assert!(redactions.iter().all(|r| r.boxes.is_empty() && r.refused.is_some() && r.judgment.is_none()));
}

#[test]
fn a_redaction_that_does_not_pass_blocks() {
    let world = World::with_detector(find_in_the_corner, find_in_the_corner);
    let (gate, log) = gate(&world, "", "[tenant.t.action]\ndefault = \"redact\"");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &[1]) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::RedactionFailed);
    let redactions = &log.records()[0].attempts[0].redactions;
    assert_eq!(redactions.len(), 2);
    assert!(redactions[0].grow < redactions[1].grow);
    assert!(redactions.iter().all(|redaction| redaction.judgment.as_ref().unwrap().violated == ["beer"]));
}

#[test]
fn a_box_that_misses_is_widened_to_what_the_detector_finds_elsewhere() {
    let world = World::with_detector(find_in_the_corner, find);
    let (gate, log) = gate(&world, "", "[tenant.t.action]\ndefault = \"redact\"");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &[1]) else { panic!("not released") };
    assert!(released.is_redacted() && !shows(released.pixels(), 1));
    assert_eq!(log.records()[0].attempts[0].redactions.len(), 2);
}

/// Finds persons, and all else in the corner.
fn find_persons(picture: &Picture, word: &str) -> Vec<(f32, Region)> {
    if word == "person" { find(picture, word) } else { find_in_the_corner(picture, word) }
}

#[test]
fn all_objects_are_hidden_where_the_decisive_one_is_missed() {
    let world = World::with_detector(find_in_the_corner, find_persons);
    let (gate, log) = gate(&world, "", "[tenant.t.action]\ndefault = \"redact\"");
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &SMOKER) else { panic!("not released") };
    assert!(released.is_redacted() && shows(released.pixels(), 0) && !shows(released.pixels(), 3));
    let redactions = &log.records()[0].attempts[0].redactions;
    let violated = |of: &RedactionRecord| of.judgment.as_ref().unwrap().violated.clone();
    assert_eq!(
        redactions.iter().map(violated).collect::<Vec<_>>(),
        [vec!["smoking"], vec!["smoking"], vec![]]
    );
}

#[test]
fn what_is_too_much_when_widened_is_hidden_as_far_as_it_may_be() {
    let world = World::with_detector(find_in_the_corner, find);
    let tables = "[tenant.t.redact]\nmax_share = 0.15\n[tenant.t.action]\ndefault = \"redact\"";
    let (gate, log) = gate(&world, "", tables);
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Release(released) = finish(&mut session, 0, &[1]) else { panic!("not released") };
    assert!(released.is_redacted() && !shows(released.pixels(), 1));
    let redactions = &log.records()[0].attempts[0].redactions;
    assert_eq!(redactions.iter().map(|of| of.refused.is_some()).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_rule_that_blocks_still_blocks_after_redaction() {
    let tables = "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.action.rule]\nsword = \"redact\"";
    let (gate, _) = gate(&World::new([]), "tries = 1", tables);
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &[1, 2]) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::TriesExhausted);
}

#[test]
fn too_large_a_redaction_blocks() {
    let tables = "[tenant.t.redact]\nmax_share = 0.001\n[tenant.t.action]\ndefault = \"redact\"";
    let (gate, log) = gate(&World::new([]), "", tables);
    let mut session = gate.session(request(1)).unwrap();
    let Instruction::Withhold(withheld) = finish(&mut session, 0, &[1]) else { panic!("not withheld") };
    assert_eq!(withheld.reason(), Reason::RedactionFailed);
    let redactions = &log.records()[0].attempts[0].redactions;
    assert!(
        redactions.iter().all(|r| r.refused.as_deref().is_some_and(|why| why.contains("would be hidden")))
    );
}

#[test]
fn a_preview_aborts_draws_again_or_lets_draw_on() {
    let tables = "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.action.rule]\nsword = \"block\"\nbeer = \"redact\"";
    let (gate, log) = gate(&World::new([]), "tries = 2\npreviews = [0.5, 3]", tables);
    let mut session = gate.session(request(2)).unwrap();
    let wanted: Vec<u32> = (1..=10).filter(|step| session.wants_preview(0, *step, 10)).collect();
    assert_eq!(wanted, [3, 5]);
    let safe = session.preview(0, 3, 10, &picture(&[], 1)).unwrap();
    assert!(matches!(safe, PreviewInstruction::Continue(None)));
    let redactable = session.preview(0, 3, 10, &picture(&[1], 1)).unwrap();
    assert!(matches!(redactable, PreviewInstruction::Continue(None)));
    let PreviewInstruction::Abort(Instruction::DrawAgain(again)) =
        session.preview(0, 5, 10, &picture(&SMOKER, 1)).unwrap()
    else {
        panic!("not drawn again")
    };
    assert!(again.message.starts_with("the preview after step 5 of 10 violates smoking"));
    assert!(matches!(finish(&mut session, 0, &[]), Instruction::Release(_)));
    let PreviewInstruction::Abort(Instruction::Withhold(withheld)) =
        session.preview(1, 5, 10, &picture(&[2], 1)).unwrap()
    else {
        panic!("not withheld")
    };
    assert_eq!(withheld.reason(), Reason::Violation);
    assert!(!session.wants_preview(1, 5, 10), "a decided member is not looked at");
    let records = log.records();
    let previews = &records[0].attempts[0].previews;
    assert_eq!(previews.iter().map(|preview| preview.aborted).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(records[0].attempts[0].picture, None);
}

#[test]
fn members_are_decided_one_by_one() {
    let tables = "[tenant.t.action.rule]\nbeer = \"redact\"\nsword = \"regenerate\"";
    let (gate, log) = gate(&World::new([]), "", tables);
    let mut session = gate.session(request(5)).unwrap();
    finish(&mut session, 2, &[1]);
    finish(&mut session, 0, &[]);
    finish(&mut session, 3, &[2]);
    finish(&mut session, 1, &SMOKER);
    finish(&mut session, 3, &[]);
    let report = session.close();
    let reasons: Vec<Reason> = report.decisions.iter().map(|decision| decision.reason).collect();
    let expected = [Reason::Safe, Reason::Violation, Reason::Redacted, Reason::Safe, Reason::NotFinished];
    assert_eq!(reasons, expected);
    assert!(report.decisions.iter().enumerate().all(|(member, decision)| decision.member as usize == member));
    assert_eq!(report.decisions[3].attempts.len(), 2);
    assert_eq!(log.records().len(), 5);
}

#[test]
fn a_decision_is_final_and_members_exist() {
    let (gate, log) = gate(&World::new([]), "", "");
    let mut session = gate.session(request(1)).unwrap();
    finish(&mut session, 0, &[1]);
    let again = session.finished(0, picture(&[], 0)).unwrap_err();
    assert!(again.to_string().contains("is final (violation)"), "{again}");
    let missing = session.finished(1, picture(&[], 0)).unwrap_err();
    assert!(missing.to_string().contains("there is no picture 1"), "{missing}");
    assert_eq!(log.records().len(), 1);
}

#[test]
fn a_dropped_session_withholds_what_is_open() {
    let (gate, log) = gate(&World::new([]), "", "");
    drop(gate.session(request(2)).unwrap());
    assert!(log.records().iter().all(|record| record.reason == Reason::NotFinished));
    assert_eq!(log.records().len(), 2);
}

#[test]
fn the_judge_is_told_what_is_no_finished_picture() {
    let world = World::new([]);
    let whole = "previews = [0.5]\npreview_judgment = \"whole\"";
    let (gate, _) = gate(&world, whole, "[tenant.t.action]\ndefault = \"redact\"");
    let mut session = gate.session(request(1)).unwrap();
    session.preview(0, 5, 10, &picture(&[], 1)).unwrap();
    finish(&mut session, 0, &[1]);
    assert_eq!(*world.unfinished.lock().unwrap(), [Unfinished::Preview, Unfinished::Redacted]);
}
