//! An exception on its way through the core.
//!
//! Threads that wait for a computation fail with its exception. On the GIL build they all raise the same object. On the
//! free-threaded build each has a copy, since CPython 3.13 counts references wrongly where threads raise one object at the
//! same time: the leader makes a copy before its own exception goes up, which nobody raises, and each of the others
//! raises a copy of that. `moka_py/_raised.py` makes them.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::interpreter::told;
use super::object::Object;

#[derive(Clone)]
pub(crate) struct Raised {
    exception: Object,
    /// Whether threads share it, so that none may raise it.
    is_shared: bool,
}

impl Raised {
    pub fn new(py: Python<'_>, error: PyErr) -> Self {
        let exception = told(py, |py| error.into_value(py));
        Raised { exception: Object::new(exception.into_any()), is_shared: false }
    }

    /// What those fail with who wait for a computation that raised this. The error is of the copy, or a signal's.
    pub fn for_others(py: Python<'_>, error: &PyErr) -> PyResult<Self> {
        let exception = error.value(py).as_any();
        if cfg!(not(Py_GIL_DISABLED)) {
            return Ok(Raised { exception: Object::of(exception), is_shared: false });
        }
        let copy = copied(exception)?;
        Ok(Raised { exception: Object::new(copy.unbind()), is_shared: true })
    }

    pub fn into_error(self, py: Python<'_>) -> PyErr {
        let exception = self.exception.into_py().into_bound(py);
        if !self.is_shared {
            return PyErr::from_value(exception);
        }
        told(py, |_| copied(&exception)).map_or_else(|error| error, PyErr::from_value)
    }
}

fn copied<'py>(exception: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    copier(exception.py())?.call1((exception,))
}

fn copier(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static COPIED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPIED.import(py, "moka_py._raised", "copied")
}

/// Imports what makes copies, where there are any, so that no call ever waits for an import.
pub(super) fn prepare(py: Python<'_>) -> PyResult<()> {
    if cfg!(Py_GIL_DISABLED) { copier(py).map(drop) } else { Ok(()) }
}
