//! The key of a call: a look-up compares it, and a result is stored under it.
//!
//! # How it works
//! The keys are those of `functools.lru_cache`. If the only argument is an exact `str` or `int`, it is the key itself.
//! Else the key is a tuple. It begins with the positional arguments. If there are keywords, a mark follows, and each
//! keyword with its argument. If types count, the type of each argument follows.
//!
//! A look-up makes no tuple. [`ArgsKey`] hashes the parts where they lie and compares them with the items of a stored
//! tuple. Only a miss makes the tuple, which a [`CallKey`] then holds together with its hash.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::KeyQuery;
use crate::cache::seed::Seed;
use crate::python::ffi::{self, Arg};
use crate::python::moka::errors;
use crate::python::object::key::{self, Key};
use crate::python::object::tuple::{self, TupleHash};
use crate::python::object::{Object, builtin};
use crate::python::raised::Raised;

/// Whether an object is its own key if it is the only argument, as in `lru_cache`.
#[inline]
pub(in crate::python) fn is_own_key(object: &Bound<'_, PyAny>) -> bool {
    builtin::is_str_or_int(object)
}

/// The parts of a key that is a tuple, and the hash of that tuple, mixed.
pub(in crate::python) struct ArgsKey<'a> {
    py: Python<'a>,
    parts: &'a [Arg<'a>],
    hash: u64,
}

impl<'a> ArgsKey<'a> {
    /// Hashes each part once, which may run a user's code.
    #[inline]
    pub fn new(py: Python<'a>, parts: &'a [Arg<'a>], seed: Seed) -> Result<Self, Raised> {
        let mut hash = TupleHash::default();
        for part in parts {
            hash.add(key::hash(part)?);
        }
        Ok(ArgsKey { py, parts, hash: seed.mix(hash.end(parts.len()) as u64) })
    }

    /// The key of parts whose hash is known.
    pub fn with_hash(py: Python<'a>, parts: &'a [Arg<'a>], hash: u64) -> Self {
        ArgsKey { py, parts, hash }
    }

    /// Each item of a stored tuple beside its part; `None` if the stored key is no tuple of that length.
    #[inline]
    fn zip<'b>(
        &'b self,
        key: &'b Object,
    ) -> Option<impl Iterator<Item = (Borrowed<'b, 'a, PyAny>, &'b Arg<'a>)>> {
        let items = ffi::tuple_items(key.bind(self.py)).filter(|items| items.len() == self.parts.len())?;
        Some(items.zip(self.parts))
    }
}

impl KeyQuery<Object> for ArgsKey<'_> {
    type Error = Raised;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    /// Nothing is stored for this query: a result is stored under the [`CallKey`].
    fn key(&self) -> Object {
        Object::new(self.py.None())
    }

    #[inline]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        let Some(pairs) = self.zip(key) else { return Some(false) };
        tuple::all_equal(pairs.map(|(item, part)| key::eq_builtin(&item, part)))
    }

    fn eq_slow(&self, key: &Object) -> Result<bool, Raised> {
        let Some(pairs) = self.zip(key) else { return Ok(false) };
        for (item, part) in pairs {
            if !ffi::are_equal(&item, part)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}

/// The key of a call that missed: made, and hashed once.
#[pyclass(module = "moka_py", name = "_CallKey", frozen)]
pub(in crate::python) struct CallKey {
    object: Object,
    hash: u64,
}

impl CallKey {
    /// The key of a call, with its mixed hash.
    pub fn new(object: Object, hash: u64) -> Self {
        CallKey { object, hash }
    }

    pub fn object(&self) -> &Object {
        &self.object
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The query for this key.
    pub fn query<'a, 'py>(&'a self, py: Python<'py>) -> Key<'a, 'py> {
        Key::with_hash(self.object.bind(py), self.hash)
    }
}

#[pymethods]
impl CallKey {
    /// The key itself.
    #[getter]
    fn key(&self, py: Python<'_>) -> Py<PyAny> {
        self.object.bind(py).clone().unbind()
    }

    fn __hash__(&self) -> u64 {
        self.hash
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, CallKey>) -> PyResult<bool> {
        let other = other.get();
        Ok(self.hash == other.hash && self.object.bind(py).eq(other.object.bind(py))?)
    }

    /// Returns the message of the error if the computation of the key waits for its own result.
    fn own_key_error(&self, py: Python<'_>) -> PyResult<String> {
        errors::own_key_message(self.object.bind(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.object.visit(&visit)
    }
}
