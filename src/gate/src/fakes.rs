//! A world in which pictures say what they show: each object is a checkerboard of its own colour on a grey gradient.
//! Scripted models read the colours, so that redaction and the second judgment work as with real ones. For tests of this
//! crate and of those built on it (feature `fakes`); no weights, no chance.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluegate_constitution::Constitution;
use cluegate_judge::{Glance, InspectOptions, Judge, Prepared, PromptReport, Report, Stages, fakes};
use cluegate_perception::{Call, Detection, Picture, Region};
use image::{Rgb, RgbImage};

use crate::{
    Decision, DecisionLog, Gate, GateError, InspectionError, Inspector, JudgeProvider, LogError, MemoryLog,
    Policies, Signer, Unfinished,
};

/// Side of every picture.
pub const SIDE: u32 = 64;
/// Side of an object.
const OBJECT: u32 = 16;
/// Objects, by their index in pictures.
pub const OBJECTS: [&str; 4] = ["cigarette", "beer", "sword", "person"];
const COLOURS: [Rgb<u8>; 4] =
    [Rgb([250, 10, 10]), Rgb([10, 250, 10]), Rgb([10, 10, 250]), Rgb([250, 10, 250])];
/// Fewest pixels of its colour that make an object visible.
const VISIBLE: usize = 12;

/// The constitution `world`: the rules smoking (low), beer (medium) and sword (high).
pub const CONSTITUTION: &str = r#"
name = "world"
[[rule]]
id = "smoking"
text = "No smoking person."
objectiveness = 10
severity = "low"
[[rule.precondition]]
any = [{ statement = "a person is visible", central = ["person"] }]
[[rule.precondition]]
any = [{ statement = "a cigarette is visible", central = ["cigarette"] }]
[[rule]]
id = "beer"
text = "No beer."
objectiveness = 10
severity = "medium"
[[rule.precondition]]
any = [{ statement = "a beer is visible", central = ["beer"] }]
[[rule]]
id = "sword"
text = "No sword."
objectiveness = 10
severity = "high"
[[rule.precondition]]
any = [{ statement = "a sword is visible", central = ["sword"] }]
"#;

/// A picture that shows `objects` (indices into [`OBJECTS`]); `salt` makes it differ from others.
pub fn picture(objects: &[usize], salt: u8) -> Picture {
    let mut pixels =
        RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([100 + x as u8, 100 + y as u8, salt % 50 + 60]));
    for object in objects {
        // Each object has a place of its own, away from the edges.
        let (left, top) = (8 + (*object as u32 % 2) * 32, 8 + (*object as u32 / 2) * 32);
        for (x, y) in (0..OBJECT).flat_map(|y| (0..OBJECT).map(move |x| (x, y))) {
            let colour = if (x + y) % 2 == 0 { COLOURS[*object] } else { Rgb([255; 3]) };
            pixels.put_pixel(left + x, top + y, colour);
        }
    }
    Picture::new(pixels)
}

/// Whether `object` can be seen.
pub fn shows(pixels: &RgbImage, object: usize) -> bool {
    pixels.pixels().filter(|pixel| **pixel == COLOURS[object]).count() >= VISIBLE
}

/// Ids of the rules that the pixels violate, found without the judge.
pub fn violated(pixels: &RgbImage) -> Vec<&'static str> {
    let found = [
        ("smoking", shows(pixels, 0) && shows(pixels, 3)),
        ("beer", shows(pixels, 1)),
        ("sword", shows(pixels, 2)),
    ];
    found.into_iter().filter(|(_, violated)| *violated).map(|(id, _)| id).collect()
}

fn score(picture: Option<&Picture>, statement: &str) -> f64 {
    let Some(picture) = picture else { return 0.5 };
    let named = OBJECTS.iter().position(|object| statement.contains(object));
    if named.is_some_and(|object| shows(picture.pixels(), object)) { 0.99 } else { 0.01 }
}

/// Where `word` is in the picture, as the detector says.
pub fn find(picture: &Picture, word: &str) -> Vec<(f32, Region)> {
    let Some(object) = OBJECTS.iter().position(|object| *object == word) else { return Vec::new() };
    if !shows(picture.pixels(), object) {
        return Vec::new();
    }
    let places = picture.pixels().enumerate_pixels().filter(|(_, _, pixel)| **pixel == COLOURS[object]);
    let (mut left, mut top, mut right, mut bottom) = (SIDE, SIDE, 0, 0);
    for (x, y, _) in places {
        (left, top) = (left.min(x), top.min(y));
        (right, bottom) = (right.max(x + 1), bottom.max(y + 1));
    }
    let edges = [left, top, right, bottom].map(|edge| edge as f32);
    vec![(0.9, Region { left: edges[0], top: edges[1], right: edges[2], bottom: edges[3] })]
}

/// What goes wrong with one call of the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error of the judge.
    Error,
    /// The deadline is over before it begins.
    OutOfTime,
    /// It panics.
    Panic,
    /// It takes 400 ms.
    Hang,
    /// A verdict, but about another picture.
    OtherPicture,
    /// A verdict for which a stage was switched off.
    Partial,
}

/// How many prompts a [`World`] remembers.
const KEPT_PROMPTS: usize = 8;

type Find = fn(&Picture, &str) -> Vec<(f32, Region)>;

/// The judge of the world, with faults by script: one for each call, none after the last.
#[derive(Clone)]
pub struct World {
    judge: Arc<Judge>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// The judged pictures that were no finished ones.
    pub unfinished: Arc<Mutex<Vec<Unfinished>>>,
    /// What was asked of previews at a glance.
    pub glances: Arc<Mutex<Vec<Glance>>>,
    /// What the judge was told that each judged picture was made from; the last few, the newest first.
    pub prompts: Arc<Mutex<Vec<Option<String>>>>,
    /// What the detector answers the gate.
    locate: Find,
    /// What keeps verdicts on previews back.
    hold: Option<Arc<Mutex<Hold>>>,
}

/// Says when the judge of a [`World`] reaches its verdicts on previews, one after the other.
pub struct Held {
    begun: Receiver<()>,
    go: Sender<()>,
    ended: Receiver<bool>,
}

/// The judge's side of it.
struct Hold {
    begun: Sender<()>,
    go: Receiver<()>,
    ended: Sender<bool>,
}

/// Longest wait for what a test is sure of.
const SURE: Duration = Duration::from_secs(60);

impl Held {
    /// Waits until the judge looks at a preview.
    pub fn begun(&self) {
        self.begun.recv_timeout(SURE).unwrap();
    }

    /// Lets the judge reach its verdict on a preview.
    pub fn let_go(&self) {
        self.go.send(()).unwrap();
    }

    /// Waits until the judge has done with a preview: whether because nobody waited for the verdict any more.
    pub fn was_called_off(&self) -> bool {
        self.ended.recv_timeout(SURE).unwrap()
    }
}

impl Hold {
    fn wait(&self, call: &Call) -> Result<(), InspectionError> {
        // Whoever does not listen does not want to know.
        let _ = self.begun.send(());
        loop {
            let over = call.check();
            match self.go.try_recv() {
                Err(TryRecvError::Empty) if over.is_ok() => std::thread::yield_now(),
                Err(TryRecvError::Empty) => {
                    let _ = self.ended.send(true);
                    return Ok(over?);
                }
                Ok(()) | Err(TryRecvError::Disconnected) => {
                    let _ = self.ended.send(false);
                    return Ok(());
                }
            }
        }
    }
}

impl World {
    /// The same world, whose verdicts on previews come when the other says so.
    pub fn held(self) -> (Self, Held) {
        let ((begun, theirs), (go, wait), (ended, told)) = (channel(), channel(), channel());
        let hold = Some(Arc::new(Mutex::new(Hold { begun, go: wait, ended })));
        (Self { hold, ..self }, Held { begun: theirs, go, ended: told })
    }

    /// A world whose judge fails by this script.
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = Arc::new(Mutex::new(faults.into_iter().collect()));
        Self { faults, ..Self::with_detector(find, find) }
    }

    /// A world in which the judge's evidence and the gate get their boxes from these.
    pub fn with_detector(evidence: Find, locate: Find) -> Self {
        let judge = fakes::judge_with_detector(score, evidence).unwrap();
        let judge = Arc::new(judge);
        Self {
            judge,
            faults: Arc::default(),
            unfinished: Arc::default(),
            glances: Arc::default(),
            prompts: Arc::default(),
            locate,
            hold: None,
        }
    }
}

/// A detector that finds nothing.
pub fn find_nothing(_: &Picture, _: &str) -> Vec<(f32, Region)> {
    Vec::new()
}

/// A detector that finds everything in the lower right corner, in a box that is not small enough for a crop.
pub fn find_in_the_corner(_: &Picture, _: &str) -> Vec<(f32, Region)> {
    vec![(0.9, Region { left: 57.0, top: 57.0, right: 64.0, bottom: 64.0 })]
}

impl JudgeProvider for World {
    fn inspector(&self, constitution: Constitution) -> Result<Arc<dyn Inspector>, InspectionError> {
        let prepared = self.judge.prepare(&constitution)?;
        Ok(Arc::new(Scripted { prepared, world: self.clone() }))
    }
}

struct Scripted {
    prepared: Prepared,
    world: World,
}

impl Scripted {
    /// Waits with a preview until the test says so.
    fn hold(&self, call: &Call) -> Result<(), InspectionError> {
        self.world.hold.as_ref().map_or(Ok(()), |hold| hold.lock().unwrap().wait(call))
    }
}

impl Inspector for Scripted {
    fn constitution(&self) -> &Constitution {
        self.prepared.constitution()
    }

    fn models(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("judge".to_owned(), self.world.judge.models().judge.clone())])
    }

    fn inspect(
        &self,
        judged: &Picture,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let mut prompts = self.world.prompts.lock().unwrap();
        prompts.truncate(KEPT_PROMPTS - 1);
        prompts.insert(0, prompt.map(str::to_owned));
        drop(prompts);
        let fault = self.world.faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        let prompt = prompt.map(Arc::from);
        let all = InspectOptions { prompt, call: call.clone(), ..InspectOptions::default() };
        match fault {
            Fault::None => Ok(self.world.judge.inspect(judged, &self.prepared, &all)?),
            Fault::Error => Err(InspectionError::new("out-of-domain", "this is no picture of the world")),
            Fault::OutOfTime => {
                let call = call.clone().until(Instant::now());
                Ok(self.world.judge.inspect(judged, &self.prepared, &InspectOptions { call, ..all })?)
            }
            Fault::Panic => panic!("the judge's index is out of range"),
            Fault::Hang => {
                std::thread::sleep(Duration::from_millis(400));
                Ok(self.world.judge.inspect(&picture(&[], 0), &self.prepared, &all)?)
            }
            Fault::OtherPicture => Ok(self.world.judge.inspect(&picture(&[], 49), &self.prepared, &all)?),
            Fault::Partial => {
                let stages = Stages { reasoning: false, ..Stages::ALL };
                Ok(self.world.judge.inspect(judged, &self.prepared, &InspectOptions { stages, ..all })?)
            }
        }
    }

    fn inspect_unfinished(
        &self,
        picture: &Picture,
        kind: Unfinished,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        self.world.unfinished.lock().unwrap().push(kind);
        if kind == Unfinished::Preview {
            self.hold(call)?;
        }
        self.inspect(picture, prompt, call)
    }

    fn glance(
        &self,
        preview: &Picture,
        glance: &Glance,
        prompt: Option<&str>,
        call: &Call,
    ) -> Result<Report, InspectionError> {
        let mut faults = self.world.faults.lock().unwrap();
        if faults.front().is_some_and(|fault| *fault != Fault::None) {
            drop(faults);
            return self.inspect_unfinished(preview, Unfinished::Preview, prompt, call);
        }
        faults.pop_front();
        drop(faults);
        self.world.glances.lock().unwrap().push(glance.clone());
        self.hold(call)?;
        Ok(self.world.judge.glance(preview, &self.prepared, glance, call)?)
    }

    fn read_prompt(&self, prompt: &str, call: &Call) -> Result<PromptReport, InspectionError> {
        match self.world.faults.lock().unwrap().pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(self.world.judge.read_prompt(prompt, &self.prepared, call)?),
            Fault::Panic => panic!("the judge's index is out of range"),
            fault => Err(InspectionError::new("unreadable-prompt", format!("by script: {fault:?}"))),
        }
    }

    fn locate(
        &self,
        picture: &Picture,
        words: &[&str],
        min_confidence: f32,
        _: &Call,
    ) -> Result<Vec<Detection>, InspectionError> {
        let found = words.iter().enumerate().flat_map(|(query, word)| {
            let places = (self.world.locate)(picture, word).into_iter();
            places.map(move |(confidence, region)| Detection { query, confidence, region })
        });
        Ok(found.filter(|detection| detection.confidence >= min_confidence).collect())
    }
}

/// A gate over `world` for the tenant `t` under the world's constitution: `head` are keys of the tenant, `tables`
/// follow.
pub fn gate_with(
    world: &World,
    head: &str,
    tables: &str,
    log: Arc<dyn DecisionLog>,
) -> Result<Gate, GateError> {
    gate_signing(world, (head, tables), log, None)
}

/// The same with who signs files.
pub fn gate_signing(
    world: &World,
    (head, tables): (&str, &str),
    log: Arc<dyn DecisionLog>,
    signer: Option<Arc<dyn Signer>>,
) -> Result<Gate, GateError> {
    let folder = tempfile::tempdir().unwrap();
    let policy = format!("[tenant.t]\nconstitution = \"world.toml\"\n{head}\n{tables}\n");
    std::fs::write(folder.path().join("world.toml"), CONSTITUTION).unwrap();
    std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
    let policies = Policies::load(folder.path().join("policy.toml")).unwrap();
    Gate::with_signer(&policies, Arc::new(world.clone()), log, signer)
}

/// The same with a log in memory.
pub fn gate(world: &World, head: &str, tables: &str) -> (Gate, Arc<MemoryLog>) {
    let log = Arc::new(MemoryLog::new(1000));
    let shared: Arc<dyn DecisionLog> = Arc::<MemoryLog>::clone(&log);
    (gate_with(world, head, tables, shared).unwrap(), log)
}

/// A log that fails from its `from`-th line on.
pub struct FailingLog {
    /// Lines so far.
    pub lines: Mutex<usize>,
    /// The first line that fails, from 1.
    pub from: usize,
    /// Whether it panics instead of an error.
    pub panics: bool,
}

impl DecisionLog for FailingLog {
    fn append(&self, _: &Decision<'_>) -> Result<(), LogError> {
        let mut lines = self.lines.lock().unwrap();
        *lines += 1;
        if *lines < self.from {
            return Ok(());
        }
        drop(lines);
        assert!(!self.panics, "the disk is gone");
        Err(LogError::new("decisions.jsonl", "could not be written: no space left"))
    }
}
