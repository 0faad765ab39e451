//! The benchmarks: each runs, prints its tables and the machine, writes a page with plots, and ends with one line of
//! JSON. `benches/run NAME` sets up what it compares with and calls this program.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod closed_loop;
mod constitutions;
mod engine;
mod eval;
mod gateway;
mod gpu;
mod machine;
mod ours;
mod page;
mod pictures;
mod plot;
mod reference;
mod remote;
mod scaling;
mod stats;
mod streams;
mod table;

/// Benchmarks of cluegate.
#[derive(Debug, Parser)]
#[command(name = "cluegate-benches", version)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// The engine against independent programs in Python, on the same weights and pictures.
    Engine(engine::EngineArgs),
    /// How well the embedded suite judges, beside baselines and without each part of the method.
    Eval(eval::EvalArgs),
    /// The closed loop: how early previews show a violation, what further attempts gain and cost, and redaction.
    Loop(closed_loop::LoopArgs),
    /// What more statements, rules, pixels, callers and tenants cost.
    Scaling(scaling::ScalingArgs),
    /// The gateway: what it costs beside a bare proxy, and what gets out while everything fails.
    Gateway(gateway::GatewayArgs),
    /// Many tenants in a store: start, memory, reload, the decision log, kills, and reads across tenants.
    Tenants(gateway::tenants::TenantsArgs),
    /// A process of the benchmarks above.
    #[command(hide = true)]
    GatewayPart(gateway::PartArgs),
    /// The judge in a vLLM on this machine, against the one in this process and a bare client.
    Remote(remote::RemoteArgs),
    /// A judge of full size on a GPU, against its floor and the loop of Hugging Face transformers.
    Gpu(gpu::GpuArgs),
}

/// What every benchmark on the CPU is given.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Models: a models file, or a folder with a `models.toml`.
    #[arg(long, value_name = "PATH", default_value = "src/mini/suite")]
    suite: PathBuf,
    /// Where the page with plots is written.
    #[arg(long, value_name = "DIR", default_value = "target/benchmarks")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    name_thread_count();
    match Cli::parse().benchmark {
        Benchmark::Engine(arguments) => engine::run(&arguments),
        Benchmark::Eval(arguments) => eval::run(&arguments),
        Benchmark::Loop(arguments) => closed_loop::run(&arguments),
        Benchmark::Scaling(arguments) => scaling::run(&arguments),
        Benchmark::Gateway(arguments) => gateway::run(&arguments),
        Benchmark::Tenants(arguments) => gateway::tenants::run(&arguments),
        Benchmark::GatewayPart(arguments) => gateway::run_part(&arguments),
        Benchmark::Remote(arguments) => remote::run(&arguments),
        Benchmark::Gpu(arguments) => gpu::run(&arguments),
    }
}

/// Tells candle how many threads there are, as the main program does: where this variable is unset, candle 0.11 reads
/// the processor's description from the system before every matrix product.
#[allow(unsafe_code)]
fn name_thread_count() {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: called first in `main`, so that no other thread exists that could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_names_what_a_script_relies_on() {
        Cli::command().debug_assert();
        let help =
            |name: &str| Cli::command().find_subcommand_mut(name).unwrap().render_long_help().to_string();
        for option in ["--reference-python", "--vllm-python", "--pictures", "--soak", "--suite", "--out"] {
            assert!(help("engine").contains(option), "{option}");
        }
        assert!(help("gpu").contains("--reference-python"));
        for option in ["--vllm-python", "--pictures", "--suite", "--out"] {
            assert!(help("remote").contains(option), "{option}");
        }
        for option in ["--minutes", "--quick", "--seed", "--out"] {
            assert!(help("gateway").contains(option), "{option}");
        }
        for option in ["--per-rule", "--style", "--quick", "--suite", "--out"] {
            assert!(help("eval").contains(option), "{option}");
        }
        for option in ["--per-rule", "--steps", "--quick", "--suite", "--out"] {
            assert!(help("loop").contains(option), "{option}");
        }
        for option in ["--tenants", "--kills", "--only", "--quick", "--out"] {
            assert!(help("tenants").contains(option), "{option}");
        }
        for option in ["--repeat", "--suite", "--out"] {
            assert!(help("scaling").contains(option), "{option}");
        }
    }
}
