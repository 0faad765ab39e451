//! Answers join and leave one running batch, beside scores.

use std::sync::Arc;
use std::thread::JoinHandle;

use cluegate_perception::{Call, Completion, PerceptionErrorKind, Result, VisionLanguageModel};
use cluegate_workers::{LanguageOptions, LanguageWorker};

use crate::support::{
    Event, ScriptedLanguage, fixed_completion, fixed_score, prompts, request, spawn, tenant, until,
};

struct Setting {
    model: Arc<ScriptedLanguage>,
    worker: Arc<LanguageWorker>,
}

impl Setting {
    fn new(room: usize) -> Self {
        let model = Arc::new(ScriptedLanguage { room, ..Default::default() });
        model.steps.close();
        let worker = Arc::new(LanguageWorker::start(model.clone(), LanguageOptions::default()).unwrap());
        Self { model, worker }
    }

    /// A caller that asks for an answer of `tokens` tokens for each text. Returns when the request waits, if `queued`
    /// wait then.
    fn ask(&self, texts: &[&str], tokens: usize, queued: usize) -> JoinHandle<Result<Vec<Completion>>> {
        let requests: Vec<_> = texts.iter().map(|text| request(text, tokens)).collect();
        let worker = self.worker.clone();
        let caller = spawn(move || worker.complete(&requests, &tenant("news")));
        self.model.steps.wait_for(1);
        until(|| self.worker.statistics().answers.queued == queued);
        caller
    }
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn join(joined: &[&str], refused: &[&str]) -> Event {
    Event::Join(names(joined), names(refused))
}

fn step(texts: &[&str]) -> Event {
    Event::Step(names(texts))
}

fn answers(texts: &[&str], tokens: usize) -> Vec<Completion> {
    texts.iter().map(|text| fixed_completion(text, tokens)).collect()
}

#[test]
fn answers_join_and_leave_between_two_tokens() {
    let setting = Setting::new(8);
    let first = setting.ask(&["first"], 3, 0);
    let second = setting.ask(&["1 second", "2 second"], 9, 1);
    let third = setting.ask(&["third"], 1, 2);
    setting.model.steps.open();
    assert_eq!(first.join().unwrap().unwrap(), answers(&["first"], 3));
    assert_eq!(second.join().unwrap().unwrap(), answers(&["1 second", "2 second"], 9));
    assert_eq!(third.join().unwrap().unwrap(), answers(&["third"], 1));
    let expected = [
        join(&["first"], &[]),
        step(&["first"]),
        join(&["1 second", "2 second", "third"], &[]),
        step(&["first", "1 second", "2 second", "third"]),
        step(&["first", "2 second"]),
    ];
    assert_eq!(setting.model.log_so_far(), expected);
    let statistics = setting.worker.statistics().answers;
    assert_eq!((statistics.served, statistics.batches, statistics.largest_batch), (3, 3, 4));
}

#[test]
fn a_question_is_read_only_while_somebody_waits_for_it() {
    let setting = Setting::new(8);
    setting.model.steps.open();
    let ask = |text: &'static str, call: &Call| {
        let (worker, call) = (setting.worker.clone(), call.clone());
        spawn(move || worker.complete(&[request(text, 2)], &call))
    };
    let gone = tenant("news");
    let caller = ask("read on", &gone);
    until(|| setting.model.log_so_far() == [join(&["read on"], &[])]);
    gone.cancel();
    assert_eq!(caller.join().unwrap().unwrap_err().kind(), PerceptionErrorKind::Cancelled);
    assert_eq!(ask("another", &tenant("news")).join().unwrap().unwrap(), answers(&["another"], 2));
}

#[test]
fn one_without_room_waits_until_another_leaves() {
    let setting = Setting::new(2);
    let first = setting.ask(&["first"], 3, 0);
    let others = [setting.ask(&["2 a"], 9, 1), setting.ask(&["b"], 1, 2), setting.ask(&["c"], 1, 3)];
    setting.model.steps.open();
    first.join().unwrap().unwrap();
    others.into_iter().for_each(|other| {
        other.join().unwrap().unwrap();
    });
    let expected = [
        join(&["first"], &[]),
        step(&["first"]),
        join(&["2 a"], &["b", "c"]),
        step(&["first", "2 a"]),
        // Nobody has left, and nobody asks again.
        step(&["first", "2 a"]),
        join(&["b"], &[]),
        join(&["c"], &[]),
        step(&["b", "c"]),
    ];
    assert_eq!(setting.model.log_so_far(), expected);
}

#[test]
fn one_that_needs_much_room_is_not_overtaken_for_ever() {
    let setting = Setting::new(2);
    let mut callers = vec![setting.ask(&["3 first"], 9, 0)];
    callers.push(setting.ask(&["wide"], 1, 1));
    callers.push(setting.ask(&["5 a"], 9, 2));
    callers.push(setting.ask(&["b"], 1, 3));
    setting.model.steps.open();
    callers.into_iter().for_each(|caller| {
        caller.join().unwrap().unwrap();
    });
    let expected = [
        join(&["3 first"], &[]),
        step(&["3 first"]),
        // It is overtaken by what fits when it is first refused, and never again.
        join(&["5 a"], &["wide", "b"]),
        step(&["3 first", "5 a"]),
        step(&["3 first", "5 a"]),
        join(&[], &["wide"]),
        step(&["5 a"]),
        step(&["5 a"]),
        step(&["5 a"]),
        join(&["wide"], &[]),
        join(&[], &["b"]),
        step(&["wide"]),
        join(&["b"], &[]),
        step(&["b"]),
    ];
    assert_eq!(setting.model.log_so_far(), expected);
}

#[test]
fn scores_and_tokens_take_turns() {
    let setting = Setting::new(8);
    let long = setting.ask(&["long"], 40, 0);
    // Two callers that never stop asking for scores while the answer is decoded.
    let scorers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|text| {
            let worker = setting.worker.clone();
            spawn(move || {
                let mut asked = 0;
                while worker.statistics().answers.served == 0 {
                    assert_eq!(worker.score(&prompts(&[text]), &tenant(text)).unwrap(), [fixed_score(text)]);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    until(|| setting.worker.statistics().scores.queued == 2);
    setting.model.steps.open();
    assert_eq!(long.join().unwrap().unwrap(), answers(&["long"], 40));
    assert!(scorers.into_iter().map(|scorer| scorer.join().unwrap()).sum::<u64>() >= 2);
    let events = setting.model.log_so_far();
    let is_score = |event: &Event| matches!(event, Event::Score(_));
    // While an answer is in the making, two batches of scores never follow each other.
    let end = events.iter().rposition(|event| matches!(event, Event::Step(_))).unwrap();
    assert!(events[..end].windows(2).all(|pair| !(is_score(&pair[0]) && is_score(&pair[1]))), "{events:?}");
    // And the two that waited during the first token are served, in one batch, before the second.
    let Event::Score(batch) = &events[2] else { panic!("{events:?}") };
    assert_eq!(batch.len(), 2);
}

#[test]
fn waiting_answers_do_not_starve_scores() {
    let setting = Setting::new(1);
    // One answer after the other: the batch is never empty for long.
    let callers: Vec<_> = (0..20).map(|number| setting.ask(&["2 text"], 9, number)).collect();
    let scored = spawn({
        let worker = setting.worker.clone();
        move || worker.score(&prompts(&["score"]), &Call::default()).unwrap()
    });
    until(|| setting.worker.statistics().scores.queued == 1);
    setting.model.steps.open();
    assert_eq!(scored.join().unwrap(), [fixed_score("score")]);
    callers.into_iter().for_each(|caller| {
        caller.join().unwrap().unwrap();
    });
    let events = setting.model.log_so_far();
    assert_eq!(events[2], Event::Score(names(&["score"])), "after the first token");
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Step(_))).count(), 40);
}

#[test]
fn a_request_ends_when_its_last_answer_has() {
    let setting = Setting::new(2);
    let caller = setting.ask(&["1 a", "3 b", "2 c", "1 d"], 9, 0);
    setting.model.steps.open();
    assert_eq!(caller.join().unwrap().unwrap(), answers(&["1 a", "3 b", "2 c", "1 d"], 9));
    assert_eq!(setting.worker.statistics().answers.served, 1);
}

#[test]
fn a_request_that_fails_when_its_turn_comes_leaves_the_others_their_own_answers() {
    let setting = Setting::new(2);
    let first = setting.ask(&["wide first"], 2, 0);
    let failing = setting.ask(&["late error", "beside"], 1, 1);
    let mut queued = 1;
    let others = ["b", "c", "d"].map(|text| {
        queued += 1;
        (text, setting.ask(&[text], 1, queued))
    });
    setting.model.steps.open();
    assert_eq!(first.join().unwrap().unwrap(), answers(&["wide first"], 2));
    assert!(failing.join().unwrap().is_err());
    for (text, caller) in others {
        assert_eq!(caller.join().unwrap().unwrap(), answers(&[text], 1));
    }
}
