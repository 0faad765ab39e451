//! A share of the requests is judged under two constitutions.

use std::sync::Arc;

use cluegate_constitution::Constitution;
use cluegate_gate::policy::CanaryDecides;
use cluegate_gate::{
    Agreement, DecisionRecord, Gate, InspectionError, Inspector, Instruction, JudgeProvider, Judgment,
    MemoryLog, Outcome, Policies, Reason, RequestInfo,
};
use proptest::prelude::*;

use super::inheritance::{Shelf, tenant};
use cluegate_gate::fakes::{CONSTITUTION, Fault, World, picture};

/// The constitution on trial: it knows no beer, and swords are of low severity.
fn trial() -> String {
    let mut parts: Vec<&str> = CONSTITUTION.split("[[rule]]").collect();
    parts.retain(|part| !part.contains("id = \"beer\""));
    parts
        .join("[[rule]]")
        .replace("\"world\"", "\"trial\"")
        .replace("severity = \"high\"", "severity = \"low\"")
}

/// Each constitution's own world, and so its own faults.
struct Two {
    world: World,
    trial: World,
}

impl JudgeProvider for Two {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        let world = if constitution.name() == "trial" { &self.trial } else { &self.world };
        world.inspector(constitution)
    }
}

const ACTIONS: &str = "[action]\ndefault = \"block\"\n[action.severity]\nlow = \"allow\"";

fn gate(stable: &[Fault], canary: &[Fault], head: &str, tables: &str) -> (Gate, Arc<MemoryLog>) {
    let text = format!("constitution = \"world\"\n{head}\n{ACTIONS}\n{tables}");
    let shelf = Shelf::with(&[("world", CONSTITUTION), ("trial", &trial())]);
    let policies = Policies::from_pieces([tenant("t", &text)], shelf).unwrap();
    let judges = Two { world: World::new(stable.iter().copied()), trial: World::new(canary.iter().copied()) };
    let log = Arc::new(MemoryLog::new(100_000));
    (Gate::new(&policies, Arc::new(judges), Arc::clone(&log) as _).unwrap(), log)
}

fn canary(share: f64, decides: &str) -> String {
    format!("[canary]\nconstitution = \"trial\"\nshare = {share:?}\ndecides = \"{decides}\"")
}

fn one(gate: &Gate, log: &MemoryLog, objects: &[usize]) -> DecisionRecord {
    let mut session = gate.session(RequestInfo::new("t", "a man", 7, 1)).unwrap();
    session.finished(0, picture(objects, 0)).unwrap();
    log.records().pop().unwrap()
}

#[test]
fn both_verdicts_are_in_the_record_and_the_stable_one_decides() {
    let (gate, log) = gate(&[], &[], "", &canary(1.0, "stable"));
    for (objects, outcome, agreement, violated) in [
        (&[][..], Outcome::Released, Agreement::Same, [0, 0]),
        (&[1][..], Outcome::Withheld, Agreement::Different, [1, 0]),
        (&[2][..], Outcome::Withheld, Agreement::Different, [1, 1]),
        (&[0, 3][..], Outcome::Released, Agreement::Same, [1, 1]),
        (&[0, 1, 3][..], Outcome::Withheld, Agreement::Different, [2, 1]),
    ] {
        let record = one(&gate, &log, objects);
        assert_eq!(record.outcome, outcome, "{objects:?}");
        let canary = record.canary.as_ref().unwrap();
        assert_eq!((canary.decides, canary.agreement), (CanaryDecides::Stable, agreement), "{objects:?}");
        assert_eq!((canary.stable.name.as_str(), canary.canary.name.as_str()), ("world", "trial"));
        assert_eq!(record.constitution, canary.stable);
        let attempt = &record.attempts[0];
        let both = [attempt.judgment.as_ref().unwrap(), attempt.compared.as_ref().unwrap()];
        assert_eq!(both.map(|judgment| judgment.violated.len()), violated, "{objects:?}");
        assert_eq!(record.cost.judgments, 2);
        assert_eq!(
            record.cost.passes,
            both.iter().map(|judgment| judgment.passes.unwrap().total()).sum::<u64>()
        );
    }
}

#[test]
fn other_rules_may_mean_the_same() {
    let low = "[action.rule]\nbeer = \"allow\"\nsword = \"allow\"";
    let (gate, log) = gate(&[], &[], "", &format!("{}\n{low}", canary(1.0, "stable")));
    let record = one(&gate, &log, &[1, 2]);
    assert_eq!(record.canary.unwrap().agreement, Agreement::SameAction);
}

#[test]
fn the_canary_decides_where_the_policy_says_so() {
    let (gate, log) = gate(&[], &[], "", &canary(1.0, "canary"));
    let record = one(&gate, &log, &[1]);
    assert_eq!((record.outcome, record.constitution.name.as_str()), (Outcome::Released, "trial"));
    assert_eq!(record.attempts[0].compared.as_ref().unwrap().violated, ["beer"]);
    assert_eq!(record.canary.unwrap().agreement, Agreement::Different);
}

const FAULTS: [Fault; 5] =
    [Fault::Error, Fault::OutOfTime, Fault::Panic, Fault::OtherPicture, Fault::Partial];

#[test]
fn a_canary_that_fails_changes_nothing_where_it_does_not_decide() {
    for fault in FAULTS {
        let (gate, log) = gate(&[], &[fault], "", &canary(1.0, "stable"));
        let record = one(&gate, &log, &[]);
        assert_eq!((record.outcome, record.reason), (Outcome::Released, Reason::Safe), "{fault:?}");
        assert_eq!(record.canary.as_ref().unwrap().agreement, Agreement::Unknown);
        assert_eq!(record.attempts[0].compared.as_ref().unwrap().verdict, Judgment::Error);
    }
}

#[test]
fn a_canary_that_decides_and_fails_is_closed() {
    for fault in FAULTS {
        let (gate, log) = gate(&[], &[fault], "on_error = \"release-unjudged\"", &canary(1.0, "canary"));
        let record = one(&gate, &log, &[]);
        assert_eq!(record.outcome, Outcome::Withheld, "{fault:?}");
        assert!(matches!(record.reason, Reason::JudgeError | Reason::JudgeTimeout), "{fault:?}");
    }
    // The same failure of the tenant's own judge is released, as the policy says, where the canary does not decide.
    let (gate, log) = gate(&[Fault::Error], &[], "on_error = \"release-unjudged\"", &canary(1.0, "stable"));
    assert_eq!(one(&gate, &log, &[]).reason, Reason::Unjudged);
}

#[test]
fn a_canary_that_hangs_takes_a_part_of_the_time_only_and_is_not_waited_for_again() {
    let hangs = vec![Fault::Hang; 8];
    let head = "[limits]\njudge_deadline_ms = 30\n";
    let (gate, log) = gate(&[], &hangs, "", &format!("{}\n{head}", canary(1.0, "stable")));
    let mut session = gate.session(RequestInfo::new("t", "a man", 7, 4)).unwrap();
    for member in 0..4 {
        let out = session.finished(member, picture(&[], member as u8)).unwrap();
        assert!(matches!(out, Instruction::Release(_)));
    }
    let compared: Vec<bool> =
        log.records().iter().map(|record| record.attempts[0].compared.is_some()).collect();
    assert_eq!(compared, [true, false, false, false]);
}

#[test]
fn the_share_is_kept_and_whoever_chooses_the_id_does_not_choose_the_side() {
    for share in [0.02, 0.25, 0.5, 0.9] {
        let (gate, _) = gate(&[], &[], "placeholder = \"none\"", &canary(share, "stable"));
        let all = 10_000_u32;
        let falls = || {
            let request =
                RequestInfo { id: Some("always the same".into()), ..RequestInfo::new("t", "a", 7, 1) };
            gate.session(request).unwrap().close().decisions[0].canary.is_some()
        };
        let fallen = (0..all).filter(|_| falls()).count() as f64;
        // Seven standard deviations of a binomial distribution: once in 10^11 runs.
        let bound = 7.0 * (f64::from(all) * share * (1.0 - share)).sqrt();
        assert!((fallen - f64::from(all) * share).abs() < bound, "{share}: {fallen}");
    }
    let (all, _) = gate(&[], &[], "", &canary(1.0, "stable"));
    let session = all.session(RequestInfo::new("t", "a", 7, 1)).unwrap();
    assert!(session.close().decisions[0].canary.is_some());
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Error),
        1 => Just(Fault::OutOfTime),
        1 => Just(Fault::Panic),
        1 => Just(Fault::OtherPicture),
        1 => Just(Fault::Partial),
    ]
}

/// What a host does with one member: pictures of these objects, one after the other, as long as they are asked for.
fn play(
    gate: &Gate,
    id: &str,
    members: &[Vec<Vec<usize>>],
) -> Vec<(Outcome, Reason, Vec<String>, Option<String>)> {
    let count = members.len() as u32;
    let request = RequestInfo { id: Some(id.to_owned()), ..RequestInfo::new("t", "a man", 7, count) };
    let mut session = gate.session(request).unwrap();
    for (member, drawings) in members.iter().enumerate() {
        for objects in drawings {
            match session.finished(member, picture(objects, member as u8)).unwrap() {
                Instruction::DrawAgain(_) => {}
                _ => break,
            }
        }
    }
    let decided = session.close().decisions.into_iter();
    decided
        .map(|record| {
            let record = Arc::unwrap_or_clone(record);
            (record.outcome, record.reason, record.violated, record.released_picture)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn decisions_are_those_without_a_canary_where_the_stable_one_decides(
        faults in prop::collection::vec(fault(), 0..12),
        of_canary in prop::collection::vec(fault(), 0..12),
        share in prop_oneof![Just(1.0), 0.01_f64..1.0],
        open in any::<bool>(),
        rules in [0_usize..5, 0..5],
        members in prop::collection::vec(prop::collection::vec(prop::collection::vec(0_usize..4, 0..3), 1..4), 1..4),
        id in "[a-z]{1,8}",
    ) {
        const NAMES: [&str; 5] = ["allow", "redact", "regenerate", "hold", "block"];
        let head = format!("on_error = \"{}\"", if open { "release-unjudged" } else { "block" });
        let rules = format!("[action.rule]\nbeer = \"{}\"\nsword = \"{}\"", NAMES[rules[0]], NAMES[rules[1]]);
        let (without, _) = gate(&faults, &[], &head, &rules);
        let (with, _) = gate(&faults, &of_canary, &head, &format!("{rules}\n{}", canary(share, "stable")));
        prop_assert_eq!(play(&with, &id, &members), play(&without, &id, &members));
    }

    /// Whichever of the two decides, nothing comes out that it finds violated and the policy does not allow.
    #[test]
    fn a_canary_that_decides_lets_nothing_out_that_it_would_not(
        of_canary in prop::collection::vec(fault(), 0..8),
        objects in prop::collection::vec(0_usize..4, 0..4),
        open in any::<bool>(),
    ) {
        let head = format!("on_error = \"{}\"", if open { "release-unjudged" } else { "block" });
        let (gate, log) = gate(&[], &of_canary, &head, &canary(1.0, "canary"));
        let record = one(&gate, &log, &objects);
        let judgment = record.attempts[0].judgment.as_ref().unwrap();
        let released = record.outcome == Outcome::Released;
        // The trial's rules are all of low severity, which is allowed: only a failure keeps a picture back.
        prop_assert_eq!(released, judgment.verdict != Judgment::Error);
        prop_assert!(!record.unjudged);
    }
}
