//! Tells the crate which build of CPython it is compiled for.
//!
//! | `cfg` | set for |
//! |---|---|
//! | `moka_gil` | a build with the GIL, which is then the lock |
//! | `moka_stays` | a CPython that ends threads by unwinding their stacks |

use pyo3_build_config::{BuildFlag, PythonVersion};

/// The source that declares the functions of CPython which the linker replaces by wrappers.
const WRAPPERS: &str = include_str!("src/python/runtime/thread_exit.rs");

// PyO3 0.30 has functions in place of these fields, but PyO3 0.28 does not.
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
    let is_target = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    let is_glibc = is_target("CARGO_CFG_TARGET_OS", "linux") && is_target("CARGO_CFG_TARGET_ENV", "gnu");
    if is_glibc && python.version < (PythonVersion { major: 3, minor: 14 }) {
        println!("cargo:rustc-cfg=moka_stays");
        let functions = WRAPPERS.lines().filter_map(|line| line.strip_prefix("    fn "));
        let names = functions.filter_map(|line| line.split('(').next()).filter(|name| name.contains("Py"));
        names.for_each(|name| println!("cargo:rustc-link-arg-cdylib=-Wl,--wrap={name}"));
    }
}
