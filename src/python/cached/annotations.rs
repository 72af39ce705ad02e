//! The attributes that a function always has, and a wrapper of one may lack: its annotations and type parameters.
//!
//! # How it works
//! On CPython 3.14 and later annotations are evaluated by a function's `__annotate__` when they are first asked for, and
//! `functools.update_wrapper` copies that in place of `__annotations__`. So the annotations are those of the cached
//! function, which keeps them. If `__annotate__` was replaced on the wrapper, that one makes them. Where the cached callable has
//! none, such as a `functools.partial`, the wrapper has what a new function has.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

/// What `annotationlib.Format.VALUE` is.
const VALUE: u8 = 1;

/// Returns such an attribute of a wrapper over a function. `own` are the attributes that were set on the wrapper.
pub(in crate::python) fn attribute<'py>(
    function: &Bound<'py, PyAny>,
    own: &Bound<'py, PyDict>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    if let Some(set) = own.get_item(name)? {
        return Ok(set);
    }
    match name.to_str()? {
        "__annotations__" => annotations(function, own),
        "__annotate__" if cfg!(Py_3_14) => Ok(py.None().into_bound(py)),
        "__type_params__" => Ok(PyTuple::empty(py).into_any()),
        name => Err(PyAttributeError::new_err(format!("'CachedFunction' object has no attribute '{name}'"))),
    }
}

fn annotations<'py>(function: &Bound<'py, PyAny>, own: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let annotations = intern!(py, "__annotations__");
    let annotate = intern!(py, "__annotate__");
    let theirs = function.getattr_opt(annotate)?;
    let ours = own.get_item(annotate)?;
    if let Some(ours) = ours
        && !theirs.as_ref().is_some_and(|theirs| theirs.is(&ours))
    {
        return if ours.is_none() { Ok(PyDict::new(py).into_any()) } else { ours.call1((VALUE,)) };
    }
    if theirs.is_some_and(|theirs| !theirs.is_none()) {
        // An AttributeError here comes of an annotation.
        return function.getattr(annotations);
    }
    if let Some(found) = function.getattr_opt(annotations)? {
        return Ok(found);
    }
    // As of a function that has none: a dict that can be filled.
    let none = PyDict::new(py);
    own.set_item(annotations, &none)?;
    Ok(none.into_any())
}
