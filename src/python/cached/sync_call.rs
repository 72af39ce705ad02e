//! A call of a cached function that is not a coroutine function.
//!
//! # How it works
//! A hit returns immediately. A miss registers its run, calls the function with the arguments as they came, and stores the
//! result. If calls share runs, the load goes through the same single flight as `Moka.get_with`.
//!
//! # Depth of recursion
//! A cached function recurses about as deep as one of `functools.lru_cache`. From CPython 3.14 on, the bytes of the C
//! stack limit the depth. So while the user's function runs, only the small frame of [`compute`] is on the stack:
//! - The frames of the look-ups are gone by then: there [`look_up_fast`] is a call of its own, and so is [`prepare`].
//! - [`compute`] takes all arguments in registers, a [`FastLookup`] in two of them, so its caller needs no frame.
//!
//! Before 3.14 the number of calls limits the depth, so there [`look_up_fast`] is inlined.

#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;

use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::{self, FastLookup, StaleHit};
use crate::python::cached::run::{self, Step};
use crate::python::cached::state::CachedState;
use crate::python::ffi::{self, Args, New};
use crate::python::moka::convert::Deadlines;
use crate::python::moka::refresh::{self, Loader};
use crate::python::moka::stats::Load;
use crate::python::object::Object;
use crate::python::raised::Raised;

/// Looks a call up. [`compute`] is the fallback.
///
/// # Safety
/// - `arguments`, `count` and `names` are those of a vectorcall that lasts for `'a`.
#[cfg_attr(Py_3_14, inline(never))]
#[cfg_attr(not(Py_3_14), inline(always))]
pub(in crate::python) unsafe fn look_up_fast<'a>(
    state: Borrowed<'a, 'a, CachedState>,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
) -> FastLookup<'a> {
    // SAFETY: the caller's.
    let args = unsafe { Args::new(state.py(), arguments, count, names) };
    lookup::look_up_fast(state.get(), &args)
}

/// Returns the result of a call that [`look_up_fast`] did not find. `fast` is its answer.
///
/// # Safety
/// - As for [`look_up_fast`].
#[inline(never)]
pub(in crate::python) unsafe fn compute<'a>(
    state: Borrowed<'a, 'a, CachedState>,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
    fast: FastLookup<'a>,
) -> *mut PyObject {
    // SAFETY: the caller's.
    let step = unsafe { prepare(state, arguments, count, names, fast) };
    // SAFETY: the caller's.
    let args = unsafe { Args::new(state.py(), arguments, count, names) };
    let (py, state) = (state.py(), state.get());
    let pending = match &step {
        Ok(Step::Run(pending)) => pending.as_ref(),
        Ok(Step::Return(value)) => return value.clone().into_ptr(),
        // `prepare` has taken this step, so that its data needs no room in this frame.
        Ok(Step::Refresh(stale)) => return stale.value.clone().into_ptr(),
        Ok(Step::Share(key)) => return ffi::into_return(share(state, key, &args)),
        Err(_raised) => return ptr::null_mut(),
    };
    state.record_miss();
    let load = Load::begin();
    let result = args.call(state.function(py));
    state.moka().counts().end_load(load, result.is_err());
    ffi::into_return(run::finish(py, state, pending, result))
}

/// It makes its own [`Args`], so that those of [`compute`] need no memory.
///
/// # Safety
/// - As for [`look_up_fast`].
#[inline(never)]
unsafe fn prepare<'a>(
    state: Borrowed<'a, 'a, CachedState>,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
    fast: FastLookup<'a>,
) -> Result<Step<'a>, Raised> {
    // SAFETY: the caller's.
    let args = unsafe { Args::new(state.py(), arguments, count, names) };
    match run::prepare(state.get(), &args, fast)? {
        Step::Refresh(stale) => {
            let value = refresh(state.get(), *stale, &args)?;
            Ok(Step::Return(value.into_py().into_bound(state.py())))
        }
        step => Ok(step),
    }
}

/// Computes a result anew, or has the executor do so.
#[cold]
#[inline(never)]
fn refresh<'a>(state: &'a CachedState, stale: StaleHit, args: &'a Args<'a>) -> Result<Object, Raised> {
    let py = args.py();
    let StaleHit { value, key, claim } = stale;
    let loader = Loader {
        function: state.function(py),
        args,
        deadlines: Deadlines::NONE,
        refuses_coroutines: false,
        after_write: state.after_write(),
    };
    refresh::refresh(state.cache().bind(py), &key.query(py), value, claim, &loader)
}

/// Computes a result once for all threads that ask for the key at the same time.
#[inline(never)]
fn share<'a>(state: &CachedState, key: &CallKey, args: &Args<'a>) -> New<'a> {
    let py = args.py();
    let mut is_leader = false;
    let compute = || {
        // The run of another thread may have ended since the look-up.
        run::raise_kept_error(py, state, key)?;
        is_leader = true;
        state.record_miss();
        run_function(state, key, args)
    };
    let value = state.moka().load(&key.query(py), &Deadlines::NONE, false, compute)?;
    if is_leader {
        run::record_result(py, state, key)?;
    } else {
        state.record_hit();
    }
    Ok(value.into_py().into_bound(py))
}

/// Calls the function for all callers that share the run, and counts the load. If it fails, its error may be kept.
fn run_function<'a>(state: &CachedState, key: &CallKey, args: &Args<'a>) -> New<'a> {
    let (py, moka) = (args.py(), state.moka());
    let call = || moka.counts().time_load(|| args.call(state.function(py)));
    if moka.kept_errors().is_none() {
        return call();
    }
    // The error of the shared run is shared too, and ends with it. An error that is kept needs a run of its own.
    let run = moka.core().begin_run_beside_value(&key.query(py))?;
    call().inspect(|_value| run::end(state, run)).map_err(|raised| run::fail(py, state, key, run, raised))
}
