//! Hash and equality of exact `str`, `int`, `bytes` and `float`, without a call that could run a user's code.
//!
//! # Invariants
//! - `held`: the caller holds each object, and these types do not change.

#![allow(unsafe_code)]

use std::slice;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::python::ffi as face_ffi;
use crate::python::object::int_layout;

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
        let class = object.get_type_ptr();
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
    let class = key.get_type_ptr();
    if class != stored.get_type_ptr() {
        return match (Builtin::of(stored)?, Builtin::of(key)?) {
            (Builtin::Int, Builtin::Float) | (Builtin::Float, Builtin::Int) => None,
            _ => Some(false),
        };
    }
    Some(match Builtin::of(key)? {
        Builtin::Str => str_parts(stored) == str_parts(key),
        Builtin::Int => return int_layout::eq(stored, key),
        Builtin::Bytes => bytes_of(stored) == bytes_of(key),
        Builtin::Float => float_of(stored) == float_of(key),
    })
}

/// The hash of an object; `None` if a user's code must compute it.
#[inline]
pub(in crate::python) fn hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    let hash = match Builtin::of(object)? {
        Builtin::Str => cached_str_hash(object),
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

/// The hash that an exact `str` keeps once it was computed.
#[inline]
fn cached_str_hash(string: &Bound<'_, PyAny>) -> Option<isize> {
    const UNKNOWN: isize = -1;
    let string = string.as_ptr().cast::<ffi::PyASCIIObject>();
    // SAFETY: `held`; an exact str begins with a `PyASCIIObject`.
    let hash = unsafe { &raw mut (*string).hash };
    // SAFETY: the field is aligned, and other threads access it by atomics too.
    let hash = unsafe { AtomicIsize::from_ptr(hash) }.load(Ordering::Relaxed);
    (hash != UNKNOWN).then_some(hash)
}

/// The width of a string's characters, and their bytes. They are equal for equal strings, since CPython keeps each string in
/// the narrowest width that holds it.
#[inline]
fn str_parts<'a>(string: &'a Bound<'_, PyAny>) -> (u32, &'a [u8]) {
    let string = string.as_ptr();
    // SAFETY: `held`; an exact str, which CPython 3.12 and later always have ready.
    let width = unsafe { ffi::PyUnicode_KIND(string) };
    // SAFETY: likewise.
    let len = unsafe { ffi::PyUnicode_GET_LENGTH(string) } as usize;
    // SAFETY: likewise.
    let data = unsafe { ffi::PyUnicode_DATA(string) }.cast::<u8>();
    // SAFETY: `held`; a string has `len` characters of `width` bytes.
    (width, unsafe { slice::from_raw_parts(data, len * width as usize) })
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
