//! The interpreter that the module serves: the first that imports it in its process.
//!
//! The classes are made once a process and belong to the interpreter that they were made in. CPython itself turns
//! interpreters away that share nothing with the first, and PyO3 no others, so that is done here.

#![allow(unsafe_code)]

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Raises unless this is the interpreter that imported the module first.
pub(super) fn claim(_py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the thread is attached.
    let interpreter = unsafe { ffi::PyInterpreterState_Get() };
    // SAFETY: it is the current interpreter, so it is alive.
    let number = unsafe { ffi::PyInterpreterState_GetID(interpreter) };
    if *FIRST.get_or_init(|| number) == number {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "moka_py serves one interpreter of a process, the first that imports it, and this is another",
    ))
}
