//! [`Object`]: a reference to a Python object, as the core holds it. It is one word, and counts without asking PyO3.
//!
//! PyO3's `Py` checks at each clone and drop whether the thread is attached. Here it always is: law 2 keeps detached threads
//! out of the cache, and law 3 keeps drops out of the epoch's closures.
//!
//! # Invariants
//! - `attached`: a clone, a drop or a comparison happens on an attached thread.
//! - `owned`: an [`Object`] owns one reference.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr;

use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::Handle;
#[cfg(Py_GIL_DISABLED)]
use crate::python::object::shared_count;
use crate::sync::prefetch_write;

#[repr(transparent)]
pub(crate) struct Object(ManuallyDrop<Py<PyAny>>);

impl Object {
    pub fn new(object: Py<PyAny>) -> Self {
        Object(ManuallyDrop::new(object))
    }

    pub fn of(object: &Bound<'_, PyAny>) -> Self {
        Object::new(object.clone().unbind())
    }

    /// A reference for the cache to keep. It is counted so that any thread can drop it cheaply (`shared_count.rs`).
    #[inline]
    pub fn for_cache(object: &Bound<'_, PyAny>) -> Self {
        #[cfg(Py_GIL_DISABLED)]
        if shared_count::increment(object) {
            // SAFETY: the reference just counted (`owned`).
            return Object::new(unsafe { Bound::from_owned_ptr(object.py(), object.as_ptr()) }.unbind());
        }
        Object::of(object)
    }

    /// Records that this thread is about to drop a reference that the cache kept.
    #[inline]
    pub fn record_drop(&self) {
        #[cfg(Py_GIL_DISABLED)]
        shared_count::record_drop(self.as_ptr());
    }

    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }

    /// Moves the reference out.
    pub fn into_py(self) -> Py<PyAny> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `owned`; the wrapper is never used again, and drops nothing.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }

    pub fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        self.into_py().into_bound(py)
    }

    /// Moves the reference out, as a return value for the interpreter.
    pub fn into_ptr(self) -> *mut ffi::PyObject {
        ManuallyDrop::new(self).as_ptr()
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.0)
    }

    pub fn is(&self, other: &Object) -> bool {
        self.as_ptr() == other.as_ptr()
    }

    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }
}

impl Clone for Object {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: `attached`; the reference is live while `self` is.
        unsafe { ffi::Py_INCREF(self.as_ptr()) };
        // SAFETY: the copy owns the reference just made (`owned`).
        Object(unsafe { ptr::read(&self.0) })
    }
}

impl Handle for Object {
    #[inline]
    fn is_immortal(&self) -> bool {
        #[cfg(Py_GIL_DISABLED)]
        return shared_count::is_immortal(self.as_ptr());
        // With the GIL no drop is deferred, so nothing is gained by the check.
        #[cfg(not(Py_GIL_DISABLED))]
        false
    }

    #[inline]
    fn prefetch(&self) {
        // SAFETY: `owned`; a live object.
        prefetch_write(unsafe { &*self.as_ptr() });
    }
}

impl Drop for Object {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `attached` and `owned`.
        unsafe { ffi::Py_DECREF(self.as_ptr()) };
    }
}
