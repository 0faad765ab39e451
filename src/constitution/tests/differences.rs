//! Differences between constitutions.

// Helpers of tests may panic like tests do; clippy exempts only the test functions themselves.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use cluegate_constitution::Constitution;
use cluegate_constitution::diff::{Difference, Kind, RuleDifference, TextChange};
use proptest::prelude::*;

fn scene(edits: &[(&str, &str)]) -> Constitution {
    let mut text = Constitution::shipped_text("scene").unwrap().to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from:?} is not in the file");
        text = text.replacen(from, to, 1);
    }
    Constitution::parse(&text, "edited").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_differs_in_nothing() {
    let written_otherwise = scene(&[("[[rule]]", "# a comment\n[thresholds]\nbeta = 0.60\n[[rule]]")]);
    let difference = Difference::between(&scene(&[]), &written_otherwise);
    assert!(difference.is_empty(), "{difference:?}");
}

#[test]
fn every_kind_of_change_is_told() {
    let changed = scene(&[
        ("name = \"scene\"", "name = \"scenery\""),
        ("[[rule]]", "[thresholds]\nbeta = 0.5\nrelevance = 0.3\n[[rule]]"),
        (
            "The image should not show a person holding a weapon.",
            "The image should not show a {age} year old person with a knife.",
        ),
        (
            "severity = \"high\"\n[[rule.precondition]]\nany = [{ statement = \"a person is visible\"",
            "severity = \"low\"\nallow = [\"several-facts\"]\n[rule.parameter.age]\nkind = \"age\"\nvalue = 18\n[[rule.precondition]]\nany = [{ statement = \"a man is visible\"",
        ),
        ("[[rule]]\nid = \"smoking\"", "[[rule]]\nid = \"smoking-cigarettes\""),
    ]);
    let difference = Difference::between(&scene(&[]), &changed);
    insta::assert_json_snapshot!("difference", difference);
    let back = Difference::between(&changed, &scene(&[]));
    assert_eq!(back.rules.len(), difference.rules.len());
}

#[test]
fn order_is_told() {
    let text = Constitution::shipped_text("scene").unwrap();
    let (head, rules) = text.split_once("[[rule]]").unwrap();
    let (first, others) = rules.split_once("\n[[rule]]").unwrap();
    let moved = format!("{head}[[rule]]{others}\n[[rule]]{first}");
    let moved = Constitution::parse(&moved, "moved").unwrap_or_else(|error| panic!("{error}"));
    let difference = Difference::between(&scene(&[]), &moved);
    assert!(difference.reordered && difference.rules.is_empty() && !difference.is_empty());
}

#[test]
fn one_rule_can_be_had_alone() {
    let only = scene(&[]).with_only("armed").unwrap();
    assert_eq!(only.rules(), [scene(&[]).rule("armed").unwrap().clone()]);
    assert_ne!(only.revision(), scene(&[]).revision());
    let error = scene(&[]).with_only("armd").unwrap_err().to_string();
    assert!(error.contains("did you mean `armed`?"), "{error}");
    let difference = Difference::between(&scene(&[]), &only);
    assert_eq!(difference.rules.len(), 11);
    assert!(difference.rules.iter().all(|rule| matches!(rule, RuleDifference::Removed(_))));
}

proptest! {
    /// The pieces of a change make both texts.
    #[test]
    fn words_make_both_texts(from in "[a-d .]{0,30}", to in "[a-d .é]{0,30}") {
        let change = TextChange { from: from.clone(), to: to.clone() };
        let joined = |without: Kind| {
            change.words().into_iter().filter(|piece| piece.kind != without).map(|piece| piece.text).collect::<String>()
        };
        prop_assert_eq!(joined(Kind::Added), from);
        prop_assert_eq!(joined(Kind::Removed), to);
    }
}
