//! `cluegate eval prompts`: what prompts get released, with the gate and without.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use cluegate::{Engine, EngineOptions};
use cluegate_constitution::Constitution;
use cluegate_eval::metrics::{Bootstrap, Interval};
use cluegate_eval::prompts::{Asking, PromptFigures, PromptList, PromptReport, Referee, run as measure};
use cluegate_gate::{Gate, JudgeProvider as _, MemoryLog, Policies};

use super::args::PromptsArgs;
use super::generator::Drawing;
use super::measure::constitution_text;
use super::table::signed;
use crate::cli::args::Format;
use crate::cli::{Exit, engine_options, progress, say, say_json, write_file};

/// Name of the report in the folder of a run.
const REPORT_FILE: &str = "prompts-report.json";

pub(super) fn run(arguments: &PromptsArgs) -> anyhow::Result<Exit> {
    let lists = lists(arguments)?;
    let options =
        || anyhow::Ok(EngineOptions { verdicts: None, ..engine_options(&arguments.judging.models.compute)? });
    let engine = Engine::open_with(arguments.judging.models.models.as_deref(), &options()?)?;
    let policies = match &arguments.policy {
        Some(file) => Policies::load(file)?,
        None => Policies::from_toml(
            &format!("{}\n{}", Policies::with_defaults_toml(), Policies::demo_toml()),
            "the shipped policies",
        )?,
    };
    policies.require(&arguments.tenant)?;
    let judges = Arc::new(engine.judges(arguments.judging.force));
    let gate = Gate::new(&policies, judges, Arc::new(MemoryLog::new(0)))?;
    gate.prepare_all()?;
    let referee = match arguments.referee.as_deref() {
        Some(path) => Some(Engine::open_with(Some(path), &options()?)?),
        None => None,
    };
    let judging = referee.as_ref().unwrap_or(&engine);
    let constitution =
        Constitution::parse(&constitution_text(&arguments.constitution)?, &arguments.constitution)?;
    // Says so, and how to force it, where the referee does not know such rules.
    judging.judges(arguments.judging.force).inspector(constitution.clone())?;
    let prepared = judging.judge().prepare(&constitution)?;
    let drawing = Drawing::open(&arguments.generator, &engine)?;
    let asked = gate.constitution(&arguments.tenant).context("the tenant has no constitution")?;
    let revision = [
        drawing.generator().fingerprint().to_owned(),
        format!("{:?}", gate.policy(&arguments.tenant)),
        asked.revision().to_string(),
        serde_json::to_string(engine.judge().models())?,
        serde_json::to_string(judging.judge().models())?,
        constitution.revision().to_string(),
        format!("{:?}", arguments.draw),
    ];
    let asking = Asking {
        generator: drawing.generator(),
        gate: &gate,
        tenant: &arguments.tenant,
        referee: Referee { judge: judging.judge(), prepared: &prepared },
        revision: revision.join("\n"),
        pictures: arguments.pictures,
        seed: arguments.seed,
        draw: (&arguments.draw).into(),
    };
    let total = lists.iter().map(|list| list.rows.len() as u64).sum();
    let bar = progress::bar(total, "drawing");
    let bootstrap = Bootstrap { resamples: arguments.resamples, ..Bootstrap::default() };
    let report = measure(&lists, &asking, (&arguments.out, bootstrap), || bar.inc(1))?;
    bar.finish_and_clear();
    let json = serde_json::to_string_pretty(&report)? + "\n";
    write_file(&arguments.out.join(REPORT_FILE), json.as_bytes())?;
    match arguments.judging.format {
        Format::Json => say_json(&report)?,
        Format::Text => say(table(&report, referee.is_none()))?,
    }
    Ok(if report.all.failed > 0 { Exit::Error } else { Exit::Clean })
}

/// The lists, each with as many prompts as are to be asked, spread evenly.
fn lists(arguments: &PromptsArgs) -> anyhow::Result<Vec<PromptList>> {
    let mut lists = Vec::with_capacity(arguments.list.len());
    for named in &arguments.list {
        let rows = named.format.open(&named.path)?;
        let count = arguments.limit.map_or(rows.len(), |limit| limit.min(rows.len()));
        let chosen = (0..count).map(|index| rows[index * rows.len() / count.max(1)].clone()).collect();
        let taken =
            lists.iter().filter(|list: &&PromptList| list.name.starts_with(named.format.as_str())).count();
        let name = named.format.as_str();
        let name = if taken == 0 { name.to_owned() } else { format!("{name}#{}", taken + 1) };
        lists.push(PromptList { name, rows: chosen });
    }
    Ok(lists)
}

fn table(report: &PromptReport, same_judge: bool) -> String {
    // Writing to a string does not fail.
    let mut text = String::new();
    let _ = writeln!(
        text,
        "violations released per prompt, {} picture(s) each, with 95 % intervals\n",
        report.pictures
    );
    let _ = writeln!(
        text,
        "{:34} {:>7} {:>22} {:>22} {:>26} {:>9} {:>7}",
        "", "prompts", "without the gate", "with the gate", "difference", "released", "failed"
    );
    line(&mut text, "all", &report.all);
    for (name, figures) in report.by_list.iter().chain(&report.by_category) {
        line(&mut text, name, figures);
    }
    if same_judge {
        text.push_str("\nThe referee is the gate's own judge: what it overlooks is not counted. --referee names another.");
    }
    text.truncate(text.trim_end().len());
    text
}

fn line(text: &mut String, name: &str, figures: &PromptFigures) {
    let PromptFigures {
        prompts,
        without,
        without_interval,
        with,
        with_interval,
        difference,
        released,
        failed,
    } = figures;
    let ranged = |value: f64, interval: &Option<Interval>| match interval {
        Some([low, high]) => format!("{value:.3} ({low:.3}, {high:.3})"),
        None => format!("{value:.3}"),
    };
    let less = match difference.interval {
        Some([low, high]) => format!("{} ({}, {})", signed(difference.value), signed(low), signed(high)),
        None => signed(difference.value),
    };
    let _ = writeln!(
        text,
        "{name:34} {prompts:>7} {:>22} {:>22} {less:>26} {:>7.1} % {failed:>7}",
        ranged(*without, without_interval),
        ranged(*with, with_interval),
        100.0 * released
    );
}
