//! The user's functions: the eviction listener and the weigher.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::convert;
use super::object::Object;
use crate::reclaim::{Bin, Swap, pin};
use crate::{Cause, Departures};

/// A function of the user that the collector may take away.
pub(crate) struct Hook(Swap<Option<Object>>);

impl Hook {
    pub fn new(function: Option<&Bound<'_, PyAny>>) -> Self {
        Hook(Swap::new(function.map(Object::of)))
    }

    fn get(&self) -> Option<Object> {
        self.0.read(&pin()).clone()
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.read(&pin()).as_ref().map_or(Ok(()), |function| function.visit(visit))
    }

    /// Lets go of the function: the cache is unreachable, so nobody else reads it.
    pub fn clear(&self) {
        let mut bin = Bin::<_, 1>::default();
        bin.put(self.0.swap(None));
    }
}

/// Tells the listener of each that left, in order. Its exceptions go to `sys.unraisablehook`.
pub(crate) fn tell(py: Python<'_>, listener: &Hook, left: &Departures<Object, Object>) {
    let Some(listener) = listener.get() else { return };
    for departure in left.iter() {
        let Some(key) = departure.key() else { continue };
        let event = (key.bind(py), departure.value().bind(py), cause_str(py, departure.cause()));
        if let Err(error) = listener.bind(py).call1(event) {
            error.write_unraisable(py, Some(listener.bind(py)));
        }
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
pub(crate) fn weigh(weigher: &Hook, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<u32> {
    match weigher.get() {
        None => Ok(1),
        Some(weigher) => convert::weight(&weigher.bind(key.py()).call1((key, value))?),
    }
}
