//! Whatever the bytes, the reader of Q16's pickled prompts answers with a matrix whose rows are of one length, or with an
//! error. Run with `cargo +nightly fuzz run numpy` in `src/models`.
#![no_main]

use cluegate_models::heads::read_numpy_matrix;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rows) = read_numpy_matrix("fuzz", bytes) {
        assert!(rows.iter().all(|row| row.len() == rows[0].len()));
        assert!(rows.iter().flatten().count() * 2 <= bytes.len());
    }
});
