//! `Moka.get_many_with`: one call of the user's function loads all keys that have no value.
//!
//! # How it works
//! 1. The keys are collected, each once, before anything is looked up: their iterator may run any code.
//! 2. Each key is looked up. If it has no value, the call leads its computation, or another thread does.
//! 3. `load` is called once, for the keys that the call leads. The weigher and the ttl functions run for all
//!    values that it returned.
//! 4. All values are stored, and the threads that wait for them go on.
//! 5. The call waits for the computations of other threads.
//!
//! The core has the rules of the second, fourth and fifth step (`cache/bulk_load.rs`).

use std::collections::TryReserveError;

use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::python::ffi;
use crate::python::moka::convert::{self, Deadlines};
use crate::python::moka::loads;
use crate::python::moka::mapping;
use crate::python::moka::state::CacheState;
use crate::python::object::Object;
use crate::python::object::key::{Key, LoadKey};
use crate::python::object::shared_error::{self, SharedError};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::{BulkKey, BulkLoad, Failure, KeyQuery, NewValue};

/// A key that was hashed.
struct HashedKey<'py> {
    object: Bound<'py, PyAny>,
    hash: u64,
}

impl<'py> HashedKey<'py> {
    fn new(cache: &CacheState, object: Bound<'py, PyAny>) -> PyResult<Self> {
        let hash = cache.key(&object)?.hash();
        Ok(HashedKey { object, hash })
    }

    fn query(&self) -> Key<'_, 'py> {
        Key::with_hash(&self.object, self.hash)
    }
}

/// The keys that a call asks for.
struct Asked<'py> {
    /// Each key once, in order. Becomes the result of the call.
    dict: Bound<'py, PyDict>,
    keys: Vec<HashedKey<'py>>,
    /// The values that were found or loaded, by the position of their key.
    values: Vec<Option<Bound<'py, PyAny>>>,
    /// The positions of the keys that the call loads.
    led: Vec<usize>,
    /// The positions of the keys that other threads compute.
    awaited: Vec<usize>,
}

/// A value that `load` returned for a key that it was not asked for.
struct Unasked<'py> {
    key: HashedKey<'py>,
    value: Bound<'py, PyAny>,
    new: NewValue<Object>,
}

/// The values that `load` returned, weighed.
struct Loaded<'py> {
    /// For each key that the call leads.
    led: Vec<Option<NewValue<Object>>>,
    unasked: Vec<Unasked<'py>>,
}

type Pair<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);
type Load<'c> = BulkLoad<'c, Object, Object, SharedError>;

pub(super) fn get_many_with<'py>(
    cache: &CacheState,
    keys: &Bound<'py, PyAny>,
    load: &Bound<'py, PyAny>,
    deadlines: &Deadlines<'_>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = keys.py();
    let _guard = RecursionGuard::enter(py)?;
    let mut asked = Asked::collect(cache, keys)?;
    let mut bulk = asked.look_up(cache)?;
    let mut unasked = Vec::new();
    if !asked.led.is_empty() {
        let loaded = match asked.load(cache, load, deadlines) {
            Ok(loaded) => loaded,
            Err(error) => {
                let Failure { error, for_waiters } = shared_error::take_failure(py, Raised::set(py, error));
                bulk.fail(for_waiters);
                return Err(error.raise(py).into());
            }
        };
        unasked = asked.store(cache, &mut bulk, loaded)?;
    }
    asked.wait(cache, bulk)?;
    asked.into_result(unasked)
}

impl<'py> Asked<'py> {
    fn collect(cache: &CacheState, keys: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = keys.py();
        let dict = ffi::dict(py)?;
        let mut hashed = Vec::new();
        for key in convert::iterate("keys", "an iterable", keys)? {
            let key = key?;
            dict.set_item(&key, py.None())?;
            if dict.len() > hashed.len() {
                push(&mut hashed, HashedKey::new(cache, key)?)?;
            }
        }
        let mut values = Vec::new();
        values.try_reserve_exact(hashed.len()).map_err(no_memory)?;
        values.resize_with(hashed.len(), || None);
        Ok(Asked { dict, keys: hashed, values, led: Vec::new(), awaited: Vec::new() })
    }

    /// Looks up each key, which counts a hit or a miss, and begins the computation of those that have no value.
    fn look_up<'c>(&mut self, cache: &'c CacheState) -> PyResult<Load<'c>> {
        let py = self.dict.py();
        // Removals are processed before the load, which may take long.
        let begun = cache.run(py, |removed| {
            let mut bulk = cache.core().begin_bulk_load();
            for (position, key) in self.keys.iter().enumerate() {
                let begun = bulk.begin(&LoadKey(&key.query()), removed).map_err(|error| (position, error))?;
                cache.counts().record_access(matches!(begun, BulkKey::Present(_)));
                match begun {
                    BulkKey::Present(value) => self.values[position] = Some(value.into_bound(py)),
                    BulkKey::Lead => self.led.push(position),
                    BulkKey::Wait => self.awaited.push(position),
                }
            }
            Ok(bulk)
        });
        begun.map_err(|(position, error)| loads::raise_load_error(&self.keys[position].object, error).into())
    }

    /// Calls `load` with the keys that the call leads, and weighs all values that it returns.
    fn load(
        &mut self,
        cache: &CacheState,
        load: &Bound<'py, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> PyResult<Loaded<'py>> {
        let py = load.py();
        // Not of a given size: if that memory is refused, CPython 3.13t crashes.
        let missing = PyList::empty(py);
        for &position in &self.led {
            missing.append(&self.keys[position].object)?;
        }
        let values = cache
            .counts()
            .time_load(|| read_values(&ffi::call(load, [missing.as_any()]).map_err(PyErr::from)?))?;
        let mut loaded = Loaded { led: Vec::new(), unasked: Vec::new() };
        let mut found = 0;
        for &position in &self.led {
            let key = &self.keys[position];
            let value = values.get_item(&key.object)?;
            found += usize::from(value.is_some());
            let new =
                value.as_ref().map(|value| cache.new_value(&key.object, value, deadlines)).transpose()?;
            push(&mut loaded.led, new)?;
            self.values[position] = value;
        }
        if values.len() > found {
            loaded.unasked = self.weigh_unasked(cache, &values, deadlines)?;
        }
        Ok(loaded)
    }

    /// Weighs the values of the keys that the call does not lead.
    fn weigh_unasked(
        &self,
        cache: &CacheState,
        values: &Bound<'py, PyDict>,
        deadlines: &Deadlines<'_>,
    ) -> PyResult<Vec<Unasked<'py>>> {
        for &position in &self.led {
            self.dict.set_item(&self.keys[position].object, true)?;
        }
        let mut unasked = Vec::new();
        // A copy, since other threads and the weigher may change the dict meanwhile.
        let pairs: Vec<Pair<'py>> = values.copy()?.iter().collect();
        for (key, value) in pairs {
            if self.dict.get_item(&key)?.is_some_and(|mark| !mark.is_none()) {
                continue;
            }
            let key = HashedKey::new(cache, key)?;
            let new = cache.new_value(&key.object, &value, deadlines)?;
            push(&mut unasked, Unasked { key, value, new })?;
        }
        Ok(unasked)
    }

    /// Stores the values, and ends the computations that the call leads. Returns the other pairs that `load` returned.
    ///
    /// If a key cannot be compared, or there is no memory for an entry, the other values are stored nevertheless.
    fn store(
        &self,
        cache: &CacheState,
        bulk: &mut Load<'_>,
        loaded: Loaded<'py>,
    ) -> PyResult<Vec<Pair<'py>>> {
        let py = self.dict.py();
        let mut unasked = Vec::new();
        let reserved = unasked.try_reserve_exact(loaded.unasked.len());
        let mut result = Ok(());
        // The listener is called after all computations have ended, so it may ask for any of these keys.
        cache.run(py, |removed| {
            for (&position, new) in self.led.iter().zip(loaded.led) {
                let query = self.keys[position].query();
                let completed = bulk.complete_next(&LoadKey(&query), new, removed);
                result = std::mem::replace(&mut result, Ok(())).and(completed);
            }
            for Unasked { key, value, new } in loaded.unasked {
                let inserted = cache.core().insert_unless_in_flight(&LoadKey(&key.query()), new, removed);
                result = std::mem::replace(&mut result, Ok(())).and(inserted.map(drop));
                if reserved.is_ok() {
                    unasked.push((key.object, value));
                }
            }
        });
        result.map_err(|error| error.raise(py))?;
        reserved.map_err(no_memory)?;
        Ok(unasked)
    }

    /// Waits for the computations of other threads.
    fn wait(&mut self, cache: &CacheState, bulk: Load<'_>) -> PyResult<()> {
        let py = self.dict.py();
        let mut waits = bulk.into_waits();
        for &position in &self.awaited {
            let key = &self.keys[position];
            let query = key.query();
            let mut pause = |park: &(dyn Fn() + Sync)| loads::pause(py, park);
            let value = cache.run(py, |removed| waits.wait_next(&LoadKey(&query), &mut pause, removed));
            let value = value.map_err(|error| loads::raise_load_error(&key.object, error))?;
            self.values[position] = value.map(|value| value.into_bound(py));
        }
        Ok(())
    }

    /// The result: the keys in the order in which they were asked for, then the other ones that were loaded.
    fn into_result(self, unasked: Vec<Pair<'py>>) -> PyResult<Bound<'py, PyDict>> {
        for (key, value) in self.keys.iter().zip(self.values) {
            match value {
                Some(value) => self.dict.set_item(&key.object, value)?,
                None => self.dict.del_item(&key.object)?,
            }
        }
        for (key, value) in unasked {
            // A key that had a value, or that another thread computed, keeps that value.
            if !self.dict.contains(&key)? {
                self.dict.set_item(key, value)?;
            }
        }
        Ok(self.dict)
    }
}

/// Reads the result of `load`, a mapping. A result that is not an exact dict is copied.
pub(in crate::python) fn read_values<'py>(loaded: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    if let Ok(dict) = loaded.cast_exact::<PyDict>() {
        return Ok(dict.clone());
    }
    if !loaded.hasattr("keys")? {
        let what = convert::type_name(loaded);
        return Err(PyTypeError::new_err(format!("load must return a mapping, got {what}")));
    }
    let dict = ffi::dict(loaded.py())?;
    mapping::for_each_pair("the result of load", loaded, |key, value| dict.set_item(key, value))?;
    Ok(dict)
}

/// Appends to a list, or raises `MemoryError`.
fn push<T>(list: &mut Vec<T>, item: T) -> PyResult<()> {
    list.try_reserve(1).map_err(no_memory)?;
    list.push(item);
    Ok(())
}

#[cold]
fn no_memory(_: TryReserveError) -> PyErr {
    PyMemoryError::new_err("no memory for the list of keys")
}
