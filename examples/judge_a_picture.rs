//! Judges one picture file with the models that ship with the crate: the library in ten lines.
//!
//! Run it with `cargo run --release --example judge_a_picture -- scene.png`. It prints the rules that the picture
//! violates, with the statements that settled it, and fails for a picture that the embedded models do not know (they
//! know emoji scenes only; see `Engine::open` for others).

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use cluegate::Engine;
use cluegate::constitution::Constitution;
use cluegate::gate::JudgeProvider as _;
use cluegate::judge::{Outcome, Report};
use cluegate::perception::{Call, DecodeOptions, decode};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("which picture? give the path of a PNG, JPEG, WebP, GIF or BMP file")?;
    let report = judge(Path::new(&path))?;
    if report.violated().is_empty() {
        println!("{path}: safe");
    }
    for rule in report.rules().iter().filter(|rule| rule.outcome == Outcome::Violated) {
        println!("{path}: violates {}", rule.id);
        for statement in rule.preconditions.iter().flat_map(|precondition| &precondition.statements) {
            println!("  {:?} {:?}: {:?}", statement.score, statement.text, statement.decided_by);
        }
    }
    Ok(())
}

/// Judges the picture at `path` under the constitution `scene`.
pub(crate) fn judge(path: &Path) -> Result<Report, Box<dyn Error>> {
    // Opening the models and preparing a constitution is done once; judging is for each picture.
    let engine = Engine::open(None)?;
    let judge = engine.judges(false).inspector(Constitution::shipped("scene")?)?;
    let picture = decode(&std::fs::read(path)?, &DecodeOptions::default())?;
    Ok(judge.inspect(&picture, None, &Call::default().until(Instant::now() + Duration::from_secs(30)))?)
}
