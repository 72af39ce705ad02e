#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moka_py_fuzz::check_input(moka_py_fuzz::FuzzTarget::Map, bytes));
