//! Tells the crate which build of CPython it is for: `cfg(moka_gil)` where the GIL is the lock, `cfg(moka_stays)` where
//! CPython ends threads by unwinding them.

use pyo3_build_config::{BuildFlag, PythonVersion};

/// Names the functions that are called through a function of ours.
const WRAPPED: &str = include_str!("src/python/runtime/thread_exit.rs");

// PyO3 0.30 has functions for these fields, PyO3 0.28 has not.
#[allow(deprecated)]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/python/runtime/thread_exit.rs");
    if std::env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    pyo3_build_config::use_pyo3_cfgs();
    let python = pyo3_build_config::get();
    if !python.build_flags.0.contains(&BuildFlag::Py_GIL_DISABLED) {
        println!("cargo:rustc-cfg=moka_gil");
    }
    let is_target = |what: &str, value: &str| std::env::var(what).is_ok_and(|is| is == value);
    let is_glibc = is_target("CARGO_CFG_TARGET_OS", "linux") && is_target("CARGO_CFG_TARGET_ENV", "gnu");
    if is_glibc && python.version < (PythonVersion { major: 3, minor: 14 }) {
        println!("cargo:rustc-cfg=moka_stays");
        let functions = WRAPPED.lines().filter_map(|line| line.strip_prefix("    fn "));
        let names = functions.filter_map(|line| line.split('(').next()).filter(|name| name.contains("Py"));
        names.for_each(|name| println!("cargo:rustc-link-arg-cdylib=-Wl,--wrap={name}"));
    }
}
