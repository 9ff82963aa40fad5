//! See `decoders::acls`.
#![no_main]

#[path = "../../crates/format/tests/records/decoders.rs"]
#[allow(dead_code, reason = "each target takes one function")]
mod decoders;

libfuzzer_sys::fuzz_target!(|raw: &[u8]| decoders::acls(raw));
