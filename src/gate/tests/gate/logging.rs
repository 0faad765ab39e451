//! The decision log as it is written.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use cluegate_gate::{
    Decision, DecisionLog, Instruction, JsonlLog, MemoryLog, PreviewInstruction, Reason, RequestInfo,
};
use serde_json::Value;

use cluegate_gate::fakes::{World, gate, gate_with, picture};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Replaces what differs from run to run, and the evidence, whose form is the judge's.
fn stable(value: &mut Value, key: &str) {
    match (key, &mut *value) {
        ("decision_id" | "timestamp" | "id" | "revision", value) => *value = Value::from(format!("[{key}]")),
        ("evidence", value) => {
            assert!(value["rules"].as_array().is_some_and(|rules| rules.len() == 3));
            *value = Value::from("[evidence]");
        }
        ("ms" | "total" | "judging" | "redacting" | "judge_seconds", value) if value.is_f64() => {
            assert!(value.as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)));
            *value = Value::from("[ms]");
        }
        (_, Value::Object(fields)) => fields.iter_mut().for_each(|(key, value)| stable(value, key)),
        (_, Value::Array(items)) => items.iter_mut().for_each(|value| stable(value, "")),
        _ => {}
    }
}

#[test]
fn a_line_holds_the_whole_story() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let tables = "[tenant.t.action]\ndefault = \"regenerate\"\n[tenant.t.action.rule]\nbeer = \"redact\"";
    let log = Arc::new(JsonlLog::open(&path).unwrap());
    let head = "log_prompts = true\npreviews = [0.5]";
    let gate = gate_with(&World::new([]), head, tables, log).unwrap();
    let request =
        RequestInfo { generator: Some("generator-1".to_owned()), ..RequestInfo::new("t", "a man", 7, 1) };
    let mut session = gate.session(request).unwrap();
    let aborted = session.preview(0, 5, 10, &picture(&[2], 0)).unwrap();
    assert!(matches!(aborted, PreviewInstruction::Abort(Instruction::DrawAgain(_))));
    assert!(matches!(session.finished(0, picture(&[1], 0)).unwrap(), Instruction::Release(_)));
    // The line is there before the session ends.
    let mut lines = lines(&path);
    assert_eq!(lines.len(), 1);
    stable(&mut lines[0], "");
    insta::assert_json_snapshot!("decision", lines[0]);
}

#[test]
fn prompts_are_logged_only_where_the_policy_says_so() {
    let (gate, log) = gate(&World::new([]), "", "");
    let mut session = gate.session(RequestInfo::new("t", "a secret", 7, 1)).unwrap();
    session.finished(0, picture(&[], 0)).unwrap();
    let line = serde_json::to_string(&log.records()[0]).unwrap();
    assert!(!line.contains("a secret"));
    assert!(line.contains(&blake3::hash(b"a secret").to_hex().to_string()));
}

#[test]
fn sessions_on_many_threads_write_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let log = Arc::new(JsonlLog::open(&path).unwrap().durable(true));
    let gate = gate_with(&World::new([]), "placeholder = \"none\"", "", log).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let gate = &gate;
            scope.spawn(move || {
                for request in 0..5 {
                    let mut info = RequestInfo::new("t", "people", thread, 3);
                    info.id = Some(format!("{thread}-{request}"));
                    let mut session = gate.session(info).unwrap();
                    session.finished(0, picture(&[], 0)).unwrap();
                    session.finished(1, picture(&[2], 0)).unwrap();
                    assert_eq!(session.close().decisions.len(), 3);
                }
            });
        }
    });
    let lines = lines(&path);
    assert_eq!(lines.len(), 8 * 5 * 3);
    let of_one = lines.iter().filter(|line| line["request"]["id"] == "3-4").count();
    assert_eq!(of_one, 3);
    let ids: std::collections::HashSet<&str> =
        lines.iter().filter_map(|line| line["decision_id"].as_str()).collect();
    assert_eq!(ids.len(), lines.len());
}

#[test]
fn a_torn_line_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let (gate, memory) = gate(&World::new([]), "", "");
    let mut session = gate.session(RequestInfo::new("t", "people", 7, 1)).unwrap();
    session.finished(0, picture(&[], 0)).unwrap();
    let record = memory.records().remove(0);
    // Another process died while it wrote.
    fs::File::create(&path).unwrap().write_all(b"{\"decision_id\": \"0").unwrap();
    let log = JsonlLog::open(&path).unwrap();
    let policy = gate.policy("t").unwrap();
    let decision = Decision { record: &record, judged: None, released: None, policy: &policy };
    log.append(&decision).unwrap();
    log.append(&decision).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let parsed: Vec<bool> = text.lines().map(|line| serde_json::from_str::<Value>(line).is_ok()).collect();
    assert_eq!(parsed, [false, true, true]);
}

#[test]
fn memory_is_bounded() {
    let memory = Arc::new(MemoryLog::new(3));
    let log: Arc<dyn DecisionLog> = Arc::<MemoryLog>::clone(&memory);
    let gate = gate_with(&World::new([]), "placeholder = \"none\"", "", log).unwrap();
    drop(gate.session(RequestInfo::new("t", "people", 7, 10)).unwrap());
    let members: Vec<u32> = memory.records().iter().map(|record| record.member).collect();
    assert_eq!(members, [7, 8, 9]);
}

#[test]
fn a_log_that_cannot_be_opened_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = JsonlLog::open(folder.path()).unwrap_err().to_string();
    assert!(error.starts_with("the decision log ") && error.contains("could not be opened"), "{error}");
}

#[test]
fn several_programs_write_whole_lines_into_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    // Each opens the file for itself, as separate processes do.
    std::thread::scope(|scope| {
        for program in 0..4_u64 {
            let log = Arc::new(JsonlLog::open(&path).unwrap());
            scope.spawn(move || {
                let gate = gate_with(&World::new([]), "placeholder = \"none\"", "", log).unwrap();
                for seed in 0..10 {
                    let info = RequestInfo::new("t", format!("{program} {seed} ").repeat(500), seed, 1);
                    gate.session(info).unwrap().finished(0, picture(&[2], 0)).unwrap();
                }
            });
        }
    });
    assert_eq!(lines(&path).len(), 4 * 10);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4 * 10);
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_is_released_when_the_disk_is_full() {
    let log = Arc::new(JsonlLog::open("/dev/full").unwrap());
    let gate = gate_with(&World::new([]), "on_error = \"release-unjudged\"", "", log).unwrap();
    let mut session = gate.session(RequestInfo::new("t", "people", 7, 2)).unwrap();
    for member in 0..2 {
        let Instruction::Withhold(withheld) = session.finished(member, picture(&[], 0)).unwrap() else {
            panic!("a picture was released without its decision in the log")
        };
        assert_eq!(withheld.reason(), Reason::LogFailure);
        assert!(withheld.message().contains("/dev/full"), "{}", withheld.message());
    }
}
