//! Tuples as keys: hash and equality item by item, without a call that could run a user's code.
//!
//! From CPython 3.14 on a tuple keeps its hash once it was computed. A look-up reads it there, and leaves it there, as the
//! interpreter's `hash` does. So a `set` after a `get` of the same tuple does not hash it again.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::ffi;
use crate::python::object::builtin;

/// Raises ImportError if CPython hashes tuples in another way: a hash that is left in a tuple must be that of CPython.
pub(in crate::python) fn check(py: Python<'_>) -> PyResult<()> {
    let [own, other] = [(); 2].map(|()| PyTuple::new(py, [1_000_000, -1, 0]));
    if hash(&own?.into_any()) == Some(other?.hash()?) {
        return Ok(());
    }
    Err(PyImportError::new_err("moka_py does not know how this CPython hashes tuples"))
}

/// The hash of an exact tuple of builtin keys, or of an exact tuple that keeps its hash; `None` of any other object.
///
/// A tuple that has a tuple among its items is such another object: nesting would use the stack as deeply as a user chooses.
#[inline(never)]
pub(in crate::python) fn hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    const UNKNOWN: isize = -1;
    let items = ffi::tuple_items(object)?;
    let kept = ffi::kept_tuple_hash(object);
    // Relaxed, here and below: a hash depends on no other memory. CPython accesses it by atomics, too, without the GIL.
    if let Some(hash) = kept.map(|kept| kept.load(Ordering::Relaxed)).filter(|&hash| hash != UNKNOWN) {
        return Some(hash);
    }
    let len = items.len();
    let mut hash = TupleHash::default();
    for item in items {
        hash.add(builtin::hash(&item)?);
    }
    let hash = hash.end(len);
    if let Some(kept) = kept {
        kept.store(hash, Ordering::Relaxed);
    }
    Some(hash)
}

/// Whether two exact tuples are equal; `None` if the first items that differ are not builtin keys, or one is no exact tuple.
#[inline(never)]
pub(in crate::python) fn eq(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    let (stored, key) = (ffi::tuple_items(stored)?, ffi::tuple_items(key)?);
    if stored.len() != key.len() {
        return Some(false);
    }
    all_equal(stored.zip(key).map(|(item, other)| builtin::eq(&item, &other)))
}

/// Whether all pairs of items are equal, from what is known of each pair. The first pair that is unequal or unknown decides,
/// since no pair after it would be compared.
#[inline]
pub(in crate::python) fn all_equal(pairs: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    pairs.into_iter().find(|&equal| equal != Some(true)).unwrap_or(Some(true))
}

/// Computes the hash of a tuple from the hashes of its items: xxHash, as in CPython's `tuplehash`.
pub(in crate::python) struct TupleHash(u64);

impl Default for TupleHash {
    fn default() -> Self {
        TupleHash(Self::PRIME_5)
    }
}

impl TupleHash {
    const PRIME_1: u64 = 11_400_714_785_074_694_791;
    const PRIME_2: u64 = 14_029_467_366_897_019_727;
    const PRIME_5: u64 = 2_870_177_450_012_600_261;

    #[inline]
    pub fn add(&mut self, item: isize) {
        let sum = self.0.wrapping_add((item as u64).wrapping_mul(Self::PRIME_2));
        self.0 = sum.rotate_left(31).wrapping_mul(Self::PRIME_1);
    }

    #[inline]
    pub fn end(self, items: usize) -> isize {
        let hash = self.0.wrapping_add(items as u64 ^ Self::PRIME_5 ^ 3_527_539) as isize;
        if hash == -1 { 1_546_275_796 } else { hash }
    }
}
