//! Mode `shadow`: judged, logged with what would have been done, released.

use cluegate_gate::policy::Mode;
use cluegate_gate::{Action, Instruction, Outcome, PreviewInstruction, Reason, RequestInfo};

use cluegate_gate::fakes::{Fault, World, gate, picture, shows};

const SHADOW: &str = "mode = \"shadow\"\ntries = 1\npreviews = [0.5]";

fn request() -> RequestInfo {
    RequestInfo::new("t", "a person at a table", 7, 1)
}

#[test]
fn whatever_has_a_verdict_is_released_as_it_is_and_noted() {
    for (action, after, would, outcome) in [
        ("block", "block", Action::Block, Some(Outcome::Withheld)),
        ("hold", "block", Action::Hold, Some(Outcome::Held)),
        ("redact", "block", Action::Redact, None),
        ("regenerate", "block", Action::Block, Some(Outcome::Withheld)),
        ("regenerate", "redact", Action::Redact, None),
    ] {
        let head = format!("{SHADOW}\nafter_tries = \"{after}\"");
        let (gate, log) = gate(&World::new([]), &head, &format!("[tenant.t.action]\ndefault = \"{action}\""));
        let mut session = gate.session(request()).unwrap();
        let Instruction::Release(released) = session.finished(0, picture(&[1], 0)).unwrap() else {
            panic!("not released under {action}")
        };
        assert!(shows(released.pixels(), 1), "nothing is hidden");
        assert!(released.is_watched_only() && !released.is_unjudged());
        let record = &log.records()[0];
        assert_eq!(
            (record.mode, record.outcome, record.reason),
            (Mode::Shadow, Outcome::Released, Reason::Shadow)
        );
        let noted = record.would.as_ref().unwrap();
        assert_eq!((noted.action, noted.outcome), (would, outcome), "{action} and then {after}");
        assert_eq!(noted.message, "violates beer (No beer.)");
        assert_eq!((record.violated.as_slice(), record.action.is_some()), (&["beer".to_owned()][..], true));
        assert_eq!(record.released_picture.as_deref(), Some(picture(&[1], 0).hash().to_hex().as_str()));
        assert!(record.attempts[0].redactions.is_empty());
    }
}

#[test]
fn a_try_that_would_follow_is_noted_and_not_made() {
    let (gate, log) =
        gate(&World::new([]), "mode = \"shadow\"\ntries = 3", "[tenant.t.action]\ndefault = \"regenerate\"");
    let mut session = gate.session(request()).unwrap();
    assert!(matches!(session.finished(0, picture(&[1], 0)).unwrap(), Instruction::Release(_)));
    let noted = log.records()[0].would.clone().unwrap();
    assert_eq!((noted.action, noted.outcome), (Action::Regenerate, None));
}

#[test]
fn what_enforcing_would_release_is_released_for_the_same_reason() {
    let (gate, log) = gate(&World::new([]), SHADOW, "[tenant.t.action.rule]\nbeer = \"allow\"");
    for (objects, reason) in [(&[][..], Reason::Safe), (&[1][..], Reason::Allowed)] {
        let mut session = gate.session(request()).unwrap();
        let Instruction::Release(released) = session.finished(0, picture(objects, 0)).unwrap() else {
            panic!("not released")
        };
        assert_eq!(released.reason(), reason);
    }
    assert!(log.records().iter().all(|record| record.would.is_none() && record.mode == Mode::Shadow));
}

#[test]
fn nothing_is_released_without_a_complete_verdict() {
    for fault in [Fault::Error, Fault::OutOfTime, Fault::Panic, Fault::OtherPicture, Fault::Partial] {
        let (gate, log) = gate(&World::new([fault]), SHADOW, "");
        let mut session = gate.session(request()).unwrap();
        let Instruction::Withhold(withheld) = session.finished(0, picture(&[], 0)).unwrap() else {
            panic!("released after {fault:?}")
        };
        assert!(matches!(withheld.reason(), Reason::JudgeError | Reason::JudgeTimeout), "{fault:?}");
        assert_eq!(log.records()[0].would, None);
    }
}

#[test]
fn a_preview_never_ends_an_attempt_and_is_not_shown_unless_clean() {
    let tables = "[tenant.t.client]\npreviews = true\n[tenant.t.action]\ndefault = \"block\"";
    let (gate, log) = gate(&World::new([]), SHADOW, tables);
    let mut session = gate.session(request()).unwrap();
    let seen = session.preview(0, 5, 10, &picture(&[2], 0)).unwrap();
    assert!(matches!(seen, PreviewInstruction::Continue(None)), "{seen:?}");
    let seen = session.preview(0, 6, 10, &picture(&[], 0)).unwrap();
    assert!(matches!(seen, PreviewInstruction::Continue(Some(_))));
    assert!(matches!(session.finished(0, picture(&[2], 1)).unwrap(), Instruction::Release(_)));
    let last = log.records().pop().unwrap();
    let previews: Vec<_> =
        last.attempts[0].previews.iter().map(|preview| (preview.aborted, preview.would_abort)).collect();
    assert_eq!(previews, [(false, true), (false, false)]);
}

#[test]
fn limits_and_a_generator_that_fails_withhold_as_ever() {
    let (gate, _) = gate(&World::new([]), SHADOW, "[tenant.t.limits]\nmax_pixels = 64");
    let mut session = gate.session(request()).unwrap();
    let Instruction::Withhold(withheld) = session.finished(0, picture(&[], 0)).unwrap() else {
        panic!("released")
    };
    assert_eq!(withheld.reason(), Reason::Limit);
    let mut session = gate.session(request()).unwrap();
    let failed = session.generator_failed(0, "it is out of memory").unwrap();
    assert!(matches!(failed, Instruction::Withhold(_)));
}
