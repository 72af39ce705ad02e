//! Tells the crate which build of CPython it is for: `cfg(moka_gil)` where the GIL is the lock.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    pyo3_build_config::use_pyo3_cfgs();
    let free_threaded =
        pyo3_build_config::get().build_flags.0.contains(&pyo3_build_config::BuildFlag::Py_GIL_DISABLED);
    if !free_threaded {
        println!("cargo:rustc-cfg=moka_gil");
    }
}
