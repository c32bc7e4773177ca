//! libFuzzer's entry to the check in `tests/fuzz/click.rs`.
#![no_main]

#[path = "../../tests/fuzz/click.rs"]
mod click;

libfuzzer_sys::fuzz_target!(|input: &[u8]| click::check(input));
