//! What is drawn to learn from.

use std::path::Path;

use anyhow::{Context as _, ensure};
use cluegate_constitution::Constitution;
use cluegate_eval::build::{Seeds, Situation, shipped};

/// Most bytes of a file of prompts.
const MAX_BYTES: u64 = 16 << 20;

/// Texts to draw.
pub(in crate::cli) type Prompts = Vec<String>;

/// The prompts of a file, one a line.
pub(in crate::cli) fn read(path: &Path) -> anyhow::Result<Prompts> {
    let cannot = || format!("cannot read the prompts {}", path.display());
    let bytes = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(bytes <= MAX_BYTES, "{}: it has {bytes} bytes, more than {MAX_BYTES}", cannot());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    let prompts: Prompts =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    ensure!(!prompts.is_empty(), "{}: expected a prompt a line, found none", path.display());
    Ok(prompts)
}

/// The embedded prompts for the rules of `constitution`: `per_rule` of each that ask for a violation, and as many that come
/// close, in turns, so that any part of them has some of both.
pub(in crate::cli) fn embedded(
    constitution: &Constitution,
    per_rule: usize,
    seed: u64,
) -> anyhow::Result<Prompts> {
    let name = constitution.name();
    let text = shipped(name).with_context(|| {
        format!("there are no embedded prompts for the constitution {name}: name a file with --prompts")
    })?;
    // A policy may have taken some of its rules.
    let seeds = Seeds::parse(text, name, &Constitution::shipped(name)?)?;
    let mut prompts = Vec::new();
    for rule in seeds.rules.iter().filter(|rule| constitution.rule(&rule.id).is_some()) {
        for situation in Situation::ALL {
            let drawn = seeds.prompts(rule, situation, seed).take(per_rule).enumerate();
            prompts.extend(drawn.map(|(number, seed)| (number, seed.prompt)));
        }
    }
    prompts.sort_by_key(|(number, _)| *number);
    Ok(prompts.into_iter().map(|(_, prompt)| prompt).collect())
}
