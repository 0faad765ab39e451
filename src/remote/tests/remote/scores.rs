//! What is asked, and what is made of the answers.

use cluegate_perception::{
    Call, CompletionRequest, FinishReason, Picture, Prefix, Prompt, Reply, VisionLanguageModel,
};
use image::{Rgb, RgbImage};
use serde_json::json;

use super::engine::{Engine, Kind, belief, open};

pub(crate) fn picture(level: u8) -> Picture {
    Picture::new(RgbImage::from_pixel(8, 6, Rgb([level, 90, 30])))
}

pub(crate) fn prompts(picture: Option<&Picture>, count: usize) -> Vec<Prompt> {
    let prefix = Prefix { picture: picture.cloned(), text: "Look. Statement: ".into() };
    (0..count).map(|index| Prompt::new(prefix.clone(), format!("number {index}."))).collect()
}

#[test]
fn scores_are_those_of_the_engine_in_every_dialect() {
    for kind in [Kind::TokenIds, Kind::TopTokens, Kind::OlderVllm] {
        let engine = Engine::start(kind);
        let judge = open(&[&engine]);
        let all = [prompts(Some(&picture(1)), 24), prompts(None, 3), prompts(Some(&picture(2)), 5)].concat();
        let mut asked = Vec::new();
        engine.script(|_| None);
        let scores = judge.score(&all, &Call::default()).unwrap();
        // They come in any order; each answer belongs to its question.
        for (body, _) in engine.shared.seen.lock().unwrap().iter() {
            asked.push((body["messages"].clone(), belief(&body["messages"], 0.0)));
        }
        assert_eq!(asked.len(), all.len(), "{kind:?}");
        for (prompt, score) in all.iter().zip(&scores) {
            let found: Vec<_> = asked
                .iter()
                .filter(|(messages, _)| {
                    let text = format!("Look. Statement: {}", prompt.suffix);
                    let url = messages[0]["content"][0]["image_url"]["url"].as_str();
                    let words =
                        messages[0]["content"][1]["text"].as_str().or(messages[0]["content"].as_str());
                    let same = url.map(pixels) == prompt.prefix.picture.as_ref().map(|p| p.pixels().clone());
                    words == Some(text.as_str()) && same
                })
                .collect();
            assert_eq!(found.len(), 1, "{kind:?}: {prompt:?}");
            let (yes, no) = found[0].1;
            let gap = (score.ratio() - yes / (yes + no)).abs();
            assert!(gap < 1e-6, "{kind:?}: off by {gap}");
        }
    }
}

/// The picture in a data URL.
fn pixels(url: &str) -> RgbImage {
    use base64::Engine as _;
    let png =
        base64::engine::general_purpose::STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap());
    image::load_from_memory(&png.unwrap()).unwrap().to_rgb8()
}

#[test]
fn a_request_says_all_that_matters() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    let mut prompt = prompts(Some(&picture(1)), 1).remove(0);
    prompt.turns.push(Reply { assistant: "a thought".to_owned(), user: "sum up".to_owned() });
    prompt.answer_start = "{\"rating\": \"".to_owned();
    engine.script(|_| None);
    judge.score(std::slice::from_ref(&prompt), &Call::new("tenant-a")).unwrap();
    judge.score(std::slice::from_ref(&prompt), &Call::new("tenant-b")).unwrap();
    let seen = engine.shared.seen.lock().unwrap();
    let (body, other) = (&seen[0].0, &seen[1].0);
    let parts = body["messages"][0]["content"].as_array().unwrap();
    assert_eq!(parts[0]["type"], "image_url");
    assert_eq!(parts[1], json!({"type": "text", "text": "Look. Statement: number 0."}));
    assert_eq!(body["messages"][1], json!({"role": "assistant", "content": "a thought"}));
    assert_eq!(body["messages"][2], json!({"role": "user", "content": "sum up"}));
    assert_eq!(body["messages"][3], json!({"role": "assistant", "content": "{\"rating\": \""}));
    assert_eq!(
        (&body["continue_final_message"], &body["add_generation_prompt"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&body["max_tokens"], &body["temperature"], &body["logprobs"]),
        (&json!(1), &json!(0), &json!(true))
    );
    assert_eq!(body["logprob_token_ids"], json!([7, 17, 27, 8, 18, 28]));
    assert_eq!(body["chat_template_kwargs"], json!({"enable_thinking": false}));
    assert!(body["cache_salt"].is_string());
    assert_ne!(body["cache_salt"], other["cache_salt"], "tenants share nothing");
    drop(seen);
    engine.script(|_| None);
    let text = prompts(None, 1);
    for tenant in ["tenant-a", "tenant-b"] {
        judge.score(&text, &Call::new(tenant)).unwrap();
    }
    let seen = engine.shared.seen.lock().unwrap();
    let salts = [0, 1].map(|index| seen[index].0["cache_salt"].as_str().unwrap());
    assert_ne!(salts[0], salts[1], "nor what is asked without a picture");
}

#[test]
fn a_request_is_sent_whole_and_with_its_length() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    engine.script(|_| None);
    // Of some megabytes, in a form that does not compress.
    let noise = |x: u32, y: u32| Rgb([(x * 7 + y * y * 13) as u8, (x * x * 31 + y) as u8, (x * y) as u8]);
    let large = Picture::new(RgbImage::from_fn(1500, 1000, noise));
    assert_eq!(judge.score(&prompts(Some(&large), 36), &Call::default()).unwrap().len(), 36);
    let seen = engine.shared.seen.lock().unwrap();
    for (body, headers) in seen.iter() {
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        assert_eq!(length, body.to_string().len());
        assert_eq!(
            (headers.get("transfer-encoding"), &headers["content-type"]),
            (None, &"application/json".parse().unwrap())
        );
    }
    assert_eq!(
        pixels(seen[35].0["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap()),
        *large.pixels()
    );
}

#[test]
fn free_answers_come_back_with_their_end() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    let request = |prompt| CompletionRequest { prompt, max_tokens: 50 };
    let requests: Vec<_> = prompts(Some(&picture(3)), 4).into_iter().map(request).collect();
    let answers = judge.complete(&requests, &Call::default()).unwrap();
    assert_eq!(answers.len(), 4);
    assert!(answers.iter().all(|a| a.finish == FinishReason::Stop && ["Yes", "No"].contains(&&*a.text)));
}

#[test]
fn nothing_to_ask_is_nothing_sent() {
    let engine = Engine::start(Kind::TokenIds);
    let judge = open(&[&engine]);
    engine.script(|_| None);
    assert!(judge.score(&[], &Call::default()).unwrap().is_empty());
    assert_eq!(engine.requests(), 0);
}

#[test]
fn questions_about_a_picture_go_to_one_endpoint_and_pictures_to_all() {
    let engines = [Engine::start(Kind::TokenIds), Engine::start(Kind::TokenIds)];
    let judge = open(&[&engines[0], &engines[1]]);
    engines.iter().for_each(|engine| engine.script(|_| None));
    let mut all = Vec::new();
    for level in 0..8 {
        all.extend(prompts(Some(&picture(level)), 6));
    }
    judge.score(&all, &Call::default()).unwrap();
    let mut places = std::collections::HashMap::new();
    for (index, engine) in engines.iter().enumerate() {
        let seen = engine.shared.seen.lock().unwrap();
        assert!(!seen.is_empty(), "endpoint {index} got nothing");
        for (body, _) in seen.iter() {
            let url = body["messages"][0]["content"][0]["image_url"]["url"].as_str().unwrap().to_owned();
            assert_eq!(*places.entry(url).or_insert(index), index, "a picture at two endpoints");
        }
    }
}
