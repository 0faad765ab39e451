//! Plugins in the gate: what they keep back, hide, rewrite, publish and draw, and that a failure releases nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluegate_gate::fakes::{Fault, World, gate, picture, shows};
use cluegate_gate::{
    DrawJob, DrawOptions, Drawn, Gate, Generator, GeneratorError, Instruction, MemberOutcome, MemoryLog,
    OnUnsafe, Reason, RequestInfo, StepHook,
};
use cluegate_plugin_host::{HostError, JudgeRole, PluginGenerator, PluginSet, Roles, Spec};
use serde_json::json;

use crate::support::{examples, search, spec, unruly};

/// A gate over the world of the fakes with these plugins.
fn extended(
    head: &str,
    tables: &str,
    specs: Vec<Spec>,
    roles: Roles,
) -> (Gate, Arc<MemoryLog>, Arc<PluginSet>) {
    let set = Arc::new(PluginSet::open(specs, roles, &search(examples())).unwrap());
    let (gate, log) = gate(&World::new([]), head, tables);
    (gate.with_extensions(Arc::<PluginSet>::clone(&set)).unwrap(), log, set)
}

fn judge(plugin: &str) -> JudgeRole {
    JudgeRole::new(plugin)
}

/// The judge of reds, which finds a box and hides it where anything is hidden.
fn hides_reds(on_unsafe: OnUnsafe) -> JudgeRole {
    JudgeRole { on_unsafe, hide: BTreeMap::from([("red".to_owned(), 0.01)]), ..judge("colours") }
}

fn reds() -> Spec {
    spec("colours", json!({ "colour": "red", "share": 0.02 }))
}

fn finished(gate: &Gate, objects: &[usize]) -> Instruction {
    let mut session = gate.session(RequestInfo::new("t", "a party", 1, 1)).unwrap();
    session.finished(0, picture(objects, 1)).unwrap()
}

fn withheld(instruction: Instruction) -> (Reason, String) {
    match instruction {
        Instruction::Withhold(withheld) => (withheld.reason(), withheld.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_judge_keeps_back_what_it_calls_unsafe() {
    let roles = Roles { judges: vec![judge("colours")], ..Roles::default() };
    let (gate, log, _) = extended("", "", vec![reds()], roles);
    // A cigarette without a person violates no rule.
    let (reason, message) = withheld(finished(&gate, &[0]));
    assert_eq!(reason, Reason::Violation);
    assert!(message.starts_with("the plugin colours calls the picture unsafe (0."), "{message}");
    assert_eq!(log.records().last().unwrap().message, message);
    assert!(matches!(finished(&gate, &[]), Instruction::Release(_)));
    // By a statement instead.
    let statements = vec!["the picture is mostly red".to_owned()];
    let role = JudgeRole { statements, threshold: 0.02, ..judge("colours") };
    let (gate, ..) = extended("", "", vec![reds()], Roles { judges: vec![role], ..Roles::default() });
    let (_, message) = withheld(finished(&gate, &[0]));
    assert!(message.starts_with("the plugin colours says that the picture is mostly red (0."), "{message}");
    assert!(matches!(finished(&gate, &[]), Instruction::Release(_)));
    // A policy that only watches lets it pass, as it does what the judge finds.
    let roles = Roles { judges: vec![judge("colours")], ..Roles::default() };
    let (gate, ..) = extended("mode = \"shadow\"", "", vec![reds()], roles);
    assert!(matches!(finished(&gate, &[0]), Instruction::Release(_)));
}

#[test]
fn what_a_judge_finds_is_evidence_whatever_comes_of_it() {
    for (on_unsafe, reason) in [
        (OnUnsafe::Withhold, Reason::Violation),
        (OnUnsafe::Redact, Reason::Redacted),
        (OnUnsafe::Note, Reason::Safe),
    ] {
        let roles = Roles { judges: vec![hides_reds(on_unsafe)], ..Roles::default() };
        let (gate, log, set) = extended("", "[tenant.t.redact]\nmethod = \"fill\"", vec![reds()], roles);
        finished(&gate, &[0]);
        let record = log.records().remove(0);
        assert_eq!(record.reason, reason, "{}", record.message);
        let [finding] = record.attempts[0].plugins.as_slice() else { panic!("{record:?}") };
        assert_eq!(
            (finding.plugin.as_str(), finding.flagged, finding.on_unsafe),
            ("colours", true, on_unsafe)
        );
        assert_eq!(finding.fingerprint, set.get("colours").unwrap().fingerprint());
        // A checkerboard of 16 x 16 pixels at (8, 8), of which every other one is red.
        let [label] = finding.labels.as_slice() else { panic!("{finding:?}") };
        assert_eq!(
            (label.name.as_str(), label.region, label.hide),
            ("red", Some([8.0, 8.0, 24.0, 24.0]), true)
        );
        assert!((label.score - 128.0 / 4096.0).abs() < 1e-6 && finding.score == f64::from(label.score));
        // Of a picture that shows nothing red the log says so.
        finished(&gate, &[]);
        let finding = log.records().remove(1).attempts.remove(0).plugins.remove(0);
        assert!(!finding.flagged && finding.labels.is_empty());
    }
    let few = JudgeRole { log_labels: 0, ..judge("colours") };
    let (gate, log, _) = extended("", "", vec![reds()], Roles { judges: vec![few], ..Roles::default() });
    finished(&gate, &[0]);
    let finding = log.records().remove(0).attempts.remove(0).plugins.remove(0);
    assert_eq!((finding.labels.len(), finding.labels_omitted), (0, 1));
    let asked = JudgeRole {
        statements: vec!["the picture is mostly red".to_owned()],
        on_unsafe: OnUnsafe::Note,
        ..judge("colours")
    };
    let (gate, log, _) = extended("", "", vec![reds()], Roles { judges: vec![asked], ..Roles::default() });
    finished(&gate, &[0]);
    let finding = log.records().remove(0).attempts.remove(0).plugins.remove(0);
    assert_eq!(finding.answers[0].statement, "the picture is mostly red");
    assert!(!finding.flagged && (finding.answers[0].share - 128.0 / 4096.0).abs() < 1e-6);
}

#[test]
fn a_judge_has_hidden_what_it_finds_and_looks_at_the_result() {
    let fill = "[tenant.t.redact]\nmethod = \"fill\"";
    let roles = || Roles { judges: vec![hides_reds(OnUnsafe::Redact)], ..Roles::default() };
    let (gate, log, _) = extended("", fill, vec![reds()], roles());
    let Instruction::Release(released) = finished(&gate, &[0]) else { panic!("withheld") };
    assert_eq!(released.reason(), Reason::Redacted);
    assert!(!shows(released.pixels(), 0) && released.pixels() != picture(&[0], 1).pixels());
    let record = log.records().remove(0);
    assert!(
        record
            .message
            .starts_with("the plugin colours calls the picture unsafe (0.03: red 0.03); nothing is")
    );
    let [redaction] = record.attempts[0].redactions.as_slice() else { panic!("{record:?}") };
    // The plugin's box, widened by a tenth on each side.
    let hidden = redaction.boxes[0].area;
    assert_eq!([hidden.left, hidden.top, hidden.right, hidden.bottom], [6, 6, 26, 26]);
    assert!(!redaction.plugins[0].flagged && record.action.is_none());

    // A rule that blocks is stronger than what a plugin would have hidden.
    assert_eq!(withheld(finished(&gate, &[0, 2])).0, Reason::Violation);
    // Nothing that it names can be found: it stays unsafe.
    let others =
        JudgeRole { hide: BTreeMap::from([("blue".to_owned(), 0.0)]), ..hides_reds(OnUnsafe::Redact) };
    let (gate, log, _) = extended("", fill, vec![reds()], Roles { judges: vec![others], ..Roles::default() });
    assert_eq!(withheld(finished(&gate, &[0])).0, Reason::RedactionFailed);
    assert!(log.records()[0].message.contains("calls the picture unsafe"));
    // Hidden in a way that leaves it red, it is found again: cells of the mean colour of a box that is red alone.
    let (gate, log, _) = extended("", "[tenant.t.redact]\ngrow = 0.0\nwiden = 0.0", vec![reds()], roles());
    let outcome = finished(&gate, &[0]);
    let record = log.records().remove(0);
    let last = record.attempts[0].redactions.last().unwrap();
    assert_eq!(matches!(outcome, Instruction::Release(_)), !last.plugins[0].flagged, "{record:?}");

    // A judge that fails releases nothing that a plugin wants hidden, whatever the policy says of such judges.
    let set = Arc::new(PluginSet::open(vec![reds()], roles(), &search(examples())).unwrap());
    let (gate, _) =
        cluegate_gate::fakes::gate(&World::new([Fault::Error]), "on_error = \"release-unjudged\"", fill);
    let gate = gate.with_extensions(set).unwrap();
    assert_eq!(withheld(finished(&gate, &[0])).0, Reason::JudgeError);
    assert!(
        matches!(finished(&gate, &[0]), Instruction::Release(released) if released.reason() == Reason::Redacted)
    );
}

#[test]
fn what_a_judge_finds_is_hidden_beside_what_a_rule_turns_on() {
    let redacts = "[tenant.t.action]\ndefault = \"redact\"\n[tenant.t.redact]\nmethod = \"fill\"";
    let roles = Roles { judges: vec![hides_reds(OnUnsafe::Note)], ..Roles::default() };
    let (gate, log, _) = extended("", redacts, vec![reds()], roles);
    // Nothing is hidden for the plugin's sake alone.
    assert!(
        matches!(finished(&gate, &[0]), Instruction::Release(released) if released.reason() == Reason::Safe)
    );
    // But where the beer is hidden, what is red is too.
    let Instruction::Release(released) = finished(&gate, &[0, 1]) else { panic!("withheld") };
    assert_eq!(released.reason(), Reason::Redacted);
    assert!(!shows(released.pixels(), 0) && !shows(released.pixels(), 1));
    assert_eq!(log.records()[1].attempts[0].redactions[0].boxes.len(), 2);
    let (gate, _) = cluegate_gate::fakes::gate(&World::new([]), "", redacts);
    let Instruction::Release(released) = finished(&gate, &[0, 1]) else { panic!("withheld") };
    assert!(shows(released.pixels(), 0) && !shows(released.pixels(), 1));
}

#[test]
fn a_plugin_that_fails_releases_nothing_whatever_the_policy_says_of_judges() {
    for (does, reason, says) in [
        ("fail", Reason::JudgeError, "it was told to fail"),
        ("panic", Reason::JudgeError, "it panicked"),
        ("nan", Reason::JudgeError, "expected a score from 0 to 1"),
        ("hang", Reason::JudgeTimeout, "gave no answer within 100 ms"),
    ] {
        let roles = Roles { judges: vec![judge("unruly")], ..Roles::default() };
        let spec = Spec { deadline: Duration::from_millis(100), ..unruly(does) };
        let (gate, ..) = extended("on_error = \"release-unjudged\"", "", vec![spec], roles);
        let (found, message) = withheld(finished(&gate, &[]));
        assert!(found == reason && message.contains(says), "{does}: {found:?} {message}");
    }
}

#[test]
fn an_action_hides_in_place_of_the_gate() {
    let redacts = "[tenant.t.redact]\nmethod = \"blur\"\n[tenant.t.action]\ndefault = \"redact\"";
    for role in ["redact", "inpaint"] {
        let mut roles = Roles::default();
        let name = Some("pixelate".to_owned());
        if role == "redact" {
            roles.redact = name
        } else {
            roles.inpaint = name
        }
        let (gate, ..) = extended("", redacts, vec![spec("pixelate", json!({}))], roles);
        let Instruction::Release(released) = finished(&gate, &[1]) else { panic!("{role}") };
        assert_eq!(released.reason(), Reason::Redacted);
        // The plugin's own hand: the gate would have blurred.
        let by_hand = |head: &str| {
            let (gate, _) = cluegate_gate::fakes::gate(&World::new([]), head, redacts);
            match finished(&gate, &[1]) {
                Instruction::Release(released) => released.picture().hash(),
                other => panic!("{other:?}"),
            }
        };
        assert_ne!(released.picture().hash(), by_hand(""));
    }
    for does in ["larger", "panic", "fail"] {
        let roles = Roles { redact: Some("unruly".to_owned()), ..Roles::default() };
        let (gate, ..) = extended("on_error = \"release-unjudged\"", redacts, vec![unruly(does)], roles);
        assert_eq!(withheld(finished(&gate, &[1])).0, Reason::JudgeError, "{does}");
    }
    // One that hides nothing is found out by the judge.
    let roles = Roles { redact: Some("unruly".to_owned()), ..Roles::default() };
    let (gate, ..) = extended("", redacts, vec![unruly("")], roles);
    assert_eq!(withheld(finished(&gate, &[1])).0, Reason::RedactionFailed);
}

/// Draws a sword at the first attempt only.
#[derive(Default)]
struct Knight(Mutex<Vec<String>>);

impl Generator for Knight {
    fn fingerprint(&self) -> &str {
        "knight"
    }

    fn draw(&self, jobs: &[DrawJob], _: &mut dyn StepHook) -> Vec<Result<Drawn, GeneratorError>> {
        let draw = |job: &DrawJob| {
            self.0.lock().unwrap().push(job.prompt.to_string());
            let objects: &[usize] = if job.attempt == 1 { &[2] } else { &[] };
            Ok(Drawn::Finished(picture(objects, job.attempt as u8)))
        };
        jobs.iter().map(draw).collect()
    }
}

#[test]
fn an_action_rewrites_the_prompts_of_further_attempts() {
    let again =
        "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.regenerate]\nstrategies = [\"avoid\"]";
    let drive = |plugin: &str, spec: Spec| {
        let roles = Roles { rewrite: Some(plugin.to_owned()), ..Roles::default() };
        let (gate, ..) = extended("", again, vec![spec], roles);
        let knight = Knight::default();
        let request = RequestInfo::new("t", "a knight", 1, 1);
        let outcome = gate.drive(&knight, request, DrawOptions::default()).unwrap().remove(0);
        (outcome, knight.0.into_inner().unwrap())
    };
    let (outcome, prompts) = drive("pixelate", spec("pixelate", json!({})));
    assert!(matches!(outcome, MemberOutcome::Released(_)));
    assert_eq!(prompts, ["a knight", "a knight, without: a sword is visible"]);
    let (outcome, prompts) = drive("unruly", unruly("fail"));
    assert_eq!((outcome.decision().reason, prompts.len()), (Reason::JudgeError, 1));
}

fn published(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("published.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_action_is_told_of_every_decision_and_nothing_is_released_without() {
    let folder = tempfile::tempdir().unwrap();
    let tells = Spec { folder: folder.path().to_path_buf(), ..spec("pixelate", json!({})) };
    let roles = Roles { publish: vec!["pixelate".to_owned()], ..Roles::default() };
    let (gate, log, _) = extended("", "", vec![tells], roles);
    finished(&gate, &[]);
    finished(&gate, &[2]);
    let told = published(folder.path());
    let ids: Vec<_> = log.records().iter().map(|record| json!(record.decision_id)).collect();
    assert_eq!(told.iter().map(|entry| entry["decision_id"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(told.len(), 2);
    let roles = Roles { publish: vec!["unruly".to_owned()], ..Roles::default() };
    let (gate, ..) = extended("", "", vec![unruly("fail")], roles);
    assert_eq!(withheld(finished(&gate, &[])).0, Reason::LogFailure);
}

#[test]
fn a_pipeline_draws_for_the_gate() {
    let roles = Roles { pipeline: Some("scenes".to_owned()), ..Roles::default() };
    let (gate, _, set) =
        extended("previews = [0.5]\nclient.previews = true", "", vec![spec("scenes", json!({}))], roles);
    let generator = PluginGenerator::new(Arc::clone(&set), "scenes").unwrap();
    let outcomes =
        gate.drive(&generator, RequestInfo::new("t", "a disc", 3, 2), DrawOptions::default()).unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, MemberOutcome::Released(_))), "{outcomes:?}");
    let record = outcomes[0].decision();
    assert_eq!(record.attempts[0].previews.len(), 1);
    let sampler = DrawOptions { sampler: Some("DDIM".to_owned()), ..DrawOptions::default() };
    assert!(generator.check(&sampler).unwrap_err().to_string().contains("it has no samplers"));
    assert!(PluginGenerator::new(set, "scene").unwrap_err().to_string().contains("did you mean `scenes`?"));
}

#[test]
fn plugins_are_added_while_the_gate_runs() {
    let (gate, _, set) = extended("", "", Vec::new(), Roles::default());
    assert!(matches!(finished(&gate, &[0]), Instruction::Release(_)));
    let roles = Roles { judges: vec![judge("colours")], ..Roles::default() };
    assert_eq!(set.replace(vec![reds()], roles.clone(), &search(examples())).unwrap(), ["colours"]);
    assert_eq!(withheld(finished(&gate, &[0])).0, Reason::Violation);
    // What is as it was stays open; what cannot be used changes nothing.
    let before = set.get("colours").unwrap();
    assert!(set.replace(vec![reds()], roles.clone(), &search(examples())).unwrap().is_empty());
    assert!(Arc::ptr_eq(&before, &set.get("colours").unwrap()));
    let misnamed = Roles { rewrite: Some("colors".to_owned()), ..roles.clone() };
    let error = set.replace(vec![reds()], misnamed, &search(examples())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`plugins.rewrite` names the plugin \"colors\", which `plugins.use` does not have (did you mean `colours`?)"
    );
    let unable = Roles { redact: Some("colours".to_owned()), ..roles };
    let error = set.replace(vec![reds()], unable, &search(examples())).unwrap_err();
    assert!(matches!(error, HostError::Unsupported { .. }), "{error}");
    assert_eq!(withheld(finished(&gate, &[0])).0, Reason::Violation);
    // A broken one is opened again.
    let hangs = || Spec { deadline: Duration::from_millis(30), ..unruly("hang") };
    let set = PluginSet::open(vec![hangs()], Roles::default(), &search(examples())).unwrap();
    let broken = set.get("unruly").unwrap();
    let call = cluegate_perception::Call::default();
    assert!(broken.classify(&picture(&[], 1), &call).is_err() && broken.broken().is_some());
    assert_eq!(set.replace(vec![hangs()], Roles::default(), &search(examples())).unwrap(), ["unruly"]);
    assert!(set.get("unruly").unwrap().broken().is_none());
}
