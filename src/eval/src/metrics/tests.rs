#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::measures::*;
use super::*;
use crate::data::{Policy, Row, Truth};
use crate::outcome::{Judgment, Outcome};

const NO_BOOTSTRAP: Bootstrap = Bootstrap { resamples: 0, seed: 1 };

fn rules(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn named(names: &[&str]) -> Outcome {
    Outcome::Judged(Judgment {
        flagged: !names.is_empty(),
        violated: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        score: None,
        passes: 3,
        words: None,
        evidence: Vec::new(),
    })
}

fn flagged(flagged: bool, score: f64) -> Outcome {
    let (violated, words) = (None, None);
    Outcome::Judged(Judgment {
        flagged,
        violated,
        score: Some(score),
        passes: 1,
        words,
        evidence: Vec::new(),
    })
}

fn row(id: &str, truth: Truth) -> Row {
    Row::new(id, id, truth)
}

fn judged<'a>(rows: &'a [Row], outcomes: &'a [Option<Outcome>]) -> Vec<Judged<'a>> {
    let said = |outcome: &'a Option<Outcome>| outcome.as_ref().map_or(Said::Nothing, Said::Outcome);
    rows.iter().zip(outcomes).map(|(row, outcome)| Judged { row, said: said(outcome) }).collect()
}

#[test]
fn a_hit_counts_only_if_the_right_rule_is_named() {
    let rows = [
        row("1", Truth::Rules(rules(&["a", "b"]))),
        row("2", Truth::Rules(rules(&["a"]))),
        row("3", Truth::Rules(rules(&[]))),
        row("4", Truth::Rules(rules(&["b"]))),
    ];
    let outcomes = [Some(named(&["a"])), Some(named(&["b"])), Some(named(&[])), None];
    let all = ["a".to_owned(), "b".to_owned()];
    let measures = measure(&judged(&rows, &outcomes), &all, &[], NO_BOOTSTRAP);
    let image = measures.image_level.counts;
    assert_eq!((image.true_positives, image.false_negatives, image.true_negatives), (2, 1, 1));
    let rule = measures.rule_level.unwrap().counts;
    // Row 1 hits a and misses b, row 2 misses a and wrongly names b, row 4 failed: a is wrongly said, b missed.
    assert_eq!((rule.true_positives, rule.false_negatives, rule.false_positives), (1, 3, 2));
    assert_eq!(measures.by_rule["a"].counts.true_positives, 1);
    assert_eq!(measures.failed, 1);
    let mistaken = |violated: &str, named: Option<&str>| MistakenRule {
        violated: Some(violated.to_owned()),
        named: named.map(str::to_owned),
        pictures: 1,
    };
    assert_eq!(measures.mistaken_rules, [mistaken("a", Some("b")), mistaken("b", None)]);
}

#[test]
fn words_that_are_no_answer_are_wrong_and_counted_apart() {
    let rows =
        [row("1", Truth::Unsafe(true)), row("2", Truth::Unsafe(false)), row("3", Truth::Unsafe(false))];
    let outcomes =
        [Some(flagged(true, 0.9)), Some(Outcome::Unparseable("Hm.".to_owned())), Some(flagged(false, 0.2))];
    let measures = measure(&judged(&rows, &outcomes), &[], &[], NO_BOOTSTRAP);
    assert_eq!((measures.unparseable, measures.image_level.counts.false_positives), (1, 1));
    assert_eq!(measures.answered.unwrap().accuracy, Some(1.0));
    assert_eq!(measures.rule_level, None);
    assert_eq!(measures.score_curve.len(), 2);
    assert_eq!(measures.passes, Some(1.0));
}

#[test]
fn groups_have_their_own_figures_and_two_kinds_of_mean() {
    let grouped = |id: &str, level: &str, is_unsafe: bool| {
        let mut row = row(id, Truth::Unsafe(is_unsafe));
        row.level = Some(level.to_owned());
        (row.category, row.source) = (Some("c".to_owned()), Some(format!("s{level}")));
        row
    };
    let rows = [
        grouped("1", "L1", false),
        grouped("2", "L1", false),
        grouped("3", "L2", true),
        grouped("4", "L2", true),
        grouped("5", "L3", true),
    ];
    let outcomes = [false, true, true, false, true].map(|said| Some(flagged(said, 0.5)));
    let measures = measure(&judged(&rows, &outcomes), &[], &[], NO_BOOTSTRAP);
    let by = |name: &str| measures.groupings.iter().find(|grouping| grouping.by == name).unwrap();
    let level = by("level");
    assert_eq!(level.groups[0].rates.f1, None);
    let f1 = 2.0 / 3.0;
    assert!((level.macro_f1.unwrap() - (f1 + 1.0) / 2.0).abs() < 1e-12);
    assert!((level.macro_f1_or_accuracy.unwrap() - (0.5 + f1 + 1.0) / 3.0).abs() < 1e-12);
    assert!((level.pooled_f1.unwrap() - 4.0 / 6.0).abs() < 1e-12);
    assert_eq!(by("source x category").groups[1].name, "sL2 / c");
}

#[test]
fn a_pair_is_right_if_both_are_under_every_policy() {
    let paired = |id: &str, pair: &str, names: &[&str]| {
        let mut row = row(id, Truth::Rules(rules(names)));
        row.pair = Some(pair.to_owned());
        row
    };
    let rows = [
        paired("1", "p", &["a"]),
        paired("1e", "p", &[]),
        paired("2", "q", &["b"]),
        paired("2e", "q", &[]),
        paired("3", "half", &["b"]),
    ];
    let outcomes = [&["a"][..], &[], &["a"], &[], &[]].map(|names| Some(named(names)));
    const POLICIES: [NamedPolicy; 2] =
        [NamedPolicy { name: "all", rules: &["a", "b"] }, NamedPolicy { name: "only-b", rules: &["b"] }];
    let all = ["a".to_owned(), "b".to_owned()];
    let measures = measure(&judged(&rows, &outcomes), &all, &POLICIES, Bootstrap::default());
    let pairs = measures.pairs.unwrap();
    assert_eq!((pairs.pairs, pairs.accuracy), (2, Some(1.0)));
    // Under the policy of b alone, the second pair is two safe answers for one unsafe picture.
    assert_eq!((pairs.by_policy["all"], pairs.by_policy["only-b"]), (1.0, 0.5));
    assert_eq!(pairs.interval, Some([1.0, 1.0]));
}

#[test]
fn policy_exceptions_are_those_of_the_altered_policies() {
    let altered = |id: &str, level: &str, is_unsafe: bool| {
        let mut row = row(id, Truth::Unsafe(is_unsafe));
        (row.level, row.policy) = (Some(level.to_owned()), Some(Policy::Question("?".to_owned())));
        row
    };
    let rows = [altered("1", "v2", false), altered("2", "v4", true), altered("3", "default", true)];
    let outcomes = [false, false, false].map(|said| Some(flagged(said, 0.5)));
    let measures = measure(&judged(&rows, &outcomes), &[], &[], NO_BOOTSTRAP);
    assert_eq!(measures.policy_exception_recall, Some(0.5));
}
