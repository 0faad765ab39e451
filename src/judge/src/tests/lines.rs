//! Every line of Algorithm 1, and every switch.

use super::support::{LARGE, SMALL, Script, constitution, picture};
use crate::fakes::{self, FakeDetector, FakeEncoder, assemble};
use crate::{DecidedBy, InspectOptions, Outcome, Stages, Verdict};

fn decided(script: &Script, stages: Stages) -> (DecidedBy, Option<bool>) {
    let statement = script.statement(stages);
    (statement.decided_by, statement.holds)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn alpha1_rejects_and_alpha2_accepts_and_between_them_reasoning_decides() {
    // With a prior of 0.5: a1 = -0.15, a2 = 0.4.
    for (whole, expected) in [
        (0.34, (DecidedBy::BelowAlpha1, Some(false))),
        (0.36, (DecidedBy::Reasoning, Some(false))),
        (0.89, (DecidedBy::Reasoning, Some(false))),
        (0.91, (DecidedBy::AboveAlpha2, Some(true))),
    ] {
        let script = Script { whole, ..Script::default() };
        assert_eq!(decided(&script, Stages::ALL), expected, "{whole}");
    }
    let statement = Script::default().statement(Stages::ALL);
    assert!(close(statement.alpha1, -0.15) && close(statement.alpha2, 0.4));
    assert_eq!((statement.score, statement.score_without_image), (Some(0.5), 0.5));
}

#[test]
fn the_lines_are_strict_as_in_the_paper() {
    // A prior of 0 makes a1 zero and a2 the factor: D = a1 and D = a2 decide nothing.
    let at_a1 = Script { prior: 0.0, whole: 0.0, rating: 1.0, ..Script::default() };
    assert_eq!(decided(&at_a1, Stages::ALL), (DecidedBy::Reasoning, Some(true)));
    let at_a2 = Script { prior: 0.0, whole: 0.8, rating: 1.0, ..Script::default() };
    assert_eq!(decided(&at_a2, Stages::ALL), (DecidedBy::Reasoning, Some(true)));
}

#[test]
fn region_removal_accepts_when_the_score_falls_by_more_than_beta() {
    let found = Script { whole: 0.85, boxes: vec![(0.9, LARGE)], rating: 1.0, ..Script::default() };
    let falls = Script { removed: 0.2, ..found.clone() };
    assert_eq!(decided(&falls, Stages::ALL), (DecidedBy::Region, Some(true)));
    let statement = falls.statement(Stages::ALL);
    assert_eq!((statement.score_region_removed, statement.score_whole_picture), (Some(0.2), None));
    assert_eq!(statement.region[0].region(), LARGE);
    assert!(close(statement.region[0].area_share, 0.25) && !statement.crop);
    let stays = Script { removed: 0.3, ..found.clone() };
    assert_eq!(decided(&stays, Stages::ALL), (DecidedBy::Reasoning, Some(true)));
    let doubtful = Script { removed: 0.2, boxes: vec![(0.05, LARGE)], ..found };
    let statement = doubtful.statement(Stages::ALL);
    assert_eq!(statement.decided_by, DecidedBy::Reasoning);
    assert!(statement.region.is_empty() && statement.score_region_removed.is_none());
}

#[test]
fn reasoning_decides_either_way_and_a_tie_does_not_release() {
    for (rating, holds) in [(0.0, false), (0.49, false), (0.5, true), (1.0, true)] {
        let script = Script { rating, ..Script::default() };
        assert_eq!(decided(&script, Stages::ALL), (DecidedBy::Reasoning, Some(holds)), "{rating}");
        let statement = script.statement(Stages::ALL);
        assert_eq!(statement.rating, Some(rating));
        assert!(statement.thought.is_some() && statement.rationale.is_none());
    }
}

#[test]
fn small_objects_are_looked_at_in_a_crop_but_removed_from_the_whole_picture() {
    let script = Script { whole: 0.1, crop: 0.95, boxes: vec![(0.9, SMALL)], ..Script::default() };
    let statement = script.statement(Stages::ALL);
    assert_eq!((statement.score, statement.crop), (Some(0.95), true));
    assert_eq!(statement.decided_by, DecidedBy::AboveAlpha2);
    let without = script.statement(Stages { crop: false, ..Stages::ALL });
    assert_eq!((without.score, without.crop), (Some(0.1), false));
    assert_eq!(without.decided_by, DecidedBy::BelowAlpha1);
    let script = Script { whole: 0.9, crop: 0.5, removed: 0.1, ..script };
    let statement = script.statement(Stages::ALL);
    assert_eq!(statement.decided_by, DecidedBy::Region);
    assert_eq!((statement.score, statement.score_whole_picture), (Some(0.5), Some(0.9)));
}

#[test]
fn the_most_confident_box_counts() {
    let boxes = vec![(0.2, SMALL), (0.7, LARGE), (0.3, SMALL)];
    let statement = Script { boxes, ..Script::default() }.statement(Stages::ALL);
    assert_eq!(statement.region.len(), 1);
    assert_eq!((statement.region[0].confidence, statement.region[0].region()), (0.7, LARGE));
    assert!(!statement.crop);
}

#[test]
fn a_crop_needs_every_central_word_and_a_removal_any() {
    let constitution = constitution(&[(vec![vec![("both meet", &["here", "gone"])]], vec![])], "");
    let script = Script { whole: 0.85, crop: 0.0, removed: 0.1, ..Script::default() };
    let detector = FakeDetector::new(|_, word| if word == "here" { vec![(0.9, SMALL)] } else { vec![] });
    let judge = assemble(FakeEncoder::new(|_| 1.0), detector, script.vlm());
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let statement = super::support::only_statement(report.rules());
    assert_eq!((statement.crop, statement.decided_by), (false, DecidedBy::Region));
}

#[test]
fn irrelevant_rules_are_left_out_unless_the_scan_is_off() {
    let rule = || (vec![vec![("it is there", &["thing"][..])]], vec![]);
    let constitution = constitution(&[rule(), rule(), rule()], "");
    let encoder = FakeEncoder::new(|text| match text {
        "text of r0" => 0.21,
        "text of r1" => 0.23,
        _ => -0.5,
    });
    let script = Script { whole: 1.0, ..Script::default() };
    let judge = assemble(encoder, FakeDetector::new(|_, _| vec![]), script.vlm());
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let outcomes: Vec<Outcome> = report.rules().iter().map(|rule| rule.outcome).collect();
    assert_eq!(outcomes, [Outcome::Irrelevant, Outcome::Violated, Outcome::Irrelevant]);
    assert_eq!(report.violated(), ["r1"]);
    assert!(report.rules()[0].relevance.is_some_and(|cosine| (cosine - 0.21).abs() < 1e-6));
    let stages = Stages { relevance_scan: false, ..Stages::ALL };
    let options = InspectOptions { stages, ..InspectOptions::default() };
    let report = judge.inspect(&picture(), &prepared, &options).expect("a report");
    assert_eq!(report.violated(), ["r0", "r1", "r2"]);
    assert_eq!(report.rules()[0].relevance, None);
}

#[test]
fn thresholds_come_from_the_constitution() {
    let chain = || vec![vec![("it is there", &["thing"][..])]];
    let script = Script { whole: 0.7, removed: 0.5, boxes: vec![(0.3, LARGE)], ..Script::default() };
    for (thresholds, expected) in [
        ("", DecidedBy::Reasoning),
        ("alpha2 = 0.3", DecidedBy::AboveAlpha2),
        ("alpha1 = 0.0\nalpha2 = 1.0", DecidedBy::Reasoning),
        ("beta = 0.1", DecidedBy::Region),
        ("beta = 0.1\ndetection_confidence = 0.31", DecidedBy::Reasoning),
    ] {
        let judge = script.judge();
        let prepared = judge.prepare(&constitution(&[(chain(), vec![])], thresholds)).expect("prepared");
        let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
        assert_eq!(super::support::only_statement(report.rules()).decided_by, expected, "{thresholds}");
    }
    let judge = script.judge();
    let prepared = judge.prepare(&constitution(&[(chain(), vec![])], "relevance = 1.0")).expect("prepared");
    assert!((prepared.relevance_threshold() - 1.0).abs() < f32::EPSILON);
    let prepared =
        judge.prepare(&constitution(&[(chain(), vec![])], "small_object_area = 0.3")).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    assert!(super::support::only_statement(report.rules()).crop);
}

#[test]
fn each_stage_can_be_switched_off() {
    let script = Script { whole: 0.95, removed: 0.2, boxes: vec![(0.9, LARGE)], ..Script::default() };
    let by = |stages| decided(&script, stages).0;
    assert_eq!(by(Stages::ALL), DecidedBy::AboveAlpha2);
    let no_comparison = Stages { no_image_comparison: false, ..Stages::ALL };
    assert_eq!(by(no_comparison), DecidedBy::Region);
    let nor_regions = Stages { region_comparison: false, ..no_comparison };
    assert_eq!(by(nor_regions), DecidedBy::Reasoning);
    let nor_reasoning = Stages { reasoning: false, ..nor_regions };
    assert_eq!(decided(&script, nor_reasoning), (DecidedBy::Score, Some(true)));
    // The prior says 0.95 as well: debiased it is undecided, raw it holds.
    let biased = Script { prior: 0.95, ..script.clone() };
    assert_eq!(decided(&biased, Stages { debias: false, ..Stages::ALL }), (DecidedBy::Score, Some(true)));
    let low = Script { whole: 0.5, ..script };
    assert_eq!(decided(&low, Stages { debias: false, ..Stages::ALL }), (DecidedBy::Score, Some(false)));
}

#[test]
fn a_holding_statement_spares_the_reasoning_about_its_alternatives() {
    let chain = vec![vec![("undecided", &[][..]), ("certain", &[][..])], vec![("last", &[][..])]];
    let constitution = constitution(&[(chain, vec![])], "");
    let judge = fakes::judge(|seen, statement| match (seen, statement) {
        (None, _) | (_, "undecided") => 0.5,
        (_, "certain") => 1.0,
        _ => 0.0,
    })
    .expect("a judge");
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let first = &report.rules()[0].preconditions[0];
    assert_eq!(first.satisfied, Some(true));
    assert_eq!(first.statements[0].decided_by, DecidedBy::NotNeeded);
    assert_eq!((first.statements[0].score, first.statements[0].holds), (Some(0.5), None));
    assert_eq!(first.statements[1].decided_by, DecidedBy::AboveAlpha2);
    assert_eq!((report.verdict(), report.passes().cascades), (Verdict::Safe, 0));
}

#[test]
fn what_follows_a_break_is_not_reached() {
    let chain = vec![vec![("no", &[][..])], vec![("later", &["thing"][..])]];
    let constitution = constitution(&[(chain, vec![vec![("toy", &[][..])]])], "");
    let judge = fakes::judge(|seen, statement| match (seen, statement) {
        (None, _) => 0.5,
        (_, "no") => 0.0,
        _ => 0.5,
    })
    .expect("a judge");
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let rule = &report.rules()[0];
    assert_eq!(rule.outcome, Outcome::NotViolated);
    assert_eq!(rule.preconditions[1].satisfied, None);
    let later = &rule.preconditions[1].statements[0];
    assert_eq!((later.score, later.decided_by), (None, DecidedBy::NotNeeded));
    assert!(rule.unless.is_empty());
    assert_eq!(report.passes().cascades, 0);
}

#[test]
fn an_exception_that_holds_lifts_the_violation() {
    let rule = |toy| (vec![vec![("armed", &[][..])]], vec![vec![(toy, &[][..])]]);
    let constitution = constitution(&[rule("a toy"), rule("a drawing")], "");
    let judge = fakes::judge(|seen, statement| match (seen, statement) {
        (None, _) => 0.5,
        (_, "a drawing") => 0.0,
        _ => 1.0,
    })
    .expect("a judge");
    let prepared = judge.prepare(&constitution).expect("prepared");
    let report = judge.inspect(&picture(), &prepared, &InspectOptions::default()).expect("a report");
    let outcomes: Vec<Outcome> = report.rules().iter().map(|rule| rule.outcome).collect();
    assert_eq!(outcomes, [Outcome::Excepted, Outcome::Violated]);
    assert_eq!(report.rules()[0].unless[0].satisfied, Some(true));
    assert_eq!(report.violated(), ["r1"]);
}
