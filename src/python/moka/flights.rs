//! The flights of a cache in event loops, which `moka_py/_flight_table.py` has. Here they are made and called.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::python::ffi::{self, New};
use crate::python::raised::Raised;

static TABLE_CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static AWAIT_ONCE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Imports the functions, before there is a call that needs them. They and asyncio take longer to import than the rest of the
/// package, and many programs need neither.
pub(in crate::python) fn import(py: Python<'_>) -> PyResult<()> {
    TABLE_CLASS.import(py, "moka_py._flight_table", "FlightTable")?;
    AWAIT_ONCE.import(py, "moka_py._flight", "await_once").map(drop)
}

/// Makes the flight table of a cache.
pub(in crate::python) fn new_table(py: Python<'_>) -> New<'_> {
    ffi::call(TABLE_CLASS.get(py).expect("it is imported for each coroutine").bind(py), [])
}

/// Makes a coroutine that awaits an object.
pub(in crate::python) fn await_once<'py>(awaitable: &Bound<'py, PyAny>) -> New<'py> {
    let py = awaitable.py();
    ffi::call(AWAIT_ONCE.get(py).expect("it is imported for each coroutine").bind(py), [awaitable])
}

/// What a coroutine shares with others of its event loop: the computation of a key after a miss.
pub(in crate::python) struct Shared<'a, 'py> {
    pub cache: &'a Bound<'py, PyAny>,
    /// The `CachedState` of the function, or `None`.
    pub state: &'a Bound<'py, PyAny>,
    /// A `CallKey`.
    pub key: &'a Bound<'py, PyAny>,
    pub function: &'a Bound<'py, PyAny>,
    pub args: &'a Bound<'py, PyAny>,
    pub kwargs: &'a Bound<'py, PyAny>,
    /// The ttl and the tti of a new entry, as the user gave them.
    pub deadlines: [&'a Bound<'py, PyAny>; 2],
}

/// Makes a coroutine that shares a computation.
pub(in crate::python) fn share<'py>(
    table: &Bound<'py, PyAny>,
    shared: &Shared<'_, 'py>,
) -> Result<Bound<'py, PyAny>, Raised> {
    let &Shared { cache, state, key, function, args, kwargs, deadlines: [ttl, tti] } = shared;
    ffi::call_method(table, c"share", [cache, state, key, function, args, kwargs, ttl, tti])
}
