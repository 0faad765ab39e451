//! Replay: what another policy would have made of what was logged by a real gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluegate_audit::{AuditLog, Candidate, LogPlaces, LogSettings, PictureSettings, Query, Replay};
use cluegate_gate::fakes::{self, World};
use cluegate_gate::{Gate, Policies, RequestInfo};
use tokio::runtime::Runtime;

use crate::support::{places, runtime, settings};

/// Policies over the fakes' constitution.
fn policies(folder: &std::path::Path, tables: &str) -> Policies {
    std::fs::write(folder.join("world.toml"), fakes::CONSTITUTION).unwrap();
    let file = folder.join("policy.toml");
    std::fs::write(&file, format!("[tenant.kids]\nconstitution = \"world.toml\"\ntries = 1\n{tables}"))
        .unwrap();
    Policies::load(&file).unwrap()
}

const KEEP: &str = "[tenant.kids.retention]\npictures = \"all\"\n";

/// A log of what a gate decided on pictures that show these objects.
fn logged(runtime: &Runtime, folder: &std::path::Path, shown: &[&[usize]]) -> (LogPlaces, LogSettings) {
    let pictures = PictureSettings { folder: folder.join("pictures"), key_file: None };
    let settings = LogSettings { pictures: Some(pictures), ..settings(folder) };
    let log = Arc::new(runtime.block_on(AuditLog::open(&settings, None)).unwrap());
    let world = Arc::new(World::new([]));
    let gate =
        Gate::new(&policies(folder, KEEP), world, Arc::clone(&log) as Arc<dyn cluegate_gate::DecisionLog>)
            .unwrap();
    for (salt, objects) in shown.iter().enumerate() {
        let mut session = gate.session(RequestInfo::new("kids", "a prompt", 1, 1)).unwrap();
        session.finished(0, fakes::picture(objects, u8::try_from(salt).unwrap())).unwrap();
        session.close();
    }
    drop(gate);
    drop(log);
    (places(runtime, &settings, None), settings)
}

fn replay(places: &LogPlaces, folder: &std::path::Path, tables: &str, pictures: bool) -> Replay {
    let then = policies(folder, KEEP);
    let then = then.constitution(then.require("kids").unwrap()).unwrap();
    let known = BTreeMap::from([(then.revision().to_hex(), *then.thresholds())]);
    let trial = policies(folder, tables);
    let policy = trial.require("kids").unwrap();
    let constitution = trial.constitution(policy).unwrap();
    let world = World::new([]);
    let inspector = cluegate_gate::JudgeProvider::inspector(&world, constitution.as_ref().clone()).unwrap();
    let candidate = Candidate {
        policy,
        constitution,
        known: &known,
        inspector: pictures.then_some(inspector.as_ref()),
        examples: 2,
    };
    places.replay(&Query::for_tenant("kids"), &candidate, &mut |_| {}).unwrap()
}

#[test]
fn the_same_policy_changes_nothing_and_others_change_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    // Nothing, a beer, a sword, a person who smokes, a cigarette alone, a beer and a sword.
    let (places, _settings) = logged(&runtime, folder.path(), &[&[], &[1], &[2], &[0, 3], &[0], &[1, 2]]);
    for pictures in [false, true] {
        let same = replay(&places, folder.path(), "", pictures);
        assert_eq!((same.decisions, same.differing()), (6, 0), "{same:?}");
        assert_eq!(same.changes, BTreeMap::from([("same", 6)]));
        assert_eq!(same.rules["beer"].then, 2);
        assert_eq!((same.rules["beer"].now, same.rules["sword"].now, same.rules["smoking"].now), (2, 2, 1));

        let milder = replay(
            &places,
            folder.path(),
            "[tenant.kids.action.rule]\nbeer = \"allow\"\nsmoking = \"hold\"\n",
            pictures,
        );
        assert_eq!(milder.changes, BTreeMap::from([("newly-released", 1), ("newly-held", 1), ("same", 4)]));
        assert_eq!(milder.examples["newly-released"][0].violated, ["beer"]);

        let fewer = replay(&places, folder.path(), "rules = [\"sword\"]\n", pictures);
        assert_eq!(fewer.changes, BTreeMap::from([("newly-released", 2), ("same", 4)]));
        assert_eq!((fewer.rules["smoking"].then, fewer.rules["smoking"].no_longer), (1, 1));
    }
}

#[test]
fn thresholds_are_folded_from_evidence_and_what_was_never_asked_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let (places, _settings) = logged(&runtime, folder.path(), &[&[], &[1]]);
    // M(x, c) is 0.99 or 0.01 and M(None, c) 0.5: between a1 and a2 of these, nothing is decided by the first lines, and the
    // next ones were never asked.
    let tables = "[tenant.kids.thresholds]\nalpha1 = 1.0\nalpha2 = 1.0\n";
    let unknown = replay(&places, folder.path(), tables, false);
    assert_eq!(unknown.changes, BTreeMap::from([("undecided", 2)]), "{unknown:?}");
    let why: String = unknown.undecided.keys().cloned().collect();
    assert!(why.contains("the score without the objects") || why.contains("the reasoning"), "{why}");
    // The pictures know.
    let known = replay(&places, folder.path(), tables, true);
    assert_eq!(known.changes.get("undecided"), None, "{known:?}");
    // Milder ones, by which the first lines still decide.
    let milder =
        replay(&places, folder.path(), "[tenant.kids.thresholds]\nalpha1 = 0.5\nalpha2 = 0.5\n", false);
    assert_eq!(milder.changes, BTreeMap::from([("same", 2)]), "{milder:?}");
}
