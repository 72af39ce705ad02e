//! The native part of `Moka.aget_many_with`. `moka_py/_flight_table.py` has the part that waits.
//!
//! The rules are those of `get_many_with` (`moka/bulk_load.rs`). A key is not led by a thread but has a run, which other threads
//! do not wait for.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet};

use crate::KeyQuery;
use crate::python::cached::call_key::CallKey;
use crate::python::cached::run::CachedRun;
use crate::python::moka::state::CacheState;
use crate::python::moka::{Moka, bulk_load, convert};
use crate::python::object::Object;
use crate::python::object::key::LoadKey;
use crate::python::object::shared_error::SharedError;
use crate::python::runtime::interpreter::RecursionGuard;

/// Looks up each key once, which counts a hit or a miss. Returns a dict of the keys with their values, or `absent` where there
/// is none; and a list of `CallKey` of the latter.
#[pyfunction]
#[pyo3(name = "_look_up_many", signature = (cache, keys, absent, /))]
pub(in crate::python) fn look_up_many<'py>(
    cache: &Bound<'py, Moka>,
    keys: &Bound<'py, PyAny>,
    absent: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
    let (py, cache) = (cache.py(), cache.get());
    let _guard = RecursionGuard::enter(py)?;
    // First all keys, since their iterator may run any code.
    let values = PyDict::new(py);
    for key in convert::iterate("keys", "an iterable", keys)? {
        values.set_item(key?, absent)?;
    }
    let missing = PyList::empty(py);
    for key in values.keys() {
        let query = cache.key(&key)?;
        match CacheState::get(cache, py, &query)? {
            Some(value) => values.set_item(&key, value.into_bound(py))?,
            None => missing.append(CallKey::new(Object::of(&key), query.hash()))?,
        }
    }
    Ok((values, missing))
}

/// Reads the result of `load`. Returns a new dict.
#[pyfunction]
#[pyo3(name = "_read_loaded", signature = (loaded, /))]
pub(in crate::python) fn read_loaded<'py>(loaded: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    bulk_load::read_values(loaded)?.copy()
}

/// Stores the values of a load, and ends its runs. `runs` is a dict of each `CallKey` that was asked for with its `_CachedRun`.
///
/// If the weigher or a ttl function raises, nothing is stored.
#[pyfunction]
#[pyo3(name = "_keep_many", signature = (cache, runs, loaded, ttl, tti, /))]
pub(in crate::python) fn keep_many<'py>(
    cache: &Bound<'py, Moka>,
    runs: &Bound<'py, PyDict>,
    loaded: &Bound<'py, PyDict>,
    ttl: &Bound<'py, PyAny>,
    tti: &Bound<'py, PyAny>,
) -> PyResult<()> {
    store(cache, runs, loaded, ttl, tti).inspect_err(|_| end_many(runs))
}

fn store<'py>(
    cache: &Bound<'py, Moka>,
    runs: &Bound<'py, PyDict>,
    loaded: &Bound<'py, PyDict>,
    ttl: &Bound<'py, PyAny>,
    tti: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = cache.py();
    let _guard = RecursionGuard::enter(py)?;
    let cache = cache.get();
    let deadlines = convert::deadlines(Some(ttl.as_borrowed()), Some(tti.as_borrowed()))?;
    let new =
        |key: &CallKey, value: &Bound<'py, PyAny>| cache.new_value(key.object().bind(py), value, &deadlines);
    let asked = PySet::empty(py)?;
    let mut answered = Vec::new();
    for (key, run) in runs.iter() {
        let (key, run) = (key.cast_into::<CallKey>()?, run.cast_into::<CachedRun>()?);
        asked.add(key.get().object().bind(py))?;
        if let Some(value) = loaded.get_item(key.get().object().bind(py))? {
            answered.push((new(key.get(), &value)?, key, run.get().run()));
        }
    }
    let mut others = Vec::new();
    if loaded.len() > answered.len() {
        for (key, value) in loaded.iter() {
            if !asked.contains(&key)? {
                let key = CallKey::new(Object::of(&key), cache.key(&key)?.hash());
                others.push((new(&key, &value)?, key));
            }
        }
    }
    let mut result = Ok(());
    // If a key cannot be compared, or there is no memory for an entry, the other values are stored nevertheless.
    let mut record =
        |stored: Result<(), SharedError>| result = std::mem::replace(&mut result, Ok(())).and(stored);
    // The listener is called after all runs have ended.
    cache.run(py, |removed| {
        for (new, key, run) in answered {
            let query = key.get().query(py);
            record(cache.core().complete_run(&LoadKey(&query), run, new, removed).map(drop));
        }
        runs.iter().for_each(|(_key, run)| end(&run));
        for (new, key) in others {
            let query = key.query(py);
            record(cache.core().insert_unless_in_flight(&LoadKey(&query), new, removed).map(drop));
        }
    });
    Ok(result.map_err(|error| error.raise(py))?)
}

/// Ends all runs of a load that failed, without a value.
#[pyfunction]
#[pyo3(name = "_end_many", signature = (runs, /))]
pub(in crate::python) fn end_many(runs: &Bound<'_, PyDict>) {
    runs.iter().for_each(|(_key, run)| end(&run));
}

fn end(run: &Bound<'_, PyAny>) {
    if let Ok(run) = run.cast::<CachedRun>() {
        run.get().end();
    }
}
