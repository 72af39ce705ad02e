//! A clock that stands still, for tests of what time does. The core asks in any case which clock a cache has, so no call
//! pays for it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::Clock;

thread_local! {
    /// The clocks that this thread has entered, the last one on top.
    static ENTERED: RefCell<Vec<Arc<AtomicU64>>> = const { RefCell::new(Vec::new()) };
}

/// The clock of a cache that this thread makes now.
pub(crate) fn of_new_cache() -> Clock {
    ENTERED.with_borrow(|entered| entered.last().cloned().map_or(Clock::Process, Clock::Manual))
}

/// Caches that its thread makes inside of `with` go by it for good.
#[pyclass(module = "moka_py", name = "_ManualClock", frozen)]
pub(crate) struct ManualClock(Arc<AtomicU64>);

#[pymethods]
impl ManualClock {
    #[new]
    fn new() -> Self {
        ManualClock(Arc::default())
    }

    /// Moves it on.
    fn advance(&self, nanos: u64) -> PyResult<()> {
        let advanced = |now: u64| now.checked_add(nanos).filter(|&now| now < Clock::END - 1);
        // Relaxed: a program that shares the clock between threads orders their calls.
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advanced) {
            Ok(_) => Ok(()),
            Err(now) => Err(PyOverflowError::new_err(format!(
                "nanos must keep the clock below 144 years, got {nanos} at {now}"
            ))),
        }
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        ENTERED.with_borrow_mut(|entered| entered.push(Arc::clone(&slf.get().0)));
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyTuple>) {
        ENTERED.with_borrow_mut(Vec::pop);
    }
}
