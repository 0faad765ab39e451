//! The closed loop on the embedded suite: how early a preview shows a violation, what the prompt foretells, what another
//! attempt costs and gains, and what is left of a picture that is redacted. Everything goes through the gate as it ships; only its policies differ.

mod attempts;
mod beside;
mod drawing;
mod hiding;
mod previews;
mod prompts;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use cluegate::constitution::Constitution;
use cluegate::eval::build::{Seeds, Situation, shipped};
use cluegate::gate::Inspector;
use cluegate::models::Cores;
use cluegate::perception::{Call, Picture};
use serde::Serialize;

use self::drawing::Studio;
use self::hiding::Violating;
use self::previews::Watched;
use crate::Common;
use crate::ours::Ours;
use crate::page::{Page, doing, say};

/// The constitution, and the seeds of its prompts.
const SCENE: &str = "scene";
/// Seed of the prompts and of what is drawn from them.
const SEED: u64 = 12;
/// Prompts a rule with `--quick`, of so many rules.
const QUICK: (usize, usize) = (1, 3);
/// How many pieces of work are done before it is said how far it is.
const EVERY: usize = 8;
/// Reports that are remembered: a picture that several ladders come to is judged once.
const REPORTS: usize = 16_384;

/// Options of `loop`.
#[derive(Debug, Args)]
pub(crate) struct LoopArgs {
    #[command(flatten)]
    common: Common,
    /// Prompts for each rule that ask for a violation, and as many that come close.
    #[arg(long, value_name = "N", default_value_t = 2)]
    per_rule: usize,
    /// Denoising steps.
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: u32,
    /// Predictions that a preview takes beyond that of its step; default: the generator's.
    #[arg(long, value_name = "N")]
    look_ahead: Option<usize>,
    /// Pictures in work at a time, each on one core, wherever no time is taken; default: as many as there are cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One part alone.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// A few prompts, for a first look; the figures are no measurement.
    #[arg(long)]
    quick: bool,
}

/// What can be looked at alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What previews show, save and cost.
    Previews,
    /// What is left of violating pictures.
    Redaction,
}

/// The last line of the output; null for what was not looked at.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// Share of the pictures that violate nothing and would be given up.
    false_abort: Option<f64>,
    /// Share of the violating pictures that are given up.
    stopped: Option<f64>,
    /// Share of the violating pictures' denoising that is saved, less what previews cost.
    denoising_saved: Option<f64>,
    /// Time of a picture's denoising with three previews that are glanced at, over that without previews: in its way, and
    /// beside it.
    glanced_in_the_way: Option<f64>,
    glanced_beside: Option<f64>,
    /// Share of the violating prompts of which a picture is released within four attempts.
    released_within_4: Option<f64>,
    /// Cost of a released picture, as a share of what it costs by new seeds alone.
    cost_ratio_to_reseed: Option<f64>,
    /// Share of the violating pictures that pass the whole constitution once redacted.
    redacted_clean: Option<f64>,
    /// Released pictures that the judge, asked again, finds to violate a rule.
    violating_released: Option<usize>,
}

/// A prompt, and what it asks for.
struct Asked {
    text: String,
    situation: Situation,
    seed: u64,
}

/// What the parts share.
struct Setting {
    engine: Ours,
    studio: Arc<Studio>,
    inspector: Arc<dyn Inspector>,
    asked: Vec<Asked>,
    cores: Cores,
}

/// What things take on a machine that does nothing else, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Prices {
    /// A picture that nobody watches.
    drawing: f64,
    /// Looking ahead and decoding a preview, at each point.
    making: [f64; previews::AT.len()],
    /// A glance at a preview, and its judgment by the whole method.
    judging: [f64; 2],
    /// A finished picture's judgment.
    finished: f64,
}

impl Setting {
    fn open(arguments: &LoopArgs) -> anyhow::Result<Self> {
        let cores = Cores::of(arguments.threads);
        let engine = Ours::open_remembering(&arguments.common.suite, REPORTS, cores.count())?;
        let constitution = Constitution::shipped(SCENE)?;
        let inspector = engine.inspector(&constitution)?;
        let (rules, per_rule) =
            if arguments.quick { (QUICK.1, QUICK.0) } else { (usize::MAX, arguments.per_rule) };
        let seeds = Seeds::parse(shipped(SCENE).context("the prompts ship")?, SCENE, &constitution)?;
        let mut asked = Vec::new();
        for rule in seeds.rules.iter().take(rules) {
            for situation in Situation::ALL {
                for prompt in seeds.prompts(rule, situation, SEED).take(per_rule) {
                    let seed = SEED + 1000 * asked.len() as u64;
                    asked.push(Asked { text: prompt.prompt, situation, seed });
                }
            }
        }
        let generator = match arguments.look_ahead {
            None => engine.generator()?,
            Some(predictions) => engine.generator()?.with_look_ahead(predictions),
        };
        let studio = Arc::new(Studio::new(generator, arguments.steps));
        Ok(Self { engine, studio, inspector, asked, cores })
    }

    /// `work` of every item, in their order, on all cores, and how far it is.
    fn side_by_side<T: Sync, R: Send>(
        &self,
        what: &str,
        items: &[T],
        work: impl Fn(&T) -> anyhow::Result<R> + Sync,
    ) -> anyhow::Result<Vec<R>> {
        let done = AtomicUsize::new(0);
        let results = self.cores.map(items, |item| {
            let result = work(item);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(EVERY) || done == items.len() {
                doing(&format!("{done} of {} {what}", items.len()));
            }
            result
        });
        results.into_iter().collect()
    }

    /// The rules that a released picture violates, asked of the whole method, which remembers nothing of it.
    fn violations(&self, picture: &Picture) -> anyhow::Result<usize> {
        let report = self.inspector.inspect_whole(picture, None, &Call::default())?;
        Ok(usize::from(!report.violated().is_empty()))
    }
}

/// Runs the benchmark.
///
/// # Errors
/// If any part of it cannot be run.
pub(crate) fn run(arguments: &LoopArgs) -> anyhow::Result<()> {
    let mut page = Page::begin("The closed loop: stop early, draw again, redact")?;
    let setting = Setting::open(arguments)?;
    let mut figures = Figures::default();
    let page = &mut page;
    match arguments.only {
        Some(Part::Previews) => {
            watch(&setting, arguments, page, &mut figures)?;
        }
        Some(Part::Redaction) => {
            doing("drawing");
            let violating = hiding::draw(&setting)?;
            hide(&setting, &violating, page, &mut figures)?;
        }
        None => {
            let (watched, prices) = watch(&setting, arguments, page, &mut figures)?;
            doing("prompts");
            prompts::run(&setting, &watched, page)?;
            doing("further attempts");
            attempts::run(&setting, &prices, page, &mut figures)?;
            hide(&setting, &previews::violating(watched), page, &mut figures)?;
        }
    }
    page.write(Path::new(&arguments.common.out), "loop")?;
    say(&serde_json::to_string(&figures)?)
}

fn watch(
    setting: &Setting,
    arguments: &LoopArgs,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<(Vec<Watched>, Prices)> {
    doing("previews");
    let seen = previews::run(setting, page, figures)?;
    previews::keep(&seen.0, Path::new(&arguments.common.out))?;
    doing("previews judged in the way of the drawing and beside it");
    beside::run(setting, arguments, page, figures)?;
    Ok(seen)
}

fn hide(
    setting: &Setting,
    violating: &[Violating],
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    doing("redaction");
    hiding::run(setting, violating, page, figures)
}

/// A share as a percentage; a dash for none of nothing.
fn percent(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// `part` of `whole`; 0 for nothing.
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Figures {
    /// Counts released pictures that violate a rule.
    fn add_violating(&mut self, released: usize) {
        *self.violating_released.get_or_insert_default() += released;
    }
}

/// The mean; 0 for none.
fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) = values.into_iter().fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}
