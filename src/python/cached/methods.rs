//! The methods of the state of a cached function, for Python: the `cache_*` attributes of the function, and
//! those that `_cached.py` and `_flight.py` call.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup;
use crate::python::cached::owner_registry::OwnerRegistry;
use crate::python::cached::run::{self, CachedRun};
use crate::python::cached::state::{CachedState, Options};
use crate::python::cached::weak_self::WeakSelf;
use crate::python::ffi::{Arg, Args};
use crate::python::moka::Moka;
use crate::python::moka::convert::{self, Deadlines};
use crate::python::moka::state::CacheState;
use crate::python::moka::stats::Load;

#[pymethods]
impl CachedState {
    #[new]
    #[pyo3(signature = (
        function, cache, info, *, typed, shared, make_key, owners, make_owner, is_async, error_types, error_nanos
    ))]
    #[expect(clippy::too_many_arguments, reason = "all that a cached function is made of")]
    fn __new__(
        py: Python<'_>,
        function: Py<PyAny>,
        cache: Py<Moka>,
        info: Py<PyAny>,
        typed: bool,
        shared: bool,
        make_key: Option<Py<PyAny>>,
        owners: Option<Py<OwnerRegistry>>,
        make_owner: Option<Py<PyAny>>,
        is_async: bool,
        error_types: Option<&Bound<'_, PyTuple>>,
        error_nanos: u64,
    ) -> PyResult<Self> {
        if let Some(types) = error_types {
            cache.get().keep_errors(types, error_nanos)?;
        }
        let weak_self = owners.zip(make_owner).map(|(owners, make_owner)| WeakSelf { owners, make_owner });
        let options = Options { is_typed: typed, is_shared: shared, make_key, weak_self, is_async };
        CachedState::new(py, function, cache, info, options)
    }

    /// Return the hits and misses since the function was made or last cleared, and how full the cache is.
    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let size = self.cache().bind(py).call_method0("weighted_size")?;
        let counts = self.moka().counts();
        self.info(py).call1((counts.hits(), counts.misses(), size))
    }

    /// Remove all results, and count anew.
    fn cache_clear(&self, py: Python<'_>) -> PyResult<()> {
        self.cache().bind(py).call_method0("clear")?;
        self.moka().reset_stats(py);
        Ok(())
    }

    /// Remove the result of a call with these arguments. Return whether there was one.
    #[pyo3(signature = (*args, **keywords))]
    fn cache_invalidate(
        &self,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<bool> {
        let Some(key) = self.key_of(args, keywords)? else { return Ok(false) };
        let py = args.py();
        let query = key.query(py);
        let result = self.moka().remove(py, &query)?;
        if let Some(kept_errors) = self.moka().kept_errors() {
            kept_errors.remove(&query)?;
        }
        Ok(result.is_some())
    }

    /// Return whether the cache has a result of a call with these arguments. This does not count as an access.
    #[pyo3(signature = (*args, **keywords))]
    fn cache_contains(
        &self,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<bool> {
        let Some(key) = self.key_of(args, keywords)? else { return Ok(false) };
        let py = args.py();
        Ok(CacheState::peek(self.moka(), py, &key.query(py))?.is_some())
    }

    /// Store the result of a call with these arguments. It replaces a result that they have.
    #[pyo3(signature = (value, /, *args, **keywords))]
    fn cache_set(
        &self,
        value: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let Some(key) = self.key_of(args, keywords)? else { return Ok(()) };
        let py = args.py();
        self.moka().set(key.query(py), value, &Deadlines::NONE)?;
        Ok(run::record_result(py, self, &key)?)
    }

    /// Counts a call that got its result without running the function.
    fn _record_hit(&self) {
        self.record_hit();
    }

    /// Counts a call that runs the function.
    fn _record_miss(&self) {
        self.record_miss();
    }

    /// Returns the instant at which a load begins.
    fn _begin_load(&self) -> u64 {
        Load::begin().start()
    }

    /// Counts a load that began at `start` and has ended.
    fn _end_load(&self, start: u64, is_failure: bool) {
        self.moka().counts().end_load(Load::from_start(start), is_failure);
    }

    /// Begins a run of these arguments, whether or not they have a result. Returns `None` if calls have no keys.
    #[pyo3(signature = (*args, **keywords))]
    fn _begin_refresh(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<CachedRun>> {
        let key = slf.get().key_of(args, keywords)?;
        key.map(|key| CachedRun::begin_refresh(slf, key)).transpose()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.visit(&visit)
    }
}

impl CachedState {
    /// Returns the key of a call whose arguments came as a tuple and a dict, unless calls have no keys.
    fn key_of(
        &self,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<CallKey>> {
        if self.is_keyless() {
            return Ok(None);
        }
        let py = args.py();
        let named: Vec<_> = keywords.map(|keywords| keywords.iter().collect()).unwrap_or_default();
        let names = PyTuple::new(py, named.iter().map(|(name, _)| name))?;
        let all: Vec<_> = args.iter().chain(named.into_iter().map(|(_, value)| value)).collect();
        let all: Vec<Arg<'_>> = all.iter().map(Bound::as_borrowed).collect();
        Ok(Some(lookup::key_of(self, &Args::with_names(&all, &names))?))
    }
}

/// Returns the option `error_ttl` in nanoseconds.
#[pyfunction]
#[pyo3(name = "_error_nanos")]
pub(in crate::python) fn error_nanos(error_ttl: &Bound<'_, PyAny>) -> PyResult<u64> {
    convert::required_nanos("error_ttl", error_ttl)
}
