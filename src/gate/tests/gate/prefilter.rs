//! A pre-filter's word: in the log by name, and not taken where a policy refuses it.

use std::sync::Arc;

use cluegate_gate::fakes::{CONSTITUTION, picture};
use cluegate_gate::{
    Gate, Instruction, JudgeProvider, MemoryLog, Policies, RequestInfo, SharedJudge, Unfinished,
};
use cluegate_judge::Verdict;
use cluegate_judge::fakes::{self, FakeDetector};
use cluegate_perception::Call;
use cluegate_student::{
    Calibration, ConstitutionName, Distilled, Head, Looks, Member, Student, TrainOptions,
};

/// A student that clears every picture of the scripted encoder under `revision`.
fn student(revision: String) -> Arc<Student> {
    let member = Member { hidden: None, output: vec![-1.0, 0.0], bias: vec![0.0] };
    let head = Head { mean: vec![0.0; 2], deviation: vec![1.0; 2], members: vec![member] };
    let calibration = Calibration {
        threshold: 0.0,
        pictures: 1,
        unsafe_pictures: 1,
        missed: 0,
        recall: 1.0,
        recall_lower_bound: 0.0,
        sent_on: 1.0,
    };
    let looks = Looks { first: head, closer: None };
    let (choices, held_out, looked_closer) = (Vec::new(), Vec::new(), 0.0);
    let distilled = Distilled { looks, calibration, looked_closer, held_out, choices, trained: (1, 1) };
    let name = ConstitutionName { name: "world".to_owned(), revision };
    let about = (String::new(), "fake-encoder".to_owned(), name, String::new());
    Arc::new(Student::new(&distilled, &TrainOptions::default(), Vec::new(), about).unwrap())
}

/// Every statement holds of every picture, and the student clears every picture.
fn judges(policies: &Policies) -> SharedJudge {
    let constitution = policies.constitution(policies.get("t").unwrap()).unwrap();
    let judge = fakes::judge(|seen, _| if seen.is_some() { 0.95 } else { 0.1 }).unwrap();
    let judge = judge.with_prefilter(student(constitution.revision().to_string())).unwrap();
    SharedJudge::new(Arc::new(judge), Arc::new(FakeDetector::new(|_, _| Vec::new())))
}

/// The policies, and the folder of their constitution, which is read when a gate is made.
fn policies(keys: &str) -> (tempfile::TempDir, Policies) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("world.toml"), CONSTITUTION).unwrap();
    let text = format!("[tenant.t]\nconstitution = \"world.toml\"\n{keys}\n");
    std::fs::write(folder.path().join("policy.toml"), text).unwrap();
    let policies = Policies::load(folder.path().join("policy.toml")).unwrap();
    (folder, policies)
}

#[test]
fn a_policy_takes_its_word_or_refuses_it_and_the_log_says_whose_it_was() {
    for (keys, released) in [("", true), ("prefilter = true", true), ("prefilter = false", false)] {
        let (_folder, policies) = policies(keys);
        let log = Arc::new(MemoryLog::new(10));
        let gate = Gate::new(&policies, Arc::new(judges(&policies)), Arc::<MemoryLog>::clone(&log)).unwrap();
        let mut session = gate.session(RequestInfo::new("t", "a person at a table", 7, 1)).unwrap();
        let instruction = session.finished(0, picture(&[], 0)).unwrap();
        assert_eq!(matches!(instruction, Instruction::Release(_)), released, "{keys}: {instruction:?}");
        let record = log.records().into_iter().next();
        let Some(record) = record else {
            // A picture that is to be drawn again has no decision yet.
            assert!(!released, "{keys}");
            continue;
        };
        let attempt = record.attempts.last().unwrap();
        let evidence = attempt.judgment.as_ref().unwrap().evidence.as_ref().unwrap();
        assert_eq!(evidence.get("prefilter").is_some(), released, "{keys}: {evidence}");
        if released {
            assert_eq!(
                (&evidence["prefilter"]["cleared"], &evidence["verdict"]),
                (&true.into(), &"safe".into())
            );
        }
    }
}

#[test]
fn previews_and_redacted_pictures_are_judged_whole() {
    let (_folder, policies) = policies("");
    let constitution = policies.constitution(policies.get("t").unwrap()).unwrap();
    let inspector = judges(&policies).inspector((*constitution).clone()).unwrap();
    let (picture, call) = (picture(&[], 0), Call::default());
    assert_eq!(inspector.inspect(&picture, None, &call).unwrap().verdict(), Verdict::Safe);
    assert_eq!(inspector.inspect_whole(&picture, None, &call).unwrap().verdict(), Verdict::Unsafe);
    for kind in [Unfinished::Preview, Unfinished::Redacted] {
        let report = inspector.inspect_unfinished(&picture, kind, None, &call).unwrap();
        assert!(report.verdict() == Verdict::Unsafe && report.prefilter().is_none(), "{kind:?}");
    }
}
