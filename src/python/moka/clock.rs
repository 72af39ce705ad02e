//! [`ManualClock`]: a clock for tests, which stands still. The core checks in any case which clock a cache has, so no call
//! gets slower.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::Clock;

thread_local! {
    /// The clocks whose `with` block this thread is in, the innermost last.
    static ENTERED: RefCell<Vec<Arc<AtomicU64>>> = const { RefCell::new(Vec::new()) };
}

/// The clock for a cache that this thread makes now.
pub(crate) fn of_new_cache() -> Clock {
    ENTERED.with_borrow(|entered| entered.last().cloned().map_or(Clock::Process, Clock::Manual))
}

#[doc = doc!("_ManualClock")]
#[pyclass(module = "moka_py", name = "_ManualClock", frozen)]
pub(crate) struct ManualClock(Arc<AtomicU64>);

#[pymethods]
impl ManualClock {
    #[new]
    fn new() -> Self {
        ManualClock(Arc::default())
    }

    #[doc = doc!("_ManualClock.advance")]
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
