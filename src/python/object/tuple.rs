//! Tuples as keys: hashed and compared in place, where that runs no code but the interpreter's own.
//!
//! # Invariants
//! - `attached`: all of this happens on an attached thread.
//! - `fixed`: an exact tuple that the caller holds keeps its items.

#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

use crate::python::object;

/// The items of an exact tuple; `None` of any other object.
#[inline]
pub(crate) fn items<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
) -> Option<impl ExactSizeIterator<Item = Borrowed<'a, 'py, PyAny>>> {
    let py = object.py();
    let tuple = object.as_ptr();
    // SAFETY: a live object.
    if unsafe { ffi::PyTuple_CheckExact(tuple) } == 0 {
        return None;
    }
    // SAFETY: an exact tuple.
    let len = unsafe { ffi::PyTuple_GET_SIZE(tuple) } as usize;
    Some((0..len).map(move |index| {
        // SAFETY: the tuple has so many items.
        let item = unsafe { ffi::PyTuple_GET_ITEM(tuple, index as ffi::Py_ssize_t) };
        // SAFETY: `fixed`; the tuple holds it.
        unsafe { Borrowed::from_ptr(py, item) }
    }))
}

/// The hash of an exact tuple of builtin keys; `None` of any other object. A tuple among the items is one of the others:
/// how deep they are nested is the user's choice, and the stack is not.
#[inline(never)]
pub(crate) fn known_hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    let items = items(object)?;
    let len = items.len();
    let mut sum = TupleHash::default();
    for item in items {
        sum.add(object::builtin_hash(&item)?);
    }
    Some(sum.end(len))
}

/// Whether two objects are equal tuples, where both are exact ones and the first items that differ are builtin keys.
#[inline(never)]
pub(crate) fn quick_eq(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    let (stored, key) = (items(stored)?, items(key)?);
    if stored.len() != key.len() {
        return Some(false);
    }
    all_equal(stored.zip(key).map(|(item, other)| object::builtin_eq(&item, &other)))
}

/// Whether all pairs of items are equal, from what is known of each: up to the first that is not, or of which it is not
/// known, since none after it would be compared.
#[inline]
pub(crate) fn all_equal(pairs: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    pairs.into_iter().find(|&equal| equal != Some(true)).unwrap_or(Some(true))
}

/// The hash of a tuple, from those of its items: xxHash, as CPython has it in `tuplehash`.
pub(crate) struct TupleHash(u64);

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
