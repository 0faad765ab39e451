//! How many decisions the log takes, what it adds to a request, and what queries over many decisions cost.
//!
//! `cargo run --release -p cluegate-audit --example decision_log -- write [SECONDS]` measures file, SQLite and PostgreSQL:
//! as many decisions as 64 threads can log, and then 2,000 a second at even distances, with the latency from when each was
//! due. `... -- query [DECISIONS] [FOLDER]` writes that many decisions and asks for some of them; `rss` is the most memory
//! that the process ever had. The last line of each is JSON.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluegate_audit::{AuditLog, LogPlaces, LogSettings, Query, VerifyOptions};
use cluegate_gate::policy::Policy;
use cluegate_gate::{Decision, DecisionLog as _, DecisionRecord, Policies};
use cluegate_store::Database;
use cluegate_store::testing::{Durability, PostgresServer, TestDatabase};
use serde_json::json;
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Threads that log at the same time.
const THREADS: u64 = 64;
/// Decisions a second of the paced measurement.
const RATE: u64 = 2000;

/// A decision with the evidence of a dozen rules, about 6 KB.
fn record(number: u64) -> Outcome<DecisionRecord> {
    let statement = |n: u64| {
        json!({ "text": "a person holds a burning cigarette in one hand", "score": 0.1234567 + n as f64 * 1e-5,
                "score_without_image": 0.25, "alpha1": -0.075, "alpha2": 0.6, "crop": false, "region": [],
                "score_region_removed": null, "rating": null, "decided_by": "below_alpha1", "holds": false, "rationale": null })
    };
    let rules: Vec<_> = (0..12)
        .map(|rule| {
            json!({ "id": format!("rule-{rule}"), "relevance": 0.21, "relevance_threshold": 0.2, "outcome": "not_violated",
                    "preconditions": [{ "satisfied": false, "statements": [statement(number + rule)] }] })
        })
        .collect();
    let violated = if number.is_multiple_of(50) { json!(["rule-3"]) } else { json!([]) };
    let (outcome, reason) =
        if number.is_multiple_of(50) { ("withheld", "violation") } else { ("released", "safe") };
    Ok(serde_json::from_value(json!({
        "decision_id": uuid::Uuid::now_v7().to_string(), "timestamp": jiff::Timestamp::now().to_string(),
        "tenant": format!("tenant-{}", number % 100), "constitution": { "name": "scene", "revision": "ab".repeat(32) },
        "models": { "judge": "qwen2-vl-7b", "relevance": "siglip", "detector": "owlv2" }, "model": "sdxl",
        "requested_by": "desk", "request": { "id": format!("request-{number}"), "prompt_hash": "cd".repeat(32),
        "prompt": "a cat and a tree on the grass", "seed": number, "count": 1 }, "member": 0, "outcome": outcome,
        "reason": reason, "message": "no rule is violated", "action": null, "violated": violated, "unjudged": false,
        "attempts": [{ "attempt": 1, "seed": number, "picture": "ef".repeat(32), "ms": 812.5,
                       "judgment": { "verdict": "safe", "violated": violated, "ms": 700.25, "evidence": { "rules": rules } } }],
        "timings_ms": { "total": 820.5, "judging": 700.25, "redacting": 0.0 } }))?)
}

fn policy() -> Outcome<Arc<Policy>> {
    let policies = Policies::shipped_default()?;
    Ok(Arc::clone(policies.require("default")?))
}

/// Logs with many threads for `time`; `due` says when the decision of a number may begin, if it is paced. Gives the
/// latencies in milliseconds, sorted, and the time.
fn load(log: &AuditLog, time: Duration, rate: Option<u64>) -> Outcome<(Vec<f64>, f64)> {
    let (policy, next, failed) = (policy()?, AtomicU64::new(0), AtomicBool::new(false));
    let records: Vec<DecisionRecord> = (0..64).map(record).collect::<Outcome<_>>()?;
    let begun = Instant::now();
    let mut latencies: Vec<f64> = std::thread::scope(|scope| {
        let work = || {
            let mut latencies = Vec::new();
            while begun.elapsed() < time && !failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = match rate {
                    Some(rate) => begun + Duration::from_nanos(number * 1_000_000_000 / rate),
                    None => Instant::now(),
                };
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let mut record = records[(number % 64) as usize].clone();
                record.decision_id = uuid::Uuid::now_v7().to_string();
                let decision = Decision { record: &record, judged: None, released: None, policy: &policy };
                if let Err(problem) = log.append(&decision) {
                    eprintln!("{problem}");
                    failed.store(true, Ordering::Relaxed);
                }
                latencies.push(due.elapsed().as_secs_f64() * 1e3);
            }
            latencies
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    if failed.into_inner() {
        return Err("the log failed".into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies.sort_by(f64::total_cmp);
    Ok((latencies, seconds))
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn measure_writing(time: Duration) -> Outcome<()> {
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let sqlite = TestDatabase::sqlite()?;
    let server = PostgresServer::start(Durability::On)?;
    let open = |url: &str| runtime.block_on(Database::open(url, cluegate_store::DatabaseOptions::default()));
    let file = LogSettings::in_file(folder.path().join("decisions.jsonl"));
    let tables = LogSettings { file: None, database: true, ..LogSettings::default() };
    let url = runtime.block_on(server.database())?;
    let places = [
        ("file", file, None),
        ("sqlite", tables.clone(), Some(open(&sqlite.url)?)),
        ("postgres", tables, Some(open(&url)?)),
    ];
    println!(
        "{:<10} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "place", "most/s", "at rate/s", "p50 ms", "p99 ms", "p99.9 ms"
    );
    let mut figures = serde_json::Map::new();
    for (name, settings, database) in places {
        let log = runtime.block_on(AuditLog::open(&settings, database))?;
        let (most, seconds) = load(&log, time, None)?;
        let most = most.len() as f64 / seconds;
        let (paced, seconds) = load(&log, time, Some(RATE))?;
        let rate = paced.len() as f64 / seconds;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(&paced, share));
        println!("{name:<10} {most:>12.0} {rate:>12.0} {p50:>12.2} {p99:>12.2} {p999:>12.2}");
        figures.insert(format!("decisions_per_s_{name}"), json!(most.round()));
        figures.insert(format!("p99_ms_{name}"), json!((p99 * 100.0).round() / 100.0));
    }
    println!("{}", serde_json::Value::Object(figures));
    Ok(())
}

/// The most memory that the process ever had, in MB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: f64 =
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN);
    (kilobytes / 1024.0).round()
}

fn fill(runtime: &Runtime, settings: &LogSettings, database: &Database, count: u64) -> Outcome<()> {
    let log = runtime.block_on(AuditLog::open(settings, Some(database.clone())))?;
    let (policy, next) = (policy()?, AtomicU64::new(0));
    std::thread::scope(|scope| -> Outcome<()> {
        let work = || -> Outcome<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                let record = record(number)?;
                log.append(&Decision { record: &record, judged: None, released: None, policy: &policy })?;
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })
}

fn measure_queries(count: u64, folder: &Path) -> Outcome<()> {
    let runtime = Runtime::new()?;
    let settings = LogSettings { database: true, ..LogSettings::in_file(folder.join("decisions.jsonl")) };
    let url = format!("sqlite:{}", folder.join("log.db").display());
    let database = runtime.block_on(Database::open(&url, cluegate_store::DatabaseOptions::default()))?;
    let begun = Instant::now();
    fill(&runtime, &settings, &database, count)?;
    println!(
        "{count} decisions in file and SQLite in {:.0} s; rss {} MB",
        begun.elapsed().as_secs_f64(),
        peak_memory()
    );
    let tables = LogPlaces::open(&settings, Some((database, runtime.handle().clone())))?;
    let file = LogPlaces::of_file(folder.join("decisions.jsonl"));
    let newest = record(7)?;
    let queries = [
        ("all of one tenant", Query::for_tenant("tenant-7")),
        ("a rule of one tenant", Query { rule: Some("rule-3".into()), ..Query::for_tenant("tenant-50") }),
        ("one request", Query { request: Some(newest.request.id), ..Query::for_tenant("tenant-7") }),
        (
            "first 50 withheld",
            Query { outcome: Some("withheld".into()), limit: Some(50), ..Query::for_operator() },
        ),
    ];
    println!("{:<24} {:>10} {:>14} {:>14}", "query", "decisions", "SQLite s", "file s");
    for (name, query) in &queries {
        let mut seconds = [0.0; 2];
        let mut found = [0_u64; 2];
        for (index, places) in [&tables, &file].into_iter().enumerate() {
            let begun = Instant::now();
            places.query(query, &mut |_| {
                found[index] += 1;
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            seconds[index] = begun.elapsed().as_secs_f64();
        }
        println!("{name:<24} {:>10} {:>14.3} {:>14.3}", found[0], seconds[0], seconds[1]);
        if found[0] != found[1] {
            return Err(format!("{name}: the file has {}", found[1]).into());
        }
    }
    let begun = Instant::now();
    let verified = file.verify(&VerifyOptions::default(), &mut |_| {})?;
    let verify_s = begun.elapsed().as_secs_f64();
    println!("{:<24} {:>10} {:>14} {verify_s:>14.3}", "verify", count, "");
    if let Some(broken) = verified.broken {
        return Err(broken.to_string().into());
    }
    println!(
        "{}",
        json!({ "decisions": count, "rss_mb": peak_memory(), "verify_s": (verify_s * 10.0).round() / 10.0 })
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| arguments.get(index).map_or(Ok(default), |text| text.parse());
    match arguments.first().map(String::as_str) {
        Some("write") => measure_writing(Duration::from_secs(number(1, 10)?)),
        Some("query") => {
            let temporary = tempfile::tempdir()?;
            let folder = arguments.get(2).map_or(temporary.path(), |folder| Path::new(folder));
            measure_queries(number(1, 1_000_000)?, folder)
        }
        _ => Err("write [SECONDS] or query [DECISIONS] [FOLDER]".into()),
    }
}
