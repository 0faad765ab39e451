//! Whatever a model answers and whatever the prose is, the readers give a value or an error; a value prints as text that is
//! read as the same value, and prose loses no rule without listing it. Run with `cargo +nightly fuzz run answers` in
//! `src/compiler`.
#![no_main]

use cluegate_compiler::grammar::{Formula, read_central, read_preconditions, read_rating, read_revision};
use cluegate_compiler::{Recording, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(read) = read_preconditions(text) {
        assert_eq!(Formula::parse(&read.value.to_string()).as_ref(), Ok(&read.value));
    }
    if let Ok(read) = read_rating(text) {
        assert!((1..=10).contains(&read.value.rating));
    }
    if let Ok(read) = read_revision(text) {
        assert_eq!(read_revision(&read.value.to_string()).map(|again| again.value).as_ref(), Ok(&read.value));
    }
    if let Ok(read) = read_central(text) {
        assert!(read.value.0.iter().all(|word| !word.is_empty()));
    }
    if let Ok(split) = split(text) {
        assert!(split.rules.iter().all(|rule| !rule.text.trim().is_empty() && rule.line > 0));
    }
    let _ = Recording::parse([("fuzz", text)]);
});
