//! [`Key`]: a Python object as a key to look for, with its hash, mixed and seeded, and its `__eq__`.

use pyo3::prelude::*;

use crate::KeyQuery;
use crate::cache::seed::Seed;
use crate::python::ffi;
use crate::python::object::shared_error::SharedError;
use crate::python::object::{Object, builtin, tuple};
use crate::python::raised::Raised;
use crate::python::runtime::greenlet;

/// Whether two objects are equal, if that needs no code but the interpreter's own. Else `None`. It needs no other code for
/// one object and itself, for exact `str`, `int`, `bytes` and `float`, and for exact tuples of these.
#[inline(always)]
pub(in crate::python) fn eq_builtin(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    builtin::eq(stored, key).or_else(|| tuple::eq(stored, key))
}

/// The hash of an object, if that needs no code but the interpreter's own. Else `None`.
#[inline]
pub(in crate::python) fn hash_builtin(object: &Bound<'_, PyAny>) -> Option<isize> {
    builtin::hash(object).or_else(|| tuple::hash(object))
}

/// The hash of an object, which may run a user's code.
#[inline]
pub(in crate::python) fn hash(object: &Bound<'_, PyAny>) -> Result<isize, Raised> {
    hash_builtin(object).map_or_else(|| ffi::hash(object), Ok)
}

/// A key to look for.
pub(crate) struct Key<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    hash: u64,
}

impl<'a, 'py> Key<'a, 'py> {
    /// Hashes the key, which may run a user's code.
    #[inline]
    pub fn new(object: &'a Bound<'py, PyAny>, seed: Seed) -> Result<Self, Raised> {
        hash(object).map(|hash| Key { object, hash: seed.mix(hash as u64) })
    }

    /// A key that is hashed without a user's code.
    #[inline]
    pub fn builtin(object: &'a Bound<'py, PyAny>, seed: Seed) -> Option<Self> {
        hash_builtin(object).map(|hash| Key { object, hash: seed.mix(hash as u64) })
    }

    /// A key that was hashed before. `hash` is mixed.
    pub fn with_hash(object: &'a Bound<'py, PyAny>, hash: u64) -> Self {
        Key { object, hash }
    }

    pub fn object(&self) -> &'a Bound<'py, PyAny> {
        self.object
    }
}

impl KeyQuery<Object> for Key<'_, '_> {
    type Error = Raised;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    #[inline]
    fn key(&self) -> Object {
        Object::for_cache(self.object)
    }

    #[inline(always)]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        eq_builtin(key.bind(self.object.py()), self.object)
    }

    /// The stored key's `__eq__` is called first, as in `dict`.
    fn eq_slow(&self, key: &Object) -> Result<bool, Raised> {
        ffi::are_equal(key.bind(self.object.py()), self.object)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }

    #[inline]
    fn strand(&self) -> usize {
        greenlet::current(self.object.py())
    }

    fn is_strand(&self, strand: usize) -> bool {
        greenlet::is_current(self.object.py(), strand)
    }

    #[cold]
    fn no_memory(&self) -> Raised {
        ffi::raise_no_memory(self.object.py())
    }
}

/// A key whose value is loaded. Its errors travel with those of the load, which waiters share.
pub(crate) struct LoadKey<'k, 'a, 'py>(pub &'k Key<'a, 'py>);

impl LoadKey<'_, '_, '_> {
    fn catch(&self, raised: Raised) -> SharedError {
        SharedError::new(self.0.object.py(), raised)
    }
}

impl KeyQuery<Object> for LoadKey<'_, '_, '_> {
    type Error = SharedError;

    #[inline]
    fn hash(&self) -> u64 {
        self.0.hash
    }

    fn key(&self) -> Object {
        self.0.key()
    }

    #[inline(always)]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        self.0.eq_builtin(key)
    }

    fn eq_slow(&self, key: &Object) -> Result<bool, SharedError> {
        self.0.eq_slow(key).map_err(|raised| self.catch(raised))
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }

    #[inline]
    fn strand(&self) -> usize {
        self.0.strand()
    }

    fn is_strand(&self, strand: usize) -> bool {
        self.0.is_strand(strand)
    }

    #[cold]
    fn no_memory(&self) -> SharedError {
        self.catch(self.0.no_memory())
    }
}
