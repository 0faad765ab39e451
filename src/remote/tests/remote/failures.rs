//! Bad days.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_perception::{Call, PerceptionErrorKind, VisionLanguageModel};
use cluegate_remote::{RemoteJudge, RemoteOptions};

use super::engine::{Engine, Fault, Kind, open, options};
use super::scores::{picture, prompts};

/// What comes of a question whose first `times` requests meet a fault.
fn meet(fault: Fault, times: usize) -> (cluegate_perception::Result<usize>, usize) {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    engine.script(move |index| (index < times).then(|| fault.clone()));
    let scores = judge.score(&prompts(Some(&picture(1)), 1), &Call::default());
    (scores.map(|scores| scores.len()), engine.requests())
}

#[test]
fn what_passes_is_asked_again() {
    let faults = [
        Fault::Status(500, "broken", None),
        Fault::Status(502, "gateway", None),
        Fault::Status(429, "busy", None),
        Fault::Status(503, "loading", Some(0)),
        Fault::CutJson,
        Fault::WrongModel,
        Fault::WrongRequest,
        Fault::NotANumber,
    ];
    for fault in faults {
        let (scores, requests) = meet(fault.clone(), 2);
        assert_eq!((scores.unwrap(), requests), (1, 3), "{fault:?}");
    }
}

#[test]
fn what_stays_is_an_error_with_its_reason_and_never_a_score() {
    use PerceptionErrorKind as Kind;
    let cases = [
        (Fault::Status(500, "out of memory", None), Kind::Backend, "out of memory", 4),
        (Fault::Status(429, "too many", None), Kind::Overloaded, "too many", 4),
        (Fault::CutJson, Kind::Backend, "expected JSON", 4),
        (Fault::WrongModel, Kind::Backend, "org/another", 4),
        (Fault::WrongRequest, Kind::Backend, "somebody-else", 4),
        (Fault::NotANumber, Kind::Backend, "expected a number", 4),
        (Fault::Status(400, "prompt too long", None), Kind::Request, "prompt too long", 1),
        (Fault::Status(401, "no key", None), Kind::Backend, "key-file", 1),
        (Fault::Status(404, "no model", None), Kind::Model, "/v1/models", 1),
        (Fault::Redirect, Kind::Request, "redirects are not followed", 1),
    ];
    for (fault, kind, words, expected) in cases {
        let (scores, requests) = meet(fault.clone(), usize::MAX);
        let error = scores.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error}");
        assert!(error.to_string().contains(words), "{fault:?}: {error}");
        assert_eq!(requests, expected, "{fault:?}");
    }
}

#[test]
fn an_answer_that_is_too_large_is_not_read() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = RemoteJudge::open(&RemoteOptions { answer_bytes: 65_536, ..options(&[&engine]) }).unwrap();
    engine.script(|_| Some(Fault::Large));
    let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
    assert!(error.to_string().contains("answer-bytes"), "{error}");
}

#[test]
fn one_failed_question_fails_the_call_and_not_the_next_one() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    engine.script(|index| (index == 3).then_some(Fault::Status(400, "odd", None)));
    assert!(judge.score(&prompts(Some(&picture(1)), 8), &Call::default()).is_err());
    engine.script(|_| None);
    assert_eq!(judge.score(&prompts(Some(&picture(1)), 8), &Call::default()).unwrap().len(), 8);
}

#[test]
fn a_deadline_holds_whatever_the_engine_does() {
    for fault in [Fault::Hang, Fault::Status(429, "busy", Some(3600))] {
        let engine = Engine::start(Kind::TokenIds);
        let judge = open(&[&engine]);
        let hang = fault.clone();
        engine.script(move |_| Some(hang.clone()));
        let start = Instant::now();
        let call = Call::default().until(start + Duration::from_millis(300));
        let error = judge.score(&prompts(Some(&picture(1)), 4), &call).unwrap_err();
        let expected = if matches!(fault, Fault::Hang) { "timeout" } else { "overloaded" };
        assert_eq!(error.kind().as_str(), expected, "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[test]
fn a_hanging_engine_is_given_up_after_the_time_of_an_attempt() {
    let engine = Engine::start(Kind::TokenIds);
    let mut options = RemoteOptions { timeout_ms: 200, ..options(&[&engine]) };
    options.retry.attempts = 2;
    let judge = RemoteJudge::open(&options).unwrap();
    engine.script(|index| (index == 0).then_some(Fault::Hang));
    assert_eq!(judge.score(&prompts(None, 1), &Call::default()).unwrap().len(), 1);
    engine.script(|_| Some(Fault::Hang));
    let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Backend);
    assert!(error.to_string().contains("timeout-ms") && error.to_string().contains("2 attempts"), "{error}");
}

#[test]
fn a_caller_who_has_gone_is_not_worked_for() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = Arc::new(open(&[&engine]));
    engine.script(|_| Some(Fault::Hang));
    let call = Call::default();
    let waiting = std::thread::spawn({
        let (judge, call) = (Arc::clone(&judge), call.clone());
        move || judge.score(&prompts(None, 2), &call)
    });
    while engine.requests() < 2 {
        std::thread::yield_now();
    }
    call.cancel();
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), PerceptionErrorKind::Cancelled);
}

#[test]
fn an_endpoint_that_is_killed_under_load_costs_no_answer() {
    let (mut first, second) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    let judge = Arc::new(open(&[&first, &second]));
    first.script(|index| (index % 3 == 2).then_some(Fault::Hang));
    let callers: Vec<_> = (0..8u8)
        .map(|level| {
            let judge = Arc::clone(&judge);
            std::thread::spawn(move || judge.score(&prompts(Some(&picture(level)), 12), &Call::default()))
        })
        .collect();
    while first.requests() < 6 {
        std::thread::yield_now();
    }
    first.kill();
    let mut scored = 0;
    for caller in callers {
        scored += caller.join().unwrap().unwrap().len();
    }
    assert_eq!(scored, 8 * 12);
    assert!(second.requests() >= 8 * 12 - 40);
}

#[test]
fn all_that_wait_at_an_endpoint_move_when_it_dies() {
    const STATEMENTS: usize = 24;
    let (mut first, second) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    let judge = Arc::new(open(&[&first, &second]));
    first.script(|_| Some(Fault::Hang));
    let callers: Vec<_> = (0..16u8)
        .map(|level| {
            let judge = Arc::clone(&judge);
            std::thread::spawn(move || {
                judge.score(&prompts(Some(&picture(level)), STATEMENTS), &Call::default())
            })
        })
        .collect();
    // Many more than may be repeated.
    while first.requests() < 5 * STATEMENTS {
        std::thread::yield_now();
    }
    first.kill();
    for caller in callers {
        assert_eq!(caller.join().unwrap().unwrap().len(), STATEMENTS);
    }
}

#[test]
fn an_endpoint_that_loads_or_drains_is_left_for_one_that_does_not() {
    let (first, second) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    let judge = open(&[&first, &second]);
    for engine in [&first, &second] {
        first.script(|_| None);
        second.script(|_| None);
        engine.script(|_| Some(Fault::Status(503, "loading", None)));
        assert_eq!(judge.score(&prompts(Some(&picture(1)), 4), &Call::default()).unwrap().len(), 4);
    }
}

#[test]
fn a_wait_without_end_is_not_waited() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    engine.script(|_| Some(Fault::Status(429, "busy", Some(u64::MAX))));
    let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Overloaded);
    assert_eq!(engine.requests(), 1);
}

#[test]
fn it_is_opened_on_threads_of_other_runtimes_too() {
    let engine = Engine::start(Kind::TokenIds);
    let options = options(&[&engine]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(async { RemoteJudge::open(&options) }).is_ok());
}

#[test]
fn a_connection_that_is_cut_is_asked_again() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = RemoteJudge::open(&options(&[&engine])).unwrap();
    drop(engine);
    // Another listener in no one's place: the error names the endpoint.
    let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Backend);
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[test]
fn a_key_is_sent_and_never_shown() {
    let folder = std::env::temp_dir().join(format!("cluegate-remote-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("key");
    std::fs::File::create(&path).unwrap().write_all(b"sk-very-secret\n").unwrap();
    let engine = Engine::start(Kind::TokenIds);
    let options = RemoteOptions { key_file: Some(path), ..options(&[&engine]) };
    let judge = RemoteJudge::open(&options).unwrap();
    engine.script(|_| Some(Fault::Status(401, "wrong key: Bearer sk-very-secret", None)));
    let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
    let seen = engine.shared.seen.lock().unwrap();
    assert_eq!(seen[0].1["authorization"], "Bearer sk-very-secret");
    assert!(!format!("{error} {judge:?} {options:?}").contains("sk-very-secret"));
    std::fs::remove_dir_all(folder).unwrap();
}
