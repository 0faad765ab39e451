//! Only the request that causes a failure gets it, and the next one is served.

use std::sync::Arc;

use cluegate_perception::{
    Call, DetectionRequest, Embedding, Fingerprint, PerceptionErrorKind, Picture, RegionDetector,
    RelevanceEncoder, Result, VisionLanguageModel,
};
use cluegate_workers::{DetectorWorker, LanguageOptions, LanguageWorker, RelevanceWorker, WorkerOptions};

use crate::support::{
    Event, ScriptedDetector, ScriptedEncoder, ScriptedLanguage, fixed_completion, fixed_score, hush, kind,
    picture, prompts, request, spawn, tenant, until,
};

const BACKEND: Option<PerceptionErrorKind> = Some(PerceptionErrorKind::Backend);
const REQUEST: Option<PerceptionErrorKind> = Some(PerceptionErrorKind::Request);

#[test]
fn an_encoder_that_fails_for_one_answers_the_others() {
    hush();
    for (offender, expected, message) in [
        ("panic", BACKEND, "the relevance encoder panicked: scripted: panic"),
        ("error", REQUEST, "scripted: error"),
        (
            "short",
            BACKEND,
            "the relevance encoder: expected 1 embeddings, got 0; the model implementation is wrong",
        ),
    ] {
        let model = Arc::new(ScriptedEncoder::default());
        let worker = Arc::new(RelevanceWorker::start(model.clone(), WorkerOptions::default()).unwrap());
        model.gate.close();
        let ask = |text: &'static str| {
            let worker = worker.clone();
            spawn(move || worker.embed_texts(&[text], &tenant(text)))
        };
        let first = ask("first");
        model.gate.wait_for(1);
        let callers = ["a", offender, "nan", "b"].map(|text| (text, ask(text)));
        until(|| worker.statistics().queued == 4);
        model.gate.open();
        assert!(first.join().unwrap().is_ok());
        for (text, caller) in callers {
            let answer = caller.join().unwrap();
            assert_eq!(kind(&answer), if text == offender { expected } else { None }, "{text}");
            match answer {
                Err(error) => assert_eq!(error.to_string(), message),
                Ok(answer) if text == "nan" => assert!(answer[0].values()[0].is_nan()),
                Ok(answer) => assert_eq!(answer, [ScriptedEncoder::fixed(text)]),
            }
        }
        assert_eq!(
            worker.embed_texts(&["next"], &Call::default()).unwrap(),
            [ScriptedEncoder::fixed("next")]
        );
        let calls: Vec<usize> = model.calls.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(calls, [1, 4, 1, 1, 1, 1, 1], "together, then each alone");
        let statistics = worker.statistics();
        assert_eq!((statistics.served, statistics.panics), (6, if offender == "panic" { 2 } else { 0 }));
    }
}

#[test]
fn a_detector_that_fails_for_one_answers_the_others() {
    hush();
    for (offender, expected) in
        [("panic", BACKEND), ("error", REQUEST), ("short", BACKEND), ("stray", BACKEND)]
    {
        let model = Arc::new(ScriptedDetector::default());
        let worker = Arc::new(DetectorWorker::start(model.clone(), WorkerOptions::default()).unwrap());
        model.gate.close();
        let ask = |text: &'static str| {
            let worker = worker.clone();
            spawn(move || {
                let picture = picture(1);
                let request = DetectionRequest { picture: &picture, queries: &[text, "common"] };
                let wanted = ScriptedDetector::fixed(&request, 0.0);
                (worker.detect(&[request], 0.0, &tenant("news")), wanted)
            })
        };
        let first = ask("first");
        model.gate.wait_for(1);
        let callers = ["a", offender, "b"].map(|text| (text, ask(text)));
        until(|| worker.statistics().queued == 3);
        model.gate.open();
        assert!(first.join().unwrap().0.is_ok());
        for (text, caller) in callers {
            let (answer, wanted) = caller.join().unwrap();
            if text == offender {
                assert_eq!(kind(&answer), expected);
            } else {
                assert_eq!(answer.unwrap(), [wanted]);
            }
        }
        assert!(ask("next").join().unwrap().0.is_ok());
    }
}

#[test]
fn scores_that_fail_for_one_are_given_to_the_others() {
    hush();
    for (offender, expected) in [("panic", BACKEND), ("error", REQUEST), ("short", BACKEND)] {
        let model = Arc::new(ScriptedLanguage::default());
        let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
        model.scores.close();
        let ask = |text: &'static str| {
            let worker = worker.clone();
            spawn(move || worker.score(&prompts(&["common", text]), &tenant(text)))
        };
        let first = ask("first");
        model.scores.wait_for(1);
        let callers = ["a", offender, "b"].map(|text| (text, ask(text)));
        until(|| worker.statistics().scores.queued == 3);
        model.scores.open();
        assert!(first.join().unwrap().is_ok());
        for (text, caller) in callers {
            let answer = caller.join().unwrap();
            if text == offender {
                assert_eq!(kind(&answer), expected);
            } else {
                assert_eq!(answer.unwrap(), [fixed_score("common"), fixed_score(text)]);
            }
        }
        let nan = worker.score(&prompts(&["nan", "next"]), &Call::default()).unwrap();
        assert!(nan[0].yes.is_nan(), "it is the judge who refuses it");
        assert_eq!(nan[1], fixed_score("next"));
    }
}

/// Asks for `offender` beside two others in a running batch. Returns the kind and message of its error and what the
/// model did; the others have their answers.
fn decode_beside(offender: &'static str) -> (Option<PerceptionErrorKind>, String, Vec<Event>) {
    hush();
    let model = Arc::new(ScriptedLanguage::default());
    let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
    model.steps.close();
    let ask = |text: &'static str| {
        let own = worker.clone();
        let queued = worker.statistics().answers.queued;
        let caller = spawn(move || own.complete(&[request(text, 3)], &tenant("news")));
        (text, caller, queued)
    };
    let mut callers = vec![ask("first")];
    model.steps.wait_for(1);
    for text in ["second", offender, "third"] {
        let (text, caller, queued) = ask(text);
        until(|| worker.statistics().answers.queued == queued + 1);
        callers.push((text, caller, queued));
    }
    model.steps.open();
    let mut failed = (None, String::new());
    for (text, caller, _) in callers {
        let answer = caller.join().unwrap();
        if text == offender {
            failed = (kind(&answer), answer.unwrap_err().to_string());
        } else {
            assert_eq!(answer.unwrap(), [fixed_completion(text, 3)], "beside {offender}");
        }
    }
    let next = worker.complete(&[request("next", 3)], &Call::default());
    assert_eq!(next.unwrap(), [fixed_completion("next", 3)]);
    let statistics = worker.statistics().answers;
    assert_eq!((statistics.served, statistics.abandoned), (5, 0));
    (failed.0, failed.1, model.log_so_far())
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn a_step_that_panics_fails_the_answer_that_caused_it() {
    let (kind, message, events) = decode_beside("step panic");
    assert_eq!(kind, BACKEND);
    assert_eq!(message, "the decoding language model panicked: scripted: panic");
    let together = Event::Step(names(&["first", "second", "step panic", "third"]));
    let mut expected = vec![
        Event::Join(names(&["first"]), Vec::new()),
        Event::Step(names(&["first"])),
        Event::Join(names(&["second", "step panic", "third"]), Vec::new()),
        together.clone(),
        together,
    ];
    // The batch is dropped, and with it the last token of the first answer.
    for text in ["first", "second", "step panic", "third", "next"] {
        expected.push(Event::Join(names(&[text]), Vec::new()));
        let steps = if text == "step panic" { 2 } else { 3 };
        expected.extend((0..steps).map(|_| Event::Step(names(&[text]))));
    }
    assert_eq!(events, expected);
}

#[test]
fn a_step_that_errs_fails_the_answer_that_caused_it() {
    let (kind, message, _) = decode_beside("step error");
    assert_eq!((kind, &*message), (REQUEST, "scripted: error"));
}

#[test]
fn a_join_that_panics_fails_the_answer_that_caused_it() {
    let (kind, message, _) = decode_beside("join panic");
    assert_eq!((kind, &*message), (BACKEND, "the decoding language model panicked: scripted: panic"));
}

#[test]
fn an_answer_that_errs_by_itself_disturbs_nobody() {
    for (offender, expected) in
        [("join error", REQUEST), ("answer error", Some(PerceptionErrorKind::NotANumber))]
    {
        let (kind, _, events) = decode_beside(offender);
        assert_eq!(kind, expected);
        let joined = |event: &&Event| matches!(event, Event::Join(..));
        assert_eq!(events.iter().filter(joined).count(), 3, "nobody is decoded twice: {events:?}");
    }
}

#[test]
fn a_batch_that_breaks_the_rules_fails_the_answer_that_caused_it() {
    for (offender, message) in [
        ("short", "expected 1 answers to join, got 0"),
        ("lose", "expected 1 answers in the making, it has 0, and ended 0 others"),
    ] {
        let (kind, text, _) = decode_beside(offender);
        assert_eq!(kind, BACKEND);
        let expected = format!("the decoding language model: {message}; the model implementation is wrong");
        assert_eq!(text, expected);
    }
}

#[test]
fn identities_that_are_not_unique_lose_nobody() {
    let model = Arc::new(ScriptedLanguage::default());
    let worker = LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap();
    // Together they fail, and alone each of them is unique.
    let texts = ["a", "twin b", "twin c"];
    let answers = worker.complete(&texts.map(|text| request(text, 2)), &Call::default()).unwrap();
    assert_eq!(answers, texts.map(|text| fixed_completion(text, 2)));
}

#[test]
fn one_that_finds_no_room_in_an_empty_batch_errs() {
    let model = Arc::new(ScriptedLanguage::default());
    let worker = LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap();
    let refused = worker.complete(&[request("refuse", 2)], &Call::default());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the decoding language model: an empty batch has no room for an answer; the model implementation is wrong"
    );
    assert!(worker.complete(&[request("next", 2)], &Call::default()).is_ok());
}

#[test]
fn one_refused_beside_a_failed_one_is_asked_again() {
    let model = Arc::new(ScriptedLanguage::default());
    let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
    model.scores.close();
    let busy = spawn({
        let worker = worker.clone();
        move || worker.score(&prompts(&["busy"]), &Call::default())
    });
    model.scores.wait_for(1);
    let ask = |text: &'static str, queued: usize| {
        let own = worker.clone();
        let caller = spawn(move || own.complete(&[request(text, 2)], &tenant("news")));
        until(|| worker.statistics().answers.queued == queued);
        caller
    };
    let callers = [ask("join error", 1), ask("refuse", 2)];
    model.scores.open();
    let kinds = callers.map(|caller| kind(&caller.join().unwrap()));
    assert_eq!(kinds, [REQUEST, BACKEND]);
    assert!(busy.join().unwrap().is_ok());
}

#[test]
fn one_failed_answer_fails_its_request_and_the_others_leave() {
    let model = Arc::new(ScriptedLanguage { room: 3, ..Default::default() });
    let worker = LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap();
    let requests = ["a", "answer error", "b", "c"].map(|text| request(text, 5));
    let failed = worker.complete(&requests, &Call::default());
    assert_eq!(kind(&failed), Some(PerceptionErrorKind::NotANumber));
    assert!(worker.complete(&[request("next", 1)], &Call::default()).is_ok());
    let together = names(&["a", "answer error", "b"]);
    let events = model.log_so_far();
    assert_eq!(
        events[..3],
        [Event::Join(together.clone(), names(&["c"])), Event::Step(together.clone()), Event::Step(together)]
    );
    let left = [Event::Leave("a".to_owned()), Event::Leave("b".to_owned())];
    assert_eq!(events[3..5], left);
    let c = |event: &Event| matches!(event, Event::Step(texts) if texts.contains(&"c".to_owned()));
    assert!(!events.iter().any(c), "nobody waits for it any more: {events:?}");
}

/// Panics again when its panic is dealt with, which nothing survives.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("scripted: bomb");
    }
}

struct Bombed(Fingerprint);

impl RelevanceEncoder for Bombed {
    fn fingerprint(&self) -> &Fingerprint {
        &self.0
    }

    fn default_threshold(&self) -> f32 {
        0.0
    }

    fn embed_pictures(&self, _: &[Picture], _: &Call) -> Result<Vec<Embedding>> {
        std::panic::panic_any(Bomb)
    }

    fn embed_texts(&self, _: &[&str], _: &Call) -> Result<Vec<Embedding>> {
        std::panic::panic_any(Bomb)
    }
}

#[test]
fn a_thread_that_has_died_is_an_error_of_every_request() {
    hush();
    let worker = RelevanceWorker::start(Arc::new(Bombed(String::new())), WorkerOptions::default()).unwrap();
    for _ in 0..3 {
        let answer = worker.embed_texts(&["a"], &Call::default());
        assert_eq!(kind(&answer), BACKEND);
        assert_eq!(
            answer.unwrap_err().to_string(),
            "the thread of the relevance encoder has ended by a failure; restart the program"
        );
    }
    assert_eq!(worker.statistics().queued, 0);
}
