//! Previews that are judged at a glance, and thresholds that say how sure they must be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cluegate_gate::fakes::{CONSTITUTION, World, gate, picture};
use cluegate_gate::{
    ConstitutionRecord, Gate, GateError, Instruction, Judgment, MemoryLog, Policies, PreviewFigures,
    PreviewInstruction, PreviewThreshold, PreviewThresholds, RequestInfo, Session,
};
use cluegate_judge::Templates;

const TABLES: &str = "[tenant.t.action]\ndefault = \"redact\"\n[tenant.t.action.rule]\nsmoking = \"regenerate\"\n\
                      sword = \"block\"";
/// What a smoker is made of.
const SMOKER: [usize; 2] = [0, 3];

fn session(gate: &Gate) -> Session {
    gate.session(RequestInfo::new("t", "a man", 7, 2)).unwrap()
}

fn aborts(session: &mut Session, step: u32, objects: &[usize]) -> bool {
    matches!(
        session.preview(0, step, 10, &picture(objects, step as u8)).unwrap(),
        PreviewInstruction::Abort(_)
    )
}

#[test]
fn only_rules_that_give_a_picture_up_are_asked_and_suspects_first() {
    let world = World::new([]);
    let (gate, log) = gate(&world, "tries = 2\npreviews = [0.2, 0.5]", TABLES);
    let mut session = session(&gate);
    // A beer may be hidden in the finished picture: nobody asks about it.
    assert!(!aborts(&mut session, 2, &[1]));
    // An attempt at the other picture violates a rule, and from then on that one is asked first.
    assert!(matches!(session.finished(1, picture(&SMOKER, 1)).unwrap(), Instruction::DrawAgain(_)));
    assert!(!aborts(&mut session, 5, &[]));
    // What comes of it is a glance, which gives no leave to release.
    assert!(aborts(&mut session, 5, &[2]));
    let glances = world.glances.lock().unwrap().clone();
    assert_eq!(glances.len(), 3);
    for (glance, first) in glances.iter().zip([&[][..], &["smoking"], &["smoking"]]) {
        assert_eq!((&glance.rules[..], glance.enough), (&["smoking", "sword"].map(str::to_owned)[..], 0.0));
        assert_eq!(glance.first, first);
    }
    drop(session);
    let records = log.records();
    let previews = &records[0].attempts[0].previews;
    assert_eq!(previews.iter().map(|preview| preview.aborted).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!((previews[0].judgment.verdict, previews[0].threshold), (Judgment::Safe, None));
    assert!(previews[0].score.unwrap() < 0.0 && previews[2].score.unwrap() > 0.4);
    assert_eq!(previews[0].judgment.evidence.as_ref().unwrap()["stages"]["reasoning"], false);
}

#[test]
fn where_no_rule_gives_a_picture_up_no_preview_is_wanted() {
    let world = World::new([]);
    let tables = "[tenant.t.action]\ndefault = \"redact\"";
    let (gate, log) = gate(&world, "previews = [0.5]", tables);
    let mut session = session(&gate);
    assert!(!session.wants_preview(0, 5, 10));
    assert!(!aborts(&mut session, 5, &[2]));
    assert!(world.glances.lock().unwrap().is_empty() && world.unfinished.lock().unwrap().is_empty());
    drop(session);
    assert!(log.records()[0].attempts[0].previews.is_empty());
}

#[test]
fn what_a_requester_may_see_is_judged_by_the_whole_method() {
    for (keys, tables, shown) in [
        ("previews = [0.5]", "[tenant.t.client]\npreviews = true", true),
        ("previews = [0.5]\npreview_judgment = \"whole\"", "", false),
    ] {
        let world = World::new([]);
        let (gate, log) = gate(&world, keys, tables);
        let mut session = session(&gate);
        let seen = session.preview(0, 5, 10, &picture(&[], 0)).unwrap();
        assert!(matches!(seen, PreviewInstruction::Continue(seen) if seen.is_some() == shown));
        assert!(world.glances.lock().unwrap().is_empty());
        drop(session);
        let record = log.records().into_iter().find(|record| !record.attempts.is_empty()).unwrap();
        let stages = &record.attempts[0].previews[0].judgment.evidence.as_ref().unwrap()["stages"];
        assert!(stages.as_object().unwrap().values().all(|on| on == true), "{stages}");
    }
}

/// A folder with the constitution, thresholds at 0.2 and 0.5 of the steps, and a policy that names them.
struct Calibrated {
    folder: tempfile::TempDir,
    thresholds: PreviewThresholds,
}

impl Calibrated {
    fn new(above: [f64; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("world.toml"), CONSTITUTION).unwrap();
        let plain = policies(folder.path(), "", TABLES);
        let constitution = plain.constitution(plain.require("t").unwrap()).unwrap();
        let thresholds = PreviewThresholds {
            generator: "generator-1".to_owned(),
            drawn: "10 steps".to_owned(),
            constitution: ConstitutionRecord {
                name: "world".to_owned(),
                revision: constitution.revision().to_hex(),
            },
            rules: vec!["smoking".to_owned(), "sword".to_owned()],
            models: BTreeMap::from([("judge".to_owned(), "fake-vlm".to_owned())]),
            templates: Templates::shipped().unwrap().hash(),
            thresholds: [0.2, 0.5]
                .into_iter()
                .zip(above)
                .map(|(at, above)| PreviewThreshold { at, above })
                .collect(),
            measured: PreviewFigures::default(),
        };
        Self { folder, thresholds }
    }

    fn gate(&self, world: &World) -> Result<(Gate, Arc<MemoryLog>), GateError> {
        let text = serde_json::to_string(&self.thresholds).unwrap();
        std::fs::write(self.folder.path().join("thresholds.json"), text).unwrap();
        self.gate_of(world, "previews = [0.2, 0.5]\npreview_thresholds = \"thresholds.json\"")
    }

    fn gate_of(&self, world: &World, keys: &str) -> Result<(Gate, Arc<MemoryLog>), GateError> {
        let log = Arc::new(MemoryLog::new(100));
        let shared = Arc::<MemoryLog>::clone(&log);
        Ok((Gate::new(&policies(self.folder.path(), keys, TABLES), Arc::new(world.clone()), shared)?, log))
    }

    /// Why a gate refuses them.
    fn refused(&self) -> String {
        self.gate(&World::new([])).err().unwrap().to_string()
    }
}

fn policies(folder: &Path, keys: &str, tables: &str) -> Policies {
    let policy = format!("[tenant.t]\nconstitution = \"world.toml\"\n{keys}\n{tables}\n");
    std::fs::write(folder.join("policy.toml"), policy).unwrap();
    Policies::load(folder.join("policy.toml")).unwrap()
}

#[test]
fn a_preview_gives_up_only_above_the_threshold_of_its_step() {
    // A violation is as sure as 0.49 in this world.
    let calibrated = Calibrated::new([0.495, 0.3]);
    let world = World::new([]);
    let (gate, log) = calibrated.gate(&world).unwrap();
    gate.prepare_all().unwrap();
    let mut session = session(&gate);
    assert!(session.wants_preview(0, 2, 10) && session.wants_preview(0, 5, 10));
    assert!(!aborts(&mut session, 2, &[2]), "not sure enough yet");
    // There is no threshold for this step, however sure it is.
    assert!(!aborts(&mut session, 3, &[2]));
    assert!(aborts(&mut session, 5, &[2]));
    drop(session);
    let records = log.records();
    let previews = &records[0].attempts[0].previews;
    let seen: Vec<_> =
        previews.iter().map(|preview| (preview.step, preview.aborted, preview.threshold)).collect();
    assert_eq!(seen, [(2, false, Some(0.495)), (5, true, Some(0.3))]);
    assert!(previews.iter().all(|preview| (0.48..0.495).contains(&preview.score.unwrap())));
    assert_eq!(previews[0].judgment.verdict, Judgment::Unsafe);
}

#[test]
fn thresholds_for_something_else_are_refused_or_give_nothing_up() {
    let fine = || Calibrated::new([0.1, 0.1]);
    let mut other = fine();
    other.thresholds.constitution.revision = "00".to_owned();
    assert!(
        other.refused().contains("of revision 00, and pictures are judged by world"),
        "{}",
        other.refused()
    );
    let mut other = fine();
    other.thresholds.rules.pop();
    assert!(other.refused().contains("gives pictures up for smoking, and this one does for smoking, sword"));
    let mut other = fine();
    other.thresholds.thresholds[1].at = 0.6;
    assert!(other.refused().contains("previews = [0.2, 0.6]"), "{}", other.refused());
    for (at, above) in [(0.1, 0.5), (1.0, 0.5), (0.5, -0.1), (0.5, 1.5)] {
        let mut other = fine();
        other.thresholds.thresholds[1] = PreviewThreshold { at, above };
        assert!(other.refused().contains("thresholds"), "{}", other.refused());
    }
    let keys = |file: &str| format!("previews = [0.2]\npreview_thresholds = \"{file}\"");
    let gone = fine().gate_of(&World::new([]), &keys("gone.json")).err().unwrap().to_string();
    assert!(
        gone.contains("tenant t: the preview thresholds gone.json") && gone.contains("No such file"),
        "{gone}"
    );
    let wrong = fine().gate_of(&World::new([]), &keys("world.toml")).err().unwrap().to_string();
    assert!(wrong.contains("expected a file that `cluegate calibrate previews` wrote"), "{wrong}");
    let steps = "previews = [5]\npreview_thresholds = \"thresholds.json\"";
    let world = fine();
    world.gate(&World::new([])).unwrap();
    assert!(world.gate_of(&World::new([]), steps).is_err());

    // Another judge shows where judges are prepared, and gives nothing up.
    for change in [
        |other: &mut PreviewThresholds| *other.models.get_mut("judge").unwrap() = "another".to_owned(),
        |other: &mut PreviewThresholds| other.templates = "other prompts".to_owned(),
    ] {
        let mut other = fine();
        change(&mut other.thresholds);
        let (gate, _) = other.gate(&World::new([])).unwrap();
        if other.thresholds.models["judge"] == "another" {
            let refused = gate.prepare_all().unwrap_err().to_string();
            assert!(refused.contains("its judge was another, and is fake-vlm; calibrate again"), "{refused}");
        }
        assert!(!aborts(&mut session(&gate), 5, &[2]));
    }
    // Nor does another generator.
    let (gate, _) = fine().gate(&World::new([])).unwrap();
    for (generator, expected) in [(None, true), (Some("generator-1"), true), (Some("generator-2"), false)] {
        let generator = generator.map(str::to_owned);
        let request = RequestInfo { generator, ..RequestInfo::new("t", "a man", 7, 1) };
        let mut session = gate.session(request).unwrap();
        assert_eq!(session.wants_preview(0, 5, 10), expected);
        assert_eq!(aborts(&mut session, 5, &[2]), expected);
    }
}

#[test]
fn thresholds_are_read_again_when_policies_are_replaced() {
    let mut calibrated = Calibrated::new([0.495, 0.495]);
    let world = World::new([]);
    let (gate, _) = calibrated.gate(&world).unwrap();
    assert!(!aborts(&mut session(&gate), 5, &[2]));
    let keys = "previews = [0.2, 0.5]\npreview_thresholds = \"thresholds.json\"";
    let again = gate.replace(&policies(calibrated.folder.path(), keys, TABLES)).unwrap();
    assert_eq!((again.unchanged, again.changed.len()), (1, 0));
    calibrated.thresholds.thresholds[1].above = 0.1;
    calibrated.gate(&world).unwrap();
    let changed = gate.replace(&policies(calibrated.folder.path(), keys, TABLES)).unwrap();
    assert_eq!((changed.unchanged, changed.changed.len()), (0, 1));
    assert!(aborts(&mut session(&gate), 5, &[2]));
}

#[test]
fn a_policy_for_which_thresholds_mean_nothing_is_refused() {
    let keys = "previews = [0.5]\npreview_thresholds = \"thresholds.json\"";
    for (keys, tables) in [
        (format!("{keys}\npreview_judgment = \"whole\""), ""),
        (keys.to_owned(), "[tenant.t.client]\npreviews = true"),
        ("preview_thresholds = \"\"".to_owned(), ""),
    ] {
        let text = format!("[tenant.t]\n{keys}\n{tables}");
        let refused = Policies::from_toml(&text, "policy.toml").unwrap_err().to_string();
        assert!(refused.starts_with("policy.toml: `tenant.t.preview_thresholds` must be"), "{refused}");
    }
}
