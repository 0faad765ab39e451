//! How early a preview shows what the finished picture violates, and which previews are worth their price.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use cluegate::eval::build::Situation;
use cluegate::gate::{DrawJob, Inspector, Step, StepHook, Unfinished};
use cluegate::perception::{Call, Picture};
use cluegate::student::recall_lower_bound;

use super::{Asked, Figures, Setting, mean, percent, share};
use crate::page::Page;
use crate::plot::{Line, Plot};
use crate::table::{Table, ms};

/// Tenths of the steps after which a preview is judged.
const TENTHS: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];
/// Pictures that are drawn without previews, to see what a picture takes.
const PLAIN: usize = 4;
/// Most previews of one picture that a schedule may have.
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
    /// Whether its preview after each of [`TENTHS`] does; none where that could not be told.
    previews: Vec<Option<bool>>,
}

/// Judges every preview at once.
struct Watching<'a> {
    inspector: &'a dyn Inspector,
    verdicts: Vec<Option<bool>>,
    judging: f64,
}

impl StepHook for Watching<'_> {
    fn wants_preview(&mut self, _: usize, step: u32, total: u32) -> bool {
        TENTHS.iter().any(|tenths| at(*tenths, total) == step)
    }

    fn preview(&mut self, _: usize, step: u32, total: u32, preview: &Picture) -> Step {
        let begun = Instant::now();
        let judged = self.inspector.inspect_unfinished(preview, Unfinished::Preview, None, &Call::default());
        self.judging += begun.elapsed().as_secs_f64();
        let verdict = judged.ok().map(|report| !report.violated().is_empty());
        for (tenths, slot) in TENTHS.iter().zip(&mut self.verdicts) {
            if at(*tenths, total) == step {
                *slot = verdict;
            }
        }
        Step::Continue
    }
}

fn at(tenths: u32, total: u32) -> u32 {
    (f64::from(tenths * total) / 10.0).round() as u32
}

/// What previews take, in seconds.
struct Prices {
    /// A picture that nobody watches.
    drawing: f64,
    /// A preview's decoding.
    decoding: f64,
    /// A preview's judgment.
    judging: f64,
}

/// What a schedule of previews does.
#[derive(Debug, Clone, Default)]
struct Outcome {
    tenths: Vec<u32>,
    stopped: usize,
    false_aborts: usize,
    /// Mean share of the steps at which violating pictures are stopped.
    stopped_at: f64,
    /// Mean share of the steps of violating pictures that is saved, less what their previews cost.
    saved: f64,
}

pub(super) fn run(setting: &Setting, page: &mut Page, figures: &mut Figures) -> anyhow::Result<Vec<Watched>> {
    let plain = setting.asked.iter().take(PLAIN).map(|asked| {
        // Another seed: a picture that is drawn twice is drawn once.
        Ok(setting.studio.unwatched(&job(setting, asked, asked.seed + 1))?)
    });
    let drawing = mean(plain.collect::<anyhow::Result<Vec<f64>>>()?);
    let mut taken = Vec::new();
    let mut watched = Vec::new();
    for number in 0..setting.asked.len() {
        let (one, seconds) = watch(setting, number)?;
        taken.push(seconds);
        watched.extend(one);
        if number % 8 == 7 {
            crate::page::doing(&format!("{} of {} prompts", number + 1, setting.asked.len()));
        }
    }
    let count = TENTHS.len() as f64;
    let decoding = ((mean(taken.iter().map(|(drawing, _)| *drawing)) - drawing) / count).max(0.0);
    let judging = mean(taken.iter().map(|(_, judging)| *judging)) / count;
    let prices = Prices { drawing, decoding, judging };
    tell(setting, &watched, &prices, page, figures)?;
    Ok(watched)
}

fn job(setting: &Setting, asked: &Asked, seed: u64) -> DrawJob {
    DrawJob {
        member: 0,
        attempt: 1,
        prompt: Arc::from(asked.text.as_str()),
        seed,
        avoid: Vec::new(),
        options: Arc::new(setting.studio.options()),
    }
}

/// Draws a prompt and judges its previews and the finished picture, which is left out if it cannot be judged. Also the seconds
/// of drawing with all previews, and of their judgments.
fn watch(setting: &Setting, number: usize) -> anyhow::Result<(Option<Watched>, (f64, f64))> {
    let asked = &setting.asked[number];
    let job = job(setting, asked, asked.seed);
    let mut hook =
        Watching { inspector: setting.inspector.as_ref(), verdicts: vec![None; TENTHS.len()], judging: 0.0 };
    let begun = Instant::now();
    let picture = setting.studio.watched(&job, &mut hook)?.context("a watched picture is finished")?;
    let drawing = begun.elapsed().as_secs_f64() - hook.judging;
    let finished = setting.inspector.inspect(&picture, None, &Call::default()).ok();
    let watched = finished.map(|report| Watched {
        picture,
        prompt: asked.text.clone(),
        violating: !report.violated().is_empty(),
        previews: hook.verdicts,
    });
    Ok((watched, (drawing, hook.judging)))
}

fn tell(
    setting: &Setting,
    watched: &[Watched],
    prices: &Prices,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let violating: Vec<&Watched> = watched.iter().filter(|one| one.violating).collect();
    let safe: Vec<&Watched> = watched.iter().filter(|one| !one.violating).collect();
    page.heading("Previews")?;
    let asked = setting.asked.iter().filter(|asked| asked.situation == Situation::Violating).count();
    page.text(&format!(
        "{asked} prompts ask for a violation and {} come close. Of {} finished pictures the judge calls {} violating and {} safe \
         ({} could not be judged). A picture takes {} ms to draw, a preview {} ms to decode and {} ms to judge.",
        setting.asked.len() - asked,
        watched.len(),
        violating.len(),
        safe.len(),
        setting.asked.len() - watched.len(),
        ms(prices.drawing * 1e3),
        ms(prices.decoding * 1e3),
        ms(prices.judging * 1e3)
    ))?;
    let mut table = Table::new(&["steps", "violations seen", "false alarms", "steps left"]);
    let seen = |group: &[&Watched], index: usize| {
        group.iter().filter(|one| one.previews.get(index).copied().flatten() == Some(true)).count()
    };
    let mut lines = [("violations seen", Vec::new()), ("false alarms", Vec::new())];
    for (index, tenths) in TENTHS.iter().enumerate() {
        let (hits, alarms) = (seen(&violating, index), seen(&safe, index));
        let left = format!("{} %", 100 - 10 * tenths);
        table.row(format!("0.{tenths}"), [percent(hits, violating.len()), percent(alarms, safe.len()), left]);
        lines[0].1.push((f64::from(*tenths) / 10.0, share(hits, violating.len())));
        lines[1].1.push((f64::from(*tenths) / 10.0, share(alarms, safe.len())));
    }
    table.row("1.0", [percent(violating.len(), violating.len()), percent(0, safe.len()), "0 %".to_owned()]);
    page.table(table)?;
    page.plot("What a preview shows of the finished picture's verdict", plot(lines).svg());
    schedules(&violating, &safe, prices, page, figures)
}

fn plot(lines: [(&str, Vec<(f64, f64)>); 2]) -> Plot {
    let line = |(name, points): (&str, Vec<(f64, f64)>)| Line { name: name.to_owned(), points };
    Plot {
        x_label: "share of the steps".to_owned(),
        y_label: "share of the pictures".to_owned(),
        log_x: false,
        lines: lines.into_iter().map(line).collect(),
    }
}

/// Of all schedules of one to three previews, the one that saves most within the bound on false aborts: chosen on every other
/// picture, counted on the rest.
fn schedules(
    violating: &[&Watched],
    safe: &[&Watched],
    prices: &Prices,
    page: &mut Page,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let preview = prices.decoding + prices.judging;
    let cost = if prices.drawing > 0.0 { preview / prices.drawing } else { 0.0 };
    let half = |group: &[&'_ Watched], odd: usize| -> Vec<usize> {
        (0..group.len()).filter(|index| index % 2 == odd).collect()
    };
    let chosen_on = (half(violating, 0), half(safe, 0));
    let counted_on = (half(violating, 1), half(safe, 1));
    let outcome = |tenths: &[u32], (bad, good): &(Vec<usize>, Vec<usize>)| {
        let pick = |group: &[&'_ Watched], which: &[usize]| -> Vec<Option<u32>> {
            which.iter().map(|index| stop(group[*index], tenths)).collect()
        };
        count(tenths, &pick(violating, bad), &pick(safe, good), cost)
    };
    let mut best: Option<Outcome> = None;
    for tenths in subsets() {
        let tried = outcome(&tenths, &chosen_on);
        let within = tried.false_aborts as f64 <= BOUND * chosen_on.1.len() as f64;
        if within && best.as_ref().is_none_or(|best| tried.saved > best.saved) {
            best = Some(tried);
        }
    }
    let Some(best) = best else {
        return page.text("No schedule keeps to the bound on false aborts.");
    };
    let found = outcome(&best.tenths, &counted_on);
    let everything = (half(violating, 0), half(safe, 0));
    let everything = ([everything.0, half(violating, 1)].concat(), [everything.1, half(safe, 1)].concat());
    let both = outcome(&best.tenths, &everything);
    let bound = 1.0 - recall_lower_bound(both.false_aborts as u64, safe.len() as u64, CONFIDENCE);
    let named: Vec<String> = best.tenths.iter().map(|tenths| format!("0.{tenths}")).collect();
    page.text(&format!(
        "Of all schedules of at most {MOST} previews, `previews = [{}]` saves most with at most 1 % false aborts on every other \
         picture. On the rest it stops {} of the violating pictures, at {:.0} % of their steps in the mean, saves {:.1} % of their \
         denoising net of previews ({:.1} % of a picture's drawing each), and gives up {} of the safe ones; over all pictures {} \
         of {}, so that with 95 % confidence at most {:.1} % are given up.",
        named.join(", "),
        percent(found.stopped, counted_on.0.len()),
        found.stopped_at * 100.0,
        found.saved * 100.0,
        cost * 100.0,
        percent(found.false_aborts, counted_on.1.len()),
        both.false_aborts,
        safe.len(),
        bound * 100.0
    ))?;
    figures.false_abort = share(found.false_aborts, counted_on.1.len());
    figures.stopped = share(found.stopped, counted_on.0.len());
    figures.denoising_saved = found.saved;
    Ok(())
}

/// After which tenth of the steps a schedule stops a picture, if it does.
fn stop(one: &Watched, tenths: &[u32]) -> Option<u32> {
    let violates = |tenth: &u32| {
        let index = TENTHS.iter().position(|known| known == tenth)?;
        one.previews.get(index).copied().flatten().filter(|violates| *violates)
    };
    tenths.iter().copied().find(|tenth| violates(tenth).is_some())
}

/// Counts a schedule, from where it stops each picture.
fn count(tenths: &[u32], violating: &[Option<u32>], safe: &[Option<u32>], cost: f64) -> Outcome {
    let saved = |stopped: &Option<u32>| {
        let judged = tenths.iter().filter(|tenth| stopped.is_none_or(|at| **tenth <= at)).count();
        let left = stopped.map_or(0.0, |at| 1.0 - f64::from(at) / 10.0);
        left - judged as f64 * cost
    };
    Outcome {
        tenths: tenths.to_vec(),
        stopped: violating.iter().flatten().count(),
        false_aborts: safe.iter().flatten().count(),
        stopped_at: mean(violating.iter().flatten().map(|at| f64::from(*at) / 10.0)),
        saved: mean(violating.iter().map(saved)),
    }
}

/// Every choice of one to [`MOST`] of [`TENTHS`], in order.
fn subsets() -> impl Iterator<Item = Vec<u32>> {
    (1_u32..1 << TENTHS.len()).filter(|bits| bits.count_ones() as usize <= MOST).map(|bits| {
        TENTHS
            .iter()
            .enumerate()
            .filter(|(index, _)| bits >> index & 1 == 1)
            .map(|(_, tenths)| *tenths)
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_counts_what_it_stops_and_what_its_previews_cost() {
        let tenths = [3, 6];
        let counted = count(&tenths, &[Some(3), Some(6), None], &[None, Some(3), None, None], 0.1);
        assert_eq!((counted.stopped, counted.false_aborts), (2, 1));
        assert!((counted.stopped_at - 0.45).abs() < 1e-12);
        // 0.7 less one preview, 0.4 less two, and two previews for nothing.
        assert!((counted.saved - (0.6 + 0.2 - 0.2) / 3.0).abs() < 1e-12);
        assert_eq!(count(&tenths, &[], &[], 0.1).saved, 0.0);
    }

    #[test]
    fn schedules_are_all_choices_of_at_most_three() {
        let all: Vec<Vec<u32>> = subsets().collect();
        assert_eq!(all.len(), 9 + 36 + 84);
        assert!(all.iter().all(|tenths| tenths.windows(2).all(|pair| pair[0] < pair[1])));
        assert_eq!((at(1, 20), at(5, 20), at(9, 15)), (2, 10, 14));
    }
}
