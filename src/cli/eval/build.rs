//! `cluegate eval build-osbench`: a benchmark from seed prompts.

use std::path::Path;

use anyhow::Context as _;
use cluegate::{Engine, EngineOptions, TextModel};
use cluegate_constitution::Constitution;
use cluegate_eval::build::{BuildOptions, Fit, Seeds, build, shipped};

use super::args::BuildArgs;
use super::generator::Drawing;
use super::measure::constitution_text;
use crate::cli::{Exit, engine_options, progress, say, write_file};

/// The seeds with what a text model wrote, kept so that a build that goes on has the same.
const EXPANDED_FILE: &str = "seeds.toml";

pub(super) fn run(arguments: &BuildArgs) -> anyhow::Result<Exit> {
    let constitution =
        Constitution::parse(&constitution_text(&arguments.constitution)?, &arguments.constitution)?;
    let seeds = seeds(arguments, &constitution)?;
    let options = EngineOptions { verdicts: None, ..engine_options(&arguments.models.compute)? };
    let engine = Engine::open_with(arguments.models.models.as_deref(), &options)?;
    let drawing = Drawing::open(&arguments.generator, &engine)?;
    let mut fit = Fit::new(engine.relevance(), arguments.min_fit);
    if arguments.judge_fit {
        fit = fit.with_judge(engine.judge());
    }
    let options = BuildOptions {
        per_rule: arguments.per_rule,
        attempts: arguments.attempts,
        seed: arguments.seed,
        draw: (&arguments.draw).into(),
    };
    let bar = progress::bar((seeds.rules.len() * 2 * options.per_rule) as u64, "drawing");
    let built = build(&seeds, drawing.generator(), &fit, (&arguments.out, &options), || bar.inc(1))?;
    bar.finish_and_clear();
    let folder = arguments.out.display();
    say(format_args!("{} pictures of {} attempts in {folder}", built.kept().count(), built.attempts.len()))?;
    for (rule, situation, kept) in &built.short {
        say(format_args!(
            "fewer than wanted: {rule} {}: {kept} of {}",
            situation.as_str(),
            options.per_rule
        ))?;
    }
    say(format_args!(
        "cluegate eval run --data folder:{folder} --constitution {} --out results",
        arguments.constitution
    ))?;
    // A benchmark with holes is written, and is no success.
    Ok(if built.short.is_empty() { Exit::Clean } else { Exit::Error })
}

/// The seeds that the arguments name, with further prompts of a text model if they ask for them.
fn seeds(arguments: &BuildArgs, constitution: &Constitution) -> anyhow::Result<Seeds> {
    let kept = arguments.out.join(EXPANDED_FILE);
    if arguments.expand > 0 && kept.is_file() {
        return Ok(Seeds::load(&kept, constitution)?);
    }
    let seeds = match &arguments.seeds {
        Some(path) => Seeds::load(path, constitution)?,
        None => {
            let name = constitution.name();
            let text = shipped(name).with_context(|| {
                format!("no seeds ship for the constitution {name:?}; name a file with --seeds")
            })?;
            Seeds::parse(text, &format!("the shipped seeds of {name}"), constitution)?
        }
    };
    if arguments.expand == 0 {
        return Ok(seeds);
    }
    let models = arguments.text_models.as_deref().or(arguments.models.models.as_deref());
    let text = TextModel::open(models, arguments.models.compute.load_options()?)?;
    let expanded = seeds.expanded(text.model.as_ref(), arguments.expand)?;
    keep(&expanded, &arguments.out, &kept)?;
    // What is used is what the next run will read.
    Ok(Seeds::load(&kept, constitution)?)
}

fn keep(seeds: &Seeds, folder: &Path, path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    write_file(path, toml::to_string_pretty(seeds)?.as_bytes())
}
