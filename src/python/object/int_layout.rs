//! Ints by their layout in CPython 3.12 and later: value, hash and equality without a call of the interpreter.
//!
//! The interpreter's own comparison counts as a call, so it fails at the recursion limit. An answer of "not equal" there would
//! store a key twice. On 32-bit systems, where the layout differs, the interpreter compares all the same, where it can raise.

#![allow(unsafe_code)]

use std::slice;

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

const IS_KNOWN: bool = cfg!(all(Py_3_12, target_pointer_width = "64"));

#[repr(C)]
struct IntLayout {
    head: ffi::PyObject,
    /// From bit 3 on the number of digits, and in the lowest two bits 1 minus the sign. From CPython 3.14 on bit 2 says that
    /// the interpreter keeps the int for ever; equal ints may differ in it.
    tag: usize,
    digit: u32,
}

const DIGITS_SHIFT: u32 = 3;
/// From this tag on an int has more than one digit.
const MIN_TAG_OF_TWO_DIGITS: usize = 2 << DIGITS_SHIFT;
const SIGN_MASK: usize = 3;
const DIGIT_BITS: u32 = 30;

/// Raises ImportError if CPython was configured with digits of another width.
pub(in crate::python) fn check(py: Python<'_>) -> PyResult<()> {
    if !IS_KNOWN {
        return Ok(());
    }
    let bits = py.import("sys")?.getattr("int_info")?.getattr("bits_per_digit")?.extract::<u32>()?;
    if bits == DIGIT_BITS {
        return Ok(());
    }
    let text = format!("moka_py needs a CPython whose ints have digits of {DIGIT_BITS} bits, got {bits}");
    Err(PyImportError::new_err(text))
}

/// The value of an exact int of at most one digit; `None` for a larger one.
#[inline]
pub fn small(int: &Bound<'_, PyAny>) -> Option<isize> {
    if !IS_KNOWN {
        return None;
    }
    let int = int.as_ptr().cast::<IntLayout>();
    // SAFETY: an exact int has this layout and does not change, and the caller holds it.
    let tag = unsafe { (*int).tag };
    // SAFETY: likewise; every int has room for a digit.
    let digit = unsafe { (*int).digit };
    (tag < MIN_TAG_OF_TWO_DIGITS).then(|| (1 - (tag & SIGN_MASK) as isize) * digit as isize)
}

/// The hash of a small int: its value, but -2 for -1, which stands for an error.
#[inline]
pub fn small_hash(int: &Bound<'_, PyAny>) -> Option<isize> {
    small(int).map(|value| if value == -1 { -2 } else { value })
}

/// Whether two exact ints are equal; `None` if the layout is not known.
#[inline]
pub fn eq(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> Option<bool> {
    if let (Some(a), Some(b)) = (small(a), small(b)) {
        return Some(a == b);
    }
    IS_KNOWN.then(|| sign_and_digits(a) == sign_and_digits(b))
}

/// Equal ints have equal signs and digits, since the highest digit is not 0.
fn sign_and_digits<'a>(int: &'a Bound<'_, PyAny>) -> (usize, &'a [u32]) {
    let int = int.as_ptr().cast::<IntLayout>();
    // SAFETY: an exact int has this layout and does not change, and the caller holds it.
    let tag = unsafe { (*int).tag };
    // SAFETY: likewise.
    let digits = unsafe { &raw const (*int).digit };
    // SAFETY: the tag says how many digits follow each other there.
    (tag & SIGN_MASK, unsafe { slice::from_raw_parts(digits, tag >> DIGITS_SHIFT) })
}
