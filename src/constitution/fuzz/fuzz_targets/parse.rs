//! Whatever the text, the parser answers with a constitution or an error. A constitution that it accepts has a chain in
//! every rule, can be linted, and has a canonical form that is its own canonical form. Run with
//! `cargo +nightly fuzz run parse` in `src/constitution`.
#![no_main]

use cluegate_constitution::lint::SourceMap;
use cluegate_constitution::{Constitution, format};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(constitution) = Constitution::parse(text, "fuzz") {
        assert!(constitution.rules().iter().all(|rule| !rule.preconditions.is_empty()));
        let _ = constitution.lint(SourceMap::new(text).as_ref());
        let canonical = format(text, "fuzz").expect("a constitution has a canonical form");
        assert_eq!(format(&canonical, "fuzz").as_deref(), Ok(canonical.as_str()));
    }
});
