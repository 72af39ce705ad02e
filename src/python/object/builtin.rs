//! Hash and equality of exact `str`, `int`, `bytes` and `float`, without a call that could run a user's code.
//!
//! # Invariants
//! - `held`: the caller holds each object, and these types do not change.

#![allow(unsafe_code)]

use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::python::ffi as face_ffi;
use crate::python::object::{int_layout, str_layout};

/// The key types whose equality runs no code of a user.
enum Builtin {
    Str,
    Int,
    Bytes,
    Float,
}

impl Builtin {
    #[inline]
    fn of(object: &Bound<'_, PyAny>) -> Option<Self> {
        let class = face_ffi::type_ptr(object);
        if class == &raw mut ffi::PyUnicode_Type {
            Some(Builtin::Str)
        } else if class == &raw mut ffi::PyLong_Type {
            Some(Builtin::Int)
        } else if class == &raw mut ffi::PyBytes_Type {
            Some(Builtin::Bytes)
        } else if class == &raw mut ffi::PyFloat_Type {
            Some(Builtin::Float)
        } else {
            None
        }
    }
}

/// Whether two objects are equal; `None` if a user's code, or the interpreter's, must say.
#[inline(always)]
pub(in crate::python) fn eq(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    if stored.as_ptr() == key.as_ptr() {
        return Some(true);
    }
    if face_ffi::type_ptr(key) != face_ffi::type_ptr(stored) {
        return match (Builtin::of(stored)?, Builtin::of(key)?) {
            (Builtin::Int, Builtin::Float) | (Builtin::Float, Builtin::Int) => None,
            _ => Some(false),
        };
    }
    Some(match Builtin::of(key)? {
        Builtin::Str => str_layout::eq(stored, key),
        Builtin::Int => return int_layout::eq(stored, key),
        Builtin::Bytes => bytes_of(stored) == bytes_of(key),
        Builtin::Float => float_of(stored) == float_of(key),
    })
}

/// The hash of an object; `None` if a user's code must compute it.
#[inline]
pub(in crate::python) fn hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    let hash = match Builtin::of(object)? {
        Builtin::Str => str_layout::cached_hash(object),
        Builtin::Int => int_layout::small_hash(object),
        Builtin::Bytes | Builtin::Float => None,
    };
    hash.or_else(|| hash_by_interpreter(object))
}

/// The hash of a builtin object, which the interpreter computes. None of these hashes allocates, or makes a call that counts
/// against the recursion limit. If one fails all the same, the caller hashes the object again, which raises.
#[cold]
fn hash_by_interpreter(object: &Bound<'_, PyAny>) -> Option<isize> {
    face_ffi::hash(object).map_err(|_raised| face_ffi::clear(object.py())).ok()
}

/// Whether an object is an exact `str`.
#[inline]
pub(in crate::python) fn is_str(object: &Bound<'_, PyAny>) -> bool {
    matches!(Builtin::of(object), Some(Builtin::Str))
}

/// Whether an object is an exact `str` or `int`.
#[inline]
pub(in crate::python) fn is_str_or_int(object: &Bound<'_, PyAny>) -> bool {
    matches!(Builtin::of(object), Some(Builtin::Str | Builtin::Int))
}

/// The value of an exact small int.
#[inline]
pub(in crate::python) fn small_int(object: &Bound<'_, PyAny>) -> Option<isize> {
    if let Some(Builtin::Int) = Builtin::of(object) { int_layout::small(object) } else { None }
}

/// The value of an exact float or small int.
#[inline]
pub(in crate::python) fn small_number(object: &Bound<'_, PyAny>) -> Option<f64> {
    match Builtin::of(object)? {
        Builtin::Float => Some(float_of(object)),
        Builtin::Int => int_layout::small(object).map(|value| value as f64),
        Builtin::Str | Builtin::Bytes => None,
    }
}

fn bytes_of<'a>(bytes: &'a Bound<'_, PyAny>) -> &'a [u8] {
    let bytes = bytes.as_ptr();
    // SAFETY: `held`; an exact bytes, whose length is a field.
    let len = unsafe { ffi::Py_SIZE(bytes) } as usize;
    // SAFETY: likewise; its bytes are a field.
    let data = unsafe { ffi::PyBytes_AS_STRING(bytes) }.cast::<u8>();
    // SAFETY: `held`; it has `len` bytes.
    unsafe { slice::from_raw_parts(data, len) }
}

fn float_of(float: &Bound<'_, PyAny>) -> f64 {
    // SAFETY: `held`; an exact float.
    unsafe { ffi::PyFloat_AS_DOUBLE(float.as_ptr()) }
}
