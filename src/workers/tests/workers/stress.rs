//! Many callers with everything that can happen at once: every request has one end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluegate_perception::{
    Call, DetectionRequest, PerceptionErrorKind, RegionDetector, RelevanceEncoder, VisionLanguageModel,
};
use cluegate_workers::{
    AdmissionOptions, DetectorWorker, LanguageOptions, LanguageWorker, RelevanceWorker, Statistics,
    WorkerOptions,
};

use crate::support::{
    ScriptedDetector, ScriptedEncoder, ScriptedLanguage, fixed_completion, fixed_score, hush, kind, number,
    picture, prompts, request, spawn, tenant, until,
};

const THREADS: u64 = 12;
const REQUESTS: u64 = 400;

struct Workers {
    encoder: RelevanceWorker,
    detector: DetectorWorker,
    language: LanguageWorker,
    sent: [AtomicU64; 4],
    answered: AtomicU64,
}

/// One request by chance, and what may come of it.
struct Request {
    text: String,
    call: Call,
    deadline: bool,
    cancelled: bool,
}

impl Request {
    fn new(chance: u64) -> Self {
        let script = match chance % 40 {
            0 => "panic",
            1 => "error",
            2 => "short",
            3 => "step panic",
            4 => "step error",
            5 => "join panic",
            6 => "answer error",
            7 => "lose",
            8 => "late error",
            _ => "3",
        };
        let chance = number(chance);
        let (deadline, cancelled) = (chance.is_multiple_of(5), chance.is_multiple_of(7));
        let mut call = tenant(&(chance % 4).to_string());
        if deadline {
            call = call.until(Instant::now() + Duration::from_micros(chance / 16 % 2000));
        }
        Self { text: format!("{script} {}", chance % 1000), call, deadline, cancelled }
    }

    /// Whether an answer is right, or an error one that this request may have; `fails` says if it must have one.
    fn judge<T: PartialEq>(&self, answer: cluegate_perception::Result<T>, expected: &T, fails: bool) -> bool {
        match (kind(&answer), answer) {
            (_, Ok(answer)) => !fails && answer == *expected,
            (Some(PerceptionErrorKind::Timeout), _) => self.deadline,
            (Some(PerceptionErrorKind::Cancelled), _) => self.cancelled,
            (Some(PerceptionErrorKind::Overloaded), _) => true,
            _ => fails,
        }
    }
}

impl Workers {
    fn send(&self, chance: u64) {
        let own = Request::new(chance);
        let (text, call) = (&*own.text, &own.call);
        let fails = ["panic", "error", "short"].iter().any(|script| text.starts_with(script));
        let which = (number(chance ^ 1) % 4) as usize;
        self.sent[which].fetch_add(1, Ordering::Relaxed);
        if own.cancelled {
            let call = call.clone();
            spawn(move || {
                (0..chance % 64).for_each(|_| std::thread::yield_now());
                call.cancel();
            });
        }
        let right = match which {
            0 => {
                let expected = vec![ScriptedEncoder::fixed(text)];
                own.judge(self.encoder.embed_texts(&[text], call), &expected, fails)
            }
            1 => {
                let picture = picture((chance % 3) as u8);
                let request = DetectionRequest { picture: &picture, queries: &[text, "common"] };
                let expected = vec![ScriptedDetector::fixed(&request, 0.2)];
                own.judge(self.detector.detect(&[request], 0.2, call), &expected, fails)
            }
            2 => {
                let expected = vec![fixed_score(text), fixed_score("common")];
                own.judge(self.language.score(&prompts(&[text, "common"]), call), &expected, fails)
            }
            _ => {
                let script = ["step", "join", "answer", "short", "lose", "late"];
                let fails = script.iter().any(|script| text.starts_with(script));
                let expected = vec![fixed_completion(text, 4), fixed_completion("common", 2)];
                let requests = [request(text, 4), request("common", 2)];
                own.judge(self.language.complete(&requests, call), &expected, fails)
            }
        };
        assert!(right, "{text} at {which}");
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn statistics(&self) -> [Statistics; 4] {
        let language = self.language.statistics();
        [self.encoder.statistics(), self.detector.statistics(), language.scores, language.answers]
    }
}

#[test]
fn every_request_ends_once() {
    hush();
    let queue = AdmissionOptions { limit: 3, per_tenant: 2 };
    let own = WorkerOptions { queue, largest_batch: 5 };
    let models = (
        Arc::new(ScriptedEncoder::default()),
        Arc::new(ScriptedDetector::default()),
        Arc::new(ScriptedLanguage { room: 4, ..Default::default() }),
    );
    let workers = Arc::new(Workers {
        encoder: RelevanceWorker::start(models.0.clone(), own).unwrap(),
        detector: DetectorWorker::start(models.1.clone(), own).unwrap(),
        language: LanguageWorker::start(models.2.clone(), LanguageOptions { scores: own, answers: own })
            .unwrap(),
        sent: Default::default(),
        answered: AtomicU64::new(0),
    });
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let workers = workers.clone();
            spawn(move || (0..REQUESTS).for_each(|request| workers.send(number((thread, request)))))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(workers.answered.load(Ordering::Relaxed), THREADS * REQUESTS);

    let ended = |one: &Statistics| one.served + one.abandoned + one.rejected;
    for (index, sent) in workers.sent.iter().enumerate() {
        // What nobody waits for any more is counted as abandoned and leaves the queue a moment later.
        let settled = |own: &Statistics| own.queued == 0 && ended(own) >= sent.load(Ordering::Relaxed);
        until(|| settled(&workers.statistics()[index]));
    }
    for (own, sent) in workers.statistics().iter().zip(&workers.sent) {
        assert_eq!(ended(own), sent.load(Ordering::Relaxed), "each is counted once: {own:?}");
        assert!(own.served > 0 && own.abandoned > 0 && own.panics > 0, "{own:?}");
    }
    drop(workers);
    assert_eq!(
        (Arc::strong_count(&models.0), Arc::strong_count(&models.1), Arc::strong_count(&models.2)),
        (1, 1, 1)
    );
}
