//! [`Fill`]: a value on its way from the server into the local tier.
//!
//! # Invariants
//! - `before-request`: a fill begins before its request is sent. A removal of the key from then on, such as by an
//!   invalidation, keeps the value out (law 13).
//! - `counted-from-begin`: the lifetime of the entry is counted from the begin of the fill, so the entry ends no later than
//!   that of the server.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::Run;
use crate::python::moka::Moka;
use crate::python::moka::convert::{Deadlines, Ttl};

/// It ends with this object at the latest.
#[pyclass(module = "moka_py.near", name = "_Fill", frozen)]
pub(in crate::python) struct Fill {
    cache: Py<Moka>,
    key: Py<PyAny>,
    run: Run,
    begun_at: u64,
}

impl Fill {
    pub fn new(cache: Py<Moka>, key: Py<PyAny>, run: Run, begun_at: u64) -> Self {
        Fill { cache, key, run, begun_at }
    }

    fn end(&self) {
        self.cache.get().core().end_run(self.run);
    }
}

#[pymethods]
impl Fill {
    /// Stores the value, unless the key was removed since the fill began. `lifetime` is the remaining nanoseconds of the
    /// server's entry when the fill began, or `None`. Returns false if a removal has kept the value out.
    #[pyo3(signature = (value, lifetime=None))]
    fn finish(&self, value: &Bound<'_, PyAny>, lifetime: Option<u64>) -> PyResult<bool> {
        let cache = self.cache.get();
        let left = |lifetime: u64| {
            (self.begun_at.saturating_add(lifetime)).saturating_sub(cache.core().clock().now())
        };
        let ttl = match lifetime.map(left) {
            // The server's entry may be at its end.
            Some(0) => {
                let is_superseded = cache.core().is_superseded(self.run);
                self.end();
                return Ok(!is_superseded);
            }
            left => left.unwrap_or_default(),
        };
        let key = self.key.bind(value.py());
        let deadlines = Deadlines { ttl: Ttl::Nanos(ttl), tti: 0 };
        let kept = cache.key(key).and_then(|query| cache.keep_result(&query, self.run, value, &deadlines));
        Ok(kept.inspect_err(|_raised| self.end())?)
    }

    /// Whether the key was removed since the fill began.
    fn is_superseded(&self) -> bool {
        self.cache.get().core().is_superseded(self.run)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)?;
        visit.call(&self.key)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.end();
    }
}
