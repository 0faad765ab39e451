//! Which endpoints may be asked: those that have shown what they are, since they last failed.

use cluegate_perception::{Call, PerceptionErrorKind, VisionLanguageModel};
use cluegate_remote::{RemoteErrorKind, RemoteJudge, RemoteOptions};

use super::engine::{Engine, Kind, MODEL, open, options};
use super::scores::{picture, prompts};

/// Asks until `done`, and expects an answer each time.
fn ask_until(judge: &RemoteJudge, done: impl Fn() -> bool) {
    while !done() {
        assert_eq!(judge.score(&prompts(None, 2), &Call::default()).unwrap().len(), 2);
    }
}

#[test]
fn a_dead_endpoint_at_the_start_is_done_without() {
    let (alive, mut dead) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    dead.kill();
    for order in [[&alive, &dead], [&dead, &alive]] {
        let judge = open(&order);
        alive.script(|_| None);
        assert_eq!(judge.score(&prompts(Some(&picture(1)), 12), &Call::default()).unwrap().len(), 12);
        assert_eq!(alive.requests(), 12);
    }
}

#[test]
fn an_endpoint_that_is_something_else_at_the_start_is_done_without() {
    for kind in [Kind::Blind, Kind::Silent, Kind::Thinks, Kind::Text] {
        let (good, bad) = (Engine::start(Kind::TokenIds), Engine::start(kind));
        for order in [[&good, &bad], [&bad, &good]] {
            let judge = open(&order);
            judge.score(&prompts(Some(&picture(1)), 12), &Call::default()).unwrap();
        }
        assert_eq!((good.requests(), bad.requests()), (24, 0), "{kind:?}");
    }
}

#[test]
fn if_no_endpoint_passes_the_first_one_says_why() {
    let (blind, silent) = (Engine::start(Kind::Blind), Engine::start(Kind::Silent));
    let error = |order: [&Engine; 2]| RemoteJudge::open(&options(&order)).unwrap_err().kind();
    assert_eq!(error([&blind, &silent]), RemoteErrorKind::Blind);
    assert_eq!(error([&silent, &blind]), RemoteErrorKind::NoProbabilities);
}

#[test]
fn an_endpoint_that_comes_up_later_is_checked_before_it_is_asked() {
    let (first, late) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    late.refuse(Some(503));
    let judge = open(&[&first, &late]);
    judge.score(&prompts(None, 8), &Call::default()).unwrap();
    assert_eq!((late.checks(), late.requests()), (0, 0));
    late.refuse(None);
    ask_until(&judge, || late.requests() > 0);
    assert!(late.checks() > 0);
}

#[test]
fn an_endpoint_that_comes_back_with_other_weights_is_never_asked() {
    let (first, mut second) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    let judge = open(&[&first, &second]);
    ask_until(&judge, || second.requests() > 0);
    second.kill();
    ask_until(&judge, || first.requests() > 20);
    let address = second.address;
    let mut other = Engine::at(address, Kind::TokenIds, 0.3);
    ask_until(&judge, || other.checks() > 12);
    assert_eq!(other.requests(), 0);
    other.kill();
    let same = Engine::at(address, Kind::TokenIds, 0.0);
    ask_until(&judge, || same.requests() > 0);
    assert!(same.checks() > 0);
}

#[test]
fn the_only_endpoint_is_checked_when_it_comes_back() {
    for (shift, words) in [(0.3, Some("same weights")), (0.0, None)] {
        let mut engine = Engine::start(Kind::TokenIds);
        let judge = open(&[&engine]);
        let ask = || judge.score(&prompts(None, 1), &Call::default());
        engine.kill();
        let error = ask().unwrap_err();
        assert!(error.to_string().contains("engine runs there"), "{error}");
        let other = Engine::at(engine.address, Kind::TokenIds, shift);
        while other.checks() == 0 {
            std::thread::yield_now();
        }
        match words {
            Some(words) => {
                let error = ask().unwrap_err();
                assert!(error.to_string().contains(words), "{error}");
                assert_eq!(other.requests(), 0);
            }
            None => assert_eq!(ask().unwrap().len(), 1),
        }
    }
}

#[test]
fn an_engine_that_was_away_is_checked_although_nobody_asked_it() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = RemoteJudge::open(&RemoteOptions { health_ms: 5, ..options(&[&engine]) }).unwrap();
    let checks = engine.checks();
    engine.refuse(Some(502));
    while engine.refused() < 5 {
        std::thread::yield_now();
    }
    engine.refuse(None);
    while engine.checks() == checks {
        std::thread::yield_now();
    }
    assert_eq!(engine.requests(), 0);
    assert_eq!(judge.score(&prompts(None, 1), &Call::default()).unwrap().len(), 1);
}

#[test]
fn an_endpoint_that_refuses_everybody_is_set_aside_for_another() {
    for status in [401, 403, 404] {
        let engines = [Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds)];
        let judge = open(&[&engines[0], &engines[1]]);
        for (bad, good) in [(0, 1), (1, 0)] {
            ask_until(&judge, || engines[bad].requests() > 0);
            engines[bad].refuse(Some(status));
            engines.iter().for_each(|engine| engine.script(|_| None));
            judge.score(&prompts(Some(&picture(1)), 24), &Call::default()).unwrap();
            assert_eq!((engines[bad].requests(), engines[good].requests()), (0, 24), "{status}");
            engines[bad].refuse(None);
            ask_until(&judge, || engines[bad].requests() > 0);
        }
    }
}

#[test]
fn if_every_endpoint_refuses_the_call_ends_with_the_reason() {
    for (status, kind, words) in [
        (401, PerceptionErrorKind::Backend, "key-file"),
        (403, PerceptionErrorKind::Backend, "key-file"),
        (404, PerceptionErrorKind::Model, "/v1/models"),
    ] {
        let engines: Vec<Engine> = (0..6).map(|_| Engine::start(Kind::TokenIds)).collect();
        let judge = open(&engines.iter().collect::<Vec<_>>());
        engines.iter().for_each(|engine| engine.refuse(Some(status)));
        // The first call finds out, the next one knows.
        for _ in 0..2 {
            let error = judge.score(&prompts(None, 1), &Call::default()).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        // All but one: more than the attempts of a request.
        engines[5].refuse(None);
        let patient = || judge.score(&prompts(None, 1), &Call::default()).is_ok();
        while !patient() {}
    }
}

#[test]
fn another_model_in_an_answer_sets_the_endpoint_aside() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    let checks = engine.checks();
    engine.script(|index| (index == 0).then_some(super::engine::Fault::WrongModel));
    assert_eq!(judge.score(&prompts(None, 1), &Call::default()).unwrap().len(), 1);
    assert!(engine.checks() > checks, "asked again what it is");
}

#[test]
fn a_wrong_name_at_one_endpoint_is_no_reason_not_to_start() {
    let (good, mut gone) = (Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds));
    gone.kill();
    let both = RemoteOptions { model: MODEL.to_owned(), ..options(&[&gone, &good]) };
    assert!(RemoteJudge::open(&both).is_ok());
    let wrong = RemoteOptions { model: "org/judgement".to_owned(), ..options(&[&good, &gone]) };
    assert_eq!(RemoteJudge::open(&wrong).unwrap_err().kind(), RemoteErrorKind::UnknownModel);
}
