//! How long the fourteen rules of `general` take to compile when every answer is in the cache on disk, which is opened anew
//! each time. Run with `cargo run --release -p cluegate-compiler --example from_cache`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use cluegate_cache::Cache;
use cluegate_compiler::{Compiler, Options, Templates};
use cluegate_perception::{
    AnswerScore, Call, Completion, CompletionRequest, Fingerprint, FinishReason, PerceptionError,
    PerceptionErrorKind, Prompt, Result, VisionLanguageModel,
};

const PROSE: &str = include_str!("../../constitution/shipped/prose/general.md");
const RUNS: usize = 21;

/// Answers every question in its form, with five statements a rule, as a model does; what they say does not matter here.
struct Scripted(Fingerprint);

impl VisionLanguageModel for Scripted {
    fn fingerprint(&self) -> &Fingerprint {
        &self.0
    }

    fn score(&self, _: &[Prompt], _: &Call) -> Result<Vec<AnswerScore>> {
        Err(PerceptionError::new(PerceptionErrorKind::Request, "a script gives no scores"))
    }

    fn complete(&self, requests: &[CompletionRequest], _: &Call) -> Result<Vec<Completion>> {
        let answer = |request: &CompletionRequest| {
            let prompt = format!("{}{}", request.prompt.prefix.text, request.prompt.suffix);
            let number = prompt.len();
            let objective =
                prompt.contains("<rule>The image should not show part") && !prompt.contains("Now improve");
            let text = if prompt.contains("Now rate this rule.") {
                format!("It can be seen, or not.\nRating: {}", if objective { 9 } else { 4 })
            } else if prompt.contains("Now improve this rule.") {
                format!("Rule: The image should not show part {number} of a thing.")
            } else if prompt.contains("Now take this rule apart.") {
                format!(
                    "[[thing {number} is there] or [it is near]] and [it is open] unless [it is a toy] and [it is closed]"
                )
            } else {
                "thing, part".to_owned()
            };
            Completion { text, tokens: 1, finish: FinishReason::Stop }
        };
        Ok(requests.iter().map(answer).collect())
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (model, templates) = (Scripted("scripted".to_owned()), Templates::shipped()?);
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
