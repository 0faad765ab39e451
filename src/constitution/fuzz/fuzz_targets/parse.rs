//! Whatever the text, the parser answers with a constitution or an error, and a constitution that it accepts has a
//! chain in every rule. Run with `cargo +nightly fuzz run parse` in `src/constitution`.
#![no_main]

use cluegate_constitution::Constitution;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(constitution) = Constitution::parse(text, "fuzz") {
        assert!(constitution.rules().iter().all(|rule| !rule.preconditions.is_empty()));
    }
});
