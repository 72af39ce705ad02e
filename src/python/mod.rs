//! The Python face: the class `Moka`, and how its arguments, keys and user functions meet the core.
//!
//! A method reads its arguments, makes one call into the core, and settles: the listener is told and what
//! left is dropped, with nothing held.

mod cached;
mod moka;
mod object;
mod runtime;
mod simulate;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use self::cached::{owner_registry, state, weak_self};
use self::moka::{clock, fastcall, listener, mapping, stats};
use self::object::shared_error;
#[cfg(unix)]
use self::runtime::fork;
use self::runtime::{interpreter, shutdown};

#[pymodule(gil_used = false)]
fn _moka_py(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Before anything else: another interpreter's module may not even hold the classes, which its collector would mark.
    interpreter::claim(module.py())?;
    object::check_layout(module.py())?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<moka::Moka>()?;
    module.add_class::<state::CallKey>()?;
    module.add_class::<state::CachedState>()?;
    module.add_class::<state::CachedRun>()?;
    module.add_class::<weak_self::Owner>()?;
    module.add_class::<owner_registry::OwnerRegistry>()?;
    module.add("_CachedFunction", cached::function::class(module.py())?)?;
    module.add_class::<simulate::Accesses>()?;
    module.add_class::<clock::ManualClock>()?;
    module.add_function(wrap_pyfunction!(cached::function::new, module)?)?;
    prepare(module.py())
}

/// What is done once a process, also where the module is imported anew.
fn prepare(py: Python<'_>) -> PyResult<()> {
    static PREPARED: PyOnceLock<()> = PyOnceLock::new();
    let prepare = || {
        fastcall::install(py)?;
        listener::prepare(py);
        mapping::import_views(py)?;
        stats::import_stats(py)?;
        shared_error::prepare(py)?;
        register_hooks(py)
    };
    PREPARED.get_or_try_init(py, prepare).copied()
}

/// Lets the core know of a fork, in the child, and of the interpreter's end.
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
