//! A student that clears pictures before the whole method is asked.

use std::sync::Arc;

use cluegate_student::{
    Band, Calibration, Closer, ConstitutionName, Distilled, Head, Looks, Member, Student, StudentErrorKind,
    TrainOptions,
};

use super::support::{Script, one_statement, picture};
use crate::{InspectOptions, Judge, JudgeError, JudgeErrorKind, Outcome, Stages, Verdict};

/// A head that gives every picture of the scripted encoder `score`.
fn head(score: f32) -> Head {
    let member = Member { hidden: None, output: vec![score, 0.0, score, 0.0], bias: vec![0.0, 0.0] };
    Head { mean: vec![0.0; 2], deviation: vec![1.0; 2], members: vec![member] }
}

/// A student of the scripted encoder whose score of every picture is `score`, with the threshold 0.
fn student(score: f32, revision: &str, encoder: &str) -> Arc<Student> {
    student_of(Looks { first: head(score), closer: None }, revision, encoder)
}

fn student_of(looks: Looks, revision: &str, encoder: &str) -> Arc<Student> {
    let calibration = Calibration {
        threshold: 0.0,
        pictures: 2,
        unsafe_pictures: 1,
        missed: 0,
        recall: 1.0,
        recall_lower_bound: 0.0,
        sent_on: 0.5,
    };
    let (choices, held_out, looked_closer) = (Vec::new(), Vec::new(), 0.5);
    let distilled = Distilled { looks, calibration, looked_closer, held_out, choices, trained: (2, 1) };
    let name = ConstitutionName { name: "test".to_owned(), revision: revision.to_owned() };
    let about = (String::new(), encoder.to_owned(), name, String::new());
    let options = TrainOptions::default();
    Arc::new(Student::new(&distilled, &options, vec!["r0".to_owned()], about).expect("a student"))
}

/// A judge that finds the statement true, with a student of this score.
fn judge(score: f32) -> Judge {
    let script = Script { prior: 0.1, whole: 0.95, ..Script::default() };
    let revision = one_statement().revision().to_string();
    script.judge().with_prefilter(student(score, &revision, "fake-encoder")).expect("a judge")
}

fn inspect(judge: &Judge, options: &InspectOptions) -> crate::Report {
    let prepared = judge.prepare(&one_statement()).expect("prepared");
    judge.inspect(&picture(), &prepared, options).expect("a report")
}

#[test]
fn what_it_clears_is_safe_by_its_word_and_says_so() {
    let report = inspect(&judge(-1.0), &InspectOptions::default());
    assert_eq!((report.verdict(), report.rules()[0].outcome), (Verdict::Safe, Outcome::Cleared));
    assert!(report.rules()[0].preconditions.is_empty());
    let said = report.prefilter().expect("what the student said");
    assert!(said.cleared && said.score < said.threshold && said.student.len() == 64, "{said:?}");
    // Nothing but the encoder was asked.
    let passes = report.passes().stages;
    assert!(
        passes.relevance > 0 && passes.detection + passes.statements + passes.reasoning == 0,
        "{passes:?}"
    );
    assert!(report.complete().expect("complete").prefiltered());
    let written = serde_json::to_value(&report).expect("JSON");
    assert_eq!(
        (&written["prefilter"]["cleared"], &written["rules"][0]["outcome"]),
        (&true.into(), &"cleared".into())
    );
}

#[test]
fn what_it_does_not_clear_is_judged_as_without_it() {
    let report = inspect(&judge(0.0), &InspectOptions::default());
    assert_eq!((report.verdict(), report.violated()), (Verdict::Unsafe, &["r0".to_owned()][..]));
    assert!(!report.prefilter().expect("what it said").cleared);
    assert!(!report.complete().expect("complete").prefiltered());
    let plain = Script { prior: 0.1, whole: 0.95, ..Script::default() }.report(Stages::ALL);
    assert_eq!(report.rules(), plain.rules());
    assert!(plain.prefilter().is_none() && !plain.complete().expect("complete").prefiltered());
}

#[test]
fn a_closer_look_is_taken_where_the_first_says_too_little() {
    // The first look's score is 1 throughout; the closer one adds a part's to the whole's.
    let asked = |clear_below: f64, send_from: f64, part: f32| {
        let band = Band { clear_below: Some(clear_below), send_from };
        let closer = Closer { whole: head(1.0), parts: head(part), band };
        let looks = Looks { first: head(1.0), closer: Some(closer) };
        let script = Script { prior: 0.1, whole: 0.95, ..Script::default() };
        let revision = one_statement().revision().to_string();
        let judge =
            script.judge().with_prefilter(student_of(looks, &revision, "fake-encoder")).expect("a judge");
        let report = inspect(&judge, &InspectOptions::default());
        let said = report.prefilter().expect("what it said").clone();
        (report.verdict(), report.passes().stages.relevance, said.score, said.closer, said.cleared)
    };
    // Below the band, above it, between: then nine parts of each of the picture's two squares are embedded too.
    let before = asked(2.0, 3.0, -5.0);
    assert_eq!((before.0, before.2, before.3, before.4), (Verdict::Safe, 1.0, false, true));
    let above = asked(0.0, 1.0, -5.0);
    assert_eq!((above.0, above.2, above.3, above.4), (Verdict::Unsafe, 1.0, false, false));
    assert_eq!(asked(0.0, 3.0, -5.0), (Verdict::Safe, before.1 + 18, -4.0, true, true));
    assert_eq!(asked(0.0, 3.0, 2.0), (Verdict::Unsafe, above.1 + 18, 3.0, true, false));
}

#[test]
fn it_is_not_asked_where_it_is_refused_or_a_stage_is_off() {
    let judge = judge(-1.0).with_verdicts(Judge::VERDICTS);
    assert!(inspect(&judge, &InspectOptions::default()).complete().expect("complete").prefiltered());
    // The same picture again: reports with and without it are kept apart.
    let whole = InspectOptions { without_prefilter: true, ..InspectOptions::default() };
    assert_eq!(inspect(&judge, &whole).verdict(), Verdict::Unsafe);
    let stages = Stages { crop: false, ..Stages::ALL };
    let report = inspect(&judge, &InspectOptions { stages, ..InspectOptions::default() });
    assert!(report.verdict() == Verdict::Unsafe && report.prefilter().is_none());
}

#[test]
fn another_encoder_another_revision_and_a_number_that_is_none_are_refused() {
    let script = Script::default();
    let error = script.judge().with_prefilter(student(-1.0, "r", "another")).expect_err("a judge");
    assert!(
        matches!(&error, JudgeError::Prefilter(error) if error.kind() == StudentErrorKind::Mismatch),
        "{error}"
    );
    let judge = script.judge().with_prefilter(student(-1.0, "r", "fake-encoder")).expect("a judge");
    let error = judge.prepare(&one_statement()).expect_err("prepared");
    assert_eq!(error.kind(), JudgeErrorKind::Prefilter);
    assert!(
        error.to_string().contains("distilled under the constitution test at r, this is test at "),
        "{error}"
    );
    let revision = one_statement().revision().to_string();
    let broken =
        script.judge().with_prefilter(student(f32::NAN, &revision, "fake-encoder")).expect("a judge");
    let prepared = broken.prepare(&one_statement()).expect("prepared");
    let error = broken.inspect(&picture(), &prepared, &InspectOptions::default()).expect_err("a verdict");
    assert_eq!(error.kind(), JudgeErrorKind::Prefilter);
}
