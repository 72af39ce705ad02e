//! Strings by their layout in CPython 3.12 and later: cached hash and equality without a call of the interpreter.
//!
//! PyO3 reads the width and the characters of a string in place up to CPython 3.13. From 3.14 on it calls the interpreter,
//! four times for a comparison. So the state of a string is read here:
//!
//! ```text
//!      7       6       5     4   2  1        0
//! +--------+-------+---------+------+----------+
//! | static | ascii | compact | kind | interned |    kind: the bytes of a character
//! +--------+-------+---------+------+----------+
//! ```
//!
//! An exact `str` is compact: its characters follow its head, which is shorter if all of them are ASCII. Free-threaded
//! builds from 3.14 on, and big-endian systems, have another layout. There PyO3's functions are called.
//!
//! # Invariants
//! - `held`: the caller holds each string, which is an exact `str`. It does not change, except for its cached hash and the
//!   bits that say how it is interned.

#![allow(unsafe_code)]

use std::slice;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

const IS_KNOWN: bool = cfg!(all(Py_3_12, not(Py_GIL_DISABLED), target_endian = "little"));

const KIND_SHIFT: u32 = 2;
const KIND_MASK: u32 = 7;
const IS_ASCII: u32 = 1 << 6;

/// The width of a string's characters, and their bytes. They are equal for equal strings, since CPython keeps each string in
/// the narrowest width that holds it.
type Parts<'a> = (u32, &'a [u8]);

/// Raises ImportError if CPython has strings of another layout.
pub(in crate::python) fn check(py: Python<'_>) -> PyResult<()> {
    // One string of each width, and of each head.
    for text in ["ascii", "latin: \u{e9}", "2 bytes: \u{3c0}", "4 bytes: \u{1f980}"] {
        let string = PyString::new(py, text).into_any();
        if parts(&string) != parts_by_pyo3(&string) {
            return Err(PyImportError::new_err("moka_py does not know how this CPython lays out strings"));
        }
    }
    Ok(())
}

/// Whether two exact strings are equal.
#[inline]
pub fn eq(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> bool {
    parts(a) == parts(b)
}

/// The hash that an exact `str` keeps once it was computed.
#[inline]
pub fn cached_hash(string: &Bound<'_, PyAny>) -> Option<isize> {
    const UNKNOWN: isize = -1;
    let string = string.as_ptr().cast::<ffi::PyASCIIObject>();
    // SAFETY: `held`; an exact str begins with a `PyASCIIObject`.
    let hash = unsafe { &raw mut (*string).hash };
    // SAFETY: the field is aligned, and other threads access it by atomics too.
    let hash = unsafe { AtomicIsize::from_ptr(hash) }.load(Ordering::Relaxed);
    (hash != UNKNOWN).then_some(hash)
}

#[inline]
fn parts<'a>(string: &'a Bound<'_, PyAny>) -> Parts<'a> {
    if !IS_KNOWN {
        return parts_by_pyo3(string);
    }
    let head = string.as_ptr().cast::<ffi::PyASCIIObject>();
    // SAFETY: `held`; an exact str begins with a `PyASCIIObject`.
    let state = unsafe { (*head).state };
    let data = if state & IS_ASCII != 0 {
        // SAFETY: `held`; the characters follow the head.
        unsafe { head.add(1) }.cast::<u8>()
    } else {
        // SAFETY: likewise; the head of a string that is not ASCII is longer.
        unsafe { head.cast::<ffi::PyCompactUnicodeObject>().add(1) }.cast::<u8>()
    };
    // SAFETY: `held`; the module is not imported if the layout is another one (`check`).
    unsafe { with_data(string, state >> KIND_SHIFT & KIND_MASK, data) }
}

#[inline]
fn parts_by_pyo3<'a>(string: &'a Bound<'_, PyAny>) -> Parts<'a> {
    // SAFETY: `held`; an exact str, which CPython 3.12 and later always have ready.
    let width = unsafe { ffi::PyUnicode_KIND(string.as_ptr()) };
    // SAFETY: likewise.
    let data = unsafe { ffi::PyUnicode_DATA(string.as_ptr()) }.cast::<u8>();
    // SAFETY: the interpreter's own answers.
    unsafe { with_data(string, width, data) }
}

/// # Safety
/// - `string` is `held`. Its characters have `width` bytes and begin at `data`.
#[inline(always)]
unsafe fn with_data<'a>(string: &'a Bound<'_, PyAny>, width: u32, data: *const u8) -> Parts<'a> {
    // SAFETY: the caller's.
    let len = unsafe { ffi::PyUnicode_GET_LENGTH(string.as_ptr()) } as usize;
    // SAFETY: the caller's; a string has `len` characters.
    (width, unsafe { slice::from_raw_parts(data, len * width as usize) })
}
