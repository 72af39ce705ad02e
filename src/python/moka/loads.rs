//! Loads and runs: the operations of [`CacheState`] that store what a user's function computes.
//!
//! A load is shared: threads that ask for its key wait for it. A run is not.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::python::ffi::{self, New};
use crate::python::moka::convert::Deadlines;
use crate::python::moka::errors;
use crate::python::moka::removals::Removed;
use crate::python::moka::state::CacheState;
use crate::python::object::Object;
use crate::python::object::key::{Key, LoadKey};
use crate::python::object::shared_error::{self, SharedError};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::python::runtime::shutdown;
use crate::{KeyQuery, LoadError, Run, RunStart};

impl CacheState {
    /// Returns the value of a key that was looked up and not found, computed once for all threads that ask for it.
    /// `is_just_now` says that neither that look-up nor anything since has run a user's code. `compute` counts the load.
    pub fn load<'py>(
        &self,
        query: &Key<'_, 'py>,
        deadlines: &Deadlines<'_>,
        is_just_now: bool,
        compute: impl FnOnce() -> New<'py>,
    ) -> Result<Object, Raised> {
        let key = query.object();
        let py = key.py();
        let compute = |removed: &mut Removed| {
            if !removed.is_untouched() {
                // Now, since a load may take long.
                self.process_removals(py, std::mem::take(removed));
            }
            let load = || {
                let guard = RecursionGuard::enter(py)?;
                let value = compute()?;
                // The weigher and the ttl function have guards of their own.
                drop(guard);
                self.new_value(key, &value, deadlines)
            };
            load().map_err(|raised| shared_error::take_failure(py, raised))
        };
        let mut pause = |park: &(dyn Fn() + Sync)| pause(py, park);
        let query = LoadKey(query);
        let load =
            |removed: &mut Removed| self.core().load(&query, is_just_now, compute, &mut pause, removed);
        self.run(py, load).map_err(|error| raise_load_error(key, error))
    }

    /// Begins a run of a key that was looked up and not found. Other calls do not wait for it.
    #[inline]
    pub fn begin_run<Q: KeyQuery<Object>>(
        &self,
        py: Python<'_>,
        query: &Q,
    ) -> Result<RunStart<Object>, Q::Error> {
        self.run(py, |removed| self.core().begin_run(query, removed))
    }

    /// Ends a run and stores its result, unless the key was written to since the run began. Returns whether it is stored.
    /// After an error the caller ends the run.
    #[inline]
    pub fn keep_result(
        &self,
        query: &Key<'_, '_>,
        run: Run,
        value: &Bound<'_, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> Result<bool, Raised> {
        let new = self.new_value(query.object(), value, deadlines)?;
        self.run(value.py(), |removed| self.core().complete_run(query, run, new, removed))
    }

    /// Does what [`keep_result`](Self::keep_result) does. If the result is stored, earlier computations of the key are
    /// superseded.
    pub fn set_result(
        &self,
        query: &Key<'_, '_>,
        run: Run,
        value: &Bound<'_, PyAny>,
    ) -> Result<bool, Raised> {
        let new = self.new_value(query.object(), value, &Deadlines::NONE)?;
        self.run(value.py(), |removed| self.core().complete_run_as_set(query, run, new, removed))
    }
}

/// A step of a wait for the computation of another thread. Law 2: only the park itself runs detached.
pub(super) fn pause(py: Python<'_>, park: &(dyn Fn() + Sync)) -> Result<(), SharedError> {
    shutdown::wait_detached(py, park);
    ffi::check_signals(py).map_err(|raised| SharedError::new(py, raised))
}

/// Raises the error of a load of this key.
#[cold]
pub(super) fn raise_load_error(key: &Bound<'_, PyAny>, error: LoadError<SharedError>) -> Raised {
    let py = key.py();
    match error {
        LoadError::User(error) => error.raise(py),
        LoadError::OwnKey => raise_runtime_error(py, errors::own_key_message(key)),
        LoadError::Deadlock => raise_runtime_error(py, errors::deadlock_message(key)),
    }
}

#[cold]
fn raise_runtime_error(py: Python<'_>, message: PyResult<String>) -> Raised {
    Raised::set(py, message.map_or_else(|error| error, PyRuntimeError::new_err))
}
