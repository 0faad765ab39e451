//! The report as it is written.

use super::support::{LARGE, Script, constitution, picture};
use crate::fakes::{FakeDetector, FakeEncoder, FakeVlm, assemble};
use crate::{InspectOptions, Report, Stages, Templates};

/// A report with an irrelevant rule, a violated one that took every line, an excepted one and a broken chain.
fn report() -> Report {
    let person = ("a person is visible", &["person"][..]);
    let fire = ("the body of a person is on fire", &["fire"][..]);
    let constitution = constitution(
        &[
            (vec![vec![person]], vec![]),
            (vec![vec![person], vec![fire, ("the hair burns", &["hair"][..])]], vec![]),
            (vec![vec![person]], vec![vec![("it is a drawing", &[][..])]]),
            (vec![vec![("an animal is visible", &["animal"][..])], vec![fire]], vec![]),
        ],
        "",
    );
    let encoder = FakeEncoder::new(|text| if text == "text of r0" { 0.125 } else { 0.5 });
    let detector = FakeDetector::new(|_, word| if word == "fire" { vec![(0.75, LARGE)] } else { vec![] });
    let whole = picture().hash();
    let vlm = FakeVlm::new(Templates::shipped().expect("shipped templates"), move |seen, text| {
        match (seen.map(|seen| seen.hash() == whole), text) {
            (None, _) => 0.25,
            (_, "a person is visible") => 1.0,
            (_, "it is a drawing") => 0.5,
            (_, "an animal is visible") => 0.125,
            (Some(false), _) => 0.375,
            (Some(true), _) => 0.5,
        }
    })
    .rating(|_, text| if text == "the hair burns" || text == "it is a drawing" { 0.875 } else { 0.25 });
    let judge = assemble(encoder, detector, vlm);
    let prepared = judge.prepare(&constitution).expect("prepared");
    let options = InspectOptions { rationale: true, ..InspectOptions::default() };
    judge.inspect(&picture(), &prepared, &options).expect("a report")
}

#[test]
fn evidence_is_written_as_json() {
    let mut json = serde_json::to_value(report()).expect("JSON");
    assert!(json["timings_ms"]["total"].as_f64().is_some_and(|total| total > 0.0));
    // Time differs from run to run; everything else is fixed.
    for value in json["timings_ms"].as_object_mut().expect("an object").values_mut() {
        *value = serde_json::Value::from("ms");
    }
    insta::assert_json_snapshot!(json);
}

/// The keys that the command line promises for `judge --format jsonl`.
#[test]
fn the_contract_of_the_command_line_is_kept() {
    let json = serde_json::to_value(report()).expect("JSON");
    for key in ["verdict", "violated", "rules", "revision", "timings_ms", "passes"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["verdict"], "unsafe");
    assert_eq!(json["violated"], serde_json::json!(["r1"]));
    let rule = &json["rules"][1];
    for key in ["id", "relevance", "outcome", "preconditions"] {
        assert!(rule.get(key).is_some(), "{key}");
    }
    let precondition = &rule["preconditions"][1];
    assert_eq!(precondition["satisfied"], true);
    let statement = &precondition["statements"][0];
    for key in [
        "text",
        "score",
        "score_without_image",
        "alpha1",
        "alpha2",
        "region",
        "score_region_removed",
        "decided_by",
        "rationale",
    ] {
        assert!(statement.get(key).is_some(), "{key}");
    }
    assert_eq!(statement["region"][0]["word"], "fire");
}

#[test]
fn evidence_can_be_read_back() {
    let report = report();
    let json = serde_json::to_string(report.rules()).expect("JSON");
    let back: Vec<crate::RuleEvidence> = serde_json::from_str(&json).expect("evidence");
    assert_eq!(back, report.rules());
}

#[test]
fn boxes_to_redact_are_those_of_violated_rules() {
    let script = Script { whole: 1.0, boxes: vec![(0.9, LARGE), (0.8, LARGE)], ..Script::default() };
    let violated = script.report(Stages::ALL);
    let regions: Vec<(&str, f32)> =
        violated.violated_regions().map(|(rule, found)| (rule, found.confidence)).collect();
    assert_eq!(regions, [("r0", 0.9)]);
    let safe = Script { whole: 0.0, ..script }.report(Stages::ALL);
    assert_eq!(safe.violated_regions().count(), 0);
}
