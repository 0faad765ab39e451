//! `cluegate calibrate previews`: when to look at previews, and how sure each must be to give a picture up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use cluegate::{CandleGenerator, Engine, EngineOptions};
use cluegate_constitution::Constitution;
use cluegate_eval::journal::Journal;
use cluegate_eval::previews::{self, Bounds, Point, Watched};
use cluegate_gate::policy::PreviewSchedule;
use cluegate_gate::{
    ConstitutionRecord, DrawJob, DrawOptions, Drawn, Generator as _, Inspector, JudgeProvider as _, Policies,
    PreviewThresholds, Step, StepHook,
};
use cluegate_models::Cores;
use cluegate_perception::{Call, Picture};
use cluegate_workers::AdmissionOptions;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::PreviewsArgs;
use super::prompts;
use crate::cli::args::Format;
use crate::cli::drawing::{generator, plain_options};
use crate::cli::generate::shipped_policies;
use crate::cli::{Exit, engine_options, progress, say, say_json, write_file};

/// What is written: the thresholds, and what they were chosen on.
const THRESHOLDS_FILE: &str = "thresholds.json";
const WATCHED_FILE: &str = "watched.jsonl";
/// Pictures that are watched in turn, to see what a preview takes; the others come side by side.
const ALONE: usize = 8;

/// One picture, as it is kept. Nothing of the picture itself is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Hash of all that the scores depend on but the prompt and the seed.
    about: String,
    prompt: String,
    seed: u64,
    #[serde(flatten)]
    watched: Watched,
    /// Of those that had the machine to themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<Seconds>,
}

/// What a picture took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    /// Its drawing without previews.
    drawing: f64,
    /// What the preview at each point takes to make.
    making: Vec<f64>,
    /// A preview's judgment.
    judging: f64,
}

/// What all pictures share.
struct Setting {
    generator: CandleGenerator,
    options: Arc<DrawOptions>,
    inspector: Arc<dyn Inspector>,
    rules: Vec<String>,
    at: Vec<f64>,
    cores: Cores,
    /// What the file will say of them, without thresholds yet.
    thresholds: PreviewThresholds,
}

impl Setting {
    fn open(
        arguments: &PreviewsArgs,
        constitution: &Constitution,
        rules: Vec<String>,
    ) -> anyhow::Result<Self> {
        let embedded = arguments.drawing.generator.is_none();
        let cores = Cores::of(arguments.threads.map(usize::from).or((!embedded).then_some(1)));
        // Every judgment is to cost what it costs, and none is refused a place.
        let options = engine_options(&arguments.judging.models.compute)?;
        let limit = cores.count().max(options.pictures.limit);
        let pictures = AdmissionOptions { limit, per_tenant: limit };
        let options = EngineOptions { verdicts: None, pictures, ..options };
        let engine = Engine::open_with(arguments.judging.models.models.as_deref(), &options)?;
        let inspector = engine.judges(arguments.judging.force).inspector(constitution.clone())?;
        let generator = generator(&arguments.drawing, &engine)?;
        let options = plain_options(&arguments.drawing);
        generator.check(&options)?;
        let thresholds = PreviewThresholds {
            generator: generator.fingerprint().to_owned(),
            drawn: generator.in_words(&options),
            constitution: ConstitutionRecord {
                name: constitution.name().to_owned(),
                revision: constitution.revision().to_hex(),
            },
            rules: rules.clone(),
            models: inspector.models(),
            templates: engine.judge().templates().hash(),
            thresholds: Vec::new(),
            measured: cluegate_gate::PreviewFigures::default(),
        };
        let options = Arc::new(options);
        Ok(Self { generator, options, inspector, rules, at: arguments.at.clone(), cores, thresholds })
    }

    /// Hash of all that a score depends on but the prompt and the seed.
    fn about(&self) -> anyhow::Result<String> {
        let text = serde_json::to_string(&(&self.thresholds, &self.at))?;
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }

    /// Draws a prompt, looks at its previews, and judges the picture.
    fn watch(&self, prompt: &str, seed: u64) -> anyhow::Result<(Watched, Seconds)> {
        let job = DrawJob {
            member: 0,
            attempt: 1,
            prompt: Arc::from(prompt),
            seed,
            avoid: Vec::new(),
            options: Arc::clone(&self.options),
        };
        let mut hook = Watching::new(self);
        let drawn = self.generator.draw(std::slice::from_ref(&job), &mut hook).into_iter().next();
        let picture = match drawn.context("the generator gave no answer")?? {
            Drawn::Finished(picture) => picture,
            Drawn::Stopped => bail!("the generator stopped without being asked to"),
        };
        let seconds = hook.seconds();
        let report = self.inspector.inspect_whole(&picture, None, &Call::default())?;
        let violating = previews::violates(&report, &self.rules);
        Ok((Watched { violating, scores: hook.scores }, seconds))
    }
}

/// Scores previews while a picture is drawn, and takes the time of its steps.
struct Watching<'a> {
    setting: &'a Setting,
    scores: Vec<Option<f64>>,
    /// Since when the step lasts.
    since: Instant,
    /// Whether each point is at its end.
    wanted: Vec<bool>,
    /// Seconds and number of steps without a preview.
    plain: (f64, u32),
    /// Seconds of the step that ends at each point, with its preview.
    watched: Vec<f64>,
    judging: (f64, u32),
}

impl<'a> Watching<'a> {
    fn new(setting: &'a Setting) -> Self {
        let points = setting.at.len();
        Self {
            setting,
            scores: vec![None; points],
            since: Instant::now(),
            wanted: vec![false; points],
            plain: (0.0, 0),
            watched: vec![0.0; points],
            judging: (0.0, 0),
        }
    }

    /// Ends a step, and begins the next.
    fn next(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        if !self.wanted.contains(&true) {
            self.plain = (self.plain.0 + seconds, self.plain.1 + 1);
        }
        for (slot, wanted) in self.watched.iter_mut().zip(&mut self.wanted) {
            if std::mem::take(wanted) {
                *slot = seconds;
            }
        }
        self.since = Instant::now();
    }

    fn seconds(&mut self) -> Seconds {
        // The last step, with the picture's own decoding.
        self.next();
        let mean = |(seconds, count): (f64, u32)| seconds / f64::from(count.max(1));
        let step = mean(self.plain);
        let (_, previews) = self.judging;
        Seconds {
            drawing: self.plain.0 + step * f64::from(previews),
            making: self.watched.iter().map(|seconds| (seconds - step).max(0.0)).collect(),
            judging: mean(self.judging),
        }
    }
}

impl StepHook for Watching<'_> {
    fn wants_preview(&mut self, _: usize, step: u32, total: u32) -> bool {
        self.next();
        for (at, wanted) in self.setting.at.iter().zip(&mut self.wanted) {
            *wanted = PreviewSchedule::step_at(*at, total) == step;
        }
        self.wanted.contains(&true)
    }

    fn step(&mut self, _: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        let Some(preview) = preview else { return Step::Continue };
        let begun = Instant::now();
        let score = previews::score(self.setting.inspector.as_ref(), &self.setting.rules, preview);
        for (at, slot) in self.setting.at.iter().zip(&mut self.scores) {
            if PreviewSchedule::step_at(*at, total) == step {
                *slot = score;
            }
        }
        // Not the step's time.
        let judging = begun.elapsed();
        self.since += judging;
        self.judging = (self.judging.0 + judging.as_secs_f64(), self.judging.1 + 1);
        Step::Continue
    }
}

pub(super) fn run(arguments: &PreviewsArgs) -> anyhow::Result<Exit> {
    check(arguments)?;
    let policies = match &arguments.policy {
        Some(file) => Policies::load(file)?,
        None => shipped_policies()?,
    };
    let policy = policies.require(&arguments.tenant)?;
    let constitution = policies.constitution(policy)?;
    let rules = policy.rules_that_end(&constitution);
    ensure!(
        !rules.is_empty(),
        "the policy of {} blocks and draws again for no rule: no preview would ever give a picture up",
        arguments.tenant
    );
    let prompts = match &arguments.prompts {
        Some(file) => prompts::read(file)?,
        None => prompts::embedded(&constitution, arguments.per_rule as usize, arguments.seed)?,
    };
    let setting = Setting::open(arguments, &constitution, rules)?;
    let (lines, failed) = watch_all(&setting, &prompts, arguments)?;
    let points = points(&lines, &setting.at, arguments.judge_elsewhere);
    let watched: Vec<Watched> = lines.into_iter().map(|line| line.watched).collect();
    let thresholds = choose(&setting, &watched, &points, arguments)?;
    let path = arguments.out.join(THRESHOLDS_FILE);
    write_file(&path, (serde_json::to_string_pretty(&thresholds)? + "\n").as_bytes())?;
    match arguments.judging.format {
        Format::Json => say_json(&json!({
            "file": path, "failed": failed, "thresholds": thresholds,
            "cost_of_a_preview": points.iter().map(|point| point.cost).collect::<Vec<_>>(),
        }))?,
        Format::Text => say(in_words(&thresholds, &points, failed, &path.display().to_string()))?,
    }
    Ok(Exit::Clean)
}

fn check(arguments: &PreviewsArgs) -> anyhow::Result<()> {
    let within = |share: &f64| *share > 0.0 && *share < 1.0;
    ensure!(
        arguments.at.iter().all(within) && arguments.at.is_sorted_by(|a, b| a < b),
        "--at: expected ascending shares between 0 and 1, found {:?}",
        arguments.at
    );
    for (name, share) in [("--false-aborts", arguments.false_aborts), ("--confidence", arguments.confidence)]
    {
        ensure!(within(&share), "{name}: expected a share between 0 and 1, found {share}");
    }
    Ok(())
}

/// Draws and watches every prompt that is not known yet. Also how many could not be drawn or judged; they are tried again
/// when the command is.
fn watch_all(
    setting: &Setting,
    prompts: &[String],
    arguments: &PreviewsArgs,
) -> anyhow::Result<(Vec<Line>, usize)> {
    let (journal, known) = Journal::open::<Line>(&arguments.out, WATCHED_FILE)?;
    let about = setting.about()?;
    ensure!(
        known.iter().all(|line| line.about == about),
        "{} was begun with another generator, constitution, policy, judge or --at: name another folder, or remove it",
        arguments.out.join(WATCHED_FILE).display()
    );
    let mut known: BTreeMap<(String, u64), Line> =
        known.into_iter().map(|line| ((line.prompt.clone(), line.seed), line)).collect();
    let mut lines = Vec::with_capacity(prompts.len());
    let mut due = Vec::new();
    for (number, prompt) in prompts.iter().enumerate() {
        let seed = arguments.seed.wrapping_add(number as u64) & 0xFFFF_FFFF;
        match known.remove(&(prompt.clone(), seed)) {
            Some(line) => lines.push((number, line)),
            None => due.push((number, prompt, seed)),
        }
    }
    let bar = progress::bar(prompts.len() as u64, "watching");
    bar.inc(lines.len() as u64);
    let journal = Mutex::new(journal);
    let keep = |(number, prompt, seed): (usize, &String, u64), alone: bool| {
        let watched = setting.watch(prompt, seed);
        bar.inc(1);
        let (watched, seconds) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                tracing::warn!(prompt, seed, error = format!("{error:#}"), "left out");
                return Ok(None);
            }
        };
        let (about, prompt, seconds) = (about.clone(), prompt.clone(), alone.then_some(seconds));
        let line = Line { about, prompt, seed, watched, seconds };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        anyhow::Ok(Some((number, journal.add(&line)?)))
    };
    // What previews take is seen of pictures that have the machine to themselves.
    let mut failed = 0;
    let mut due = due.into_iter();
    while lines.iter().filter(|(_, line)| line.seconds.is_some()).count() < ALONE {
        let Some(next) = due.next() else { break };
        match keep(next, true)? {
            Some(line) => lines.push(line),
            None => failed += 1,
        }
    }
    let due: Vec<_> = due.collect();
    for line in setting.cores.map(&due, |next| keep(*next, false)) {
        match line? {
            Some(line) => lines.push(line),
            None => failed += 1,
        }
    }
    bar.finish_and_clear();
    lines.sort_by_key(|(number, _)| *number);
    Ok((lines.into_iter().map(|(_, line)| line).collect(), failed))
}

/// The points, with what previews there cost.
fn points(lines: &[Line], at: &[f64], judge_elsewhere: bool) -> Vec<Point> {
    let taken: Vec<&Seconds> = lines.iter().filter_map(|line| line.seconds.as_ref()).collect();
    let sum = |of: &dyn Fn(&Seconds) -> f64| taken.iter().copied().map(of).sum::<f64>();
    let (drawing, judging) = (sum(&|seconds| seconds.drawing), sum(&|seconds| seconds.judging));
    let cost = |point: usize| {
        let making = sum(&|seconds| seconds.making.get(point).copied().unwrap_or(0.0));
        let spent = making + if judge_elsewhere { 0.0 } else { judging };
        if drawing > 0.0 { spent / drawing } else { 0.0 }
    };
    at.iter().enumerate().map(|(point, at)| Point { at: *at, cost: cost(point) }).collect()
}

/// Chooses, and counts what such choices do to other pictures.
fn choose(
    setting: &Setting,
    watched: &[Watched],
    points: &[Point],
    arguments: &PreviewsArgs,
) -> anyhow::Result<PreviewThresholds> {
    let bounds = Bounds {
        false_aborts: arguments.false_aborts,
        confidence: arguments.confidence,
        most: arguments.most as usize,
    };
    let (chosen, measured) = previews::measure(watched, points, &bounds).with_context(|| {
        let violating = watched.iter().filter(|one| one.violating).count();
        format!(
            "no previews save anything within {} % false aborts: of {} pictures {violating} violate a rule; draw more of \
             both kinds (--per-rule, --prompts), or allow more (--false-aborts). {WATCHED_FILE} keeps what was seen",
            100.0 * arguments.false_aborts,
            watched.len()
        )
    })?;
    Ok(PreviewThresholds {
        thresholds: previews::thresholds(&chosen, points),
        measured,
        ..setting.thresholds.clone()
    })
}

fn in_words(thresholds: &PreviewThresholds, points: &[Point], failed: usize, path: &str) -> String {
    let measured = &thresholds.measured;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut lines: Vec<String> = thresholds
        .thresholds
        .iter()
        .map(|point| {
            let cost = points.iter().find(|one| one.at == point.at).map_or(0.0, |one| one.cost);
            format!(
                "after {} of the steps: above {:.4}; a preview costs {} of a picture's drawing",
                percent(point.at),
                point.above,
                percent(cost)
            )
        })
        .collect();
    let safe = measured.pictures - measured.violating;
    lines.push(format!(
        "chosen on {} pictures; chosen on nine tenths of them, such thresholds stop in the other tenth, in turn, {} of {} that \
         violate a rule ({}), after {} of their steps in the mean, and save {} of their drawing; to that of a picture which violates nothing previews add {}",
        measured.pictures,
        measured.stopped,
        measured.violating,
        percent(measured.recall),
        percent(measured.stopped_at),
        percent(measured.saved),
        percent(measured.added)
    ));
    lines.push(format!(
        "false aborts: {} of {safe} ({}), at most {} with a confidence of {}",
        measured.false_aborts,
        percent(measured.false_abort_rate),
        percent(measured.false_abort_rate_at_most),
        percent(measured.confidence)
    ));
    if failed > 0 {
        lines.push(format!(
            "{failed} pictures could not be drawn or judged; the same command tries them again"
        ));
    }
    let at: Vec<String> = thresholds.thresholds.iter().map(|point| point.at.to_string()).collect();
    lines.push(format!("wrote {path}; in the policy, with the path as seen from its folder:"));
    lines.push(format!("previews = [{}]\npreview_thresholds = \"{path}\"", at.join(", ")));
    lines.join("\n")
}
