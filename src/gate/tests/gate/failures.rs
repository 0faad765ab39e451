//! Everything that keeps a verdict or a picture away withholds it, each in its own words.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluegate_gate::{GateError, Instruction, PreviewInstruction, Reason, RequestInfo, Session, Withheld};
use cluegate_perception::Picture;
use image::{Rgb, RgbImage};

use cluegate_gate::fakes::{FailingLog, Fault, World, gate, gate_with, picture};

fn request(count: u32) -> RequestInfo {
    RequestInfo::new("t", "a person at a table", 7, count)
}

fn withheld(instruction: Instruction) -> Withheld {
    match instruction {
        Instruction::Withhold(withheld) => withheld,
        other => panic!("not withheld: {other:?}"),
    }
}

fn finish_safe(session: &mut Session) -> Instruction {
    session.finished(0, picture(&[], 0)).unwrap()
}

#[test]
fn a_judge_that_fails_in_any_way_withholds_and_says_how() {
    let cases = [
        (
            Fault::Error,
            Reason::JudgeError,
            "the judge failed (out-of-domain): this is no picture of the world",
        ),
        (
            Fault::Panic,
            Reason::JudgeError,
            "the judge failed (panic): it panicked: the judge's index is out of range",
        ),
        (
            Fault::OutOfTime,
            Reason::JudgeTimeout,
            "the judge gave no verdict in time: relevance stage: the deadline passed before",
        ),
        (Fault::Hang, Reason::JudgeTimeout, "the judge gave no verdict in time: it was given 50 ms"),
        (
            Fault::OtherPicture,
            Reason::JudgeError,
            "the judge failed (unfit-verdict): the verdict is about another",
        ),
        (
            Fault::Partial,
            Reason::JudgeError,
            "the judge failed (unfit-verdict): a stage of the method was switched",
        ),
    ];
    for (fault, reason, message) in cases {
        // Only the judge that hangs gets little time: a slow machine must not turn the others into time-outs.
        let limits = if fault == Fault::Hang { "[tenant.t.limits]\njudge_deadline_ms = 50" } else { "" };
        let (gate, log) = gate(&World::new([fault]), "", limits);
        let mut session = gate.session(request(1)).unwrap();
        let withheld = withheld(finish_safe(&mut session));
        assert_eq!(withheld.reason(), reason, "{fault:?}");
        assert!(withheld.message().starts_with(message), "{fault:?}: {}", withheld.message());
        let record = &log.records()[0];
        assert_eq!(record.reason, reason);
        assert!(record.attempts[0].judgment.as_ref().unwrap().error.is_some());
    }
}

#[test]
fn only_a_policy_that_names_it_fails_open_and_the_picture_is_marked() {
    let open = "on_error = \"release-unjudged\"";
    for fault in [Fault::Error, Fault::Panic, Fault::OutOfTime, Fault::OtherPicture] {
        let (gate, log) = gate(&World::new([fault]), open, "");
        let mut session = gate.session(request(1)).unwrap();
        let Instruction::Release(released) = finish_safe(&mut session) else { panic!("not released") };
        assert!(released.is_unjudged());
        assert_eq!(released.reason(), Reason::Unjudged);
        assert!(log.records()[0].unjudged);
        assert!(log.records()[0].message.starts_with("released unjudged, as the policy says"));
    }
}

#[test]
fn a_requester_cannot_hurry_a_policy_that_fails_open() {
    // The judge hangs for 400 ms or says that its time ran out; the policy would give it longer than the requester does.
    for (fault, given) in [(Fault::Hang, 100), (Fault::OutOfTime, 30_000)] {
        let limits = "[tenant.t.limits]\njudge_deadline_ms = 60000";
        let (gate, _) = gate(&World::new([fault]), "on_error = \"release-unjudged\"", limits);
        let deadline = Some(Instant::now() + Duration::from_millis(given));
        let mut session = gate.session(RequestInfo { deadline, ..request(1) }).unwrap();
        let withheld = withheld(session.finished(0, picture(&[1], 0)).unwrap());
        assert!(
            matches!(withheld.reason(), Reason::JudgeTimeout | Reason::RequestTimeout),
            "{fault:?}: {:?}",
            withheld.reason()
        );
    }
}

#[test]
fn failing_open_does_not_reach_violations_redactions_or_the_generator() {
    let (blocking, _) = gate(&World::new([]), "on_error = \"release-unjudged\"", "");
    let mut session = blocking.session(request(2)).unwrap();
    assert_eq!(withheld(session.finished(0, picture(&[1], 0)).unwrap()).reason(), Reason::Violation);
    let black = Picture::new(RgbImage::new(64, 64));
    assert_eq!(withheld(session.finished(1, black).unwrap()).reason(), Reason::GeneratorFailure);

    // The first verdict is that the picture violates a rule; the judge fails on the redacted one.
    let redact = "[tenant.t.action]\ndefault = \"redact\"";
    let world = World::new([Fault::None, Fault::Error]);
    let (redacting, _) = gate(&world, "on_error = \"release-unjudged\"", redact);
    let mut session = redacting.session(request(1)).unwrap();
    assert_eq!(withheld(session.finished(0, picture(&[1], 0)).unwrap()).reason(), Reason::JudgeError);
}

#[test]
fn a_generator_failure_is_no_violation() {
    let (gate, log) = gate(&World::new([]), "", "");
    let mut session = gate.session(request(4)).unwrap();
    let black = withheld(session.finished(0, Picture::new(RgbImage::new(64, 64))).unwrap());
    assert_eq!(black.message(), "the generator failed: the picture is all black");
    let grey = Picture::new(RgbImage::from_pixel(64, 64, Rgb([127; 3])));
    let grey = withheld(session.finished(1, grey).unwrap());
    assert!(grey.message().starts_with("the generator failed: the picture is one colour throughout"));
    let nan = withheld(session.generator_failed(2, "the latents are not numbers at step 3").unwrap());
    assert_eq!(nan.message(), "the generator failed: the latents are not numbers at step 3");
    assert_eq!(nan.placeholder().unwrap().pixels().dimensions(), (512, 512));
    for record in log.records() {
        assert_eq!(record.reason, Reason::GeneratorFailure);
        assert!(record.violated.is_empty() && record.attempts[0].judgment.is_none());
        assert!(record.attempts[0].failure.is_some());
    }
}

#[test]
fn a_preview_without_a_verdict_is_drawn_on_and_logged() {
    for fault in [Fault::Error, Fault::Panic, Fault::OutOfTime] {
        let (gate, log) = gate(&World::new([fault]), "previews = [0.5]", "");
        let mut session = gate.session(request(1)).unwrap();
        let step = session.preview(0, 5, 10, &picture(&[1], 0)).unwrap();
        assert!(matches!(step, PreviewInstruction::Continue(None)));
        assert_eq!(withheld(session.finished(0, picture(&[1], 0)).unwrap()).reason(), Reason::Violation);
        let preview = &log.records()[0].attempts[0].previews[0];
        assert!(!preview.aborted && preview.judgment.error.is_some());
    }
}

#[test]
fn without_a_log_line_nothing_is_released() {
    for panics in [false, true] {
        for objects in [&[][..], &[1]] {
            let log = Arc::new(FailingLog { lines: Mutex::new(0), from: 1, panics });
            let hold = "[tenant.t.action]\ndefault = \"hold\"";
            let gate = gate_with(&World::new([]), "", hold, log).unwrap();
            let mut session = gate.session(request(1)).unwrap();
            let withheld = withheld(session.finished(0, picture(objects, 0)).unwrap());
            assert_eq!(withheld.reason(), Reason::LogFailure);
            assert!(withheld.message().ends_with("without it nothing is released"), "{}", withheld.message());
            assert_eq!(withheld.decision().released_picture, None);
            assert_eq!(session.close().decisions[0].reason, Reason::LogFailure);
        }
    }
}

#[test]
fn a_log_that_fails_later_takes_nothing_back() {
    let log = Arc::new(FailingLog { lines: Mutex::new(0), from: 2, panics: false });
    let gate = gate_with(&World::new([]), "", "", log).unwrap();
    let mut session = gate.session(request(2)).unwrap();
    assert!(matches!(session.finished(0, picture(&[], 0)).unwrap(), Instruction::Release(_)));
    assert_eq!(withheld(session.finished(1, picture(&[], 1)).unwrap()).reason(), Reason::LogFailure);
}

#[test]
fn limits_are_kept() {
    let limits = "[tenant.t.limits]\nmax_pictures = 2\nmax_pixels = 4096\nmax_prompt_bytes = 30";
    let (gate, log) = gate(&World::new([]), "", limits);
    let many = gate.session(request(3)).err().unwrap();
    let asked = "the request asks for 3 pictures, and the tenant t may have 2; ask for less, or raise `limits` in the policy";
    assert_eq!(many.to_string(), asked);
    let long = RequestInfo { prompt: "x".repeat(31), ..request(1) };
    assert!(matches!(gate.session(long), Err(GateError::Limit { what: "bytes of prompt", .. })));
    let large = RequestInfo { size: Some((65, 64)), ..request(1) };
    assert!(matches!(gate.session(large), Err(GateError::Limit { what: "pixels", .. })));
    let mut session = gate.session(request(1)).unwrap();
    let wide = RgbImage::from_fn(65, 64, |x, y| Rgb([x as u8, y as u8, 0]));
    let withheld = withheld(session.finished(0, Picture::new(wide)).unwrap());
    assert_eq!(withheld.reason(), Reason::Limit);
    assert_eq!(withheld.message(), "65 x 64 pixels are more than the 4096 that the policy allows");
    assert!(log.records()[0].attempts[0].judgment.is_none());
}

#[test]
fn an_overdue_request_is_withheld() {
    let (gate, _) = gate(&World::new([]), "previews = []", "[tenant.t.limits]\nrequest_deadline_ms = 1");
    let mut session = gate.session(request(2)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert!(session.wants_preview(0, 1, 10), "every step is wanted, so that the attempt can be given up");
    let aborted = session.preview(0, 1, 10, &picture(&[], 0)).unwrap();
    let PreviewInstruction::Abort(instruction) = aborted else { panic!("not aborted") };
    assert_eq!(withheld(instruction).reason(), Reason::RequestTimeout);
    let late = withheld(session.finished(1, picture(&[], 0)).unwrap());
    assert_eq!(late.reason(), Reason::RequestTimeout);
}

#[test]
fn unknown_tenants_and_rules_are_refused_with_the_nearest() {
    let (gate, _) = gate(&World::new([]), "", "");
    let error = gate.session(RequestInfo::new("tt", "", 0, 1)).err().unwrap();
    assert_eq!(error.to_string(), "there is no policy for the tenant \"tt\" (did you mean `t`?)");
    let misspelt = "[tenant.t.action.rule]\nsmokin = \"allow\"";
    let log = Arc::new(cluegate_gate::MemoryLog::new(1));
    let error = gate_with(&World::new([]), "", misspelt, log).err().unwrap();
    assert_eq!(
        error.to_string(),
        "tenant t: `action.rule` names the rule `smokin`, which the constitution world does not have \
         (did you mean `smoking`?)"
    );
}

#[test]
fn a_tenants_thresholds_change_the_revision_and_are_checked() {
    let (plain, _) = gate(&World::new([]), "", "");
    let (strict, _) = gate(&World::new([]), "", "[tenant.t.thresholds]\nalpha2 = 0.5\nrelevance = 0.2");
    let (before, after) = (plain.constitution("t").unwrap(), strict.constitution("t").unwrap());
    assert_ne!(before.revision(), after.revision());
    assert_eq!(after.thresholds().alpha2, 0.5);
    assert_eq!(after.thresholds().relevance, Some(0.2));
    assert_eq!(after.thresholds().alpha1, before.thresholds().alpha1);
    assert_eq!(after.rules(), before.rules());
}
