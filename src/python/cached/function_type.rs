//! The type of cached functions: callable by vectorcall, so that a hit makes no tuple and no frame.
//!
//! It flags itself as a method descriptor, so that `instance.method(x)` makes no bound method.
//!
//! # Invariants
//! - `called`: the interpreter calls the slots: attached, and with a live instance of the type first.
//! - `whole`: an instance has its state from birth to death.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use crate::python::cached::async_call::Source;
use crate::python::cached::lookup::FastLookup;
use crate::python::cached::state::CachedState;
use crate::python::cached::{coroutine_type, function_attributes, sync_call};
use crate::python::ffi;
use crate::python::object::{Object, long_lived};
use crate::python::raised::Raised;
use crate::python::runtime::heap_type::{Spec, getter, member, method, slot};
use crate::python::runtime::race_cell::RaceCell;
use crate::python::runtime::shutdown;

#[repr(C)]
struct FunctionInstance {
    head: PyObject,
    vectorcall: Option<pyo3::ffi::vectorcallfunc>,
    weak_references: *mut PyObject,
    dict: *mut PyObject,
    /// An owned `CachedState`.
    state: *mut PyObject,
}

unsafe extern "C" {
    /// Missing in pyo3-ffi.
    fn PyMethod_New(function: *mut PyObject, instance: *mut PyObject) -> *mut PyObject;
}

/// Returns the state of a cached function.
///
/// # Safety
/// - The thread is attached, and `slf` is an instance of the type that lives for `'a`.
#[inline]
unsafe fn state_of<'a>(slf: *mut PyObject) -> Borrowed<'a, 'a, CachedState> {
    // SAFETY: the caller's, and `whole`.
    let state = unsafe { (*slf.cast::<FunctionInstance>()).state };
    // SAFETY: the caller's.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the instance holds it for as long as it lives.
    let state = unsafe { ffi::borrowed(py, state) };
    // SAFETY: only `new` makes instances, with a `CachedState`.
    unsafe { state.cast_unchecked::<CachedState>() }
}

/// `tp_vectorcall` of a function. It has no frame while the function runs ([`sync_call`]).
unsafe extern "C" fn call(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let state = unsafe { state_of(slf) };
    // SAFETY: the flags are those of a vectorcall.
    let count = unsafe { pyo3::ffi::PyVectorcall_NARGS(flags) } as usize;
    // SAFETY: the arguments are those of a vectorcall.
    match unsafe { sync_call::look_up_fast(state, arguments, count, names) } {
        FastLookup::Hit(value) => value.into_ptr(),
        // SAFETY: likewise.
        fast => unsafe { sync_call::compute(state, arguments, count, names, fast) },
    }
}

/// `tp_vectorcall` of a coroutine function: makes an awaitable.
unsafe extern "C" fn call_async(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let state = unsafe { state_of(slf) };
    // SAFETY: the flags are those of a vectorcall.
    let count = unsafe { pyo3::ffi::PyVectorcall_NARGS(flags) } as usize;
    // SAFETY: the arguments are those of a vectorcall.
    let args = unsafe { ffi::Args::new(state.py(), arguments, count, names) };
    coroutine_type::new(Source::Function(&state), &args)
}

/// `tp_descr_get`: makes a method of the instance, as a function does.
unsafe extern "C" fn get_method(
    slf: *mut PyObject,
    instance: *mut PyObject,
    _owner: *mut PyObject,
) -> *mut PyObject {
    if instance.is_null() {
        // SAFETY: `called`.
        return unsafe { pyo3::ffi::Py_NewRef(slf) };
    }
    // SAFETY: `called`.
    unsafe { PyMethod_New(slf, instance) }
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: pyo3::ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: `called`.
    let this = unsafe { &*slf.cast::<FunctionInstance>() };
    // SAFETY: `called`; an instance of a heap type holds its type.
    let class = unsafe { pyo3::ffi::Py_TYPE(slf) }.cast::<PyObject>();
    for object in [class, this.dict, this.state] {
        if !object.is_null() {
            // SAFETY: the collector's function, on a live object.
            let stop = unsafe { visit(object, arg) };
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

/// `tp_clear`. The state stays (`whole`): the code that still calls the function needs it, and the objects behind it
/// clear themselves.
unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: `called`; only the collector can reach the instance.
    let this = unsafe { &mut *slf.cast::<FunctionInstance>() };
    let dict = std::mem::replace(&mut this.dict, ptr::null_mut());
    // SAFETY: an owned reference, or null.
    unsafe { pyo3::ffi::Py_XDECREF(dict) };
    0
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: `called`, and this is the last reference.
    unsafe { pyo3::ffi::PyObject_GC_UnTrack(slf.cast()) };
    // SAFETY: likewise.
    unsafe { pyo3::ffi::PyObject_ClearWeakRefs(slf) };
    // SAFETY: likewise.
    let this = unsafe { &mut *slf.cast::<FunctionInstance>() };
    let held = [&mut this.dict, &mut this.state].map(|field| std::mem::replace(field, ptr::null_mut()));
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: owned references, or null.
    let held = held.map(|object| unsafe { Bound::from_owned_ptr_or_opt(py, object) });
    // They may hold the last reference to another cached function, and so on.
    shutdown::drop_objects(held.into_iter().flatten().map(|object| Object::new(object.unbind())));
    // SAFETY: `called`.
    let class = unsafe { pyo3::ffi::Py_TYPE(slf) };
    // SAFETY: the type's generic function allocated it for the collector.
    unsafe { pyo3::ffi::PyObject_GC_Del(slf.cast()) };
    // SAFETY: an instance of a heap type held its type.
    unsafe { pyo3::ffi::Py_DECREF(class.cast()) };
}

unsafe extern "C" fn represent(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    let state = unsafe { state_of(slf) };
    let function = state.get().function(state.py());
    // SAFETY: attached; the format has one place, for an object.
    unsafe { pyo3::ffi::PyUnicode_FromFormat(c"<cached %R>".as_ptr(), function.as_ptr()) }
}

/// The attributes that every function has, and that `functools.update_wrapper` may not copy.
const FUNCTION_ATTRIBUTES: [&CStr; 3] = [c"__annotations__", c"__annotate__", c"__type_params__"];

/// `tp_getattro`: the attributes of any object, and those of [`function_attributes`].
///
/// A getter of the type would also answer for the type's own annotations. And those must not answer for a function:
/// before CPython 3.14 they are a dict among the type's attributes.
unsafe extern "C" fn get_attribute(slf: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    let state = unsafe { state_of(slf) };
    let py = state.py();
    // SAFETY: `called`; the interpreter holds the name for the call.
    let name = unsafe { ffi::borrowed(py, name) };
    // SAFETY: the interpreter passes a `str`.
    let name = unsafe { name.cast_unchecked::<PyString>() };
    if !FUNCTION_ATTRIBUTES.into_iter().any(|text| ffi::is_text(&name, text)) {
        // SAFETY: `called`, with a `str`.
        return unsafe { pyo3::ffi::PyObject_GenericGetAttr(slf, name.as_ptr()) };
    }
    // SAFETY: `called`; the type has a place for a dict.
    let own = unsafe { pyo3::ffi::PyObject_GenericGetDict(slf, ptr::null_mut()) };
    // SAFETY: a new reference, or null with an exception set.
    let found = unsafe { ffi::owned(py, own) }.and_then(|own| {
        // SAFETY: the dict of an instance.
        let own = unsafe { own.cast_into_unchecked::<PyDict>() };
        let function = state.get().function(py);
        Raised::catch(py, || function_attributes::get(function, &own, &name))
    });
    ffi::into_return(found)
}

/// Pickles by name, as a function does.
unsafe extern "C" fn reduce(slf: *mut PyObject, _none: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    unsafe { pyo3::ffi::PyObject_GetAttrString(slf, c"__qualname__".as_ptr()) }
}

/// Copies as a function does: it is its own copy.
unsafe extern "C" fn copy(slf: *mut PyObject, _memo: *mut PyObject) -> *mut PyObject {
    // SAFETY: `called`.
    unsafe { pyo3::ffi::Py_NewRef(slf) }
}

/// Returns the type of cached functions.
pub(in crate::python) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: RaceCell<Py<PyType>> = RaceCell::new();
    CLASS.get_or_try_init(|| spec().make(py)).map(|class| class.bind(py))
}

fn spec() -> Spec {
    let plain = |function| pyo3::ffi::PyMethodDefPointer { PyCFunction: function };
    Spec {
        name: c"moka_py._CachedFunction",
        size: size_of::<FunctionInstance>(),
        flags: pyo3::ffi::Py_TPFLAGS_HAVE_VECTORCALL | pyo3::ffi::Py_TPFLAGS_METHOD_DESCRIPTOR,
        members: vec![
            member(c"__vectorcalloffset__", offset_of!(FunctionInstance, vectorcall)),
            member(c"__weaklistoffset__", offset_of!(FunctionInstance, weak_references)),
            member(c"__dictoffset__", offset_of!(FunctionInstance, dict)),
        ],
        methods: vec![
            method(c"__reduce__", plain(reduce), pyo3::ffi::METH_NOARGS),
            method(c"__copy__", plain(copy), pyo3::ffi::METH_NOARGS),
            method(c"__deepcopy__", plain(copy), pyo3::ffi::METH_O),
        ],
        getters: vec![getter(
            c"__dict__",
            pyo3::ffi::PyObject_GenericGetDict,
            Some(pyo3::ffi::PyObject_GenericSetDict),
        )],
        slots: vec![
            slot(pyo3::ffi::Py_tp_call, pyo3::ffi::PyVectorcall_Call as *mut c_void),
            slot(pyo3::ffi::Py_tp_descr_get, get_method as *mut c_void),
            slot(pyo3::ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(pyo3::ffi::Py_tp_clear, clear as *mut c_void),
            slot(pyo3::ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(pyo3::ffi::Py_tp_repr, represent as *mut c_void),
            slot(pyo3::ffi::Py_tp_getattro, get_attribute as *mut c_void),
        ],
    }
}

/// Returns the callable of a state.
///
/// If `is_permanent`, it lives as long as the program where that makes threads faster. So only functions may be
/// permanent of which a program has as many as its text names.
#[pyfunction]
#[pyo3(name = "_cached_function")]
pub(in crate::python) fn new(
    state: Bound<'_, CachedState>,
    is_permanent: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let py = state.py();
    let vectorcall: pyo3::ffi::vectorcallfunc = if state.get().is_async() {
        coroutine_type::prepare(py)?;
        call_async
    } else {
        call
    };
    // SAFETY: attached; the type is a heap type with the generic allocation.
    let function = unsafe { pyo3::ffi::PyType_GenericAlloc(class(py)?.as_type_ptr(), 0) };
    // SAFETY: a new reference, or null with an exception set.
    let function = unsafe { Bound::from_owned_ptr_or_err(py, function) }?;
    let instance = function.as_ptr().cast::<FunctionInstance>();
    // SAFETY: a new instance, zeroed, that only this function has.
    unsafe { (*instance).state = state.into_any().into_ptr() };
    // SAFETY: likewise.
    unsafe { (*instance).vectorcall = Some(vectorcall) };
    if is_permanent {
        long_lived::stop_counting_references(&function);
    }
    Ok(function)
}
