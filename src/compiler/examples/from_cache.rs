//! How long the fourteen rules of `general` take to compile when every answer is in the cache on disk, which is opened anew
//! each time. Run with `cargo run --release -p cluegate-compiler --example from_cache`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use cluegate_cache::Cache;
use cluegate_compiler::{Compiler, Options, Recording, Templates};

const PROSE: &str = include_str!("../../constitution/shipped/prose/general.md");
const RECORDING: &str = include_str!("../tests/recordings/general.json");
const RUNS: usize = 21;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (model, templates) = (Recording::parse([("general.json", RECORDING)])?, Templates::shipped()?);
    let mut times = Vec::new();
    for run in 0..=RUNS {
        let start = Instant::now();
        let cache = Cache::open(folder.path());
        let compiler = Compiler::new(&model, &templates, &cache, Options::default());
        let compilation = compiler.compile(PROSE, &|| {})?;
        let time = start.elapsed().as_secs_f64() * 1e3;
        if !compilation.failed.is_empty() {
            return Err("a rule was not compiled".into());
        }
        let counts = cache.counts();
        // The first run fills the cache.
        if run > 0 {
            times.push(time);
            if counts.missed > 0 {
                return Err("an answer was not in the cache".into());
            }
        } else {
            println!("{} rules, {} answers", compilation.rules(), compilation.asked().count());
        }
    }
    times.sort_by(f64::total_cmp);
    println!(
        "from the cache on disk: median {:.1} ms, slowest {:.1} ms of {RUNS}",
        times[RUNS / 2],
        times[RUNS - 1]
    );
    Ok(())
}
