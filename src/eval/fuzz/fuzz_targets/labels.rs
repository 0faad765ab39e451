//! Whatever the text, every reader of labels and prompts answers with rows or an error, and rows have names of their own
//! and a picture below the folder of pictures. Run with `cargo +nightly fuzz run labels` in `src/eval`.
#![no_main]

use std::collections::HashSet;
use std::path::{Component, Path};

use cluegate_eval::data::{Format, PromptFormat, Text, parse_queries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &str| {
    let text = Text { file: "fuzz", content };
    for format in Format::ALL {
        if let Ok(rows) = format.parse(text) {
            assert!(!rows.is_empty());
            let names: HashSet<&str> = rows.iter().map(|(_, row)| row.id.as_str()).collect();
            assert_eq!(names.len(), rows.len());
            assert!(rows.iter().all(|(line, row)| *line > 0 && is_below(&row.picture)));
        }
    }
    for format in PromptFormat::ALL {
        if let Ok(rows) = format.parse(text) {
            assert!(!rows.is_empty());
        }
    }
    if let Ok(rows) = parse_queries(text) {
        assert!(rows.iter().all(|row| !row.hazards.is_empty()));
    }
});

fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
