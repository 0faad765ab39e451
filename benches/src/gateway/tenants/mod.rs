//! Many tenants in a store: how long a gateway with ten thousand of them takes to start and to take over a change, what its
//! decision log sustains, what is lost when it is killed, and whether one tenant sees anything of another.

mod database;
mod gate;
mod killed;
mod log;
mod peeking;
mod scale;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::page::{Page, say};

pub(in crate::gateway) use gate::run as run_gate;

/// Options of `tenants`.
#[derive(Debug, Args)]
pub(crate) struct TenantsArgs {
    /// Tenants in the store.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    tenants: usize,
    /// Different constitutions, which the tenants share.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    constitutions: usize,
    /// How often a gateway is killed, half of them over SQLite and half over PostgreSQL.
    #[arg(long, value_name = "N", default_value_t = 200)]
    kills: usize,
    /// Seconds of each measurement of the decision log.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// A short pass: a tenth of the kills and of the seconds.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Where the page is written.
    #[arg(long, value_name = "DIR", default_value = "target/benchmarks")]
    out: PathBuf,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Start, memory, reload.
    Scale,
    /// The rate of the decision log.
    Log,
    /// Gateways that are killed.
    Killed,
    /// Reads of what is another tenant's.
    Peeking,
}

/// The figures of the last line.
#[derive(Debug, Default, Serialize)]
struct Figures {
    start_s: Option<f64>,
    rss_mb: Option<f64>,
    reload_ms: Option<f64>,
    decisions_per_s_sqlite: Option<f64>,
    decisions_per_s_postgres: Option<f64>,
    decisions_lost: Option<u64>,
    cross_tenant_reads: Option<u64>,
}

/// Runs the benchmark. Its last line is one JSON object; a figure that was not measured is null.
///
/// # Errors
/// If something that it needs is missing, a decision is lost, or a tenant reads what is another's.
pub(crate) fn run(arguments: &TenantsArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for databases")?;
    let mut page = Page::begin("Many tenants")?;
    let mut figures = Figures::default();
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let rounded = |value: f64| Some((value * 1e3).round() / 1e3);
    if wanted(Part::Scale) {
        let scale = scale::measure(arguments, folder.path(), &mut page)?;
        figures.start_s = rounded(scale.start_s);
        figures.rss_mb = rounded(scale.rss_mb);
        figures.reload_ms = rounded(scale.reload_ms);
    }
    if wanted(Part::Log) {
        let [sqlite, postgres] = log::measure(arguments, folder.path(), &mut page)?;
        figures.decisions_per_s_sqlite = rounded(sqlite);
        figures.decisions_per_s_postgres = rounded(postgres);
    }
    if wanted(Part::Killed) {
        figures.decisions_lost = Some(killed::run(arguments, folder.path(), &mut page)?);
    }
    if wanted(Part::Peeking) {
        figures.cross_tenant_reads = Some(peeking::run(folder.path(), &mut page)?);
    }
    page.write(&arguments.out, "tenants")?;
    say(&serde_json::to_string(&figures)?)?;
    ensure!(figures.decisions_lost.unwrap_or(0) == 0, "decisions were lost: see above");
    ensure!(figures.cross_tenant_reads.unwrap_or(0) == 0, "a tenant saw what is another's: see above");
    Ok(())
}
