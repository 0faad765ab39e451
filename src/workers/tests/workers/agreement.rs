//! Whoever asks beside whom: the answers are those of the model asked alone.

use std::sync::{Arc, Barrier};

use cluegate_perception::{
    Call, CompletionRequest, DetectionRequest, PerceptionErrorKind, Picture, RegionDetector,
    RelevanceEncoder, VisionLanguageModel,
};
use cluegate_workers::{DetectorWorker, LanguageOptions, LanguageWorker, RelevanceWorker};
use proptest::prelude::*;

use crate::support::{
    ScriptedDetector, ScriptedEncoder, ScriptedLanguage, fixed_completion, fixed_score, hush, kind, options,
    picture, prompts, request, spawn, tenant,
};

/// What one caller asks in one request.
#[derive(Debug, Clone)]
enum Ask {
    Texts(Vec<String>),
    Pictures(Vec<u8>),
    Words(Vec<(u8, Vec<String>)>, f32),
    Scores(Vec<String>),
    Answers(Vec<(String, usize)>),
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => (0..30_u8).prop_map(|number| format!("{number} text")),
        1 => Just("panic".to_owned()),
        1 => Just("error".to_owned()),
        1 => Just("nan".to_owned()),
        1 => Just("short".to_owned()),
    ]
}

fn answer_text() -> impl Strategy<Value = String> {
    let script = &["join panic", "join error", "step panic", "step error", "answer error", "short", "lose"];
    prop_oneof![
        20 => (0..9_u8, 0..30_u8).prop_map(|(tokens, number)| format!("{tokens} text {number}")),
        3 => Just("wide".to_owned()),
        1 => prop::sample::select(&script[..]).prop_map(str::to_owned),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let words = (0..4_u8, prop::collection::vec(text(), 0..5));
    prop_oneof![
        prop::collection::vec(text(), 1..5).prop_map(Ask::Texts),
        prop::collection::vec(0..6_u8, 1..5).prop_map(Ask::Pictures),
        (prop::collection::vec(words, 1..4), prop::sample::select(&[0.0_f32, 0.4][..]))
            .prop_map(|(looks, confidence)| Ask::Words(looks, confidence)),
        prop::collection::vec(text(), 1..6).prop_map(Ask::Scores),
        prop::collection::vec((answer_text(), 3..7_usize), 1..5).prop_map(Ask::Answers),
    ]
}

struct Workers {
    encoder: RelevanceWorker,
    detector: DetectorWorker,
    language: LanguageWorker,
}

/// Compares an answer with what the model gives when it is asked alone: `None` if it fails then.
fn agree<T: PartialEq + std::fmt::Debug>(
    answer: cluegate_perception::Result<T>,
    alone: Option<T>,
) -> Result<(), String> {
    match (&answer, &alone) {
        (Ok(answer), Some(alone)) if answer == alone => Ok(()),
        (Err(_), None) if kind(&answer) != Some(PerceptionErrorKind::Overloaded) => Ok(()),
        _ => Err(format!("{answer:?}, expected {alone:?}")),
    }
}

fn fails(text: &str) -> bool {
    ["panic", "error", "short"].iter().any(|script| text.starts_with(script))
}

fn fails_to_decode(text: &str) -> bool {
    ["join", "step", "answer", "short", "lose"].iter().any(|script| text.starts_with(script))
}

impl Workers {
    fn check(&self, ask: &Ask, call: &Call) -> Result<(), String> {
        match ask {
            Ask::Texts(texts) => {
                let own: Vec<&str> = texts.iter().map(String::as_str).collect();
                // Compared bit by bit, since NaN does not equal itself.
                let bits = |answer: Vec<cluegate_perception::Embedding>| -> Vec<Vec<u32>> {
                    answer
                        .iter()
                        .map(|one| one.values().iter().map(|value| value.to_bits()).collect())
                        .collect()
                };
                let alone = || bits(own.iter().map(|text| ScriptedEncoder::fixed(text)).collect());
                let alone = (!own.iter().any(|text| fails(text))).then(alone);
                agree(self.encoder.embed_texts(&own, call).map(bits), alone)
            }
            Ask::Pictures(numbers) => {
                let pictures: Vec<Picture> = numbers.iter().map(|number| picture(*number)).collect();
                let alone = numbers.iter().map(|number| ScriptedEncoder::fixed(&format!("picture {number}")));
                agree(self.encoder.embed_pictures(&pictures, call), Some(alone.collect()))
            }
            Ask::Words(looks, confidence) => {
                let owned: Vec<(Picture, Vec<&str>)> = looks
                    .iter()
                    .map(|(number, words)| (picture(*number), words.iter().map(String::as_str).collect()))
                    .collect();
                let requests: Vec<DetectionRequest<'_>> =
                    owned.iter().map(|(picture, queries)| DetectionRequest { picture, queries }).collect();
                let failing = owned.iter().flat_map(|(_, words)| words).any(|word| fails(word));
                let alone = || requests.iter().map(|one| ScriptedDetector::fixed(one, *confidence)).collect();
                agree(self.detector.detect(&requests, *confidence, call), (!failing).then(alone))
            }
            Ask::Scores(texts) => {
                let own: Vec<&str> = texts.iter().map(String::as_str).collect();
                let bits = |answer: Vec<cluegate_perception::AnswerScore>| -> Vec<(u64, u64)> {
                    answer.iter().map(|score| (score.yes.to_bits(), score.no.to_bits())).collect()
                };
                let alone = || bits(own.iter().map(|text| fixed_score(text)).collect());
                let alone = (!own.iter().any(|text| fails(text))).then(alone);
                agree(self.language.score(&prompts(&own), call).map(bits), alone)
            }
            Ask::Answers(texts) => {
                let requests: Vec<CompletionRequest> =
                    texts.iter().map(|(text, tokens)| request(text, *tokens)).collect();
                let alone = || texts.iter().map(|(text, tokens)| fixed_completion(text, *tokens)).collect();
                let failing = texts.iter().any(|(text, _)| fails_to_decode(text));
                agree(self.language.complete(&requests, call), (!failing).then(alone))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Callers of three tenants ask at once, each several times; some of what they ask fails.
    #[test]
    fn batched_answers_are_those_of_single_requests(
        callers in prop::collection::vec((0..3_u8, prop::collection::vec(ask(), 1..6)), 2..7),
        largest in 1..9_usize,
        seats in 1..5_usize,
        room in 1..5_usize,
    ) {
        hush();
        let batches = options(64, largest);
        let language = LanguageOptions { scores: batches, answers: options(64, seats) };
        let model = ScriptedLanguage { room, ..Default::default() };
        let workers = Arc::new(Workers {
            encoder: RelevanceWorker::start(Arc::new(ScriptedEncoder::default()), batches).unwrap(),
            detector: DetectorWorker::start(Arc::new(ScriptedDetector::default()), batches).unwrap(),
            language: LanguageWorker::start(Arc::new(model), language).unwrap(),
        });
        let asked: usize = callers.iter().map(|(_, asks)| asks.len()).sum();
        let start = Arc::new(Barrier::new(callers.len()));
        let running: Vec<_> = callers
            .into_iter()
            .map(|(name, asks)| {
                let (workers, start) = (workers.clone(), start.clone());
                spawn(move || {
                    start.wait();
                    let call = tenant(&name.to_string());
                    asks.iter().try_for_each(|ask| {
                        workers.check(ask, &call).map_err(|error| format!("{ask:?}: {error}"))
                    })
                })
            })
            .collect();
        for caller in running {
            prop_assert_eq!(caller.join().unwrap(), Ok(()));
        }
        let language = workers.language.statistics();
        let all = [workers.encoder.statistics(), workers.detector.statistics(), language.scores, language.answers];
        prop_assert_eq!(all.iter().map(|one| one.served).sum::<u64>(), asked as u64);
        prop_assert!(all.iter().all(|one| one.abandoned + one.rejected == 0 && one.queued == 0));
        prop_assert!(language.answers.largest_batch <= seats as u64);
    }
}
