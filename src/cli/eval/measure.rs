//! `cluegate eval run`: asks, keeps, counts, reports.

use anyhow::{Context as _, bail};
use cluegate::{Engine, EngineOptions};
use cluegate_constitution::Constitution;
use cluegate_eval::ablation::ConstitutionFile;
use cluegate_eval::costs::{CostLog, Machine};
use cluegate_eval::data::{DataSet, Truth};
use cluegate_eval::methods::Method;
use cluegate_eval::metrics::Bootstrap;
use cluegate_eval::record::{self, ConstitutionRecord, MethodRecord, RunRecord};
use cluegate_eval::results::Results;
use cluegate_eval::run::{MethodRun, chosen, run_timed};
use cluegate_gate::JudgeProvider as _;
use cluegate_perception::Call;

use super::args::RunArgs;
use super::names::DataName;
use super::{data, methods, pages};
use crate::cli::{Exit, engine_options, progress};

/// How many pictures are looked at to see whether the models know such pictures.
const TRIED: usize = 16;

pub(super) fn run(arguments: &RunArgs) -> anyhow::Result<Exit> {
    let set = data::open(arguments)?;
    // Every picture is to cost what it costs.
    let options = EngineOptions { verdicts: None, ..engine_options(&arguments.judging.models.compute)? };
    let engine = Engine::open_with(arguments.judging.models.models.as_deref(), &options)?;
    let text = constitution_text(&arguments.constitution)?;
    let file = ConstitutionFile { file: &arguments.constitution, text: &text };
    let constitution = file.parse()?;
    let rules = counted_rules(set.as_ref(), &constitution)?;
    let rows = chosen(set.as_ref(), arguments.limit);
    if !arguments.judging.force {
        engine.judges(false).inspector(constitution.clone())?;
        if matches!(arguments.data, DataName::Files(..)) {
            refuse_foreign_pictures(&engine, set.as_ref(), &rows)?;
        }
    }
    let asked = methods::asked(arguments, &engine, file)?;
    let runs = ask_all(arguments, set.as_ref(), &rows, &asked)?;
    #[expect(clippy::borrowed_box, reason = "it is mapped over a slice of boxes")]
    let method = |(method, run): (&Box<dyn Method>, &MethodRun)| MethodRecord {
        name: method.name().to_owned(),
        revision: method.revision().to_owned(),
        reads_policy: method.reads_policy(),
        failures: run
            .failures()
            .map(|(at, reason)| format!("{}: {reason}", set.rows()[rows[at]].id))
            .collect(),
    };
    let record = RunRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: command_line(),
        data: data::record(arguments, set.as_ref(), rows.len()),
        constitution: constitution_record(&constitution),
        models: engine.judge().models().clone(),
        bootstrap: Bootstrap { resamples: arguments.resamples, ..Bootstrap::default() },
        rules,
        methods: asked.iter().zip(&runs).map(method).collect(),
    };
    record::write(&arguments.out, &record, &record::rows(set.as_ref(), &rows, &runs))?;
    pages::write(&arguments.out, Some(set.as_ref()), arguments.errors, arguments.judging.format)
}

/// Asks every method about every row, and keeps what they say and what it takes.
fn ask_all(
    arguments: &RunArgs,
    set: &dyn DataSet,
    rows: &[usize],
    methods: &[Box<dyn Method>],
) -> anyhow::Result<Vec<MethodRun>> {
    let mut results = Results::open(&arguments.out)?;
    let mut costs = CostLog::open(&arguments.out, this_machine())?;
    let mut runs = Vec::with_capacity(methods.len());
    for method in methods {
        let bar = progress::bar(rows.len() as u64, method.name());
        let kept = (&mut results, Some(&mut costs));
        runs.push(run_timed(set, rows, method.as_ref(), kept, || bar.inc(1))?);
        bar.finish_and_clear();
    }
    Ok(runs)
}

/// The arguments of this process, the program's path left out.
fn command_line() -> Vec<String> {
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once("cluegate".to_owned()).chain(arguments).collect()
}

/// When and on what is measured.
fn this_machine() -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Machine {
        started,
        machine: format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH),
    }
}

fn constitution_record(constitution: &Constitution) -> ConstitutionRecord {
    ConstitutionRecord {
        name: constitution.name().to_owned(),
        revision: constitution.revision().to_string(),
        rules: constitution.rules().iter().map(|rule| (rule.id.clone(), rule.text.clone())).collect(),
    }
}

/// The text of a shipped constitution, or of a file.
pub(super) fn constitution_text(name: &str) -> anyhow::Result<String> {
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
