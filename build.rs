//! Tells the crate which build of CPython it is compiled for.
//!
//! | `cfg` | set for |
//! |---|---|
//! | `moka_gil` | a build with the GIL, which is then the lock |
//! | `moka_thread_exit` | a CPython that ends threads by unwinding their stacks |
//!
//! And extracts the docstrings of `_moka_py.pyi`, one file each.

use std::path::Path;
use std::{env, fs, io};

use pyo3_build_config::{BuildFlag, PythonVersion};

/// The source that declares the functions of CPython which the linker replaces by wrappers.
const WRAPPERS: &str = include_str!("src/python/runtime/thread_exit.rs");

const STUB: &str = include_str!("moka_py/_moka_py.pyi");
const QUOTES: &str = "\"\"\"";

/// Writes the docstring of each class, method and property of the stub to `docs/Class.method` in the folder of the build.
fn write_docs() -> io::Result<()> {
    let folder = Path::new(&env::var_os("OUT_DIR").expect("cargo sets it")).join("docs");
    fs::create_dir_all(&folder)?;
    let (mut class, mut name) = ("", String::new());
    let mut lines = STUB.lines();
    while let Some(line) = lines.next() {
        let text = line.trim_start();
        if let Some((_, rest)) = line.split_once("class ").filter(|(before, _)| before.is_empty()) {
            class = rest.split(['(', ':']).next().unwrap_or_default();
            name = class.to_owned();
        } else if let Some(rest) = text.strip_prefix("def ") {
            name = format!("{class}.{}", rest.split('(').next().unwrap_or_default());
        } else if let Some(first) = text.strip_prefix(QUOTES).filter(|_| !name.is_empty()) {
            let indent = line.len() - text.len();
            let mut doc = first.to_owned();
            while !doc.ends_with(QUOTES) {
                let line = lines.next().expect("a docstring ends");
                doc = doc + "\n" + line.get(indent..).unwrap_or_default();
            }
            fs::write(folder.join(&name), doc.trim_end_matches(QUOTES).trim_end())?;
            name.clear();
        }
    }
    Ok(())
}

// PyO3 0.30 has functions in place of these fields, but PyO3 0.28 does not.
#[allow(deprecated)]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/python/runtime/thread_exit.rs");
    println!("cargo:rerun-if-changed=moka_py/_moka_py.pyi");
    if env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    write_docs().expect("the folder of the build can be written to");
    pyo3_build_config::use_pyo3_cfgs();
    let python = pyo3_build_config::get();
    if !python.build_flags.0.contains(&BuildFlag::Py_GIL_DISABLED) {
        println!("cargo:rustc-cfg=moka_gil");
    }
    let is_target = |name: &str, wanted: &str| env::var(name).is_ok_and(|value| value == wanted);
    let is_glibc = is_target("CARGO_CFG_TARGET_OS", "linux") && is_target("CARGO_CFG_TARGET_ENV", "gnu");
    if is_glibc && python.version < (PythonVersion { major: 3, minor: 14 }) {
        println!("cargo:rustc-cfg=moka_thread_exit");
        let functions = WRAPPERS.lines().filter_map(|line| line.strip_prefix("    fn "));
        let names = functions.filter_map(|line| line.split('(').next()).filter(|name| name.contains("Py"));
        names.for_each(|name| println!("cargo:rustc-link-arg-cdylib=-Wl,--wrap={name}"));
    }
}
