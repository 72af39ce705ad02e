//! A call of a cached coroutine function: an awaitable that needs no Python frame for a hit.
//!
//! # How it works
//! Like a coroutine it does nothing until it is first resumed. Then the arguments are looked up. A hit returns immediately.
//! A miss makes the function's own coroutine. From then on each `send` and `throw` is passed on to that one, and its
//! result is stored. If calls share runs, `_flight.py` makes the inner coroutine, which waits for the run of the
//! key.
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
use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::{self, FastLookup};
use crate::python::cached::run::{self, Step};
use crate::python::cached::state::CachedState;
use crate::python::ffi::{self, Arg, Args, New, Sent};
use crate::python::moka::stats::Load;
use crate::python::object::Object;
use crate::python::raised::Raised;
use crate::sync::{AtomicUsize, Ordering};

const CREATED: usize = 0;
const SUSPENDED: usize = 1;
const RUNNING: usize = 2;
const CLOSED: usize = 3;

pub(in crate::python) struct AsyncCall {
    /// A `CachedState`.
    state: Object,
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
    pub fn new(state: &Bound<'_, CachedState>, args: &Args<'_>) -> Self {
        let own = |object: Arg<'_>| Object::of(&object);
        let work = Work {
            arguments: args.all().iter().copied().map(own).collect(),
            positional: args.positional().len(),
            names: args.names().map(own),
            pending: None,
            load: None,
        };
        AsyncCall {
            state: Object::of(state),
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

    pub fn state(&self) -> &CachedState {
        let state = self.state.bind(self.py());
        // SAFETY: only `new` makes instances, with a `CachedState`.
        unsafe { state.cast_unchecked::<CachedState>() }.get()
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
                self.make_coroutine(&ffi::none(py)).and_then(|inner| self.begin(&turn, inner, how))
            }
            _ => self.resume_inner(&turn, how),
        };
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
        let objects = objects.chain([&self.state]);
        objects.map(Object::as_ptr).map(visit).find(|&stop| stop != 0).unwrap_or(0)
    }

    /// Looks the arguments up, and runs the function after a miss.
    fn start<'a>(&'a self, turn: &Turn<'a>) -> Resumed<'a> {
        let (py, state) = (self.py(), self.state());
        let args = turn.args();
        let step = match lookup::look_up_fast(state, &args) {
            FastLookup::Hit(value) => return Ok(Sent::Returned(value)),
            fast => run::prepare(state, &args, fast)?,
        };
        let inner = match step {
            Step::Return(value) => return Ok(Sent::Returned(value)),
            Step::Share(key) => self.share(key, &args)?,
            Step::Run(pending) => {
                turn.set_pending(pending);
                state.record_miss();
                turn.begin_load();
                self.exact_coroutine(args.call(state.function(py))?)?
            }
        };
        self.begin(turn, inner, Resume::Send(ffi::none(py)))
    }

    /// Returns an awaitable as an exact coroutine.
    fn exact_coroutine<'a>(&'a self, awaitable: Bound<'a, PyAny>) -> New<'a> {
        // SAFETY: a live object.
        if unsafe { pyo3::ffi::PyCoro_CheckExact(awaitable.as_ptr()) } != 0 {
            return Ok(awaitable);
        }
        self.make_coroutine(&awaitable)
    }

    /// Makes a coroutine that awaits an object.
    fn make_coroutine<'a>(&'a self, awaitable: &Bound<'a, PyAny>) -> New<'a> {
        ffi::call(self.state().async_hooks().await_once.bind(self.py()), [awaitable])
    }

    /// Makes a coroutine that shares the run of a key.
    fn share<'a>(&'a self, key: CallKey, args: &Args<'a>) -> New<'a> {
        let py = self.py();
        let (positional, keywords) = args.to_tuple_and_dict()?;
        let share = self.state().async_hooks().share.bind(py);
        let state = self.state.bind(py);
        let key = Raised::catch(py, || Bound::new(py, key))?;
        ffi::call(share, [state, key.as_any(), positional.as_any(), keywords.as_any()])
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
        run::finish(self.state(), turn.take_pending().as_ref(), Ok(value)).map(Sent::Returned)
    }

    fn count(&self, load: Option<Load>, is_failure: bool) {
        if let Some(load) = load {
            self.state().moka().counts().end_load(load, is_failure);
        }
    }

    /// Ends the load and the run if they are still under way, which then have failed.
    fn drop_work(&self, work: Work) {
        let Work { pending, load, .. } = work;
        self.count(load, true);
        if let Some((_key, run)) = pending {
            run::end(self.state(), run);
        }
    }
}

impl Drop for AsyncCall {
    fn drop(&mut self) {
        let work = mem::take(self.work.get_mut());
        self.drop_work(work);
    }
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
