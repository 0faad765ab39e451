//! A cheap look at what is still being drawn, against the method with the same stages.

use std::sync::Arc;

use cluegate_perception::{Call, Picture};
use proptest::prelude::*;

use super::support::{Said, SaidChain, any_constitution, constitution, picture};
use crate::fakes::{self, FakeDetector, FakeEncoder, FakeVlm};
use crate::{
    Glance, InspectOptions, Judge, JudgeOptions, Outcome, Report, RuleEvidence, Stages, Templates, Verdict,
};

const POOL: [Said; 4] = [
    ("a person is there", &["person"]),
    ("it burns", &["fire"]),
    ("it is night", &[]),
    ("they meet", &["person"]),
];

fn chain(links: std::ops::Range<usize>) -> impl Strategy<Value = SaidChain> {
    prop::collection::vec(prop::collection::vec(prop::sample::select(&POOL[..]), 1..3), links)
}

fn all(rules: usize, enough: f64) -> Glance {
    Glance { rules: (0..rules).map(|rule| format!("r{rule}")).collect(), first: Vec::new(), enough }
}

fn glance(judge: &Judge, constitution: &cluegate_constitution::Constitution, glance: &Glance) -> Report {
    let prepared = judge.prepare(constitution).expect("prepared");
    judge.glance(&picture(), &prepared, glance, &Call::default()).expect("a report")
}

/// Statements that hold or not by their place in the pool.
fn plain(truths: u8) -> Judge {
    fakes::judge(move |seen, statement| match seen {
        None => 0.5,
        Some(_) => {
            let at = POOL.iter().position(|(text, _)| *text == statement).expect("in the pool");
            f64::from(truths >> at & 1)
        }
    })
    .expect("a judge")
}

fn one(statement: usize) -> (SaidChain, SaidChain) {
    (vec![vec![POOL[statement]]], vec![])
}

#[test]
fn it_never_gives_leave_to_release() {
    let rules = constitution(&[one(0), one(1)], "");
    for truths in [0, 1] {
        let report = glance(&plain(truths), &rules, &all(2, 0.0));
        assert_eq!(report.verdict() == Verdict::Unsafe, truths == 1);
        assert_eq!(report.stages(), Stages::GLANCE);
        assert!(report.complete().is_none(), "{truths}");
    }
    // Not even where nothing was asked at all.
    let nothing = glance(&plain(15), &rules, &all(0, 0.0));
    assert!(nothing.complete().is_none() && nothing.violated().is_empty() && nothing.margin().is_none());
    assert!(nothing.rules().iter().all(|rule| rule.outcome == Outcome::NotAsked));
    assert_eq!(nothing.passes().stages.statements, 0);
}

#[test]
fn what_was_violated_before_is_asked_first_and_may_be_enough() {
    let rules = constitution(&[one(0), one(1), one(2)], "");
    let first = |ids: &[&str], enough| Glance {
        first: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..all(3, enough)
    };
    let outcomes = |report: &Report| report.rules().iter().map(|rule| rule.outcome).collect::<Vec<_>>();
    // All three are violated; the third is known to have been.
    let judge = plain(0b111);
    let ended = glance(&judge, &rules, &first(&["r2"], 0.0));
    assert_eq!(outcomes(&ended), [Outcome::NotAsked, Outcome::NotAsked, Outcome::Violated]);
    assert_eq!((ended.violated(), ended.passes().stages.statements), (&["r2".to_owned()][..], 1));
    // A margin of one half is not enough for whoever wants more: the rest is asked too.
    let sure = glance(&judge, &rules, &first(&["r2"], 0.5));
    assert_eq!(outcomes(&sure), [Outcome::Violated; 3]);
    assert_eq!(sure.margin(), Some(0.5));
    // Nor is a suspicion that comes to nothing.
    let cleared = glance(&plain(0b011), &rules, &first(&["r2"], 0.0));
    assert_eq!(outcomes(&cleared), [Outcome::Violated, Outcome::Violated, Outcome::NotViolated]);
    // A rule that nobody wants to know about is not asked, though it is suspected.
    let other = Glance { rules: vec!["r0".to_owned()], ..first(&["r2"], 0.0) };
    assert_eq!(
        outcomes(&glance(&judge, &rules, &other)),
        [Outcome::Violated, Outcome::NotAsked, Outcome::NotAsked]
    );
}

#[test]
fn neither_regions_nor_reasons_nor_what_follows_are_looked_for() {
    let rules = any_constitution(
        &[(vec![vec![POOL[0]]], vec![], false), (vec![vec![POOL[1]]], vec![], true)],
        "relevance = 0.5",
    );
    let encoder = Arc::new(FakeEncoder::new(|_| 0.9));
    let detector = Arc::new(FakeDetector::new(|_, _| panic!("the detector is not asked")));
    // Undecided by the first lines.
    let vlm = FakeVlm::new(Templates::shipped().expect("templates"), |_, _| 0.5)
        .projecting(|_, _| panic!("nothing is projected"), |_, _, _| 0.5);
    let vlm = Arc::new(vlm);
    let judge = Judge::new(
        encoder.clone(),
        detector,
        vlm.clone(),
        Templates::shipped().expect("templates"),
        JudgeOptions::default(),
    );
    let report = glance(&judge, &rules, &all(2, 0.0));
    let outcomes: Vec<Outcome> = report.rules().iter().map(|rule| rule.outcome).collect();
    assert_eq!(outcomes, [Outcome::NotViolated, Outcome::NotAsked]);
    // The whole picture and nothing else, though it is not square; one call for all statements.
    assert_eq!((report.passes().stages.relevance, vlm.complete_calls()), (1, 0));
    assert_eq!(report.margin(), Some(0.0));
}

#[test]
fn an_exception_counts_where_the_chain_would() {
    let rules = constitution(&[(vec![vec![POOL[0]]], vec![vec![POOL[1]]])], "");
    let outcome = |truths, enough| {
        let report = glance(&plain(truths), &rules, &all(1, enough));
        (report.rules()[0].outcome, report.margin().expect("asked"), report.passes().stages.statements)
    };
    assert_eq!(outcome(0b01, 0.0), (Outcome::Violated, 0.5, 2));
    assert_eq!(outcome(0b11, 0.0), (Outcome::Excepted, -0.5, 2));
    assert_eq!(outcome(0b10, 0.0), (Outcome::NotViolated, -0.5, 1));
    // Below the line, and yet enough for whoever says so: the exception is asked.
    assert_eq!(outcome(0b10, -0.6).2, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is asked comes out as the method with the same stages has it, and the margin says so.
    #[test]
    fn it_agrees_with_the_method_of_the_same_stages(
        rules in prop::collection::vec((chain(1..4), chain(0..2)), 1..5), seed in any::<u64>(),
        asked in any::<u8>(), first in any::<u8>(), enough in -1.0f64..1.0,
    ) {
        let constitution = constitution(&rules, "");
        let score = move |seen: Option<&Picture>, statement: &str| {
            let hash = blake3::hash(format!("{seed} {} {statement}", seen.is_some()).as_bytes());
            f64::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]])) / f64::from(u16::MAX)
        };
        let judge = fakes::judge(score).expect("a judge");
        let prepared = judge.prepare(&constitution).expect("prepared");
        let ids = |bits: u8| (0..rules.len()).filter(|rule| bits >> rule & 1 == 1).map(|rule| format!("r{rule}")).collect();
        let wanted = Glance { rules: ids(asked), first: ids(first), enough };
        let report = judge.glance(&picture(), &prepared, &wanted, &Call::default()).expect("a report");
        let options = InspectOptions { stages: Stages::GLANCE, ..InspectOptions::default() };
        let whole = judge.inspect(&picture(), &prepared, &options).expect("a report");
        let mut sure = false;
        for (rule, same) in report.rules().iter().zip(whole.rules()) {
            let Some(margin) = rule.margin else {
                prop_assert_eq!(rule.outcome, Outcome::NotAsked);
                continue;
            };
            prop_assert!(wanted.rules.contains(&rule.id));
            prop_assert_eq!(&RuleEvidence { margin: None, ..rule.clone() }, same);
            prop_assert_eq!(rule.outcome == Outcome::Violated, margin > 0.0);
            sure |= margin > enough;
        }
        // It ends early for a reason only.
        let left_out = report.rules().iter().any(|rule| rule.margin.is_none() && wanted.rules.contains(&rule.id));
        prop_assert!(!left_out || sure);
        prop_assert!(report.complete().is_none());
        prop_assert!(enough < 0.0 || report.passes().total() <= whole.passes().total());
    }
}
