//! Lets the gate drive the built-in Stable Diffusion loop under a policy file: it draws, judges previews and pictures,
//! draws again, redacts or withholds, until each picture has its decision.
//!
//! Run it with `cargo run --release --example drive_a_generator -- pictures`. It writes what is released, and the
//! decision log, to the folder `pictures`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluegate::Engine;
use cluegate::gate::{DrawOptions, Gate, JsonlLog, MemberOutcome, Policies, RequestInfo};

/// Who may see what: see the comments in the file.
const POLICY: &str = include_str!("policies/childrens-service.toml");

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "pictures".to_owned()));
    for outcome in draw("a dog and a ball on a beach", 2, &out)? {
        let decision = outcome.decision();
        println!(
            "picture {}: {}, after {} attempts",
            decision.member,
            decision.message,
            decision.attempts.len()
        );
    }
    Ok(())
}

/// Draws `count` pictures for the tenant `readers` and writes the released ones to `out`.
pub(crate) fn draw(prompt: &str, count: u32, out: &Path) -> Result<Vec<MemberOutcome>, Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let engine = Engine::open(None)?;
    let generator = engine.generator()?;
    let policies = Policies::from_toml(POLICY, "childrens-service.toml")?;
    let log = Arc::new(JsonlLog::open(out.join("decisions.jsonl"))?);
    let gate = Gate::new(&policies, Arc::new(engine.judges(false)), log)?;
    // A constitution that the models cannot judge by shows now, and not at the first picture.
    gate.prepare_all()?;

    let request = RequestInfo::new("readers", prompt, 1, count);
    let outcomes =
        gate.drive(&generator, request, DrawOptions { steps: Some(20), ..DrawOptions::default() })?;
    for outcome in &outcomes {
        // Only a released picture has bytes to be had: there is no way to a withheld one.
        if let MemberOutcome::Released(picture) = outcome {
            std::fs::write(out.join(format!("{}.png", outcome.member())), picture.encode_png()?)?;
        }
    }
    Ok(outcomes)
}
