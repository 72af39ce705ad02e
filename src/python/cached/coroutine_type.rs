//! The type of the calls of cached coroutine functions: the methods of `collections.abc.Coroutine`, so that event loops
//! take them for coroutines, and the slots that spare them the method calls.
//!
//! # Invariants
//! - `called`: the interpreter calls the slots: attached, with an instance of the type first.
//! - `whole`: an instance has its body from birth to death.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::python::cached::arguments::CallArgs;
use crate::python::cached::coroutine::{Body, Outcome, Resume, none, raise};
use crate::python::cached::state::CachedState;
use crate::python::object::Object;
use crate::python::runtime::frame;
use crate::python::runtime::heap_type::{Spec, getter, member, method, slot};

/// Missing in pyo3-ffi.
#[expect(non_upper_case_globals, reason = "CPython's name")]
const Py_am_send: c_int = 81;

#[repr(C)]
struct Instance {
    head: ffi::PyObject,
    weak_references: *mut ffi::PyObject,
    body: Body,
}

/// Sets the `StopIteration` with a value, whose reference it takes.
fn stop(value: *mut ffi::PyObject) {
    // SAFETY: `called`.
    let kind = unsafe { ffi::PyExc_StopIteration };
    // SAFETY: `called`; by a call, since a tuple or an exception given to PyErr_SetObject is not the value.
    let stop = unsafe { ffi::PyObject_CallOneArg(kind, value) };
    // SAFETY: the caller's reference.
    unsafe { ffi::Py_DECREF(value) };
    if !stop.is_null() {
        // SAFETY: `called`; takes the new reference.
        unsafe { ffi::PyErr_SetRaisedException(stop) };
    }
}

/// # Safety
/// - `called`.
unsafe fn body<'a>(slf: *mut ffi::PyObject) -> &'a Body {
    // SAFETY: `called` and `whole`.
    unsafe { &(*slf.cast::<Instance>()).body }
}

/// `am_await`: its own iterator.
unsafe extern "C" fn await_it(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    if unsafe { body(slf) }.is_paused() {
        // SAFETY: `called`.
        raise(unsafe { ffi::PyExc_RuntimeError }, c"coroutine is being awaited already");
        return ptr::null_mut();
    }
    // SAFETY: `called`.
    unsafe { ffi::Py_NewRef(slf) }
}

/// `tp_iter`, for `yield from f().__await__()`.
unsafe extern "C" fn iterate(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { ffi::Py_NewRef(slf) }
}

/// `am_send`.
unsafe extern "C" fn send_to(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: `called`.
    let (object, answer) = match unsafe { body(slf) }.resume(Resume::Send(value)) {
        Outcome::Yields(object) => (object, ffi::PySendResult::PYGEN_NEXT),
        Outcome::Returns(object) => (object, ffi::PySendResult::PYGEN_RETURN),
        Outcome::Raises => (ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR),
    };
    // SAFETY: the interpreter's place for it.
    unsafe { *result = object };
    answer
}

/// What an iterator's method returns.
fn passed(outcome: Outcome) -> *mut ffi::PyObject {
    match outcome {
        Outcome::Yields(object) => return object,
        Outcome::Returns(object) => stop(object),
        Outcome::Raises => {}
    }
    ptr::null_mut()
}

/// `tp_iternext`.
unsafe extern "C" fn next(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    passed(unsafe { body(slf) }.resume(Resume::Send(none())))
}

unsafe extern "C" fn send(slf: *mut ffi::PyObject, value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    passed(unsafe { body(slf) }.resume(Resume::Send(value)))
}

unsafe extern "C" fn throw(
    slf: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    let arguments = if count == 0 {
        &[][..]
    } else {
        // SAFETY: `called`, with so many.
        unsafe { std::slice::from_raw_parts(arguments, count as usize) }
    };
    // SAFETY: `called`.
    passed(unsafe { body(slf) }.resume(Resume::Throw(arguments)))
}

unsafe extern "C" fn close(slf: *mut ffi::PyObject, _none: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { body(slf) }.close()
}

unsafe extern "C" fn traverse(slf: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: `called`; an instance of a heap type holds its type.
    let kind = unsafe { ffi::Py_TYPE(slf) }.cast::<ffi::PyObject>();
    // SAFETY: the collector's function, on live objects.
    let visit = |object| unsafe { visit(object, arg) };
    match visit(kind) {
        // SAFETY: `called`.
        0 => unsafe { body(slf) }.traverse(visit),
        stop => stop,
    }
}

/// `tp_clear`.
unsafe extern "C" fn clear(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: `called`.
    unsafe { body(slf) }.clear();
    0
}

/// `tp_finalize`.
unsafe extern "C" fn finalize(slf: *mut ffi::PyObject) {
    // SAFETY: `called`.
    let this = unsafe { body(slf) };
    if !this.is_fresh() {
        return;
    }
    // SAFETY: `called`.
    let raised = unsafe { ffi::PyErr_GetRaisedException() };
    let text = c"coroutine '%S' was never awaited";
    let name = named(this);
    // SAFETY: `called`.
    let kind = unsafe { ffi::PyExc_RuntimeWarning };
    // SAFETY: `called`; the text has one place for an object.
    let failed = unsafe { ffi::PyErr_WarnFormat(kind, 1, text.as_ptr(), name.as_ptr()) };
    if failed != 0 {
        // SAFETY: `called`; an exception is set.
        unsafe { ffi::PyErr_WriteUnraisable(slf) };
    }
    // SAFETY: `called`; what was set before is set again.
    unsafe { ffi::PyErr_SetRaisedException(raised) };
}

unsafe extern "C" fn dealloc(slf: *mut ffi::PyObject) {
    // SAFETY: `called`.
    let is_fresh = unsafe { body(slf) }.is_fresh();
    // SAFETY: nobody else has it.
    if is_fresh && unsafe { ffi::PyObject_CallFinalizerFromDealloc(slf) } != 0 {
        return;
    }
    // SAFETY: nobody else has it.
    unsafe { ffi::PyObject_GC_UnTrack(slf.cast()) };
    // SAFETY: likewise.
    if !unsafe { (*slf.cast::<Instance>()).weak_references }.is_null() {
        // SAFETY: likewise.
        unsafe { ffi::PyObject_ClearWeakRefs(slf) };
    }
    // SAFETY: likewise.
    let body = unsafe { &raw mut (*slf.cast::<Instance>()).body };
    // SAFETY: likewise; `whole`.
    unsafe { ptr::drop_in_place(body) };
    // SAFETY: `called`.
    let kind = unsafe { ffi::Py_TYPE(slf) };
    // SAFETY: it was allocated for the collector.
    unsafe { ffi::PyObject_GC_Del(slf.cast()) };
    // SAFETY: an instance of a heap type held its type.
    unsafe { ffi::Py_DECREF(kind.cast()) };
}

/// What to call it by: the function's name, or the function.
fn named(this: &Body) -> Object {
    let function = this.memo().get().function.as_ptr();
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `called`; a live object.
    let name = unsafe { ffi::PyObject_GetAttrString(function, c"__qualname__".as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    let name = unsafe { Bound::from_owned_ptr_or_opt(py, name) };
    let name = name.unwrap_or_else(|| {
        // SAFETY: `called`.
        unsafe { ffi::PyErr_Clear() };
        // SAFETY: the memo holds it.
        unsafe { Borrowed::<PyAny>::from_ptr(py, function) }.to_owned()
    });
    Object::new(name.unbind())
}

unsafe extern "C" fn represent(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let name = named(unsafe { body(slf) });
    let text = c"<cached coroutine object %S at %p>".as_ptr();
    // SAFETY: `called`; the text has places for an object and a pointer.
    unsafe { ffi::PyUnicode_FromFormat(text, name.as_ptr(), slf) }
}

/// An attribute of the function.
fn of_function(slf: *mut ffi::PyObject, name: &CStr) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let function = unsafe { body(slf) }.memo().get().function.as_ptr();
    // SAFETY: `called`; a live object.
    unsafe { ffi::PyObject_GetAttrString(function, name.as_ptr()) }
}

unsafe extern "C" fn get_name(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    of_function(slf, c"__name__")
}

unsafe extern "C" fn get_qualified_name(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    of_function(slf, c"__qualname__")
}

/// An attribute of the function's coroutine, where it was made; else what `before` makes while the call may still begin, and
/// then `None`.
fn of_inner(
    slf: *mut ffi::PyObject,
    name: &CStr,
    before: fn(&Bound<'_, PyAny>) -> *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let this = unsafe { body(slf) };
    if let Some(inner) = this.inner() {
        // SAFETY: `called`; a live object.
        return unsafe { ffi::PyObject_GetAttrString(inner, name.as_ptr()) };
    }
    let memo = this.memo();
    before(memo.get().function.bind(memo.py()))
}

/// `None`, as a new reference.
fn new_none(_function: &Bound<'_, PyAny>) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { ffi::Py_NewRef(none()) }
}

/// The awaitable that the function waits for.
unsafe extern "C" fn get_awaited(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    of_inner(slf, c"cr_await", new_none)
}

/// Where the coroutine was made, which is noted for the function's own only.
unsafe extern "C" fn get_origin(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    of_inner(slf, c"cr_origin", new_none)
}

unsafe extern "C" fn get_code(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    of_inner(slf, c"cr_code", frame::code_of)
}

/// The frame of the function; `None` after the end.
unsafe extern "C" fn get_frame(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let has_ended = unsafe { body(slf) }.has_ended();
    of_inner(slf, c"cr_frame", if has_ended { new_none } else { frame::new })
}

/// The state by its name, as `inspect.getcoroutinestate` returns it.
unsafe extern "C" fn get_state(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let name = unsafe { body(slf) }.state_name();
    // SAFETY: `called`; a text that ends with a zero.
    unsafe { ffi::PyUnicode_InternFromString(name.as_ptr()) }
}

unsafe extern "C" fn is_running(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let is_running = unsafe { body(slf) }.is_running();
    // SAFETY: `called`.
    unsafe { ffi::PyBool_FromLong(is_running.into()) }
}

unsafe extern "C" fn is_paused(slf: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let is_paused = unsafe { body(slf) }.is_paused();
    // SAFETY: `called`.
    unsafe { ffi::PyBool_FromLong(is_paused.into()) }
}

static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Makes the type, once.
pub(in crate::python) fn prepare(py: Python<'_>) -> PyResult<()> {
    CLASS.get_or_try_init(py, || spec().make(py)).map(|_| ())
}

fn spec() -> Spec {
    let plain = |function| ffi::PyMethodDefPointer { PyCFunction: function };
    Spec {
        name: c"moka_py._CachedCoroutine",
        size: size_of::<Instance>(),
        flags: 0,
        members: vec![member(c"__weaklistoffset__", offset_of!(Instance, weak_references))],
        methods: vec![
            method(c"send", plain(send), ffi::METH_O),
            method(c"throw", ffi::PyMethodDefPointer { PyCFunctionFast: throw }, ffi::METH_FASTCALL),
            method(c"close", plain(close), ffi::METH_NOARGS),
        ],
        getters: vec![
            getter(c"__name__", get_name, None),
            getter(c"__qualname__", get_qualified_name, None),
            getter(c"cr_await", get_awaited, None),
            getter(c"cr_code", get_code, None),
            getter(c"cr_frame", get_frame, None),
            getter(c"cr_origin", get_origin, None),
            getter(c"cr_state", get_state, None),
            getter(c"cr_running", is_running, None),
            getter(c"cr_suspended", is_paused, None),
        ],
        slots: vec![
            slot(ffi::Py_am_await, await_it as *mut c_void),
            slot(Py_am_send, send_to as *mut c_void),
            slot(ffi::Py_tp_iter, iterate as *mut c_void),
            slot(ffi::Py_tp_iternext, next as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(ffi::Py_tp_clear, clear as *mut c_void),
            slot(ffi::Py_tp_finalize, finalize as *mut c_void),
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_repr, represent as *mut c_void),
        ],
    }
}

/// The call of a coroutine function with a memo and these arguments; null is with an exception set.
#[inline]
pub(in crate::python) fn new(
    memo: &Borrowed<'_, '_, CachedState>,
    given: &CallArgs<'_>,
) -> *mut ffi::PyObject {
    let class = CLASS.get(memo.py()).expect("it is prepared for each coroutine function").as_ptr();
    // SAFETY: `called`; the type's instances are of that size.
    let this = unsafe { ffi::PyObject_GC_New::<Instance>(class.cast()) };
    if this.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: nobody else has it.
    unsafe { (*this).weak_references = ptr::null_mut() };
    // SAFETY: likewise.
    let place = unsafe { &raw mut (*this).body };
    // SAFETY: likewise; there is no body yet.
    unsafe { place.write(Body::new(memo, given)) };
    // SAFETY: it is whole.
    unsafe { ffi::PyObject_GC_Track(this.cast()) };
    this.cast()
}
