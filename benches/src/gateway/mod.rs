//! The gateway: what it costs beside the upstream alone and a bare nginx, and whether anything unjudged gets out while
//! everything around it fails.

mod checker;
mod clients;
mod gate;
mod http;
mod load;
mod nginx;
mod overhead;
mod process;
mod soak;
mod stages;
pub(crate) mod tenants;
mod upstream;

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::page::{Page, say};

/// Options of `gateway`.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Minutes of mixed load with faults.
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    minutes: f64,
    /// A short pass: seconds of everything, and half a minute of faults unless `--minutes` says otherwise.
    #[arg(long)]
    quick: bool,
    /// Seed of the faults and of the load.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What the upstreams of the load with faults speak, a gate for each.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_values = ["a1111", "openai"])]
    upstreams: Vec<String>,
    /// Only the load with faults.
    #[arg(long, conflicts_with = "only_overhead")]
    only_soak: bool,
    /// Only the overhead.
    #[arg(long)]
    only_overhead: bool,
    /// Where the page with plots is written.
    #[arg(long, value_name = "DIR", default_value = "target/benchmarks")]
    out: PathBuf,
}

/// A part of this benchmark, which starts it as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct PartArgs {
    /// Which.
    name: String,
    /// Its options, as JSON.
    options: String,
}

/// The figures of the last line.
#[derive(Debug, Serialize)]
struct Figures {
    p50_overhead_ms: Option<f64>,
    p99_overhead_ms: Option<f64>,
    ratio_to_nginx: Option<f64>,
    unjudged_released: Option<u64>,
    faults_injected: Option<u64>,
}

/// Runs the benchmark. Its last line is one JSON object; a figure that was not measured is null.
///
/// # Errors
/// If something that it needs is missing, or a picture got out that should not have.
pub(crate) fn run(arguments: &GatewayArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for logs")?;
    let mut page = Page::begin("The gateway")?;
    let mut figures = Figures {
        p50_overhead_ms: None,
        p99_overhead_ms: None,
        ratio_to_nginx: None,
        unjudged_released: None,
        faults_injected: None,
    };
    let rounded = |value: f64| Some((value * 1e3).round() / 1e3);
    if !arguments.only_soak {
        let overhead = overhead::measure(arguments, folder.path(), &mut page)?;
        figures.p50_overhead_ms = rounded(overhead.p50_ms);
        figures.p99_overhead_ms = rounded(overhead.p99_ms);
        figures.ratio_to_nginx = rounded(overhead.ratio_to_nginx);
    }
    if !arguments.only_overhead {
        let soak = soak::run(arguments, folder.path(), &mut page)?;
        figures.unjudged_released = Some(soak.unjudged);
        figures.faults_injected = Some(soak.faults);
    }
    page.write(&arguments.out, "gateway")?;
    say(&serde_json::to_string(&figures)?)?;
    ensure!(figures.unjudged_released.unwrap_or(0) == 0, "pictures got out that should not have: see above");
    Ok(())
}

/// Runs a part until the process that started it ends.
pub(crate) fn run_part(arguments: &PartArgs) -> anyhow::Result<()> {
    let options = arguments.options.as_str();
    match arguments.name.as_str() {
        "upstream" => upstream::run(&serde_json::from_str(options)?),
        "gate" => gate::run(&serde_json::from_str(options)?),
        "tenants-gate" => tenants::run_gate(&serde_json::from_str(options)?),
        unknown => bail!("expected the part `upstream`, `gate` or `tenants-gate`, got {unknown:?}"),
    }
}
