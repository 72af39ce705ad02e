//! Arguments into plain numbers: each error names the argument, the rule, and what came.

use pyo3::exceptions::{PyException, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyIterator, PyString, PyType};

use crate::{Clock, Kind, word_of_nanos};

const NANOS: f64 = 1e9;
/// From here on all floats are whole, 52 days in nanoseconds.
const WHOLE: f64 = (1_u64 << 52) as f64;
/// Longer durations than 1,000 years are taken for a mistake.
const MOST_SECONDS: f64 = 1000.0 * 365.25 * 86_400.0;

/// A duration as the core takes it and as the user gave it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Duration {
    /// Nanoseconds, as [`Lifetime`](crate::Lifetime) has them; 0 is none.
    pub nanos: u64,
    pub seconds: Option<f64>,
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "another type".to_owned(), |name| name.to_string())
}

/// Reads a duration: a number of seconds or a `timedelta`, or `None`.
pub(crate) fn duration(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Duration::default()) };
    let seconds = if let Ok(float) = value.cast::<PyFloat>() {
        float.value()
    } else if is_index(value)? {
        match value.extract::<f64>() {
            // An int too large for a float.
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
                if value.lt(0)? {
                    f64::NEG_INFINITY
                } else {
                    f64::MAX
                }
            }
            seconds => seconds?,
        }
    } else if let Ok(delta) = value.cast::<PyDelta>() {
        let days = f64::from(delta.get_days());
        days * 86_400.0 + f64::from(delta.get_seconds()) + f64::from(delta.get_microseconds()) / 1e6
    } else {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!(
            "{name} must be a number of seconds or a timedelta, got {what}"
        )));
    };
    match nanos(seconds) {
        Some(nanos) => Ok(Duration { nanos, seconds: Some(seconds) }),
        None => {
            let is_long = seconds.is_finite() && seconds > 0.0;
            let rule = if is_long { "at most 1,000 years (out of range)" } else { "positive and finite" };
            Err(PyValueError::new_err(broken(name, rule, value)))
        }
    }
}

/// The text of a `ValueError`.
fn broken(name: &str, rule: &str, value: &Bound<'_, PyAny>) -> String {
    format!("{name} must be {rule}, got {}", shown(value))
}

/// A value as an error shows it: by its type if its `repr` fails, as that of a very long int does.
fn shown(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| format!("an {} too long to print", type_name(value)), |text| text.to_string())
}

/// The nanoseconds of a duration in seconds, if it is one; of a long one the word that stands for them.
pub(crate) fn nanos(seconds: f64) -> Option<u64> {
    if !(seconds > 0.0 && seconds <= MOST_SECONDS) {
        return None;
    }
    let nanos = seconds * NANOS;
    Some(if nanos < WHOLE {
        // `f64::round` is a call on most processors that the wheel is for.
        ((nanos + 0.5) as u64).max(1)
    } else if nanos < Clock::END as f64 {
        nanos as u64
    } else {
        word_of_nanos(nanos as u128)
    })
}

/// Whether the object is an int, or of a type that stands for one.
fn is_index(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<PyInt>() || value.get_type().hasattr("__index__")?)
}

/// Reads a capacity: an int from 0 on that fits 64 bits.
pub(crate) fn capacity(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = value.py();
    if !is_index(value)? {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("capacity must be an int, got {what}")));
    }
    value.extract::<u64>().map_err(|error| {
        if !error.is_instance_of::<PyOverflowError>(py) {
            return error;
        }
        let rule = match value.lt(0) {
            Ok(true) => "at least 0",
            Ok(false) => "at most 2**64 - 1",
            Err(error) => return error,
        };
        let text = broken("capacity", rule, value);
        match capacity_error(py) {
            Ok(kind) => PyErr::from_type(kind.clone(), text),
            Err(error) => error,
        }
    })
}

/// The error for a capacity of the wrong value: a `ValueError`, and an `OverflowError`, as PyPI's moka-py
/// raises, so that a program's `except` still works.
fn capacity_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static KIND: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let make = || {
        let bases = (py.get_type::<PyOverflowError>(), py.get_type::<PyValueError>());
        let namespace = [("__module__", "moka_py")].into_py_dict(py)?;
        let made = py.get_type::<PyType>().call1(("CapacityError", bases, namespace))?;
        Ok::<_, PyErr>(made.cast_into::<PyType>()?.unbind())
    };
    KIND.get_or_try_init(py, make).map(|kind| kind.bind(py))
}

pub(crate) fn policy(value: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let Ok(name) = value.cast::<PyString>() else {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("policy must be \"tiny_lfu\" or \"lru\", got {what}")));
    };
    match name.to_str() {
        Ok("tiny_lfu") => Ok(Kind::TinyLfu),
        Ok("lru") => Ok(Kind::Lru),
        _ => {
            let what = name.repr()?;
            Err(PyValueError::new_err(format!("policy must be \"tiny_lfu\" or \"lru\", got {what}")))
        }
    }
}

/// Checks that an argument can be called.
pub(crate) fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        return Ok(());
    }
    let what = type_name(value);
    Err(PyTypeError::new_err(format!("{name} must be callable, got {what}")))
}

/// Checks that an argument can be called, where it may be left out.
pub(crate) fn callable_or_none(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    value.map_or(Ok(()), |value| callable(name, value))
}

/// Iterates over an argument, which must be something iterable.
pub(crate) fn iterable<'py>(
    name: &str,
    rule: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    iterable_or(value, |kind| format!("{name} must be {rule}, got {kind}"))
}

/// Iterates over something, or tells of it by the name of its type, where it is not iterable.
pub(crate) fn iterable_or<'py>(
    value: &Bound<'py, PyAny>,
    text: impl FnOnce(&str) -> String,
) -> PyResult<Bound<'py, PyIterator>> {
    value.try_iter().map_err(|error| {
        let kind = value.get_type();
        // By the type, as the interpreter looks. The error of one that is iterable is its own.
        let is_iterable = ["__iter__", "__getitem__"].iter().any(|name| kind.hasattr(*name).unwrap_or(true));
        if is_iterable {
            return error;
        }
        PyTypeError::new_err(text(&type_name(value)))
    })
}

/// Reads what a weigher returned: an int from 0 on; more than 2**32 - 1 counts as that.
pub(crate) fn weight(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    if !value.is_instance_of::<PyInt>() {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("weigher must return an int, got {what}")));
    }
    match value.extract::<u32>() {
        Ok(weight) => Ok(weight),
        Err(_) if value.lt(0)? => {
            Err(PyValueError::new_err(format!("weigher must return at least 0, got {}", shown(value))))
        }
        Err(_) => Ok(u32::MAX),
    }
}

/// Whether an exception is shared by those who wait: a failure is, an interrupted thread is not.
pub(crate) fn is_failure(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py)
}
