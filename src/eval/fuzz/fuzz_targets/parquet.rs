//! Whatever the bytes, the reader of UnsafeBench's Parquet answers with rows or an error, and with pictures or errors.
//! Run with `cargo +nightly fuzz run parquet` in `src/eval`; `tests/files` holds small files to begin with.
#![no_main]

use bytes::Bytes;
use cluegate_eval::data::{DataSet, ParquetSet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    if let Ok(set) = ParquetSet::parse("fuzz", Bytes::copy_from_slice(content)) {
        assert!(!set.rows().is_empty());
        for index in 0..set.rows().len().min(64) {
            let _ = set.picture(index);
        }
    }
});
