//! A reference to a Python object, as the core holds it: one word, counted without a look for the thread state.
//!
//! PyO3's `Py` looks at each clone and drop whether the thread is attached. Here it always is: law 2 keeps
//! detached threads out of the cache and law 3 keeps drops out of the epoch's closures.
//!
//! # Invariants
//! - `attached`: a clone, a drop or a comparison happens on a thread that is attached.
//! - `owned`: an [`Object`] owns one reference.

#![allow(unsafe_code)]

pub(in crate::python) mod key;
pub(in crate::python) mod shared_error;
pub(in crate::python) mod tuple;

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::{ptr, slice};

use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::Handle;
use crate::sync::prefetch_write;

#[repr(transparent)]
pub(crate) struct Object(ManuallyDrop<Py<PyAny>>);

impl Object {
    pub fn new(object: Py<PyAny>) -> Self {
        Object(ManuallyDrop::new(object))
    }

    pub fn of(object: &Bound<'_, PyAny>) -> Self {
        Object::new(object.clone().unbind())
    }

    /// A reference for the cache to keep.
    #[inline]
    pub fn kept(object: &Bound<'_, PyAny>) -> Self {
        #[cfg(Py_GIL_DISABLED)]
        if let Some(kept) = shared::kept(object) {
            return kept;
        }
        Object::of(object)
    }

    /// Learns that this thread is about to drop what the cache kept.
    #[inline]
    pub fn note_drop(&self) {
        #[cfg(Py_GIL_DISABLED)]
        shared::note_drop(self);
    }

    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }

    /// The reference itself, moved out.
    pub fn into_py(self) -> Py<PyAny> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `owned`; the wrapper is never used again, and drops nothing.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }

    pub fn into_ptr(self) -> *mut ffi::PyObject {
        ManuallyDrop::new(self).as_ptr()
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&*self.0)
    }

    pub fn is(&self, other: &Object) -> bool {
        self.as_ptr() == other.as_ptr()
    }

    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// The first item of an exact tuple.
    pub fn first_item(&self) -> Option<*mut ffi::PyObject> {
        // SAFETY: a live object.
        let is_tuple = unsafe { ffi::PyTuple_CheckExact(self.as_ptr()) } != 0;
        // SAFETY: an exact tuple.
        let has_items = is_tuple && unsafe { ffi::PyTuple_GET_SIZE(self.as_ptr()) } > 0;
        // SAFETY: it has a first item.
        has_items.then(|| unsafe { ffi::PyTuple_GET_ITEM(self.as_ptr(), 0) })
    }

    /// Whether this equals a key looked for, where [`quick_eq`] can tell.
    #[inline(always)]
    pub fn quick_eq(&self, key: &Bound<'_, PyAny>) -> Option<bool> {
        quick_eq(self.bind(key.py()), key)
    }
}

/// Whether two objects are equal, where that needs no code but the interpreter's own: for the same object, for
/// exact `str`, `int`, `bytes` and `float`, and for exact tuples of these.
#[inline(always)]
pub(crate) fn quick_eq(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    builtin_eq(stored, key).or_else(|| tuple::quick_eq(stored, key))
}

/// The same without tuples.
#[inline(always)]
pub(crate) fn builtin_eq(stored: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> Option<bool> {
    if stored.as_ptr() == key.as_ptr() {
        return Some(true);
    }
    let kind = key.get_type_ptr();
    if kind != stored.get_type_ptr() {
        return match (Builtin::of(stored)?, Builtin::of(key)?) {
            (Builtin::Int, Builtin::Float) | (Builtin::Float, Builtin::Int) => None,
            _ => Some(false),
        };
    }
    Some(match Builtin::of(key)? {
        Builtin::Str => str_parts(stored) == str_parts(key),
        Builtin::Int => return int::equal(stored, key),
        Builtin::Bytes => bytes_of(stored) == bytes_of(key),
        Builtin::Float => float_of(stored) == float_of(key),
    })
}

impl Clone for Object {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: `attached`; the reference is live while `self` is.
        unsafe { ffi::Py_INCREF(self.as_ptr()) };
        // SAFETY: the copy owns the reference just made (`owned`).
        Object(unsafe { ptr::read(&self.0) })
    }
}

impl Handle for Object {
    #[inline]
    fn is_immortal(&self) -> bool {
        #[cfg(Py_GIL_DISABLED)]
        return shared::is_immortal(self);
        // Nothing waits for its drop there, so there is nothing to be spared.
        #[cfg(not(Py_GIL_DISABLED))]
        false
    }

    #[inline]
    fn prefetch(&self) {
        // SAFETY: `owned`; a live object.
        prefetch_write(unsafe { &*self.as_ptr() });
    }
}

impl Drop for Object {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `attached` and `owned`.
        unsafe { ffi::Py_DECREF(self.as_ptr()) };
    }
}

/// The hash of a key, where that needs no code but the interpreter's own.
#[inline]
pub(crate) fn known_hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    builtin_hash(object).or_else(|| tuple::known_hash(object))
}

/// The same without tuples.
#[inline]
pub(crate) fn builtin_hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    let seen = match Builtin::of(object)? {
        Builtin::Str => str_hash(object),
        Builtin::Int => int::small_hash(object),
        Builtin::Bytes | Builtin::Float => None,
    };
    seen.or_else(|| ask_hash(object))
}

/// The hash of an exact `str`, `int`, `bytes` or `float`, computed.
///
/// None of these hashes allocates or makes a call that counts against the recursion limit. If one fails all the same, the
/// caller asks the interpreter again, and raises what that raises.
#[cold]
fn ask_hash(object: &Bound<'_, PyAny>) -> Option<isize> {
    // SAFETY: `attached`; a live object.
    let hash = unsafe { ffi::PyObject_Hash(object.as_ptr()) };
    if hash == -1 {
        // SAFETY: `attached`.
        unsafe { ffi::PyErr_Clear() };
        return None;
    }
    Some(hash)
}

/// Raises where the interpreter's ints are not laid out as they are read here.
pub(in crate::python) fn check_layout(py: Python<'_>) -> PyResult<()> {
    int::check_layout(py)
}

/// The value of an exact small int.
#[inline]
pub(crate) fn small_int(object: &Bound<'_, PyAny>) -> Option<isize> {
    if let Some(Builtin::Int) = Builtin::of(object) { int::small(object) } else { None }
}

/// The value of an exact float or small int.
#[inline]
pub(crate) fn small_number(object: &Bound<'_, PyAny>) -> Option<f64> {
    match Builtin::of(object)? {
        Builtin::Float => Some(float_of(object)),
        Builtin::Int => int::small(object).map(|value| value as f64),
        Builtin::Str | Builtin::Bytes => None,
    }
}

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
        let kind = object.get_type_ptr();
        if kind == &raw mut ffi::PyUnicode_Type {
            Some(Builtin::Str)
        } else if kind == &raw mut ffi::PyLong_Type {
            Some(Builtin::Int)
        } else if kind == &raw mut ffi::PyBytes_Type {
            Some(Builtin::Bytes)
        } else if kind == &raw mut ffi::PyFloat_Type {
            Some(Builtin::Float)
        } else {
            None
        }
    }
}

/// The hash of an exact `str`, if it was asked for before: then the string keeps it.
#[inline]
fn str_hash(string: &Bound<'_, PyAny>) -> Option<isize> {
    const UNKNOWN: isize = -1;
    let string = string.as_ptr().cast::<ffi::PyASCIIObject>();
    // SAFETY: an exact str begins with a `PyASCIIObject`, and the caller holds it.
    let hash = unsafe { &raw mut (*string).hash };
    // SAFETY: the field is aligned, and other threads touch it by atomics too.
    let hash = unsafe { AtomicIsize::from_ptr(hash) }.load(Ordering::Relaxed);
    (hash != UNKNOWN).then_some(hash)
}

/// The width of a string's characters and all of them: equal strings have equal ones, since CPython keeps
/// each string in the narrowest width that holds it.
#[inline]
fn str_parts<'a>(string: &'a Bound<'_, PyAny>) -> (u32, &'a [u8]) {
    let string = string.as_ptr();
    // SAFETY: an exact str, which is ready from CPython 3.12 on, and made so by its hash before.
    let width = unsafe { ffi::PyUnicode_KIND(string) };
    // SAFETY: likewise.
    let len = unsafe { ffi::PyUnicode_GET_LENGTH(string) } as usize;
    // SAFETY: likewise.
    let data = unsafe { ffi::PyUnicode_DATA(string) }.cast::<u8>();
    // SAFETY: a string has `len` characters of `width` bytes, does not change, and is held by the caller.
    (width, unsafe { slice::from_raw_parts(data, len * width as usize) })
}

fn bytes_of<'a>(bytes: &'a Bound<'_, PyAny>) -> &'a [u8] {
    let bytes = bytes.as_ptr();
    // SAFETY: an exact bytes, whose length is a field.
    let len = unsafe { ffi::Py_SIZE(bytes) } as usize;
    // SAFETY: likewise; its bytes are a field.
    let data = unsafe { ffi::PyBytes_AS_STRING(bytes) }.cast::<u8>();
    // SAFETY: bytes have `len` bytes, do not change, and are held by the caller.
    unsafe { slice::from_raw_parts(data, len) }
}

fn float_of(float: &Bound<'_, PyAny>) -> f64 {
    // SAFETY: an exact float.
    unsafe { ffi::PyFloat_AS_DOUBLE(float.as_ptr()) }
}

/// Counting on the free-threaded build, where an object has a count of the thread that made it and one of all others.
///
/// Of a reference in the own count another thread can't let go by itself: it queues the object for its maker, under a
/// lock, and has that thread interrupted. Where threads drop what others have set, the cache so counts its references
/// with those of others, which anyone may count down. The price is that the maker, too, then counts as others do, by atomics;
/// so it is done from the first such drop on.
#[cfg(Py_GIL_DISABLED)]
mod shared {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use pyo3::ffi;
    use pyo3::prelude::*;

    use super::Object;

    const IMMORTAL: u32 = u32::MAX;
    /// The lowest bits are flags.
    const ONE: isize = 1 << 2;

    /// Whether a thread ever dropped what another had set.
    static CROSSED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        /// This thread as objects name their maker; 0 is not known yet.
        static ME: Cell<usize> = const { Cell::new(0) };
    }

    /// A reference counted as a thread does that did not make the object; `None` where there is no need to.
    #[inline]
    pub fn kept(object: &Bound<'_, PyAny>) -> Option<Object> {
        let pointer = object.as_ptr();
        // SAFETY: a live object; its counts are atomics.
        let local = unsafe { &(*pointer).ob_ref_local };
        // Relaxed, here and below: to count up orders nothing, as in CPython, and the mark may be seen late.
        if !CROSSED.load(Ordering::Relaxed) || local.load(Ordering::Relaxed) == IMMORTAL {
            return None;
        }
        // SAFETY: likewise.
        let shared = unsafe { &(*pointer).ob_ref_shared };
        shared.fetch_add(ONE, Ordering::Relaxed);
        // SAFETY: the reference just made.
        let kept = unsafe { Bound::from_owned_ptr(object.py(), pointer) };
        Some(Object::new(kept.unbind()))
    }

    /// Whether nobody counts its references.
    #[inline]
    pub fn is_immortal(object: &Object) -> bool {
        // SAFETY: a live object.
        let local = unsafe { &(*object.as_ptr()).ob_ref_local };
        local.load(Ordering::Relaxed) == IMMORTAL
    }

    /// Learns what this thread is about to drop.
    #[inline]
    pub fn note_drop(object: &Object) {
        if !CROSSED.load(Ordering::Relaxed) && maker(object.as_ptr()).is_some_and(|maker| maker != me()) {
            CROSSED.store(true, Ordering::Relaxed);
        }
    }

    /// The thread in whose own count references may be; `None` if there is none any more, or nothing is counted.
    fn maker(object: *mut ffi::PyObject) -> Option<usize> {
        // SAFETY: `attached`; a live object.
        let maker = unsafe { &raw mut (*object).ob_tid };
        // SAFETY: the field is aligned, and other threads touch it by atomics too.
        let maker = unsafe { AtomicUsize::from_ptr(maker) }.load(Ordering::Relaxed);
        // SAFETY: as above.
        let local = unsafe { &(*object).ob_ref_local };
        (maker != 0 && local.load(Ordering::Relaxed) != IMMORTAL).then_some(maker)
    }

    /// What an object that is made here has for its maker.
    fn me() -> usize {
        if ME.get() == 0 {
            // SAFETY: `attached`; an exception that is set here stays.
            let raised = unsafe { ffi::PyErr_GetRaisedException() };
            // SAFETY: `attached`; a new reference, or null with an exception set.
            let made = unsafe { ffi::PyFloat_FromDouble(0.5) };
            if !made.is_null() {
                ME.set(maker(made).unwrap_or_default());
                // SAFETY: the reference just made.
                unsafe { ffi::Py_DECREF(made) };
            }
            // SAFETY: `attached`; it replaces the exception of a float that had no memory. Then the next drop asks again.
            unsafe { ffi::PyErr_SetRaisedException(raised) };
        }
        ME.get()
    }
}

/// Ints as CPython 3.12 and later lay them out.
///
/// They are compared here by their digits. The interpreter's own comparison counts as a call, so it fails at the recursion
/// limit, where an answer of "not equal" would store a key twice.
#[cfg(all(Py_3_12, target_pointer_width = "64"))]
mod int {
    use std::slice;

    use pyo3::exceptions::PyImportError;
    use pyo3::ffi;
    use pyo3::prelude::*;

    #[repr(C)]
    struct Layout {
        head: ffi::PyObject,
        /// The number of digits from bit 3 on, and in the lowest two bits 1 less the sign. Bit 2 says from CPython 3.14 on
        /// that the interpreter keeps the int for ever, which equal ints may differ in.
        tag: usize,
        digit: u32,
    }

    const DIGITS_SHIFT: u32 = 3;
    const ONE_DIGIT: usize = 2 << DIGITS_SHIFT;
    const SIGN: usize = 3;
    const DIGIT_BITS: u32 = 30;

    /// Raises where CPython was configured with digits of another width.
    pub fn check_layout(py: Python<'_>) -> PyResult<()> {
        let bits = py.import("sys")?.getattr("int_info")?.getattr("bits_per_digit")?.extract::<u32>()?;
        if bits == DIGIT_BITS {
            return Ok(());
        }
        let text = format!("moka_py needs a CPython whose ints have digits of {DIGIT_BITS} bits, got {bits}");
        Err(PyImportError::new_err(text))
    }

    /// The value of an exact int of one digit or none.
    #[inline]
    pub fn small(int: &Bound<'_, PyAny>) -> Option<isize> {
        let int = int.as_ptr().cast::<Layout>();
        // SAFETY: an exact int is laid out so and does not change; the caller holds it.
        let tag = unsafe { (*int).tag };
        // SAFETY: likewise; there is room for a digit in every int.
        let digit = unsafe { (*int).digit };
        (tag < ONE_DIGIT).then(|| (1 - (tag & SIGN) as isize) * digit as isize)
    }

    /// The hash of a small int: itself, but -1 is for errors.
    #[inline]
    pub fn small_hash(int: &Bound<'_, PyAny>) -> Option<isize> {
        small(int).map(|value| if value == -1 { -2 } else { value })
    }

    /// Whether two exact ints are equal, which can always be told.
    #[inline]
    pub fn equal(a: &Bound<'_, PyAny>, b: &Bound<'_, PyAny>) -> Option<bool> {
        if let (Some(a), Some(b)) = (small(a), small(b)) {
            return Some(a == b);
        }
        Some(parts(a) == parts(b))
    }

    /// The sign and the digits of an exact int: equal ints have equal ones, since the highest digit is not 0.
    fn parts<'a>(int: &'a Bound<'_, PyAny>) -> (usize, &'a [u32]) {
        let int = int.as_ptr().cast::<Layout>();
        // SAFETY: an exact int is laid out so and does not change; the caller holds it.
        let tag = unsafe { (*int).tag };
        // SAFETY: likewise.
        let digits = unsafe { &raw const (*int).digit };
        // SAFETY: so many digits follow each other there.
        (tag & SIGN, unsafe { slice::from_raw_parts(digits, tag >> DIGITS_SHIFT) })
    }
}

#[cfg(not(all(Py_3_12, target_pointer_width = "64")))]
mod int {
    use pyo3::prelude::*;

    pub fn check_layout(_py: Python<'_>) -> PyResult<()> {
        Ok(())
    }

    pub fn small(_int: &Bound<'_, PyAny>) -> Option<isize> {
        None
    }

    pub fn small_hash(_int: &Bound<'_, PyAny>) -> Option<isize> {
        None
    }

    /// The interpreter's comparison may fail, so it is for those to make that hold no lock and can raise.
    pub fn equal(_a: &Bound<'_, PyAny>, _b: &Bound<'_, PyAny>) -> Option<bool> {
        None
    }
}
