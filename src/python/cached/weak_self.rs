//! What stands for an instance in the keys of a method that does not keep it alive.
//!
//! # How it works
//! Keys hold the owner, the owner a weak reference. It notes the hash of each key that it is in, and when the
//! instance goes, those entries do. An entry that is noted later is removed at once. Entries also leave by themselves, of which it hears nothing: from time to
//! time it looks which of its hashes are still there, and forgets the others.
//!
//! # Invariants
//! - `noted`: an entry whose key has the owner is noted, or the call that made it is under way and will note it.
//! - `gone`: after `_forget` no entry is noted, and the weak reference is cleared.

#![allow(unsafe_code)]

use std::convert::Infallible;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::KeyQuery;
use crate::python::moka::Moka;
use crate::python::object::Object;
use crate::sync::Lock;

/// Hashes that are noted before the first look at which are still there.
const FIRST_LOOK: usize = 16;

/// Equal only to itself.
#[pyclass(module = "moka_py", name = "_Owner", frozen, weakref)]
pub(crate) struct Owner {
    reference: Py<PyAny>,
    noted: Lock<Noted>,
}

struct Noted {
    hashes: Vec<u64>,
    /// At so many hashes it looks which are still there.
    look_at: usize,
    /// Whether the instance is gone.
    is_gone: bool,
}

/// Looks for a key of an owner.
struct Of {
    owner: Object,
    hash: u64,
}

impl KeyQuery<Object> for Of {
    type Error = Infallible;

    fn hash(&self) -> u64 {
        self.hash
    }

    /// Nothing is ever stored for it.
    fn key(&self) -> Object {
        self.owner.clone()
    }

    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        // SAFETY: comparisons happen on an attached thread.
        let py = unsafe { Python::assume_attached() };
        let first = crate::python::ffi::tuple_items(key.bind(py)).and_then(|mut items| items.next());
        Some(first.is_some_and(|first| first.as_ptr() == self.owner.as_ptr()))
    }

    fn eq_slow(&self, _key: &Object) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}

impl Owner {
    fn of(this: &Bound<'_, Self>, hash: u64) -> Of {
        Of { owner: Object::of(this.as_any()), hash }
    }

    /// Notes an entry of a key, if the key has an owner.
    pub fn note(key: &Bound<'_, PyAny>, hash: u64, cache: &Moka) {
        let first = key.cast::<PyTuple>().ok().and_then(|key| key.get_item(0).ok());
        if let Some(Ok(this)) = first.map(|first| first.cast_into::<Owner>()) {
            Owner::note_one(&this, hash, cache);
        }
    }

    fn note_one(this: &Bound<'_, Self>, hash: u64, cache: &Moka) {
        let mut noted = this.get().noted.lock();
        noted.hashes.push(hash);
        if !noted.is_gone && noted.hashes.len() < noted.look_at {
            return;
        }
        let mut hashes = std::mem::take(&mut noted.hashes);
        let was_gone = noted.is_gone;
        drop(noted);
        if !was_gone {
            hashes.sort_unstable();
            hashes.dedup();
            hashes.retain(|&hash| {
                let Ok(value) = cache.peek(this.py(), &Owner::of(this, hash));
                value.is_some()
            });
            let mut noted = this.get().noted.lock();
            if !noted.is_gone {
                noted.hashes.append(&mut hashes);
                noted.look_at = FIRST_LOOK.max(2 * noted.hashes.len());
                return;
            }
        }
        Owner::remove(this, hashes, cache);
    }

    /// Removes the entries of these hashes whose keys have the owner.
    fn remove(this: &Bound<'_, Self>, hashes: Vec<u64>, cache: &Moka) {
        for hash in hashes {
            while let Ok(Some(_)) = cache.remove(this.py(), &Owner::of(this, hash)) {}
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
        let noted = Noted { hashes: Vec::new(), look_at: FIRST_LOOK, is_gone: false };
        Owner { reference, noted: Lock::new(noted) }
    }

    /// Whether it stands for this very instance, which is alive.
    fn _is_of(&self, instance: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.reference.bind(instance.py()).call0()?.is(instance))
    }

    /// Whether the weak reference to the instance is cleared.
    fn _is_gone(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.reference.bind(py).call0()?.is_none())
    }

    /// Removes the entries of all its keys, and has those that are still to come removed at once.
    fn _forget(slf: &Bound<'_, Self>, cache: &Bound<'_, Moka>) {
        let mut noted = slf.get().noted.lock();
        noted.is_gone = true;
        let hashes = std::mem::take(&mut noted.hashes);
        drop(noted);
        Owner::remove(slf, hashes, cache.get());
    }

    fn __sizeof__(&self) -> usize {
        size_of::<Self>() + self.noted.lock().hashes.capacity() * size_of::<u64>()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.reference)
    }
}
