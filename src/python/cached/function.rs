//! The callable that a function becomes when it is cached: called by vectorcall, so that a hit costs no tuple and no
//! frame.
//!
//! # How it works
//! A call is a look-up of its arguments where they lie ([`call`](crate::python::cached::lookup)). A hit ends there. A miss makes the
//! key, registers the run, calls the function with the arguments as they came, and has the [`CachedState`] keep the result,
//! unless the key was written to meanwhile. The frame
//! under the user's function is small, so that recursion goes as deep as with `lru_cache`. A coroutine
//! function's call does nothing but return what does all that when it is awaited
//! ([`coroutine`](crate::python::cached::coroutine)).
//!
//! The type flags itself as a method descriptor, so `instance.method(x)` makes no bound method.
//!
//! # Invariants
//! - `called`: the interpreter calls the slots: attached, with an instance of the type first.
//! - `whole`: an instance has its memo from birth until its clear, after which nobody calls it.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::RunStart;
use crate::python::cached::arguments::CallArgs;
use crate::python::cached::coroutine_type;
use crate::python::cached::lookup::{self, MissReason, Rest};
use crate::python::cached::state::{CachedState, CallKey, Mode};
use crate::python::moka::stats::Load;
use crate::python::object::Object;
use crate::python::runtime::heap_type::{Spec, getter, member, method, slot};
use crate::python::runtime::interpreter::has_stack;
use crate::python::runtime::shutdown;

#[repr(C)]
struct Cached {
    head: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    weak_references: *mut ffi::PyObject,
    dict: *mut ffi::PyObject,
    /// An owned `CachedState`.
    memo: *mut ffi::PyObject,
}

unsafe extern "C" {
    /// Missing in pyo3-ffi.
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// # Safety
/// - `called`.
#[inline]
unsafe fn memo_of<'a>(slf: *mut ffi::PyObject) -> Borrowed<'a, 'a, CachedState> {
    // SAFETY: `called` and `whole`.
    let memo = unsafe { (*slf.cast::<Cached>()).memo };
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `whole`; the instance holds it for the call.
    let memo = unsafe { Borrowed::<PyAny>::from_ptr(py, memo) };
    // SAFETY: only `new` makes instances, with a `CachedState`.
    unsafe { memo.cast_unchecked::<CachedState>() }
}

/// `tp_vectorcall` of a function. It holds nothing but its arguments while the user's function runs: each frame under
/// that counts, and the one of the look-up is large.
unsafe extern "C" fn call(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let count = unsafe { ffi::PyVectorcall_NARGS(flags) } as usize;
    // SAFETY: `called`.
    let (found, hash) = unsafe { look_up(slf, arguments, count, names) };
    match Rest::of_word(found.addr()) {
        None => found,
        // SAFETY: `called`.
        Some(rest) => unsafe { compute(slf, arguments, count, names, rest, hash) },
    }
}

/// The value of a call; or, in the place of a pointer, how to go on with the look-up, and the hash.
///
/// From CPython 3.14 on the bytes of the C stack limit a recursion. So the frame of the look-up must be gone by then, which takes a
/// call. Before, the number of C calls limits it.
///
/// # Safety
/// - `called`.
#[cfg_attr(Py_3_14, inline(never))]
#[cfg_attr(not(Py_3_14), inline(always))]
unsafe fn look_up(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> (*mut ffi::PyObject, u64) {
    // SAFETY: `called`.
    let lent = unsafe { memo_of(slf) };
    // SAFETY: `called`; the caller holds its arguments.
    let given = unsafe { CallArgs::new(arguments, count, names) };
    let rest = |rest: Rest, hash| (ptr::without_provenance_mut(rest as usize), hash);
    lookup::find(lent.get(), &given, |value| (value, 0), rest)
}

/// The result of a call that the first look did not find. If there is a key, it is kept.
///
/// It takes what fits into registers: what is handed over in memory would make the caller's frame larger.
///
/// # Safety
/// - `called`.
#[inline(never)]
unsafe fn compute(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
    rest: Rest,
    hash: u64,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let memo = &unsafe { memo_of(slf) };
    let this = memo.get();
    // SAFETY: `called`; the caller holds its arguments.
    let given = &unsafe { CallArgs::new(arguments, count, names) };
    let made = match lookup::find_rest(this, given, rest, hash) {
        Ok(value) => return value,
        Err(MissReason::Failed) => return ptr::null_mut(),
        Err(MissReason::Miss(made)) => Some(made),
        Err(MissReason::Keyless) => None,
    };
    if let Some(made) = made.as_ref().filter(|_| this.mode == Mode::Shared) {
        return share(memo, made, given);
    }
    if !has_stack(memo.py()) {
        return ptr::null_mut();
    }
    let run = match &made {
        Some(made) => match lookup::begin(memo, made) {
            Ok(RunStart::Run(run)) => Some(run),
            Ok(RunStart::Present(value)) => return lookup::counted(this, value),
            Err(_raised) => return ptr::null_mut(),
        },
        None => None,
    };
    this.miss();
    let load = Load::begin();
    let value = given.call(&this.function);
    this.moka().counts().end_load(load, value.is_null());
    match made.zip(run) {
        Some((_, run)) if value.is_null() => this.moka().core().end_run(run),
        // SAFETY: a new reference.
        Some((made, run)) => return unsafe { lookup::keep(memo, &made, value, run) },
        None => {}
    }
    value
}

/// Computes a result, once for all threads that ask for it. The method is called with its arguments as they lie: a format
/// would take a larger frame.
#[inline(never)]
fn share(memo: &Borrowed<'_, '_, CachedState>, made: &CallKey, given: &CallArgs<'_>) -> *mut ffi::PyObject {
    let Some((args, keywords)) = given.packed(memo.py()) else { return ptr::null_mut() };
    // SAFETY: attached; the text ends with a zero.
    let name = unsafe { ffi::PyUnicode_InternFromString(c"_share".as_ptr()) };
    // SAFETY: attached.
    let hash = unsafe { ffi::PyLong_FromUnsignedLongLong(made.hash) };
    let mut result = ptr::null_mut();
    if !name.is_null() && !hash.is_null() {
        let all = [memo.as_ptr(), made.object.as_ptr(), hash, args.as_ptr(), keywords.as_ptr()];
        // SAFETY: attached; all are live.
        result = unsafe { ffi::PyObject_VectorcallMethod(name, all.as_ptr(), all.len(), ptr::null_mut()) };
    }
    // SAFETY: the reference made above, or null.
    unsafe { ffi::Py_XDECREF(name) };
    // SAFETY: likewise.
    unsafe { ffi::Py_XDECREF(hash) };
    result
}

/// `tp_vectorcall` of a coroutine function.
unsafe extern "C" fn call_later(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let memo = unsafe { memo_of(slf) };
    // SAFETY: `called`.
    let count = unsafe { ffi::PyVectorcall_NARGS(flags) } as usize;
    // SAFETY: `called`; the caller holds its arguments.
    let given = unsafe { CallArgs::new(arguments, count, names) };
    coroutine_type::new(&memo, &given)
}

/// `tp_descr_get`: a method of the instance, as a function is.
unsafe extern "C" fn get_method(
    slf: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _owner: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    if instance.is_null() {
        // SAFETY: `called`.
        return unsafe { ffi::Py_NewRef(slf) };
    }
    // SAFETY: `called`.
    unsafe { PyMethod_New(slf, instance) }
}

unsafe extern "C" fn traverse(slf: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    let this = slf.cast::<Cached>();
    // SAFETY: `called`; an instance of a heap type holds its type.
    let kind = unsafe { ffi::Py_TYPE(slf) }.cast::<ffi::PyObject>();
    // SAFETY: `called`.
    let dict = unsafe { (*this).dict };
    // SAFETY: `called`.
    let memo = unsafe { (*this).memo };
    for object in [kind, dict, memo] {
        if !object.is_null() {
            // SAFETY: `called`; the collector's function, on a live object.
            let stop = unsafe { visit(object, arg) };
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

/// `tp_clear`. The memo stays: whoever still calls this one finds it whole, and its other side clears.
unsafe extern "C" fn clear(slf: *mut ffi::PyObject) -> c_int {
    // SAFETY: `called`; nobody can reach it but the collector.
    let this = unsafe { &mut *slf.cast::<Cached>() };
    let dict = std::mem::replace(&mut this.dict, ptr::null_mut());
    // SAFETY: an owned reference, or null.
    unsafe { ffi::Py_XDECREF(dict) };
    0
}

unsafe extern "C" fn dealloc(slf: *mut ffi::PyObject) {
    // SAFETY: `called`; nobody else has it.
    unsafe { ffi::PyObject_GC_UnTrack(slf.cast()) };
    // SAFETY: likewise.
    unsafe { ffi::PyObject_ClearWeakRefs(slf) };
    // SAFETY: likewise.
    let this = unsafe { &mut *slf.cast::<Cached>() };
    let held = [&mut this.dict, &mut this.memo].map(|field| std::mem::replace(field, ptr::null_mut()));
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: owned references, or null.
    let held = held.map(|object| unsafe { Bound::from_owned_ptr_or_opt(py, object) });
    // Of these the function may be, and that another cached one.
    shutdown::drop_objects(held.into_iter().flatten().map(|object| Object::new(object.unbind())));
    // SAFETY: `called`.
    let kind = unsafe { ffi::Py_TYPE(slf) };
    // SAFETY: it was allocated by the type's generic function, for the collector.
    unsafe { ffi::PyObject_GC_Del(slf.cast()) };
    // SAFETY: an instance of a heap type held its type.
    unsafe { ffi::Py_DECREF(kind.cast()) };
}

unsafe extern "C" fn represent(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let function = unsafe { memo_of(slf) }.get().function.as_ptr();
    // SAFETY: attached; the text has one place for an object.
    unsafe { ffi::PyUnicode_FromFormat(c"<cached %R>".as_ptr(), function) }
}

/// The attributes that every function has, and that `functools.update_wrapper` may not copy.
const LIKE_A_FUNCTION: [&CStr; 3] = [c"__annotations__", c"__annotate__", c"__type_params__"];

/// `tp_getattro`: the attributes of any object, and some that a function always has, from the memo
/// ([`annotations`](crate::python::cached::annotations)). A getter of the type would also answer for the type's own annotations. Nor may those
/// answer for a function: before CPython 3.14 they are a dict among the type's attributes.
unsafe extern "C" fn get_attribute(slf: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`, with a `str`.
    let is = |text: &CStr| unsafe { ffi::PyUnicode_CompareWithASCIIString(name, text.as_ptr()) } == 0;
    if !LIKE_A_FUNCTION.into_iter().any(is) {
        // SAFETY: `called`, with a `str`.
        return unsafe { ffi::PyObject_GenericGetAttr(slf, name) };
    }
    // SAFETY: `called`; the type has a place for a dict.
    let own = unsafe { ffi::PyObject_GenericGetDict(slf, ptr::null_mut()) };
    if own.is_null() {
        return own;
    }
    // SAFETY: `called`.
    let memo = unsafe { memo_of(slf) }.as_ptr();
    // SAFETY: `called`; the arguments are those of the format.
    let found =
        unsafe { ffi::PyObject_CallMethod(memo, c"_like_a_function".as_ptr(), c"OO".as_ptr(), own, name) };
    // SAFETY: the reference made above.
    unsafe { ffi::Py_DECREF(own) };
    found
}

/// Pickled by name, like a function.
unsafe extern "C" fn reduce(slf: *mut ffi::PyObject, _none: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { ffi::PyObject_GetAttrString(slf, c"__qualname__".as_ptr()) }
}

/// Copied as a function is: it is its own copy.
unsafe extern "C" fn copy(slf: *mut ffi::PyObject, _memo: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    unsafe { ffi::Py_NewRef(slf) }
}

/// The type of cached functions.
pub(in crate::python) fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.get_or_try_init(py, || spec().make(py)).map(|class| class.bind(py))
}

fn spec() -> Spec {
    let plain = |function| ffi::PyMethodDefPointer { PyCFunction: function };
    Spec {
        name: c"moka_py._CachedFunction",
        size: size_of::<Cached>(),
        flags: ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR,
        members: vec![
            member(c"__vectorcalloffset__", offset_of!(Cached, vectorcall)),
            member(c"__weaklistoffset__", offset_of!(Cached, weak_references)),
            member(c"__dictoffset__", offset_of!(Cached, dict)),
        ],
        methods: vec![
            method(c"__reduce__", plain(reduce), ffi::METH_NOARGS),
            method(c"__copy__", plain(copy), ffi::METH_NOARGS),
            method(c"__deepcopy__", plain(copy), ffi::METH_O),
        ],
        getters: vec![getter(c"__dict__", ffi::PyObject_GenericGetDict, Some(ffi::PyObject_GenericSetDict))],
        slots: vec![
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, get_method as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(ffi::Py_tp_clear, clear as *mut c_void),
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_repr, represent as *mut c_void),
            slot(ffi::Py_tp_getattro, get_attribute as *mut c_void),
        ],
    }
}

/// A callable over a memo. With `for_ever` it lives as long as the program, where that makes threads faster: so only for
/// functions of which a program has as many as its text names.
#[pyfunction]
#[pyo3(name = "_cached_function")]
pub(in crate::python) fn new(memo: Bound<'_, CachedState>, for_ever: bool) -> PyResult<Bound<'_, PyAny>> {
    let py = memo.py();
    let vectorcall: ffi::vectorcallfunc = match memo.get().later {
        Some(_) => {
            coroutine_type::prepare(py)?;
            call_later
        }
        None => call,
    };
    // SAFETY: attached; a type that may be instantiated.
    let made = unsafe { ffi::PyType_GenericAlloc(class(py)?.as_type_ptr(), 0) };
    // SAFETY: a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    let this = made.as_ptr().cast::<Cached>();
    // SAFETY: a new instance, which nobody else has; it begins zeroed.
    unsafe { (*this).memo = memo.into_any().into_ptr() };
    // SAFETY: likewise.
    unsafe { (*this).vectorcall = Some(vectorcall) };
    if for_ever {
        keep_for_ever(&made);
    }
    Ok(made)
}

/// Frees threads from counting the references to one object, which costs them more than the look-up: CPython 3.13
/// does so with its own functions once a second thread was started, and counts immortal objects not at all.
#[cfg(all(Py_GIL_DISABLED, not(Py_3_14)))]
fn keep_for_ever(object: &Bound<'_, PyAny>) {
    use std::sync::atomic::Ordering::Relaxed;
    let object = object.as_ptr();
    // SAFETY: `called`; an object that the collector tracks.
    unsafe { ffi::PyObject_GC_UnTrack(object.cast()) };
    // SAFETY: a new object, which nobody else has.
    let head = unsafe { &mut *object };
    head.ob_tid = 0;
    // Relaxed: whoever passes it to other threads orders that.
    head.ob_ref_local.store(u32::MAX, Relaxed);
    head.ob_ref_shared.store(0, Relaxed);
}

/// CPython 3.14 and later can leave the references of frames to an object uncounted. It is then freed by the collector.
#[cfg(all(Py_GIL_DISABLED, Py_3_14))]
fn keep_for_ever(object: &Bound<'_, PyAny>) {
    unsafe extern "C" {
        /// Missing in pyo3-ffi. Returns 0 where the object stays as it is, and never raises.
        fn PyUnstable_Object_EnableDeferredRefcount(object: *mut ffi::PyObject) -> c_int;
    }
    // SAFETY: `called`; a new object that the collector tracks.
    unsafe { PyUnstable_Object_EnableDeferredRefcount(object.as_ptr()) };
}

/// With a GIL counting costs nothing more.
#[cfg(not(Py_GIL_DISABLED))]
fn keep_for_ever(_object: &Bound<'_, PyAny>) {}
