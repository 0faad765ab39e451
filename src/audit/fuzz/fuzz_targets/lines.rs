//! Whatever a log file holds, reading it ends, takes bounded memory, and says what is wrong instead of panicking.
//!
//! `cargo +nightly fuzz run lines` in `src/audit`.

#![no_main]

use cluegate_audit::{Line, Lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut lines = Lines::new(data);
    let mut read = 0;
    while let Ok(Some(line)) = lines.next_line() {
        read += line.bytes.len() + usize::from(line.ended);
        let Ok(parsed) = Line::parse(line.bytes) else { continue };
        let _ = parsed.fault();
        if let Some(entry) = parsed.entry() {
            let _ = entry.record();
            let _ = entry.pictures();
            // What was read is written and read again as the same.
            if let Ok(text) = serde_json::to_vec(&entry) {
                assert_eq!(Line::parse(&text).ok().and_then(Line::entry), Some(entry));
            }
        }
    }
    assert_eq!(read, data.len());
});
