//! CPython's C API, as far as the face calls it: each function is wrapped once, and safe to call.
//!
//! # Why not PyO3's methods
//! PyO3 returns `PyErr`, which must not be dropped where PyO3 believes that the thread is detached ([`Raised`] says where). These
//! functions return [`Raised`] and work there, too.
//!
//! # Invariants
//! - `attached`: the calling thread is attached, since each function takes a `Python<'_>` or an object bound to one.
//! - `live`: each object that is passed is alive for the call, since a `Bound`, a [`Borrowed`] or an [`Args`] refers to it.
//! - `new`: a result is a new reference, or null (or -1) with an exception set, unless the SAFETY comment says otherwise.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::AtomicIsize;

use pyo3::PyTypeInfo;
use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::python::raised::Raised;

/// A borrowed object of any type.
pub(in crate::python) type Arg<'a> = Borrowed<'a, 'a, PyAny>;

/// A new reference, or an exception.
pub(in crate::python) type New<'py, T = PyAny> = Result<Bound<'py, T>, Raised>;

/// Takes the result of a function of CPython.
///
/// # Safety
/// - `pointer` is `new`: a new reference, or null with an exception set.
#[inline]
pub(in crate::python) unsafe fn owned(py: Python<'_>, pointer: *mut ffi::PyObject) -> New<'_> {
    // SAFETY: the caller's.
    unsafe { Bound::from_owned_ptr_or_opt(py, pointer) }.ok_or_else(|| Raised::already_set(py))
}

/// Borrows an argument of a slot or a bare C function.
///
/// # Safety
/// - `pointer` is an object that stays alive for `'a`.
#[inline(always)]
pub(in crate::python) unsafe fn borrowed<'a>(py: Python<'a>, pointer: *mut ffi::PyObject) -> Arg<'a> {
    // SAFETY: the caller's.
    unsafe { Borrowed::from_ptr(py, pointer) }
}

/// The return value of a slot or a bare C function: the new reference, or null with the exception set.
#[inline]
pub(in crate::python) fn into_return<T>(result: New<'_, T>) -> *mut ffi::PyObject {
    result.map_or(ptr::null_mut(), Bound::into_ptr)
}

/// The result of a function that returns 0, or -1 with an exception set.
#[inline]
fn done(py: Python<'_>, status: std::ffi::c_int) -> Result<(), Raised> {
    if status < 0 { Err(Raised::already_set(py)) } else { Ok(()) }
}

// --- Calls ---

/// The arguments of a call: the positional ones, then one for each name.
#[derive(Clone, Copy)]
pub(in crate::python) struct Args<'a> {
    all: &'a [Arg<'a>],
    positional: usize,
    /// A tuple of `str`, or null.
    names: *mut ffi::PyObject,
    py: Python<'a>,
}

impl<'a> Args<'a> {
    /// The arguments of a vectorcall.
    ///
    /// # Safety
    /// - From `arguments` on there are `positional` objects, and one more for each of `names`, a tuple or null. They are alive for `'a`.
    #[inline(always)]
    pub unsafe fn new(
        py: Python<'a>,
        arguments: *const *mut ffi::PyObject,
        positional: usize,
        names: *mut ffi::PyObject,
    ) -> Self {
        let named = if names.is_null() {
            0
        } else {
            // SAFETY: the caller's: a tuple.
            unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
        };
        let all = if arguments.is_null() {
            &[]
        } else {
            // SAFETY: the caller's. A `Borrowed` has the layout of a pointer (`repr(transparent)`).
            unsafe { std::slice::from_raw_parts(arguments.cast(), positional + named) }
        };
        Args { all, positional, names, py }
    }

    /// Positional arguments alone.
    #[inline]
    pub fn of(py: Python<'a>, all: &'a [Arg<'a>]) -> Self {
        Args { all, positional: all.len(), names: ptr::null_mut(), py }
    }

    /// The last arguments have these names.
    pub fn with_names(all: &'a [Arg<'a>], names: &'a Bound<'a, PyTuple>) -> Self {
        let positional = all.len().checked_sub(names.len()).expect("each name has an argument");
        Args { all, positional, names: names.as_ptr(), py: names.py() }
    }

    pub fn py(&self) -> Python<'a> {
        self.py
    }

    /// All arguments, those with names last.
    #[inline(always)]
    pub fn all(&self) -> &'a [Arg<'a>] {
        self.all
    }

    #[inline(always)]
    pub fn positional(&self) -> &'a [Arg<'a>] {
        &self.all[..self.positional]
    }

    /// The argument, if there is exactly one.
    #[inline(always)]
    pub fn single(&self) -> Option<Arg<'a>> {
        let &[single] = self.all else { return None };
        Some(single)
    }

    #[inline(always)]
    pub fn has_names(&self) -> bool {
        !self.names.is_null()
    }

    /// The tuple of the names, if there is one.
    pub fn names(&self) -> Option<Arg<'a>> {
        // SAFETY: the tuple is alive, as `new` asks.
        self.has_names().then(|| unsafe { borrowed(self.py, self.names) })
    }

    /// Each name with its argument.
    #[inline]
    pub fn named(&self) -> impl Iterator<Item = (Arg<'a>, Arg<'a>)> + use<'a> {
        let (names, py) = (self.names, self.py);
        self.all[self.positional..].iter().enumerate().map(move |(index, &value)| {
            // SAFETY: there is a name for each argument behind the positional ones, as `new` asks.
            let name = unsafe { ffi::PyTuple_GET_ITEM(names, index as ffi::Py_ssize_t) };
            // SAFETY: the tuple holds it.
            (unsafe { borrowed(py, name) }, value)
        })
    }

    /// Calls `function` with them.
    #[inline]
    pub fn call(&self, function: &Bound<'a, PyAny>) -> New<'a> {
        let all = self.all.as_ptr().cast();
        // SAFETY: `attached` and `live`.
        let result = unsafe { ffi::PyObject_Vectorcall(function.as_ptr(), all, self.positional, self.names) };
        // SAFETY: `new`.
        unsafe { owned(self.py, result) }
    }

    /// The positional ones as a tuple, the others as a dict.
    pub fn to_tuple_and_dict(self) -> Result<(Bound<'a, PyTuple>, Bound<'a, PyDict>), Raised> {
        let positional = tuple(self.py, self.positional())?;
        let keywords = dict(self.py)?;
        for (name, value) in self.named() {
            dict_set(&keywords, &name, &value)?;
        }
        Ok((positional, keywords))
    }
}

/// Calls `function` with positional arguments.
#[inline]
pub(in crate::python) fn call<'py, const N: usize>(
    function: &Bound<'py, PyAny>,
    arguments: [&Bound<'py, PyAny>; N],
) -> New<'py> {
    let pointers = arguments.map(Bound::as_ptr);
    // SAFETY: `attached` and `live`.
    let result =
        unsafe { ffi::PyObject_Vectorcall(function.as_ptr(), pointers.as_ptr(), N, ptr::null_mut()) };
    // SAFETY: `new`.
    unsafe { owned(function.py(), result) }
}

/// Calls the method `name` of `object` with positional arguments.
pub(in crate::python) fn call_method<'py, const N: usize>(
    object: &Bound<'py, PyAny>,
    name: &CStr,
    arguments: [&Bound<'py, PyAny>; N],
) -> New<'py> {
    call(&attribute(object, name)?, arguments)
}

/// Whether `object` can be called.
#[inline]
pub(in crate::python) fn is_callable(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `attached` and `live`. It cannot fail: it looks at the type's slot.
    unsafe { ffi::PyCallable_Check(object.as_ptr()) != 0 }
}

/// The attribute `name` of `object`.
pub(in crate::python) fn attribute<'py>(object: &Bound<'py, PyAny>, name: &CStr) -> New<'py> {
    // SAFETY: `attached` and `live`.
    let found = unsafe { ffi::PyObject_GetAttrString(object.as_ptr(), name.as_ptr()) };
    // SAFETY: `new`.
    unsafe { owned(object.py(), found) }
}

/// The attribute `name` of `object`, or `None` if it has none or raises. No exception stays set.
pub(in crate::python) fn attribute_or_none<'py>(
    object: &Bound<'py, PyAny>,
    name: &CStr,
) -> Option<Bound<'py, PyAny>> {
    attribute(object, name).map_err(|_raised| clear(object.py())).ok()
}

/// How a generator or a coroutine answered.
pub(in crate::python) enum Sent<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
}

/// Resumes a generator or a coroutine with `value`.
#[inline]
pub(in crate::python) fn send<'py>(
    iterator: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> Result<Sent<'py>, Raised> {
    let py = iterator.py();
    let mut result = ptr::null_mut();
    // SAFETY: `attached` and `live`; the result is written to.
    let status = unsafe { ffi::PyIter_Send(iterator.as_ptr(), value.as_ptr(), &mut result) };
    // SAFETY: `new`.
    let result = unsafe { owned(py, result) }?;
    Ok(match status {
        ffi::PySendResult::PYGEN_NEXT => Sent::Yielded(result),
        _ => Sent::Returned(result),
    })
}

// --- Keys ---

/// `hash(object)`, which may run a user's code.
#[inline]
pub(in crate::python) fn hash(object: &Bound<'_, PyAny>) -> Result<isize, Raised> {
    // SAFETY: `attached` and `live`.
    match unsafe { ffi::PyObject_Hash(object.as_ptr()) } {
        -1 => Err(Raised::already_set(object.py())),
        hash => Ok(hash),
    }
}

/// Whether two objects are equal, as containers compare: an object equals itself, else `left.__eq__` is asked first.
pub(in crate::python) fn are_equal(
    left: &Bound<'_, PyAny>,
    right: &Bound<'_, PyAny>,
) -> Result<bool, Raised> {
    // SAFETY: `attached` and `live`.
    match unsafe { ffi::PyObject_RichCompareBool(left.as_ptr(), right.as_ptr(), ffi::Py_EQ) } {
        -1 => Err(Raised::already_set(left.py())),
        equal => Ok(equal == 1),
    }
}

// --- Objects ---

/// The address of an object's type. PyO3's `get_type_ptr` may be a call of the interpreter from CPython 3.14 on.
#[inline(always)]
pub(in crate::python) fn type_ptr(object: &Bound<'_, PyAny>) -> *mut ffi::PyTypeObject {
    // SAFETY: `live`; it is a field of every object.
    unsafe { (*object.as_ptr()).ob_type }
}

/// The type of an object, which the object holds.
#[inline(always)]
pub(in crate::python) fn type_of<'a>(object: Arg<'a>) -> Arg<'a> {
    // SAFETY: `live`; an object holds its type.
    unsafe { borrowed(object.py(), type_ptr(&object).cast()) }
}

/// `None`, borrowed.
#[inline]
pub(in crate::python) fn none(py: Python<'_>) -> Arg<'_> {
    // SAFETY: `attached`.
    let none = unsafe { ffi::Py_None() };
    // SAFETY: it lives as long as the interpreter.
    unsafe { borrowed(py, none) }
}

/// A tuple of `items`.
pub(in crate::python) fn tuple<'py>(
    py: Python<'py>,
    items: &[Borrowed<'_, 'py, PyAny>],
) -> New<'py, PyTuple> {
    // SAFETY: `attached`.
    let tuple = unsafe { ffi::PyTuple_New(items.len() as ffi::Py_ssize_t) };
    // SAFETY: `new`.
    let tuple = unsafe { owned(py, tuple) }?;
    for (index, &item) in items.iter().enumerate() {
        let item = item.to_owned().into_ptr();
        // SAFETY: the tuple is new, and has room for this item, of which it gets the reference.
        unsafe { ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index as ffi::Py_ssize_t, item) };
    }
    // SAFETY: a tuple.
    Ok(unsafe { tuple.cast_into_unchecked() })
}

/// The items of an exact tuple, or `None` for any other object.
#[inline]
pub(in crate::python) fn tuple_items<'a, 'py>(
    object: &'a Bound<'py, PyAny>,
) -> Option<impl ExactSizeIterator<Item = Borrowed<'a, 'py, PyAny>>> {
    let py = object.py();
    let tuple = object.as_ptr();
    if type_ptr(object) != &raw mut ffi::PyTuple_Type {
        return None;
    }
    // SAFETY: a tuple.
    let len = unsafe { ffi::PyTuple_GET_SIZE(tuple) } as usize;
    Some((0..len).map(move |index| {
        // SAFETY: the tuple has so many items, and never changes them.
        let item = unsafe { ffi::PyTuple_GET_ITEM(tuple, index as ffi::Py_ssize_t) };
        // SAFETY: the tuple holds the item, and `object` holds the tuple for `'a`.
        unsafe { Borrowed::from_ptr(py, item) }
    }))
}

/// Where an exact tuple keeps its hash, which is -1 until it was computed. `None` for any other object, and before CPython 3.14.
#[inline(always)]
pub(in crate::python) fn kept_tuple_hash<'a>(object: &'a Bound<'_, PyAny>) -> Option<&'a AtomicIsize> {
    #[cfg(Py_3_14)]
    if type_ptr(object) == &raw mut ffi::PyTuple_Type {
        // SAFETY: `live`; a tuple.
        let hash = unsafe { &raw mut (*object.as_ptr().cast::<ffi::PyTupleObject>()).ob_hash };
        // SAFETY: the field is aligned, and other threads access it by atomics or hold the GIL, as this one does.
        return Some(unsafe { AtomicIsize::from_ptr(hash) });
    }
    let _ = object;
    None
}

/// An empty dict.
pub(in crate::python) fn dict(py: Python<'_>) -> New<'_, PyDict> {
    // SAFETY: `attached`.
    let dict = unsafe { ffi::PyDict_New() };
    // SAFETY: `new`.
    let dict = unsafe { owned(py, dict) }?;
    // SAFETY: a dict.
    Ok(unsafe { dict.cast_into_unchecked() })
}

pub(in crate::python) fn dict_set(
    dict: &Bound<'_, PyDict>,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Result<(), Raised> {
    // SAFETY: `attached` and `live`.
    done(dict.py(), unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) })
}

/// A `str` that the interpreter keeps once for all equal ones.
pub(in crate::python) fn interned<'py>(py: Python<'py>, text: &CStr) -> New<'py, PyString> {
    // SAFETY: `attached`.
    let text = unsafe { ffi::PyUnicode_InternFromString(text.as_ptr()) };
    // SAFETY: `new`.
    let text = unsafe { owned(py, text) }?;
    // SAFETY: a `str`.
    Ok(unsafe { text.cast_into_unchecked() })
}

/// Whether a `str` equals an ASCII text.
#[inline]
pub(in crate::python) fn is_text(string: &Bound<'_, PyString>, ascii: &CStr) -> bool {
    // SAFETY: `attached` and `live`, a `str`. It cannot fail: it compares characters.
    unsafe { ffi::PyUnicode_CompareWithASCIIString(string.as_ptr(), ascii.as_ptr()) == 0 }
}

// --- Modules ---

/// The number of imported modules, or `None` if `sys.modules` is not a dict, as at the end of the interpreter.
#[inline]
pub(in crate::python) fn count_modules(py: Python<'_>) -> Option<isize> {
    // SAFETY: `attached`. Borrowed from the interpreter, or null.
    let modules = unsafe { ffi::PyImport_GetModuleDict() };
    // SAFETY: `attached`; a live object.
    let count = if modules.is_null() { -1 } else { unsafe { ffi::PyDict_Size(modules) } };
    if count < 0 {
        clear(py);
        return None;
    }
    Some(count)
}

/// A module, if it is imported. No exception stays set.
pub(in crate::python) fn imported_module<'py>(py: Python<'py>, name: &CStr) -> Option<Bound<'py, PyAny>> {
    let name = interned(py, name).map_err(|_raised| clear(py)).ok()?;
    // SAFETY: `attached` and `live`.
    let module = unsafe { ffi::PyImport_GetModule(name.as_ptr()) };
    // SAFETY: a new reference, or null, with or without an exception.
    let module = unsafe { Bound::from_owned_ptr_or_opt(py, module) };
    if module.is_none() {
        clear(py);
    }
    module
}

// --- Exceptions ---

/// Raises an exception of the class `E`.
#[cold]
pub(in crate::python) fn raise<E: PyTypeInfo>(py: Python<'_>, text: &CStr) -> Raised {
    let class = E::type_object_raw(py);
    // SAFETY: `attached`; the class of an exception.
    unsafe { ffi::PyErr_SetString(class.cast(), text.as_ptr()) };
    Raised::already_set(py)
}

/// Raises `MemoryError`.
#[cold]
pub(in crate::python) fn raise_no_memory(py: Python<'_>) -> Raised {
    // SAFETY: `attached`.
    unsafe { ffi::PyErr_NoMemory() };
    Raised::already_set(py)
}

/// Whether the exception that is set is an instance of `E`.
#[cold]
pub(in crate::python) fn is_raised<E: PyTypeInfo>(py: Python<'_>, _raised: &Raised) -> bool {
    let class = E::type_object_raw(py);
    // SAFETY: `attached`, with an exception set.
    unsafe { ffi::PyErr_ExceptionMatches(class.cast()) != 0 }
}

/// Whether an `except` with this tuple of exception classes catches the exception. It runs no user's code.
pub(in crate::python) fn is_of_types(exception: &Bound<'_, PyAny>, types: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `attached` and `live`.
    unsafe { ffi::PyErr_GivenExceptionMatches(exception.as_ptr(), types.as_ptr()) != 0 }
}

/// Moves the exception out of the thread state.
pub(in crate::python) fn take_raised(py: Python<'_>, _raised: Raised) -> Bound<'_, PyAny> {
    loop {
        match take_exception(py) {
            Some(exception) => return exception,
            // Code of another extension cleared it.
            None => drop(raise::<PySystemError>(py, c"a call failed without an exception")),
        }
    }
}

/// Moves the exception that is set, if any, out of the thread state.
pub(in crate::python) fn take_exception(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: `attached`.
    let exception = unsafe { ffi::PyErr_GetRaisedException() };
    // SAFETY: a new reference, or null.
    unsafe { Bound::from_owned_ptr_or_opt(py, exception) }
}

/// Raises `exception`, an instance of `BaseException`.
pub(in crate::python) fn set_exception(exception: Bound<'_, PyAny>) -> Raised {
    let py = exception.py();
    // SAFETY: `attached`. It takes the reference.
    unsafe { ffi::PyErr_SetRaisedException(exception.into_ptr()) };
    Raised::already_set(py)
}

/// Drops the exception that is set, if any.
#[cold]
pub(in crate::python) fn clear(_py: Python<'_>) {
    // SAFETY: `attached`.
    unsafe { ffi::PyErr_Clear() };
}

/// Gives the exception to `sys.unraisablehook`, with the object that it comes from.
#[cold]
pub(in crate::python) fn write_unraisable(_raised: Raised, from: &Bound<'_, PyAny>) {
    // SAFETY: `attached` and `live`, with an exception set.
    unsafe { ffi::PyErr_WriteUnraisable(from.as_ptr()) };
}

/// The traceback of an exception, or `None` of Python's.
pub(in crate::python) fn traceback<'py>(exception: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let py = exception.py();
    // SAFETY: `attached` and `live`; an exception.
    let traceback = unsafe { ffi::PyException_GetTraceback(exception.as_ptr()) };
    // SAFETY: a new reference, or null without an exception.
    unsafe { Bound::from_owned_ptr_or_opt(py, traceback) }.unwrap_or_else(|| none(py).to_owned())
}

/// Makes `cause` the cause and the context of `exception`, as `raise exception from cause` does.
pub(in crate::python) fn set_cause(exception: &Bound<'_, PyAny>, cause: &Bound<'_, PyAny>) {
    // SAFETY: `attached` and `live`; two exceptions. It takes the reference.
    unsafe { ffi::PyException_SetCause(exception.as_ptr(), cause.clone().into_ptr()) };
    // SAFETY: likewise.
    unsafe { ffi::PyException_SetContext(exception.as_ptr(), cause.clone().into_ptr()) };
}

/// Runs the handlers of signals that have arrived.
pub(in crate::python) fn check_signals(py: Python<'_>) -> Result<(), Raised> {
    // SAFETY: `attached`.
    done(py, unsafe { ffi::PyErr_CheckSignals() })
}
