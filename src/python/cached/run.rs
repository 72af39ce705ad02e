//! The run of a call that missed: it is registered before the function runs, and its result is stored afterwards. If the
//! function fails, its error may be kept instead.
//!
//! # Invariants
//! - `later-write-wins` (law 13): a write to the key marks each run that began before it as superseded. The result of
//!   such a run is returned to the caller, and not stored.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::{self, FastLookup, Lookup, StaleHit};
use crate::python::cached::owner::Owner;
use crate::python::cached::state::{CachedState, Mode};
use crate::python::ffi::{self, Args, New};
use crate::python::moka::convert::Deadlines;
use crate::python::moka::kept_errors::KeptErrors;
use crate::python::moka::stats::Load;
use crate::python::moka::{Moka, convert};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::has_stack;
use crate::{Run, RunStart};

/// How a call goes on after its look-up.
pub(in crate::python) enum Step<'py> {
    /// It returns this value.
    Return(Bound<'py, PyAny>),
    /// It computes this value anew, or returns it.
    Refresh(Box<StaleHit>),
    /// It shares the run of this key with concurrent calls.
    Share(CallKey),
    /// It runs the function. The result is stored under this key, unless calls have no keys.
    Run(Option<(CallKey, Run)>),
}

/// Finishes the look-up that [`look_up_fast`](lookup::look_up_fast) began, and registers the run after a miss. Raises
/// the error that is kept for the key, if there is one, or `RecursionError` if too little of the C stack is left to run
/// the function.
#[inline(always)]
pub(in crate::python) fn prepare<'py>(
    state: &CachedState,
    args: &Args<'py>,
    fast: FastLookup<'py>,
) -> Result<Step<'py>, Raised> {
    let py = args.py();
    let key = match lookup::look_up(state, args, fast)? {
        Lookup::Hit(value) => return Ok(Step::Return(value)),
        Lookup::Stale(stale) => return Ok(Step::Refresh(stale)),
        Lookup::Miss(key) => Some(key),
        Lookup::Keyless => None,
    };
    if !has_stack(py) {
        return Err(Raised::already_set(py));
    }
    if let Some(key) = &key {
        raise_kept_error(py, state, key)?;
    }
    match key {
        Some(key) if state.mode() == Mode::Shared => Ok(Step::Share(key)),
        Some(key) => match state.moka().begin_run(py, &key.query(py))? {
            RunStart::Run(run) => Ok(Step::Run(Some((key, run)))),
            RunStart::Present(value) => {
                state.record_hit();
                Ok(Step::Return(value.into_py().into_bound(py)))
            }
        },
        None => Ok(Step::Run(None)),
    }
}

/// Raises a copy of the error that is kept for a key, if there is one. That is a hit.
#[inline]
pub(in crate::python) fn raise_kept_error(
    py: Python<'_>,
    state: &CachedState,
    key: &CallKey,
) -> Result<(), Raised> {
    match state.moka().kept_errors() {
        Some(kept_errors) => raise_kept_error_slow(py, state, kept_errors, key),
        None => Ok(()),
    }
}

#[inline(never)]
fn raise_kept_error_slow(
    py: Python<'_>,
    state: &CachedState,
    kept_errors: &KeptErrors,
    key: &CallKey,
) -> Result<(), Raised> {
    let Some(copy) = kept_errors.copy_of(&key.query(py))? else { return Ok(()) };
    state.record_hit();
    Err(ffi::set_exception(copy))
}

/// Ends the run of a call, if it has one, and stores the result unless the run was superseded. Returns the result; or
/// the exception of the function, which may be kept, or that of the weigher or an `__eq__`, with nothing stored.
#[inline]
pub(in crate::python) fn finish<'py>(
    py: Python<'py>,
    state: &CachedState,
    pending: Option<&(CallKey, Run)>,
    result: New<'py>,
) -> New<'py> {
    let Some((key, run)) = pending else { return result };
    match result {
        Ok(value) => keep(state, key, &value, *run).map(|()| value),
        Err(raised) => Err(fail(py, state, key, *run, raised)),
    }
}

/// Ends a run, and stores its result unless the run was superseded. If this raises, nothing is stored.
#[inline(never)]
pub(in crate::python) fn keep(
    state: &CachedState,
    key: &CallKey,
    value: &Bound<'_, PyAny>,
    run: Run,
) -> Result<(), Raised> {
    let py = value.py();
    let kept = state.moka().keep_result(&key.query(py), run, value, &Deadlines::NONE);
    if kept.inspect_err(|_raised| end(state, run))? {
        record_result(py, state, key)?;
    }
    Ok(())
}

/// Ends a run that raised, unless its exception is kept. Returns that exception, or the one that a signal handler raised
/// meanwhile.
#[cold]
#[inline(never)]
pub(in crate::python) fn fail(
    py: Python<'_>,
    state: &CachedState,
    key: &CallKey,
    run: Run,
    raised: Raised,
) -> Raised {
    if state.moka().kept_errors().is_none() {
        end(state, run);
        return raised;
    }
    let exception = ffi::take_raised(py, raised);
    let kept = keep_error(state, key, &exception, run);
    if !matches!(kept, Ok(true)) {
        end(state, run);
    }
    kept.map_or_else(|raised| raised, |_is_kept| ffi::set_exception(exception))
}

/// Keeps the exception of a run, if the function keeps errors and this one can be kept. Returns whether that took over
/// the run, which the caller ends otherwise. It raises only what a signal handler raised meanwhile.
pub(in crate::python) fn keep_error(
    state: &CachedState,
    key: &CallKey,
    exception: &Bound<'_, PyAny>,
    run: Run,
) -> Result<bool, Raised> {
    let py = exception.py();
    let Some(kept_errors) = state.moka().kept_errors() else { return Ok(false) };
    let is_kept = kept_errors.keep(&key.query(py), run, exception)?;
    if is_kept {
        record_entry(py, state, key);
    }
    Ok(is_kept)
}

/// Ends a run without a result.
pub(in crate::python) fn end(state: &CachedState, run: Run) {
    state.moka().core().end_run(run);
}

/// Does what is due after a result was stored: notes its entry, and removes the error that is kept for the key.
pub(in crate::python) fn record_result(
    py: Python<'_>,
    state: &CachedState,
    key: &CallKey,
) -> Result<(), Raised> {
    record_entry(py, state, key);
    match state.moka().kept_errors() {
        Some(kept_errors) => kept_errors.remove(&key.query(py)),
        None => Ok(()),
    }
}

/// Tells the owner in a key, if it has one, that an entry or an error of the key is stored.
fn record_entry(py: Python<'_>, state: &CachedState, key: &CallKey) {
    if state.has_owners() {
        Owner::record_entry(key.object().bind(py), key.hash(), state.moka());
    }
}

/// The run of a coroutine that several callers share, for Python code. It ends with this object at the latest.
#[pyclass(module = "moka_py", name = "_CachedRun", frozen)]
pub(in crate::python) struct CachedRun {
    cache: Py<Moka>,
    key: Py<CallKey>,
    /// That of the cached function, if a call of one began the run.
    state: Option<Py<CachedState>>,
    /// The lifetime of the entry, as the user gave it.
    ttl: Option<Py<PyAny>>,
    tti: Option<Py<PyAny>>,
    run: Run,
    /// Whether it is one of `cache_refresh`, whose result is stored as by a set.
    is_refresh: bool,
    /// Whether a kept error has taken over the run.
    is_taken_over: AtomicBool,
}

#[pymethods]
impl CachedRun {
    /// Begins the run of a key. Returns the run; or a tuple of the value if the key has one.
    #[staticmethod]
    #[pyo3(signature = (cache, key, state, ttl, tti, /))]
    fn begin<'py>(
        cache: &Bound<'py, Moka>,
        key: &Bound<'py, CallKey>,
        state: Option<Py<CachedState>>,
        ttl: Option<Py<PyAny>>,
        tti: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = cache.py();
        let query = key.get().query(py);
        let run = match cache.get().begin_run(py, &query)? {
            RunStart::Present(value) => return Ok((value.into_py(),).into_pyobject(py)?.into_any()),
            RunStart::Run(run) => run,
        };
        let run = CachedRun {
            cache: cache.clone().unbind(),
            key: key.clone().unbind(),
            state,
            ttl,
            tti,
            run,
            is_refresh: false,
            is_taken_over: AtomicBool::new(false),
        };
        Ok(Bound::new(py, run)?.into_any())
    }

    /// Returns whether the key was written to since the run began.
    fn is_superseded(&self) -> bool {
        self.cache.get().core().is_superseded(self.run)
    }

    /// Returns the instant at which a load begins.
    fn begin_load(&self) -> u64 {
        Load::begin().start()
    }

    /// Counts a load that began at `start` and succeeded.
    fn end_load(&self, start: u64) {
        self.cache.get().counts().end_load(Load::from_start(start), false);
    }

    /// Ends the run after a load that began at `start` and failed with this exception, which a cached function may keep.
    fn fail(&self, start: u64, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.cache.get().counts().end_load(Load::from_start(start), true);
        if let Some(state) = &self.state
            && keep_error(state.get(), self.key.get(), error, self.run)?
        {
            // Relaxed: the drop comes after all uses of the object.
            self.is_taken_over.store(true, Ordering::Relaxed);
        } else {
            self.end();
        }
        Ok(())
    }

    /// Ends the run after a load that began at `start`. Stores its result, unless the key was written to since the run
    /// began.
    fn complete(&self, start: u64, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.end_load(start);
        self.keep(value).inspect_err(|_| self.end())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)?;
        visit.call(&self.key)?;
        visit.call(&self.state)?;
        visit.call(&self.ttl)?;
        visit.call(&self.tti)
    }
}

impl CachedRun {
    /// Begins a run of `cache_refresh`, whether or not the key has a value.
    pub fn begin_refresh(state: &Bound<'_, CachedState>, key: CallKey) -> PyResult<Self> {
        let py = state.py();
        let cache = state.get().cache();
        let run = cache.get().core().begin_run_beside_value(&key.query(py))?;
        Ok(CachedRun {
            cache: cache.clone_ref(py),
            key: Py::new(py, key)?,
            state: Some(state.clone().unbind()),
            ttl: None,
            tti: None,
            run,
            is_refresh: true,
            is_taken_over: AtomicBool::new(false),
        })
    }

    fn keep(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = value.py();
        let key = self.key.get();
        let [ttl, tti] =
            [&self.ttl, &self.tti].map(|given| given.as_ref().map(|given| given.bind_borrowed(py)));
        let deadlines = convert::deadlines(ttl, tti)?;
        let (cache, query) = (self.cache.get(), key.query(py));
        let kept = if self.is_refresh {
            cache.set_result(&query, self.run, value)?
        } else {
            cache.keep_result(&query, self.run, value, &deadlines)?
        };
        if kept && let Some(state) = &self.state {
            record_result(py, state.get(), key)?;
        }
        Ok(())
    }

    pub fn run(&self) -> Run {
        self.run
    }

    pub fn end(&self) {
        self.cache.get().core().end_run(self.run);
    }
}

impl Drop for CachedRun {
    fn drop(&mut self) {
        if !*self.is_taken_over.get_mut() {
            self.end();
        }
    }
}
