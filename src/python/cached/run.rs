//! The run of a call that missed: it is registered before the function runs, and its result is stored afterwards.
//!
//! # Invariants
//! - `later-write-wins` (law 13): a write to the key marks each run that began before it as superseded. The result of
//!   such a run is returned to the caller, and not stored.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::{self, FastLookup, Lookup};
use crate::python::cached::owner::Owner;
use crate::python::cached::state::{CachedState, Mode};
use crate::python::ffi::{Args, New};
use crate::python::moka::Moka;
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::has_stack;
use crate::{Run, RunStart};

/// How a call goes on after its look-up.
pub(in crate::python) enum Step<'py> {
    /// It returns this value.
    Return(Bound<'py, PyAny>),
    /// It shares the run of this key with concurrent calls.
    Share(CallKey),
    /// It runs the function. The result is stored under this key, unless calls have no keys.
    Run(Option<(CallKey, Run)>),
}

/// Finishes the look-up that [`look_up_fast`](lookup::look_up_fast) began, and registers the run after a miss. Raises
/// `RecursionError` if too little of the C stack is left to run the function.
#[inline(always)]
pub(in crate::python) fn prepare<'py>(
    state: &CachedState,
    args: &Args<'py>,
    fast: FastLookup<'py>,
) -> Result<Step<'py>, Raised> {
    let py = args.py();
    let key = match lookup::look_up(state, args, fast)? {
        Lookup::Hit(value) => return Ok(Step::Return(value)),
        Lookup::Miss(key) => Some(key),
        Lookup::Keyless => None,
    };
    if !has_stack(py) {
        return Err(Raised::already_set(py));
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

/// Ends the run of a call, if it has one, and stores the result unless the run was superseded. Returns the result; or
/// the exception of the function, the weigher or an `__eq__`, with nothing stored.
#[inline]
pub(in crate::python) fn finish<'py>(
    state: &CachedState,
    pending: Option<&(CallKey, Run)>,
    result: New<'py>,
) -> New<'py> {
    if let Some((key, run)) = pending {
        match &result {
            Ok(value) => keep(state, key, value, *run)?,
            Err(_raised) => end(state, *run),
        }
    }
    result
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
    let kept = state.moka().keep_result(&key.query(py), run, value);
    if kept.inspect_err(|_raised| end(state, run))? {
        record_entry(py, state, key);
    }
    Ok(())
}

/// Ends a run without a result.
pub(in crate::python) fn end(state: &CachedState, run: Run) {
    state.moka().core().end_run(run);
}

/// Tells the owner in a key, if it has one, that an entry of the key is stored.
pub(in crate::python) fn record_entry(py: Python<'_>, state: &CachedState, key: &CallKey) {
    if state.has_owners() {
        Owner::record_entry(key.object().bind(py), key.hash(), state.moka());
    }
}

/// The run of a coroutine that several callers share, for Python code. It ends with this object at the latest.
#[pyclass(module = "moka_py", name = "_CachedRun", frozen)]
pub(in crate::python) struct CachedRun {
    cache: Py<Moka>,
    run: Run,
}

impl CachedRun {
    pub fn new(cache: Py<Moka>, run: Run) -> Self {
        CachedRun { cache, run }
    }

    pub fn run(&self) -> Run {
        self.run
    }
}

#[pymethods]
impl CachedRun {
    /// Returns whether the key was written to since the run began.
    fn is_superseded(&self) -> bool {
        self.cache.get().core().is_superseded(self.run)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)
    }
}

impl Drop for CachedRun {
    fn drop(&mut self) {
        self.cache.get().core().end_run(self.run);
    }
}
