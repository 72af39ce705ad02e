//! Calls of `Moka` for many keys: one look-up or removal after the other, each as its own call would be.
//!
//! What fails in the middle ends the call; what was done until then stays done, and the listener has been told of it.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::Cursor;
use crate::python::moka::CacheState;
use crate::python::moka::convert;
use crate::python::runtime::interpreter::RecursionGuard;

pub(in crate::python) fn get_many<'py>(
    cache: &CacheState,
    keys: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let _deeper = RecursionGuard::enter(keys.py())?;
    let found = PyDict::new(keys.py());
    for key in convert::iterable("keys", "an iterable", keys)? {
        let key = key?;
        if let Some(value) = cache.look_up(keys.py(), &cache.key(&key)?)? {
            found.set_item(key, value.into_py())?;
        }
    }
    Ok(found)
}

pub(in crate::python) fn remove_many(cache: &CacheState, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
    let _deeper = RecursionGuard::enter(keys.py())?;
    let mut removed = 0;
    for key in convert::iterable("keys", "an iterable", keys)? {
        let key = key?;
        removed += usize::from(cache.discard(keys.py(), &cache.key(&key)?)?);
    }
    Ok(removed)
}

/// The predicate is asked with nothing held, and what it was not asked about is not removed: an entry that got another
/// value meanwhile stays.
pub(in crate::python) fn remove_if(cache: &CacheState, predicate: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = predicate.py();
    let _deeper = RecursionGuard::enter(py)?;
    let core = cache.core();
    // A computation under way has no value yet that the predicate could be asked about.
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
