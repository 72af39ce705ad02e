//! The arguments of a call as a key, hashed and compared where they lie.
//!
//! The key is that of `functools.lru_cache`: a lone exact `str` or `int` is its own; else a tuple of the positional
//! arguments, then, if there are any, a mark and each keyword with its argument, then, if types count, the types
//! of all arguments. The tuple is made only for what is to be stored; a look-up compares these parts
//! with the stored tuple's items, and its hash is the tuple's.
//!
//! None of it asks PyO3 whether the thread is attached, and an exception stays where the interpreter has it
//! ([`Raised`]): in the slots of a type of our own, and late in the interpreter's end, PyO3 would say no.
//!
//! # Invariants
//! - `held`: the parts are objects that the caller of the function holds for the length of the call.
//! - `attached`: all of this happens on an attached thread.

#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::KeyQuery;
use crate::cache::seed::Seed;
use crate::python::ffi as face_ffi;
use crate::python::object::Object;
use crate::python::object::key::{self, eq_builtin};
use crate::python::object::tuple::{self, TupleHash};
use crate::python::raised::Raised;

pub(crate) type Parts = SmallVec<[*mut ffi::PyObject; 16]>;

/// The arguments of a call, where they lie: the positional ones, then one for each of `names`, a tuple or null.
#[derive(Clone, Copy)]
pub(crate) struct CallArgs<'a> {
    all: &'a [*mut ffi::PyObject],
    count: usize,
    names: *mut ffi::PyObject,
}

impl<'a> CallArgs<'a> {
    /// # Safety
    /// - `held`: `count` positional arguments, and one for each name.
    #[inline(always)]
    pub unsafe fn new(arguments: *const *mut ffi::PyObject, count: usize, names: *mut ffi::PyObject) -> Self {
        let named = if names.is_null() {
            0
        } else {
            // SAFETY: the caller's; names are a tuple.
            unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
        };
        let all = if arguments.is_null() {
            &[]
        } else {
            // SAFETY: the caller's; so many arguments are there.
            unsafe { std::slice::from_raw_parts(arguments, count + named) }
        };
        CallArgs { all, count, names }
    }

    pub fn all(&self) -> &'a [*mut ffi::PyObject] {
        self.all
    }

    /// The one argument, where there is one.
    #[inline(always)]
    pub fn only(&self, py: Python<'a>) -> Option<Borrowed<'a, 'a, PyAny>> {
        let &[only] = self.all else { return None };
        // SAFETY: `held`.
        Some(unsafe { Borrowed::from_ptr(py, only) })
    }

    pub fn positional(&self) -> &'a [*mut ffi::PyObject] {
        &self.all[..self.count]
    }

    /// A tuple, or null.
    pub fn names(&self) -> *mut ffi::PyObject {
        self.names
    }

    pub fn has_names(&self) -> bool {
        !self.names.is_null()
    }

    /// Each name with its argument.
    fn named(&self) -> impl Iterator<Item = (*mut ffi::PyObject, *mut ffi::PyObject)> {
        let names = self.names;
        self.all[self.count..].iter().enumerate().map(move |(index, &value)| {
            // SAFETY: `held`; there are so many names.
            (unsafe { ffi::PyTuple_GET_ITEM(names, index as ffi::Py_ssize_t) }, value)
        })
    }

    /// Calls a function with them. The result is a new reference, or null with an exception set.
    #[inline]
    pub fn call(&self, function: &Py<PyAny>) -> *mut ffi::PyObject {
        // SAFETY: `attached` and `held`.
        unsafe { ffi::PyObject_Vectorcall(function.as_ptr(), self.all.as_ptr(), self.count, self.names) }
    }

    /// Them as a tuple and a dict; `None` is with an exception set.
    pub fn packed(&self, py: Python<'_>) -> Option<(Object, Object)> {
        let args = tuple_of(py, self.positional())?;
        // SAFETY: `attached`.
        let keywords = unsafe { ffi::PyDict_New() };
        // SAFETY: a new reference, or null with an exception set.
        let keywords = Object::new(unsafe { Bound::from_owned_ptr_or_opt(py, keywords) }?.unbind());
        for (name, value) in self.named() {
            // SAFETY: `attached`; all are live.
            if unsafe { ffi::PyDict_SetItem(keywords.as_ptr(), name, value) } != 0 {
                return None;
            }
        }
        Some((args, keywords))
    }

    /// The parts of its key.
    pub fn parts(&self, mark: &Py<PyAny>, is_typed: bool) -> Parts {
        let mut parts = Parts::from_slice(self.positional());
        if self.count < self.all.len() {
            parts.push(mark.as_ptr());
            for (name, value) in self.named() {
                parts.push(name);
                parts.push(value);
            }
        }
        if is_typed {
            for &value in self.all {
                // SAFETY: `held`; the object holds its type.
                parts.push(unsafe { ffi::Py_TYPE(value) }.cast());
            }
        }
        parts
    }
}

/// A tuple of objects that are held; `None` is with an exception set.
fn tuple_of(py: Python<'_>, items: &[*mut ffi::PyObject]) -> Option<Object> {
    // SAFETY: `attached`.
    let tuple = unsafe { ffi::PyTuple_New(items.len() as ffi::Py_ssize_t) };
    if tuple.is_null() {
        return None;
    }
    for (index, &item) in items.iter().enumerate() {
        // SAFETY: the caller holds it; a new reference for the tuple.
        let item = unsafe { ffi::Py_NewRef(item) };
        // SAFETY: the tuple is new, and this item is empty.
        unsafe { ffi::PyTuple_SET_ITEM(tuple, index as ffi::Py_ssize_t, item) };
    }
    // SAFETY: a new reference.
    let tuple = unsafe { Bound::from_owned_ptr(py, tuple) };
    Some(Object::new(tuple.unbind()))
}

/// The hash of an object, which may run the user's code. `None` is with an exception set.
#[inline]
fn hash_of(object: &Bound<'_, PyAny>) -> Option<isize> {
    key::hash(object).ok()
}

/// Whether two objects are equal, as containers compare: the same is equal to itself.
fn are_equal(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Result<bool, Raised> {
    // SAFETY: `attached`; both are live.
    match unsafe { ffi::PyObject_RichCompareBool(stored.as_ptr(), key.as_ptr(), ffi::Py_EQ) } {
        -1 => Err(Raised::already_set(stored.py())),
        equal => Ok(equal == 1),
    }
}

/// An object that is a key by itself, hashed.
pub(crate) struct SingleArgKey<'a, 'py> {
    object: &'a Bound<'py, PyAny>,
    hash: u64,
}

impl<'a, 'py> SingleArgKey<'a, 'py> {
    /// `None` is with an exception set.
    pub fn new(object: &'a Bound<'py, PyAny>, seed: Seed) -> Option<Self> {
        hash_of(object).map(|hash| SingleArgKey { object, hash: seed.mix(hash as u64) })
    }
}

impl KeyQuery<Object> for SingleArgKey<'_, '_> {
    type Error = Raised;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Object {
        Object::for_cache(self.object)
    }

    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        eq_builtin(key.bind(self.object.py()), self.object)
    }

    fn eq_slow(&self, key: &Object) -> Result<bool, Raised> {
        are_equal(key.bind(self.object.py()), self.object)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}

/// The parts of a call, hashed.
pub(crate) struct ArgsKey<'a, 'py> {
    py: Python<'py>,
    parts: &'a [*mut ffi::PyObject],
    hash: u64,
}

impl<'a, 'py> ArgsKey<'a, 'py> {
    /// Hashes each part once, which may run the user's code. `None` is with an exception set.
    ///
    /// # Safety
    /// - `held`.
    #[inline]
    pub unsafe fn new(py: Python<'py>, parts: &'a [*mut ffi::PyObject], seed: Seed) -> Option<Self> {
        let mut sum = TupleHash::default();
        for &part in parts {
            // SAFETY: `held`.
            let part = unsafe { Borrowed::from_ptr(py, part) };
            let hash = hash_of(&part)?;
            sum.add(hash);
        }
        Some(ArgsKey { py, parts, hash: seed.mix(sum.end(parts.len()) as u64) })
    }

    /// Parts that were hashed before.
    ///
    /// # Safety
    /// - `held`.
    pub unsafe fn hashed(py: Python<'py>, parts: &'a [*mut ffi::PyObject], hash: u64) -> Self {
        ArgsKey { py, parts, hash }
    }

    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// The tuple; `None` is with an exception set.
    pub fn tuple(&self) -> Option<Object> {
        tuple_of(self.py, self.parts)
    }

    /// Each item of a stored tuple beside its part; `None` where the key is no tuple of as many.
    #[inline]
    fn beside<'b>(
        &'b self,
        key: &'b Object,
    ) -> Option<impl Iterator<Item = (Borrowed<'b, 'py, PyAny>, Borrowed<'b, 'py, PyAny>)>> {
        let items =
            face_ffi::tuple_items(key.bind(self.py)).filter(|items| items.len() == self.parts.len())?;
        // SAFETY: `held`.
        let parts = self.parts.iter().map(|&part| unsafe { Borrowed::from_ptr(self.py, part) });
        Some(items.zip(parts))
    }
}

impl KeyQuery<Object> for ArgsKey<'_, '_> {
    type Error = Raised;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }

    /// What is stored is stored under the tuple.
    fn key(&self) -> Object {
        Object::new(self.py.None())
    }

    #[inline]
    fn eq_builtin(&self, key: &Object) -> Option<bool> {
        let Some(pairs) = self.beside(key) else { return Some(false) };
        tuple::all_equal(pairs.map(|(item, part)| eq_builtin(&item, &part)))
    }

    fn eq_slow(&self, key: &Object) -> Result<bool, Raised> {
        let Some(pairs) = self.beside(key) else { return Ok(false) };
        for (item, part) in pairs {
            if !are_equal(&item, &part)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ptr_eq(a: &Object, b: &Object) -> bool {
        a.is(b)
    }
}
