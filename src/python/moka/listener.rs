//! The objects of the user that a cache calls: the eviction listener, the weigher, the ttl function and the executor.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::python::ffi;
use crate::python::moka::convert;
use crate::python::object::{Object, builtin};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::python::runtime::race_cell::interned;
use crate::reclaim::{AtomicHandle, RetireList, pin};
use crate::{Cause, Removals};

/// A function of the user, or an executor, which the collector may take away.
pub(crate) struct Callback(AtomicHandle<Option<Object>>);

impl Callback {
    pub fn new(function: Option<&Bound<'_, PyAny>>) -> Self {
        Callback(AtomicHandle::new(function.map(Object::of)))
    }

    pub fn get(&self) -> Option<Object> {
        self.0.read(&pin()).clone()
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.read(&pin()).as_ref().map_or(Ok(()), |function| function.visit(visit))
    }

    /// Drops the function. The cache is unreachable, so no other thread reads it.
    pub fn clear(&self) {
        let mut retired = RetireList::<_, 1>::default();
        retired.put(self.0.swap(None));
    }
}

/// Calls the listener for each removal, in order. Its exceptions go to `sys.unraisablehook`.
pub(crate) fn notify(py: Python<'_>, listener: &Callback, removed: &Removals<Object, Object>) {
    let Some(listener) = listener.get() else { return };
    let listener = listener.bind(py);
    for removal in removed.iter() {
        let Some(key) = removal.key() else { continue };
        let cause = cause_name(py, removal.cause());
        if let Err(raised) = ffi::call(listener, [key.bind(py), removal.value().bind(py), cause]) {
            ffi::write_unraisable(raised, listener);
        }
    }
}

/// Makes the names of the causes, so that no report needs memory for them.
pub(crate) fn make_cause_names(py: Python<'_>) {
    for cause in [Cause::Expired, Cause::Explicit, Cause::Replaced, Cause::Size] {
        cause_name(py, cause);
    }
}

fn cause_name(py: Python<'_>, cause: Cause) -> &Bound<'_, PyAny> {
    let name: &Bound<'_, PyString> = match cause {
        Cause::Expired => interned!(py, "expired"),
        Cause::Explicit => interned!(py, "explicit"),
        Cause::Replaced => interned!(py, "replaced"),
        Cause::Size => interned!(py, "size"),
    };
    name.as_any()
}

/// Calls the weigher of a cache that has one, and returns the weight of the entry.
pub(crate) fn weigh(
    weigher: &Callback,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Result<u32, Raised> {
    // The collector has taken the weigher away.
    let Some(weigher) = weigher.get() else { return Ok(1) };
    let py = key.py();
    let _guard = RecursionGuard::enter(py)?;
    let weight = ffi::call(weigher.bind(py), [key, value])?;
    match builtin::small_int(&weight).and_then(|weight| u32::try_from(weight).ok()) {
        Some(weight) => Ok(weight),
        None => Raised::catch(py, || convert::weight(&weight)),
    }
}

/// Calls a ttl function, and returns the ttl of the entry in nanoseconds: 0 for no deadline. `None` says that the value is
/// not to be kept.
pub(crate) fn ttl(
    function: &Bound<'_, PyAny>,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Result<Option<u64>, Raised> {
    let py = key.py();
    let _guard = RecursionGuard::enter(py)?;
    let ttl = ffi::call(function, [key, value])?;
    match builtin::small_number(&ttl).and_then(convert::nanos) {
        Some(nanos) => Ok(Some(nanos)),
        None => Raised::catch(py, || convert::ttl_result(&ttl)),
    }
}
