//! How long ten thousand tenants take to be ready, how much memory, and how long a change of one of them.
//!
//! `cargo run --release -p cluegate-gate --example many_tenants [-- TENANTS CONSTITUTIONS]` prints a table. Constitutions
//! are copies of the shipped `general` that differ in name and in one rule; the judges are scripted.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluegate_constitution::Constitution;
use cluegate_gate::fakes::World;
use cluegate_gate::policy::{PieceKind, PolicyPiece};
use cluegate_gate::{ConstitutionText, Constitutions, Gate, MemoryLog, Policies, RequestInfo};

/// How often each change is made; the table has the slowest.
const ROUNDS: usize = 20;

/// Constitutions in memory, as a gateway keeps those of a store.
#[derive(Debug, Clone)]
struct Shelf(Arc<BTreeMap<String, Arc<str>>>);

impl Constitutions for Shelf {
    fn text(&self, name: &str) -> Result<ConstitutionText, String> {
        let text = self.0.get(name).ok_or_else(|| "there is none".to_owned())?;
        Ok(ConstitutionText { origin: format!("constitution {name}"), text: Arc::clone(text) })
    }
}

fn constitution(number: usize, edition: usize) -> Result<(String, Arc<str>), Box<dyn Error>> {
    let text = Constitution::shipped_text("general").ok_or("`general` does not ship")?;
    let name = format!("c{number}");
    let text = text.replacen("name = \"general\"", &format!("name = \"{name}\""), 1);
    let edited = text.replacen("text = \"", &format!("text = \"Of service {number}, edition {edition}: "), 1);
    Ok((name, edited.into()))
}

fn tenant(number: usize, constitutions: usize, tries: u32) -> PolicyPiece {
    PolicyPiece {
        kind: PieceKind::Tenant,
        name: format!("tenant-{number}"),
        origin: format!("the row of tenant-{number}"),
        text: format!(
            "extends = \"service\"\nconstitution = \"c{}\"\ntries = {tries}\n[action]\ndefault = \"hold\"\n\
             [quota]\npictures_per_day = {}\n[model.\"sdxl*\"]\npriority = 7\n",
            number % constitutions,
            100 + number
        ),
    }
}

fn template(tries: u32) -> PolicyPiece {
    PolicyPiece {
        kind: PieceKind::Template,
        name: "service".to_owned(),
        origin: "the row of service".to_owned(),
        text: format!(
            "tries = {tries}\npreviews = [0.75]\nlog_prompts = true\n[redact]\nmethod = \"blur\"\n\
             [action.severity]\nlow = \"allow\"\n[retention]\npictures = \"withheld\"\n"
        ),
    }
}

/// Resident memory of this process in MB.
fn resident() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1e3)
}

fn slowest(mut change: impl FnMut(usize) -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let start = Instant::now();
        change(round)?;
        slowest = slowest.max(start.elapsed());
    }
    Ok(slowest)
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<_, _>>()?;
    let tenants = numbers.first().copied().unwrap_or(10_000);
    let constitutions = numbers.get(1).copied().unwrap_or(1_000).max(1);
    let shelf = |edited: Option<usize>| -> Result<Shelf, Box<dyn Error>> {
        let texts = (0..constitutions).map(|n| constitution(n, edited.filter(|_| n == 0).unwrap_or(0)));
        Ok(Shelf(Arc::new(texts.collect::<Result<_, _>>()?)))
    };
    let first = shelf(None)?;
    let before = resident();

    let start = Instant::now();
    let pieces = std::iter::once(template(3)).chain((0..tenants).map(|n| tenant(n, constitutions, 2)));
    let mut policies = Policies::from_pieces(pieces, Arc::new(first.clone()))?;
    let read = start.elapsed();
    let gate = Gate::new(&policies, Arc::new(World::new([])), Arc::new(MemoryLog::new(1)))?;
    let ready = start.elapsed();
    let after = resident();

    let one = slowest(|round| {
        policies = policies.with_changes([tenant(round, constitutions, 3)], &[])?;
        let replaced = gate.replace(&policies)?;
        if replaced.changed.len() == 1 {
            Ok(())
        } else {
            Err(format!("changed {:?}", replaced.changed).into())
        }
    })?;
    let shelves = (1..=ROUNDS).map(|round| shelf(Some(round))).collect::<Result<Vec<_>, _>>()?;
    let text = slowest(|round| {
        policies = policies.clone().with_constitutions(Arc::new(shelves[round].clone()));
        gate.replace(&policies)?;
        Ok(())
    })?;
    let base = slowest(|round| {
        policies = policies.with_changes([template(4 + round as u32)], &[])?;
        gate.replace(&policies)?;
        Ok(())
    })?;
    let nothing = slowest(|_| Ok(gate.replace(&policies).map(drop)?))?;
    let open = slowest(|round| {
        for n in 0..1000 {
            gate.session(RequestInfo::new(format!("tenant-{}", (n + round) % tenants), "a cat", 7, 0))?;
        }
        Ok(())
    })? / 1000;
    let start = Instant::now();
    gate.warm_up();
    gate.wait_until_warm();
    let warm = start.elapsed();
    let warmed = resident();

    let megabytes =
        |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |mb| format!("{mb:.0} MB"));
    let rows = [
        ("policies read and merged", format!("{:.2} s", read.as_secs_f64())),
        ("gate ready", format!("{:.2} s", ready.as_secs_f64())),
        ("resident before", megabytes(before)),
        ("resident when ready", megabytes(after)),
        ("replace one tenant", format!("{:.1} ms", one.as_secs_f64() * 1e3)),
        ("replace one constitution's text", format!("{:.1} ms", text.as_secs_f64() * 1e3)),
        ("replace the template of all", format!("{:.1} ms", base.as_secs_f64() * 1e3)),
        ("replace nothing", format!("{:.1} ms", nothing.as_secs_f64() * 1e3)),
        ("open a session", format!("{:.1} us", open.as_secs_f64() * 1e6)),
        (
            "prepare all scripted judges",
            format!("{:.2} s, {} ready", warm.as_secs_f64(), gate.judges_ready()),
        ),
        ("resident when warm", megabytes(warmed)),
    ];
    println!("{tenants} tenants, {constitutions} constitutions; changes: the slowest of {ROUNDS}");
    for (what, figure) in rows {
        println!("{what:34} {figure:>20}");
    }
    Ok(())
}
