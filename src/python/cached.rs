//! The callable that a function becomes when it is cached: called by vectorcall, so that a hit costs no tuple and no
//! frame.
//!
//! # How it works
//! A call is a look-up of its arguments where they lie. A hit ends there. A miss makes the key, calls the
//! function with the arguments as they came, and has the [`Memo`] keep the result. The frame under the
//! user's function is small, so that recursion goes as deep as with `lru_cache`.
//!
//! The type is made from a spec beside PyO3, whose classes have no vectorcall. It flags itself as a method descriptor, so
//! `instance.method(x)` makes no bound method. In its slots PyO3 takes the thread for detached, and to tell it otherwise
//! fails late in the interpreter's end. So what needs PyO3's errors and references is a method of the
//! memo, called through the interpreter; the rest goes without.
//!
//! # Invariants
//! - `called`: the interpreter calls the slots: attached, with an instance of the type first.
//! - `whole`: an instance has its memo from birth until its clear, after which nobody calls it.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::arguments::{Arguments, ErrorSet, Lone, Parts, gather};
use super::key::Key;
use super::memo::{Made, Memo, Mode, is_own_key};
use super::object::Object;
use crate::Lookup;

#[repr(C)]
struct Cached {
    head: ffi::PyObject,
    vectorcall: Option<ffi::vectorcallfunc>,
    weak_references: *mut ffi::PyObject,
    dict: *mut ffi::PyObject,
    /// An owned `Memo`.
    memo: *mut ffi::PyObject,
}

unsafe extern "C" {
    /// Missing in pyo3-ffi.
    fn PyMethod_New(function: *mut ffi::PyObject, instance: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// How the look-up of a call ended.
enum Found {
    /// A new reference.
    Hit(*mut ffi::PyObject),
    Miss(Made),
    /// With an exception set.
    Failed,
}

/// # Safety
/// - `called`.
#[inline]
unsafe fn memo_of<'a>(slf: *mut ffi::PyObject) -> &'a Memo {
    // SAFETY: `called` and `whole`.
    let memo = unsafe { (*slf.cast::<Cached>()).memo };
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: `whole`; the instance holds it for the call.
    let memo = unsafe { Borrowed::<PyAny>::from_ptr(py, memo) };
    // SAFETY: only `new` makes instances, with a `Memo`.
    let memo = unsafe { memo.cast_unchecked::<Memo>() };
    let memo: *const Memo = memo.get();
    // SAFETY: likewise.
    unsafe { &*memo }
}

/// `tp_vectorcall`.
unsafe extern "C" fn call(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flags: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let memo = unsafe { memo_of(slf) };
    // SAFETY: `called`.
    let count = unsafe { ffi::PyVectorcall_NARGS(flags) } as usize;
    // SAFETY: `called`.
    let found = unsafe { find(memo, arguments, count, names) };
    match found {
        Some(Found::Hit(value)) => value,
        Some(Found::Failed) => ptr::null_mut(),
        // SAFETY: `called`; the same arguments.
        Some(Found::Miss(made)) if memo.mode == Mode::Shared => unsafe {
            share(slf, &made, arguments, count, names)
        },
        miss => {
            memo.misses.add();
            let era = memo.era();
            // SAFETY: `called`; the arguments as they came, and the memo holds the function.
            let value = unsafe { ffi::PyObject_Vectorcall(memo.function.as_ptr(), arguments, flags, names) };
            match miss {
                // SAFETY: `called`; a new reference.
                Some(Found::Miss(made)) if !value.is_null() => unsafe { keep(slf, &made, value, era) },
                _ => value,
            }
        }
    }
}

/// Looks a call up; `None` where calls have no keys.
///
/// # Safety
/// - `called`, with these arguments.
#[inline(always)]
unsafe fn find(
    memo: &Memo,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<Found> {
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    if memo.mode == Mode::Keyless {
        return None;
    }
    if memo.make_key.is_some() {
        // SAFETY: the caller's.
        return Some(unsafe { find_made(memo, arguments, count, names) });
    }
    if !names.is_null() || memo.typed {
        // SAFETY: the caller's.
        return Some(unsafe { find_gathered(memo, arguments, count, names) });
    }
    let parts = if count == 0 {
        &[]
    } else {
        // SAFETY: the caller's; so many arguments are there.
        unsafe { std::slice::from_raw_parts(arguments, count) }
    };
    if parts.is_empty() {
        let none = &memo.no_arguments;
        return Some(find_known(memo, &none.query(py), none.object.bind(py)));
    }
    if let [only] = parts {
        // SAFETY: the caller's; held for the call.
        let only = unsafe { Borrowed::from_ptr(py, *only) };
        if is_own_key(&only) {
            return Some(match memo.moka().known(&only) {
                Some(query) => find_known(memo, &query, &only),
                None => find_lone(memo, &only),
            });
        }
    }
    // SAFETY: the caller's.
    Some(unsafe { find_parts(memo, parts) })
}

/// A look-up of an object that is a key by itself, and hashed.
#[inline(always)]
fn find_known(memo: &Memo, query: &Key<'_, '_>, key: &Bound<'_, PyAny>) -> Found {
    match memo.moka().core().glance(query) {
        Some(Some(value)) => {
            memo.hits.add();
            Found::Hit(value.into_ptr())
        }
        Some(None) => Found::Miss(Made { object: Object::of(key), hash: query.hash() }),
        None => find_lone(memo, key),
    }
}

/// # Safety
/// - `called`; the parts are held for the call.
#[inline(always)]
unsafe fn find_parts(memo: &Memo, parts: &[*mut ffi::PyObject]) -> Found {
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the caller's.
    let Some(query) = (unsafe { Arguments::new(py, parts, memo.moka().seed()) }) else {
        return Found::Failed;
    };
    match memo.moka().core().glance(&query) {
        Some(Some(value)) => {
            memo.hits.add();
            Found::Hit(value.into_ptr())
        }
        Some(None) => missed(&query),
        None => find_slow(memo, &query),
    }
}

#[cold]
fn missed(query: &Arguments<'_, '_>) -> Found {
    match query.tuple() {
        Some(object) => Found::Miss(Made { object, hash: query.hash() }),
        None => Found::Failed,
    }
}

/// A look-up that needs a user's code, or maintenance.
#[cold]
fn find_slow(memo: &Memo, query: &Arguments<'_, '_>) -> Found {
    match memo.moka().look_up_unheard(query) {
        Err(ErrorSet) => Found::Failed,
        Ok(None) => missed(query),
        Ok(Some(value)) => {
            memo.hits.add();
            Found::Hit(value.into_ptr())
        }
    }
}

/// A look-up of an object that is a key by itself.
#[cold]
fn find_lone(memo: &Memo, key: &Bound<'_, PyAny>) -> Found {
    let Some(query) = Lone::new(key, memo.moka().seed()) else { return Found::Failed };
    match memo.moka().look_up_unheard(&query) {
        Err(ErrorSet) => Found::Failed,
        Ok(None) => Found::Miss(Made { object: Object::of(key), hash: query.hash() }),
        Ok(Some(value)) => {
            memo.hits.add();
            Found::Hit(value.into_ptr())
        }
    }
}

/// A look-up of what the user's function makes of the arguments.
///
/// # Safety
/// - `called`, with these arguments.
#[cold]
unsafe fn find_made(
    memo: &Memo,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Found {
    let make_key = memo.make_key.as_ref().map_or(ptr::null_mut(), Py::as_ptr);
    // SAFETY: the caller's; there is such a function.
    let key = unsafe { ffi::PyObject_Vectorcall(make_key, arguments, count, names) };
    if key.is_null() {
        return Found::Failed;
    }
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a new reference.
    let key = Object::new(unsafe { Bound::from_owned_ptr(py, key) }.unbind());
    find_lone(memo, key.bind(py))
}

/// A look-up of a call with keywords, or where types count.
///
/// # Safety
/// - `called`, with these arguments.
#[inline(never)]
unsafe fn find_gathered(
    memo: &Memo,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Found {
    // SAFETY: the caller's.
    let parts = unsafe { gather(arguments, count, names, memo.mark.as_ptr(), memo.typed) };
    // SAFETY: the caller's; a type is held by its object.
    unsafe { find_parts(memo, &parts) }
}

/// The key of a call whose arguments are held by the caller: `count` positional ones, then one for each name.
pub(super) fn key_of(
    memo: &Memo,
    py: Python<'_>,
    given: &Parts,
    count: usize,
    names: &Bound<'_, PyTuple>,
) -> PyResult<Made> {
    // SAFETY: the caller holds them.
    let parts = unsafe { gather(given.as_ptr(), count, names.as_ptr(), memo.mark.as_ptr(), memo.typed) };
    // SAFETY: likewise.
    let query = unsafe { Arguments::new(py, &parts, memo.moka().seed()) };
    let query = query.ok_or_else(|| PyErr::fetch(py))?;
    let object = query.tuple().ok_or_else(|| PyErr::fetch(py))?;
    Ok(Made { object, hash: query.hash() })
}

/// Keeps a result, and returns it; or null with what the weigher or an `__eq__` raised.
///
/// # Safety
/// - `called`; `value` is a new reference.
#[inline(never)]
unsafe fn keep(
    slf: *mut ffi::PyObject,
    made: &Made,
    value: *mut ffi::PyObject,
    era: u64,
) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let memo = unsafe { memo_of(slf) };
    if era != memo.era() {
        return value;
    }
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the caller's.
    let lent = unsafe { Borrowed::from_ptr(py, value) };
    let is_set = memo.moka().set_known_at_once(made.query(py), &lent);
    if is_set && era == memo.era() {
        return value;
    }
    // SAFETY: `called`.
    let memo = unsafe { (*slf.cast::<Cached>()).memo };
    let key = made.object.as_ptr();
    // SAFETY: `called`; the arguments are those of the format.
    let kept = unsafe {
        ffi::PyObject_CallMethod(
            memo,
            c"_keep_hashed".as_ptr(),
            c"OKOKi".as_ptr(),
            key,
            made.hash,
            value,
            era,
            c_int::from(is_set),
        )
    };
    if kept.is_null() {
        // SAFETY: the caller's reference.
        unsafe { ffi::Py_DECREF(value) };
        return kept;
    }
    // SAFETY: a new reference.
    unsafe { ffi::Py_DECREF(kept) };
    value
}

/// Computes a result, once for all threads that ask for it.
///
/// # Safety
/// - `called`, with these arguments.
#[inline(never)]
unsafe fn share(
    slf: *mut ffi::PyObject,
    made: &Made,
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's.
    let Some((args, keywords)) = (unsafe { packed(arguments, count, names) }) else { return ptr::null_mut() };
    // SAFETY: `called`.
    let memo = unsafe { (*slf.cast::<Cached>()).memo };
    let key = made.object.as_ptr();
    let (args, keywords) = (args.as_ptr(), keywords.as_ptr());
    // SAFETY: `called`; the arguments are those of the format.
    unsafe {
        ffi::PyObject_CallMethod(memo, c"_share".as_ptr(), c"OKOO".as_ptr(), key, made.hash, args, keywords)
    }
}

/// The arguments of a call as a tuple and a dict; `None` is with an exception set.
///
/// # Safety
/// - `called`, with these arguments.
unsafe fn packed(
    arguments: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> Option<(Object, Object)> {
    // SAFETY: `called`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a new reference, or null with an exception set.
    let owned =
        |object| unsafe { Bound::from_owned_ptr_or_opt(py, object) }.map(|it| Object::new(it.unbind()));
    // SAFETY: attached.
    let args = owned(unsafe { ffi::PyTuple_New(count as ffi::Py_ssize_t) })?;
    // SAFETY: attached.
    let keywords = owned(unsafe { ffi::PyDict_New() })?;
    let named = if names.is_null() {
        0
    } else {
        // SAFETY: the caller's; names are a tuple.
        unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
    };
    let given = if arguments.is_null() {
        &[]
    } else {
        // SAFETY: the caller's; there is an argument for each name as well.
        unsafe { std::slice::from_raw_parts(arguments, count + named) }
    };
    for (index, &argument) in given[..count].iter().enumerate() {
        // SAFETY: the caller's.
        let item = unsafe { ffi::Py_NewRef(argument) };
        // SAFETY: the tuple is new, and this item is empty.
        unsafe { ffi::PyTuple_SET_ITEM(args.as_ptr(), index as ffi::Py_ssize_t, item) };
    }
    for (index, &value) in given[count..].iter().enumerate() {
        // SAFETY: there are so many names.
        let name = unsafe { ffi::PyTuple_GET_ITEM(names, index as ffi::Py_ssize_t) };
        // SAFETY: all are live.
        if unsafe { ffi::PyDict_SetItem(keywords.as_ptr(), name, value) } != 0 {
            return None;
        }
    }
    Some((args, keywords))
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
    unsafe { clear(slf) };
    // SAFETY: likewise.
    let this = unsafe { &mut *slf.cast::<Cached>() };
    let memo = std::mem::replace(&mut this.memo, ptr::null_mut());
    // SAFETY: an owned reference, or null.
    unsafe { ffi::Py_XDECREF(memo) };
    // SAFETY: `called`.
    let kind = unsafe { ffi::Py_TYPE(slf) };
    // SAFETY: it was allocated by the type's generic function, for the collector.
    unsafe { ffi::PyObject_GC_Del(slf.cast()) };
    // SAFETY: an instance of a heap type held its type.
    unsafe { ffi::Py_DECREF(kind.cast()) };
}

unsafe extern "C" fn represent(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: `called`.
    let function = unsafe { memo_of(slf) }.function.as_ptr();
    // SAFETY: attached; the text has one place for an object.
    unsafe { ffi::PyUnicode_FromFormat(c"<cached %R>".as_ptr(), function) }
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

const fn member(name: &'static std::ffi::CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

fn method(name: &'static std::ffi::CStr, function: ffi::PyCFunction, flags: c_int) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}

/// The type of cached functions.
fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.get_or_try_init(py, || make_class(py)).map(|class| class.bind(py))
}

fn make_class(py: Python<'_>) -> PyResult<Py<PyType>> {
    let slot = |slot: c_int, pfunc: *mut c_void| ffi::PyType_Slot { slot, pfunc };
    // The interpreter keeps pointers to these for as long as it runs.
    let members = Box::leak(Box::new([
        member(c"__vectorcalloffset__", offset_of!(Cached, vectorcall)),
        member(c"__weaklistoffset__", offset_of!(Cached, weak_references)),
        member(c"__dictoffset__", offset_of!(Cached, dict)),
        // SAFETY: all zero ends the list.
        unsafe { std::mem::zeroed() },
    ]));
    let methods = Box::leak(Box::new([
        method(c"__reduce__", reduce, ffi::METH_NOARGS),
        method(c"__copy__", copy, ffi::METH_NOARGS),
        method(c"__deepcopy__", copy, ffi::METH_O),
        ffi::PyMethodDef::zeroed(),
    ]));
    let getters = Box::leak(Box::new([
        ffi::PyGetSetDef {
            name: c"__dict__".as_ptr(),
            get: Some(ffi::PyObject_GenericGetDict),
            set: Some(ffi::PyObject_GenericSetDict),
            doc: ptr::null(),
            closure: ptr::null_mut(),
        },
        ffi::PyGetSetDef::default(),
    ]));
    let mut slots = [
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_descr_get, get_method as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_repr, represent as *mut c_void),
        slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_getset, getters.as_mut_ptr().cast()),
        slot(0, ptr::null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
    let mut spec = ffi::PyType_Spec {
        name: c"moka_py._CachedFunction".as_ptr(),
        basicsize: size_of::<Cached>() as c_int,
        itemsize: 0,
        flags: flags as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: attached; the spec is whole.
    let class = unsafe { ffi::PyType_FromSpec(&mut spec) };
    // SAFETY: a new reference, or null with an exception set.
    let class = unsafe { Bound::from_owned_ptr_or_err(py, class) }?;
    Ok(class.cast_into::<PyType>()?.unbind())
}

/// A callable over a memo.
#[pyfunction]
#[pyo3(name = "_cached_function")]
pub(super) fn new(memo: Bound<'_, Memo>) -> PyResult<Bound<'_, PyAny>> {
    let py = memo.py();
    // SAFETY: attached; a type that may be instantiated.
    let made = unsafe { ffi::PyType_GenericAlloc(class(py)?.as_type_ptr(), 0) };
    // SAFETY: a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, made) }?;
    let this = made.as_ptr().cast::<Cached>();
    // SAFETY: a new instance, which nobody else has; it begins zeroed.
    unsafe { (*this).memo = memo.into_any().into_ptr() };
    // SAFETY: likewise.
    unsafe { (*this).vectorcall = Some(call) };
    Ok(made)
}
