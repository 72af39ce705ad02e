//! Which objects are coroutines, which serve once and so are no values to keep.

#![allow(unsafe_code)]

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The type of this module's own coroutines, once there is one.
pub(in crate::python) static OWN_CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Whether an object is a coroutine of an `async def` function.
#[inline]
pub(in crate::python) fn is_exact(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { pyo3::ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// Whether an object is a coroutine: of an `async def` function, of a cached one, or of `aget_with`.
#[inline]
pub(in crate::python) fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    let class = object.get_type_ptr();
    is_exact(object) || OWN_CLASS.get(object.py()).is_some_and(|own| own.as_ptr() == class.cast())
}
