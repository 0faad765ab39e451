//! How early a preview shows what the finished picture violates, what judging it costs, and how much of the drawing is
//! saved by thresholds that depend on the step.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use cluegate::eval::build::Situation;
use cluegate::eval::previews::{self, Bounds, NOTHING, Point};
use cluegate::gate::policy::PreviewSchedule;
use cluegate::gate::{DrawJob, Inspector, Policies, Step, StepHook, Unfinished};
use cluegate::perception::{Call, Picture};

use super::hiding::Violating;
use super::{Asked, Figures, Prices, SCENE, Setting, mean, percent, share};
use crate::page::Page;
use crate::plot::{Line, Plot};
use crate::stats::Times;
use crate::table::{Table, ms};

/// Shares of the steps after which a preview is judged.
pub(super) const AT: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Pictures that are drawn in turn, each once without previews and once glanced at, to see what both take; the others come
/// side by side.
const ALONE: usize = 12;
/// File of the scores.
const SCORES: &str = "previews.jsonl";
/// Most previews of one picture.
const MOST: usize = 3;
/// Largest share of false aborts.
const BOUND: f64 = 0.01;
/// Confidence of the bound that is stated for it.
const CONFIDENCE: f64 = 0.95;

/// A picture that was watched while it was drawn.
pub(super) struct Watched {
    pub(super) picture: Picture,
    pub(super) prompt: String,
    /// Whether it violates a rule.
    pub(super) violating: bool,
    /// The scores of its previews at a glance.
    glances: previews::Watched,
    /// Its previews by the whole method: 1 for a violation, else -1.
    whole: previews::Watched,
}

/// Judges every preview, at a glance alone or in both ways.
struct Watching<'a> {
    inspector: &'a dyn Inspector,
    rules: &'a [String],
    whole_too: bool,
    glances: Vec<Option<f64>>,
    whole: Vec<Option<f64>>,
    /// Seconds that the glances took, and the whole method.
    judging: [f64; 2],
    /// When the step began.
    since: Instant,
    /// Seconds of each step, with its preview and without its judgment.
    steps: Vec<f64>,
}

impl StepHook for Watching<'_> {
    fn wants_preview(&mut self, _: usize, step: u32, total: u32) -> bool {
        self.since = Instant::now();
        AT.iter().any(|at| PreviewSchedule::step_at(*at, total) == step)
    }

    fn step(&mut self, _: usize, step: u32, total: u32, preview: Option<&Picture>) -> Step {
        self.steps.push(self.since.elapsed().as_secs_f64());
        let Some(preview) = preview else { return Step::Continue };
        let begun = Instant::now();
        let glance = previews::score(self.inspector, self.rules, preview);
        let glanced = begun.elapsed().as_secs_f64();
        let judge =
            || self.inspector.inspect_unfinished(preview, Unfinished::Preview, None, &Call::default()).ok();
        let judged = self.whole_too.then(judge).flatten();
        let whole = judged.map(|report| if previews::violates(&report, self.rules) { 1.0 } else { NOTHING });
        self.judging[0] += glanced;
        self.judging[1] += begun.elapsed().as_secs_f64() - glanced;
        for (index, at) in AT.iter().enumerate() {
            if PreviewSchedule::step_at(*at, total) == step {
                (self.glances[index], self.whole[index]) = (glance, whole);
            }
        }
        Step::Continue
    }
}

/// What judging one picture took by the whole method, in seconds.
struct Taken {
    /// Its previews.
    judging: f64,
    /// The picture itself.
    finished: f64,
}

/// A drawing that was looked at.
struct Seen {
    picture: Picture,
    glances: Vec<Option<f64>>,
    whole: Vec<Option<f64>>,
    /// Seconds of the glances and of the judgments by the whole method, and of each step with its preview.
    judging: [f64; 2],
    steps: Vec<f64>,
}

impl Prices {
    /// The points, with what a preview there costs if judging it takes so many seconds of the drawing's time.
    fn points(&self, judging: f64) -> Vec<Point> {
        let share = |making: f64| if self.drawing > 0.0 { (making + judging) / self.drawing } else { 0.0 };
        AT.into_iter().zip(self.making).map(|(at, making)| Point { at, cost: share(making) }).collect()
    }
}

pub(super) fn run(
    setting: &Setting,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<(Vec<Watched>, Prices)> {
    let policies = Policies::shipped_default()?;
    let rules = policies.require("default")?.rules_that_end(setting.inspector.constitution());
    let (alone, others) = setting.asked.split_at(ALONE.min(setting.asked.len()));
    let (mut plain, mut glances, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    let mut making = AT.map(|_| Vec::new());
    for asked in alone {
        let begun = Instant::now();
        // Other seeds: a picture that is drawn twice is drawn once.
        setting.studio.unwatched(&job(setting, asked, asked.seed + 1))?;
        let unwatched = begun.elapsed().as_secs_f64();
        // What the gate does while it draws: the judgments by the whole method that the scores take would slow the drawing.
        let glanced = look_on(setting, &rules, asked, asked.seed + 2, false)?;
        plain.push(unwatched);
        let step_at = |at: &f64| PreviewSchedule::step_at(*at, setting.studio.steps()) as usize - 1;
        let bare = (0..glanced.steps.len()).filter(|step| !AT.iter().map(step_at).any(|at| at == *step));
        // Steps of one drawing: what else the machine does falls on both.
        let bare = median(bare.map(|step| glanced.steps[step]).collect());
        for (at, making) in AT.iter().map(step_at).zip(&mut making) {
            making.push(glanced.steps.get(at).copied().unwrap_or(bare) - bare);
        }
        glances.push(glanced.judging[0]);
        seen.push(watch(setting, &rules, asked)?);
    }
    let taken = |of: fn(&Taken) -> f64| median(seen.iter().map(|(_, taken)| of(taken)).collect());
    let count = AT.len() as f64;
    let prices = Prices {
        making: making.map(|seconds| median(seconds).max(0.0)),
        drawing: median(plain),
        judging: [median(glances) / count, taken(|taken| taken.judging) / count],
        finished: taken(|taken| taken.finished),
    };
    seen.extend(setting.side_by_side("prompts", others, |asked| watch(setting, &rules, asked))?);
    let watched: Vec<Watched> = seen.into_iter().filter_map(|(watched, _)| watched).collect();
    tell(setting, &watched, &prices, page, figures)?;
    Ok((watched, prices))
}

fn median(times: Vec<f64>) -> f64 {
    Times::new(times).median()
}

/// Writes the scores of the glances down, a picture a line, so that other choices can be looked at.
pub(super) fn keep(watched: &[Watched], folder: &Path) -> anyhow::Result<()> {
    let lines: Vec<String> =
        watched.iter().map(|one| serde_json::to_string(&one.glances)).collect::<Result<_, _>>()?;
    let path = folder.join(SCORES);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, lines.join("\n") + "\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The pictures that violate a rule.
pub(super) fn violating(watched: Vec<Watched>) -> Vec<Violating> {
    let violating = watched.into_iter().filter(|one| one.violating);
    violating.map(|one| Violating { prompt: one.prompt, picture: one.picture }).collect()
}

pub(super) fn job(setting: &Setting, asked: &Asked, seed: u64) -> DrawJob {
    DrawJob {
        member: 0,
        attempt: 1,
        prompt: Arc::from(asked.text.as_str()),
        seed,
        avoid: Vec::new(),
        options: Arc::new(setting.studio.options()),
    }
}

/// Draws a prompt and judges its previews and the finished picture, which is left out if it cannot be judged, and what that
/// took.
fn watch(setting: &Setting, rules: &[String], asked: &Asked) -> anyhow::Result<(Option<Watched>, Taken)> {
    let Seen { picture, glances, whole, judging, .. } = look_on(setting, rules, asked, asked.seed, true)?;
    let begun = Instant::now();
    let report = setting.inspector.inspect(&picture, None, &Call::default()).ok();
    let finished = begun.elapsed().as_secs_f64();
    let watched = report.map(|report| {
        let violating = previews::violates(&report, rules);
        Watched {
            picture,
            prompt: asked.text.clone(),
            violating,
            glances: previews::Watched { violating, scores: glances },
            whole: previews::Watched { violating, scores: whole },
        }
    });
    Ok((watched, Taken { judging: judging[1], finished }))
}

/// Draws a prompt with all previews and judges them, at a glance and, if so asked, by the whole method too.
fn look_on(
    setting: &Setting,
    rules: &[String],
    asked: &Asked,
    seed: u64,
    whole_too: bool,
) -> anyhow::Result<Seen> {
    let none = vec![None; AT.len()];
    let inspector = setting.inspector.as_ref();
    let mut hook = Watching {
        inspector,
        rules,
        whole_too,
        glances: none.clone(),
        whole: none,
        judging: [0.0; 2],
        since: Instant::now(),
        steps: Vec::new(),
    };
    let picture = setting.studio.watched(&job(setting, asked, seed), &mut hook)?;
    let picture = picture.context("a watched picture is finished")?;
    let Watching { glances, whole, judging, steps, .. } = hook;
    Ok(Seen { picture, glances, whole, judging, steps })
}

fn tell(
    setting: &Setting,
    watched: &[Watched],
    prices: &Prices,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let violating = watched.iter().filter(|one| one.violating).count();
    page.heading("Previews")?;
    let asked = setting.asked.iter().filter(|asked| asked.situation == Situation::Violating).count();
    page.text(&format!(
        "{asked} prompts ask for a violation of {SCENE} and {} come close. Of {} finished pictures the judge calls {violating} \
         violating and {} safe ({} could not be judged). A picture takes {} ms to draw, a preview in the mean {} ms to look \
         ahead and decode, {} ms to glance at and {} ms to judge by the whole method. How they are made: {}.",
        setting.asked.len() - asked,
        watched.len(),
        watched.len() - violating,
        setting.asked.len() - watched.len(),
        ms(prices.drawing * 1e3),
        ms(mean(prices.making) * 1e3),
        ms(prices.judging[0] * 1e3),
        ms(prices.judging[1] * 1e3),
        setting.studio.in_words()
    ))?;
    by_step(watched, violating, &prices.points(prices.judging[0]), page)?;
    schedules(watched, prices, page, figures)
}

/// What previews show after each part of the steps, and what a glance at one costs.
fn by_step(watched: &[Watched], violating: usize, costs: &[Point], page: &mut Page) -> anyhow::Result<()> {
    let columns = [
        "steps",
        "seen at a glance",
        "false alarms",
        "seen by the whole method",
        "false alarms",
        "steps left",
        "costs",
    ];
    let mut table = Table::new(&columns);
    let ways: [fn(&Watched) -> &previews::Watched; 2] = [|one| &one.glances, |one| &one.whole];
    let names =
        ["seen at a glance", "false alarms at a glance", "seen by the whole method", "its false alarms"];
    let mut lines = names.map(|name| Line { name: name.to_owned(), points: Vec::new() });
    for (index, at) in AT.iter().enumerate() {
        let mut cells = Vec::new();
        for (way, of) in ways.iter().enumerate() {
            let seen = |kind: bool| {
                let kind = watched.iter().filter(|one| one.violating == kind);
                kind.filter(|one| of(one).scores[index].is_some_and(|score| score > 0.0)).count()
            };
            for (line, (part, all)) in
                [(seen(true), violating), (seen(false), watched.len() - violating)].into_iter().enumerate()
            {
                cells.push(percent(part, all));
                lines[2 * way + line].points.push((*at, share(part, all)));
            }
        }
        cells.push(format!("{:.0} %", 100.0 * (1.0 - at)));
        cells.push(format!("{:.1} %", 100.0 * costs[index].cost));
        table.row(format!("{at}"), cells);
    }
    page.table(table)?;
    let plot = Plot {
        x_label: "share of the steps".to_owned(),
        y_label: "share of the pictures".to_owned(),
        log_x: false,
        lines: lines.into(),
    };
    page.plot("What a preview shows of the finished picture's verdict", plot.svg());
    Ok(())
}

/// Thresholds and points that save most within the bound on false aborts.
fn schedules(
    watched: &[Watched],
    prices: &Prices,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let glances: Vec<previews::Watched> = watched.iter().map(|one| one.glances.clone()).collect();
    let whole: Vec<previews::Watched> = watched.iter().map(|one| one.whole.clone()).collect();
    page.text(&format!(
        "Points (at most {MOST}) and thresholds are chosen so that at most {:.0} % of the safe pictures are given up in the \
         mean. Shown is the choice on all of them; counted is what such choices on nine tenths do to the other tenth, in turn. A \
         preview costs its predictions, its decoding and its judgment, or not its judgment where the judge computes elsewhere while the next \
         step is drawn.",
        100.0 * BOUND
    ))?;
    let columns = [
        "judged",
        "previews",
        "above",
        "stopped",
        "at",
        "drawing saved",
        "added to safe pictures",
        "false aborts",
        "with 95 % at most",
    ];
    let mut table = Table::new(&columns);
    let rows = [
        ("at a glance", &glances, prices.points(prices.judging[0])),
        ("at a glance, beside the drawing", &glances, prices.points(0.0)),
        ("by the whole method", &whole, prices.points(prices.judging[1])),
    ];
    for (row, (name, pictures, points)) in rows.into_iter().enumerate() {
        let bounds = Bounds { false_aborts: BOUND, confidence: CONFIDENCE, most: MOST };
        let Some((chosen, found)) = previews::measure(pictures, &points, &bounds) else {
            table.row(name.to_owned(), ["none"; 8].map(str::to_owned));
            continue;
        };
        let list =
            |values: &[f64]| values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(", ");
        let points: Vec<f64> = chosen.points.iter().map(|point| AT[*point]).collect();
        let safe = (found.pictures - found.violating) as usize;
        table.row(
            name.to_owned(),
            [
                points.iter().map(f64::to_string).collect::<Vec<_>>().join(", "),
                list(&chosen.above),
                percent(found.stopped as usize, found.violating as usize),
                format!("{:.0} %", 100.0 * found.stopped_at),
                format!("{:.1} %", 100.0 * found.saved),
                format!("{:.1} %", 100.0 * found.added),
                format!("{} of {safe}", found.false_aborts),
                format!("{:.1} %", 100.0 * found.false_abort_rate_at_most),
            ],
        );
        if row == 0 {
            figures.false_abort = Some(found.false_abort_rate);
            figures.stopped = Some(found.recall);
            figures.denoising_saved = Some(found.saved);
        }
    }
    page.table(table)
}
