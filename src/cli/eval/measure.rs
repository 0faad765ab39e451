//! `cluegate eval run`: asks, keeps, counts, reports.

use anyhow::{Context as _, bail};
use cluegate::{Engine, EngineOptions};
use cluegate_constitution::Constitution;
use cluegate_eval::ablation::ConstitutionFile;
use cluegate_eval::data::{DataSet, Truth};
use cluegate_eval::metrics::Bootstrap;
use cluegate_eval::results::Results;
use cluegate_eval::run::{Counting, MethodReport, chosen, report, run as ask};
use cluegate_eval::scenes::POLICIES;
use cluegate_gate::JudgeProvider as _;
use cluegate_judge::Models;
use cluegate_perception::Call;
use serde::Serialize;

use super::args::{DataName, RunArgs};
use super::{data, methods, table};
use crate::cli::args::Format;
use crate::cli::{Exit, engine_options, progress, say_json, write_file};

/// Name of the report in the folder of a run.
const REPORT_FILE: &str = "report.json";

/// How many pictures are looked at to see whether the models know such pictures.
const TRIED: usize = 16;

/// What a run found. Holds no times, so that the same run writes the same bytes.
#[derive(Debug, Serialize)]
pub(super) struct RunReport {
    /// The data set.
    pub(super) data: DataReport,
    /// The rules.
    constitution: ConstitutionReport,
    /// Fingerprints of the models.
    models: Models,
    /// How intervals were drawn.
    bootstrap: Bootstrap,
    /// The figures of each method.
    pub(super) methods: Vec<MethodReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct DataReport {
    pub(super) name: String,
    revision: String,
    rows: usize,
    pub(super) looked_at: usize,
}

#[derive(Debug, Serialize)]
struct ConstitutionReport {
    name: String,
    revision: String,
}

/// How long what was asked now took, in milliseconds a picture; nothing for what was known.
pub(super) type Times = Vec<Option<f64>>;

pub(super) fn run(arguments: &RunArgs) -> anyhow::Result<Exit> {
    let set = data::open(arguments)?;
    // Every picture is to cost what it costs.
    let options = EngineOptions { verdicts: None, ..engine_options(&arguments.models.compute)? };
    let engine = Engine::open_with(arguments.models.models.as_deref(), &options)?;
    let text = constitution_text(&arguments.constitution)?;
    let file = ConstitutionFile { file: &arguments.constitution, text: &text };
    let constitution = file.parse()?;
    let rules = counted_rules(set.as_ref(), &constitution)?;
    let rows = chosen(set.as_ref(), arguments.limit);
    if !arguments.force {
        engine.judges(false).inspector(constitution.clone())?;
        if matches!(arguments.data, DataName::Files(..)) {
            refuse_foreign_pictures(&engine, set.as_ref(), &rows)?;
        }
    }
    let asked = methods::asked(arguments, &engine, file)?;
    let mut results = Results::open(&arguments.out)?;
    let bootstrap = Bootstrap { resamples: arguments.resamples, ..Bootstrap::default() };
    let drawn = matches!(arguments.data, DataName::Osbench | DataName::Pairs);
    let policies = if drawn { &POLICIES[..] } else { &[] };
    let counting = Counting { rules: &rules, policies, bootstrap };
    let (mut reports, mut times) = (Vec::new(), Times::new());
    for method in &asked {
        let bar = progress::bar(rows.len() as u64, method.name());
        let done = ask(set.as_ref(), &rows, method.as_ref(), &mut results, || bar.inc(1))?;
        bar.finish_and_clear();
        times.push((done.made > 0).then(|| done.time.as_secs_f64() * 1e3 / done.made as f64));
        reports.push(report(set.as_ref(), &rows, method.as_ref(), (&done, &results), counting));
    }
    let report = RunReport {
        data: DataReport {
            name: set.name().to_owned(),
            revision: set.revision(),
            rows: set.rows().len(),
            looked_at: rows.len(),
        },
        constitution: ConstitutionReport {
            name: constitution.name().to_owned(),
            revision: constitution.revision().to_string(),
        },
        models: engine.judge().models().clone(),
        bootstrap,
        methods: reports,
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    write_file(&arguments.out.join(REPORT_FILE), json.as_bytes())?;
    match arguments.format {
        Format::Json => say_json(&report)?,
        Format::Text => table::print(&report, &times)?,
    }
    let failed = report.methods.iter().any(|method| method.measures.failed > 0);
    Ok(if failed { Exit::Error } else { Exit::Clean })
}

/// The text of a shipped constitution, or of a file.
fn constitution_text(name: &str) -> anyhow::Result<String> {
    if let Some(text) = Constitution::shipped_text(name) {
        return Ok(text.to_owned());
    }
    let shipped = cluegate_constitution::shipped_names().collect::<Vec<_>>().join(", ");
    std::fs::read_to_string(name).with_context(|| {
        format!("cannot read the constitution {name:?}; expected a file, or a shipped name ({shipped})")
    })
}

/// The rules that count, none where the truth is safe or unsafe.
fn counted_rules(set: &dyn DataSet, constitution: &Constitution) -> anyhow::Result<Vec<String>> {
    let unknown: Vec<&str> =
        set.rules().iter().map(String::as_str).filter(|rule| constitution.rule(rule).is_none()).collect();
    if !unknown.is_empty() {
        bail!(
            "the rows are labelled by rules that the constitution {} does not have ({}); name the constitution that \
             they were labelled by",
            constitution.name(),
            unknown.join(", ")
        );
    }
    let labelled = set.rows().iter().any(|row| matches!(row.truth, Truth::Rules(_)));
    let rules = constitution.rules().iter().map(|rule| rule.id.clone());
    Ok(if labelled { rules.collect() } else { Vec::new() })
}

/// Refuses a set whose pictures the models do not know, by some of them.
fn refuse_foreign_pictures(engine: &Engine, set: &dyn DataSet, rows: &[usize]) -> anyhow::Result<()> {
    let Some(domain) = engine.domain() else { return Ok(()) };
    let step = rows.len().div_ceil(TRIED).max(1);
    for index in rows.iter().step_by(step) {
        // One that cannot be read fails by itself.
        let Ok(picture) = set.picture(*index) else { continue };
        if let Some(outside) = domain.check_picture(&picture, engine.relevance(), &Call::default())? {
            bail!(
                "the picture {} is {outside}. What these models know: {} {} (--force judges it all the same)",
                set.rows()[*index].id,
                domain.name(),
                domain.advice()
            );
        }
    }
    Ok(())
}
