//! The report of a run: its figures, its table and its page, from what lies on disk.

use cluegate_eval::costs::Costs;
use cluegate_eval::data::DataSet;
use cluegate_eval::record::Kept;
use cluegate_eval::report::RunReport;

use std::path::Path;

use super::args::ReportArgs;
use super::{data, table};
use crate::cli::args::Format;
use crate::cli::{Exit, say, say_json, write_file};
use crate::report::measured::{Measured, render};

/// Name of the page in the folder of a run.
const PAGE_FILE: &str = "report.html";

/// Counts the answers of an earlier run again.
pub(super) fn rebuild(arguments: &ReportArgs) -> anyhow::Result<Exit> {
    write(&arguments.out, None, arguments.errors, arguments.format)
}

/// Counts the answers in `folder`, writes the report and the page, and prints the figures. `set` holds the pictures; it is
/// opened again where there is none.
pub(super) fn write(
    folder: &Path,
    set: Option<&dyn DataSet>,
    errors: u16,
    format: Format,
) -> anyhow::Result<Exit> {
    let kept = Kept::read(folder)?;
    let costs = Costs::read(folder)?;
    let report = RunReport::of(&kept);
    report.write(folder)?;
    let opened = match set {
        Some(_) => Ok(None),
        None => data::reopen(&kept.record.data).map(Some),
    };
    let (set, without) = match (set, &opened) {
        (Some(set), _) => (Some(set), None),
        (None, Ok(opened)) => (opened.as_deref(), None),
        (None, Err(error)) => (None, Some(format!("{error:#}"))),
    };
    let measured = Measured { kept: &kept, report: &report, costs: &costs, set, without: without.as_deref() };
    let page = folder.join(PAGE_FILE);
    write_file(&page, render(&measured, usize::from(errors))?.as_bytes())?;
    match format {
        Format::Json => say_json(&report)?,
        Format::Text => {
            say(table::of(&report, &costs))?;
            if let Some(reason) = &without {
                say(format_args!("the page shows no pictures: {reason}"))?;
            }
            say(format_args!("page: {}", page.display()))?;
        }
    }
    let failed = report.methods.iter().any(|method| method.measures.failed > 0);
    Ok(if failed { Exit::Error } else { Exit::Clean })
}
