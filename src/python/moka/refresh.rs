//! Refreshes: a call with a loader finds a value that was set longer ago than the `refresh` of its cache.
//!
//! # How it works
//! [`Moka::get_for_load`] is the look-up of such a call. One call of all that find the value gets a [`HeldClaim`] with it,
//! and computes the value anew; all others return the old one:
//! - In a cache with an executor the call submits a [`RefreshJob`], and returns the old value.
//! - In another cache the call itself computes, and returns the new value ([`refresh`]).
//! - The call of a coroutine makes a [`CoroutineClaim`], by which `_flight_table.py` registers and ends its computation.
//!
//! # Invariants
//! - `released`: a claim that is dropped without a new value is released, so another call computes. That needs no user's
//!   code, so a job may be dropped at any time, as by an executor that shuts down.

use std::sync::Arc;

use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::ffi::{self, Arg, Args};
use crate::python::moka::class::Moka;
use crate::python::moka::convert::{Deadlines, HeldDeadlines};
use crate::python::moka::state::CacheState;
use crate::python::moka::stats::Load;
use crate::python::object::key::{Key, LoadKey};
use crate::python::object::{Object, coroutine, shared_error};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::sync::Lock;
use crate::{KeyQuery, LoadLookup, NextRefresh, RefreshClaim, Run};

/// The result of the look-up of a call with a loader.
pub(in crate::python) enum Found {
    Absent,
    Fresh(Object),
    /// A value that is to be computed anew, which is up to this call.
    Stale(Object, HeldClaim),
}

/// A claim that is released when it is dropped (`released`).
pub(in crate::python) struct HeldClaim {
    cache: Arc<CacheState>,
    claim: RefreshClaim,
}

impl HeldClaim {
    /// Whether the old value has not passed its deadline.
    fn is_value_live(&self) -> bool {
        self.cache.core().is_claimed_value_live(self.claim)
    }

    /// Releases the claim after a failure.
    fn postpone(&self) {
        self.cache.core().release_claim(self.claim, NextRefresh::Later);
    }
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        self.cache.core().release_claim(self.claim, NextRefresh::Now);
    }
}

impl Moka {
    /// Looks up a key for a call with a loader. It counts as a use of the entry, and the caller counts the hit or the miss.
    #[inline]
    pub(in crate::python) fn get_for_load<Q: KeyQuery<Object>>(
        &self,
        py: Python<'_>,
        query: &Q,
    ) -> Result<Found, Q::Error> {
        let state: &CacheState = self;
        Ok(match state.run(py, |removed| state.core().get_for_load(query, removed))? {
            LoadLookup::Absent => Found::Absent,
            LoadLookup::Fresh(value) => Found::Fresh(value),
            LoadLookup::Stale(value, claim) => {
                Found::Stale(value, HeldClaim { cache: self.shared(state), claim })
            }
        })
    }
}

/// Is called with the key of a value that was stored, and its hash.
pub(in crate::python) type AfterWrite = fn(&Bound<'_, PyAny>, u64, &Moka);

/// How a value is computed, and how it is stored.
pub(in crate::python) struct Loader<'a> {
    pub function: &'a Bound<'a, PyAny>,
    pub args: &'a Args<'a>,
    pub deadlines: Deadlines<'a>,
    /// Whether the result must not be a coroutine.
    pub refuses_coroutines: bool,
    pub after_write: Option<AfterWrite>,
}

/// Computes a value anew, or has the executor do so. Returns the result of the call that found the `stale` value.
#[cold]
#[inline(never)]
pub(in crate::python) fn refresh<'a>(
    moka: &Bound<'a, Moka>,
    key: &Key<'_, 'a>,
    stale: Object,
    claim: HeldClaim,
    loader: &Loader<'a>,
) -> Result<Object, Raised> {
    if let Some(executor) = claim.cache.executor() {
        submit(executor.bind(moka.py()), moka, key, claim, loader)?;
        return Ok(stale);
    }
    let raised = match compute(moka, key, &claim, loader) {
        Ok(value) => return Ok(value.unwrap_or(stale)),
        Err(raised) => raised,
    };
    let is_live = claim.is_value_live();
    if !postpone_if_failure(moka.py(), &raised, &claim) || !is_live {
        return Err(raised);
    }
    ffi::write_unraisable(raised, loader.function);
    Ok(stale)
}

/// Computes and stores the value. Returns `None` if there is nothing to compute.
fn compute<'a>(
    moka: &Bound<'a, Moka>,
    key: &Key<'_, 'a>,
    claim: &HeldClaim,
    loader: &Loader<'a>,
) -> Result<Option<Object>, Raised> {
    let (py, cache) = (moka.py(), &*claim.cache);
    let mut load = None;
    let call = || {
        load = Some(Load::begin());
        let value = || {
            let _guard = RecursionGuard::enter(py)?;
            let mut value = loader.args.call(loader.function)?;
            if loader.refuses_coroutines {
                value = coroutine::refuse(value)?;
            }
            cache.new_value(key.object(), &value, &loader.deadlines)
        };
        value().map_err(|raised| shared_error::take_failure(py, raised))
    };
    let computed = cache.run(py, |removed| cache.core().refresh(&LoadKey(key), claim.claim, call, removed));
    let computed = computed.map_err(|error| error.raise(py));
    if load.is_some() || computed.is_err() {
        cache.counts().end_refresh(load.unwrap_or_else(Load::begin), computed.is_err());
    }
    if let (Ok(Some(_)), Some(after_write)) = (&computed, loader.after_write) {
        after_write(key.object(), key.hash(), moka.get());
    }
    computed
}

/// Releases the claim of a refresh that failed. Returns whether the exception is a failure: an interrupt and the like are
/// none, and leave the call.
fn postpone_if_failure(py: Python<'_>, raised: &Raised, claim: &HeldClaim) -> bool {
    let is_failure = ffi::is_raised::<PyException>(py, raised);
    if is_failure {
        claim.postpone();
    }
    is_failure
}

/// Has the executor compute the value. An executor that refuses is a failure of the refresh.
fn submit<'a>(
    executor: &Bound<'a, PyAny>,
    moka: &Bound<'a, Moka>,
    key: &Key<'_, 'a>,
    claim: HeldClaim,
    loader: &Loader<'a>,
) -> Result<(), Raised> {
    let py = moka.py();
    let own = |object: Arg<'_>| Object::of(&object);
    let job = RefreshJob {
        moka: moka.clone().unbind(),
        key: Object::of(key.object()),
        hash: key.hash(),
        function: Object::of(loader.function),
        arguments: loader.args.all().iter().copied().map(own).collect(),
        names: loader.args.names().map(own),
        deadlines: HeldDeadlines::of(&loader.deadlines),
        refuses_coroutines: loader.refuses_coroutines,
        after_write: loader.after_write,
        claim: Lock::new(Some(claim)),
    };
    let job = Raised::catch(py, || Bound::new(py, job))?;
    let Err(raised) = ffi::call_method(executor, c"submit", [job.as_any()]) else { return Ok(()) };
    // `None` if the job has begun all the same.
    let claim = job.get().take_claim();
    if !ffi::is_raised::<PyException>(py, &raised) {
        return Err(raised);
    }
    if let Some(claim) = claim {
        claim.cache.counts().end_refresh(Load::begin(), true);
        claim.postpone();
    }
    ffi::write_unraisable(raised, executor);
    Ok(())
}

/// A refresh that an executor computes. It computes once, however often it is called.
#[pyclass(module = "moka_py", name = "_RefreshJob", frozen)]
pub(in crate::python) struct RefreshJob {
    moka: Py<Moka>,
    key: Object,
    hash: u64,
    function: Object,
    arguments: Vec<Object>,
    /// The names of the last arguments, a tuple.
    names: Option<Object>,
    deadlines: HeldDeadlines,
    refuses_coroutines: bool,
    after_write: Option<AfterWrite>,
    /// Taken by the call that computes.
    claim: Lock<Option<HeldClaim>>,
}

impl RefreshJob {
    fn take_claim(&self) -> Option<HeldClaim> {
        self.claim.lock().take()
    }
}

#[pymethods]
impl RefreshJob {
    /// Computes the value and stores it, unless the key was written to since the job was made.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Some(claim) = self.take_claim() else { return Ok(()) };
        let arguments: Vec<Arg<'_>> = self.arguments.iter().map(|one| one.bind(py).as_borrowed()).collect();
        let names = self.names.as_ref().map(|names| names.bind(py).cast::<PyTuple>()).transpose()?;
        let args = match names {
            Some(names) => Args::with_names(&arguments, names),
            None => Args::of(py, &arguments),
        };
        let function = self.function.bind(py);
        let &RefreshJob { refuses_coroutines, after_write, .. } = self;
        let deadlines = self.deadlines.bind(py);
        let loader = Loader { function, args: &args, deadlines, refuses_coroutines, after_write };
        let key = Key::with_hash(self.key.bind(py), self.hash);
        let Err(raised) = compute(self.moka.bind(py), &key, &claim, &loader) else { return Ok(()) };
        if !postpone_if_failure(py, &raised, &claim) {
            return Err(raised.into());
        }
        ffi::write_unraisable(raised, function);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.moka)?;
        self.deadlines.visit(&visit)?;
        let objects = [&self.key, &self.function].into_iter().chain(&self.arguments).chain(&self.names);
        objects.into_iter().try_for_each(|object| object.visit(&visit))
    }
}

/// A refresh that Python code computes for a coroutine. If it is dropped before its end, it counts as cancelled.
#[pyclass(module = "moka_py", name = "_RefreshClaim", frozen)]
pub(in crate::python) struct CoroutineClaim {
    moka: Py<Moka>,
    key: Object,
    hash: u64,
    deadlines: HeldDeadlines,
    after_write: Option<AfterWrite>,
    claim: HeldClaim,
    /// From `begin` to the end.
    running: Lock<Option<(Run, Load)>>,
}

impl CoroutineClaim {
    pub fn new(
        moka: Py<Moka>,
        (key, hash): (Object, u64),
        claim: HeldClaim,
        deadlines: HeldDeadlines,
        after_write: Option<AfterWrite>,
    ) -> Self {
        CoroutineClaim { moka, key, hash, deadlines, after_write, claim, running: Lock::new(None) }
    }

    /// Ends the computation, if it is under way, and counts it.
    fn end(&self, is_failure: bool) {
        let running = self.running.lock().take();
        if let Some((run, load)) = running {
            self.claim.cache.core().end_run(run);
            self.claim.cache.counts().end_refresh(load, is_failure);
        }
    }

    fn complete_run<'py>(&self, value: &Bound<'py, PyAny>) -> Result<(), Raised> {
        let py = value.py();
        let cache = &*self.claim.cache;
        let key = Key::with_hash(self.key.bind(py), self.hash);
        let new = cache.new_value(key.object(), value, &self.deadlines.bind(py))?;
        let Some((run, _)) = *self.running.lock() else { return Ok(()) };
        let kept = cache.run(py, |removed| cache.core().complete_refresh_run(&key, run, new, removed))?;
        if let (true, Some(after_write)) = (kept, self.after_write) {
            after_write(key.object(), self.hash, self.moka.get());
        }
        Ok(())
    }
}

#[pymethods]
impl CoroutineClaim {
    /// Registers the computation, which the caller then begins. Returns False if there is nothing to compute, since the key
    /// was written to.
    fn begin(&self, py: Python<'_>) -> PyResult<bool> {
        let key = Key::with_hash(self.key.bind(py), self.hash);
        let run = self.claim.cache.core().begin_refresh_run(&key, self.claim.claim)?;
        *self.running.lock() = run.map(|run| (run, Load::begin()));
        Ok(run.is_some())
    }

    /// Returns whether the key was written to since the computation began, or the computation has ended.
    fn is_superseded(&self) -> bool {
        let run = self.running.lock().as_ref().map(|(run, _)| *run);
        run.is_none_or(|run| self.claim.cache.core().is_superseded(run))
    }

    /// Ends the computation and stores its result, unless the key was written to meanwhile. If it raises, the caller calls
    /// `fail`.
    fn complete(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.complete_run(value)?;
        self.end(false);
        Ok(())
    }

    /// Ends a computation that failed. The next attempt comes a tenth of the cache's `refresh` later.
    fn fail(&self) {
        self.end(true);
        self.claim.postpone();
    }

    /// Ends a computation that was cancelled or interrupted, which is no failure. The next call may begin another.
    fn cancel(&self) {
        self.end(false);
        self.claim.cache.core().release_claim(self.claim.claim, NextRefresh::Now);
    }

    /// Returns whether the old value has not passed its deadline.
    fn is_value_live(&self) -> bool {
        self.claim.is_value_live()
    }

    /// Gives the exception of a failure to `sys.unraisablehook`, with the function that raised it.
    fn report(&self, exception: Bound<'_, PyAny>, function: &Bound<'_, PyAny>) {
        ffi::write_unraisable(ffi::set_exception(exception), function);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.moka)?;
        self.deadlines.visit(&visit)?;
        self.key.visit(&visit)
    }
}

impl Drop for CoroutineClaim {
    fn drop(&mut self) {
        self.end(false);
    }
}
