//! Any bytes as each kind of record that an engine stores.
#![no_main]

#[path = "../../crates/format/tests/records/decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|raw: &[u8]| decoders::every_decoder(raw));
