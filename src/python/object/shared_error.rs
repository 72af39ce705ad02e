//! [`SharedError`]: an exception on its way through the core, which threads that wait for a load share.
//!
//! Such threads raise copies of the exception of the load. As an exception goes up through the frames of a thread, its
//! traceback grows, so one object for all threads would gather the frames of all. And CPython 3.13t counts references wrongly
//! if threads raise one object at the same time. `moka_py/_exceptions.py` makes the copies.
//!
//! With the GIL each waiter copies the exception of the leader. On the free-threaded build the leader makes a copy before its
//! own exception goes up. No thread raises that copy, and each waiter raises a copy of it. A copy begins with the traceback
//! that the exception had when the load failed.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use crate::Failure;
use crate::python::ffi::{self, New};
use crate::python::object::Object;
use crate::python::raised::Raised;
use crate::python::runtime::race_cell::RaceCell;

#[derive(Clone)]
pub(crate) struct SharedError {
    exception: Object,
    /// For waiters, which raise copies: the traceback of the failure, or Python's `None`.
    traceback: Option<Object>,
}

impl SharedError {
    /// Takes the exception that is set.
    pub fn new(py: Python<'_>, raised: Raised) -> Self {
        SharedError::of(ffi::take_raised(py, raised))
    }

    fn of(exception: Bound<'_, PyAny>) -> Self {
        SharedError { exception: Object::new(exception.unbind()), traceback: None }
    }

    /// The error of the threads that wait for a load which raised this exception. It raises if the copy does.
    fn for_waiters(exception: &Bound<'_, PyAny>) -> Result<Self, Raised> {
        let traceback = ffi::traceback(exception);
        let exception = if cfg!(Py_GIL_DISABLED) { copy(exception, &traceback)? } else { exception.clone() };
        Ok(SharedError {
            exception: Object::new(exception.unbind()),
            traceback: Some(Object::new(traceback.unbind())),
        })
    }

    /// Raises the exception, or a copy of it on a thread that waited.
    pub fn raise(self, py: Python<'_>) -> Raised {
        let exception = self.exception.into_bound(py);
        let Some(traceback) = self.traceback else { return ffi::set_exception(exception) };
        match copy(&exception, traceback.bind(py)) {
            Ok(copy) => ffi::set_exception(copy),
            Err(raised) => raised,
        }
    }
}

/// Whether waiters share an exception. A failure is shared; after an interrupt and the like each waiter tries for itself.
pub(in crate::python) fn is_failure(exception: &Bound<'_, PyAny>) -> bool {
    exception.is_instance_of::<PyException>()
}

/// Takes the exception of a load that failed.
#[cold]
pub(in crate::python) fn take_failure(py: Python<'_>, raised: Raised) -> Failure<SharedError> {
    let mut exception = ffi::take_raised(py, raised);
    let mut for_waiters = None;
    if is_failure(&exception) {
        match SharedError::for_waiters(&exception) {
            Ok(error) => for_waiters = Some(error),
            Err(raised) => {
                let error = ffi::take_raised(py, raised);
                // A signal came while the exception was copied.
                if !is_failure(&error) {
                    exception = error;
                }
            }
        }
    }
    Failure { error: SharedError::of(exception), for_waiters }
}

fn copy<'py>(exception: &Bound<'py, PyAny>, traceback: &Bound<'py, PyAny>) -> New<'py> {
    let py = exception.py();
    let copied_at = copied_at(py).map_err(|error| Raised::set(py, error))?;
    ffi::call(copied_at, [exception, traceback])
}

fn copied_at(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static COPIED_AT: RaceCell<Py<PyAny>> = RaceCell::new();
    COPIED_AT.import(py, "moka_py._exceptions", "copy_exception_at")
}

/// Imports the function that makes copies, so that no call ever waits for an import.
pub(in crate::python) fn import_copier(py: Python<'_>) -> PyResult<()> {
    copied_at(py).map(drop)
}
