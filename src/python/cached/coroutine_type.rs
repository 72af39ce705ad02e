//! The type of calls of cached coroutine functions and of `Moka.aget_with`. It has the methods of `collections.abc.Coroutine`, so event loops
//! take an instance for a coroutine. It has slots, by which the interpreter resumes it without a method call.
//!
//! [`async_call`](crate::python::cached::async_call) has the code that an instance runs.
//!
//! # Invariants
//! - `called`: the interpreter calls the slots: attached, and with a live instance of the type first.
//! - `whole`: an instance has its call from birth to death.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::python::cached::async_call::{AsyncCall, Resume, Resumed, Source};
use crate::python::ffi::{self, Args, Sent};
use crate::python::moka::flights;
use crate::python::object::coroutine::OWN_CLASS;
use crate::python::runtime::frame;
use crate::python::runtime::heap_type::{Spec, getter, member, method, slot};

/// Missing in pyo3-ffi.
#[expect(non_upper_case_globals, reason = "CPython's name")]
const Py_am_send: c_int = 81;

#[repr(C)]
struct CoroutineInstance {
    head: PyObject,
    weak_references: *mut PyObject,
    call: AsyncCall,
}

/// Returns the call of an instance.
///
/// # Safety
/// - `called`; the result does not outlive the instance.
unsafe fn call_of<'a>(slf: *mut PyObject) -> &'a AsyncCall {
    // SAFETY: `called` and `whole`.
    unsafe { &(*slf.cast::<CoroutineInstance>()).call }
}

/// Makes slots of safe code about the call of the instance.
macro_rules! slots {
    ($($(#[$doc:meta])* fn $name:ident($call:ident $(, $argument:ident: $type:ty)*) -> $result:ty $body:block)*) => {$(
        $(#[$doc])*
        unsafe extern "C" fn $name(slf: *mut PyObject $(, $argument: $type)*) -> $result {
            // SAFETY: `called`.
            let $call = unsafe { call_of(slf) };
            $body
        }
    )*};
}

slots! {
    /// `tp_iternext`.
    fn next(call) -> *mut PyObject {
        into_iterator_return(call, call.resume(Resume::Send(ffi::none(call.py()))))
    }

    fn close(call, _none: *mut PyObject) -> *mut PyObject {
        ffi::into_return(call.close())
    }

    /// `tp_clear`.
    fn clear(call) -> c_int {
        call.clear();
        0
    }

    fn get_name(call, _closure: *mut c_void) -> *mut PyObject {
        ffi::into_return(ffi::attribute(call.function(), c"__name__"))
    }

    fn get_qualified_name(call, _closure: *mut c_void) -> *mut PyObject {
        ffi::into_return(ffi::attribute(call.function(), c"__qualname__"))
    }

    /// The awaitable that the function waits for.
    fn get_awaited(call, _closure: *mut c_void) -> *mut PyObject {
        inner_attribute(call, c"cr_await", default_none)
    }

    /// The place where the coroutine was made, which only the inner coroutine records.
    fn get_origin(call, _closure: *mut c_void) -> *mut PyObject {
        inner_attribute(call, c"cr_origin", default_none)
    }

    fn get_code(call, _closure: *mut c_void) -> *mut PyObject {
        inner_attribute(call, c"cr_code", frame::code_of)
    }

    /// The frame of the function, or `None` after the end.
    fn get_frame(call, _closure: *mut c_void) -> *mut PyObject {
        inner_attribute(call, c"cr_frame", if call.is_closed() { default_none } else { frame::new })
    }

    /// The name of the phase, as `inspect.getcoroutinestate` returns it.
    fn get_state(call, _closure: *mut c_void) -> *mut PyObject {
        ffi::into_return(ffi::interned(call.py(), call.phase_name()))
    }

    fn get_running(call, _closure: *mut c_void) -> *mut PyObject {
        PyBool::new(call.py(), call.is_running()).to_owned().into_ptr()
    }

    fn get_suspended(call, _closure: *mut c_void) -> *mut PyObject {
        PyBool::new(call.py(), call.is_suspended()).to_owned().into_ptr()
    }
}

/// `am_await`: the instance is its own iterator.
unsafe extern "C" fn await_it(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { call_of(slf) };
    if call.is_suspended() {
        let raised = ffi::raise::<PyRuntimeError>(call.py(), c"coroutine is being awaited already");
        return ffi::into_return::<PyAny>(Err(raised));
    }
    // SAFETY: `called`.
    unsafe { iterate(slf) }
}

/// `tp_iter`, for `yield from f().__await__()`.
unsafe extern "C" fn iterate(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    unsafe { pyo3::ffi::Py_NewRef(slf) }
}

/// `am_send`.
unsafe extern "C" fn send_value(
    slf: *mut PyObject,
    value: *mut PyObject,
    result: *mut *mut PyObject,
) -> pyo3::ffi::PySendResult {
    // SAFETY: `called`.
    let call = unsafe { call_of(slf) };
    // SAFETY: the interpreter holds the value for the call.
    let value = unsafe { ffi::borrowed(call.py(), value) };
    let (object, answer) = match call.resume(Resume::Send(value)) {
        Ok(Sent::Yielded(object)) => (object.into_ptr(), pyo3::ffi::PySendResult::PYGEN_NEXT),
        Ok(Sent::Returned(object)) => (object.into_ptr(), pyo3::ffi::PySendResult::PYGEN_RETURN),
        Err(_raised) => (ptr::null_mut(), pyo3::ffi::PySendResult::PYGEN_ERROR),
    };
    // SAFETY: the interpreter passes a place for the result.
    unsafe { *result = object };
    answer
}

/// The return value of an iterator's method: the value that was yielded, or null with an exception set. A result is the value
/// of a `StopIteration`.
fn into_iterator_return(call: &AsyncCall, resumed: Resumed<'_>) -> *mut PyObject {
    match resumed {
        Ok(Sent::Yielded(object)) => return object.into_ptr(),
        Ok(Sent::Returned(value)) => {
            let class = call.py().get_type::<PyStopIteration>();
            // By a call: `PyErr_SetObject` would take a tuple for several arguments, and an exception for the one to
            // raise.
            if let Ok(stop) = ffi::call(&class, [&value]) {
                let _raised = ffi::set_exception(stop);
            }
        }
        Err(_raised) => {}
    }
    ptr::null_mut()
}

unsafe extern "C" fn send(slf: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { call_of(slf) };
    // SAFETY: the interpreter holds the argument for the call.
    let value = unsafe { ffi::borrowed(call.py(), value) };
    into_iterator_return(call, call.resume(Resume::Send(value)))
}

unsafe extern "C" fn throw(
    slf: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: pyo3::ffi::Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { call_of(slf) };
    // SAFETY: the arguments are those of a METH_FASTCALL method.
    let args = unsafe { Args::new(call.py(), arguments, count as usize, ptr::null_mut()) };
    into_iterator_return(call, call.resume(Resume::Throw(args.all())))
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: pyo3::ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: `called`; an instance of a heap type holds its type.
    let class = unsafe { pyo3::ffi::Py_TYPE(slf) }.cast::<PyObject>();
    // SAFETY: the collector's function, on live objects.
    let visit = |object| unsafe { visit(object, arg) };
    match visit(class) {
        // SAFETY: `called`.
        0 => unsafe { call_of(slf) }.traverse(visit),
        stop => stop,
    }
}

/// `tp_finalize`: warns of a call that was never awaited.
unsafe extern "C" fn finalize(slf: *mut PyObject) {
    // SAFETY: `called`.
    let call = unsafe { call_of(slf) };
    if !call.is_created() {
        return;
    }
    let py = call.py();
    let raised_before = ffi::take_exception(py);
    let name = display_name(call);
    let category = py.get_type::<PyRuntimeWarning>();
    let format = c"coroutine '%S' was never awaited";
    // SAFETY: attached; the format has one place, for an object.
    let status = unsafe { pyo3::ffi::PyErr_WarnFormat(category.as_ptr(), 1, format.as_ptr(), name.as_ptr()) };
    if status < 0 {
        // SAFETY: attached, with an exception set.
        unsafe { pyo3::ffi::PyErr_WriteUnraisable(slf) };
    }
    if let Some(exception) = raised_before {
        let _raised = ffi::set_exception(exception);
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: `called`.
    let is_created = unsafe { call_of(slf) }.is_created();
    // SAFETY: this is the last reference. The finalizer may make another.
    if is_created && unsafe { pyo3::ffi::PyObject_CallFinalizerFromDealloc(slf) } != 0 {
        return;
    }
    // SAFETY: this is the last reference.
    unsafe { pyo3::ffi::PyObject_GC_UnTrack(slf.cast()) };
    // SAFETY: likewise.
    if !unsafe { (*slf.cast::<CoroutineInstance>()).weak_references }.is_null() {
        // SAFETY: likewise.
        unsafe { pyo3::ffi::PyObject_ClearWeakRefs(slf) };
    }
    // SAFETY: likewise.
    let call = unsafe { &raw mut (*slf.cast::<CoroutineInstance>()).call };
    // SAFETY: likewise, and `whole`: it is dropped once.
    unsafe { ptr::drop_in_place(call) };
    // SAFETY: `called`.
    let class = unsafe { pyo3::ffi::Py_TYPE(slf) };
    // SAFETY: `new` allocated it for the collector.
    unsafe { pyo3::ffi::PyObject_GC_Del(slf.cast()) };
    // SAFETY: an instance of a heap type held its type.
    unsafe { pyo3::ffi::Py_DECREF(class.cast()) };
}

/// The function's qualified name, or the function if it has none.
fn display_name(call: &AsyncCall) -> Bound<'_, PyAny> {
    let function = call.function();
    ffi::attribute_or_none(function, c"__qualname__").unwrap_or_else(|| function.clone())
}

unsafe extern "C" fn represent(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    let name = display_name(unsafe { call_of(slf) });
    let format = c"<cached coroutine object %S at %p>".as_ptr();
    // SAFETY: attached; the format has places for an object and a pointer.
    unsafe { pyo3::ffi::PyUnicode_FromFormat(format, name.as_ptr(), slf) }
}

/// Returns an attribute of the inner coroutine. If there is none, `default` makes one of the function.
fn inner_attribute(
    call: &AsyncCall,
    name: &CStr,
    default: fn(&Bound<'_, PyAny>) -> *mut PyObject,
) -> *mut PyObject {
    match call.inner() {
        Some(inner) => ffi::into_return(ffi::attribute(inner, name)),
        None => default(call.function()),
    }
}

fn default_none(function: &Bound<'_, PyAny>) -> *mut PyObject {
    ffi::none(function.py()).to_owned().into_ptr()
}

/// Makes the type, and imports the functions that its instances call, once.
pub(in crate::python) fn prepare(py: Python<'_>) -> PyResult<()> {
    flights::import(py)?;
    OWN_CLASS.get_or_try_init(|| spec().make(py)).map(|_| ())
}

/// Whether the type is made.
#[inline]
pub(in crate::python) fn is_prepared() -> bool {
    OWN_CLASS.get().is_some()
}

fn spec() -> Spec {
    let plain = |function| pyo3::ffi::PyMethodDefPointer { PyCFunction: function };
    Spec {
        name: c"moka_py._CachedCoroutine",
        size: size_of::<CoroutineInstance>(),
        flags: 0,
        members: vec![member(c"__weaklistoffset__", offset_of!(CoroutineInstance, weak_references))],
        methods: vec![
            method(c"send", plain(send), pyo3::ffi::METH_O),
            method(
                c"throw",
                pyo3::ffi::PyMethodDefPointer { PyCFunctionFast: throw },
                pyo3::ffi::METH_FASTCALL,
            ),
            method(c"close", plain(close), pyo3::ffi::METH_NOARGS),
        ],
        getters: vec![
            getter(c"__name__", get_name, None),
            getter(c"__qualname__", get_qualified_name, None),
            getter(c"cr_await", get_awaited, None),
            getter(c"cr_code", get_code, None),
            getter(c"cr_frame", get_frame, None),
            getter(c"cr_origin", get_origin, None),
            getter(c"cr_state", get_state, None),
            getter(c"cr_running", get_running, None),
            getter(c"cr_suspended", get_suspended, None),
        ],
        slots: vec![
            slot(pyo3::ffi::Py_am_await, await_it as *mut c_void),
            slot(Py_am_send, send_value as *mut c_void),
            slot(pyo3::ffi::Py_tp_iter, iterate as *mut c_void),
            slot(pyo3::ffi::Py_tp_iternext, next as *mut c_void),
            slot(pyo3::ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(pyo3::ffi::Py_tp_clear, clear as *mut c_void),
            slot(pyo3::ffi::Py_tp_finalize, finalize as *mut c_void),
            slot(pyo3::ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(pyo3::ffi::Py_tp_repr, represent as *mut c_void),
        ],
    }
}

/// Makes the awaitable of a call. Returns null with an exception set if there is no memory.
#[inline]
pub(in crate::python) fn new(source: Source<'_, '_>, args: &Args<'_>) -> *mut PyObject {
    let class = OWN_CLASS.get().expect("it is prepared before the first call").as_ptr();
    // SAFETY: attached; an instance of the type has this size.
    let instance = unsafe { pyo3::ffi::PyObject_GC_New::<CoroutineInstance>(class.cast()) };
    if instance.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: a new object that only this function has.
    unsafe { (*instance).weak_references = ptr::null_mut() };
    // SAFETY: likewise.
    let call = unsafe { &raw mut (*instance).call };
    // SAFETY: likewise. There is no call to drop yet.
    unsafe { call.write(AsyncCall::new(source, args)) };
    // SAFETY: now it is `whole`.
    unsafe { pyo3::ffi::PyObject_GC_Track(instance.cast()) };
    instance.cast()
}
