//! [`LocalTier`]: a cache that answers only until a deadline, which the listener of the near cache moves on.
//!
//! # How it works
//! A key is an exact `str`, or an exact `bytes` that is not UTF-8. Other keys are converted, so that each key of the server
//! has one form here: 1, `"1"` and `b"1"` are one key. An absence is an entry, too: its value is the marker `absent`.
//!
//! # Invariants
//! - `deadline-first`: a look-up reads the deadline, then the clock, then the entry. So the entry is at least as new as the
//!   deadline promises.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `live_until` | Release, in `set_live_until` | Acquire, in `is_live` | a reader that sees a deadline sees each removal before it |

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString};

use crate::RunStart;
use crate::python::moka::Moka;
use crate::python::near::clock;
use crate::python::near::fill::Fill;
use crate::python::object::{Object, builtin};

#[pyclass(module = "moka_py.near", name = "_LocalTier", frozen, weakref)]
pub(in crate::python) struct LocalTier {
    cache: Py<Moka>,
    /// The value of an entry for a key that the server does not have.
    absent: Py<PyAny>,
    /// The tier answers before this instant.
    live_until: AtomicU64,
    /// Whether the cache was made with the clock of a test. Then the deadline is by that clock, too.
    has_manual_clock: bool,
}

impl LocalTier {
    #[inline]
    pub fn is_live(&self) -> bool {
        // Acquire: pairs with the Release in `set_live_until`.
        let live_until = self.live_until.load(Ordering::Acquire);
        self.now() < live_until
    }

    #[inline]
    fn now(&self) -> u64 {
        if self.has_manual_clock { self.cache.get().core().clock().now() } else { clock::now() }
    }

    pub fn is_absent(&self, value: &Object) -> bool {
        value.as_ptr() == self.absent.as_ptr()
    }

    /// Returns the value of a key, or the marker of an absence. Returns `None` if there is no entry, if the tier may not
    /// answer, and for keys of other types. Counts a hit or a miss only if the tier may answer.
    #[inline]
    pub fn look_up(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Object>> {
        // `deadline-first`.
        if !self.is_live() {
            return Ok(None);
        }
        if builtin::is_str(key) {
            self.look_up_canonical(key)
        } else {
            canonical(key)?.map_or(Ok(None), |key| self.look_up_canonical(&key))
        }
    }

    #[inline]
    fn look_up_canonical(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Object>> {
        let cache = self.cache.get();
        match cache.get_fast(key) {
            Some(found) => Ok(found),
            None => Ok(cache.get(key.py(), &cache.key(key)?)?),
        }
    }
}

/// The form in which the tier has a key; `None` for a type that is converted in Python, or is refused there.
fn canonical<'py>(key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if key.is_exact_instance_of::<PyInt>() {
        return Ok(Some(key.str()?.into_any()));
    }
    if key.is_exact_instance_of::<PyBytes>()
        && let Ok(bytes) = key.cast::<PyBytes>()
    {
        let text = std::str::from_utf8(bytes.as_bytes());
        return Ok(Some(text.map_or_else(|_| key.clone(), |text| PyString::new(key.py(), text).into_any())));
    }
    Ok(None)
}

#[pymethods]
impl LocalTier {
    #[new]
    fn new(cache: Py<Moka>, absent: Py<PyAny>) -> Self {
        let has_manual_clock = cache.get().core().clock().is_manual();
        LocalTier { cache, absent, live_until: AtomicU64::new(0), has_manual_clock }
    }

    #[getter]
    fn live_until(&self) -> u64 {
        self.live_until.load(Ordering::Acquire)
    }

    fn set_live_until(&self, instant: u64) {
        // Release: pairs with the Acquire in `is_live`.
        self.live_until.store(instant, Ordering::Release);
    }

    #[pyo3(name = "now")]
    fn py_now(&self) -> u64 {
        self.now()
    }

    #[pyo3(name = "is_live")]
    fn py_is_live(&self) -> bool {
        self.is_live()
    }

    /// Returns the value of a key, or the marker of an absence, or `missing`.
    #[pyo3(name = "look_up")]
    fn py_look_up<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        missing: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.look_up(key)?.map_or(missing, |found| found.into_bound(key.py())))
    }

    /// Begins the fill of a key, before the server is asked. Returns `None` if another thread has filled it meanwhile.
    fn begin_fill(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>) -> PyResult<Option<Fill>> {
        let cache = &slf.get().cache;
        let state = cache.get();
        let begun_at = state.core().clock().now();
        let query = state.key(key)?;
        Ok(match state.begin_run(slf.py(), &query)? {
            RunStart::Run(run) => {
                Some(Fill::new(cache.clone_ref(slf.py()), key.clone().unbind(), run, begun_at))
            }
            RunStart::Present(_) => None,
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)?;
        visit.call(&self.absent)
    }
}
