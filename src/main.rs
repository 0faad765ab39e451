//! The command line. See `cli` for the commands; the library does the work.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod report;

fn main() -> ExitCode {
    name_thread_count();
    let cli = cli::args::Cli::parse();
    cli::run(cli)
}

/// Tells candle how many threads there are. Where this variable is unset, candle 0.11 reads the processor's description
/// from the system before every matrix product, which triples the time of a decoded token.
#[allow(unsafe_code)]
fn name_thread_count() {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: called first in `main`, so that no other thread exists that could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, threads.to_string()) };
    }
}
