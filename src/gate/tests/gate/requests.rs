//! What a requester brings along: a deadline, fewer tries, its going away, and leave to see previews.

use std::sync::Arc;
use std::time::Instant;

use cluegate_gate::fakes::{self, FailingLog, World, gate, gate_with, picture};
use cluegate_gate::{DecisionLog, Instruction, Outcome, PreviewInstruction, Reason, RequestInfo, Session};

fn withheld(instruction: Instruction) -> Reason {
    let Instruction::Withhold(withheld) = instruction else {
        panic!("expected to withhold: {instruction:?}")
    };
    withheld.reason()
}

#[test]
fn the_sooner_of_two_deadlines_counts() {
    let (gate, _) = gate(&World::new([]), "", "");
    let now = RequestInfo { deadline: Some(Instant::now()), ..RequestInfo::new("t", "a man", 1, 1) };
    let mut session = gate.session(now).unwrap();
    assert_eq!(withheld(session.finished(0, picture(&[], 1)).unwrap()), Reason::RequestTimeout);
    let (strict, _) = fakes::gate(&World::new([]), "", "[tenant.t.limits]\nrequest_deadline_ms = 1");
    let patient = Instant::now() + std::time::Duration::from_secs(3600);
    let request = RequestInfo { deadline: Some(patient), ..RequestInfo::new("t", "a man", 1, 1) };
    let mut session = strict.session(request).unwrap();
    while !session.wants_preview(0, 1, 20) {
        std::thread::yield_now();
    }
    assert_eq!(withheld(session.finished(0, picture(&[], 1)).unwrap()), Reason::RequestTimeout);
}

#[test]
fn a_host_without_a_generator_has_one_try() {
    let (gate, _) = gate(&World::new([]), "tries = 5", "[tenant.t.action]\ndefault = \"regenerate\"");
    let once = RequestInfo { max_tries: Some(1), ..RequestInfo::new("t", "a beer", 1, 1) };
    let mut session = gate.session(once).unwrap();
    assert_eq!(withheld(session.finished(0, picture(&[1], 1)).unwrap()), Reason::TriesExhausted);
    let more = RequestInfo { max_tries: Some(50), ..RequestInfo::new("t", "a beer", 1, 1) };
    let mut session = gate.session(more).unwrap();
    for _ in 0..4 {
        assert!(matches!(session.finished(0, picture(&[1], 1)).unwrap(), Instruction::DrawAgain(_)));
    }
    assert_eq!(withheld(session.finished(0, picture(&[1], 1)).unwrap()), Reason::TriesExhausted);
}

#[test]
fn a_request_that_was_called_off_releases_nothing() {
    // Fail-open is about the judge's failures, not about a requester that went away.
    let (gate, log) = gate(&World::new([]), "on_error = \"release-unjudged\"", "");
    let mut session = gate.session(RequestInfo::new("t", "a man", 1, 3)).unwrap();
    assert!(matches!(session.finished(0, picture(&[], 1)).unwrap(), Instruction::Release(_)));
    session.call().clone().cancel();
    assert!(session.wants_preview(1, 1, 20));
    assert_eq!(withheld(session.finished(1, picture(&[], 2)).unwrap()), Reason::Cancelled);
    session.close();
    let reasons: Vec<_> = log.records().iter().map(|record| (record.member, record.reason)).collect();
    assert_eq!(reasons, [(0, Reason::Safe), (1, Reason::Cancelled), (2, Reason::Cancelled)]);
}

fn shown(session: &mut Session, objects: &[usize]) -> bool {
    match session.preview(0, 5, 20, &picture(objects, 3)).unwrap() {
        PreviewInstruction::Continue(shown) => {
            shown.is_some_and(|shown| shown.reason() == Reason::Preview && !shown.is_unjudged())
        }
        PreviewInstruction::Abort(instruction) => panic!("aborted: {instruction:?}"),
    }
}

#[test]
fn previews_are_shown_if_allowed_judged_and_clean() {
    let tables = "[tenant.t.client]\npreviews = true\n[tenant.t.action]\ndefault = \"redact\"\n\
                  [tenant.t.action.rule]\nbeer = \"allow\"";
    let (open, log) = gate(&World::new([]), "", tables);
    let mut session = open.session(RequestInfo::new("t", "a man", 1, 1)).unwrap();
    assert!(shown(&mut session, &[]));
    // Violates a rule: that the finished picture might be redacted or allowed shows nobody the preview.
    assert!(!shown(&mut session, &[2]));
    assert!(!shown(&mut session, &[1]));
    let records = log.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].outcome, records[0].reason), (Outcome::Released, Reason::Preview));
    assert!(records[0].released_picture.is_some());
    // The picture itself is judged all the same, and its record has all previews.
    assert!(matches!(session.finished(0, picture(&[], 4)).unwrap(), Instruction::Release(_)));
    assert_eq!(log.records()[1].attempts[0].previews.len(), 3);

    let (closed, _) = gate(&World::new([]), "", "");
    let mut session = closed.session(RequestInfo::new("t", "a man", 1, 1)).unwrap();
    assert!(!shown(&mut session, &[]));
    let failing: Arc<dyn DecisionLog> =
        Arc::new(FailingLog { lines: std::sync::Mutex::new(0), from: 1, panics: false });
    let unlogged = gate_with(&World::new([]), "", "[tenant.t.client]\npreviews = true", failing).unwrap();
    let mut session = unlogged.session(RequestInfo::new("t", "a man", 1, 1)).unwrap();
    assert!(!shown(&mut session, &[]));
}

/// Consequence rules are shown what a picture was made from; nothing is made up where that is not known.
#[test]
fn the_judge_is_told_what_each_picture_was_made_from() {
    for (prompt, told) in
        [("a ladder on a wet floor", Some("a ladder on a wet floor")), ("", None), (" \n", None)]
    {
        let world = World::new([]);
        let (gate, _) = gate(&world, "previews = [0.5]\npreview_judgment = \"whole\"", "");
        let mut session = gate.session(RequestInfo::new("t", prompt, 7, 1)).unwrap();
        session.preview(0, 10, 20, &picture(&[], 0)).unwrap();
        session.finished(0, picture(&[], 0)).unwrap();
        session.close();
        let told = told.map(str::to_owned);
        assert_eq!(*world.prompts.lock().unwrap(), [told.clone(), told], "{prompt:?}");
    }
}
