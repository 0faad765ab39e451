//! `cluegate eval`: measurements, printed as a table or JSON.

use std::sync::Arc;

use cluegate::{Engine, EngineOptions};
use cluegate_constitution::Constitution;
use cluegate_eval::metrics::Confusion;
use cluegate_eval::osbench::OsbenchResult;
use cluegate_mini::osbench::{Sample, samples};
use cluegate_mini::{Style, World};
use cluegate_perception::{Call, Picture};
use serde_json::json;

use super::args::Format;
use super::{Exit, engine_options, progress, say, say_json};

pub(super) mod args;
mod build;
mod compare;
mod data;
mod generator;
mod measure;
mod methods;
mod names;
mod pages;
mod prompts;
mod table;

use args::{EvalCommand, OsbenchArgs};
pub(crate) use table::in_words;
#[cfg(test)]
pub(crate) use table::of as table_of;

/// Runs one of the measurements.
pub(super) fn run(command: &EvalCommand) -> anyhow::Result<Exit> {
    match command {
        EvalCommand::Osbench(arguments) => osbench(arguments),
        EvalCommand::Run(arguments) => measure::run(arguments),
        EvalCommand::MiniPairs(arguments) => data::write_pairs(arguments),
        EvalCommand::MiniNatural(arguments) => data::write_natural(arguments),
        EvalCommand::Report(arguments) => pages::rebuild(arguments),
        EvalCommand::Compare(arguments) => compare::run(arguments),
        EvalCommand::BuildOsbench(arguments) => build::run(arguments),
        EvalCommand::Prompts(arguments) => prompts::run(arguments),
    }
}

fn osbench(arguments: &OsbenchArgs) -> anyhow::Result<Exit> {
    let world = World::load()?;
    // Every picture is to cost what it costs.
    let options = EngineOptions { verdicts: None, ..engine_options(&arguments.models.compute)? };
    let engine = Engine::open_with(arguments.models.models.as_deref(), &options)?;
    let judge = Arc::clone(engine.judge());
    let prepared = judge.prepare(&Constitution::shipped("scene")?)?;
    let samples = samples(&world, arguments.scenes.seed, arguments.scenes.per_rule);
    let style = arguments.scenes.drawn.style.into();
    let bar = progress::bar(samples.len() as u64, "judging");
    let result =
        cluegate_eval::osbench::run(&world, &samples, style, (&judge, &prepared), |_, _| bar.inc(1))?;
    bar.finish_and_clear();
    let refused = refused_by_domain(&engine, &world, &samples, style)?;
    match arguments.format {
        Format::Json => say_json(&as_json(&result, refused)?)?,
        Format::Text => print(&result, refused)?,
    }
    Ok(if result.errors.is_empty() { Exit::Clean } else { Exit::Error })
}

/// How many of the pictures the domain test would have refused, although they are scenes; none without such a test.
fn refused_by_domain(
    engine: &Engine,
    world: &World,
    samples: &[Sample],
    style: Style,
) -> anyhow::Result<Option<usize>> {
    let Some(domain) = engine.domain() else { return Ok(None) };
    let mut refused = 0;
    for sample in samples {
        let picture = Picture::new(sample.picture(world, style)?);
        refused +=
            usize::from(domain.check_picture(&picture, engine.relevance(), &Call::default())?.is_some());
    }
    Ok(Some(refused))
}

fn as_json(result: &OsbenchResult, refused: Option<usize>) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(result)?;
    value["image_f1"] = json!(result.image_level.f1());
    value["rule_f1"] = json!(result.rule_level.f1());
    value["relevance_recall"] = json!(result.relevance_recall());
    value["refused_by_domain"] = json!(refused);
    value["relevance_filtered"] = json!(result.relevance_filtered());
    Ok(value)
}

fn print(result: &OsbenchResult, refused: Option<usize>) -> anyhow::Result<()> {
    let row = |name: &str, c: &Confusion| {
        say(format_args!(
            "{name:15} {:5} {:9.3} {:7.3} {:9.3} {:7.3}",
            c.total(),
            c.precision(),
            c.recall(),
            c.accuracy(),
            c.f1()
        ))
    };
    say(format_args!(
        "{:15} {:>5} {:>9} {:>7} {:>9} {:>7}",
        "", "n", "precision", "recall", "accuracy", "F1"
    ))?;
    row("pictures", &result.image_level)?;
    row("rules", &result.rule_level)?;
    for (rule, confusion) in &result.by_rule {
        row(&format!("  {rule}"), confusion)?;
    }
    let [median, p95, p99, longest] = result.percentiles_ms;
    say(format_args!(
        "\nrelevance scan: {:.1} % of violated rules kept, {:.1} % of all rules filtered\n\
         reasoning: {:.2} cascades a picture\n\
         time a picture: mean {:.0} ms, median {median:.0}, p95 {p95:.0}, p99 {p99:.0}, longest {longest:.0}\n\
         errors: {}",
        100.0 * result.relevance_recall(),
        100.0 * result.relevance_filtered(),
        result.cascades as f64 / result.pictures.max(1) as f64,
        result.mean_ms,
        result.errors.len(),
    ))?;
    if let Some(refused) = refused {
        let share = 100.0 * refused as f64 / result.pictures.max(1) as f64;
        say(format_args!("domain test: {refused} of {} scenes refused ({share:.2} %)", result.pictures))?;
    }
    for error in result.errors.iter().take(5) {
        say(format_args!("  {error}"))?;
    }
    Ok(())
}
