//! The plugin as a host and a gate see it, with the small detector of the goldens, which finds boxes as NudeNet's does.

// Helpers outside of test functions fail a test as the functions do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluegate_gate::fakes::{World, gate, picture, shows};
use cluegate_gate::{Instruction, OnUnsafe, Reason, RequestInfo};
use cluegate_onnx_classifier::{OnnxClassifier, SHIPPED};
use cluegate_perception::{Call, Classification, Picture, PictureClassifier as _};
use cluegate_plugin_host::{HostError, JudgeRole, Plugin, PluginSet, Roles, Search, Spec};
use serde_json::json;
use tempfile::TempDir;

/// The library, which lies beside the tests.
fn library() -> String {
    let name = format!("{}onnx_classifier{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    folder.join(name).display().to_string()
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../goldens")
}

/// A folder with the detector and its description: a picture is unsafe from this score of the label `a` on.
fn detector(least: f32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(goldens().join("detector.onnx"), folder.path().join("detector.onnx")).unwrap();
    let config = format!(
        "model = \"detector.onnx\"\n\
         [input]\nlayout = \"nchw\"\nchannels = \"rgb\"\nwidth = 32\nheight = 32\nfit = \"pad\"\n\
         [output]\nkind = \"yolo\"\nlabels = [\"a\", \"b\"]\n[unsafe]\na = {least:?}\n"
    );
    std::fs::write(folder.path().join("detector.toml"), config).unwrap();
    folder
}

fn spec(folder: &Path, config: serde_json::Value) -> Spec {
    let config = config.as_object().unwrap().clone();
    Spec { config, folder: folder.to_owned(), ..Spec::new("finds", library()) }
}

fn search() -> Search {
    Search::new(Vec::new(), []).allowing_all(true)
}

fn open(folder: &Path, config: serde_json::Value) -> Result<Plugin, HostError> {
    Plugin::open(spec(folder, config), &search())
}

/// What the model says without a host.
fn linked(folder: &Path, picture: &Picture) -> Classification {
    let model = OnnxClassifier::load(&folder.join("detector.toml")).unwrap();
    model.classify(std::slice::from_ref(picture), &Call::default()).unwrap().remove(0)
}

#[test]
fn a_loaded_plugin_finds_what_the_linked_model_finds() {
    let folder = detector(0.9);
    let plugin = open(folder.path(), json!({ "config": "detector.toml" })).unwrap();
    assert!(plugin.can("classify") && !plugin.can("generate") && plugin.description().concurrent);
    let seen = picture(&[1, 3], 5);
    let (found, expected) = (plugin.classify(&seen, &Call::default()).unwrap(), linked(folder.path(), &seen));
    assert_eq!((found.flagged, found.score), (expected.flagged, expected.score));
    assert!(!found.labels.is_empty());
    for (label, expected) in found.labels.iter().zip(&expected.labels) {
        let region = expected.region.map(|area| [area.left, area.top, area.right, area.bottom]);
        assert_eq!((&label.name, label.score, label.region), (&expected.name, expected.score, region));
    }
    assert_eq!(found.labels.len(), expected.labels.len());
}

#[test]
fn what_a_detector_finds_is_evidence_and_is_hidden() {
    let redacts =
        "[tenant.t.action]\ndefault = \"redact\"\n[tenant.t.redact]\nmethod = \"fill\"\nmax_share = 1.0";
    let seen = picture(&[1], 5);
    for (on_unsafe, least) in [(OnUnsafe::Note, 0.0), (OnUnsafe::Redact, 0.0), (OnUnsafe::Withhold, 1.0)] {
        let folder = detector(least);
        let expected = linked(folder.path(), &seen);
        let surest = expected.labels.iter().map(|label| label.score).fold(0.0, f32::max);
        let hide = BTreeMap::from(["a", "b"].map(|name| (name.to_owned(), surest)));
        let judge = JudgeRole { on_unsafe, hide, ..JudgeRole::new("finds") };
        let roles = Roles { judges: vec![judge], ..Roles::default() };
        let specs = vec![spec(folder.path(), json!({ "config": "detector.toml" }))];
        let set = PluginSet::open(specs, roles, &search()).unwrap();
        let (gate, log) = gate(&World::new([]), "", redacts);
        let gate = gate.with_extensions(Arc::new(set)).unwrap();
        let mut session = gate.session(RequestInfo::new("t", "a party", 1, 1)).unwrap();
        let told = session.finished(0, seen.clone()).unwrap();
        let record = log.records().remove(0);
        let finding = &record.attempts[0].plugins[0];
        assert_eq!((finding.flagged, finding.on_unsafe), (expected.flagged, on_unsafe));
        assert_eq!(finding.labels.len(), expected.labels.len());
        assert_eq!(finding.labels[0].score, surest);
        // The beer is hidden for the rule's sake, and the surest box with it.
        let [left, top, right, bottom] = finding.labels[0].region.unwrap();
        assert!(finding.labels[0].hide);
        let first = &record.attempts[0].redactions[0];
        let holds = |(x, y): (f32, f32)| {
            let (x, y) = (x as u32, y as u32);
            let mut areas = first.boxes.iter().map(|hidden| hidden.area);
            areas.any(|area| (area.left..area.right).contains(&x) && (area.top..area.bottom).contains(&y))
        };
        assert!(
            holds((left, top)) && holds((right - 0.01, bottom - 0.01)),
            "{:?} {:?}",
            finding.labels,
            first.boxes
        );
        assert!(holds((45.0, 12.0)), "the beer: {:?}", first.boxes);
        match told {
            Instruction::Release(released) => {
                assert_eq!(released.reason(), Reason::Redacted);
                assert!(!shows(released.pixels(), 1));
                assert!(on_unsafe != OnUnsafe::Redact || !first.plugins[0].flagged, "{first:?}");
            }
            // Whatever is hidden, a detector of chance finds something again: then nothing comes out.
            Instruction::Withhold(withheld) => {
                assert_eq!((withheld.reason(), on_unsafe), (Reason::RedactionFailed, OnUnsafe::Redact));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_name() {
    let folder = detector(0.5);
    for (config, word) in [
        (json!({ "config": "nowhere.toml" }), "nowhere.toml"),
        (json!({ "cnfig": "detector.toml" }), "did you mean `config`?"),
        (json!({}), "lacks the key `config`"),
    ] {
        let error = open(folder.path(), config).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    // The shipped descriptions need the models that they name.
    for (name, text) in SHIPPED {
        std::fs::write(folder.path().join(name), text).unwrap();
        let error = open(folder.path(), json!({ "config": name })).err().unwrap().to_string();
        assert!(error.contains(".onnx"), "{error}");
    }
}
