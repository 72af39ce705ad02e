//! The code of a cached coroutine function, and a frame of it for a call that has not begun.
//!
//! A coroutine has a frame from the start. `inspect.getcoroutinestate`, `asyncio.Task.get_stack` and debuggers ask for it, and
//! take `None` for a coroutine that has ended. A cached call makes no frame before it runs the function, and may be a hit. So a
//! frame that is never executed is made when it is asked for.
//!
//! # Invariants
//! - `attached`: all functions take objects that are bound to an attached thread.

#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::python::ffi::{New, attribute_or_none, clear, dict, into_return, owned};

/// So many wrappers around a function are looked through.
const MAX_WRAPPERS: usize = 64;

/// The function with code that a call of this one runs, and the code, if it can be found behind partials, methods and
/// `__call__`.
fn unwrap<'py>(function: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let mut function = function.clone();
    for _ in 0..MAX_WRAPPERS {
        if let Some(code) = attribute_or_none(&function, c"__code__")
            && code.get_type_ptr() == &raw mut ffi::PyCode_Type
        {
            return Some((function, code));
        }
        let wrapped = [c"__wrapped__", c"func", c"__func__"];
        let class = function.get_type().into_any();
        function = wrapped
            .iter()
            .find_map(|name| attribute_or_none(&function, name))
            .or_else(|| attribute_or_none(&class, c"__call__"))?;
    }
    None
}

/// An empty code with the name of the function.
fn empty_code<'py>(function: &Bound<'py, PyAny>) -> New<'py> {
    let py = function.py();
    let name = attribute_or_none(function, c"__name__");
    // SAFETY: `attached`; a live object. Null with an exception set if it is not a `str`.
    let text = name.as_ref().map_or(ptr::null(), |name| unsafe { ffi::PyUnicode_AsUTF8(name.as_ptr()) });
    let text = if text.is_null() {
        clear(py);
        c"cached".as_ptr()
    } else {
        text
    };
    // SAFETY: `attached`; two texts that end with a zero byte.
    let code = unsafe { ffi::PyCode_NewEmpty(c"<cached>".as_ptr(), text, 1) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { owned(py, code.cast()) }
}

/// The code of a function: a new reference, or null with an exception set.
pub(in crate::python) fn code_of(function: &Bound<'_, PyAny>) -> *mut PyObject {
    into_return(unwrap(function).map_or_else(|| empty_code(function), |(_, code)| Ok(code)))
}

/// A frame of a function that has not begun: a new reference, or null with an exception set.
pub(in crate::python) fn new(function: &Bound<'_, PyAny>) -> *mut PyObject {
    into_return(new_frame(function))
}

fn new_frame<'py>(function: &Bound<'py, PyAny>) -> New<'py> {
    let py = function.py();
    let (globals, code) = match unwrap(function) {
        Some((function, code)) => (attribute_or_none(&function, c"__globals__"), code),
        None => (None, empty_code(function)?),
    };
    let globals = match globals.and_then(|globals| globals.cast_into::<PyDict>().ok()) {
        Some(globals) => globals,
        None => dict(py)?,
    };
    // SAFETY: `attached`.
    let thread = unsafe { ffi::PyThreadState_Get() };
    let (code, globals) = (code.as_ptr().cast(), globals.as_ptr());
    // SAFETY: `attached`; a code and a dict, both alive.
    let frame = unsafe { ffi::PyFrame_New(thread, code, globals, ptr::null_mut()) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { owned(py, frame.cast()) }
}
