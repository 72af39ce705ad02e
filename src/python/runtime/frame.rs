//! The code of a cached coroutine function, and a frame of it for a call that has not begun.
//!
//! A coroutine has a frame from birth. `inspect.getcoroutinestate`, `asyncio.Task.get_stack` and debuggers ask for it: `None`
//! means that the coroutine has ended. A cached call makes none before it runs the function, and may be a hit. So a frame
//! that nothing ever executes is made when it is asked for.
//!
//! # Invariants
//! - `called`: all of this happens on an attached thread, in slots of a type beside PyO3's.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

/// How many wrappers around a function are looked through.
const MAX_WRAPPERS: usize = 64;

type Owned<'py> = Option<Bound<'py, PyAny>>;

/// An attribute, if there is one; no exception stays set.
fn attribute<'py>(object: &Bound<'py, PyAny>, name: &CStr) -> Owned<'py> {
    // SAFETY: `called`; a live object.
    let found = unsafe { ffi::PyObject_GetAttrString(object.as_ptr(), name.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    let found = unsafe { Bound::from_owned_ptr_or_opt(object.py(), found) };
    if found.is_none() {
        // SAFETY: `called`.
        unsafe { ffi::PyErr_Clear() };
    }
    found
}

/// The function with code that a call of this one runs, if it can be seen: behind partials, methods and `__call__`.
fn with_code<'py>(function: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let mut function = function.clone();
    for _ in 0..MAX_WRAPPERS {
        if let Some(code) = attribute(&function, c"__code__")
            && code.get_type_ptr() == &raw mut ffi::PyCode_Type
        {
            return Some((function, code));
        }
        let inner = [c"__wrapped__", c"func", c"__func__"];
        let kind = function.get_type().into_any();
        function = inner
            .iter()
            .find_map(|name| attribute(&function, name))
            .or_else(|| attribute(&kind, c"__call__"))?;
    }
    None
}

/// An empty code of that name. `None` is with an exception set.
fn empty_code<'py>(function: &Bound<'py, PyAny>) -> Owned<'py> {
    let name = attribute(function, c"__name__");
    // SAFETY: `called`; a live object. Null, if it is no `str`.
    let text = name.as_ref().map_or(ptr::null(), |name| unsafe { ffi::PyUnicode_AsUTF8(name.as_ptr()) });
    let text = if text.is_null() {
        // SAFETY: `called`.
        unsafe { ffi::PyErr_Clear() };
        c"cached".as_ptr()
    } else {
        text
    };
    // SAFETY: `called`; both are texts that end with a zero.
    let code = unsafe { ffi::PyCode_NewEmpty(c"<cached>".as_ptr(), text, 1) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_opt(function.py(), code.cast()) }
}

/// The code of a function: a new reference, or null with an exception set.
pub(in crate::python) fn code_of(function: &Bound<'_, PyAny>) -> *mut ffi::PyObject {
    let code = with_code(function).map(|(_, code)| code).or_else(|| empty_code(function));
    code.map_or(ptr::null_mut(), Bound::into_ptr)
}

/// A frame of a function that has not begun: a new reference, or null with an exception set.
pub(in crate::python) fn new(function: &Bound<'_, PyAny>) -> *mut ffi::PyObject {
    let py = function.py();
    let (globals, code) = match with_code(function) {
        Some((function, code)) => (attribute(&function, c"__globals__"), Some(code)),
        None => (None, empty_code(function)),
    };
    let Some(code) = code else { return ptr::null_mut() };
    // SAFETY: `called`; a live object.
    let globals =
        globals.filter(|globals| unsafe { ffi::PyDict_Check(globals.as_ptr()) } != 0).or_else(|| {
            // SAFETY: `called`.
            let none = unsafe { ffi::PyDict_New() };
            // SAFETY: a new reference, or null with an exception set.
            unsafe { Bound::from_owned_ptr_or_opt(py, none) }
        });
    let Some(globals) = globals else { return ptr::null_mut() };
    // SAFETY: `called`.
    let thread = unsafe { ffi::PyThreadState_Get() };
    // SAFETY: `called`, with a code and a dict.
    unsafe { ffi::PyFrame_New(thread, code.as_ptr().cast(), globals.as_ptr(), ptr::null_mut()) }.cast()
}
