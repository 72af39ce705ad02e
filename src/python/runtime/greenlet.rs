//! Which greenlet runs on this thread: greenlets of one thread take turns on it, so one cannot wait for another.
//!
//! # How it works
//! A computation notes the greenlet that began it. When a thread asks for a key that the same thread computes already, either the
//! computation asks for its own key, or another greenlet does; the note tells which. The package `greenlet` is looked for among the
//! modules that the program has imported, each time that their number has changed. A computation that began before the package
//! was imported has no note, and counts as that of another greenlet.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

/// The function `greenlet.getcurrent`, once it was needed. The reference is never given back.
static GET_CURRENT: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// How many modules there were at the last look for the package.
static MODULES_SEEN: AtomicIsize = AtomicIsize::new(-1);

/// The note of a computation that no greenlet is known to have begun.
pub(in crate::python) const UNKNOWN: usize = 0;

/// The greenlet that runs now, by its address, which is its own for as long as its computations are under way.
#[inline]
pub(in crate::python) fn current(py: Python<'_>) -> usize {
    // Acquire: pairs with the Release in `find`.
    let get_current = GET_CURRENT.load(Ordering::Acquire);
    if !get_current.is_null() {
        return ask(py, get_current);
    }
    // SAFETY: the thread is attached; the interpreter holds the dict.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: the thread is attached; a live object, or null.
    let count = if modules.is_null() { -1 } else { unsafe { ffi::PyDict_Size(modules) } };
    // Relaxed: a look too many does no harm.
    if count == MODULES_SEEN.load(Ordering::Relaxed) { UNKNOWN } else { current_slow(py, count) }
}

#[cold]
fn current_slow(py: Python<'_>, count: isize) -> usize {
    if count < 0 {
        // The modules are no dict: the interpreter ends, or a program replaced them.
        // SAFETY: the thread is attached.
        unsafe { ffi::PyErr_Clear() };
    }
    // Relaxed: see above.
    MODULES_SEEN.store(count, Ordering::Relaxed);
    let get_current = find(py);
    if get_current.is_null() { UNKNOWN } else { ask(py, get_current) }
}

/// Whether the greenlet of a note runs now, or the program has no greenlets.
#[cold]
pub(in crate::python) fn is_current(py: Python<'_>, noted: usize) -> bool {
    let get_current = GET_CURRENT.load(Ordering::Acquire);
    let get_current = if get_current.is_null() { find(py) } else { get_current };
    get_current.is_null() || ask(py, get_current) == noted
}

#[cold]
fn ask(_py: Python<'_>, get_current: *mut ffi::PyObject) -> usize {
    // SAFETY: the thread is attached, and the function is never given back.
    let greenlet = unsafe { ffi::PyObject_CallNoArgs(get_current) };
    if greenlet.is_null() {
        // SAFETY: the thread is attached.
        unsafe { ffi::PyErr_Clear() };
        return UNKNOWN;
    }
    // SAFETY: a new reference; the greenlet runs, so it lives on.
    unsafe { ffi::Py_DECREF(greenlet) };
    greenlet.addr()
}

/// `greenlet.getcurrent`, if the program has imported that package; else null.
fn find(_py: Python<'_>) -> *mut ffi::PyObject {
    // SAFETY: the thread is attached, and the text ends with a zero.
    let name = unsafe { ffi::PyUnicode_FromString(c"greenlet".as_ptr()) };
    if name.is_null() {
        // SAFETY: the thread is attached.
        unsafe { ffi::PyErr_Clear() };
        return ptr::null_mut();
    }
    // SAFETY: the thread is attached; a live string.
    let module = unsafe { ffi::PyImport_GetModule(name) };
    // SAFETY: the reference made above.
    unsafe { ffi::Py_DECREF(name) };
    let mut found = ptr::null_mut();
    if !module.is_null() {
        // SAFETY: the thread is attached; a live object.
        found = unsafe { ffi::PyObject_GetAttrString(module, c"getcurrent".as_ptr()) };
        // SAFETY: the reference made above.
        unsafe { ffi::Py_DECREF(module) };
    }
    if found.is_null() {
        // SAFETY: the thread is attached.
        unsafe { ffi::PyErr_Clear() };
    } else {
        // Release: pairs with the Acquire in `current`. A second thread that finds it stores the same function.
        GET_CURRENT.store(found, Ordering::Release);
    }
    found
}
