//! `Moka.get`, `set`, `remove` and `get_with` as bare C functions: PyO3's way in and out of a method costs as much as the
//! look-up itself.
//!
//! What is usual is done here: keys that are hashed and compared in place, and deadlines that are numbers. All else goes
//! to the method that PyO3 made, with the arguments as they came: in a bare C function PyO3 takes the thread for detached,
//! so nothing of it that drops references or makes errors is touched, but where it is [`with_pyo3_attached`](crate::python::runtime::interpreter::with_pyo3_attached) that
//! the thread is attached. An error that a call returned may be handed on.
//!
//! # Invariants
//! - `called`: the interpreter calls these functions as methods of `Moka`: attached, with an instance
//!   first, then `count` arguments and a value for each of `names`.
//! - `whole`: the plain methods and the definitions are set before the first call, and stay.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;
use smallvec::SmallVec;

use crate::Lifetime;
use crate::python::cached::arguments::CallArgs;
use crate::python::moka::convert;
use crate::python::moka::state::{CacheState, FastOutcome, Moka};
use crate::python::object::{self, Object};

const GET_DOC: &CStr = c"get($self, /, key, default=None)\n--\n\n\
    Return the value of key, or default. CacheStats as a use.";

const SET_DOC: &CStr = c"set($self, /, key, value, ttl=None, tti=None)\n--\n\n\
    Store a value; ttl and tti are the entry's own, in seconds or as a timedelta.";

const REMOVE_DOC: &CStr = c"remove($self, /, key, default=None)\n--\n\n\
    Remove key and return its value, or default.";

const GET_WITH_DOC: &CStr = c"get_with($self, /, key, initializer, ttl=None, tti=None)\n--\n\n\
    Return the value of key, computed by initializer() if absent, once for all threads that ask.";

type Kept = AtomicPtr<ffi::PyObject>;

/// The methods that PyO3 made.
static PLAIN_GET: Kept = Kept::new(ptr::null_mut());
static PLAIN_SET: Kept = Kept::new(ptr::null_mut());
static PLAIN_REMOVE: Kept = Kept::new(ptr::null_mut());
static PLAIN_GET_WITH: Kept = Kept::new(ptr::null_mut());

/// The names of arguments, as the interpreter keeps such strings once.
static TTL: Kept = Kept::new(ptr::null_mut());
static TTI: Kept = Kept::new(ptr::null_mut());

/// Puts the bare functions into the class, and keeps the plain ones.
pub(in crate::python) fn install(py: Python<'_>) -> PyResult<()> {
    for (kept, name) in [(&TTL, "ttl"), (&TTI, "tti")] {
        kept.store(PyString::intern(py, name).into_ptr(), Ordering::Relaxed);
    }
    replace(py, c"get", GET_DOC, get, &PLAIN_GET)?;
    replace(py, c"set", SET_DOC, set, &PLAIN_SET)?;
    replace(py, c"remove", REMOVE_DOC, remove, &PLAIN_REMOVE)?;
    replace(py, c"get_with", GET_WITH_DOC, get_with, &PLAIN_GET_WITH)
}

fn replace(
    py: Python<'_>,
    name: &'static CStr,
    doc: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
    plain: &Kept,
) -> PyResult<()> {
    let class = py.get_type::<Moka>();
    let python_name = name.to_string_lossy();
    // Release: pairs with the Acquire in `call_plain`.
    plain.store(class.getattr(&*python_name)?.into_ptr(), Ordering::Release);
    // The interpreter keeps a pointer to it for as long as it runs.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: the class is a live type, and the definition lives for ever.
    let method = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: a new reference, or null with an error set.
    let method = unsafe { Bound::from_owned_ptr_or_err(py, method) }?;
    class.setattr(&*python_name, method)
}

/// The cache and the arguments of a call without names.
///
/// # Safety
/// - `called`; and the result does not outlive the call.
#[inline]
unsafe fn read_call<'a>(
    py: Python<'a>,
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
) -> (Borrowed<'a, 'a, Moka>, &'a [*mut ffi::PyObject]) {
    // SAFETY: `called`; borrowed for the call.
    let slf = unsafe { Borrowed::from_ptr(py, slf) };
    // SAFETY: `called`; an instance.
    let cache = unsafe { slf.cast_unchecked::<Moka>() };
    // SAFETY: `called`; so many arguments are there.
    (cache, unsafe { std::slice::from_raw_parts(arguments, count) })
}

/// A method of a key and a default: what `fast` finds or the default, where it can tell; else the plain method.
///
/// # Safety
/// - `called`.
#[inline(always)]
unsafe fn find(
    fast: impl FnOnce(&CacheState, &Bound<'_, PyAny>) -> Option<Option<Object>>,
    plain: &Kept,
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    if names.is_null() && (count == 1 || count == 2) {
        // SAFETY: the caller's.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: the caller's.
        let (cache, given) = unsafe { read_call(py, slf, arguments, count as usize) };
        // SAFETY: `called`; borrowed for the call.
        let key = unsafe { Borrowed::from_ptr(py, given[0]) };
        if let Some(found) = fast(cache.get(), &key) {
            return match (found, given.get(1)) {
                (Some(value), _) => value.into_ptr(),
                // SAFETY: a live object, and attached.
                (None, Some(&default)) => unsafe { ffi::Py_NewRef(default) },
                (None, None) => py.None().into_ptr(),
            };
        }
    }
    // SAFETY: the caller's; the same arguments.
    unsafe { call_plain(plain, slf, arguments, count, names) }
}

/// The deadlines that a call asks for behind its first two arguments, where they can be told at a glance.
///
/// # Safety
/// - `called`.
#[inline]
unsafe fn lifetime_fast(
    py: Python<'_>,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<Lifetime> {
    if count == 2 && names.is_null() {
        return Some(Lifetime::default());
    }
    let positional = count.checked_sub(2).filter(|&positional| positional <= 2)?;
    // SAFETY: the caller's.
    let asked = &unsafe { CallArgs::new(arguments, count, names) }.all()[2..];
    let mut nanos = [None; 2];
    for (at, &value) in asked.iter().enumerate() {
        let which = match at.checked_sub(positional) {
            None => at,
            // SAFETY: `called`; there is a name for each value behind the `count`.
            Some(named) => which_deadline(unsafe { ffi::PyTuple_GET_ITEM(names, named as ffi::Py_ssize_t) })?,
        };
        // SAFETY: `called`; borrowed for the call.
        let value = unsafe { Borrowed::from_ptr(py, value) };
        let given = if value.is_none() { 0 } else { convert::nanos(object::small_number(&value)?)? };
        // That an argument comes twice is for the plain method to say.
        if nanos[which].replace(given).is_some() {
            return None;
        }
    }
    let [ttl, tti] = nanos.map(Option::unwrap_or_default);
    Some(Lifetime { ttl, tti })
}

/// Which of `ttl` and `tti` a name is.
#[inline]
fn which_deadline(name: *mut ffi::PyObject) -> Option<usize> {
    // Relaxed: they were stored before the first call, and are compared, no more.
    [&TTL, &TTI].iter().position(|kept| kept.load(Ordering::Relaxed) == name)
}

/// `Moka.get(key, default=None)`.
unsafe extern "C" fn get(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { find(CacheState::try_get_fast, &PLAIN_GET, slf, arguments, count, names) }
}

/// `Moka.set(key, value, ttl=None, tti=None)`.
unsafe extern "C" fn set(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `called`.
    if let Some(lifetime) = unsafe { lifetime_fast(py, arguments, count as usize, names) } {
        // SAFETY: `called`.
        let (cache, given) = unsafe { read_call(py, slf, arguments, 2) };
        // SAFETY: `called`; borrowed for the call.
        let key = unsafe { Borrowed::from_ptr(py, given[0]) };
        // SAFETY: likewise.
        let value = unsafe { Borrowed::from_ptr(py, given[1]) };
        match cache.get().set_fast(&key, &value, lifetime) {
            FastOutcome::Done => return py.None().into_ptr(),
            FastOutcome::Raised => return ptr::null_mut(),
            FastOutcome::Fallback => {}
        }
    }
    // SAFETY: `called`; the same arguments.
    unsafe { call_plain(&PLAIN_SET, slf, arguments, count, names) }
}

/// `Moka.remove(key, default=None)`.
unsafe extern "C" fn remove(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { find(CacheState::remove_fast, &PLAIN_REMOVE, slf, arguments, count, names) }
}

/// `Moka.get_with(key, initializer, ttl=None, tti=None)`.
unsafe extern "C" fn get_with(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `called`.
    if let Some(lifetime) = unsafe { lifetime_fast(py, arguments, count as usize, names) } {
        // SAFETY: `called`.
        let (cache, given) = unsafe { read_call(py, slf, arguments, 2) };
        // SAFETY: `called`; borrowed for the call.
        let key = unsafe { Borrowed::from_ptr(py, given[0]) };
        // SAFETY: likewise.
        let initializer = unsafe { Borrowed::from_ptr(py, given[1]) };
        // SAFETY: a live object, and attached.
        let is_callable = unsafe { ffi::PyCallable_Check(given[1]) } != 0;
        if is_callable {
            match cache.get().get_with_fast(&key, &initializer, lifetime) {
                Ok(value) => return value,
                Err(FastOutcome::Fallback) => {}
                Err(_) => return ptr::null_mut(),
            }
        }
    }
    // SAFETY: `called`; the same arguments.
    unsafe { call_plain(&PLAIN_GET_WITH, slf, arguments, count, names) }
}

/// # Safety
/// - The arguments are those of a call of a method of `Moka` by the interpreter.
#[cold]
unsafe fn call_plain(
    plain: &Kept,
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let named = if names.is_null() {
        0
    } else {
        // SAFETY: the caller's; names are a tuple.
        unsafe { ffi::PyTuple_GET_SIZE(names) }
    };
    // SAFETY: the caller's; so many arguments are there.
    let given = unsafe { std::slice::from_raw_parts(arguments, (count + named) as usize) };
    let mut all = SmallVec::<[*mut ffi::PyObject; 6]>::from_slice(&[slf]);
    all.extend_from_slice(given);
    // Acquire: pairs with the Release in `replace`.
    let plain = plain.load(Ordering::Acquire);
    // SAFETY: `whole`; the instance and the arguments are alive for the call.
    unsafe { ffi::PyObject_Vectorcall(plain, all.as_ptr(), count as usize + 1, names) }
}
