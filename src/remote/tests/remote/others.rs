//! The text model and the relevance encoder.

use cluegate_perception::{
    Call, CompletionRequest, PerceptionErrorKind, Picture, RelevanceEncoder, VisionLanguageModel,
};
use cluegate_remote::{RemoteErrorKind, RemoteJudge, RemoteOptions, RemoteRelevance, RemoteText};

use super::engine::{Engine, Kind, options};
use super::scores::{picture, prompts};

fn text_requests(count: usize) -> Vec<CompletionRequest> {
    prompts(None, count).into_iter().map(|prompt| CompletionRequest { prompt, max_tokens: 50 }).collect()
}

#[test]
fn a_text_model_answers_without_pictures_and_log_probabilities() {
    let engine = Engine::start(Kind::Text);
    assert!(RemoteJudge::open(&options(&[&engine])).is_err(), "no judge");
    let model = RemoteText::open(&options(&[&engine])).unwrap();
    engine.script(|_| None);
    let answers = model.complete(&text_requests(4), &Call::default()).unwrap();
    assert!(answers.len() == 4 && answers.iter().all(|answer| !answer.text.is_empty()));
    {
        let seen = engine.shared.seen.lock().unwrap();
        assert!(seen.iter().all(|(body, _)| body["messages"][0]["content"].is_string()));
        assert!(seen.iter().all(|(body, _)| body["max_tokens"] == 50 && body.get("logprobs").is_none()));
    }
    let error = model.score(&prompts(None, 1), &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::MissingAnswer);
    let error = model.score(&prompts(Some(&picture(1)), 1), &Call::default()).unwrap_err();
    assert_eq!(error.kind(), PerceptionErrorKind::Request);
    assert_eq!(engine.requests(), 4, "what cannot be answered is not sent");
}

#[test]
fn a_text_model_scores_where_there_are_log_probabilities() {
    // One that drops pictures is one that has no use for them.
    for kind in [Kind::TokenIds, Kind::TopTokens, Kind::OlderVllm, Kind::Blind] {
        let engine = Engine::start(kind);
        let model = RemoteText::open(&options(&[&engine])).unwrap();
        let scores = model.score(&prompts(None, 3), &Call::default()).unwrap();
        assert!(scores.iter().all(|score| (0.0..=1.0).contains(&score.ratio())), "{kind:?}");
    }
}

#[test]
fn a_text_model_that_thinks_first_or_is_not_there_is_refused() {
    let thinks = Engine::start(Kind::Thinks);
    assert_eq!(RemoteText::open(&options(&[&thinks])).unwrap_err().kind(), RemoteErrorKind::Thinks);
    let wrong = RemoteOptions { model: "org/another".to_owned(), ..options(&[&thinks]) };
    assert_eq!(RemoteText::open(&wrong).unwrap_err().kind(), RemoteErrorKind::UnknownModel);
}

#[test]
fn embeddings_come_back_in_the_order_of_what_was_asked() {
    let engines = [Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds)];
    let encoder = RemoteRelevance::open(&options(&[&engines[0], &engines[1]]), 0.2).unwrap();
    let pictures: Vec<Picture> = (0..6).map(picture).collect();
    let call = Call::default();
    let all = encoder.embed_pictures(&pictures, &call).unwrap();
    let alone = pictures.iter().map(|one| encoder.embed_pictures(std::slice::from_ref(one), &call).unwrap());
    assert_eq!(all, alone.flatten().collect::<Vec<_>>());
    let texts: Vec<String> = (0..150).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let all = encoder.embed_texts(&texts, &call).unwrap();
    assert_eq!(all.len(), 150);
    assert_eq!(all[130], encoder.embed_texts(&texts[130..131], &call).unwrap()[0]);
}

#[test]
fn an_encoder_that_is_not_what_is_needed_is_refused() {
    let blind = Engine::start(Kind::Blind);
    assert_eq!(RemoteRelevance::open(&options(&[&blind]), 0.2).unwrap_err().kind(), RemoteErrorKind::Blind);
    let (one, other) = (Engine::start(Kind::TokenIds), Engine::with(Kind::TokenIds, 1.0));
    assert_eq!(
        RemoteRelevance::open(&options(&[&one, &other]), 0.2).unwrap_err().kind(),
        RemoteErrorKind::Mixed
    );
    let mut dead = other;
    dead.kill();
    assert!(RemoteRelevance::open(&options(&[&dead, &one]), 0.2).is_ok(), "one is enough");
}
