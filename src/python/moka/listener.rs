//! The user's functions: the eviction listener and the weigher.
//!
//! They are called also from bare C functions, where PyO3 takes the thread for detached; so without its help.
//!
//! # Invariants
//! - `attached`: whoever calls one is attached to the interpreter.

#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::python::moka::convert;
use crate::python::moka::state::FastOutcome;
use crate::python::object::{self, Object};
use crate::python::runtime::interpreter::RecursionGuard;
use crate::reclaim::{AtomicHandle, RetireList, pin};
use crate::{Cause, Removals};

/// A function of the user that the collector may take away.
pub(crate) struct Callback(AtomicHandle<Option<Object>>);

impl Callback {
    pub fn new(function: Option<&Bound<'_, PyAny>>) -> Self {
        Callback(AtomicHandle::new(function.map(Object::of)))
    }

    fn get(&self) -> Option<Object> {
        self.0.read(&pin()).clone()
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.read(&pin()).as_ref().map_or(Ok(()), |function| function.visit(visit))
    }

    /// Lets go of the function: the cache is unreachable, so nobody else reads it.
    pub fn clear(&self) {
        let mut bin = RetireList::<_, 1>::default();
        bin.put(self.0.swap(None));
    }
}

/// Tells the listener of each that left, in order. Its exceptions go to `sys.unraisablehook`.
pub(crate) fn tell(py: Python<'_>, listener: &Callback, removed: &Removals<Object, Object>) {
    let Some(listener) = listener.get() else { return };
    for departure in removed.iter() {
        let Some(key) = departure.key() else { continue };
        let event = [key.as_ptr(), departure.value().as_ptr(), cause_str(py, departure.cause()).as_ptr()];
        if call(py, &listener, event).is_none() {
            // SAFETY: `attached`; an exception is set.
            unsafe { ffi::PyErr_WriteUnraisable(listener.as_ptr()) };
        }
    }
}

/// Calls a function; `None` with an exception set.
fn call<'py, const N: usize>(
    py: Python<'py>,
    function: &Object,
    arguments: [*mut ffi::PyObject; N],
) -> Option<Bound<'py, PyAny>> {
    let (function, nothing) = (function.as_ptr(), ptr::null_mut());
    // SAFETY: `attached`; so many live objects, and no names.
    let result = unsafe { ffi::PyObject_Vectorcall(function, arguments.as_ptr(), N, nothing) };
    // SAFETY: a new reference, or null.
    unsafe { Bound::from_owned_ptr_or_opt(py, result) }
}

/// Makes the names of the causes, which a bare C function cannot.
pub(crate) fn prepare(py: Python<'_>) {
    for cause in [Cause::Expired, Cause::Explicit, Cause::Replaced, Cause::Size] {
        cause_str(py, cause);
    }
}

fn cause_str(py: Python<'_>, cause: Cause) -> &Bound<'_, PyString> {
    match cause {
        Cause::Expired => intern!(py, "expired"),
        Cause::Explicit => intern!(py, "explicit"),
        Cause::Replaced => intern!(py, "replaced"),
        Cause::Size => intern!(py, "size"),
    }
}

/// The weight of an entry: 1, or what the weigher says.
pub(crate) fn weigh(weigher: &Callback, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    let Some(weigher) = weigher.get() else { return Ok(1) };
    let _deeper = RecursionGuard::enter(key.py())?;
    convert::weight(&weigher.bind(key.py()).call1((key, value))?)
}

/// The same from a bare C function.
pub(crate) fn weigh_fast(
    weigher: &Callback,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Result<u32, FastOutcome> {
    let Some(weigher) = weigher.get() else { return Ok(1) };
    let _deeper = RecursionGuard::enter_at_once(key.py()).ok_or(FastOutcome::Raised)?;
    let weight = call(key.py(), &weigher, [key.as_ptr(), value.as_ptr()]).ok_or(FastOutcome::Raised)?;
    match object::small_int(&weight).and_then(|weight| u32::try_from(weight).ok()) {
        Some(weight) => Ok(weight),
        None => FastOutcome::attached(key.py(), |_| convert::weight(&weight)),
    }
}
