//! The registry of the owners of one method's instances, keyed by the instance's address.
//!
//! # How it works
//! A `DashMap`: calls with different instances mostly lock different shards. Each method here takes the lock of one
//! shard at a time, for a few steps. No Python code runs in them, and no reference is dropped (law 1). So no thread is
//! attached and holds such a lock when the world stops, for the collector or for a fork.
//!
//! An allocation that is refused inside the map aborts the process.

use std::hash::{BuildHasherDefault, Hasher};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::python::cached::owner::Owner;
use crate::sync::shard_count;

/// Spreads an address over the hash. The map takes the shard and the tag from the upper bits, the slot from the lower.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("an address is hashed as one word");
    }

    #[inline]
    fn write_usize(&mut self, address: usize) {
        let product = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// It finds owners without a call of Python code.
#[pyclass(module = "moka_py", name = "_OwnerRegistry", frozen, weakref)]
pub(in crate::python) struct OwnerRegistry {
    owners: DashMap<usize, Py<Owner>, BuildHasherDefault<AddressHasher>>,
}

impl OwnerRegistry {
    /// Returns the owner that is registered for an address.
    #[inline]
    pub fn get<'py>(&self, py: Python<'py>, address: usize) -> Option<Bound<'py, Owner>> {
        self.owners.get(&address).map(|owner| owner.clone_ref(py).into_bound(py))
    }
}

#[pymethods]
impl OwnerRegistry {
    #[new]
    fn new() -> Self {
        // A DashMap has at least two shards.
        let shards = shard_count(u64::MAX).max(2);
        OwnerRegistry { owners: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), shards) }
    }

    /// Registers an owner, unless the address has one. Returns the owner that the address has then.
    fn _get_or_insert<'py>(&self, address: usize, owner: Bound<'py, Owner>) -> Bound<'py, Owner> {
        let py = owner.py();
        match self.owners.entry(address) {
            Entry::Occupied(present) => present.get().clone_ref(py).into_bound(py),
            Entry::Vacant(vacant) => {
                vacant.insert(owner.clone().unbind());
                owner
            }
        }
    }

    /// Registers an owner in place of the one that the address has.
    fn _replace(&self, address: usize, owner: Py<Owner>) {
        // The map returns the old owner, which is dropped after the unlock.
        drop(self.owners.insert(address, owner));
    }

    /// Removes an owner. Returns false if the address has another owner or none.
    fn _remove(&self, address: usize, owner: &Bound<'_, Owner>) -> bool {
        self.owners.remove_if(&address, |_, present| present.is(owner)).is_some()
    }

    /// Returns the addresses and owners of now.
    fn _items(&self, py: Python<'_>) -> Vec<(usize, Py<Owner>)> {
        self.owners.iter().map(|entry| (*entry.key(), entry.value().clone_ref(py))).collect()
    }

    fn __sizeof__(&self) -> usize {
        size_of::<Self>() + self.owners.capacity() * size_of::<(usize, Py<Owner>)>()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.owners.iter().try_for_each(|entry| visit.call(entry.value()))
    }

    fn __clear__(&self) {
        let addresses: Vec<_> = self.owners.iter().map(|entry| *entry.key()).collect();
        for address in addresses {
            // Each owner is dropped after the unlock.
            drop(self.owners.remove(&address));
        }
    }
}
