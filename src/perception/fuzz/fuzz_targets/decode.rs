//! Outside bytes as a picture: `cargo +nightly fuzz run decode` in this folder.
#![no_main]

use cluegate_perception::{DecodeOptions, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for convert in [false, true] {
        let options = DecodeOptions { max_bytes: 1 << 20, max_pixels: 1 << 20, convert };
        if let Ok(picture) = decode(bytes, &options) {
            let file = picture.png().unwrap_or_default();
            assert_eq!(decode(&file, &options).map(|shown| shown.hash()).ok(), Some(picture.hash()));
            assert!(u64::from(picture.width()) * u64::from(picture.height()) <= options.max_pixels);
        }
    }
});
