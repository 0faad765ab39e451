//! Decisions and logs to test with.

use std::path::Path;
use std::sync::Arc;

use cluegate_audit::{AuditLog, Entry, LogPlaces, LogSettings, Query};
use cluegate_gate::policy::Policy;
use cluegate_gate::{Decision, DecisionLog, DecisionRecord, LogError, Policies};
use cluegate_store::Database;
use serde_json::json;
use tokio::runtime::Runtime;

/// A runtime as a gateway has it.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A record; `number` makes it differ from others.
pub(crate) fn record(tenant: &str, number: u64) -> DecisionRecord {
    let violated: &[&str] = if number.is_multiple_of(3) { &["beer"] } else { &[] };
    let (outcome, reason) =
        if violated.is_empty() { ("released", "safe") } else { ("withheld", "violation") };
    let at = jiff::Timestamp::from_second(1_790_000_000 + i64::try_from(number).unwrap()).unwrap();
    serde_json::from_value(json!({
        "decision_id": format!("00000000-0000-7000-8000-{number:012}"),
        "timestamp": at.to_string(),
        "tenant": tenant,
        "constitution": { "name": "world", "revision": "ab".repeat(32) },
        "models": { "judge": "fake" },
        "model": "sdxl",
        "requested_by": "desk",
        "subject": format!("user-{}", number % 5),
        "request": { "id": format!("request-{number}"), "prompt_hash": "cd".repeat(32),
                     "prompt": format!("a secret prompt {number}"), "seed": u64::MAX - number, "count": 1 },
        "member": 0,
        "outcome": outcome,
        "reason": reason,
        "message": "no rule is violated",
        "action": null,
        "violated": violated,
        "unjudged": false,
        "attempts": [{ "attempt": 1, "seed": number, "picture": "ef".repeat(32), "ms": 12.25,
                       "judgment": { "verdict": if violated.is_empty() { "safe" } else { "unsafe" },
                                     "violated": violated, "ms": 3.5,
                                     "evidence": { "rules": [{ "id": "beer", "score": 0.1 + number as f64 * 1e-7,
                                                               "thought": "there is a person called Ada" }] } } }],
        "timings_ms": { "total": 20.5, "judging": 3.5, "redacting": 0.0 },
    }))
    .unwrap()
}

pub(crate) fn policy() -> Arc<Policy> {
    let policies = Policies::from_toml("[tenant.kids]\nlog_prompts = true\n", "test").unwrap();
    Arc::clone(policies.get("kids").unwrap())
}

pub(crate) fn append(log: &AuditLog, record: &DecisionRecord) -> Result<(), LogError> {
    log.append(&Decision { record, judged: None, released: None, policy: &policy() })
}

/// Settings with everything that can be kept: subjects, and signed heads.
pub(crate) fn settings(folder: &Path) -> LogSettings {
    let key = folder.join("log.key");
    if !key.exists() {
        std::fs::write(&key, format!("k1:{}\n", "5a".repeat(32))).unwrap();
    }
    LogSettings {
        instance: Some("gate-1".to_owned()),
        head_key_file: Some(key.clone()),
        subject_key_file: Some(key),
        ..LogSettings::in_file(folder.join("decisions.jsonl"))
    }
}

pub(crate) fn open(runtime: &Runtime, settings: &LogSettings, database: Option<&Database>) -> AuditLog {
    runtime.block_on(AuditLog::open(settings, database.cloned())).unwrap()
}

/// A log with `count` decisions of `kids`, numbered from 1, that is closed again.
pub(crate) fn write(runtime: &Runtime, settings: &LogSettings, count: u64) {
    let log = open(runtime, settings, None);
    for number in 1..=count {
        append(&log, &record("kids", number)).unwrap();
    }
}

pub(crate) fn places(runtime: &Runtime, settings: &LogSettings, database: Option<&Database>) -> LogPlaces {
    LogPlaces::open(settings, database.map(|database| (database.clone(), runtime.handle().clone()))).unwrap()
}

/// What a query finds.
pub(crate) fn find(places: &LogPlaces, query: &Query) -> Vec<Entry> {
    let mut found = Vec::new();
    places
        .query(query, &mut |entry| {
            found.push(entry);
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
    found
}
