//! What more of anything costs: statements, rules, pixels, callers, tenants.

mod callers;
mod sizes;

use std::time::Instant;

use clap::Args;
use cluegate::constitution::Constitution;
use cluegate::perception::{Call, Picture};
use serde::{Serialize, Serializer};

use crate::Common;
use crate::constitutions;
use crate::ours::{Ours, Questions};
use crate::page::{Page, doing, say};
use crate::pictures::{Scenes, variant};
use crate::plot::{Line, Plot};
use crate::stats::{Times, slope};
use crate::streams::millis;
use crate::table::{Table, ms};

const STATEMENTS: [usize; 10] = [1, 2, 5, 10, 24, 50, 100, 150, 200, 300];
const RULES: [usize; 8] = [1, 2, 5, 12, 30, 75, 150, 300];

/// Options of `scaling`.
#[derive(Debug, Args)]
pub(crate) struct ScalingArgs {
    #[command(flatten)]
    common: Common,
    /// Pictures for each figure; the median counts.
    #[arg(long, value_name = "N", default_value_t = 7)]
    repeat: usize,
}

/// A series of the last line: `[how many, figure]` each.
type Series = Vec<(f64, f64)>;

/// Two digits after the point: no time here repeats to more.
fn rounded<S: Serializer>(series: &Series, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(series.iter().map(|(x, y)| (x, (y * 100.0).round() / 100.0)))
}

/// The last line of the output.
#[derive(Debug, Default, Serialize)]
struct Figures {
    /// Statements and milliseconds for a picture with all of them.
    #[serde(serialize_with = "rounded")]
    statements_ms: Series,
    /// One statement more, in milliseconds.
    marginal_statement_ms: f64,
    /// Rules and milliseconds a picture, the relevance scan on.
    #[serde(serialize_with = "rounded")]
    rules_ms: Series,
    /// The same with every rule relevant.
    #[serde(serialize_with = "rounded")]
    relevant_rules_ms: Series,
    /// Millions of pixels and milliseconds a picture, for a square that the judge sees at a fixed size.
    #[serde(serialize_with = "rounded")]
    megapixels_ms: Series,
    /// Picture tokens of the judge and milliseconds for 24 statements, its limit lifted.
    #[serde(serialize_with = "rounded")]
    image_tokens_ms: Series,
    /// Callers at once and pictures a second.
    #[serde(serialize_with = "rounded")]
    callers_per_second: Series,
    /// Callers at once and the 99th percentile of their waiting, in milliseconds.
    #[serde(serialize_with = "rounded")]
    callers_p99_ms: Series,
    /// Tenants with constitutions of their own, and pictures a second.
    #[serde(serialize_with = "rounded")]
    tenants_per_second: Series,
    /// Most memory of this process, in MiB.
    peak_memory_mb: f64,
}

/// What the parts share.
struct Setting<'a> {
    arguments: &'a ScalingArgs,
    scenes: Scenes,
}

impl Setting<'_> {
    /// The first pictures of Mini OS Bench, so changed in one pixel that no run remembers another's.
    fn pictures(&self, run: usize, count: usize) -> anyhow::Result<Vec<Picture>> {
        let drawn = self.scenes.osbench(count)?;
        Ok(drawn.iter().map(|picture| Picture::new(variant(picture, run))).collect())
    }
}

/// Runs the benchmark.
///
/// # Errors
/// If any part of it cannot be run.
pub(crate) fn run(arguments: &ScalingArgs) -> anyhow::Result<()> {
    let setting = Setting { arguments, scenes: Scenes::load()? };
    let mut page = Page::begin("What more of anything costs")?;
    let mut figures = Figures::default();
    doing("statements");
    statements(&setting, &mut page, &mut figures)?;
    doing("rules");
    rules(&setting, &mut page, &mut figures)?;
    doing("picture sizes");
    sizes::measure(&setting, &mut page, &mut figures)?;
    doing("callers");
    callers::callers(&setting, &mut page, &mut figures)?;
    doing("tenants");
    callers::tenants(&setting, &mut page, &mut figures)?;
    figures.peak_memory_mb = crate::machine::peak_mb()?;
    page.write(&arguments.common.out, "scaling")?;
    say(&serde_json::to_string(&figures)?)
}

/// Times of asking every statement about pictures that nobody has seen.
fn asking(questions: &Questions, pictures: Vec<Picture>, statements: &[String]) -> anyhow::Result<Times> {
    let ask = |picture: Picture| {
        let begin = Instant::now();
        questions.score(picture, statements)?;
        Ok(millis(begin.elapsed()))
    };
    Ok(Times::new(pictures.into_iter().map(ask).collect::<anyhow::Result<_>>()?))
}

fn statements(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let questions = Questions::open(&setting.arguments.common.suite)?;
    asking(&questions, setting.pictures(1, 2)?, &constitutions::statements(setting.scenes.world(), 24)?)?;
    let mut table = Table::new(&["statements", "median ms", "fastest ms", "ms a statement"]);
    for (run, count) in STATEMENTS.into_iter().enumerate() {
        let statements = constitutions::statements(setting.scenes.world(), count)?;
        let pictures = setting.pictures(100 + run, setting.arguments.repeat)?;
        let times = asking(&questions, pictures, &statements)?;
        let median = times.median();
        table.row(count.to_string(), [ms(median), ms(times.min()), ms(median / count as f64)]);
        figures.statements_ms.push((count as f64, median));
    }
    figures.marginal_statement_ms = slope(&figures.statements_ms);
    page.heading("Statements about one picture")?;
    page.text("The judging model alone, a picture new to it each time, all statements asked at once.")?;
    page.table(table)?;
    page.text(&format!("One statement more costs {} ms.", ms(figures.marginal_statement_ms)))?;
    let lines = vec![Line { name: "all statements".to_owned(), points: figures.statements_ms.clone() }];
    let plot = Plot { x_label: "statements".to_owned(), y_label: "ms".to_owned(), log_x: false, lines };
    page.plot("Time for all statements about one picture.", plot.svg());
    Ok(())
}

/// Times of the whole method on pictures that nobody has seen, and how many rules were relevant on average.
fn judging(
    ours: &Ours,
    constitution: &Constitution,
    pictures: &[Picture],
) -> anyhow::Result<(Times, f64, f64)> {
    let begin = Instant::now();
    let prepared = ours.prepare(constitution)?;
    let preparing = millis(begin.elapsed());
    let mut times = Vec::with_capacity(pictures.len());
    let mut relevant = 0;
    for picture in pictures {
        let begin = Instant::now();
        let report = prepared.inspect(picture, &Call::default())?;
        times.push(millis(begin.elapsed()));
        relevant += report.rules().iter().filter(|rule| !rule.preconditions.is_empty()).count();
    }
    Ok((Times::new(times), relevant as f64 / pictures.len() as f64, preparing))
}

fn rules(setting: &Setting<'_>, page: &mut Page, figures: &mut Figures) -> anyhow::Result<()> {
    let ours = Ours::open(&setting.arguments.common.suite)?;
    let world = setting.scenes.world();
    judging(&ours, &constitutions::of_rules(world, "warm-up", 12, false)?, &setting.pictures(2, 2)?)?;
    let head = ["rules", "ms, scan on", "relevant", "ms, all relevant", "preparing what is new, ms"];
    let mut table = Table::new(&head);
    for (run, count) in RULES.into_iter().enumerate() {
        let pictures = setting.pictures(200 + run, setting.arguments.repeat)?;
        // Few pictures tell enough where each takes seconds.
        let few = &pictures[..if count > 30 { 3.min(pictures.len()) } else { pictures.len() }];
        let all = constitutions::of_rules(world, "all-relevant", count, false)?;
        let (times_all, _, preparing) = judging(&ours, &all, few)?;
        let scanned = constitutions::of_rules(world, "scanned", count, true)?;
        let pictures = setting.pictures(300 + run, setting.arguments.repeat)?;
        let (times, relevant, _) = judging(&ours, &scanned, &pictures)?;
        let cells = [ms(times.median()), format!("{relevant:.1}"), ms(times_all.median()), ms(preparing)];
        table.row(count.to_string(), cells);
        figures.rules_ms.push((count as f64, times.median()));
        figures.relevant_rules_ms.push((count as f64, times_all.median()));
    }
    page.heading("Rules of a constitution")?;
    page.text(
        "The whole method; each rule has two links, what is visible and what it does, and words for the detector. With \
         the relevance scan on, only some rules are asked about; without it, every one is.",
    )?;
    page.table(table)?;
    let line = |name: &str, points: &Series| Line { name: name.to_owned(), points: points.clone() };
    let plot = Plot {
        x_label: "rules".to_owned(),
        y_label: "ms".to_owned(),
        log_x: false,
        lines: vec![
            line("relevance scan on", &figures.rules_ms),
            line("every rule relevant", &figures.relevant_rules_ms),
        ],
    };
    page.plot("Time a picture against the number of rules.", plot.svg());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_its_keys_and_pairs() {
        let figures = Figures { statements_ms: vec![(1.0, 9.504)], ..Figures::default() };
        let value = serde_json::to_value(&figures).unwrap();
        assert_eq!(value["statements_ms"], serde_json::json!([[1.0, 9.5]]));
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "statements_ms",
            "marginal_statement_ms",
            "rules_ms",
            "relevant_rules_ms",
            "megapixels_ms",
            "image_tokens_ms",
            "callers_per_second",
            "callers_p99_ms",
            "tenants_per_second",
            "peak_memory_mb",
        ];
        assert_eq!(keys, expected);
    }
}
