//! Answers decoded side by side: whoever joins or leaves in between, each is what it would be alone.

use std::collections::BTreeMap;

use candle_core::Device;
use cluegate_models::LanguageModel;
use cluegate_models::language::Limits;
use cluegate_perception::{
    AnswerId, Call, Completion, CompletionRequest, FinishReason, LocalLanguageModel, PerceptionErrorKind,
    Picture, Prefix, Prompt, Reply, VisionLanguageModel,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::qwen2_vl::GOLDEN;

fn load() -> LanguageModel {
    GOLDEN.model()
}

fn picture(name: &str) -> Picture {
    GOLDEN.picture(name)
}

/// Bounds so tight that every question is cut into pieces and little is remembered.
fn tight() -> Limits {
    Limits { remembered: 2, batch_tokens: 7, batch_scores: 600, ..Limits::of(&Device::Cpu) }
}

fn request() -> impl Strategy<Value = CompletionRequest> {
    let shown = prop::option::of(prop::sample::select(vec!["wide", "tall"]));
    let turn = prop::option::of(("[a-z ]{1,20}", "[a-z ]{1,20}"));
    (shown, "[ a-z]{0,10}", "[ a-zA-Z.]{0,40}", turn, 0usize..7).prop_map(
        |(shown, text, suffix, turn, max_tokens)| {
            let prefix = Prefix { picture: shown.map(picture), text: text.as_str().into() };
            let mut prompt = Prompt::new(prefix, suffix);
            prompt.turns.extend(turn.map(|(assistant, user)| Reply { assistant, user }));
            CompletionRequest { prompt, max_tokens }
        },
    )
}

fn alone(request: &CompletionRequest) -> Completion {
    load().complete(std::slice::from_ref(request), &Call::default()).unwrap().remove(0)
}

proptest! {
    // A fixed seed: of two tokens that are equally likely to the last bit, a batch may choose the other one.
    #![proptest_config(ProptestConfig { cases: 12, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn answers_do_not_depend_on_those_beside_them(
        requests in prop::collection::vec((request(), 0usize..4, prop::option::weighted(0.2, 0usize..4)), 1..8),
        narrow in any::<bool>(),
    ) {
        let model = if narrow { load().with_limits(tight()) } else { load() };
        let mut decoding = model.decoding();
        // Each waits some steps before it joins; some leave some steps later.
        let mut waiting: Vec<(usize, usize)> = requests.iter().enumerate().map(|(i, (_, wait, _))| (i, *wait)).collect();
        let mut places: BTreeMap<AnswerId, (usize, Option<usize>)> = BTreeMap::new();
        let mut answers: BTreeMap<usize, Completion> = BTreeMap::new();
        let mut left = 0;
        while !waiting.is_empty() || !decoding.is_empty() {
            let due: Vec<usize> = waiting.iter().filter(|(_, wait)| *wait == 0).map(|(i, _)| *i).collect();
            waiting.retain(|(_, wait)| *wait > 0);
            waiting.iter_mut().for_each(|(_, wait)| *wait -= 1);
            let asked: Vec<&CompletionRequest> = due.iter().map(|&i| &requests[i].0).collect();
            for (index, joined) in due.iter().zip(decoding.join(&asked, &Call::default())) {
                let id = joined.unwrap().expect("there is room for a few answers");
                prop_assert!(places.insert(id, (*index, requests[*index].2)).is_none());
            }
            for (id, completion) in decoding.step().unwrap() {
                let (index, _) = places.remove(&id).expect("an answer that is in the making");
                answers.insert(index, completion.unwrap());
            }
            let leaving: Vec<AnswerId> =
                places.iter().filter(|(_, (_, leave))| *leave == Some(0)).map(|(id, _)| *id).collect();
            for id in leaving {
                decoding.leave(id);
                places.remove(&id);
                left += 1;
            }
            places.values_mut().for_each(|(_, leave)| *leave = leave.map(|leave| leave.saturating_sub(1)));
            prop_assert_eq!(decoding.len(), places.len());
        }
        prop_assert_eq!(answers.len() + left, requests.len());
        for (index, answer) in answers {
            prop_assert_eq!(answer, alone(&requests[index].0));
        }
    }

    #[test]
    fn later_turns_and_tight_bounds_change_no_score(requests in prop::collection::vec(request(), 1..7)) {
        let prompts: Vec<Prompt> = requests.into_iter().map(|request| request.prompt).collect();
        let call = Call::default();
        let (wide, narrow) = (load(), load().with_limits(tight()));
        for _ in 0..2 {
            let together = wide.score(&prompts, &call).unwrap();
            let in_pieces = narrow.score(&prompts, &call).unwrap();
            for (index, prompt) in prompts.iter().enumerate() {
                let alone = load().score(std::slice::from_ref(prompt), &call).unwrap()[0];
                for found in [together[index], in_pieces[index]] {
                    prop_assert!((found.yes - alone.yes).abs() < 1e-4 && (found.no - alone.no).abs() < 1e-4);
                }
            }
        }
    }
}

fn ask(text: &str, max_tokens: usize) -> CompletionRequest {
    let prefix = Prefix { picture: Some(picture("wide")), text: "Look. ".into() };
    CompletionRequest { prompt: Prompt::new(prefix, text), max_tokens }
}

#[test]
fn a_full_batch_lets_others_wait_and_answers_them_all_the_same() {
    let requests: Vec<CompletionRequest> = (3..9).map(|n| ask(&"a cat. ".repeat(n), n)).collect();
    let one = load().with_limits(Limits { decoding_bytes: 1, ..Limits::of(&Device::Cpu) });
    {
        let mut decoding = one.decoding();
        let asked: Vec<&CompletionRequest> = requests.iter().collect();
        let joined: Vec<bool> =
            decoding.join(&asked, &Call::default()).into_iter().map(|id| id.unwrap().is_some()).collect();
        assert_eq!(joined, [true, false, false, false, false, false]);
        assert!(decoding.join(&asked[1..2], &Call::default()).remove(0).unwrap().is_none());
    }
    let answers = one.complete(&requests, &Call::default()).unwrap();
    assert_eq!(answers, load().complete(&requests, &Call::default()).unwrap());
    assert_eq!(answers.len(), requests.len());
}

#[test]
fn a_request_that_cannot_be_served_does_not_disturb_the_others() {
    let model = load();
    let mut decoding = model.decoding();
    let (good, long) = (ask("a cat.", 3), ask("a cat.", usize::MAX));
    let mut joined = decoding.join(&[&good, &long, &good], &Call::default());
    assert_eq!(joined.remove(1).unwrap_err().kind(), PerceptionErrorKind::Request);
    let ids: Vec<AnswerId> = joined.into_iter().map(|id| id.unwrap().unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    assert!(decoding.step().unwrap().is_empty() && decoding.len() == 2);
    let ended = decoding.step().unwrap();
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|(id, _)| ids.contains(id)) && decoding.is_empty());
    let expected = alone(&good);
    assert!(ended.into_iter().all(|(_, completion)| completion.unwrap() == expected));
    assert_eq!((expected.tokens, expected.finish), (3, FinishReason::Length));
}

#[test]
fn nobody_computes_for_a_caller_who_has_gone() {
    let model = load();
    let call = Call::default();
    call.cancel();
    let kind = |error: cluegate_perception::PerceptionError| error.kind();
    let gone = PerceptionErrorKind::Cancelled;
    assert_eq!(model.complete(&[ask("a cat.", 2)], &call).map_err(kind).unwrap_err(), gone);
    assert_eq!(model.score(&[ask("a cat.", 2).prompt], &call).map_err(kind).unwrap_err(), gone);
    let joined = model.decoding().join(&[&ask("a cat.", 2)], &call).remove(0);
    assert_eq!(joined.map_err(kind).unwrap_err(), gone);
}
