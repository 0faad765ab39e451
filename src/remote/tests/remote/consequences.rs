//! Consequence rules over an engine on another machine: the judge asks by the same trait.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_judge::fakes::{FakeDetector, FakeEncoder};
use cluegate_judge::{InspectOptions, Judge, JudgeOptions, Templates};
use serde_json::{Value, json};

use super::engine::{Engine, Kind, open};
use super::scores::picture;

fn rules(consequence: bool) -> Constitution {
    let text = format!(
        "name = \"t\"\n[[rule]]\nid = \"fall\"\ntext = \"t\"\nobjectiveness = 9\nseverity = \"low\"\n\
         consequence = {consequence}\n[[rule.precondition]]\nany = [{{ statement = \"a person is likely to fall\" }}]"
    );
    Constitution::parse(&text, "t.toml").unwrap()
}

/// The messages of each request, in the order in which they came.
fn asked(consequence: bool) -> Vec<Value> {
    let engine = Engine::start(Kind::TokenIds);
    let vlm = Arc::new(open(&[&engine]));
    let (encoder, detector) = (FakeEncoder::new(|_| 1.0), FakeDetector::new(|_, _| vec![]));
    let templates = Templates::shipped().unwrap();
    let judge = Judge::new(Arc::new(encoder), Arc::new(detector), vlm, templates, JudgeOptions::default());
    engine.script(|_| None);
    let prepared = judge.prepare(&rules(consequence)).unwrap();
    let prompt = Some("a ladder".into());
    let report = judge
        .inspect(&picture(1), &prepared, &InspectOptions { prompt, ..InspectOptions::default() })
        .unwrap();
    assert_eq!(report.rules()[0].projection.is_some(), consequence);
    let seen = engine.shared.seen.lock().unwrap();
    seen.iter().map(|(body, _)| body["messages"].clone()).collect()
}

#[test]
fn a_statement_is_sent_behind_the_projection() {
    let asked = asked(true);
    // Without a picture; the projection; behind it the statement. Reasoning may follow.
    let [prior, project, statement] = [0, 1, 2].map(|index| asked[index].as_array().unwrap());
    assert_eq!((prior.len(), project.len(), statement.len()), (3, 1, 3));
    assert!(prior[0]["content"].is_string(), "no picture");
    assert_eq!(
        prior[1],
        json!({"role": "assistant", "content": "I cannot tell what is likely to happen next."})
    );
    assert!(prior[0]["content"].as_str().unwrap().contains("made from: unknown."));
    assert_eq!(project[0], statement[0], "one picture and one question");
    assert_eq!(project[0]["content"][0]["type"], "image_url");
    assert!(project[0]["content"][1]["text"].as_str().unwrap().contains("made from: \"a ladder\"."));
    let answer = statement[1]["content"].as_str().unwrap();
    assert!(["Yes", "No"].contains(&answer), "what the engine answers to everything: {answer}");
    assert_eq!(statement[2], prior[2]);
    assert!(statement[2]["content"].as_str().unwrap().ends_with("Statement: a person is likely to fall."));
}

#[test]
fn another_rule_tells_the_engine_nothing_of_the_prompt() {
    let asked = asked(false);
    assert_eq!((asked[0].as_array().unwrap().len(), asked[1].as_array().unwrap().len()), (1, 1));
    assert!(asked.iter().all(|messages| !messages.to_string().contains("ladder")));
}
