//! The engine against what a user would otherwise do: the same statements, and the whole of CLUE, on the same weights
//! and pictures, in one run.

mod agreement;
mod clue;
mod load;
mod statements;
mod tokens;

pub(crate) use statements::{model_folder, scene_statements};

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::Common;
use crate::page::{Page, doing, say};
use crate::pictures::Scenes;

/// Options of `engine`.
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    common: Common,
    /// Python with torch and transformers.
    #[arg(long, value_name = "PYTHON")]
    reference_python: PathBuf,
    /// Python with vLLM for the CPU; without it that row is left out.
    #[arg(long, value_name = "PYTHON")]
    vllm_python: Option<PathBuf>,
    /// Folder of the programs in Python.
    #[arg(long, value_name = "DIR", default_value = "benches/reference")]
    reference: PathBuf,
    /// Pictures of Mini OS Bench that the whole method judges.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pictures: usize,
    /// Pictures whose memory is watched; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    soak: usize,
}

/// The last line of the output.
#[derive(Debug, Serialize)]
struct Figures {
    /// Reference implementation over ours, one picture after the other.
    ratio_single: f64,
    /// Reference implementation over ours, 16 callers at once.
    ratio_16: f64,
    /// Verdict and violated rules agree on every picture.
    same_verdicts: bool,
    /// The statements of one picture, in milliseconds.
    statements_ms: f64,
    /// The same by one query a forward pass of Hugging Face transformers.
    hf_loop_ms: f64,
    /// The same with the picture and the beginning read once.
    hf_shared_ms: f64,
    /// The same by vLLM on the CPU.
    vllm_cpu_ms: Option<f64>,
    /// One statement more, as a share of a single query.
    marginal_statement_ratio: f64,
    /// Most memory of this process while it judged, in MiB.
    peak_memory_mb: f64,
}

/// What the parts share.
struct Setting<'a> {
    arguments: &'a EngineArgs,
    scenes: Scenes,
    /// For pictures, and for what the programs in Python read and write.
    folder: &'a Path,
}

/// Runs the benchmark.
///
/// # Errors
/// If anything of it cannot be run; disagreement with the reference is told, not an error.
pub(crate) fn run(arguments: &EngineArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setting = Setting { arguments, scenes: Scenes::load()?, folder: folder.path() };
    let mut page = Page::begin("The judging engine")?;
    doing("statements about a picture");
    let statements = statements::measure(&setting, &mut page)?;
    crate::machine::reset_peak();
    doing("the whole of CLUE");
    let clue = clue::measure(&setting, &mut page)?;
    if arguments.soak > 0 {
        doing("memory");
        load::soak(&setting, &mut page)?;
    }
    let peak_memory_mb = crate::machine::peak_mb()?;
    doing("more requests than can be served in time");
    load::overload(&setting, &mut page, clue.ms_single)?;
    page.write(&arguments.common.out, "engine")?;
    let figures = Figures {
        ratio_single: rounded(clue.ratio_single),
        ratio_16: rounded(clue.ratio_16),
        same_verdicts: clue.same_verdicts,
        statements_ms: rounded(statements.ours_ms),
        hf_loop_ms: rounded(statements.loop_ms),
        hf_shared_ms: rounded(statements.shared_ms),
        vllm_cpu_ms: statements.vllm_ms.map(rounded),
        marginal_statement_ratio: rounded(statements.marginal_ratio),
        peak_memory_mb: rounded(peak_memory_mb),
    };
    say(&serde_json::to_string(&figures)?)
}

/// Four digits after the point are more than any of this repeats to.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_the_agreed_keys() {
        let figures = Figures {
            ratio_single: 10.0,
            ratio_16: 15.0,
            same_verdicts: true,
            statements_ms: 1.0,
            hf_loop_ms: 2.0,
            hf_shared_ms: 3.0,
            vllm_cpu_ms: Some(rounded(1.0 / 3.0)),
            marginal_statement_ratio: 0.1,
            peak_memory_mb: 100.0,
        };
        let value: serde_json::Value = serde_json::to_value(figures).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let agreed = [
            "ratio_single",
            "ratio_16",
            "same_verdicts",
            "statements_ms",
            "hf_loop_ms",
            "hf_shared_ms",
            "vllm_cpu_ms",
            "marginal_statement_ratio",
            "peak_memory_mb",
        ];
        assert_eq!(keys, agreed);
        assert_eq!(value["vllm_cpu_ms"], 0.3333);
    }
}
