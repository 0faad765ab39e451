//! The gate under test, as a part of its own: the real server over the real decision log, with scripted models.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use cluegate_constitution::Constitution;
use cluegate_gate::fakes::{CONSTITUTION, Fault, World};
use cluegate_gate::{
    Decision, DecisionLog, Gate, InspectionError, Inspector, JsonlLog, JudgeProvider, LogError, Policies,
    SharedJudge, Unfinished,
};
use cluegate_judge::{Report, fakes};
use cluegate_perception::{Call, Detection, Picture};
use cluegate_server::{App, Config, Server, upstream};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng};
use serde::{Deserialize, Serialize};

use super::process::{say_ready, tell_fault};

/// Name of the threads that the gate judges on.
const JUDGE_THREAD: &str = "cluegate-judge";

/// What it is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Options {
    /// Folder for its files; the decision log is `decisions.jsonl` in it.
    pub(super) folder: PathBuf,
    /// The configuration without `listen` and paths.
    pub(super) config: String,
    /// The policy; its constitution is `world.toml`.
    pub(super) policy: String,
    /// Seed of the faults of judge and log; none for an instant verdict of "safe" and no fault.
    pub(super) faults: Option<u64>,
}

/// Runs the part.
pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let folder = &options.folder;
    std::fs::write(folder.join("world.toml"), CONSTITUTION)?;
    std::fs::write(folder.join("policy.toml"), &options.policy)?;
    let text = format!("listen = \"127.0.0.1:0\"\npolicy = \"policy.toml\"\n{}", options.config);
    let config = Config::parse(&text, "the benchmark's configuration", folder)?;
    let policies = Policies::load(folder.join("policy.toml"))?;
    let log = JsonlLog::open(folder.join("decisions.jsonl"))?;
    let gate = match options.faults {
        None => Gate::new(&policies, Arc::new(Instant::new()?), Arc::new(log))?,
        Some(seed) => {
            let log = Arc::new(FullDisk::new(log, seed));
            Gate::new(&policies, Arc::new(FaultyWorld::new(seed)), log)?
        }
    };
    if options.faults.is_some() {
        // The judge panics because it is told to; a panic anywhere else is news.
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() != Some(JUDGE_THREAD) {
                told(panic);
            }
        }));
    }
    cluegate_server::keep_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let drawer = config.upstream.as_ref().map(|named| upstream::open(named, None)).transpose()?;
        let app = App::new(config, Arc::new(gate), drawer)?;
        let server = Server::bind(app).await?;
        say_ready(server.local_addr()?)?;
        server.run(std::future::pending()).await;
        Ok(())
    })
}

/// The path of a gate's decision log.
pub(super) fn log_of(folder: &Path) -> PathBuf {
    folder.join("decisions.jsonl")
}

/// A judge that finds everything safe without a look at the pixels.
pub(super) struct Instant(SharedJudge);

impl Instant {
    /// Makes its judge.
    pub(super) fn new() -> anyhow::Result<Self> {
        // Well below what the statement gets without a picture, so that nothing is reasoned about.
        let judge = fakes::judge(|picture, _| if picture.is_some() { 0.01 } else { 0.5 });
        let judge = judge.context("the scripted judge")?;
        Ok(Self(SharedJudge::new(Arc::new(judge), Arc::new(fakes::FakeDetector::new(|_, _| Vec::new())))))
    }
}

impl JudgeProvider for Instant {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        self.0.inspector(constitution)
    }
}

/// The same without the server: for the timings of single stages.
pub(super) fn instant_gate(folder: &Path) -> anyhow::Result<Gate> {
    logged_gate(folder, Arc::new(JsonlLog::open(log_of(folder))?))
}

/// The same with another log; the tenant is `t`.
pub(super) fn logged_gate(folder: &Path, log: Arc<dyn DecisionLog>) -> anyhow::Result<Gate> {
    std::fs::write(folder.join("world.toml"), CONSTITUTION)?;
    let policy = folder.join("policy.toml");
    std::fs::write(&policy, "[tenant.t]\nconstitution = \"world.toml\"\n")?;
    Ok(Gate::new(&Policies::load(policy)?, Arc::new(Instant::new()?), log)?)
}

/// Faults of the judge that are planned; after them it works.
const PLANNED: usize = 1 << 20;
/// Share of judgments with which something is wrong.
const WRONG: f64 = 0.05;

/// The scripted world, with faults by a seed.
struct FaultyWorld {
    world: World,
    plan: Arc<Vec<Fault>>,
}

impl FaultyWorld {
    fn new(seed: u64) -> Self {
        let mut chance = SmallRng::seed_from_u64(seed);
        let kinds =
            [Fault::Error, Fault::OutOfTime, Fault::Panic, Fault::Hang, Fault::OtherPicture, Fault::Partial];
        let mut one = || match chance.random_bool(WRONG) {
            true => kinds[chance.random_range(0..kinds.len())],
            false => Fault::None,
        };
        let plan: Vec<Fault> = (0..PLANNED).map(|_| one()).collect();
        Self { world: World::new(plan.iter().copied()), plan: Arc::new(plan) }
    }
}

impl JudgeProvider for FaultyWorld {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        let inner = self.world.inspector(constitution)?;
        let unfinished = Arc::clone(&self.world.unfinished);
        Ok(Arc::new(Counted { inner, plan: Arc::clone(&self.plan), unfinished }))
    }
}

/// Judgments so far, of all constitutions: the world's faults are one list.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Tells of each fault of the world.
struct Counted {
    inner: Arc<dyn Inspector>,
    plan: Arc<Vec<Fault>>,
    unfinished: Arc<Mutex<Vec<Unfinished>>>,
}

impl Counted {
    fn count(&self) {
        let fault = self.plan.get(CALLS.fetch_add(1, Ordering::Relaxed)).copied().unwrap_or(Fault::None);
        match fault {
            Fault::None => {}
            Fault::Error => tell_fault("judge error"),
            Fault::OutOfTime => tell_fault("judge out of time"),
            Fault::Panic => tell_fault("judge panic"),
            Fault::Hang => tell_fault("judge hangs"),
            Fault::OtherPicture => tell_fault("judge answers about another picture"),
            Fault::Partial => tell_fault("judge leaves a stage out"),
        }
    }
}

impl Inspector for Counted {
    fn constitution(&self) -> &Constitution {
        self.inner.constitution()
    }

    fn models(&self) -> std::collections::BTreeMap<String, String> {
        self.inner.models()
    }

    fn inspect(
        &self,
        picture: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.count();
        self.inner.inspect(picture, prompt, call)
    }

    fn inspect_unfinished(
        &self,
        picture: &Picture,
        kind: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.count();
        let answer = self.inner.inspect_unfinished(picture, kind, prompt, call);
        // The world remembers these for tests; here that would be memory that grows.
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).clear();
        answer
    }

    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        call: &Call,
    ) -> Result<Vec<Detection>, InspectionError> {
        self.inner.locate(picture, words, min_confidence, call)
    }
}

/// Share of lines at which the disk becomes full, and the most lines for which it stays so.
const FULL: f64 = 0.003;
const FULL_FOR: u32 = 20;

/// A log whose disk is full now and then.
struct FullDisk {
    inner: JsonlLog,
    state: Mutex<(SmallRng, u32)>,
}

impl FullDisk {
    fn new(inner: JsonlLog, seed: u64) -> Self {
        Self { inner, state: Mutex::new((SmallRng::seed_from_u64(seed ^ 0x6c6f67), 0)) }
    }

    fn is_full(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (chance, left) = &mut *state;
        if *left == 0 && chance.random_bool(FULL) {
            *left = chance.random_range(1..=FULL_FOR);
        }
        let full = *left > 0;
        *left = left.saturating_sub(1);
        full
    }
}

impl DecisionLog for FullDisk {
    fn append(&self, decision: &Decision<'_>) -> Result<(), LogError> {
        if self.is_full() {
            tell_fault("log disk full");
            return Err(LogError::new("decisions.jsonl", "could not be written: no space left on device"));
        }
        self.inner.append(decision)
    }
}
