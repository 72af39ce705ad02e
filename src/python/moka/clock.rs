//! [`ManualClock`]: a clock for tests, which stands still until the test advances it.
//!
//! # How it works
//! While a clock is entered, each new cache of the process gets it as its clock, for good. An existing cache that the clock
//! was given is stopped for that time, and each advance goes to it, too. The core checks in any case whether a cache has
//! another clock than that of the process, so no call of another cache gets slower.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::moka::class::Moka;
use crate::python::moka::convert;
use crate::python::runtime::race_cell::interned;
use crate::{CacheClock, Clock};

/// The time of the clock that is entered. No Python code runs while a thread holds the lock.
static ENTERED: Mutex<Option<Arc<AtomicU64>>> = Mutex::new(None);
/// Whether there is one. A program that enters no clock never takes the lock, so a fork cannot leave it locked.
static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// The clock for a cache that is made now.
pub(crate) fn of_new_cache() -> Clock {
    // Acquire: pairs with the Release in `__enter__`.
    if !IS_ENTERED.load(Ordering::Acquire) {
        return Clock::Process;
    }
    let entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
    entered.as_ref().map_or(Clock::Process, |now| Clock::Manual(Arc::clone(now)))
}

/// Returns a cache, or the cache of a cached function.
fn cache_of<'py>(position: usize, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Moka>> {
    if let Ok(cache) = object.cast::<Moka>() {
        return Ok(cache.clone());
    }
    if let Some(cache) = object.getattr_opt(interned!(object.py(), "cache"))?
        && let Ok(cache) = cache.cast_into::<Moka>()
    {
        return Ok(cache);
    }
    let what = convert::type_name(object);
    let text = "caches must have caches and cached functions";
    Err(PyTypeError::new_err(format!("{text}, got {what} in its element {position}")))
}

#[doc = doc!("ManualClock")]
#[pyclass(module = "moka_py.testing", name = "ManualClock", frozen)]
pub(crate) struct ManualClock {
    now: Arc<AtomicU64>,
    /// The existing caches that it moves, each once.
    caches: Vec<Py<Moka>>,
    is_entered: AtomicBool,
}

impl ManualClock {
    /// The clocks of the existing caches, and of the errors that they keep.
    fn clocks(&self) -> impl Iterator<Item = &CacheClock> {
        let states = self.caches.iter().flat_map(|cache| cache.get().with_error_store());
        states.map(|state| state.core().clock())
    }
}

#[pymethods]
impl ManualClock {
    #[new]
    #[pyo3(signature = (caches=None))]
    fn new(caches: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut moved: Vec<Py<Moka>> = Vec::new();
        if let Some(caches) = caches {
            let rule = "an iterable of caches and cached functions";
            for (position, object) in convert::iterate("caches", rule, caches)?.enumerate() {
                let cache = cache_of(position, &object?)?;
                if !moved.iter().any(|other| other.is(&cache)) {
                    moved.push(cache.unbind());
                }
            }
        }
        Ok(ManualClock { now: Arc::default(), caches: moved, is_entered: AtomicBool::new(false) })
    }

    #[doc = doc!("ManualClock.advance")]
    fn advance(&self, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        let nanos = convert::required_nanos("seconds", seconds)?;
        let advanced = |now: u64| now.checked_add(nanos).filter(|&now| now < Clock::END - 1);
        // Relaxed: a program that shares the clock between threads orders their calls.
        if self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advanced).is_err() {
            let what = convert::show(seconds)?;
            return Err(PyOverflowError::new_err(format!(
                "seconds must keep the clock below 144 years, got {what}"
            )));
        }
        if self.is_entered.load(Ordering::Relaxed) {
            self.clocks().for_each(|clock| clock.advance(nanos));
        }
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let this = slf.get();
        let is_nested = {
            let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
            let is_nested = entered.is_some();
            if !is_nested {
                *entered = Some(Arc::clone(&this.now));
                this.is_entered.store(true, Ordering::Relaxed);
                this.clocks().for_each(CacheClock::stop);
                // Release: pairs with the Acquire in `of_new_cache`.
                IS_ENTERED.store(true, Ordering::Release);
            }
            is_nested
        };
        if is_nested {
            let text = "a ManualClock is entered already in this process, and they cannot be nested";
            return Err(PyRuntimeError::new_err(text));
        }
        Ok(slf)
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, _args: &Bound<'_, PyTuple>) {
        let mut entered = ENTERED.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_entered.swap(false, Ordering::Relaxed) {
            IS_ENTERED.store(false, Ordering::Release);
            *entered = None;
            self.clocks().for_each(CacheClock::start);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.caches.iter().try_for_each(|cache| visit.call(cache))
    }
}
