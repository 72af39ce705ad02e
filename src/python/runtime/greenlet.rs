//! The greenlet that runs on this thread. Greenlets of one thread take turns on it, so one cannot wait for another.
//!
//! # How it works
//! A load records the greenlet that began it. If a thread asks for a key that the same thread loads already, either the load asks
//! for its own key, or another greenlet does. The record tells which. The package `greenlet` is looked for among the imported
//! modules each time that their number has changed. A load that began before the package was imported has no record, and counts
//! as that of another greenlet.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `MODULES_SEEN` | Relaxed | Relaxed | a look-up too many does no harm |

use std::sync::OnceLock;
use std::sync::atomic::{AtomicIsize, Ordering};

use pyo3::prelude::*;

use crate::python::ffi;
use crate::python::object::Object;

/// The function `greenlet.getcurrent`, once the program has imported that package. It is never dropped.
static GET_CURRENT: OnceLock<Object> = OnceLock::new();

/// The number of modules at the last look-up of the package.
static MODULES_SEEN: AtomicIsize = AtomicIsize::new(NEVER);
const NEVER: isize = -1;

/// The record of a load that no greenlet is known to have begun.
const UNKNOWN: usize = 0;

/// The address of the greenlet that runs now. No other greenlet has it while loads of that greenlet are in flight.
#[inline]
pub(in crate::python) fn current(py: Python<'_>) -> usize {
    if let Some(get_current) = GET_CURRENT.get() {
        return call(py, get_current);
    }
    let count = ffi::count_modules(py).unwrap_or(NEVER);
    if count == MODULES_SEEN.load(Ordering::Relaxed) { UNKNOWN } else { current_slow(py, count) }
}

#[cold]
fn current_slow(py: Python<'_>, count: isize) -> usize {
    MODULES_SEEN.store(count, Ordering::Relaxed);
    find(py).map_or(UNKNOWN, |get_current| call(py, get_current))
}

/// Whether the recorded greenlet runs now, or the program has no greenlets.
#[cold]
pub(in crate::python) fn is_current(py: Python<'_>, recorded: usize) -> bool {
    find(py).is_none_or(|get_current| call(py, get_current) == recorded)
}

#[cold]
fn call(py: Python<'_>, get_current: &Object) -> usize {
    match ffi::call(get_current.bind(py), []) {
        // The greenlet runs, so it lives on.
        Ok(greenlet) => greenlet.as_ptr().addr(),
        Err(_raised) => {
            ffi::clear(py);
            UNKNOWN
        }
    }
}

/// `greenlet.getcurrent`, if the program has imported that package.
fn find(py: Python<'_>) -> Option<&'static Object> {
    if let Some(get_current) = GET_CURRENT.get() {
        return Some(get_current);
    }
    let module = ffi::imported_module(py, c"greenlet")?;
    let get_current = ffi::attribute_or_none(&module, c"getcurrent")?;
    // Not by `get_or_init`, which could block. A second thread that finds it has found the same function.
    let _ = GET_CURRENT.set(Object::new(get_current.unbind()));
    GET_CURRENT.get()
}
