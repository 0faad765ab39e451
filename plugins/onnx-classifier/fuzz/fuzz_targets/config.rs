//! Whatever the text, the parser of configurations answers with one whose numbers are in their ranges, or with an error. Run
//! with `cargo +nightly fuzz run config` in `plugins/onnx-classifier`, or `RUSTC_BOOTSTRAP=1 cargo fuzz run config`.
#![no_main]

use cluegate_onnx_classifier::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(config) = Config::parse(text) {
        assert_eq!(config.thresholds.len(), config.output.labels.len());
        assert!(config.thresholds.iter().any(Option::is_some));
        assert!(config.input.std.iter().all(|std| *std > 0.0));
    }
});
