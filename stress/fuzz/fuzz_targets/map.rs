#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| moka_py_fuzz::play(moka_py_fuzz::Room::Map, bytes));
