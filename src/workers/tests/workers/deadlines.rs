//! Nobody waits longer than agreed, whatever the model does, and a full queue refuses at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_perception::{Call, PerceptionErrorKind, RelevanceEncoder, VisionLanguageModel};
use cluegate_workers::{LanguageOptions, LanguageWorker, RelevanceWorker, WorkerOptions};

use crate::support::{
    Event, ScriptedEncoder, ScriptedLanguage, fixed_completion, kind, options, prompts, request, spawn,
    tenant, until,
};

/// A deadline that passes while a test waits for it, and not before the work that it is of has begun, even on a machine
/// that is busy with other tests.
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn callers_of_a_hanging_model_leave_at_their_deadline_and_a_full_queue_refuses() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(model.clone(), options(3, 8)).unwrap());
    model.gate.close();
    let ask = |text: &'static str| {
        let worker = worker.clone();
        spawn(move || {
            let deadline = Instant::now() + SHORT;
            let answer = worker.embed_texts(&[text], &Call::default().until(deadline));
            (Instant::now() >= deadline, answer)
        })
    };
    let in_work = ask("in work");
    model.gate.wait_for(1);
    let waiting = ["a", "b", "c"].map(ask);
    for caller in [in_work].into_iter().chain(waiting) {
        let (deadline_passed, answer) = caller.join().unwrap();
        assert_eq!((deadline_passed, kind(&answer)), (true, Some(PerceptionErrorKind::Timeout)));
        let message = answer.unwrap_err().to_string();
        assert!(message.starts_with("waiting for the relevance encoder: the deadline passed"), "{message}");
    }
    // Their callers are gone, but the model still hangs and their places are taken: a caller without a deadline would
    // wait for ever here, so it is refused.
    assert_eq!(worker.statistics().queued, 3);
    let refused = worker.embed_texts(&["d"], &Call::default());
    assert_eq!(kind(&refused), Some(PerceptionErrorKind::Overloaded));

    model.gate.open();
    until(|| worker.statistics().queued == 0);
    assert_eq!(worker.embed_texts(&["e"], &Call::default()).unwrap(), [ScriptedEncoder::fixed("e")]);
    assert_eq!(*model.calls.lock().unwrap(), [vec!["in work"], vec!["e"]], "nobody waited for the others");
    let statistics = worker.statistics();
    assert_eq!((statistics.served, statistics.abandoned, statistics.rejected), (2, 3, 1));
}

#[test]
fn a_call_that_is_over_is_not_queued() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = RelevanceWorker::start(model.clone(), WorkerOptions::default()).unwrap();
    let cancelled = Call::default();
    cancelled.cancel();
    let late = Call::default().until(Instant::now());
    assert_eq!(kind(&worker.embed_texts(&["a"], &cancelled)), Some(PerceptionErrorKind::Cancelled));
    assert_eq!(kind(&worker.embed_texts(&["a"], &late)), Some(PerceptionErrorKind::Timeout));
    assert_eq!((worker.statistics().abandoned, model.calls.lock().unwrap().len()), (2, 0));
}

#[test]
fn a_caller_without_a_deadline_can_be_called_off() {
    let model = Arc::new(ScriptedLanguage::default());
    let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
    model.scores.close();
    let (computed, queued) = (tenant("news"), tenant("news"));
    let ask = |text: &'static str, call: &Call| {
        let (worker, call) = (worker.clone(), call.clone());
        spawn(move || worker.score(&prompts(&[text]), &call))
    };
    let first = ask("first", &computed);
    model.scores.wait_for(1);
    let second = ask("second", &queued);
    until(|| worker.statistics().scores.queued == 1);
    computed.cancel();
    queued.cancel();
    assert_eq!(kind(&first.join().unwrap()), Some(PerceptionErrorKind::Cancelled));
    assert_eq!(kind(&second.join().unwrap()), Some(PerceptionErrorKind::Cancelled));
    model.scores.open();
    until(|| worker.statistics().scores.queued == 0);
    assert_eq!(model.log_so_far(), [Event::Score(vec!["first".to_owned()])]);
}

#[test]
fn an_answer_that_nobody_waits_for_leaves_the_batch() {
    let model = Arc::new(ScriptedLanguage { room: 2, ..Default::default() });
    let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
    model.steps.close();
    let ask = |text: &'static str, call: Call| {
        let worker = worker.clone();
        spawn(move || worker.complete(&[request(text, 4)], &call))
    };
    let cancelled = tenant("news");
    let first = ask("first", cancelled.clone());
    model.steps.wait_for(1);
    let late = ask("late", tenant("news").until(Instant::now() + SHORT));
    until(|| worker.statistics().answers.queued == 1);
    let patient = ask("patient", tenant("shop"));
    until(|| worker.statistics().answers.queued == 2);
    cancelled.cancel();
    assert_eq!(kind(&first.join().unwrap()), Some(PerceptionErrorKind::Cancelled));
    assert_eq!(kind(&late.join().unwrap()), Some(PerceptionErrorKind::Timeout));
    model.steps.open();
    assert_eq!(patient.join().unwrap().unwrap(), [fixed_completion("patient", 4)]);
    let named = |text: &str| vec![text.to_owned()];
    let mut expected = vec![
        Event::Join(named("first"), Vec::new()),
        Event::Step(named("first")),
        Event::Leave("first".to_owned()),
        Event::Join(named("patient"), Vec::new()),
    ];
    expected.extend((0..4).map(|_| Event::Step(named("patient"))));
    assert_eq!(model.log_so_far(), expected);
    let statistics = worker.statistics().answers;
    assert_eq!((statistics.served, statistics.abandoned, statistics.batches), (1, 2, 5));
}

#[test]
fn to_drop_a_worker_ends_its_thread_after_the_call_it_is_in() {
    let model = Arc::new(ScriptedLanguage::default());
    let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
    model.steps.close();
    let soon = tenant("news").until(Instant::now() + SHORT);
    assert_eq!(kind(&worker.complete(&[request("text", 9)], &soon)), Some(PerceptionErrorKind::Timeout));
    model.steps.wait_for(1);
    let dropping = spawn(move || drop(worker));
    model.steps.open();
    dropping.join().unwrap();
    assert_eq!(Arc::strong_count(&model), 1, "the thread has given its model back");

    let model = Arc::new(ScriptedEncoder::default());
    let worker = RelevanceWorker::start(model.clone(), WorkerOptions::default()).unwrap();
    assert!(worker.embed_texts(&["a"], &Call::default()).is_ok());
    drop(worker);
    assert_eq!(Arc::strong_count(&model), 1);
}
