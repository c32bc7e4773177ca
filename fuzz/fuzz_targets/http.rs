//! libFuzzer's entry to the check in `tests/fuzz/http.rs`.
#![no_main]

#[path = "../../tests/fuzz/http.rs"]
mod http;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // What fails must fail alone.
    http::forget();
    http::check(input);
});
