//! The everyday wording of `general`, compiled by a capable model whose answers were recorded once, against the truth
//! tables that were checked by hand.
//!
//! `recordings/general.json` was made with `cluegate constitution compile general.md --replay general.json --missing
//! open.json`, round after round: each open prompt was answered by Claude, by Anthropic, on 2026-11-22, in one conversation
//! that knew neither the tables nor the chains of `general`, and no answer was changed afterwards. The wordings of its
//! statements were then added to `chains/general.toml` with what they mean.

#![allow(clippy::unwrap_used, clippy::panic)]

use cluegate_cache::Cache;
use cluegate_compiler::truth::{self, Difference, Truth};
use cluegate_compiler::{Compilation, Compiler, Options, Recording, Reviews, Templates, constitution};
use cluegate_constitution::Constitution;

const RECORDING: &str = include_str!("recordings/general.json");

fn compile() -> Compilation {
    let recording = Recording::parse([("general.json", RECORDING)]).unwrap();
    let (templates, cache) = (Templates::shipped().unwrap(), Cache::in_memory());
    let prose = Constitution::shipped_prose("general").unwrap();
    Compiler::new(&recording, &templates, &cache, Options::default()).compile(prose, &|| {}).unwrap()
}

#[test]
fn thirteen_of_the_fourteen_rules_become_chains_that_say_what_they_say() {
    let compilation = compile();
    assert_eq!((compilation.rules(), compilation.failed.len()), (14, 0), "{:#?}", compilation.failed);
    let text = constitution(&Options::default(), &[], &compilation, &Reviews::new(), true).unwrap();
    let compiled = Constitution::parse(&text, "compiled").unwrap();
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chains/general.toml"));
    let tables = truth::parse(&file.unwrap(), "general.toml").unwrap();
    let compare = |(table, rule): (&Truth, _)| {
        table.compare(&truth::chain_of(rule)).err().map(|difference| (table.id().to_owned(), difference))
    };
    let wrong: Vec<(String, Difference)> = tables.iter().zip(compiled.rules()).filter_map(compare).collect();
    let rules: Vec<&str> = wrong.iter().map(|(rule, _)| rule.as_str()).collect();
    // The model made of the dead whoever lies in a coffin, in a body bag or in blood; the compiler notes that the wording
    // lacks the word.
    assert_eq!(rules, ["corpse"], "{}", wrong.iter().map(|(r, d)| format!("{r}: {d}\n")).collect::<String>());
    let corpse = compilation.compiled.last().unwrap();
    assert!(corpse.notes.iter().any(|note| note.text.contains("dead")), "{:?}", corpse.notes);
}
