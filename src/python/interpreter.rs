//! The interpreter that the module serves: the first that imports it in its process; and how deep its C stack may get.
//!
//! The classes are made once a process and belong to the interpreter that they were made in. CPython itself turns
//! interpreters away that share nothing with the first, and PyO3 no others, so that is done here.
//!
//! CPython counts the calls of C functions in each other, and raises before so many of its own frames fill the stack. Some
//! of ours are larger, and how large depends on what the compiler puts together, so where a user's code runs in
//! them they count for one more.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Raises unless this is the interpreter that imported the module first.
pub(super) fn claim(py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the thread is attached.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: it is the current interpreter, so it is alive.
    let number = unsafe { ffi::PyInterpreterState_GetID(interpreter) };
    if number < 0 {
        return Err(PyErr::fetch(py));
    }
    if *FIRST.get_or_init(|| number) == number {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "moka_py serves one interpreter of a process, the first that imports it, and this is another",
    ))
}

/// Runs what counts references or holds errors by PyO3's means. In a bare C function PyO3 takes the thread for detached, until
/// it is told.
pub(super) fn told<T>(_py: Python<'_>, code: impl FnOnce(Python<'_>) -> T) -> T {
    // SAFETY: the thread is attached.
    unsafe { Python::attach_unchecked(code) }
}

/// One more call in the interpreter's count of those that are in each other, until it is dropped.
pub(super) struct Deeper<'py>(PhantomData<Python<'py>>);

impl<'py> Deeper<'py> {
    /// Raises `RecursionError` where the interpreter does.
    pub fn enter(py: Python<'py>) -> PyResult<Self> {
        Self::enter_at_once(py).ok_or_else(|| PyErr::fetch(py))
    }

    /// The same from a bare C function: with `None` the exception is set.
    #[inline]
    pub fn enter_at_once(_py: Python<'py>) -> Option<Self> {
        // SAFETY: the thread is attached, and the text lives for ever.
        let entered = unsafe { ffi::Py_EnterRecursiveCall(c" while a cache calls a function".as_ptr()) };
        (entered == 0).then(|| Deeper(PhantomData))
    }
}

impl Drop for Deeper<'_> {
    fn drop(&mut self) {
        // SAFETY: it was entered, and the thread is attached.
        unsafe { ffi::Py_LeaveRecursiveCall() };
    }
}
