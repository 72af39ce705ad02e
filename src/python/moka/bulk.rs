//! The methods of `Moka` for many keys. Each key is looked up or removed as by a call of its own.
//!
//! An error ends the call. The changes before it stay, and their removals were reported to the listener.

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::python::moka::state::CacheState;
use crate::python::moka::{convert, mapping};
use crate::python::object::Object;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::{Cursor, Ranking};

pub(super) fn get_many<'py>(cache: &CacheState, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let _guard = RecursionGuard::enter(keys.py())?;
    let found = PyDict::new(keys.py());
    for key in convert::iterate("keys", "an iterable", keys)? {
        let key = key?;
        if let Some(value) = cache.get(keys.py(), &cache.key(&key)?)? {
            found.set_item(key, value.into_py())?;
        }
    }
    Ok(found)
}

pub(super) fn remove_many(cache: &CacheState, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
    let _guard = RecursionGuard::enter(keys.py())?;
    let mut removed = 0;
    for key in convert::iterate("keys", "an iterable", keys)? {
        let key = key?;
        removed += usize::from(cache.remove(keys.py(), &cache.key(&key)?)?.is_some());
    }
    Ok(removed)
}

/// The predicate is called with no lock held. An entry that got another value after the predicate saw it stays.
pub(super) fn remove_if(cache: &CacheState, predicate: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = predicate.py();
    let _guard = RecursionGuard::enter(py)?;
    let core = cache.core();
    // A load in flight has no value yet to show to the predicate.
    core.supersede_all();
    let mut removed = 0;
    let mut cursor = Cursor::default();
    while let Some((key, value)) = core.next_entry(&mut cursor) {
        if predicate.call1((key.bind(py), value.bind(py)))?.is_truthy()? {
            let is_seen = |held_key: &_, held: &_| key.is(held_key) && value.is(held);
            removed +=
                usize::from(cache.run(py, |removed| core.remove_last_yielded(&cursor, is_seen, removed)));
        }
    }
    Ok(removed)
}

/// Returns the pairs of a ranking as a list. Between two batches other threads may run, and signals are handled.
pub(super) fn ranked<'py>(
    cache: &CacheState,
    py: Python<'py>,
    mut ranking: Ranking<Object, Object>,
) -> PyResult<Bound<'py, PyList>> {
    let no_memory = |_| PyMemoryError::new_err("no memory for the list of entries");
    while cache.core().rank_batch(&mut ranking).map_err(no_memory)? {
        mapping::yield_to_interpreter(py)?;
    }
    PyList::new(py, ranking.into_pairs().map(|(key, value)| (key.into_py(), value.into_py())))
}
