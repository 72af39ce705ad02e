//! Objects that live as long as the program, such as a cache at the level of a module.
//!
//! On the free-threaded build, threads that use one object count its references in one place. That costs them more than a look-up.
//! [`stop_counting_references`] frees them from it:
//! - CPython 3.13 leaves only immortal objects uncounted. So the object is never freed.
//! - From 3.14 on, the references that frames have to the object are not counted. The collector still frees the object.
//! - With the GIL, counting costs the same from every thread. So nothing happens.

#![cfg_attr(all(Py_GIL_DISABLED, Py_3_14), allow(unsafe_code))]

use pyo3::prelude::*;

/// Frees threads from counting the references to one object. On 3.13 it has no effect unless this thread made the object.
#[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
pub(in crate::python) fn stop_counting_references(object: &Bound<'_, PyAny>) {
    crate::python::object::shared_count::make_immortal(object);
}

/// Frees threads from counting the references that frames have to one object.
#[cfg(all(Py_GIL_DISABLED, Py_3_14))]
pub(in crate::python) fn stop_counting_references(object: &Bound<'_, PyAny>) {
    use std::ffi::c_int;

    unsafe extern "C" {
        /// Missing in pyo3-ffi. Returns 0 if the object stays as it is, and never raises.
        fn PyUnstable_Object_EnableDeferredRefcount(object: *mut pyo3::ffi::PyObject) -> c_int;
    }
    // SAFETY: attached, with a live object. CPython sets the mark by atomics, so other threads may have the object.
    unsafe { PyUnstable_Object_EnableDeferredRefcount(object.as_ptr()) };
}

/// Does nothing.
#[cfg(not(Py_GIL_DISABLED))]
pub(in crate::python) fn stop_counting_references(_object: &Bound<'_, PyAny>) {}
