//! Policies that are replaced while requests are served.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cluegate_constitution::Constitution;
use cluegate_gate::policy::PieceKind;
use cluegate_gate::{
    Gate, InspectionError, Inspector, Instruction, JudgeProvider, MemoryLog, Policies, PreparedOptions,
    Reason, Replaced, RequestInfo, Session,
};
use proptest::prelude::*;

use super::inheritance::{Shelf, piece, tenant};
use cluegate_gate::fakes::{CONSTITUTION, World, picture};

/// The world's judges, counted, with preparations that fail as long as they are told to.
pub(crate) struct Counting {
    world: World,
    pub(crate) prepared: Mutex<BTreeMap<String, usize>>,
    pub(crate) failures: AtomicUsize,
}

impl Counting {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { world: World::new([]), prepared: Mutex::default(), failures: AtomicUsize::new(0) })
    }

    fn total(&self) -> usize {
        self.prepared.lock().unwrap().values().sum()
    }
}

impl JudgeProvider for Counting {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        *self.prepared.lock().unwrap().entry(constitution.revision().to_hex()).or_default() += 1;
        let failing =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match failing {
            Ok(_) => Err(InspectionError::new("gone", "the engine does not answer")),
            Err(_) => self.world.inspector(constitution),
        }
    }
}

/// The world's constitution under another name.
fn world(name: &str) -> String {
    CONSTITUTION.replace("\"world\"", &format!("\"{name}\""))
}

fn gate_of(policies: &Policies, judges: &Arc<Counting>) -> (Gate, Arc<MemoryLog>) {
    let log = Arc::new(MemoryLog::new(10_000));
    let judges: Arc<dyn JudgeProvider> = Arc::<Counting>::clone(judges);
    (Gate::new(policies, judges, Arc::clone(&log) as _).unwrap(), log)
}

fn ask(gate: &Gate, tenant: &str) -> Session {
    gate.session(RequestInfo::new(tenant, "a man", 7, 1)).unwrap()
}

fn released(session: &mut Session, objects: &[usize]) -> bool {
    matches!(session.finished(0, picture(objects, 0)).unwrap(), Instruction::Release(_))
}

#[test]
fn a_replacement_counts_for_new_sessions_and_an_open_one_keeps_what_it_began_with() {
    let shelf = Shelf::with(&[("world", CONSTITUTION)]);
    let policies = |action: &str| {
        let text = format!("constitution = \"world\"\n[action]\ndefault = \"{action}\"");
        Policies::from_pieces([tenant("t", &text)], Arc::clone(&shelf) as _).unwrap()
    };
    let (gate, _) = gate_of(&policies("block"), &Counting::new());
    let mut before = ask(&gate, "t");
    let replaced = gate.replace(&policies("allow")).unwrap();
    assert_eq!(replaced.changed, ["t".into()]);
    assert!(released(&mut ask(&gate, "t"), &[1]));
    assert!(!released(&mut before, &[1]));
    // A tenant that is gone is gone for new requests only.
    let mut before = ask(&gate, "t");
    let none = Policies::from_pieces([], Arc::clone(&shelf) as _).unwrap();
    assert_eq!(gate.replace(&none).unwrap().removed, ["t".into()]);
    assert!(gate.session(RequestInfo::new("t", "", 1, 1)).is_err());
    assert!(released(&mut before, &[1]));
}

#[test]
fn what_is_unchanged_keeps_its_judge_and_what_shares_a_constitution_shares_one() {
    let shelf = Shelf::with(&[("a", &world("a")), ("b", &world("b"))]);
    let first = [tenant("t", "constitution = \"a\""), tenant("u", "constitution = \"a\"\ntries = 2")];
    let policies = Policies::from_pieces(first, Arc::clone(&shelf) as _).unwrap();
    let judges = Counting::new();
    let (gate, _) = gate_of(&policies, &judges);
    assert_eq!(judges.total(), 0, "judges are prepared at first use");
    assert!(released(&mut ask(&gate, "t"), &[]) && released(&mut ask(&gate, "u"), &[]));
    assert_eq!(judges.total(), 1);
    let policies = policies.with_changes([tenant("v", "constitution = \"b\"")], &[]).unwrap();
    let added = Replaced { added: vec!["v".into()], unchanged: 2, ..Replaced::default() };
    assert_eq!(gate.replace(&policies).unwrap(), added);
    let changed = policies.with_changes([tenant("u", "constitution = \"a\"\ntries = 3")], &[]).unwrap();
    assert_eq!(gate.replace(&changed).unwrap().changed, ["u".into()]);
    for tenant in ["t", "u", "v"] {
        assert!(released(&mut ask(&gate, tenant), &[]));
    }
    assert_eq!(judges.total(), 2);
}

#[test]
fn a_text_that_changed_behind_its_name_counts() {
    let policies = Policies::from_pieces(
        [tenant("t", "constitution = \"a\""), tenant("u", "constitution = \"b\"")],
        Shelf::with(&[("a", &world("a")), ("b", &world("b"))]),
    )
    .unwrap();
    let (gate, _) = gate_of(&policies, &Counting::new());
    let before = gate.constitution("t").unwrap();
    assert_eq!(gate.replace(&policies).unwrap().unchanged, 2);
    let edited = policies.with_constitutions(Shelf::with(&[("a", &world("a2")), ("b", &world("b"))]));
    assert_eq!(gate.replace(&edited).unwrap().changed, ["t".into()]);
    assert_ne!(gate.constitution("t").unwrap().revision(), before.revision());
}

#[test]
fn a_template_that_changes_changes_all_who_build_on_it() {
    let shelf = Shelf::with(&[("a", &world("a"))]);
    let base =
        |tries: u32| piece(PieceKind::Template, "base", &format!("constitution = \"a\"\ntries = {tries}"));
    let pieces = [
        base(2),
        piece(PieceKind::Template, "middle", "extends = \"base\"\npriority = 1"),
        tenant("t", "extends = \"middle\""),
        tenant("u", "constitution = \"a\""),
    ];
    let policies = Policies::from_pieces(pieces, shelf).unwrap();
    let (gate, _) = gate_of(&policies, &Counting::new());
    let changed = policies.with_changes([base(3)], &[]).unwrap();
    let replaced = gate.replace(&changed).unwrap();
    assert_eq!((replaced.changed, replaced.unchanged), (vec!["t".into()], 1));
    assert_eq!((gate.policy("t").unwrap().tries, gate.policy("t").unwrap().priority), (3, 1));
    let gone = changed.with_changes([], &[(PieceKind::Template, "base")]).unwrap_err().to_string();
    assert_eq!(
        gone,
        "the store's template middle: `extends` names the template `base`, which is not there \
         (template.middle -> template.base)"
    );
}

#[test]
fn a_refused_replacement_changes_nothing() {
    let shelf = Shelf::with(&[("world", CONSTITUTION)]);
    let policies = Policies::from_pieces([tenant("t", "constitution = \"world\"")], shelf).unwrap();
    let (gate, _) = gate_of(&policies, &Counting::new());
    let bad = policies.with_changes([tenant("u", "constitution = \"wrld\"")], &[]).unwrap();
    let error = gate.replace(&bad).unwrap_err().to_string();
    assert!(error.starts_with("tenant u: cannot read the constitution wrld"), "{error}");
    assert_eq!(gate.tenants(), ["t".into()]);
    assert!(released(&mut ask(&gate, "t"), &[]));
    assert!(policies.with_changes([tenant("t", "tries = 0")], &[]).is_err());
}

#[test]
fn a_judge_that_cannot_be_prepared_withholds_and_is_tried_again_later() {
    let shelf = Shelf::with(&[("world", CONSTITUTION)]);
    let text = "constitution = \"world\"\non_error = \"block\"";
    let policies = Policies::from_pieces([tenant("t", text)], shelf).unwrap();
    let judges = Counting::new();
    judges.failures.store(1, Ordering::SeqCst);
    let (gate, _) = gate_of(&policies, &judges);
    for _ in 0..3 {
        let mut session = ask(&gate, "t");
        let Instruction::Withhold(withheld) = session.finished(0, picture(&[], 0)).unwrap() else {
            panic!("not withheld")
        };
        assert_eq!(withheld.reason(), Reason::JudgeError);
        let told = "the judge failed (not-prepared): it cannot be prepared: the engine does not answer; tried again in";
        assert!(withheld.message().starts_with(told), "{}", withheld.message());
    }
    assert_eq!(judges.total(), 1, "not again at once");
    // Until its time has come.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !released(&mut ask(&gate, "t"), &[]) {
        assert!(std::time::Instant::now() < until, "never prepared again");
        std::thread::yield_now();
    }
    assert_eq!(judges.total(), 2);
}

#[test]
fn all_judges_can_be_asked_for_at_once() {
    let shelf = Shelf::with(&[("a", &world("a")), ("b", &world("b"))]);
    let pieces = [tenant("t", "constitution = \"a\"\n[canary]\nconstitution = \"b\"")];
    let policies = Policies::from_pieces(pieces, shelf).unwrap();
    let judges = Counting::new();
    let (gate, _) = gate_of(&policies, &judges);
    gate.warm_up();
    gate.wait_until_warm();
    assert_eq!((judges.total(), gate.judges_ready()), (2, 2));
    gate.prepare_all().unwrap();
    assert_eq!(judges.total(), 2);
    let broken = Counting::new();
    broken.failures.store(1, Ordering::SeqCst);
    let error = gate_of(&policies, &broken).0.prepare_all().unwrap_err().to_string();
    assert!(
        error.contains("tenant t: the judge cannot be prepared") && error.contains("does not answer"),
        "{error}"
    );
}

#[test]
fn the_judges_that_were_not_used_for_longest_are_given_up() {
    let names: Vec<String> = (0..5).map(|n| format!("c{n}")).collect();
    let texts: Vec<(&str, String)> = names.iter().map(|name| (name.as_str(), world(name))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let pieces = names.iter().map(|name| tenant(name, &format!("constitution = \"{name}\"")));
    let policies = Policies::from_pieces(pieces, Shelf::with(&texts)).unwrap();
    let judges = Counting::new();
    let log = Arc::new(MemoryLog::new(10));
    let options = PreparedOptions { kept: 2, at_once: 1 };
    let gate = Gate::with_options(&policies, Arc::clone(&judges) as _, log, options).unwrap();
    for name in ["c0", "c1", "c0", "c2", "c0"] {
        assert!(released(&mut ask(&gate, name), &[]));
    }
    assert_eq!((judges.total(), gate.judges_ready()), (3, 2));
    // c1 had to go for c2, c0 did not.
    assert!(released(&mut ask(&gate, "c1"), &[]));
    assert_eq!(judges.total(), 4);
    gate.warm_up();
    gate.wait_until_warm();
    assert_eq!(gate.judges_ready(), 2, "there is no room to warm up more");
}

#[test]
fn one_revision_is_prepared_once_however_many_ask() {
    let shelf = Shelf::with(&[("world", CONSTITUTION)]);
    let policies = Policies::from_pieces([tenant("t", "constitution = \"world\"")], shelf).unwrap();
    let judges = Counting::new();
    let (gate, log) = gate_of(&policies, &judges);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(released(&mut ask(&gate, "t"), &[])));
        }
    });
    assert_eq!((judges.total(), log.records().len()), (1, 8));
}

#[test]
fn sessions_and_replacements_do_not_get_in_each_others_way() {
    let shelf = Shelf::with(&[("a", &world("a")), ("b", &world("b"))]);
    let make = |name: &str, action: &str| {
        let text = format!("constitution = \"{name}\"\n[action]\ndefault = \"{action}\"");
        Policies::from_pieces([tenant("t", &text)], Arc::clone(&shelf) as _).unwrap()
    };
    // The constitution tells which of the two policies a decision was taken under.
    let both = [make("a", "block"), make("b", "allow")];
    let (gate, log) = gate_of(&both[0], &Counting::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..60 {
                        let mut session = ask(&gate, "t");
                        let allowed =
                            session.policy().actions.of("beer", cluegate_constitution::Severity::Medium);
                        let out = released(&mut session, &[1]);
                        assert_eq!(out, allowed == cluegate_gate::Action::Allow);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for turn in (0..2).cycle() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                gate.replace(&both[turn]).unwrap();
            }
        });
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        stop.store(true, Ordering::SeqCst);
    });
    for record in log.records() {
        let expected = if record.constitution.name == "a" { Reason::Violation } else { Reason::Allowed };
        assert_eq!(record.reason, expected);
    }
}

/// What a host and an operator do, in any order.
#[derive(Debug, Clone)]
enum Act {
    Open,
    Finish { session: usize, object: Option<usize> },
    Preview { session: usize },
    Close { session: usize },
    Replace { action: usize, constitution: usize },
    Refused,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Open),
        4 => (0_usize..8, prop::option::of(1_usize..3)).prop_map(|(session, object)| Act::Finish { session, object }),
        1 => (0_usize..8).prop_map(|session| Act::Preview { session }),
        1 => (0_usize..8).prop_map(|session| Act::Close { session }),
        3 => (0_usize..3, 0_usize..2).prop_map(|(action, constitution)| Act::Replace { action, constitution }),
        1 => Just(Act::Refused),
    ]
}

const ACTIONS: [&str; 3] = ["allow", "hold", "block"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Whatever is replaced in between, each decision is that of the policy and the constitution that its session began
    /// with.
    #[test]
    fn no_session_sees_two_policies(acts in prop::collection::vec(act(), 1..40)) {
        let names = ["a", "b"];
        let shelf = Shelf::with(&[("a", &world("a")), ("b", &world("b"))]);
        let make = |action: usize, constitution: usize| {
            let text = format!(
                "constitution = \"{}\"\npreviews = [0.5]\n[action]\ndefault = \"{}\"",
                names[constitution], ACTIONS[action]
            );
            Policies::from_pieces([tenant("t", &text)], Arc::clone(&shelf) as _).unwrap()
        };
        let mut in_force = (2, 0);
        let (gate, log) = gate_of(&make(2, 0), &Counting::new());
        let mut open: Vec<(Session, (usize, usize))> = Vec::new();
        let mut expected: Vec<(usize, usize)> = Vec::new();
        for act in acts {
            match act {
                Act::Open => open.push((ask(&gate, "t"), in_force)),
                Act::Replace { action, constitution } => {
                    gate.replace(&make(action, constitution)).unwrap();
                    in_force = (action, constitution);
                }
                Act::Refused => {
                    let bad = Policies::from_pieces([tenant("t", "constitution = \"c\"")], Arc::clone(&shelf) as _);
                    prop_assert!(gate.replace(&bad.unwrap()).is_err());
                }
                Act::Finish { session, object } if session < open.len() => {
                    let (mut session, began) = open.swap_remove(session);
                    let objects: Vec<usize> = object.into_iter().collect();
                    let instruction = session.finished(0, picture(&objects, 0)).unwrap();
                    let violates = object.is_some();
                    match instruction {
                        Instruction::Release(_) => prop_assert!(!violates || ACTIONS[began.0] == "allow"),
                        Instruction::Hold(_) => prop_assert!(violates && ACTIONS[began.0] == "hold"),
                        Instruction::Withhold(_) => prop_assert!(violates && ACTIONS[began.0] == "block"),
                        Instruction::DrawAgain(_) => prop_assert!(false, "no action draws again"),
                    }
                    expected.push(began);
                }
                Act::Preview { session } if session < open.len() => {
                    let (session, began) = &mut open[session];
                    session.preview(0, 5, 10, &picture(&[], 1)).unwrap();
                    prop_assert_eq!(session.policy().actions.of("beer", cluegate_constitution::Severity::Medium).as_str(),
                        ACTIONS[began.0]);
                }
                Act::Close { session } if session < open.len() => {
                    let (session, began) = open.swap_remove(session);
                    session.close();
                    expected.push(began);
                }
                Act::Finish { .. } | Act::Preview { .. } | Act::Close { .. } => {}
            }
        }
        let records = log.records();
        prop_assert_eq!(records.len(), expected.len());
        for (record, (_, constitution)) in records.iter().zip(expected) {
            prop_assert_eq!(&record.constitution.name, names[constitution]);
        }
    }
}
