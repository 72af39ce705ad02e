//! The flights of a cache in event loops, which `moka_py/_flight_table.py` has. Here they are made and called.

use pyo3::prelude::*;

use crate::python::ffi::{self, New};
use crate::python::raised::Raised;
use crate::python::runtime::race_cell::RaceCell;

static TABLE_CLASS: RaceCell<Py<PyAny>> = RaceCell::new();
static AWAIT_ONCE: RaceCell<Py<PyAny>> = RaceCell::new();

/// Imports the functions, before there is a call that needs them. They and asyncio take longer to import than the rest of the
/// package, and many programs need neither.
pub(in crate::python) fn import(py: Python<'_>) -> PyResult<()> {
    TABLE_CLASS.import(py, "moka_py._flight_table", "FlightTable")?;
    AWAIT_ONCE.import(py, "moka_py._flight", "await_once").map(drop)
}

/// Makes the flight table of a cache.
pub(in crate::python) fn new_table(py: Python<'_>) -> New<'_> {
    ffi::call(TABLE_CLASS.get().expect("it is imported for each coroutine").bind(py), [])
}

/// Makes a coroutine that awaits an object.
pub(in crate::python) fn await_once<'py>(awaitable: &Bound<'py, PyAny>) -> New<'py> {
    let py = awaitable.py();
    ffi::call(AWAIT_ONCE.get().expect("it is imported for each coroutine").bind(py), [awaitable])
}

/// A computation that coroutines of one event loop share.
pub(in crate::python) struct Shared<'py> {
    pub cache: Bound<'py, PyAny>,
    /// The `CachedState` of the function, or `None`.
    pub state: Bound<'py, PyAny>,
    /// A `CallKey`.
    pub key: Bound<'py, PyAny>,
    pub function: Bound<'py, PyAny>,
    pub args: Bound<'py, PyAny>,
    pub kwargs: Bound<'py, PyAny>,
    /// The ttl and the tti of a new entry, as the user gave them.
    pub deadlines: [Bound<'py, PyAny>; 2],
}

impl<'py> Shared<'py> {
    /// Makes a coroutine that returns the value, computed once for all.
    pub fn share(&self, table: &Bound<'py, PyAny>) -> New<'py> {
        let Shared { cache, state, key, function, args, kwargs, deadlines: [ttl, tti] } = self;
        ffi::call_method(table, c"share", [cache, state, key, function, args, kwargs, ttl, tti])
    }

    /// Begins to compute a value anew by `claim`, a `CoroutineClaim`. Returns `None` if a task of the event loop does that.
    /// Else the caller does, by the coroutine that this returns. That one returns the new value, or `stale`.
    pub fn refresh(
        &self,
        table: &Bound<'py, PyAny>,
        claim: &Bound<'py, PyAny>,
        stale: &Bound<'py, PyAny>,
    ) -> Result<Option<Bound<'py, PyAny>>, Raised> {
        let Shared { state, key, function, args, kwargs, .. } = self;
        let arguments = [claim, stale, state, key, function, args, kwargs];
        let coroutine = ffi::call_method(table, c"refresh", arguments)?;
        Ok(Some(coroutine).filter(|coroutine| !coroutine.is_none()))
    }
}
