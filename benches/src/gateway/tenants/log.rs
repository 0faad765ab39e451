//! The rate of the decision log, and what it adds to a decision.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluegate_audit::{AuditLog, LogPlaces, Query};
use cluegate_gate::{Decision, DecisionLog, DecisionRecord, LogError, Policy};

use super::TenantsArgs;
use super::database::Place;
use super::gate::log_settings;
use crate::gateway::gate::logged_gate;
use crate::page::{Page, doing};
use crate::stats::Times;
use crate::streams::millis;
use crate::table::{Table, ms};

/// Decisions a second that have to be sustained.
const RATE: f64 = 2_000.0;
/// Bytes of a bare write, about what a batch of decisions takes, and how many of them there are a second.
const BARE_BYTES: usize = 16 << 10;
const BARE_RATE: f64 = 400.0;
/// Sessions that decide at once.
const SESSIONS: usize = 64;

/// Decisions a second over SQLite and over PostgreSQL, as many as will go.
pub(super) fn measure(arguments: &TenantsArgs, folder: &Path, page: &mut Page) -> anyhow::Result<[f64; 2]> {
    let folder = folder.join("log");
    std::fs::create_dir(&folder)?;
    let seconds = if arguments.quick { arguments.seconds.div_ceil(10) } else { arguments.seconds };
    let example = Example::new(&folder)?;
    page.heading("The decision log")?;
    page.text(&format!(
        "Decisions of {SESSIONS} sessions at once, each waiting until its own is durable in the database, on this machine's \
         disk. At a fixed rate: {RATE} a second for {seconds} s, latency from the time that a decision was due; at most: as \
         many as will go for {seconds} s. Every decision is counted in the log afterwards. Below, what the disk takes for \
         {BARE_BYTES} bytes more in a file and their sync, {BARE_RATE} times a second: a commit waits for that at least once."
    ))?;
    let mut table =
        Table::new(&["database", "at a fixed rate, 1/s", "p50 ms", "p99 ms", "longest ms", "at most, 1/s"]);
    let mut rates = [0.0; 2];
    for (number, place) in [Place::sqlite(&folder, "log.db")?, Place::postgres()?].into_iter().enumerate() {
        doing(&format!("the decision log in {}", place.name));
        let database = place.open()?;
        let log = place.runtime.block_on(AuditLog::open(&log_settings(), Some(database.clone())))?;
        // Connections, statements and files are there.
        append(&log, &example, Some(RATE), Duration::from_secs(1))?;
        let steady = append(&log, &example, Some(RATE), Duration::from_secs(seconds))?;
        let most = append(&log, &example, None, Duration::from_secs(seconds))?;
        rates[number] = most.rate;
        let at = |share| ms(steady.latencies.percentile(share));
        table.row(
            place.name,
            [
                format!("{:.0}", steady.rate),
                at(0.5),
                at(0.99),
                ms(steady.latencies.max()),
                format!("{:.0}", most.rate),
            ],
        );
        drop(log);
        let places = LogPlaces::open(&log_settings(), Some((database, place.runtime.handle().clone())))?;
        let mut found = 0;
        places.query(&Query::for_operator(), &mut |_| {
            found += 1;
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        let appended = example.appended.load(Ordering::Relaxed);
        ensure!(found == appended, "{appended} decisions were made durable, and {found} are there");
        example.appended.store(0, Ordering::Relaxed);
    }
    let bare = bare_syncs(&folder.join("bare"), Duration::from_secs(seconds.min(10)))?;
    let at = |share| ms(bare.percentile(share));
    table.row(
        "a bare write and sync",
        [format!("{BARE_RATE:.0}"), at(0.5), at(0.99), ms(bare.max()), String::new()],
    );
    page.table(table)?;
    Ok(rates)
}

/// How long it takes to bring a little more of a file to the disk, at a fixed rate.
fn bare_syncs(path: &Path, duration: Duration) -> anyhow::Result<Times> {
    let mut file = std::fs::File::create_new(path)?;
    let (begin, bytes) = (Instant::now(), [7_u8; BARE_BYTES]);
    let mut latencies = Vec::new();
    for number in 0_u32.. {
        let due = begin + Duration::from_secs_f64(f64::from(number) / BARE_RATE);
        if due.duration_since(begin) >= duration {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        latencies.push(millis(begun.elapsed()));
    }
    Ok(Times::new(latencies))
}

/// What came of some seconds.
struct Appended {
    rate: f64,
    latencies: Times,
}

/// Appends at `rate`, or as fast as will go.
fn append(
    log: &AuditLog,
    example: &Example,
    rate: Option<f64>,
    duration: Duration,
) -> anyhow::Result<Appended> {
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let session = || -> anyhow::Result<Vec<f64>> {
        let mut latencies = Vec::new();
        let mut record = example.record.clone();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due =
                rate.map_or_else(Instant::now, |rate| begin + Duration::from_secs_f64(number as f64 / rate));
            if due.duration_since(begin) >= duration {
                return Ok(latencies);
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let appended = example.appended.fetch_add(1, Ordering::Relaxed);
            record.decision_id = format!("decision-{appended}");
            record.request.id = format!("request-{appended}");
            let decision =
                Decision { record: &record, judged: None, released: None, policy: &example.policy };
            log.append(&decision)?;
            latencies.push(millis(due.elapsed()));
        }
    };
    let latencies = thread::scope(|scope| -> anyhow::Result<Vec<f64>> {
        let sessions: Vec<_> = (0..SESSIONS).map(|_| scope.spawn(session)).collect();
        let mut all = Vec::new();
        for session in sessions {
            all.extend(session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??);
        }
        Ok(all)
    })?;
    let rate = latencies.len() as f64 / begin.elapsed().as_secs_f64();
    Ok(Appended { rate, latencies: Times::new(latencies) })
}

/// A decision of a real session, which is logged again and again.
struct Example {
    record: DecisionRecord,
    policy: Arc<Policy>,
    appended: AtomicUsize,
}

impl Example {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let kept = Arc::new(Kept::default());
        let gate = logged_gate(folder, Arc::clone(&kept) as Arc<dyn DecisionLog>)?;
        crate::gateway::stages::release_one(&gate)?;
        let record = kept.0.lock().unwrap_or_else(PoisonError::into_inner).take().context("no decision")?;
        let policy = gate.policy("t").context("no policy")?;
        Ok(Self { record, policy, appended: AtomicUsize::new(0) })
    }
}

/// Keeps the last decision.
#[derive(Default)]
struct Kept(Mutex<Option<DecisionRecord>>);

impl DecisionLog for Kept {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(decision.record.clone());
        Ok(())
    }
}
