//! `Moka` as a mapping: iterators, views, `update`, and defaults that may be left out.

use std::convert::Infallible;

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use crate::Cursor;
use crate::python::moka::class::Moka;
use crate::python::moka::convert::{self, Deadlines};
use crate::python::moka::state::CacheState;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::python::runtime::race_cell::{RaceCell, interned};
use crate::sync::Lock;

/// An argument that may be left out, where `None` is a value like any other.
pub(crate) enum OptionalArg<'py> {
    Missing,
    Given(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for OptionalArg<'py> {
    type Error = Infallible;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(OptionalArg::Given(object.to_owned()))
    }
}

impl OptionalArg<'_> {
    /// The argument, or a `KeyError` of the key if it was left out.
    pub fn or_key_error(self, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self {
            OptionalArg::Given(default) => Ok(default.unbind()),
            OptionalArg::Missing => Err(key_error(key)),
        }
    }
}

pub(crate) fn key_error(key: &Bound<'_, PyAny>) -> PyErr {
    PyKeyError::new_err((key.clone().unbind(),))
}

/// Which part of an entry an iterator yields.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Key,
    Value,
    Item,
}

/// An iterator over a cache. It holds no lock between its steps, and changes of the cache never make it raise.
#[pyclass(module = "moka_py", name = "_Iterator", frozen)]
pub(crate) struct EntryIterator {
    cache: Py<Moka>,
    cursor: Lock<Cursor>,
    part: Part,
}

impl EntryIterator {
    pub fn new(cache: Py<Moka>, part: Part) -> Self {
        EntryIterator { cache, cursor: Lock::new(Cursor::default()), part }
    }
}

#[pymethods]
impl EntryIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = self.cache.get().core().next_entry(&mut self.cursor.lock());
        let Some((key, value)) = next else { return Ok(None) };
        let part = match self.part {
            Part::Key => key.into_py().into_bound(py),
            Part::Value => value.into_py().into_bound(py),
            Part::Item => (key.into_py(), value.into_py()).into_pyobject(py)?.into_any(),
        };
        Ok(Some(part))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)
    }
}

static KEYS_VIEW: RaceCell<Py<PyType>> = RaceCell::new();
static VALUES_VIEW: RaceCell<Py<PyType>> = RaceCell::new();
static ITEMS_VIEW: RaceCell<Py<PyType>> = RaceCell::new();
static YIELD: RaceCell<Py<PyAny>> = RaceCell::new();

/// The class of a view, which is written in Python.
fn view_class<'py>(py: Python<'py>, part: Part) -> PyResult<&'py Bound<'py, PyType>> {
    match part {
        Part::Key => KEYS_VIEW.import(py, "collections.abc", "KeysView"),
        Part::Value => VALUES_VIEW.import(py, "moka_py._views", "ValuesView"),
        Part::Item => ITEMS_VIEW.import(py, "moka_py._views", "ItemsView"),
    }
}

/// Lets other threads run and handles signals, as the interpreter does between two steps of a program.
pub(crate) fn yield_to_interpreter(py: Python<'_>) -> PyResult<()> {
    YIELD.import(py, "moka_py._views", "yield_to_interpreter")?.call0().map(drop)
}

/// Imports the classes of `_views.py`, so that no call ever waits for an import: another thread may be in that import when the
/// process forks.
pub(crate) fn import_views(py: Python<'_>) -> PyResult<()> {
    [Part::Key, Part::Value, Part::Item].into_iter().try_for_each(|part| view_class(py, part).map(drop))?;
    yield_to_interpreter(py)
}

/// A live view of a cache. It is made without its `__init__`, which would run Python code under a Rust frame. A daemon thread
/// must not be there when the interpreter ends.
pub(crate) fn view(cache: Bound<'_, Moka>, part: Part) -> PyResult<Bound<'_, PyAny>> {
    let py = cache.py();
    let class = view_class(py, part)?;
    let view = class.call_method1(interned!(py, "__new__"), (class,))?;
    view.setattr(interned!(py, "_mapping"), cache)?;
    Ok(view)
}

/// Sets each pair of a mapping, of an iterable of pairs, and of keywords, in this order.
pub(crate) fn update<'py>(
    cache: &CacheState,
    other: &OptionalArg<'py>,
    keywords: Option<&Bound<'py, PyDict>>,
) -> PyResult<()> {
    if let OptionalArg::Given(other) = other {
        for_each_pair("other", other, |key, value| set(cache, key, value))?;
    }
    for (key, value) in keywords.into_iter().flatten() {
        set(cache, &key, &value)?;
    }
    Ok(())
}

/// Sets a pair, without deadlines of its own.
pub(crate) fn set(cache: &CacheState, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    Ok(cache.set(cache.key(key)?, value, &Deadlines::NONE)?)
}

/// Calls `each` with each pair of an argument, which is a mapping, that is, has `keys`, or an iterable of pairs.
pub(crate) fn for_each_pair<'py>(
    name: &str,
    pairs: &Bound<'py, PyAny>,
    mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    let _guard = RecursionGuard::enter(pairs.py())?;
    if let Ok(moka) = pairs.cast::<Moka>() {
        // Its items, since a key may be removed between its iteration and its look-up.
        let items = Bound::new(pairs.py(), EntryIterator::new(moka.clone().unbind(), Part::Item))?;
        for_each_of_iterable(name, items.as_any(), each)
    } else if pairs.hasattr("keys")? {
        for key in pairs.call_method0("keys")?.try_iter()? {
            let key = key?;
            each(&key, &pairs.get_item(&key)?)?;
        }
        Ok(())
    } else {
        let pairs = convert::iterate(name, "a mapping or an iterable of pairs", pairs)?;
        for_each_of_iterable(name, pairs.as_any(), each)
    }
}

fn for_each_of_iterable<'py>(
    name: &str,
    pairs: &Bound<'py, PyAny>,
    mut each: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    for (position, pair) in pairs.try_iter()?.enumerate() {
        let wrong = |what: &str| {
            format!("{name} must have pairs of a key and a value, got {what} in its element {position}")
        };
        let pair = convert::iterate_or(&pair?, wrong)?.collect::<PyResult<Vec<_>>>()?;
        let [key, value] = pair.as_slice() else {
            return Err(PyValueError::new_err(wrong(&format!("{} things", pair.len()))));
        };
        each(key, value)?;
    }
    Ok(())
}
