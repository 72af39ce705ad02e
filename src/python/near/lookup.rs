//! [`NearLookup`]: the base class of the near caches. A hit does not leave it, unless the call has more arguments than usual.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::python::moka::convert;
use crate::python::near::tier::LocalTier;
use crate::python::runtime::race_cell::{RaceCell, interned};

struct Binding {
    tier: Py<LocalTier>,
    /// Applied to each value that a caller gets from the tier.
    copy: Option<Py<PyAny>>,
}

#[pyclass(module = "moka_py.near", name = "_NearLookup", frozen, subclass)]
pub(in crate::python) struct NearLookup {
    binding: OnceLock<Binding>,
    is_closed: AtomicBool,
}

impl NearLookup {
    /// Returns the local value of a key or the marker of an absence, if the tier may answer.
    #[inline]
    fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Found>> {
        // Relaxed: `close` and the call are concurrent, or the program orders them.
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        let binding = self.binding.get().ok_or_else(unbound)?;
        let tier = binding.tier.get();
        let Some(value) = tier.look_up(key)? else { return Ok(None) };
        if tier.is_absent(&value) {
            return Ok(Some(Found::Absent));
        }
        let value = value.into_py();
        Ok(Some(Found::Value(match &binding.copy {
            None => value,
            Some(copy) => copy.call1(key.py(), (value,))?,
        })))
    }
}

enum Found {
    Value(Py<PyAny>),
    Absent,
}

#[cold]
fn closed() -> PyErr {
    PyValueError::new_err("the near cache is closed")
}

#[cold]
fn unbound() -> PyErr {
    PyRuntimeError::new_err(
        "the near cache was not made: the __init__ of a subclass must call super().__init__(...)",
    )
}

#[pymethods]
impl NearLookup {
    #[new]
    #[pyo3(signature = (*_args, **_keywords))]
    fn new(_args: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        NearLookup { binding: OnceLock::new(), is_closed: AtomicBool::new(false) }
    }

    #[doc = doc!("_NearLookup.get")]
    #[pyo3(signature = (key, default=None, *, fresh=false))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        fresh: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        if !fresh && let Some(found) = this.find(key)? {
            return Ok(match found {
                Found::Value(value) => value.into_bound(py),
                Found::Absent => default.unwrap_or_else(|| py.None().into_bound(py)),
            });
        }
        slf.call_method1(interned!(py, "_get_slow"), (key, default, fresh))
    }

    #[doc = doc!("_NearLookup.get_with")]
    #[pyo3(
        signature = (key, initializer, *args, **keywords),
        text_signature = "($self, key, initializer, ttl=..., *, across=True, lease=30.0, fresh=False)"
    )]
    fn get_with<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        initializer: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        convert::callable("initializer", initializer)?;
        if args.is_empty() && keywords.is_none() {
            return match slf.get().find(key)? {
                Some(Found::Value(value)) => Ok(value.into_bound(py)),
                Some(Found::Absent) | None => {
                    slf.call_method1(interned!(py, "_get_with_missed"), (key, initializer))
                }
            };
        }
        // Python checks the other arguments.
        let slow = slf.getattr(interned!(py, "_get_with_slow"))?;
        let first = [key.clone(), initializer.clone()];
        slow.call(PyTuple::new(py, first.into_iter().chain(args.iter()).collect::<Vec<_>>())?, keywords)
    }

    /// Returns an alias of the class for type checkers.
    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static ALIAS: RaceCell<Py<PyType>> = RaceCell::new();
        ALIAS.import(cls.py(), "types", "GenericAlias")?.call1((cls, parameters))
    }

    /// Returns the local value of a key, or `missing` if there is none. For a key that is known to have no value, returns
    /// `absent` if that is given.
    #[pyo3(signature = (key, missing, absent=None))]
    fn _look_up<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        missing: Bound<'py, PyAny>,
        absent: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.find(key)? {
            Some(Found::Value(value)) => value.into_bound(key.py()),
            Some(Found::Absent) => absent.unwrap_or(missing),
            None => missing,
        })
    }

    /// Gives the object its tier. Only the first call has an effect.
    #[pyo3(signature = (tier, copy=None))]
    fn _bind(&self, tier: Py<LocalTier>, copy: Option<Py<PyAny>>) {
        let _ = self.binding.set(Binding { tier, copy });
    }

    /// Makes every later call raise. Returns whether this is the first call.
    fn _close(&self) -> bool {
        !self.is_closed.swap(true, Ordering::Relaxed)
    }

    #[getter]
    fn _is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(binding) = self.binding.get() else { return Ok(()) };
        visit.call(&binding.tier)?;
        visit.call(&binding.copy)
    }
}
