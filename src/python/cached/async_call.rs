//! A call of a cached coroutine function or of `Moka.aget_with`: an awaitable that needs no Python frame for a hit.
//!
//! # How it works
//! Like a coroutine it does nothing until it is first resumed. Then the key is looked up. A hit returns immediately.
//! A miss makes the function's own coroutine. From then on each `send` and `throw` is passed on to that one, and its
//! result is stored. If calls share runs, as those of `aget_with` do, `_flight_table.py` makes the inner coroutine, which
//! waits for the run of the key.
//!
//! [`coroutine_type`](crate::python::cached::coroutine_type) is the type that Python code sees.
//!
//! | phase | meaning | ends with |
//! |---|---|---|
//! | `CREATED` | not resumed yet | `send(None)`, `throw`, `close` |
//! | `SUSPENDED` | the inner coroutine waits for something | the same |
//! | `RUNNING` | a thread has the [`Turn`] | the end of the turn |
//! | `CLOSED` | it returned, raised or was closed | - |
//!
//! # Invariants
//! - `turn`: the thread that changed the phase to `RUNNING` has the turn until it sets another phase. It alone changes
//!   [`Work`]. The collector reads [`Work`] too, while all threads are stopped. A thread is never stopped in the middle of
//!   a change.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::Run;
use crate::python::cached::aget_with;
use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::{self, FastLookup};
use crate::python::cached::run::{self, Step};
use crate::python::cached::shared_call::{self, Refreshed};
use crate::python::cached::state::CachedState;
use crate::python::ffi::{self, Arg, Args, New, Sent};
use crate::python::moka::Moka;
use crate::python::moka::flights;
use crate::python::moka::refresh::Found;
use crate::python::moka::stats::Load;
use crate::python::object::{Object, coroutine};
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::has_stack;
use crate::sync::{AtomicUsize, Ordering};

const CREATED: usize = 0;
const SUSPENDED: usize = 1;
const RUNNING: usize = 2;
const CLOSED: usize = 3;

/// The source of the value of a call.
#[derive(Clone, Copy)]
pub(in crate::python) enum Source<'a, 'py> {
    /// The arguments of a call of the function with this state.
    Function(&'a Bound<'py, CachedState>),
    /// A key of this cache. The arguments are the key and the initializer, and the ttl and the tti if one is given.
    Cache(&'a Bound<'py, Moka>),
}

pub(in crate::python) struct AsyncCall {
    /// A `CachedState` or a `Moka`.
    source: Object,
    is_of_function: bool,
    phase: AtomicUsize,
    /// The coroutine of a miss. It is an exact one, which holds nothing after its end.
    inner: OnceLock<Object>,
    work: UnsafeCell<Work>,
}

/// The data that a call needs until it ends.
#[derive(Default)]
struct Work {
    arguments: SmallVec<[Object; 4]>,
    /// The number of positional arguments. The others have `names`, a tuple.
    positional: usize,
    names: Option<Object>,
    /// The run that computes the result, and the key to store it under.
    pending: Option<(CallKey, Run)>,
    /// The load that ends with the inner coroutine.
    load: Option<Load>,
}

/// How a call is resumed.
#[derive(Clone, Copy)]
pub(in crate::python) enum Resume<'a> {
    Send(Arg<'a>),
    /// With the arguments of `throw`.
    Throw(&'a [Arg<'a>]),
}

/// A value that the inner coroutine yielded, or the result of the call.
pub(in crate::python) type Resumed<'py> = Result<Sent<'py>, Raised>;

/// The right of one thread to change the [`Work`] of a call (`turn`).
struct Turn<'a>(&'a AsyncCall);

impl<'a> Turn<'a> {
    /// The arguments of the call.
    fn args(&self) -> Args<'a> {
        let work = self.0.work.get();
        // SAFETY: `turn`. The arguments change only in `end`.
        let arguments = unsafe { &(*work).arguments };
        // SAFETY: likewise.
        let names = unsafe { &(*work).names }.as_ref().map_or(ptr::null_mut(), Object::as_ptr);
        // SAFETY: likewise.
        let positional = unsafe { (*work).positional };
        // SAFETY: the call holds the objects that it was made with. An `Object` has the layout of a pointer.
        unsafe { Args::new(self.0.py(), arguments.as_ptr().cast(), positional, names) }
    }

    fn set_pending(&self, pending: Option<(CallKey, Run)>) {
        // SAFETY: `turn`. No reference to this field is alive.
        unsafe { (*self.0.work.get()).pending = pending };
    }

    fn take_pending(&self) -> Option<(CallKey, Run)> {
        // SAFETY: likewise.
        unsafe { (*self.0.work.get()).pending.take() }
    }

    fn begin_load(&self) {
        // SAFETY: likewise.
        unsafe { (*self.0.work.get()).load = Some(Load::begin()) };
    }

    /// Counts the load, if there is one that was not counted.
    fn end_load(&self, is_failure: bool) {
        // SAFETY: likewise.
        self.0.count(unsafe { (*self.0.work.get()).load.take() }, is_failure);
    }

    /// Ends the turn. The call can be resumed again in this phase.
    fn leave(self, phase: usize) {
        // Release: pairs with the Acquire in `AsyncCall::enter`.
        self.0.phase.store(phase, Ordering::Release);
    }

    /// Ends the turn and the call, and drops the data that the call no longer needs.
    fn end(self) {
        let call = self.0;
        // SAFETY: `turn`, and `args` are not used after this.
        let work = mem::take(unsafe { &mut *call.work.get() });
        self.leave(CLOSED);
        call.drop_work(work);
    }
}

impl AsyncCall {
    #[inline]
    pub fn new(source: Source<'_, '_>, args: &Args<'_>) -> Self {
        let own = |object: Arg<'_>| Object::of(&object);
        let work = Work {
            arguments: args.all().iter().copied().map(own).collect(),
            positional: args.positional().len(),
            names: args.names().map(own),
            pending: None,
            load: None,
        };
        let (source, is_of_function) = match source {
            Source::Function(state) => (Object::of(state), true),
            Source::Cache(cache) => (Object::of(cache), false),
        };
        AsyncCall {
            source,
            is_of_function,
            phase: AtomicUsize::new(CREATED),
            inner: OnceLock::new(),
            work: UnsafeCell::new(work),
        }
    }

    /// The token of the attached thread that calls a method here.
    pub fn py<'a>(&'a self) -> Python<'a> {
        // SAFETY: the slots of the type are called attached, and call these methods.
        unsafe { Python::assume_attached() }
    }

    fn source(&self) -> Source<'_, '_> {
        let source = self.source.bind(self.py());
        if self.is_of_function {
            // SAFETY: only `new` makes instances, with a `CachedState`.
            Source::Function(unsafe { source.cast_unchecked::<CachedState>() })
        } else {
            // SAFETY: likewise, with a `Moka`.
            Source::Cache(unsafe { source.cast_unchecked::<Moka>() })
        }
    }

    /// The function whose name and code the coroutine has.
    pub fn function(&self) -> &Bound<'_, PyAny> {
        match self.source() {
            Source::Function(state) => state.get().function(self.py()),
            Source::Cache(cache) => aget_with::method(cache.py()),
        }
    }

    /// Takes the turn, unless a thread has it. Returns the phase before, too.
    fn enter(&self) -> Option<(usize, Turn<'_>)> {
        // Acquire: pairs with the Release in `Turn::leave`. The changes of the last turn are seen.
        let phase = self.phase.swap(RUNNING, Ordering::Acquire);
        (phase != RUNNING).then_some((phase, Turn(self)))
    }

    fn is(&self, phase: usize) -> bool {
        // Relaxed: a thread without the turn may see an old phase.
        self.phase.load(Ordering::Relaxed) == phase
    }

    pub fn is_created(&self) -> bool {
        self.is(CREATED)
    }

    pub fn is_suspended(&self) -> bool {
        self.is(SUSPENDED)
    }

    pub fn is_running(&self) -> bool {
        self.is(RUNNING)
    }

    pub fn is_closed(&self) -> bool {
        self.is(CLOSED)
    }

    /// The name that the `inspect` module has for the phase.
    pub fn phase_name(&self) -> &'static CStr {
        // Relaxed: as in `is`.
        match self.phase.load(Ordering::Relaxed) {
            CREATED => c"CORO_CREATED",
            SUSPENDED => c"CORO_SUSPENDED",
            RUNNING => c"CORO_RUNNING",
            _ => c"CORO_CLOSED",
        }
    }

    /// The inner coroutine, if the call was a miss.
    pub fn inner(&self) -> Option<&Bound<'_, PyAny>> {
        self.inner.get().map(|inner| inner.bind(self.py()))
    }

    /// Resumes the call until the inner coroutine waits for something, or the call ends.
    pub fn resume<'a>(&'a self, how: Resume<'a>) -> Resumed<'a> {
        let py = self.py();
        let Some((phase, turn)) = self.enter() else { return Err(raise_running(py)) };
        let resumed = match (phase, how) {
            (CLOSED, _) => {
                turn.leave(CLOSED);
                return Err(ffi::raise::<PyRuntimeError>(py, c"cannot reuse already awaited coroutine"));
            }
            (CREATED, Resume::Send(value)) if !value.is_none() => {
                turn.leave(CREATED);
                let text = c"can't send non-None value to a just-started coroutine";
                return Err(ffi::raise::<PyTypeError>(py, text));
            }
            (CREATED, Resume::Send(_)) => self.start(&turn),
            (CREATED, Resume::Throw(_)) => {
                flights::await_once(&ffi::none(py)).and_then(|inner| self.begin(&turn, inner, how))
            }
            _ => self.resume_inner(&turn, how),
        };
        let resumed = resumed.map_err(|raised| self.fail(&turn, raised));
        match &resumed {
            Ok(Sent::Yielded(_)) => turn.leave(SUSPENDED),
            _ => turn.end(),
        }
        resumed.map_err(|raised| without_stop_iteration(py, raised))
    }

    /// Closes the call. The inner coroutine raises `GeneratorExit` where it waits.
    pub fn close(&self) -> New<'_> {
        let py = self.py();
        let Some((phase, turn)) = self.enter() else { return Err(raise_running(py)) };
        let closed = match self.inner() {
            Some(inner) if phase == SUSPENDED => ffi::call_method(inner, c"close", []),
            _ => Ok(ffi::none(py).to_owned()),
        };
        match closed {
            Ok(_) => turn.end(),
            // The inner coroutine may have refused and wait on. If it has ended, the next resume finds that.
            Err(_) => turn.leave(SUSPENDED),
        }
        closed
    }

    /// Drops all objects of the call, if only the collector can reach it. The inner coroutine clears itself.
    pub fn clear(&self) {
        if let Some((_phase, turn)) = self.enter() {
            turn.end();
        }
    }

    /// Calls `visit` with each object that the call holds, for the collector, until one call returns other than 0.
    pub fn traverse(&self, visit: impl FnMut(*mut PyObject) -> c_int) -> c_int {
        // SAFETY: `turn`: all threads are stopped.
        let work = unsafe { &*self.work.get() };
        let key = work.pending.as_ref().map(|(key, _)| key.object());
        let objects = work.arguments.iter().chain(&work.names).chain(key).chain(self.inner.get());
        let objects = objects.chain([&self.source]);
        objects.map(Object::as_ptr).map(visit).find(|&stop| stop != 0).unwrap_or(0)
    }

    fn start<'a>(&'a self, turn: &Turn<'a>) -> Resumed<'a> {
        match self.source() {
            Source::Function(state) => self.start_function(turn, state),
            Source::Cache(cache) => self.start_load(turn, cache),
        }
    }

    /// Looks the arguments up, and runs the function after a miss.
    fn start_function<'a>(&'a self, turn: &Turn<'a>, bound: &Bound<'a, CachedState>) -> Resumed<'a> {
        let (py, state) = (self.py(), bound.get());
        let args = turn.args();
        let step = match lookup::look_up_fast(state, &args) {
            FastLookup::Hit(value) => return Ok(Sent::Returned(value)),
            fast => run::prepare(state, &args, fast)?,
        };
        let inner = match step {
            Step::Return(value) => return Ok(Sent::Returned(value)),
            Step::Refresh(stale) => match shared_call::refresh_call(bound, *stale, &args)? {
                Refreshed::Return(value) => return Ok(Sent::Returned(value)),
                Refreshed::Await(coroutine) => coroutine,
            },
            Step::Share(key) => shared_call::share_call(bound, key, &args)?,
            Step::Run(pending) => {
                turn.set_pending(pending);
                state.record_miss();
                turn.begin_load();
                exact_coroutine(args.call(state.function(py))?)?
            }
        };
        self.begin(turn, inner, Resume::Send(ffi::none(py)))
    }

    /// Looks the key up, and shares the computation of its value after a miss.
    fn start_load<'a>(&'a self, turn: &Turn<'a>, bound: &Bound<'a, Moka>) -> Resumed<'a> {
        let (py, cache) = (self.py(), bound.get());
        let (key, load) = match *turn.args().all() {
            [key, initializer] => (key, [initializer, ffi::none(py), ffi::none(py)]),
            [key, initializer, ttl, tti] => (key, [initializer, ttl, tti]),
            _ => unreachable!("`aget_with` passes two or four arguments"),
        };
        let is_absent = match cache.get_for_load_fast(&key) {
            Some(Some(value)) => return Ok(Sent::Returned(value.into_bound(py))),
            Some(None) => true,
            None => false,
        };
        let query = cache.key(&key)?;
        let mut found = Found::Absent;
        if !is_absent {
            found = cache.get_for_load(py, &query)?;
            cache.counts().record_access(!matches!(found, Found::Absent));
        }
        if let Found::Fresh(value) = found {
            return Ok(Sent::Returned(value.into_bound(py)));
        }
        if !has_stack(py) {
            return Err(Raised::already_set(py));
        }
        let inner = match found {
            Found::Stale(value, claim) => {
                match shared_call::refresh_load(bound, &query, (value, claim), load)? {
                    Refreshed::Return(value) => return Ok(Sent::Returned(value)),
                    Refreshed::Await(coroutine) => coroutine,
                }
            }
            _ => shared_call::share_load(bound, &query, load)?,
        };
        self.begin(turn, inner, Resume::Send(ffi::none(py)))
    }

    /// Resumes a new inner coroutine for the first time.
    fn begin<'a>(&'a self, turn: &Turn<'_>, inner: Bound<'a, PyAny>, how: Resume<'a>) -> Resumed<'a> {
        let set = self.inner.set(Object::new(inner.unbind()));
        debug_assert!(set.is_ok(), "a call begins once");
        self.resume_inner(turn, how)
    }

    /// Resumes the inner coroutine, and stores the result if it returns.
    fn resume_inner<'a>(&'a self, turn: &Turn<'_>, how: Resume<'a>) -> Resumed<'a> {
        let py = self.py();
        let inner = self.inner().expect("a suspended call has an inner coroutine");
        let value = match how {
            Resume::Send(value) => match ffi::send(inner, &value)? {
                Sent::Yielded(value) => return Ok(Sent::Yielded(value)),
                Sent::Returned(value) => value,
            },
            Resume::Throw(arguments) => {
                let throw = ffi::attribute(inner, c"throw")?;
                match Args::of(py, arguments).call(&throw) {
                    Ok(value) => return Ok(Sent::Yielded(value)),
                    Err(raised) => returned(py, raised)?,
                }
            }
        };
        turn.end_load(false);
        if let (Source::Function(state), Some((key, run))) = (self.source(), turn.take_pending()) {
            run::keep(state.get(), &key, &value, run)?;
        }
        Ok(Sent::Returned(value))
    }

    /// Ends the run, if there is one, which has failed. Returns the exception.
    fn fail(&self, turn: &Turn<'_>, raised: Raised) -> Raised {
        match (self.source(), turn.take_pending()) {
            (Source::Function(state), Some((key, run))) => {
                run::fail(self.py(), state.get(), &key, run, raised)
            }
            _ => raised,
        }
    }

    fn count(&self, load: Option<Load>, is_failure: bool) {
        if let (Source::Function(state), Some(load)) = (self.source(), load) {
            state.get().moka().counts().end_load(load, is_failure);
        }
    }

    /// Ends the load and the run if they are still under way, which then have failed.
    fn drop_work(&self, work: Work) {
        let Work { pending, load, .. } = work;
        self.count(load, true);
        if let (Source::Function(state), Some((_key, run))) = (self.source(), pending) {
            run::end(state.get(), run);
        }
    }
}

impl Drop for AsyncCall {
    fn drop(&mut self) {
        let work = mem::take(self.work.get_mut());
        self.drop_work(work);
    }
}

/// Returns an awaitable as an exact coroutine.
fn exact_coroutine(awaitable: Bound<'_, PyAny>) -> New<'_> {
    if coroutine::is_exact(&awaitable) { Ok(awaitable) } else { flights::await_once(&awaitable) }
}

#[cold]
fn raise_running(py: Python<'_>) -> Raised {
    ffi::raise::<PyValueError>(py, c"coroutine already executing")
}

/// Makes a `StopIteration` a `RuntimeError`, as a coroutine does (PEP 479): the event loop would take it for a result.
///
/// It comes of a user's code that the look-up runs: a `__hash__`, an `__eq__`, a key function or a weigher.
#[cold]
fn without_stop_iteration(py: Python<'_>, raised: Raised) -> Raised {
    if !ffi::is_raised::<PyStopIteration>(py, &raised) {
        return raised;
    }
    let Some(stop) = ffi::take_exception(py) else { return raised };
    let raised = ffi::raise::<PyRuntimeError>(py, c"coroutine raised StopIteration");
    let Some(error) = ffi::take_exception(py) else { return raised };
    ffi::set_cause(&error, &stop);
    ffi::set_exception(error)
}

/// Returns the value of the `StopIteration` that is set, by which a coroutine returns.
fn returned(py: Python<'_>, raised: Raised) -> New<'_> {
    if !ffi::is_raised::<PyStopIteration>(py, &raised) {
        return Err(raised);
    }
    match ffi::take_exception(py) {
        Some(stop) => ffi::attribute(&stop, c"value"),
        None => Err(raised),
    }
}
