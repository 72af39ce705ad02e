//! The call of a cached coroutine function: an awaitable that costs no frame when it is a hit.
//!
//! # How it works
//! Like a coroutine it does nothing until it is first resumed. Then the arguments are looked up: a hit is
//! returned at once; a miss makes the function's own coroutine, to which all that follows is passed on, and
//! what that returns is kept. Its face to Python is in [`coroutine_type`](crate::python::cached::coroutine_type).
//!
//! | state | meaning | leaves it |
//! |---|---|---|
//! | `FRESH` | never resumed | `send(None)`, `throw`, `close` |
//! | `PAUSED` | the function's coroutine waits for something | the same |
//! | `RUNNING` | somebody has the turn | who has the turn |
//! | `ENDED` | it returned, raised or was closed | never |
//!
//! # Invariants
//! - `called`: the methods are called from slots of the type: attached, with an instance that is alive.
//! - `turn`: who found the state other than `RUNNING` as he made it so has the turn, until he sets the state again.
//!   He alone touches [`Turn`]; the collector, which looks at it too, runs while all threads are at rest, and nobody
//!   is at rest in the middle of a change.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int};
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::python::cached::arguments::CallArgs;
use crate::python::cached::lookup::{self, MissReason};
use crate::python::cached::state::{CachedState, CallKey, Mode};
use crate::python::moka::stats::Load;
use crate::python::object::Object;
use crate::python::runtime::interpreter::has_stack;
use crate::sync::{AtomicUsize, Ordering};
use crate::{Run, RunStart};

const FRESH: usize = 0;
const PAUSED: usize = 1;
const RUNNING: usize = 2;
const ENDED: usize = 3;

pub(in crate::python) struct Body {
    /// A `CachedState`.
    memo: Object,
    state: AtomicUsize,
    /// The coroutine of a miss; an exact one, so after its end it holds nothing.
    inner: OnceLock<Object>,
    turn: UnsafeCell<Turn>,
}

#[derive(Default)]
struct Turn {
    arguments: SmallVec<[Object; 4]>,
    /// How many arguments are positional; the others have `names`, a tuple.
    count: usize,
    names: Option<Object>,
    /// Under what to keep the result, and the run that computes it, which has not ended.
    made: Option<(CallKey, Run)>,
    /// The run of the function, which is counted when it ends.
    load: Option<Load>,
}

/// How it is resumed.
#[derive(Clone, Copy)]
pub(in crate::python) enum Resume<'a> {
    Send(*mut ffi::PyObject),
    /// With the arguments of `throw`.
    Throw(&'a [*mut ffi::PyObject]),
}

/// What came of it. The objects are new references.
pub(in crate::python) enum Outcome {
    Yields(*mut ffi::PyObject),
    Returns(*mut ffi::PyObject),
    /// With an exception set.
    Raises,
}

impl Turn {
    fn new(given: &CallArgs<'_>) -> Self {
        // SAFETY: `called`.
        let py = unsafe { Python::assume_attached() };
        let own = |object| {
            // SAFETY: the caller of the function holds it.
            let object = unsafe { Borrowed::<PyAny>::from_ptr(py, object) };
            Object::of(&object)
        };
        Turn {
            arguments: given.all().iter().map(|&argument| own(argument)).collect(),
            count: given.positional().len(),
            names: given.has_names().then(|| own(given.names())),
            made: None,
            load: None,
        }
    }

    fn given(&self) -> CallArgs<'_> {
        let names = self.names.as_ref().map_or(ptr::null_mut(), Object::as_ptr);
        // SAFETY: these hold what was given.
        unsafe { CallArgs::new(self.arguments.as_ptr().cast(), self.count, names) }
    }
}

pub(in crate::python) fn raise(kind: *mut ffi::PyObject, text: &CStr) -> Outcome {
    // SAFETY: `called`; an exception's class.
    unsafe { ffi::PyErr_SetString(kind, text.as_ptr()) };
    Outcome::Raises
}

/// Makes a `StopIteration` that is set a `RuntimeError`, as a coroutine does (PEP 479): who awaits would take it for a
/// result. It comes of a user's code that looks the arguments up: of a key, a key function or a weigher.
#[cold]
fn refuse_stop() {
    // SAFETY: `called`.
    let kind = unsafe { ffi::PyExc_StopIteration };
    // SAFETY: `called`; an exception is set.
    if unsafe { ffi::PyErr_ExceptionMatches(kind) } == 0 {
        return;
    }
    // SAFETY: `called`; an exception is set.
    let stop = unsafe { ffi::PyErr_GetRaisedException() };
    // SAFETY: `called`.
    raise(unsafe { ffi::PyExc_RuntimeError }, c"coroutine raised StopIteration");
    // SAFETY: `called`; an exception is set.
    let error = unsafe { ffi::PyErr_GetRaisedException() };
    // SAFETY: the reference taken above.
    let cause = unsafe { ffi::Py_NewRef(stop) };
    // SAFETY: both are exceptions; takes the reference.
    unsafe { ffi::PyException_SetCause(error, cause) };
    // SAFETY: likewise; takes the reference from above.
    unsafe { ffi::PyException_SetContext(error, stop) };
    // SAFETY: `called`; takes the reference from above.
    unsafe { ffi::PyErr_SetRaisedException(error) };
}

pub(in crate::python) fn none() -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { ffi::Py_None() }
}

impl Body {
    #[inline]
    pub fn new(memo: &Bound<'_, CachedState>, given: &CallArgs<'_>) -> Self {
        Body {
            memo: Object::of(memo),
            state: AtomicUsize::new(FRESH),
            inner: OnceLock::new(),
            turn: UnsafeCell::new(Turn::new(given)),
        }
    }

    pub fn memo(&self) -> Borrowed<'_, '_, CachedState> {
        // SAFETY: `called`.
        let py = unsafe { Python::assume_attached() };
        let memo = self.memo.bind(py).as_borrowed();
        // SAFETY: only `new` makes instances, with a `CachedState`.
        unsafe { memo.cast_unchecked::<CachedState>() }
    }

    // Acquire: pairs with the Release in `leave`; what the last one did in his turn is seen.
    fn enter(&self) -> usize {
        self.state.swap(RUNNING, Ordering::Acquire)
    }

    fn leave(&self, state: usize) {
        // Release: pairs with the Acquire in `enter`.
        self.state.store(state, Ordering::Release);
    }

    // Relaxed: for who has no turn it is news only.
    fn is(&self, state: usize) -> bool {
        self.state.load(Ordering::Relaxed) == state
    }

    pub fn is_fresh(&self) -> bool {
        self.is(FRESH)
    }

    pub fn is_paused(&self) -> bool {
        self.is(PAUSED)
    }

    pub fn is_running(&self) -> bool {
        self.is(RUNNING)
    }

    pub fn has_ended(&self) -> bool {
        self.is(ENDED)
    }

    /// The name that the `inspect` module has for its state.
    pub fn state_name(&self) -> &'static CStr {
        // Relaxed: as in `is`.
        match self.state.load(Ordering::Relaxed) {
            FRESH => c"CORO_CREATED",
            PAUSED => c"CORO_SUSPENDED",
            RUNNING => c"CORO_RUNNING",
            _ => c"CORO_CLOSED",
        }
    }

    /// The coroutine of the function, where it was run.
    pub fn inner(&self) -> Option<*mut ffi::PyObject> {
        self.inner.get().map(Object::as_ptr)
    }

    /// Ends it, and drops what it no longer needs.
    ///
    /// # Safety
    /// - `turn`.
    unsafe fn end(&self) {
        // SAFETY: `turn`.
        let mut turn = mem::take(unsafe { &mut *self.turn.get() });
        self.leave(ENDED);
        // What ends before it has returned has failed.
        self.count(&mut turn.load, true);
        self.give_up(&mut turn.made);
        drop(turn);
    }

    /// Ends the run, if it has not ended.
    fn give_up(&self, made: &mut Option<(CallKey, Run)>) {
        if let Some((_, run)) = made.take() {
            self.memo().get().moka().core().end_run(run);
        }
    }

    /// Counts the run of the function, if there is one that was not counted.
    fn count(&self, load: &mut Option<Load>, is_failure: bool) {
        if let Some(load) = load.take() {
            self.memo().get().moka().counts().end_load(load, is_failure);
        }
    }

    pub fn resume(&self, how: Resume<'_>) -> Outcome {
        let state = self.enter();
        let outcome = match (state, how) {
            // SAFETY: `called`.
            (RUNNING, _) => return raise(unsafe { ffi::PyExc_ValueError }, c"coroutine already executing"),
            (ENDED, _) => {
                self.leave(ENDED);
                let text = c"cannot reuse already awaited coroutine";
                // SAFETY: `called`.
                return raise(unsafe { ffi::PyExc_RuntimeError }, text);
            }
            (FRESH, Resume::Send(value)) if value != none() => {
                self.leave(FRESH);
                let text = c"can't send non-None value to a just-started coroutine";
                // SAFETY: `called`.
                return raise(unsafe { ffi::PyExc_TypeError }, text);
            }
            // SAFETY: `turn`.
            (FRESH, Resume::Send(_)) => unsafe { self.start() },
            // SAFETY: `turn`.
            (FRESH, Resume::Throw(_)) => unsafe { self.begin(self.awaited(none()), how) },
            // SAFETY: `turn`.
            _ => unsafe { self.go_on(how) },
        };
        if let Outcome::Raises = outcome {
            refuse_stop();
        }
        match outcome {
            Outcome::Yields(_) => self.leave(PAUSED),
            // SAFETY: `turn`.
            _ => unsafe { self.end() },
        }
        outcome
    }

    /// Closes it: raises `GeneratorExit` where it waits. The result is a new reference, or null with an exception set.
    pub fn close(&self) -> *mut ffi::PyObject {
        let state = self.enter();
        if state == RUNNING {
            // SAFETY: `called`.
            raise(unsafe { ffi::PyExc_ValueError }, c"coroutine already executing");
            return ptr::null_mut();
        }
        let result = match self.inner.get() {
            Some(inner) if state == PAUSED => call_method(inner.as_ptr(), c"close", &[]),
            // SAFETY: `called`.
            _ => unsafe { ffi::Py_NewRef(none()) },
        };
        if result.is_null() {
            // It may have refused; if it has not, it says so when it is resumed.
            self.leave(PAUSED);
        } else {
            // SAFETY: `turn`.
            unsafe { self.end() };
        }
        result
    }

    /// Drops what it has, when nobody can reach it and so nobody has the turn. The function's coroutine clears itself.
    pub fn clear(&self) {
        self.enter();
        // SAFETY: `turn`.
        unsafe { self.end() };
    }

    /// Calls `visit` with each object that it holds, until one call returns other than 0; for the collector.
    pub fn traverse(&self, visit: impl FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        // SAFETY: `turn`: all threads are at rest.
        let turn = unsafe { &*self.turn.get() };
        let made = turn.made.as_ref().map(|(made, _)| &made.object);
        let objects = turn.arguments.iter().chain(&turn.names).chain(made).chain(self.inner.get());
        let objects = objects.chain([&self.memo]);
        objects.map(Object::as_ptr).map(visit).find(|&stop| stop != 0).unwrap_or(0)
    }

    /// Looks the arguments up, and runs the function if they are not found.
    ///
    /// # Safety
    /// - `turn`.
    unsafe fn start(&self) -> Outcome {
        let lent = self.memo();
        if !has_stack(lent.py()) {
            return Outcome::Raises;
        }
        let memo = lent.get();
        // SAFETY: `turn`; what is written while this is read is another field.
        let given = unsafe { &*self.turn.get() }.given();
        let made =
            match lookup::find(memo, &given, Ok, |rest, hash| lookup::find_rest(memo, &given, rest, hash)) {
                Ok(value) => return Outcome::Returns(value),
                Err(MissReason::Failed) => return Outcome::Raises,
                Err(MissReason::Miss(made)) => Some(made),
                Err(MissReason::Keyless) => None,
            };
        let coroutine = match made {
            Some(made) if memo.mode == Mode::Shared => self.share(made, &given),
            made => {
                if let Some(made) = made {
                    match lookup::begin(&lent, &made) {
                        // SAFETY: `turn`; what of it is read by others here is another field.
                        Ok(RunStart::Run(run)) => unsafe { (*self.turn.get()).made = Some((made, run)) },
                        Ok(RunStart::Present(value)) => {
                            return Outcome::Returns(lookup::counted(memo, value));
                        }
                        Err(_raised) => return Outcome::Raises,
                    }
                }
                memo.miss();
                // SAFETY: likewise.
                unsafe { (*self.turn.get()).load = Some(Load::begin()) };
                self.coroutine(given.call(&memo.function))
            }
        };
        // SAFETY: the caller's.
        unsafe { self.begin(coroutine, Resume::Send(none())) }
    }

    /// An awaitable, or null, as an exact coroutine, or null.
    fn coroutine(&self, awaitable: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: a live object.
        if awaitable.is_null() || unsafe { ffi::PyCoro_CheckExact(awaitable) } != 0 {
            return awaitable;
        }
        let coroutine = self.awaited(awaitable);
        // SAFETY: the reference given.
        unsafe { ffi::Py_DECREF(awaitable) };
        coroutine
    }

    /// A new coroutine that awaits an object; or null.
    fn awaited(&self, object: *mut ffi::PyObject) -> *mut ffi::PyObject {
        let memo = self.memo();
        let later = memo.get().later.as_ref().expect("a coroutine function's memo has it");
        // SAFETY: `called`; both are live.
        unsafe { ffi::PyObject_CallOneArg(later.awaited.as_ptr(), object) }
    }

    /// A new coroutine that shares the run of a key; or null.
    fn share(&self, made: CallKey, given: &CallArgs<'_>) -> *mut ffi::PyObject {
        let memo = self.memo();
        let Some((args, keywords)) = given.packed(memo.py()) else { return ptr::null_mut() };
        let (key, hash) = (made.object.as_ptr(), made.hash);
        // SAFETY: `called`; the arguments are those of the format.
        unsafe {
            ffi::PyObject_CallMethod(
                memo.as_ptr(),
                c"_share_later".as_ptr(),
                c"OKOO".as_ptr(),
                key,
                hash,
                args.as_ptr(),
                keywords.as_ptr(),
            )
        }
    }

    /// Resumes a new coroutine, or raises if there is none.
    ///
    /// # Safety
    /// - `turn`; `coroutine` is a new reference to an exact coroutine, or null with an exception set.
    unsafe fn begin(&self, coroutine: *mut ffi::PyObject, how: Resume<'_>) -> Outcome {
        // SAFETY: `called`.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: the caller's.
        let Some(coroutine) = (unsafe { Bound::from_owned_ptr_or_opt(py, coroutine) }) else {
            return Outcome::Raises;
        };
        // It is empty: a call begins once.
        let _ = self.inner.set(Object::new(coroutine.unbind()));
        // SAFETY: the caller's.
        unsafe { self.go_on(how) }
    }

    /// Resumes the function's coroutine.
    ///
    /// # Safety
    /// - `turn`, and it has begun.
    unsafe fn go_on(&self, how: Resume<'_>) -> Outcome {
        let inner = self.inner.get().expect("it has begun").as_ptr();
        let value = match how {
            Resume::Send(value) => {
                let mut result = ptr::null_mut();
                // SAFETY: `called`; all are live.
                match unsafe { ffi::PyIter_Send(inner, value, &mut result) } {
                    ffi::PySendResult::PYGEN_NEXT => return Outcome::Yields(result),
                    ffi::PySendResult::PYGEN_ERROR => return Outcome::Raises,
                    ffi::PySendResult::PYGEN_RETURN => result,
                }
            }
            Resume::Throw(arguments) => {
                let result = call_method(inner, c"throw", arguments);
                if !result.is_null() {
                    return Outcome::Yields(result);
                }
                let Some(value) = returned() else { return Outcome::Raises };
                value
            }
        };
        // SAFETY: `turn`.
        let turn = unsafe { &mut *self.turn.get() };
        self.count(&mut turn.load, false);
        let Some((made, run)) = turn.made.take() else {
            return Outcome::Returns(value);
        };
        // SAFETY: a new reference.
        let kept = unsafe { lookup::keep(&self.memo(), &made, value, run) };
        if kept.is_null() { Outcome::Raises } else { Outcome::Returns(kept) }
    }
}

impl Drop for Body {
    /// A run that nobody awaits to its end has failed.
    fn drop(&mut self) {
        let turn = self.turn.get_mut();
        let (mut load, mut made) = (turn.load.take(), turn.made.take());
        self.count(&mut load, true);
        self.give_up(&mut made);
    }
}

/// Calls a method. The result is a new reference, or null with an exception set.
fn call_method(
    object: *mut ffi::PyObject,
    name: &CStr,
    arguments: &[*mut ffi::PyObject],
) -> *mut ffi::PyObject {
    // SAFETY: `called`; a live object.
    let method = unsafe { ffi::PyObject_GetAttrString(object, name.as_ptr()) };
    if method.is_null() {
        return method;
    }
    // SAFETY: `called`; the caller holds the arguments.
    let result =
        unsafe { ffi::PyObject_Vectorcall(method, arguments.as_ptr(), arguments.len(), ptr::null_mut()) };
    // SAFETY: the reference made above.
    unsafe { ffi::Py_DECREF(method) };
    result
}

/// The value of the `StopIteration` that is set, a new reference; `None` where another exception is.
fn returned() -> Option<*mut ffi::PyObject> {
    // SAFETY: `called`.
    let kind = unsafe { ffi::PyExc_StopIteration };
    // SAFETY: `called`.
    if unsafe { ffi::PyErr_ExceptionMatches(kind) } == 0 {
        return None;
    }
    // SAFETY: `called`; an exception is set.
    let stop = unsafe { ffi::PyErr_GetRaisedException() };
    // SAFETY: it is a `StopIteration`, a live object.
    let value = unsafe { (*stop.cast::<ffi::PyStopIterationObject>()).value };
    // SAFETY: the exception holds it.
    let value = unsafe { ffi::Py_NewRef(value) };
    // SAFETY: the reference taken above.
    unsafe { ffi::Py_DECREF(stop) };
    Some(value)
}
