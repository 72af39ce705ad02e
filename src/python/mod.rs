//! The Python face: the class `Moka`, cached functions, and how arguments, keys and user functions meet the core.
//!
//! # How it works
//! A method reads its arguments, makes one call into the core, and converts the result. Then it calls the listener for each
//! removed entry, and drops the entry, with no lock held.
//!
//! # Rooms
//! ```text
//! cached             cached functions
//! moka               the class: state.rs has its operations, fastcall.rs and methods.rs read the arguments
//! near               look-ups of the near cache, whose other parts are Python
//! object             references, keys, errors that threads share
//! runtime            threads, forks, the end of the interpreter, the depth of calls
//! simulate           traces for the command `simulate`
//! ffi | raised       CPython's C API, each function wrapped once | the marker that an exception is set
//! ```

/// The docstring of a name in `moka_py/_moka_py.pyi`, such as `"Moka.get"`. `build.rs` extracts them.
macro_rules! doc {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/docs/", $name))
    };
}

mod cached;
mod ffi;
mod moka;
mod near;
mod object;
mod raised;
mod runtime;
mod simulate;

use pyo3::prelude::*;

use self::cached::{
    aget_with, async_bulk, call_key, function_type, methods, owner, owner_registry, run, state,
};
use self::moka::{clock, fastcall, listener, mapping, refresh, stats};
use self::object::{int_layout, shared_error, str_layout, tuple};
#[cfg(unix)]
use self::runtime::fork;
use self::runtime::{interpreter, race_cell::RaceCell, shutdown};

#[pymodule(gil_used = false)]
fn _moka_py(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // First: the module of another interpreter must not hold the classes, which the collector of that interpreter would mark.
    interpreter::claim(module.py())?;
    int_layout::check(module.py())?;
    str_layout::check(module.py())?;
    tuple::check(module.py())?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<moka::Moka>()?;
    module.add_class::<refresh::RefreshJob>()?;
    module.add_class::<refresh::CoroutineClaim>()?;
    module.add_class::<call_key::CallKey>()?;
    module.add_class::<state::CachedState>()?;
    module.add_class::<run::CachedRun>()?;
    module.add_class::<owner::Owner>()?;
    module.add_class::<owner_registry::OwnerRegistry>()?;
    module.add("_CachedFunction", function_type::class(module.py())?)?;
    module.add_class::<simulate::PyTrace>()?;
    module.add_class::<clock::ManualClock>()?;
    module.add_class::<near::tier::LocalTier>()?;
    module.add_class::<near::fill::Fill>()?;
    module.add_class::<near::lookup::NearLookup>()?;
    module.add_function(wrap_pyfunction!(function_type::new, module)?)?;
    module.add_function(wrap_pyfunction!(async_bulk::look_up_many, module)?)?;
    module.add_function(wrap_pyfunction!(async_bulk::read_loaded, module)?)?;
    module.add_function(wrap_pyfunction!(async_bulk::keep_many, module)?)?;
    module.add_function(wrap_pyfunction!(async_bulk::end_many, module)?)?;
    module.add_function(wrap_pyfunction!(methods::error_nanos, module)?)?;
    prepare(module.py())
}

/// Prepares the process, once, also if the module is imported again.
fn prepare(py: Python<'_>) -> PyResult<()> {
    static PREPARED: RaceCell<()> = RaceCell::new();
    let prepare = || {
        fastcall::install(py)?;
        aget_with::install(py)?;
        listener::make_cause_names(py);
        mapping::import_views(py)?;
        stats::import_stats(py)?;
        shared_error::import_copier(py)?;
        register_hooks(py)
    };
    PREPARED.get_or_try_init(prepare).copied()
}

/// Has the face called in the child of a fork, and at the end of the interpreter.
fn register_hooks(py: Python<'_>) -> PyResult<()> {
    #[cfg(unix)]
    fork::watch()?;
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(at_exit, py)?,))?;
    Ok(())
}

#[pyfunction]
fn at_exit(py: Python<'_>) {
    shutdown::begin_end(py);
}
