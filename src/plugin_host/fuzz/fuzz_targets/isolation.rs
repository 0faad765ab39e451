//! What a plugin's process and the gate say to each other, from bytes that neither wrote.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    cluegate_plugin_host::parse_all(bytes, 3 * 64 * 64);
});
