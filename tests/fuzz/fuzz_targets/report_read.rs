//! See the module of this name.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stsrelay_fuzz::report_read::run(data));
