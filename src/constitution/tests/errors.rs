//! Each way in which a constitution can be wrong has its own error, with the line and what to do.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic)]

use cluegate_constitution::{Constitution, ConstitutionError, Problem};

/// A correct file, to be broken in one place. Line 1 is the name.
const GOOD: &str = r#"name = "test"
description = "For tests."

[thresholds]
alpha1 = 0.3

[[rule]]
id = "armed"
text = "No weapons."
objectiveness = 9
severity = "high"
[[rule.precondition]]
any = [
  { statement = "a person is visible", central = ["person"] },
]
[[rule.unless]]
any = [{ statement = "the weapon is a toy", central = ["toy"] }]
"#;

fn broken(from: &str, to: &str) -> ConstitutionError {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    let text = GOOD.replacen(from, to, 1);
    Constitution::parse(&text, "my.toml").expect_err("the broken file was accepted")
}

/// Breaks the file and checks the line, the variant by its `Debug` name, and parts of the message.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, variant: &str, parts: &[&str]) {
    let error = broken(from, to);
    let message = error.to_string();
    assert_eq!(error.line(), Some(line), "{message}");
    assert!(format!("{:?}", error.problem()).starts_with(variant), "{:?}", error.problem());
    assert!(message.starts_with(&format!("my.toml:{line}: ")), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn the_unbroken_file_is_accepted() {
    let constitution = Constitution::parse(GOOD, "my.toml").expect("accepted");
    assert_eq!(constitution.name(), "test");
    assert_eq!(constitution.rules().len(), 1);
    assert_eq!(constitution.rules()[0].unless[0].any[0].text, "the weapon is a toy");
    assert!((constitution.thresholds().alpha2 - 0.8).abs() < f64::EPSILON);
}

#[test]
fn unknown_keys_name_the_nearest_known_one_at_every_depth() {
    let key = "UnknownKey";
    refused("description =", "descripton =", 2, key, &["`descripton`", "did you mean `description`?"]);
    refused("alpha1 =", "aplha1 =", 5, key, &["[thresholds]", "did you mean `alpha1`?"]);
    refused("objectiveness =", "objectivness =", 10, key, &["a rule", "did you mean `objectiveness`?"]);
    refused("any = [\n", "all = [\n", 13, key, &["a precondition", "known keys here: any"]);
    refused("central = [\"person\"]", "centre = [\"person\"]", 14, key, &["did you mean `central`?"]);
    refused("central = [\"toy\"]", "zzz = 1", 17, key, &["known keys here: statement, central"]);
    refused(
        "severity = \"high\"",
        "severity = \"high\"\nconsequences = true",
        12,
        key,
        &["mean `consequence`?"],
    );
}

#[test]
fn text_that_is_not_toml_or_of_the_wrong_type_has_line_and_column() {
    refused("objectiveness = 9", "objectiveness = ", 10, "Toml", &["column"]);
    refused("objectiveness = 9", "objectiveness = \"nine\"", 10, "Toml", &["integer", "column 17"]);
    refused("name = \"test\"", "name = 7", 1, "Toml", &["string"]);
    refused("id = \"armed\"\n", "", 7, "Toml", &["missing field `id`"]);
    refused("severity = \"high\"\n", "", 7, "Toml", &["missing field `severity`"]);
    refused(
        "severity = \"high\"",
        "severity = \"high\"\nconsequence = 1",
        12,
        "Toml",
        &["boolean", "column 15"],
    );
    refused("any = [\n", "any = 3\nx = [", 14, "UnknownKey", &[]);
}

#[test]
fn a_constitution_without_rules_is_refused() {
    let error = Constitution::parse("name = \"empty\"\n", "e.toml").expect_err("accepted");
    assert_eq!(error.problem(), &Problem::NoRules);
    assert!(error.to_string().contains("would call every picture safe"));
    let error = Constitution::parse("", "e.toml").expect_err("accepted");
    assert!(error.to_string().contains("missing field `name`"), "{error}");
}

#[test]
fn ids_are_checked() {
    let id = "InvalidId";
    for bad in ["Armed", "", "-armed", "in bed", "armé", "a_b", &"a".repeat(65)] {
        refused("id = \"armed\"", &format!("id = \"{bad}\""), 8, id, &["a rule id", "rename it"]);
    }
    refused("name = \"test\"", "name = \"Te st\"", 1, id, &["a constitution name", "\"Te st\""]);
}

#[test]
fn duplicate_ids_name_both_places() {
    let second = GOOD.split_once("[[rule]]").expect("a rule").1;
    let text = format!("{GOOD}\n[[rule]]{second}");
    let error = Constitution::parse(&text, "my.toml").expect_err("accepted");
    assert_eq!(error.problem(), &Problem::DuplicateId { id: "armed".to_owned(), first_line: 8 });
    assert_eq!(error.line(), Some(20));
    assert!(error.to_string().contains("first at line 8"), "{error}");
}

#[test]
fn empty_chains_and_statements_are_refused() {
    let chain = "[[rule.precondition]]\nany = [\n  { statement = \"a person is visible\", central = [\"person\"] },\n]\n";
    refused(chain, "", 7, "EmptyChain", &["`armed`", "[[rule.precondition]]"]);
    let statement = "  { statement = \"a person is visible\", central = [\"person\"] },\n";
    refused(statement, "", 12, "EmptyPrecondition", &["`armed`", "precondition"]);
    refused("a person is visible", " \\t ", 14, "EmptyStatement", &["`armed`", "what must be visible"]);
    refused("the weapon is a toy", "", 17, "EmptyStatement", &["unless"]);
    refused("\"person\"", "\"person\", \" \"", 14, "EmptyCentralWord", &["a person is visible"]);
    refused("No weapons.", "  ", 9, "EmptyText", &["`armed`"]);
}

#[test]
fn severity_and_objectiveness_have_their_ranges() {
    refused("\"high\"", "\"High\"", 11, "UnknownSeverity", &["low, medium, high or critical", "\"High\""]);
    for bad in ["0", "11", "-3", "900000000000"] {
        let to = format!("objectiveness = {bad}");
        refused("objectiveness = 9", &to, 10, "Objectiveness", &["1 to 10", bad]);
    }
}

#[test]
fn thresholds_have_their_ranges() {
    for key in ["alpha1", "alpha2", "beta", "detection_confidence", "small_object_area"] {
        for bad in ["-0.1", "1.01", "nan", "inf", "-inf"] {
            let to = format!("{key} = {bad}");
            refused("alpha1 = 0.3", &to, 5, "Threshold", &[key, "between 0 and 1"]);
        }
    }
    refused("alpha1 = 0.3", "relevance = -1.5", 5, "Threshold", &["relevance", "between -1 and 1"]);
    let text = GOOD.replacen("alpha1 = 0.3", "relevance = -0.05\nbeta = 1", 1);
    let constitution = Constitution::parse(&text, "my.toml").expect("accepted");
    assert_eq!(constitution.thresholds().relevance, Some(-0.05));
    assert!((constitution.thresholds().beta - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_text_beyond_the_limit_is_refused_unread() {
    let error = Constitution::parse(&" ".repeat((1 << 20) + 1), "big.toml").expect_err("accepted");
    assert!(matches!(error.problem(), Problem::TooLarge { .. }), "{error}");
}

#[test]
fn an_unknown_shipped_name_lists_the_known_ones() {
    let error = Constitution::shipped("scenes").expect_err("accepted");
    assert!(error.to_string().contains("(scene, general, nine-categories, "), "{error}");
}
