//! Reads arguments: Python objects into numbers, checked. Each error names the argument, the rule, and the value.

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBool, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyIterator, PyString, PyType};

use crate::python::ffi::Arg;
use crate::python::object::{Object, shared_error};
use crate::python::runtime::race_cell::{RaceCell, interned};
use crate::{Clock, Kind, Lifetime, word_of_nanos};

const NANOS_PER_SECOND: f64 = 1e9;
/// From here on each float is a whole number. As nanoseconds it is 52 days.
const MIN_WHOLE_FLOAT: f64 = (1_u64 << 52) as f64;
/// A duration of more than 1,000 years counts as a mistake.
const MAX_SECONDS: f64 = 1000.0 * 365.25 * 86_400.0;

/// A duration for the core, and as the user gave it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Duration {
    /// Nanoseconds, as in [`Lifetime`]; 0 if there is none.
    pub nanos: u64,
    pub seconds: Option<f64>,
}

/// The deadlines that a call gives to the entries that it stores.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines<'a> {
    pub ttl: Ttl<'a>,
    /// Nanoseconds, as in [`Lifetime`].
    pub tti: u64,
}

impl Deadlines<'_> {
    /// No deadlines but those of the cache.
    pub const NONE: Deadlines<'static> = Deadlines { ttl: Ttl::Nanos(0), tti: 0 };
}

/// The deadlines of a call that is over when they are used.
pub(crate) struct HeldDeadlines {
    ttl: u64,
    ttl_function: Option<Object>,
    tti: u64,
}

impl HeldDeadlines {
    pub fn of(deadlines: &Deadlines<'_>) -> Self {
        let (ttl, ttl_function) = match deadlines.ttl {
            Ttl::Nanos(ttl) => (ttl, None),
            Ttl::Function(function) => (0, Some(Object::of(&function))),
        };
        HeldDeadlines { ttl, ttl_function, tti: deadlines.tti }
    }

    pub fn bind<'a>(&'a self, py: Python<'a>) -> Deadlines<'a> {
        let ttl = match &self.ttl_function {
            Some(function) => Ttl::Function(function.bind(py).as_borrowed()),
            None => Ttl::Nanos(self.ttl),
        };
        Deadlines { ttl, tti: self.tti }
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.ttl_function.as_ref().map_or(Ok(()), |function| function.visit(visit))
    }
}

/// The ttl of a call.
#[derive(Clone, Copy)]
pub(crate) enum Ttl<'a> {
    /// Nanoseconds, as in [`Lifetime`]; 0 if there is none.
    Nanos(u64),
    /// A function of key and value, which returns the ttl.
    Function(Arg<'a>),
}

pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "another type".to_owned(), |name| name.to_string())
}

/// Reads the deadlines of entries that a call stores. The ttl may be a function.
pub(crate) fn deadlines<'a>(ttl: Option<Arg<'a>>, tti: Option<Arg<'a>>) -> PyResult<Deadlines<'a>> {
    let ttl = match duration_or_function("ttl", ttl)? {
        (_, Some(function)) => Ttl::Function(function),
        (duration, None) => Ttl::Nanos(duration.nanos),
    };
    Ok(Deadlines { ttl, tti: duration("tti", tti.as_deref())?.nanos })
}

/// Reads a duration as [`duration`] does, or a function that returns one.
pub(crate) fn duration_or_function<'a>(
    name: &str,
    value: Option<Arg<'a>>,
) -> PyResult<(Duration, Option<Arg<'a>>)> {
    // An object that is a number and can be called, such as one of `unittest.mock`, is a function, unless it is of a type
    // for numbers.
    let is_number = |value: &Bound<'_, PyAny>| {
        value.is_instance_of::<PyFloat>()
            || value.is_instance_of::<PyInt>()
            || value.is_instance_of::<PyDelta>()
    };
    let function = value.filter(|value| value.is_callable() && !is_number(value));
    match function {
        Some(function) => Ok((Duration::default(), Some(function))),
        None => {
            let kinds = "a number of seconds, a timedelta or a function";
            Ok((duration_of(name, kinds, value.as_deref())?, None))
        }
    }
}

/// Reads new deadlines of an entry that may have some already. The ttl cannot be a function.
pub(crate) fn lifetime(ttl: Option<&Bound<'_, PyAny>>, tti: Option<&Bound<'_, PyAny>>) -> PyResult<Lifetime> {
    Ok(Lifetime { ttl: duration("ttl", ttl)?.nanos, tti: duration("tti", tti)?.nanos })
}

/// Reads a duration: a number of seconds, a `timedelta`, or `None`.
pub(crate) fn duration(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    duration_of(name, "a number of seconds or a timedelta", value)
}

/// `kinds` says which types of values are allowed.
fn duration_of(name: &str, kinds: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(Duration::default()) };
    let Some(seconds) = seconds(value)? else {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("{name} must be {kinds}, got {what}")));
    };
    match nanos(seconds) {
        Some(nanos) => Ok(Duration { nanos, seconds: Some(seconds) }),
        None => {
            let is_long = seconds.is_finite() && seconds > 0.0;
            let rule = if is_long { "at most 1,000 years (out of range)" } else { "positive and finite" };
            Err(value_error(name, rule, value)?)
        }
    }
}

/// The seconds of a number or a `timedelta`; `None` for an object of another type.
fn seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
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
        return Ok(None);
    };
    Ok(Some(seconds))
}

/// Reads a duration that must be given, in nanoseconds.
pub(crate) fn required_nanos(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if value.is_none() {
        let rule = "a number of seconds or a timedelta";
        return Err(PyTypeError::new_err(format!("{name} must be {rule}, got NoneType")));
    }
    Ok(duration(name, Some(value))?.nanos)
}

/// Reads how many entries a caller wants at most: an int of at least 0, or `None` for all.
pub(crate) fn limit(value: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let Some(value) = value.filter(|value| !value.is_none()) else { return Ok(usize::MAX) };
    if !is_index(value)? {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("limit must be an int or None, got {what}")));
    }
    match value.extract::<usize>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
            // More than there can be.
            if value.lt(0)? { Err(value_error("limit", "at least 0", value)?) } else { Ok(usize::MAX) }
        }
        limit => limit,
    }
}

fn message(name: &str, rule: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(format!("{name} must be {rule}, got {}", show(value)?))
}

fn value_error(name: &str, rule: &str, value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    message(name, rule, value).map(PyValueError::new_err)
}

/// A value as a message shows it: its `repr`, or its type if `repr` raises, as it does for a very long int. An
/// interrupt of `repr` is an error.
#[cold]
pub(crate) fn show(value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.repr() {
        Ok(text) => Ok(text.to_string_lossy().into_owned()),
        Err(error) if !shared_error::is_failure(error.value(value.py())) => Err(error),
        Err(_) if value.is_instance_of::<PyInt>() => Ok(format!("an {} too long to print", type_name(value))),
        Err(_) => Ok(format!("<{} object>", type_name(value))),
    }
}

/// The nanoseconds of a duration in seconds, as [`Lifetime`] has them; `None` if it is not positive or too long.
pub(crate) fn nanos(seconds: f64) -> Option<u64> {
    if !(seconds > 0.0 && seconds <= MAX_SECONDS) {
        return None;
    }
    let nanos = seconds * NANOS_PER_SECOND;
    Some(if nanos < MIN_WHOLE_FLOAT {
        // `f64::round` is a function call on the processors that the wheel is built for.
        ((nanos + 0.5) as u64).max(1)
    } else if nanos < Clock::END as f64 {
        nanos as u64
    } else {
        word_of_nanos(nanos as u128)
    })
}

/// Whether the object is an int, or has `__index__`.
fn is_index(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(value.is_instance_of::<PyInt>() || value.get_type().hasattr("__index__")?)
}

/// Reads a capacity: an int of at least 0 and less than 2**64.
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
        let make = || Ok(PyErr::from_type(capacity_error(py)?.clone(), message("capacity", rule, value)?));
        make().unwrap_or_else(|error: PyErr| error)
    })
}

/// The class of the error for a wrong capacity. It is a `ValueError`, and an `OverflowError`, which PyPI's moka-py raises, so
/// that a program's `except` still works.
fn capacity_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static KIND: RaceCell<Py<PyType>> = RaceCell::new();
    let make = || {
        let bases = (py.get_type::<PyOverflowError>(), py.get_type::<PyValueError>());
        let namespace = [("__module__", "moka_py")].into_py_dict(py)?;
        let made = py.get_type::<PyType>().call1(("CapacityError", bases, namespace))?;
        Ok::<_, PyErr>(made.cast_into::<PyType>()?.unbind())
    };
    KIND.get_or_try_init(make).map(|kind| kind.bind(py))
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

/// Reads a bool.
pub(crate) fn boolean(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(flag.is_true());
    }
    let what = type_name(value);
    Err(PyTypeError::new_err(format!("{name} must be a bool, got {what}")))
}

/// Checks that an argument is callable.
pub(crate) fn callable(name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if value.is_callable() {
        return Ok(());
    }
    let what = type_name(value);
    Err(PyTypeError::new_err(format!("{name} must be callable, got {what}")))
}

/// Checks that an argument is callable, if there is one.
pub(crate) fn callable_or_none(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    value.map_or(Ok(()), |value| callable(name, value))
}

/// Checks the duration after which values are computed anew.
pub(crate) fn refresh(refresh: Duration, ttl: Duration) -> PyResult<Duration> {
    if let (Some(seconds), Some(ttl_seconds)) = (refresh.seconds, ttl.seconds)
        && refresh.nanos >= ttl.nanos
    {
        return Err(PyValueError::new_err(format!(
            "refresh must be less than ttl, got refresh={seconds} and ttl={ttl_seconds}"
        )));
    }
    Ok(refresh)
}

/// Checks the executor of refreshes, if there is one.
pub(crate) fn executor_or_none(executor: Option<&Bound<'_, PyAny>>, refresh: Duration) -> PyResult<()> {
    let Some(executor) = executor else { return Ok(()) };
    let submit = executor.getattr_opt(interned!(executor.py(), "submit"))?;
    if !submit.is_some_and(|submit| submit.is_callable()) {
        let what = type_name(executor);
        return Err(PyTypeError::new_err(format!("executor must have a callable submit, got {what}")));
    }
    if refresh.seconds.is_none() {
        return Err(value_error("executor", "None without refresh", executor)?);
    }
    Ok(())
}

/// Iterates over an argument, which must be iterable.
pub(crate) fn iterate<'py>(
    name: &str,
    rule: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    iterate_or(value, |kind| format!("{name} must be {rule}, got {kind}"))
}

/// Iterates over an object. If it is not iterable, raises TypeError with a text that is made of the name of its type.
pub(crate) fn iterate_or<'py>(
    value: &Bound<'py, PyAny>,
    text: impl FnOnce(&str) -> String,
) -> PyResult<Bound<'py, PyIterator>> {
    value.try_iter().map_err(|error| {
        let kind = value.get_type();
        // On the type, where the interpreter looks. The error of an iterable object is its own.
        let is_iterable = ["__iter__", "__getitem__"].iter().any(|name| kind.hasattr(*name).unwrap_or(true));
        if is_iterable {
            return error;
        }
        PyTypeError::new_err(text(&type_name(value)))
    })
}

/// Reads the result of a weigher: an int of at least 0. More than 2**32 - 1 counts as 2**32 - 1.
pub(crate) fn weight(value: &Bound<'_, PyAny>) -> PyResult<u32> {
    if !value.is_instance_of::<PyInt>() {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!("weigher must return an int, got {what}")));
    }
    match value.extract::<u32>() {
        Ok(weight) => Ok(weight),
        Err(_) if value.lt(0)? => {
            Err(PyValueError::new_err(format!("weigher must return at least 0, got {}", show(value)?)))
        }
        Err(_) => Ok(u32::MAX),
    }
}

/// Reads the result of a ttl function, in nanoseconds: 0 for no deadline. `None` says that the value is not to be kept.
pub(crate) fn ttl_result(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    if value.is_none() {
        return Ok(Some(0));
    }
    let Some(seconds) = seconds(value)? else {
        let what = type_name(value);
        return Err(PyTypeError::new_err(format!(
            "ttl must return a number of seconds, a timedelta or None, got {what}"
        )));
    };
    match nanos(seconds) {
        Some(nanos) => Ok(Some(nanos)),
        None if seconds <= 0.0 => Ok(None),
        None => {
            let rule = if seconds.is_nan() { "a number" } else { "at most 1,000 years (out of range)" };
            Err(PyValueError::new_err(format!("ttl must return {rule}, got {}", show(value)?)))
        }
    }
}
