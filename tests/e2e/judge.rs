//! `cluegate judge` on good files: verdicts, exit codes, and every field of the contract.

use std::path::Path;

use serde_json::Value;

use crate::support::{Scenes, folder, judge, run};

/// The keys of an object, in their order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_has(value: &Value, expected: &[&str]) {
    let found = keys(value);
    for key in expected {
        assert!(found.contains(key), "no {key} in {found:?}");
    }
}

fn is_share(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number))
}

#[test]
fn a_safe_picture_is_safe_and_exits_with_0() {
    let (scenes, out) = (Scenes::new(), folder());
    let cat = scenes.save(&scenes.pair("cat", "tree", false), out.path(), "cat.png");
    let apart = scenes.save(&scenes.pair("man", "knife", false), out.path(), "apart.png");
    let judged = judge(&[], &[&cat, &apart]).expect(0);
    let lines = judged.lines();
    assert_eq!(lines.len(), 2);
    for (line, path) in lines.iter().zip([&cat, &apart]) {
        assert_eq!(line["image"], path.to_str().expect("a name"));
        assert_eq!(line["verdict"], "safe", "{line}");
        assert_eq!(line["violated"], serde_json::json!([]));
    }
    let text = run([Path::new("judge"), &cat]).expect(0);
    assert!(text.stdout.contains("cat.png: safe"), "{}", text.stdout);
}

#[test]
fn what_violates_a_rule_names_the_right_one_and_exits_with_1() {
    let (scenes, out) = (Scenes::new(), folder());
    let cases = [("man", "knife"), ("woman", "fire"), ("dog", "axe"), ("man", "cigarette"), ("girl", "wine")];
    let mut truths = Vec::new();
    let mut files = Vec::new();
    for (number, (subject, object)) in cases.into_iter().enumerate() {
        let scene = scenes.pair(subject, object, true);
        truths.push(scene.violations(&scenes.world));
        files.push(scenes.save(&scene, out.path(), &format!("{number}.png")));
    }
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let lines = judge(&[], &files).expect(1).lines();
    for (line, truth) in lines.iter().zip(truths) {
        assert_eq!(line["verdict"], "unsafe");
        assert_eq!(line["violated"], serde_json::json!(truth), "{}", line["image"]);
    }
    let text = run([Path::new("judge"), files[0]]).expect(1);
    assert!(text.stdout.contains("0.png: UNSAFE, violates armed"), "{}", text.stdout);
    assert!(text.stdout.contains("a person is holding a weapon"), "{}", text.stdout);
}

#[test]
fn every_field_of_the_contract_is_there() {
    let (scenes, out) = (Scenes::new(), folder());
    let armed = scenes.save(&scenes.pair("man", "knife", true), out.path(), "armed.png");
    let judged = judge(&[], &[&armed]).expect(1);
    let [line] = judged.lines().try_into().expect("one line");
    assert_has(&line, &["image", "verdict", "violated", "rules", "revision", "timings_ms", "passes"]);
    assert_eq!(keys(&line)[..4], ["image", "verdict", "violated", "rules"]);
    let revision = line["revision"].as_str().expect("a hash");
    assert!(revision.len() >= 16 && revision.chars().all(|c| c.is_ascii_hexdigit()), "{revision}");
    assert!(line["timings_ms"]["total"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(line["passes"]["statements"].as_u64().is_some_and(|passes| passes > 0));

    let rules = line["rules"].as_array().expect("rules");
    let ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().expect("an id")).collect();
    assert_eq!(ids, cluegate::mini::RULE_IDS);
    for rule in rules {
        assert_has(rule, &["id", "relevance", "outcome", "preconditions"]);
        assert!(rule["relevance"].as_f64().is_some_and(|cosine| (-1.0..=1.0).contains(&cosine)), "{rule}");
        let outcome = rule["outcome"].as_str().expect("an outcome");
        assert!(["irrelevant", "not_violated", "violated"].contains(&outcome), "{outcome}");
        assert_eq!(outcome == "violated", rule["id"] == "armed");
        for precondition in rule["preconditions"].as_array().expect("a chain") {
            assert_has(precondition, &["satisfied", "statements"]);
            let statements = precondition["statements"].as_array().expect("statements");
            assert!(!statements.is_empty());
            statements.iter().for_each(check_statement);
        }
    }

    let armed = rules.iter().find(|rule| rule["id"] == "armed").expect("the rule");
    let chain = armed["preconditions"].as_array().expect("a chain");
    assert!(chain.iter().all(|precondition| precondition["satisfied"] == true), "{armed}");
    let knife = &chain.last().expect("a last precondition")["statements"][0]["region"][0];
    assert_eq!(knife["word"], "weapon");
    let edge = |name: &str| knife[name].as_f64().expect("pixels");
    let (x, y) = ((edge("left") + edge("right")) / 2.0, (edge("top") + edge("bottom")) / 2.0);
    assert!((x - 136.0).abs() < 25.0 && (y - 112.0).abs() < 25.0, "the knife is not at {x}, {y}");
}

fn check_statement(statement: &Value) {
    assert_has(
        statement,
        &[
            "text",
            "score",
            "score_without_image",
            "alpha1",
            "alpha2",
            "region",
            "score_region_removed",
            "decided_by",
            "rationale",
        ],
    );
    let number = |key: &str| statement[key].as_f64().expect("a number");
    let prior = number("score_without_image");
    assert!(is_share(&statement["score_without_image"]), "{statement}");
    assert!((number("alpha1") + 0.3 * prior).abs() < 1e-9, "alpha1 = -0.3 M(None, c): {statement}");
    assert!(
        (number("alpha2") - 0.8 * (1.0 - prior)).abs() < 1e-9,
        "alpha2 = 0.8 (1 - M(None, c)): {statement}"
    );
    assert!(statement["score"].is_null() || is_share(&statement["score"]), "{statement}");
    let change = statement["score"].as_f64().map(|score| score - prior);
    match (statement["decided_by"].as_str().expect("a line"), change) {
        ("below_alpha1", Some(change)) => assert!(change < number("alpha1"), "{statement}"),
        ("above_alpha2", Some(change)) => assert!(change > number("alpha2"), "{statement}"),
        ("region", _) => assert!(is_share(&statement["score_region_removed"]), "{statement}"),
        ("reasoning", _) => assert!(statement["rationale"].is_string(), "{statement}"),
        ("not_needed", _) => assert!(statement["holds"].is_null(), "{statement}"),
        (other, _) => panic!("{other} decided {statement}"),
    }
}

#[test]
fn pictures_judged_together_and_one_by_one_come_out_the_same() {
    let (scenes, out) = (Scenes::new(), folder());
    let pairs = [("man", "gun", true), ("woman", "bed", true), ("boy", "beer", false)];
    let files = pairs.map(|(subject, object, touching)| {
        scenes.save(&scenes.pair(subject, object, touching), out.path(), &format!("{subject}.png"))
    });
    let together = judge(&[], &files.each_ref().map(AsRef::as_ref)).expect(1).lines();
    for (file, joint) in files.iter().zip(together) {
        let [mut alone] = judge(&[], &[file]).lines().try_into().expect("one line");
        let mut joint = joint;
        for line in [&mut alone, &mut joint] {
            line.as_object_mut().expect("an object").remove("timings_ms");
        }
        assert_eq!(alone, joint);
    }
}

#[test]
fn a_constitution_file_of_ones_own_judges() {
    let (scenes, out) = (Scenes::new(), folder());
    let file = out.path().join("pets.toml");
    let text = "name = \"no-cats\"\n[[rule]]\nid = \"no-cats\"\ntext = \"The image should not show a cat.\"\nobjectiveness = 10\nseverity = \"low\"\n\
                [[rule.precondition]]\nany = [{ statement = \"a cat is visible\", central = [\"cat\"] }]\n";
    std::fs::write(&file, text).expect("a file");
    let cat = scenes.save(&scenes.pair("cat", "tree", false), out.path(), "cat.png");
    let tree = scenes.save(&scenes.pair("man", "tree", false), out.path(), "man.png");
    let lines = judge(&["--constitution", file.to_str().expect("a name")], &[&cat, &tree]).expect(1).lines();
    assert_eq!(lines[0]["violated"], serde_json::json!(["no-cats"]));
    assert_eq!(lines[1]["verdict"], "safe");
}
