//! Mixed load while everything fails that can: upstreams that die, lie and stall, a judge that panics, errs and hangs, a
//! log whose disk is full, clients that go away. Every picture of every answer is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cluegate_server::NewKey;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};

use super::checker::{Log, Seen};
use super::clients::{Caller, Count, Tally};
use super::overhead::below;
use super::process::{Faults, Part};
use super::{GatewayArgs, gate, upstream};
use crate::page::{Page, doing};
use crate::stats::slope;
use crate::table::Table;

/// Callers at a gate, each one request at a time.
const CALLERS: usize = 5;
/// Share of the time after which memory counts: before it, pools and caches fill.
const WARM: f64 = 0.2;
/// How long an upstream lives, in milliseconds.
const LIFE: std::ops::Range<u64> = 2_000..12_000;
/// And how long it is away then.
const AWAY: std::ops::Range<u64> = 200..3_000;
/// Objections that are printed.
const SHOWN: usize = 10;

/// The tenants' policies. Each treats violations in its own way; the first sees previews. No placeholders, which nobody
/// judges: every picture of an answer has to be a released one.
const POLICY: &str = r#"
[tenant.block]
constitution = "world.toml"
placeholder = "none"
previews = [0.25, 0.5, 0.75]
client = { evidence = true, previews = true }
limits = { judge_deadline_ms = 250 }
[tenant.again]
constitution = "world.toml"
placeholder = "none"
tries = 2
previews = [0.5]
action = { default = "regenerate" }
limits = { judge_deadline_ms = 250 }
[tenant.redact]
constitution = "world.toml"
placeholder = "none"
action = { default = "redact" }
limits = { judge_deadline_ms = 250, request_deadline_ms = 3000 }
"#;

/// What is said at the end.
pub(super) struct Soak {
    /// Pictures in answers that no release covers, or that show a violation.
    pub(super) unjudged: u64,
    pub(super) faults: u64,
}

/// A gate over an upstream that fails.
struct Site {
    dialect: String,
    folder: PathBuf,
    gate: Part,
    upstream: Mutex<Option<Part>>,
    keys: Vec<String>,
    memory: Mutex<Vec<(f64, f64)>>,
}

/// What all threads share.
struct Run {
    begin: Instant,
    end: Instant,
    faults: Faults,
    tally: Tally,
    failed: AtomicBool,
}

impl Run {
    fn goes_on(&self) -> bool {
        Instant::now() < self.end && !self.failed.load(Ordering::Relaxed)
    }

    /// Sleeps, but not beyond the end.
    fn sleep(&self, how_long: Duration) {
        thread::sleep(how_long.min(self.end.saturating_duration_since(Instant::now())));
    }
}

/// Runs the load for as long as the arguments say.
pub(super) fn run(arguments: &GatewayArgs, folder: &Path, page: &mut Page) -> anyhow::Result<Soak> {
    let minutes = if arguments.quick { arguments.minutes.min(0.5) } else { arguments.minutes };
    let faults = Faults::default();
    let sites = arguments.upstreams.iter().map(|dialect| {
        Site::start(dialect, &below(folder, &format!("soak-{dialect}"))?, arguments.seed, &faults)
    });
    let sites: Vec<Site> = sites.collect::<Result<_, _>>()?;
    doing(&format!("{minutes} minutes of mixed load with faults"));
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(minutes * 60.0);
    let run = Run { begin, end, faults, tally: Tally::default(), failed: AtomicBool::new(false) };
    thread::scope(|scope| -> anyhow::Result<()> {
        let run = &run;
        let mut workers = Vec::new();
        for (place, site) in sites.iter().enumerate() {
            let seed = arguments.seed.wrapping_mul(1000) + 100 * place as u64;
            workers.push(scope.spawn(move || stop_on_error(run, site.kill_now_and_then(run, seed))));
            workers.push(scope.spawn(move || stop_on_error(run, site.sample(run))));
            for caller in 1..=CALLERS as u64 {
                workers.push(scope.spawn(move || {
                    let mut caller = Caller::new(site.gate.address, &site.keys, seed + caller);
                    while run.goes_on() {
                        caller.call(&run.tally, &run.faults);
                    }
                    Ok(())
                }));
            }
        }
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        Ok(())
    })?;
    tell(&sites, run, minutes, page)
}

fn stop_on_error(run: &Run, ended: anyhow::Result<()>) -> anyhow::Result<()> {
    run.failed.fetch_or(ended.is_err(), Ordering::Relaxed);
    ended
}

impl Site {
    fn start(dialect: &str, folder: &Path, seed: u64, faults: &Faults) -> anyhow::Result<Self> {
        let drawing = Part::start("upstream", &upstream::Options::Faulty { port: 0, seed }, faults)?;
        let keys = ["block", "again", "redact"].map(|tenant| (NewKey::generate(), tenant));
        let entries: String = keys.iter().map(|(key, tenant)| key.entry(tenant, tenant)).collect();
        std::fs::write(folder.join("keys.toml"), entries)?;
        let config = format!(
            "[keys]\nfile = \"keys.toml\"\n[upstream]\nkind = \"{dialect}\"\nurl = \"http://{}\"\npoll_ms = 20\n\
             timeout_ms = 3000\n[limits]\nin_work = 4\nqueue = 3\nretry_after_s = 1\nrequest_timeout_ms = 8000\n\
             keep_ms = 20000\nkeep_bytes = 4000000\n",
            drawing.address
        );
        let options = gate::Options {
            folder: folder.to_path_buf(),
            config,
            policy: POLICY.to_owned(),
            faults: Some(seed),
        };
        Ok(Self {
            dialect: dialect.to_owned(),
            folder: folder.to_path_buf(),
            gate: Part::start("gate", &options, faults)?,
            upstream: Mutex::new(Some(drawing)),
            keys: keys.iter().map(|(key, _)| key.reveal().to_owned()).collect(),
            memory: Mutex::default(),
        })
    }

    /// Kills the upstream, in the midst of whatever it does, and starts it again at the same address.
    fn kill_now_and_then(&self, run: &Run, seed: u64) -> anyhow::Result<()> {
        let mut chance = SmallRng::seed_from_u64(seed);
        let mut slot = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        let port = slot.as_ref().context("the upstream is away")?.address.port();
        loop {
            run.sleep(Duration::from_millis(chance.random_range(LIFE)));
            if !run.goes_on() {
                return Ok(());
            }
            drop(slot.take());
            run.faults.count("upstream killed");
            run.sleep(Duration::from_millis(chance.random_range(AWAY)));
            let options = upstream::Options::Faulty { port, seed: chance.random_range(1..1 << 30) };
            *slot = Some(Part::start("upstream", &options, &run.faults)?);
        }
    }

    /// Notes the gate's memory, at least 20 times and at most once a minute.
    fn sample(&self, run: &Run) -> anyhow::Result<()> {
        let every = (run.end - run.begin).div_f64(20.0).min(Duration::from_secs(60));
        while run.goes_on() {
            run.sleep(every);
            let memory = self.gate.resident_mb().context("the gate is no more")?;
            let mut samples = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push((run.begin.elapsed().as_secs_f64() / 60.0, memory));
        }
        Ok(())
    }

    /// The samples after the warm-up: the first, the last, and the slope in MiB a minute.
    fn memory(&self, minutes: f64) -> (f64, f64, f64) {
        let samples = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let warm: Vec<(f64, f64)> = samples.iter().copied().filter(|(at, _)| *at >= WARM * minutes).collect();
        let value = |sample: Option<&(f64, f64)>| sample.map_or(f64::NAN, |(_, memory)| *memory);
        (value(warm.first()), value(warm.last()), slope(&warm))
    }
}

/// Where pictures have to be seen, for nothing is tested there else.
const SHOWS: [&str; 7] = [
    "A1111 txt2img",
    "OpenAI images",
    "OpenAI images, streamed",
    "judge",
    "sd.cpp poll",
    "ComfyUI frame",
    "ComfyUI view",
];
/// Faults that have to be met, beside those of the upstream's answers.
const MET: [&str; 8] = [
    "upstream killed",
    "client goes away",
    "judge error",
    "judge out of time",
    "judge panic",
    "judge hangs",
    "judge answers about another picture",
    "log disk full",
];
/// Minutes from which on a run is long enough to meet everything.
const LONG: f64 = 2.0;

/// Refuses a run in which something that should have happened did not.
fn was_tested(answers: &BTreeMap<&str, Count>, faults: &[(String, u64)], minutes: f64) -> anyhow::Result<()> {
    let pictures = |what: &str| answers.get(what).map_or(0, |count| count.pictures);
    ensure!(
        SHOWS.iter().any(|what| pictures(what) > 0),
        "no answer held a picture, so that nothing was tested"
    );
    if minutes < LONG {
        return Ok(());
    }
    let blind: Vec<&str> = SHOWS.into_iter().filter(|what| pictures(what) == 0).collect();
    ensure!(blind.is_empty(), "no picture came by these ways, so that they were not tested: {blind:?}");
    let wrongs = upstream::WRONGS.iter().map(|(_, name)| *name);
    let missed: Vec<&str> =
        MET.into_iter().chain(wrongs).filter(|kind| faults.iter().all(|(met, _)| met != kind)).collect();
    ensure!(missed.is_empty(), "these faults were never injected: {missed:?}");
    Ok(())
}

/// Compares what was seen with what was logged, and tells everything.
fn tell(sites: &[Site], run: Run, minutes: f64, page: &mut Page) -> anyhow::Result<Soak> {
    let mut log = Log::default();
    for site in sites {
        log.read(&gate::log_of(&site.folder))?;
    }
    let (seen, answers) = run.tally.into_parts();
    let object = |seen: &Seen| Some((seen.by, log.objection(seen)?));
    let mut objections: Vec<(&str, String)> = seen.iter().filter_map(object).collect();
    for (what, count) in &answers {
        objections.extend((0..count.parts).map(|_| (*what, format!("{what}: the beginning of a picture"))));
    }
    let faults = run.faults.all();
    let injected = faults.iter().map(|(_, count)| count).sum();

    page.heading(&format!("{minutes} minutes of mixed load with faults"))?;
    let mut table = Table::new(&["fault", "times"]);
    for (kind, count) in &faults {
        table.row(kind.as_str(), [count.to_string()]);
    }
    table.row("all", [u64::to_string(&injected)]);
    page.table(table)?;
    let mut table =
        Table::new(&["asked for", "2xx", "4xx", "5xx", "no answer", "pictures", "of them objected to"]);
    for (what, count) in &answers {
        let objected = objections.iter().filter(|(by, _)| by == what).count() as u64;
        let figures = [count.good, count.refused, count.failed, count.silent, count.pictures, objected];
        table.row(*what, figures.map(|figure: u64| figure.to_string()));
    }
    page.table(table)?;
    let mut table = Table::new(&["gate over", "MiB after warming up", "MiB at the end", "MiB more a minute"]);
    for site in sites {
        let (first, last, slope) = site.memory(minutes);
        table.row(site.dialect.as_str(), [first, last, slope].map(|value| format!("{value:.2}")));
    }
    page.table(table)?;
    page.text(&format!(
        "{} decisions, {} of them releases; {} pictures in answers, {} of which no release covers or a rule forbids.",
        log.decisions,
        log.releases,
        seen.len(),
        objections.len()
    ))?;
    for (_, objection) in objections.iter().take(SHOWN) {
        page.text(objection)?;
    }
    was_tested(&answers, &faults, minutes)?;
    Ok(Soak { unjudged: objections.len() as u64, faults: injected })
}
