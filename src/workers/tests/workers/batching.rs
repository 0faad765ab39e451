//! What waits together is computed together.

use std::sync::Arc;

use cluegate_perception::{Call, DetectionRequest, RegionDetector, RelevanceEncoder, VisionLanguageModel};
use cluegate_workers::{DetectorWorker, LanguageOptions, LanguageWorker, RelevanceWorker, WorkerOptions};

use crate::support::{
    Event, ScriptedDetector, ScriptedEncoder, ScriptedLanguage, fixed_score, options, picture, prompts,
    spawn, tenant, until,
};

#[test]
fn pictures_of_several_callers_go_in_one_call_each_once() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(model.clone(), WorkerOptions::default()).unwrap());
    model.gate.close();
    let ask = |numbers: &'static [u8]| {
        let worker = worker.clone();
        spawn(move || {
            let pictures: Vec<_> = numbers.iter().map(|number| picture(*number)).collect();
            worker.embed_pictures(&pictures, &tenant("news")).unwrap()
        })
    };
    let first = ask(&[1]);
    model.gate.wait_for(1);
    let others = [&[2, 3][..], &[3, 3, 4], &[2]].map(&ask);
    let texts = spawn({
        let worker = worker.clone();
        move || worker.embed_texts(&["a", "b", "a"], &tenant("shop")).unwrap()
    });
    until(|| worker.statistics().queued == 4);
    model.gate.open();

    let expect = |items: &[&str]| items.iter().map(|item| ScriptedEncoder::fixed(item)).collect::<Vec<_>>();
    assert_eq!(first.join().unwrap(), expect(&["picture 1"]));
    assert_eq!(texts.join().unwrap(), expect(&["a", "b", "a"]));
    let answers = others.map(|other| other.join().unwrap());
    assert_eq!(answers[0], expect(&["picture 2", "picture 3"]));
    assert_eq!(answers[1], expect(&["picture 3", "picture 3", "picture 4"]));
    assert_eq!(answers[2], expect(&["picture 2"]));
    let mut calls = model.calls.lock().unwrap().clone();
    calls.iter_mut().for_each(|items| items.sort());
    calls[1..].sort();
    assert_eq!(calls, [vec!["picture 1"], vec!["a", "b"], vec!["picture 2", "picture 3", "picture 4"]]);
    let statistics = worker.statistics();
    assert_eq!((statistics.served, statistics.batches, statistics.largest_batch), (5, 3, 6));
    assert_eq!((statistics.abandoned, statistics.rejected, statistics.queued), (0, 0, 0));
}

#[test]
fn a_detector_takes_one_pass_for_all_words_about_a_picture() {
    let model = Arc::new(ScriptedDetector::default());
    let worker = Arc::new(DetectorWorker::start(model.clone(), WorkerOptions::default()).unwrap());
    model.gate.close();
    let ask = |number: u8, words: &'static [&'static str], confidence: f32| {
        let worker = worker.clone();
        spawn(move || {
            let picture = picture(number);
            let request = DetectionRequest { picture: &picture, queries: words };
            let expected = vec![ScriptedDetector::fixed(&request, confidence)];
            assert_eq!(worker.detect(&[request], confidence, &tenant(words[0])).unwrap(), expected);
            expected[0].len()
        })
    };
    let first = ask(1, &["fire"], 0.1);
    model.gate.wait_for(1);
    let mut callers = vec![first];
    for (number, words, confidence) in [
        (2, &["cat", "dog"][..], 0.1),
        (2, &["dog", "bird", "dog"], 0.1),
        (3, &["cat"], 0.1),
        (2, &["cat", "fish"], 0.5),
    ] {
        let queued = worker.statistics().queued;
        callers.push(ask(number, words, confidence));
        until(|| worker.statistics().queued == queued + 1);
    }
    model.gate.open();
    let found: usize = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert!(found > 0, "the script finds something");
    let calls = model.calls.lock().unwrap();
    let named =
        |number: u8, words: &[&str]| (number, words.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(calls[1], [named(2, &["cat", "dog", "bird"]), named(3, &["cat"])]);
    assert_eq!(calls[2], [named(2, &["cat", "fish"])]);
    assert_eq!(calls.len(), 3);
}

#[test]
fn a_batch_is_no_larger_than_agreed_except_for_a_single_request() {
    let model = Arc::new(ScriptedLanguage::default());
    let scores = options(64, 3);
    let worker = Arc::new(
        LanguageWorker::start(model.clone(), LanguageOptions { scores, ..Default::default() }).unwrap(),
    );
    model.scores.close();
    let mut callers = Vec::new();
    for (queued, texts) in [&["first"][..], &["a"], &["b", "c"], &["d", "e", "f", "g", "h"], &["i"], &["j"]]
        .into_iter()
        .enumerate()
    {
        let own = worker.clone();
        callers.push(spawn(move || {
            let expected: Vec<_> = texts.iter().map(|text| fixed_score(text)).collect();
            assert_eq!(own.score(&prompts(texts), &Call::default()).unwrap(), expected);
        }));
        model.scores.wait_for(1);
        until(|| worker.statistics().scores.queued == queued);
    }
    model.scores.open();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let score = |texts: &[&str]| Event::Score(texts.iter().map(ToString::to_string).collect());
    let expected =
        [score(&["first"]), score(&["a", "b", "c"]), score(&["d", "e", "f", "g", "h"]), score(&["i", "j"])];
    assert_eq!(model.log_so_far(), expected);
    assert_eq!(worker.statistics().scores.largest_batch, 5);
}

#[test]
fn what_needs_no_computing_is_answered_while_the_model_works() {
    let encoder = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(encoder.clone(), WorkerOptions::default()).unwrap());
    encoder.gate.close();
    let busy = spawn({
        let worker = worker.clone();
        move || worker.embed_texts(&["a"], &Call::default())
    });
    encoder.gate.wait_for(1);
    assert_eq!((worker.fingerprint(), worker.default_threshold()), (encoder.fingerprint(), 0.25));
    assert_eq!(worker.embed_texts(&[], &Call::default()).unwrap(), []);
    assert_eq!(worker.embed_pictures(&[], &Call::default()).unwrap(), []);
    encoder.gate.open();
    busy.join().unwrap().unwrap();

    let detector = Arc::new(ScriptedDetector::default());
    let worker = DetectorWorker::start(detector.clone(), WorkerOptions::default()).unwrap();
    assert!(worker.detect(&[], 0.1, &Call::default()).unwrap().is_empty());
    assert_eq!(worker.fingerprint(), detector.fingerprint());

    let language = Arc::new(ScriptedLanguage::default());
    let worker = LanguageWorker::start(language.clone(), LanguageOptions::default()).unwrap();
    assert_eq!(worker.score(&[], &Call::default()).unwrap(), []);
    assert_eq!(worker.complete(&[], &Call::default()).unwrap(), []);
    assert_eq!(worker.fingerprint(), "scripted");
    assert_eq!(language.log_so_far(), []);
}

#[test]
fn a_merged_call_is_over_when_it_is_over_for_all() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(model.clone(), WorkerOptions::default()).unwrap());
    model.gate.close();
    let ask = |text: &'static str, call: Call| {
        let worker = worker.clone();
        spawn(move || worker.embed_texts(&[text], &call))
    };
    let first = ask("first", Call::default());
    model.gate.wait_for(1);
    let (news, shop) = (tenant("news"), tenant("shop"));
    let callers = [ask("a", news.clone()), ask("b", shop.clone())];
    until(|| worker.statistics().queued == 2);
    model.gate.let_pass(1);
    model.gate.wait_for(2);
    assert!(first.join().unwrap().is_ok());

    let [a, b] = callers;
    news.cancel();
    assert!(a.join().unwrap().is_err(), "the caller leaves though the model still works");
    let merged = model.call.lock().unwrap().clone();
    assert!(merged.check().is_ok());
    shop.cancel();
    assert!(merged.check().is_err());
    assert!(b.join().unwrap().is_err());
    model.gate.open();
}
