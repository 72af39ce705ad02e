//! The owner of a key: it stands for an instance that the cache does not keep alive (`weak_self`).
//!
//! # How it works
//! A key holds the owner in place of the instance, and the owner holds a weak reference to the instance. The owner
//! notes the hash of each entry whose key holds it, and of each kept error. When the instance dies, the entries of these hashes are removed. An
//! entry that is stored later, by a call that was under way, is removed immediately.
//!
//! Entries that are evicted or expire stay noted. So that the hashes do not pile up, the owner drops those without an
//! entry when their number has doubled.
//!
//! # Invariants
//! - `noted`: an entry whose key holds the owner is noted, or the call that stored it has not returned and will note
//!   it.
//! - `gone`: after `_remove_entries` no entry is noted, and the weak reference is cleared.

use std::convert::Infallible;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::KeyQuery;
use crate::python::ffi;
use crate::python::moka::Moka;
use crate::python::moka::state::CacheState;
use crate::python::object::Object;
use crate::sync::Lock;

/// The number of hashes at which an owner first drops those without an entry.
const MIN_HASHES_TO_PRUNE: usize = 16;

/// It equals only itself.
#[pyclass(module = "moka_py", name = "_Owner", frozen, weakref)]
pub(in crate::python) struct Owner {
    /// A weak reference to the instance.
    reference: Py<PyAny>,
    noted: Lock<Noted>,
}

struct Noted {
    hashes: Vec<u64>,
    /// The number of hashes at which those without an entry are dropped.
    prune_at: usize,
    is_gone: bool,
}

/// Finds a key with this hash that holds this owner.
struct OwnedKey<'a, 'py> {
    owner: &'a Bound<'py, Owner>,
    hash: u64,
}

impl KeyQuery<Object> for OwnedKey<'_, '_> {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    /// Nothing is stored for this query.
    fn key(&self) -> Object {
        Object::of(self.owner.as_any())
    }

    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        let first = ffi::tuple_items(key.bind(self.owner.py())).and_then(|mut items| items.next());
        Some(first.is_some_and(|first| first.is(self.owner)))
    }

    fn eq_slow(&self, _key: &Object) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}

impl Owner {
    /// Notes the entry of a key, if an owner is in the key.
    pub fn record_entry(key: &Bound<'_, PyAny>, hash: u64, cache: &Moka) {
        let first = ffi::tuple_items(key).and_then(|mut items| items.next());
        if let Some(first) = first
            && let Ok(owner) = first.cast::<Owner>()
        {
            Owner::note_hash(&owner, hash, cache);
        }
    }

    fn note_hash(slf: &Bound<'_, Self>, hash: u64, cache: &Moka) {
        let mut noted = slf.get().noted.lock();
        noted.hashes.push(hash);
        if !noted.is_gone && noted.hashes.len() < noted.prune_at {
            return;
        }
        let mut hashes = std::mem::take(&mut noted.hashes);
        let was_gone = noted.is_gone;
        drop(noted);
        if !was_gone {
            hashes.sort_unstable();
            hashes.dedup();
            hashes.retain(|&hash| Owner::has_entry(slf, hash, cache));
            let mut noted = slf.get().noted.lock();
            if !noted.is_gone {
                noted.hashes.append(&mut hashes);
                noted.prune_at = MIN_HASHES_TO_PRUNE.max(2 * noted.hashes.len());
                return;
            }
        }
        Owner::remove_all(slf, hashes, cache);
    }

    /// Returns whether there is an entry or a kept error with this hash whose key holds the owner.
    fn has_entry(slf: &Bound<'_, Self>, hash: u64, cache: &Moka) -> bool {
        let query = OwnedKey { owner: slf, hash };
        cache.with_error_store().any(|state| {
            let Ok(value) = CacheState::peek(state, slf.py(), &query);
            value.is_some()
        })
    }

    /// Removes the entries and the kept errors of these hashes whose keys hold the owner.
    fn remove_all(slf: &Bound<'_, Self>, hashes: Vec<u64>, cache: &Moka) {
        for hash in hashes {
            let query = OwnedKey { owner: slf, hash };
            for state in cache.with_error_store() {
                while let Ok(Some(_)) = state.remove(slf.py(), &query) {}
            }
        }
    }

    /// The weak reference to the instance.
    #[inline]
    pub fn reference(&self) -> &Py<PyAny> {
        &self.reference
    }
}

#[pymethods]
impl Owner {
    #[new]
    fn new(reference: Py<PyAny>) -> Self {
        let noted = Noted { hashes: Vec::new(), prune_at: MIN_HASHES_TO_PRUNE, is_gone: false };
        Owner { reference, noted: Lock::new(noted) }
    }

    /// Returns whether the owner stands for this very instance, which is alive.
    fn _is_of(&self, instance: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.reference.bind(instance.py()).call0()?.is(instance))
    }

    /// Returns whether the weak reference to the instance is cleared.
    fn _is_gone(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.reference.bind(py).call0()?.is_none())
    }

    /// Removes the entries of all keys that hold the owner. Entries that are stored later are removed immediately.
    fn _remove_entries(slf: &Bound<'_, Self>, cache: &Bound<'_, Moka>) {
        let mut noted = slf.get().noted.lock();
        noted.is_gone = true;
        let hashes = std::mem::take(&mut noted.hashes);
        drop(noted);
        Owner::remove_all(slf, hashes, cache.get());
    }

    fn __sizeof__(&self) -> usize {
        size_of::<Self>() + self.noted.lock().hashes.capacity() * size_of::<u64>()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reference)
    }
}
