//! The judge against Algorithm 1 taken literally, and the chain logic against its truth table.

use std::sync::Arc;

use cluegate_perception::{Picture, Region};
use proptest::prelude::*;

use super::literal::Literal;
use super::support::{LARGE, SMALL, Said, SaidChain, any_constitution, constitution, picture};
use crate::fakes::{self, FakeDetector, FakeEncoder, FakeVlm};
use crate::{InspectOptions, Judge, JudgeOptions, Outcome, Stages, Templates, Verdict};

/// Statements of several rules overlap, as in real constitutions; one text appears with two sets of words.
const POOL: [Said; 7] = [
    ("a person is there", &["person"]),
    ("an animal is there", &["animal"]),
    ("it burns", &["fire"]),
    ("it burns", &["fire", "person"]),
    ("it is night", &[]),
    ("it is small", &["mouse"]),
    ("they meet", &["person", "animal", "mouse"]),
];

fn chain(links: std::ops::Range<usize>) -> impl Strategy<Value = SaidChain> {
    prop::collection::vec(prop::collection::vec(prop::sample::select(&POOL[..]), 1..4), links)
}

fn rules() -> impl Strategy<Value = Vec<(SaidChain, SaidChain)>> {
    prop::collection::vec((chain(1..4), chain(0..3)), 1..5)
}

/// Rules of which some ask for a projection of consequences.
fn any_rules() -> impl Strategy<Value = Vec<(SaidChain, SaidChain, bool)>> {
    prop::collection::vec((chain(1..4), chain(0..3), prop::bool::weighted(0.4)), 1..5)
}

fn stages() -> impl Strategy<Value = Stages> {
    let one = prop::bool::weighted(0.85);
    [one, one, one, one, one, one, one].prop_map(
        |[relevance_scan, debias, no_image_comparison, region_comparison, reasoning, crop, views]| Stages {
            relevance_scan,
            debias,
            no_image_comparison,
            region_comparison,
            reasoning,
            crop,
            views,
        },
    )
}

/// A number below `limit` that depends on `seed` and `parts` only.
fn draw(seed: u64, parts: &[&[u8]], limit: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes) % limit
}

/// Scores in steps of a twentieth, so that thresholds are met from both sides and exactly.
fn score(seed: u64, kind: &str, seen: Option<&Picture>, statement: &str) -> f64 {
    let hash = seen.map(|picture| picture.hash());
    let picture = hash.as_ref().map_or(&[][..], |hash| &hash.as_bytes()[..]);
    let twentieths = draw(seed, &[kind.as_bytes(), picture, statement.as_bytes()], 21);
    twentieths as f64 / 20.0
}

fn boxes(seed: u64, word: &str) -> Vec<(f32, Region)> {
    let word = word.as_bytes();
    let region = |salt: &[u8]| {
        let left = draw(seed, &[word, salt, b"left"], 30) as f32;
        let top = draw(seed, &[word, salt, b"top"], 20) as f32;
        let size = [2.0, 3.0, 9.5][draw(seed, &[word, salt, b"size"], 3) as usize];
        Region { left, top, right: left + size, bottom: top + size }
    };
    match draw(seed, &[word, b"found"], 6) {
        0 => vec![],
        1 => vec![(0.05, LARGE), (0.03, SMALL)],
        2 => vec![(0.06, region(b"a"))],
        3 => vec![(0.9, SMALL)],
        4 => vec![(0.4, region(b"a")), (0.7, region(b"b")), (0.04, LARGE)],
        _ => vec![(0.9, LARGE)],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn batched_and_literal_give_the_same_evidence(
        rules in any_rules(), stages in stages(), seed in any::<u64>(), eager in any::<bool>(),
        prompt in prop::option::of("[a-z ]{0,9}"),
    ) {
        // Small objects need a threshold that the boxes fall under and over.
        let constitution = any_constitution(&rules, if eager { "beta = 0.2\nalpha2 = 0.9" } else { "" });
        let templates = Templates::shipped().expect("templates");
        let encoder = Arc::new(FakeEncoder::new(move |text| {
            [0.1, 0.3, 0.9][draw(seed, &[text.as_bytes()], 3) as usize]
        }));
        let detector = Arc::new(FakeDetector::new(move |_, word| boxes(seed, word)));
        let vlm = FakeVlm::new(templates.clone(), move |seen, text| score(seed, "score", seen, text))
            .rating(move |seen, text| score(seed, "rating", seen, text))
            .projecting(
                move |seen, asked| format!("{} ", score(seed, asked, Some(seen), "what follows")),
                move |seen, projection, text| score(seed, projection, seen, text),
            );
        let vlm = Arc::new(vlm);
        let judge = Judge::new(
            encoder.clone(), detector.clone(), vlm.clone(), templates.clone(), JudgeOptions::default(),
        );
        let picture = picture();
        let prepared = judge.prepare(&constitution).expect("prepared");
        let options = InspectOptions {
            stages, prompt: prompt.as_deref().map(Arc::from), ..InspectOptions::default()
        };
        let report = judge.inspect(&picture, &prepared, &options).expect("a report");
        prop_assert!(detector.calls() <= 1, "the detector is asked once");
        let literal = Literal {
            encoder: encoder.as_ref(),
            detector: detector.as_ref(),
            vlm: vlm.as_ref(),
            templates: &templates,
            constitution: &constitution,
            picture: &picture,
            stages,
            prompt: prompt.as_deref(),
        };
        let expected = literal.rules();
        prop_assert_eq!(report.rules(), &expected[..]);
        let violated: Vec<&str> = expected
            .iter()
            .filter(|rule| rule.outcome == Outcome::Violated)
            .map(|rule| rule.id.as_str())
            .collect();
        prop_assert_eq!(report.violated(), &violated[..]);
        prop_assert_eq!(report.verdict() == Verdict::Safe, violated.is_empty());
        prop_assert_eq!(report.complete().is_some(), stages == Stages::ALL);
    }

    /// Where every statement is plainly true or false, a rule is violated exactly if its formula says so.
    #[test]
    fn chain_logic_is_the_truth_table(rules in rules(), truths in any::<u8>()) {
        let true_of = move |statement: &str| {
            let at = POOL.iter().position(|(text, _)| *text == statement).expect("in the pool");
            truths >> at & 1 == 1
        };
        let judge = fakes::judge(move |seen, statement| match seen {
            None => 0.5,
            Some(_) => f64::from(u8::from(true_of(statement))),
        })
        .expect("a judge");
        let prepared = judge.prepare(&constitution(&rules, "")).expect("prepared");
        let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
        let holds = |chain: &SaidChain| chain.iter().all(|link| link.iter().any(|(text, _)| true_of(text)));
        for ((preconditions, unless), rule) in rules.iter().zip(report.rules()) {
            let expected = match (holds(preconditions), !unless.is_empty() && holds(unless)) {
                (false, _) => Outcome::NotViolated,
                (true, false) => Outcome::Violated,
                (true, true) => Outcome::Excepted,
            };
            prop_assert_eq!(rule.outcome, expected);
        }
        prop_assert_eq!(report.passes().cascades, 0);
    }
}
