//! Which objects are coroutines, which serve once and so are no values to keep.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::python::ffi::{self, New};
use crate::python::runtime::race_cell::RaceCell;

/// The type of this module's own coroutines, once there is one.
pub(in crate::python) static OWN_CLASS: RaceCell<Py<PyType>> = RaceCell::new();

/// Whether an object is a coroutine of an `async def` function.
#[inline]
pub(in crate::python) fn is_exact(object: &Bound<'_, PyAny>) -> bool {
    ffi::type_ptr(object) == &raw mut pyo3::ffi::PyCoro_Type
}

/// Whether an object is a coroutine: of an `async def` function, of a cached one, or of `aget_with`.
#[inline]
fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    let class = ffi::type_ptr(object);
    is_exact(object) || OWN_CLASS.get().is_some_and(|own| own.as_ptr() == class.cast())
}

/// Returns the result of the initializer of `get_with`. If it is a coroutine, closes it and raises `TypeError`: it would
/// serve one caller, once.
#[inline]
pub(in crate::python) fn refuse(value: Bound<'_, PyAny>) -> New<'_> {
    if is_coroutine(&value) { refuse_coroutine(&value) } else { Ok(value) }
}

#[cold]
fn refuse_coroutine<'py>(coroutine: &Bound<'py, PyAny>) -> New<'py> {
    // Else its end would warn that it was never awaited.
    ffi::call_method(coroutine, c"close", [])?;
    let text = c"initializer must return a value, got a coroutine; use `await cache.aget_with(...)`";
    Err(ffi::raise::<PyTypeError>(coroutine.py(), text))
}
