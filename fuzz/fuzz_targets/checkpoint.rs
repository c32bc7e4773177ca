//! libFuzzer's entry to the check in `tests/fuzz/checkpoint.rs`.
#![no_main]

#[path = "../../tests/fuzz/checkpoint.rs"]
mod checkpoint;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checkpoint::check(input));
