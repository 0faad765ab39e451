//! The report of a measurement as one self-contained page: nothing is fetched, nothing runs, and the same run gives the
//! same bytes.

mod errors;
mod figures;
mod page;
mod plot;
mod sections;
#[cfg(test)]
mod tests;

use cluegate_eval::costs::Costs;
use cluegate_eval::data::DataSet;
use cluegate_eval::record::Kept;
use cluegate_eval::report::RunReport;

use page::{Entry, Page};
use sections::Sections;

/// What the page is made from.
#[derive(Clone, Copy)]
pub(crate) struct Measured<'a> {
    /// The run.
    pub(crate) kept: &'a Kept,
    /// Its figures.
    pub(crate) report: &'a RunReport,
    /// What its answers took.
    pub(crate) costs: &'a Costs,
    /// Where the pictures are, if they are.
    pub(crate) set: Option<&'a dyn DataSet>,
    /// Why there are no pictures.
    pub(crate) without: Option<&'a str>,
}

/// The page, with at most `errors` of the worst errors of the first method and a quarter as many of each other one.
pub(crate) fn render(measured: &Measured<'_>, errors: usize) -> anyhow::Result<String> {
    page(measured, errors).html()
}

fn page(measured: &Measured<'_>, errors: usize) -> Page {
    let record = &measured.kept.record;
    let methods = record.methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>().join(", ");
    let sections = Sections { measured: *measured }.all(errors);
    Page {
        title: format!("Measured judgments: {}", record.data.name),
        subtitle: format!(
            "{} pictures judged under the constitution “{}” by {methods}.",
            record.data.looked_at, record.constitution.name
        ),
        tally: tally(measured.report),
        sections,
    }
}

/// The figures of the first method in large.
fn tally(report: &RunReport) -> Vec<Entry> {
    let Some(first) = report.methods.first() else { return Vec::new() };
    let interval = |name: &str| {
        first
            .measures
            .image_level
            .intervals
            .get(name)
            .map(|[low, high]| format!("95 %: {low:.3} to {high:.3}"))
    };
    let figure = |title: &str, name: &str| {
        let value = first.measures.image_level.figure(name);
        let words = value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        Entry::new(&format!("{title} ({})", first.method), words).noted(interval(name))
    };
    let mut tally = vec![figure("F1", "f1"), figure("Recall", "recall"), figure("Accuracy", "accuracy")];
    let best = report
        .methods
        .iter()
        .skip(1)
        .filter_map(|method| Some((method.measures.image_level.f1?, method.method.as_str())))
        .reduce(|best, next| if next.0 > best.0 { next } else { best });
    if let Some((f1, name)) = best {
        tally.push(Entry::new("Best of the others, F1", format!("{f1:.3}")).noted(Some(name.to_owned())));
    }
    if let Some(pairs) = &first.measures.pairs {
        let words = pairs.accuracy.map_or_else(|| "–".to_owned(), |accuracy| format!("{accuracy:.3}"));
        tally.push(Entry::new("Pairs right", words).noted(Some(format!("of {} pairs", pairs.pairs))));
    }
    tally
}
