//! [`KeptErrors`]: failures of a cached function, kept for a while beside the results in its cache.
//!
//! # How it works
//! They are in a [`CacheState`] of their own, under the keys of their calls. A call looks here after it has found no
//! result. An exception that is kept has no traceback, and no thread ever raises it: each call raises a copy.
//!
//! While an error is kept, the run that failed stays registered in the cache of the results. So each write to the key
//! there supersedes the run, as it supersedes runs that are in progress, and the error of a superseded run counts as
//! absent. That also holds for writes that name no key, such as `remove_if`. The run ends when its error is dropped.
//!
//! # Invariants
//! - `no-value`: an error is not kept beside a result of its key. A run that fails stores the error, then looks for a
//!   result, and removes the error if there is one. A run that succeeds stores the result, then removes the error. So if
//!   one of each goes on at the same time, one of them sees what the other one has stored.

use std::sync::Weak;

use pyo3::PyTypeInfo;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::ffi;
use crate::python::moka::convert::Duration;
use crate::python::moka::listener::Callback;
use crate::python::moka::state::CacheState;
use crate::python::object::key::Key;
use crate::python::object::{Object, shared_error};
use crate::python::raised::Raised;
use crate::sync::full_fence;
use crate::{Config, Lifetime, NewValue, Run};

pub(crate) struct KeptErrors {
    store: Box<CacheState>,
    /// The cache of the results.
    results: Weak<CacheState>,
    /// A tuple of subclasses of `Exception`.
    types: Object,
    /// Functions of `_exceptions.py`.
    copy_to_keep: Object,
    copy_kept: Object,
}

/// An error that is kept.
#[pyclass(module = "moka_py", name = "_KeptError", frozen)]
struct KeptError {
    exception: Object,
    /// The run that failed.
    run: Run,
    results: Weak<CacheState>,
}

#[pymethods]
impl KeptError {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.exception.visit(&visit)
    }
}

impl Drop for KeptError {
    fn drop(&mut self) {
        // Without a cache of results there is no registration.
        if let Some(results) = self.results.upgrade() {
            results.core().end_run(self.run);
        }
    }
}

impl KeptErrors {
    /// Makes the store for a cache of results with this configuration. Each error of the types is kept for `nanos`
    /// nanoseconds.
    pub fn new(
        results: Weak<CacheState>,
        config: &Config,
        types: &Bound<'_, PyTuple>,
        nanos: u64,
    ) -> PyResult<Self> {
        let py = types.py();
        // So that no later call makes the class or imports a module.
        KeptError::type_object_raw(py);
        let module = py.import("moka_py._exceptions")?;
        let function = |name: &str| module.getattr(name).map(|function| Object::new(function.unbind()));
        let lifetime = Lifetime { ttl: nanos, tti: 0 };
        let config = Config { lifetime, ..Config::new(config.capacity, config.policy) };
        let callbacks = [(); 4].map(|()| Callback::new(None));
        Ok(KeptErrors {
            store: Box::new(CacheState::new(config, callbacks, [Duration::default(); 3], false)),
            results,
            types: Object::of(types.as_any()),
            copy_to_keep: function("copy_to_keep")?,
            copy_kept: function("copy_kept")?,
        })
    }

    /// The cache that holds the errors.
    pub fn store(&self) -> &CacheState {
        &self.store
    }

    /// Keeps the exception of a run that failed. It does not if the type is another one, the exception cannot be copied,
    /// the run was superseded, or the key has a result.
    ///
    /// Returns whether it has taken over the run, which the caller ends otherwise. It raises only what a signal handler
    /// raised meanwhile.
    pub fn keep(&self, query: &Key<'_, '_>, run: Run, exception: &Bound<'_, PyAny>) -> Result<bool, Raised> {
        let py = exception.py();
        let Some(results) = self.results.upgrade() else { return Ok(false) };
        if !ffi::is_of_types(exception, self.types.bind(py)) || results.core().is_superseded(run) {
            return Ok(false);
        }
        self.try_keep(&results, query, run, exception).or_else(|raised| {
            let error = ffi::take_raised(py, raised);
            if shared_error::is_failure(&error) { Ok(false) } else { Err(ffi::set_exception(error)) }
        })
    }

    fn try_keep(
        &self,
        results: &CacheState,
        query: &Key<'_, '_>,
        run: Run,
        exception: &Bound<'_, PyAny>,
    ) -> Result<bool, Raised> {
        let py = exception.py();
        let copy = ffi::call(self.copy_to_keep.bind(py), [exception])?;
        if copy.is_none() {
            return Ok(false);
        }
        let kept =
            KeptError { exception: Object::new(copy.unbind()), run, results: Weak::clone(&self.results) };
        let kept = Raised::catch(py, || Bound::new(py, kept))?;
        // From here on the drop of `kept` ends the run. It is harmless if the caller ends it, too.
        results.core().hold_run(run);
        self.store.set_new(query, NewValue::plain(Object::for_cache(kept.as_any())))?;
        // A run that has stored a result, and found no error to remove, is seen by the look-up (`no-value`).
        full_fence();
        if results.core().is_superseded(run) || results.peek(py, query)?.is_some() {
            self.remove(query)?;
        }
        Ok(true)
    }

    /// Returns a copy of the exception that is kept for a key, to raise.
    pub fn copy_of<'py>(&self, query: &Key<'_, 'py>) -> Result<Option<Bound<'py, PyAny>>, Raised> {
        let py = query.object().py();
        let found = match self.store.core().try_get_fast(query) {
            Some(found) => found,
            None => self.store.run(py, |removed| self.store.core().get(query, removed))?,
        };
        let Some(found) = found else { return Ok(None) };
        let Ok(kept) = found.bind(py).cast::<KeptError>() else { return Ok(None) };
        let KeptError { exception, run, results } = kept.get();
        if results.upgrade().is_none_or(|results| results.core().is_superseded(*run)) {
            self.remove(query)?;
            return Ok(None);
        }
        ffi::call(self.copy_kept.bind(py), [exception.bind(py)]).map(Some)
    }

    /// Removes the error of a key.
    pub fn remove(&self, query: &Key<'_, '_>) -> Result<(), Raised> {
        self.store.remove(query.object().py(), query).map(drop)
    }

    /// Shows the collector each object that this holds.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.types, &self.copy_to_keep, &self.copy_kept] {
            object.visit(visit)?;
        }
        self.store.visit(visit)
    }
}
