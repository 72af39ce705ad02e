//! How a Python object asks as a key: its `__hash__`, mixed and seeded, and its `__eq__`.

use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;

use crate::KeyQuery;
use crate::cache::seed::Seed;
use crate::python::object::shared_error::SharedError;
use crate::python::object::{self, Object};
use crate::python::runtime::greenlet;

/// A key looked for.
pub(crate) struct Key<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    hash: u64,
}

impl<'a, 'py> Key<'a, 'py> {
    /// Hashes the key, which may run the user's code.
    #[inline]
    pub fn new(object: &'a Bound<'py, PyAny>, seed: Seed) -> PyResult<Self> {
        match Key::known(object, seed) {
            Some(key) => Ok(key),
            None => Ok(Key { object, hash: seed.mix(object.hash()? as u64) }),
        }
    }

    /// A key whose hash, mixed, is known.
    pub fn hashed(object: &'a Bound<'py, PyAny>, hash: u64) -> Self {
        Key { object, hash }
    }

    /// A key that needs no code of a user to be hashed.
    #[inline]
    pub fn known(object: &'a Bound<'py, PyAny>, seed: Seed) -> Option<Self> {
        object::known_hash(object).map(|hash| Key { object, hash: seed.mix(hash as u64) })
    }
}

impl KeyQuery<Object> for Key<'_, '_> {
    type Error = SharedError;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Object {
        Object::kept(self.object)
    }

    #[inline(always)]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        key.quick_eq(self.object)
    }

    /// The stored key is asked first, as `dict` does.
    fn eq_slow(&self, key: &Object) -> Result<bool, SharedError> {
        let py = self.object.py();
        let equal = key.bind(py).rich_compare(self.object, pyo3::basic::CompareOp::Eq);
        equal.and_then(|equal| equal.is_truthy()).map_err(|error| SharedError::new(py, error))
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
    fn no_memory(&self) -> SharedError {
        SharedError::new(self.object.py(), PyMemoryError::new_err(()))
    }
}

/// A key whose look-up gives up where it would need a user's code.
pub(crate) struct Sure<'a, 'py>(pub Key<'a, 'py>);

/// Why a look-up gave up.
pub(crate) enum Unsure {
    /// It needs a user's code.
    Code,
    NoMemory,
}

impl KeyQuery<Object> for Sure<'_, '_> {
    type Error = Unsure;

    #[inline]
    fn hash(&self) -> u64 {
        self.0.hash()
    }

    #[inline]
    fn key(&self) -> Object {
        self.0.key()
    }

    #[inline(always)]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        self.0.eq_builtin(key)
    }

    fn eq_slow(&self, _key: &Object) -> Result<bool, Unsure> {
        Err(Unsure::Code)
    }

    #[cold]
    fn no_memory(&self) -> Unsure {
        Unsure::NoMemory
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}
