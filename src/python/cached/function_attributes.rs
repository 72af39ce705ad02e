//! The attributes that each function has, and that a wrapper of a callable may lack: annotations and type parameters.
//!
//! # How it works
//! From CPython 3.14 on, a function's `__annotate__` evaluates its annotations when they are first read, and
//! `functools.update_wrapper` copies `__annotate__` in place of `__annotations__`. So a cached function returns the
//! annotations of the wrapped function, which keeps them. If `__annotate__` was replaced on the cached function, that
//! one makes them. If the wrapped callable has none, as a `functools.partial`, the cached function has those
//! of a new function.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::python::runtime::race_cell::interned;

/// The value of `annotationlib.Format.VALUE`.
const FORMAT_VALUE: u8 = 1;

/// Returns such an attribute of a cached function. `own` has the attributes that were set on it.
pub(in crate::python) fn get<'py>(
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
    let annotations = interned!(py, "__annotations__");
    let annotate = interned!(py, "__annotate__");
    let wrapped_annotate = function.getattr_opt(annotate)?;
    let own_annotate = own.get_item(annotate)?;
    if let Some(own_annotate) = own_annotate
        && !wrapped_annotate.as_ref().is_some_and(|wrapped_annotate| wrapped_annotate.is(&own_annotate))
    {
        if own_annotate.is_none() {
            return Ok(PyDict::new(py).into_any());
        }
        return own_annotate.call1((FORMAT_VALUE,));
    }
    if wrapped_annotate.is_some_and(|wrapped_annotate| !wrapped_annotate.is_none()) {
        // An AttributeError here comes from evaluating an annotation, so it is not hidden.
        return function.getattr(annotations);
    }
    if let Some(found) = function.getattr_opt(annotations)? {
        return Ok(found);
    }
    // A new function has an empty dict, which a program may fill.
    let empty = PyDict::new(py);
    own.set_item(annotations, &empty)?;
    Ok(empty.into_any())
}
