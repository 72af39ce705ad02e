//! [`Raised`]: the error type of the Python face, a marker that an exception is set in the thread state.
//!
//! # Why not `PyErr`
//! PyO3 counts for each thread whether it is attached. A slot or a method that is a bare C function does not go through PyO3.
//! So PyO3 believes there that the thread is detached, and aborts the process when a `PyErr` or a `Py` is dropped. Late in the
//! interpreter's end, `with_pyo3_attached` fails, so this cannot be corrected there. CPython's own convention works in both:
//! the exception stays in the thread state, and the function returns null. So all code of the face returns [`Raised`]. `PyErr`
//! appears only in `#[pymethods]`, and where PyO3 converts arguments and results.

#![allow(unsafe_code)]

use std::marker::PhantomData;

use pyo3::ffi;
use pyo3::prelude::*;

/// An exception is set in the thread state. The function that gets this returns it, or takes the exception.
///
/// It is not `Send`, and [`Python::detach`] takes only `Send` values. So the thread that has one is attached.
#[derive(Debug)]
#[must_use]
pub(crate) struct Raised(PhantomData<*mut ()>);

impl Raised {
    /// States that an exception is set, as after a function of CPython that returned null or -1. If none is set, the
    /// interpreter raises `SystemError`.
    #[inline]
    pub fn already_set(_py: Python<'_>) -> Self {
        // SAFETY: the thread is attached.
        debug_assert!(!unsafe { ffi::PyErr_Occurred() }.is_null(), "a call failed without an exception");
        Raised(PhantomData)
    }

    /// Moves the exception from `error` into the thread state. Works also where PyO3 believes that the thread is detached.
    #[cold]
    pub fn set(py: Python<'_>, error: PyErr) -> Self {
        with_pyo3_attached(py, |py| error.restore(py));
        Raised(PhantomData)
    }

    /// Runs code that needs PyO3 and returns a `PyErr`. Works also where PyO3 believes that the thread is detached.
    #[cold]
    pub fn catch<T>(py: Python<'_>, code: impl FnOnce() -> PyResult<T>) -> Result<T, Self> {
        with_pyo3_attached(py, |py| code().map_err(|error| Raised::set(py, error)))
    }

    /// Moves the exception out of the thread state. Works also where PyO3 believes that the thread is detached, but the
    /// `PyErr` must not be dropped there.
    #[cold]
    pub fn take(self, py: Python<'_>) -> PyErr {
        with_pyo3_attached(py, PyErr::fetch)
    }
}

/// So that `?` works in `#[pymethods]`.
impl From<Raised> for PyErr {
    #[cold]
    fn from(raised: Raised) -> PyErr {
        // SAFETY: a thread that has a `Raised` is attached.
        raised.take(unsafe { Python::assume_attached() })
    }
}

/// Runs `code` while PyO3 knows that the thread is attached, for code in slots that makes or drops a `PyErr` or a `Py`.
/// It fails late in the interpreter's end.
pub(in crate::python) fn with_pyo3_attached<T>(_py: Python<'_>, code: impl FnOnce(Python<'_>) -> T) -> T {
    // SAFETY: the thread is attached, so the interpreter is initialized.
    unsafe { Python::attach_unchecked(code) }
}
