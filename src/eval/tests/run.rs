//! Methods over a data set, with scripted models: what is said, what is kept, and what is counted.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluegate_constitution::Constitution;
use cluegate_eval::ablation::Ablation;
use cluegate_eval::data::{DataSet, Policy};
use cluegate_eval::methods::{
    AnswerForm, ClipPair, ClipRules, Clue, Constant, Guard, Knowledge, Method, MethodError, Questions,
    Subject, ZeroShot,
};
use cluegate_eval::metrics::{Bootstrap, NamedPolicy};
use cluegate_eval::outcome::Outcome;
use cluegate_eval::results::{RESULTS_FILE, Results};
use cluegate_eval::run::{Counting, MethodReport, chosen, report, run};
use cluegate_eval::scenes::{SceneOptions, SceneSet};
use cluegate_judge::fakes::{self, FakeEncoder};
use cluegate_judge::{Judge, Stages, Templates};
use cluegate_mini::{RULE_IDS, Style, World};
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, FinishReason, PerceptionError,
    PerceptionErrorKind, Picture, Prompt, VisionLanguageModel,
};

const POLICIES: [NamedPolicy; 1] = [NamedPolicy { name: "everything", rules: &RULE_IDS }];

fn pairs() -> SceneSet {
    SceneSet::pairs(World::load().unwrap(), SceneOptions { seed: 3, per_rule: 1, style: Style::World })
}

/// A model whose words and scores are scripted by what it is asked.
struct Scripted {
    fingerprint: Fingerprint,
    words: fn(&Prompt) -> &'static str,
    yes: fn(&Prompt) -> f64,
    calls: AtomicUsize,
    failing_call: usize,
}

impl Scripted {
    fn new(words: fn(&Prompt) -> &'static str, yes: fn(&Prompt) -> f64) -> Self {
        let calls = AtomicUsize::new(0);
        Self { fingerprint: "scripted".to_owned(), words, yes, calls, failing_call: usize::MAX }
    }

    fn count(&self) -> Result<(), PerceptionError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.failing_call {
            return Err(PerceptionError::new(PerceptionErrorKind::Backend, "out of memory"));
        }
        Ok(())
    }
}

impl VisionLanguageModel for Scripted {
    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn score(&self, prompts: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>, PerceptionError> {
        self.count()?;
        Ok(prompts.iter().map(|p| AnswerScore { yes: (self.yes)(p), no: 1.0 - (self.yes)(p) }).collect())
    }

    fn complete(&self, requests: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>, PerceptionError> {
        self.count()?;
        let answer = |request: &CompletionRequest| {
            let text = (self.words)(&request.prompt).to_owned();
            Completion { tokens: text.split(' ').count(), text, finish: FinishReason::Stop }
        };
        Ok(requests.iter().map(answer).collect())
    }
}

fn picture() -> Picture {
    pairs().picture(0).unwrap()
}

fn ask(method: &dyn Method, policy: Option<&Policy>) -> Result<Outcome, MethodError> {
    method.judge(&Subject { picture: &picture(), policy }, &Call::default())
}

fn whole(method: &dyn Method, set: &dyn DataSet, results: &mut Results) -> MethodReport {
    let rows = chosen(set, None);
    let done = run(set, &rows, method, results, || {}).unwrap();
    let counting = Counting { rules: set.rules(), policies: &POLICIES, bootstrap: Bootstrap::default() };
    report(set, &rows, method, (&done, results), counting)
}

#[test]
fn the_baselines_ask_what_the_judge_was_trained_on() {
    let (questions, templates) = (Questions::shipped().unwrap(), Templates::shipped().unwrap());
    let scene = Constitution::shipped("scene").unwrap();
    let model: Arc<dyn VisionLanguageModel> = Arc::new(Scripted::new(
        |prompt| {
            let first = &prompt.prefix.text;
            assert!(prompt.prefix.picture.is_some() && prompt.suffix.is_empty() && prompt.turns.is_empty());
            assert!(first.ends_with("Think step by step."), "{first}");
            "I see a knife."
        },
        |prompt| {
            let whole = prompt.prefix.text.starts_with("Here are rules:\n- on-fire: The image should not");
            match prompt.turns.as_slice() {
                [] => assert!(prompt.prefix.text.ends_with("Answer \"Yes\" or \"No\".")),
                [turn] => {
                    assert_eq!(
                        (turn.assistant.as_str(), prompt.answer_start.as_str()),
                        ("I see a knife.", "{\"rating\": \"")
                    );
                    assert!(turn.user.starts_with("Sum up your answer as JSON"));
                }
                _ => unreachable!(),
            }
            if whole { 0.75 } else { 0.25 }
        },
    ));
    for (knowledge, thought, name, flagged, passes) in [
        (Knowledge::Prior, false, "prior-direct", false, 1),
        (Knowledge::Prior, true, "prior-thought", false, 5),
        (Knowledge::Whole(&scene), false, "whole-direct", true, 1),
        (Knowledge::Whole(&scene), true, "whole-thought", true, 5),
    ] {
        let method = ZeroShot::new(Arc::clone(&model), &questions, &templates, knowledge, thought);
        assert_eq!(method.name(), name);
        let Outcome::Judged(judgment) = ask(&method, None).unwrap() else { unreachable!() };
        assert_eq!((judgment.flagged, judgment.passes, judgment.violated), (flagged, passes, None));
    }
}

#[test]
fn a_guard_goes_by_the_rows_policy_or_by_the_rules() {
    let questions = Questions::shipped().unwrap();
    let scene = Constitution::shipped("scene").unwrap();
    let model: Arc<dyn VisionLanguageModel> = Arc::new(Scripted::new(
        |prompt| match prompt.prefix.text.as_ref() {
            "As published." => "It is fine, I think.",
            text if text.contains("\nNo cats.\n") => {
                r#"{"rating": "Safe", "category": "none", "rationale": "x"}"#
            }
            text if text.contains("- armed: ") => {
                r#"{"rating": "Unsafe", "category": "armed: ...", "rationale": "x"}"#
            }
            _ => unreachable!(),
        },
        |_| unreachable!(),
    ));
    let guard = Guard::new(Arc::clone(&model), &questions, AnswerForm::Json, Some(&scene));
    let judged = |policy: Option<&Policy>| match ask(&guard, policy).unwrap() {
        Outcome::Judged(judgment) => (judgment.flagged, judgment.violated),
        Outcome::Unparseable(words) => panic!("{words}"),
    };
    assert_eq!(judged(None), (true, Some(vec!["armed".to_owned()])));
    assert_eq!(judged(Some(&Policy::Text("No cats.".to_owned()))), (false, None));
    let published = Policy::Question("As published.".to_owned());
    let words = "It is fine, I think.".to_owned();
    assert_eq!(ask(&guard, Some(&published)).unwrap(), Outcome::Unparseable(words));
    let alone = Guard::new(model, &questions, AnswerForm::Word, None);
    assert!(matches!(ask(&alone, None), Err(MethodError::NoPolicy { .. })));
}

#[test]
fn a_dual_encoder_compares_with_two_texts_or_with_every_rule() {
    let scene = Constitution::shipped("scene").unwrap();
    let near =
        |text: &str| if text.contains("not appropriate") || text.contains("weapon") { 0.3 } else { 0.1 };
    let encoder = Arc::new(FakeEncoder::new(near));
    let Outcome::Judged(pair) = ask(&ClipPair::new(encoder.clone()).unwrap(), None).unwrap() else {
        unreachable!()
    };
    assert!(pair.flagged && pair.score.unwrap() > 0.999);
    let rules = ClipRules::new(encoder, &scene).unwrap();
    let Outcome::Judged(rules) = ask(&rules, None).unwrap() else { unreachable!() };
    assert_eq!(rules.violated.unwrap(), ["armed", "armed-animal"]);
}

/// A judge that finds every statement true of the pictures that `is_unsafe` names, and none of the others.
fn judge_of(set: &SceneSet) -> Arc<Judge> {
    let unsafe_pictures: Vec<_> = (0..set.rows().len())
        .filter(|index| set.rows()[*index].truth.is_unsafe())
        .map(|index| set.picture(index).unwrap().hash())
        .collect();
    let score = move |picture: Option<&Picture>, _: &str| match picture {
        None => 0.5,
        Some(picture) => f64::from(u8::from(unsafe_pictures.contains(&picture.hash()))),
    };
    Arc::new(fakes::judge(score).unwrap())
}

#[test]
fn the_method_and_its_ablations_differ_in_revision_and_cost() {
    let set = pairs();
    let judge = judge_of(&set);
    let scene = Constitution::shipped("scene").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path()).unwrap();
    let clue = Clue::new("clue", Arc::clone(&judge), judge.prepare(&scene).unwrap(), Stages::ALL);
    let report = whole(&clue, &set, &mut results);
    assert_eq!(report.measures.image_level.f1, Some(1.0));
    // Every statement holds of an unsafe picture, and so every rule is named.
    assert_eq!(report.measures.rule_level.as_ref().unwrap().recall, Some(1.0));
    assert!(report.measures.rule_level.as_ref().unwrap().precision.unwrap() < 0.5);
    assert_eq!(report.measures.pairs.as_ref().unwrap().by_policy["everything"], 1.0);
    assert_eq!(report.measures.scan.as_ref().unwrap().filtered, 0.0);
    let mut revisions = vec![clue.revision().to_owned()];
    for ablation in Ablation::ALL.into_iter().filter(|ablation| !ablation.asks_whole_rules()) {
        let prepared = judge.prepare(&scene).unwrap();
        let method = Clue::new(ablation.as_str(), Arc::clone(&judge), prepared, ablation.stages());
        assert!(!revisions.contains(&method.revision().to_owned()), "{}", method.name());
        revisions.push(method.revision().to_owned());
        let without = whole(&method, &set, &mut results).measures;
        assert_eq!(without.failed, 0);
        assert_eq!(without.scan.is_none(), ablation == Ablation::RelevanceScan);
    }
}

#[test]
fn a_run_goes_on_where_it_was_killed_and_ends_with_the_same_bytes() {
    let set = pairs();
    let questions = Questions::shipped().unwrap();
    let templates = Templates::shipped().unwrap();
    let method = |failing_call| {
        let yes = |prompt: &Prompt| {
            let hash = prompt.prefix.picture.as_ref().unwrap().hash();
            f64::from(hash.as_bytes()[0]) / 255.0
        };
        let model = Arc::new(Scripted { failing_call, ..Scripted::new(|_| unreachable!(), yes) });
        let shared: Arc<dyn VisionLanguageModel> = model.clone();
        (ZeroShot::new(shared, &questions, &templates, Knowledge::Prior, false), model)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RESULTS_FILE);
    let (straight, model) = method(usize::MAX);
    let expected = whole(&straight, &set, &mut Results::open(folder.path()).unwrap());
    assert_eq!(model.calls.load(Ordering::Relaxed), set.rows().len());
    let bytes = fs::read(&path).unwrap();

    // Killed in the middle of a line.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes.len() as u64 / 2).unwrap();
    let (resumed, model) = method(usize::MAX);
    assert_eq!(whole(&resumed, &set, &mut Results::open(folder.path()).unwrap()), expected);
    assert!((1..set.rows().len()).contains(&model.calls.load(Ordering::Relaxed)));
    assert_eq!(fs::read(&path).unwrap(), bytes);

    // Complete: nothing is asked and nothing is written.
    let (complete, model) = method(0);
    assert_eq!(whole(&complete, &set, &mut Results::open(folder.path()).unwrap()), expected);
    assert_eq!((model.calls.load(Ordering::Relaxed), fs::read(&path).unwrap()), (0, bytes));
}

#[test]
fn a_failure_counts_as_wrong_and_is_tried_again() {
    let set = pairs();
    let model = Scripted { failing_call: 0, ..Scripted::new(|_| "safe", |_| unreachable!()) };
    let scene = Constitution::shipped("scene").unwrap();
    let guard = Guard::new(Arc::new(model), &Questions::shipped().unwrap(), AnswerForm::Word, Some(&scene));
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path()).unwrap();
    let first = whole(&guard, &set, &mut results);
    assert_eq!(first.measures.failed, 1);
    assert_eq!(first.failures.len(), 1);
    assert!(first.failures[0].ends_with("out of memory"), "{:?}", first.failures);
    let second = whole(&guard, &set, &mut results);
    assert_eq!((second.measures.failed, second.measures.image_level.accuracy), (0, Some(0.5)));
}

#[test]
fn always_the_same_is_what_the_base_rate_makes_of_it() {
    let set = pairs();
    let folder = tempfile::tempdir().unwrap();
    let mut results = Results::open(folder.path()).unwrap();
    let never = whole(&Constant::new(false), &set, &mut results).measures;
    assert_eq!((never.image_level.f1, never.image_level.accuracy), (Some(0.0), Some(0.5)));
    assert_eq!(never.pairs.unwrap().accuracy, Some(0.0));
    let always = whole(&Constant::new(true), &set, &mut results).measures;
    assert_eq!((always.image_level.recall, always.rule_level), (Some(1.0), None));
    assert_eq!(chosen(&set, Some(3)), [0, 8, 16]);
}
