//! `cluegate eval compare`: what one run has over another, on the rows of both.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{bail, ensure};
use cluegate_eval::metrics::{Difference, Judged, differences};
use cluegate_eval::record::{Kept, MethodRecord, RowRecord};
use cluegate_eval::report::MethodDifference;
use serde::Serialize;

use super::args::CompareArgs;
use super::table::signed;
use crate::cli::args::Format;
use crate::cli::{Exit, say, say_json};

/// What was compared.
#[derive(Debug, Serialize)]
struct Comparison {
    /// Rows that both runs looked at, with the same picture and the same truth.
    rows: usize,
    /// Rows that only one of them looked at.
    left_out: usize,
    /// Each pair of methods.
    methods: Vec<MethodDifference>,
}

pub(super) fn run(arguments: &CompareArgs) -> anyhow::Result<Exit> {
    let (first, second) = (Kept::read(&arguments.first)?, Kept::read(&arguments.second)?);
    let shared = shared(&first.rows, &second.rows)?;
    ensure!(
        !shared.is_empty(),
        "{} and {} have no row with the same picture in common; compare runs over the same data",
        arguments.first.display(),
        arguments.second.display()
    );
    let rules: Vec<String> =
        first.record.rules.iter().filter(|rule| second.record.rules.contains(rule)).cloned().collect();
    let mut methods = Vec::new();
    for (ours, theirs) in pairs(arguments, &first, &second)? {
        let (of_first, of_second) = (first.judged(ours), second.judged(theirs));
        let firsts: Vec<Judged<'_>> = shared.iter().map(|(at, _)| of_first[*at]).collect();
        let seconds: Vec<Judged<'_>> = shared.iter().map(|(_, at)| of_second[*at]).collect();
        methods.push(MethodDifference {
            method: ours.name.clone(),
            against: theirs.name.clone(),
            differences: differences(&firsts, &seconds, &rules, first.record.bootstrap),
        });
    }
    let left_out = first.rows.len() + second.rows.len() - 2 * shared.len();
    let comparison = Comparison { rows: shared.len(), left_out, methods };
    match arguments.format {
        Format::Json => say_json(&comparison)?,
        Format::Text => print(&comparison, arguments)?,
    }
    Ok(Exit::Clean)
}

/// The places of the rows that both runs have: the same id and picture.
fn shared(first: &[RowRecord], second: &[RowRecord]) -> anyhow::Result<Vec<(usize, usize)>> {
    let key = |row: &RowRecord| Some((row.row.id.clone(), row.hash.clone()?));
    let places: HashMap<_, usize> =
        second.iter().enumerate().filter_map(|(at, row)| Some((key(row)?, at))).collect();
    let mut shared = Vec::new();
    for (at, row) in first.iter().enumerate() {
        let Some(other) = key(row).and_then(|key| places.get(&key)).copied() else { continue };
        ensure!(
            row.row.truth == second[other].row.truth,
            "the row {:?} is labelled otherwise in the two runs; compare runs over the same labels",
            row.row.id
        );
        shared.push((at, other));
    }
    Ok(shared)
}

/// The methods that are compared.
fn pairs<'a>(
    arguments: &CompareArgs,
    first: &'a Kept,
    second: &'a Kept,
) -> anyhow::Result<Vec<(&'a MethodRecord, &'a MethodRecord)>> {
    let Some(name) = &arguments.method else {
        let both: Vec<_> = first
            .record
            .methods
            .iter()
            .filter_map(|ours| {
                Some((ours, second.record.methods.iter().find(|other| other.name == ours.name)?))
            })
            .collect();
        if both.is_empty() {
            bail!("the two runs have no method in common; name two with --method and --with");
        }
        return Ok(both);
    };
    let with = arguments.with.as_ref().unwrap_or(name);
    Ok(vec![(find(first, name, &arguments.first)?, find(second, with, &arguments.second)?)])
}

fn find<'a>(kept: &'a Kept, name: &str, folder: &Path) -> anyhow::Result<&'a MethodRecord> {
    let methods = &kept.record.methods;
    let Some(method) = methods.iter().find(|method| method.name == name) else {
        let known: Vec<&str> = methods.iter().map(|method| method.name.as_str()).collect();
        bail!("{} has no method {name:?}; it has {}", folder.display(), known.join(", "));
    };
    Ok(method)
}

fn print(comparison: &Comparison, arguments: &CompareArgs) -> anyhow::Result<()> {
    say(format_args!(
        "{} less {}, {} rows of both{}\n",
        arguments.first.display(),
        arguments.second.display(),
        comparison.rows,
        if comparison.left_out > 0 {
            format!(" ({} of one only)", comparison.left_out)
        } else {
            String::new()
        }
    ))?;
    for MethodDifference { method, against, differences } in &comparison.methods {
        let name = if method == against { method.clone() } else { format!("{method} less {against}") };
        say(name)?;
        let levels = [("pictures", &differences.image_level), ("rules", &differences.rule_level)];
        for (level, figures) in levels {
            for (name, Difference { value, interval }) in figures {
                let interval = interval
                    .map_or_else(String::new, |[low, high]| format!("  {} to {}", signed(low), signed(high)));
                say(format_args!("  {level:9} {:18} {}{interval}", name.replace('_', " "), signed(*value)))?;
            }
        }
    }
    Ok(())
}
