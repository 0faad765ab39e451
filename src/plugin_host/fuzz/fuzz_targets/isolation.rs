//! What a plugin's process and the gate say to each other, from bytes that neither wrote. Run with
//! `cargo +nightly fuzz run isolation` in `src/plugin_host`, or `RUSTC_BOOTSTRAP=1 cargo fuzz run isolation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    cluegate_plugin_host::parse_all(bytes, 3 * 64 * 64);
});
