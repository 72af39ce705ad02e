//! An exception on its way through the core.
//!
//! Threads that wait for a computation fail with copies of its exception. As an exception goes up through the frames of a
//! thread its traceback grows, so of one object for all threads the traceback would gather the frames of all. And CPython 3.13t
//! counts references wrongly where threads raise one object at the same time. `moka_py/_raised.py` makes the copies.
//!
//! With the GIL each waiter copies the exception of the leader. On the free-threaded build the leader makes a copy before
//! its own exception goes up. No thread raises that one, and each waiter raises a copy of it. A copy begins with the traceback
//! that the exception had when the computation failed.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::python::object::Object;
use crate::python::runtime::interpreter::with_pyo3_attached;

#[derive(Clone)]
pub(crate) struct SharedError {
    exception: Object,
    /// For waiters, which raise copies: the traceback of the failure, or `None` of Python's.
    traceback: Option<Object>,
}

impl SharedError {
    pub fn new(py: Python<'_>, error: PyErr) -> Self {
        let exception = with_pyo3_attached(py, |py| error.into_value(py));
        SharedError { exception: Object::new(exception.into_any()), traceback: None }
    }

    /// The failure of calls that wait for a computation which raised this. The error is of a copy, or a signal's.
    pub fn for_others(py: Python<'_>, error: &PyErr) -> PyResult<Self> {
        let exception = error.value(py).as_any();
        let traceback =
            error.traceback(py).map_or_else(|| py.None(), |traceback| traceback.into_any().unbind());
        let exception =
            if cfg!(Py_GIL_DISABLED) { copied(exception, traceback.bind(py))? } else { exception.clone() };
        Ok(SharedError {
            exception: Object::new(exception.unbind()),
            traceback: Some(Object::new(traceback)),
        })
    }

    pub fn into_error(self, py: Python<'_>) -> PyErr {
        let exception = self.exception.into_py().into_bound(py);
        let Some(traceback) = self.traceback else { return PyErr::from_value(exception) };
        let copy = with_pyo3_attached(py, |_| copied(&exception, traceback.bind(py)));
        copy.map_or_else(|error| error, PyErr::from_value)
    }
}

fn copied<'py>(exception: &Bound<'py, PyAny>, traceback: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    copier(exception.py())?.call1((exception, traceback))
}

fn copier(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static COPIED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPIED.import(py, "moka_py._raised", "copied_at")
}

/// Imports what makes copies, so that no call ever waits for an import.
pub(in crate::python) fn prepare(py: Python<'_>) -> PyResult<()> {
    copier(py).map(drop)
}
