//! The prompts, and how they are batched.

use std::sync::{Arc, Mutex};

use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, Prompt, Result, VisionLanguageModel,
};
use proptest::prelude::*;

use super::support::{LARGE, Script, constitution, picture};
use crate::fakes::{FakeDetector, FakeEncoder, FakeVlm};
use crate::{InspectOptions, Judge, JudgeOptions, TemplateError, Templates};

fn parse(statement: &str) -> std::result::Result<Templates, TemplateError> {
    Templates::parse(statement, "Think. {{ statement }}", "Rate.")
}

fn whole(templates: &Templates, statement: &str) -> String {
    format!("{}{}", templates.statement_prefix(None).text, templates.statement_suffix(statement))
}

#[test]
fn shipped_prompts_read_as_their_files() {
    let templates = Templates::shipped().expect("shipped templates");
    let file = include_str!("../../templates/statement.txt");
    assert_eq!(whole(&templates, "a dog is visible"), file.replace("{{ statement }}", "a dog is visible"));
    let file = include_str!("../../templates/reasoning.txt");
    let prefix = templates.reasoning_prefix(picture());
    let text = format!("{}{}", prefix.text, templates.reasoning_suffix("a dog is visible"));
    assert_eq!(text, file.replace("{{ statement }}", "a dog is visible"));
    assert_eq!(templates.rating("a dog"), include_str!("../../templates/rating.txt"));
}

#[test]
fn white_space_before_the_statement_goes_with_it() {
    let templates = parse("Is it so?  {{statement}}, or not?\n").expect("templates");
    assert_eq!(&*templates.statement_prefix(None).text, "Is it so?");
    assert_eq!(templates.statement_suffix("a cat"), "  a cat, or not?");
}

#[test]
fn other_template_syntax_is_refused() {
    let placeholder = |text| matches!(parse(text), Err(TemplateError::Placeholder { .. }));
    assert!(placeholder("Is it so?"));
    assert!(placeholder("{{ statement }} and {{ statement }}"));
    for text in [
        "{{ statment }}",
        "{{ statement | upper }}",
        "{% if x %}{{ statement }}{% endif %}",
        "{# note #}{{ statement }}",
        "{{ statement }} }}",
        "{{ statements }}",
    ] {
        let error = parse(text).expect_err(text);
        assert!(matches!(error, TemplateError::Syntax { .. }), "{error}");
    }
    assert!(matches!(parse(" \n"), Err(TemplateError::Blank { .. })));
    let error = Templates::parse("{{ statement }}?", "Think.", "Rate.").expect_err("no variable");
    assert!(
        error.to_string().contains("reasoning.txt: expected {{ statement }} once, got it 0 times"),
        "{error}"
    );
    assert!(Templates::parse("{{ statement }}?", "{{ statement }}!", "Rate {{ statement }}.").is_ok());
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text, message) in [
        (
            "consequences.txt",
            "{{ prompt }} and {{ prompt }}",
            "expected {{ prompt }} at most once, got it 2 times",
        ),
        ("consequences.txt", "What of {{ statement }}?", "no other template syntax than {{ prompt }}"),
        ("consequences-statement.txt", "Is it so?", "expected {{ statement }} once, got it 0 times"),
        ("consequences-reasoning.txt", "Think.", "expected {{ statement }} once, got it 0 times"),
        ("consequences-neutral.txt", "{{ prompt }} is unknown.", "expected no template syntax"),
        ("consequences-neutral.txt", " ", "got a blank file"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("written");
        let error = Templates::load(folder.path()).expect_err(text);
        assert!(error.to_string().starts_with(&format!("template {name}: ")), "{error}");
        assert!(error.to_string().contains(message), "{error}");
        std::fs::remove_file(folder.path().join(name)).expect("removed");
    }
}

#[test]
fn a_folder_overrides_single_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = Templates::shipped().expect("shipped templates");
    assert_eq!(Templates::load(folder.path()).expect("an empty folder"), shipped);
    std::fs::write(folder.path().join("rating.txt"), "Rate it.\n").expect("written");
    let templates = Templates::load(folder.path()).expect("templates");
    assert_eq!(templates.rating("x"), "Rate it.");
    assert_ne!(templates.hash(), shipped.hash());
    std::fs::write(folder.path().join("statement.txt"), [0xff, 0xfe]).expect("written");
    assert!(matches!(Templates::load(folder.path()), Err(TemplateError::Unreadable { .. })));
    assert!(Templates::load(&folder.path().join("absent")).is_err());
}

proptest! {
    #[test]
    fn whatever_a_statement_says_stays_data(statement in "[\\PC{}%# ]{0,40}") {
        let templates = parse("Say: {{ statement }}. Now?").expect("templates");
        prop_assert_eq!(whole(&templates, &statement), format!("Say: {statement}. Now?"));
    }

    #[test]
    fn arbitrary_templates_never_panic(text in "([{}%# a\n]|statement|\\PC){0,30}") {
        let _ = parse(&text);
    }
}

/// Keeps every batch that it is asked.
pub(super) struct Recorder {
    inner: Box<dyn VisionLanguageModel>,
    pub(super) scored: Mutex<Vec<Vec<Prompt>>>,
    pub(super) completed: Mutex<Vec<Vec<CompletionRequest>>>,
}

impl VisionLanguageModel for Recorder {
    fn fingerprint(&self) -> &Fingerprint {
        self.inner.fingerprint()
    }
    fn score(&self, prompts: &[Prompt], call: &Call) -> Result<Vec<AnswerScore>> {
        self.scored.lock().expect("lock").push(prompts.to_vec());
        self.inner.score(prompts, call)
    }
    fn complete(&self, requests: &[CompletionRequest], call: &Call) -> Result<Vec<Completion>> {
        self.completed.lock().expect("lock").push(requests.to_vec());
        self.inner.complete(requests, call)
    }
}

fn recorded(script: &Script) -> (Judge, Arc<Recorder>) {
    recording(script.vlm(), script)
}

/// A judge over `vlm`, of which every batch is kept, and the boxes of `script`.
pub(super) fn recording(vlm: FakeVlm, script: &Script) -> (Judge, Arc<Recorder>) {
    let vlm =
        Arc::new(Recorder { inner: Box::new(vlm), scored: Mutex::default(), completed: Mutex::default() });
    let boxes = script.boxes.clone();
    let templates = Templates::shipped().expect("shipped templates");
    let encoder = Arc::new(FakeEncoder::new(|_| 1.0));
    let detector = Arc::new(FakeDetector::new(move |_, _| boxes.clone()));
    (Judge::new(encoder, detector, vlm.clone(), templates, JudgeOptions::default()), vlm)
}

#[test]
fn every_first_question_of_every_rule_goes_into_one_batch_once() {
    let person = ("a person is visible", &["person"][..]);
    let rule = |last| (vec![vec![person], vec![(last, &["thing"][..])]], vec![vec![("toy", &[][..])]]);
    let constitution = constitution(&[rule("armed"), rule("on fire"), rule("asleep")], "");
    let (judge, vlm) = recorded(&Script { whole: 0.0, ..Script::default() });
    let prepared = judge.prepare(&constitution).expect("prepared");
    assert_eq!(vlm.scored.lock().expect("lock")[0].len(), 5, "each statement once without a picture");
    judge.prepare(&constitution).expect("prepared");
    assert_eq!(vlm.scored.lock().expect("lock").len(), 1, "priors are remembered");
    assert_eq!(prepared.score_without_image("toy"), Some(0.5));
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let scored = vlm.scored.lock().expect("lock");
    assert_eq!(scored.len(), 2);
    assert_eq!(scored[1].len(), 4, "shared statements once, exceptions not before they matter");
    assert!(scored[1].iter().all(|p| p.prefix.picture.as_ref().map(|x| x.hash()) == Some(picture().hash())));
    assert_eq!(report.passes().stages.statements, 4);
    assert_eq!(report.passes().stages.detection, 1);
}

#[test]
fn undecided_rules_share_rounds_and_the_cascade_is_two_turns() {
    let rule = |text| (vec![vec![(text, &["thing"][..])]], vec![]);
    let constitution = constitution(&[rule("one"), rule("two"), rule("one")], "");
    let script = Script { boxes: vec![(0.9, LARGE)], ..Script::default() };
    let (judge, vlm) = recorded(&script);
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let scored = vlm.scored.lock().expect("lock");
    let sizes: Vec<usize> = scored.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 2, 2], "without a picture, with it, without the region, rating");
    let completed = vlm.completed.lock().expect("lock");
    assert_eq!((completed.len(), completed[0].len()), (1, 2));
    assert_eq!(report.passes().cascades, 2);
    let first = &completed[0][0].prompt;
    assert!(first.turns.is_empty() && first.answer_start.is_empty());
    let second = &scored[3][0];
    assert_eq!(second.answer_start, "{\"rating\": \"");
    assert_eq!(second.turns.len(), 1);
    assert_eq!(second.turns[0].assistant, "I look at the picture part by part.");
    assert_eq!(second.turns[0].user, include_str!("../../templates/rating.txt"));
    assert_eq!(second.suffix, first.suffix);
}
