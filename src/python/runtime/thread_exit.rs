//! Threads that CPython ends while they run a user's code under a frame of ours: they stay there instead.
//!
//! # How it works
//! When the interpreter ends, a daemon thread is ended where it next needs the interpreter: inside an initializer, a
//! listener, an `__eq__`. CPython before 3.14 does that by `pthread_exit`, which on glibc unwinds the stack, and Rust takes
//! a stranger that unwinds its frames for fatal: the process aborted instead of ending. From 3.14 on CPython lets such
//! a thread hang. So does this file before: each function of CPython that may run a user's code, or wait, is called through
//! one here, whose guard parks the thread for ever as soon as anything unwinds it.
//!
//! The linker puts them in between, for PyO3's calls as for our own: `build.rs` reads the names below and asks it to
//! `--wrap` each. A call costs a frame more and nothing else.
//!
//! # Invariants
//! - `innermost`: no Rust frame is between a function here and CPython, so none is unwound.
//! - `same`: each has the signature that it has in CPython's headers.

#![allow(unsafe_code, non_snake_case)]

use std::ffi::{c_char, c_double, c_int, c_void};

use pyo3::ffi::{Py_ssize_t, PyObject};

/// Parks its thread for ever where it is dropped; else it is forgotten.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

type Object = *mut PyObject;
type Objects = *const Object;

macro_rules! wrap {
    ($($(#[$when:meta])? fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {
        mod real {
            use super::*;

            unsafe extern "C-unwind" {
                $(
                    $(#[$when])?
                    #[link_name = concat!("__real_", stringify!($name))]
                    pub fn $name($($argument: $kind),*) $(-> $result)?;
                )*
            }
        }

        /// The linker knows a function's real name where something refers to it.
        #[used]
        static KNOWN: &[unsafe extern "C" fn()] = {
            #[allow(clashing_extern_declarations)]
            unsafe extern "C" {
                $($(#[$when])? fn $name();)*
            }
            &[$($(#[$when])? $name),*]
        };

        $(
            $(#[$when])?
            #[unsafe(export_name = concat!("__wrap_", stringify!($name)))]
            unsafe extern "C" fn $name($($argument: $kind),*) $(-> $result)? {
                let stays = Stays;
                // SAFETY: the caller's, who meant this very function (`same`).
                let result = unsafe { real::$name($($argument),*) };
                std::mem::forget(stays);
                result
            }
        )*
    };
}

wrap! {
    #[cfg(Py_GIL_DISABLED)]
    fn PyCriticalSection_Begin(section: *mut c_void, object: Object);
    #[cfg(Py_GIL_DISABLED)]
    fn PyCriticalSection_End(section: *mut c_void);
    #[cfg(Py_3_13)]
    fn PyDict_GetItemRef(dict: Object, key: Object, result: *mut Object) -> c_int;
    fn PyDict_SetItem(dict: Object, key: Object, value: Object) -> c_int;
    fn PyErr_CheckSignals() -> c_int;
    fn PyErr_PrintEx(set_last: c_int);
    fn PyErr_SetObject(kind: Object, value: Object);
    fn PyErr_WriteUnraisable(object: Object);
    fn PyEval_RestoreThread(state: *mut c_void);
    fn PyFloat_AsDouble(object: Object) -> c_double;
    fn PyGILState_Ensure() -> c_int;
    fn PyImport_Import(name: Object) -> Object;
    fn PyIter_Next(iterator: Object) -> Object;
    fn PyIter_Send(iterator: Object, value: Object, result: *mut Object) -> c_int;
    fn PyList_Append(list: Object, item: Object) -> c_int;
    fn PyNumber_Index(object: Object) -> Object;
    fn PyObject_Call(callable: Object, arguments: Object, keywords: Object) -> Object;
    fn PyObject_CallFinalizerFromDealloc(object: Object) -> c_int;
    fn PyObject_CallNoArgs(callable: Object) -> Object;
    fn PyObject_ClearWeakRefs(object: Object);
    fn PyObject_DelItem(object: Object, key: Object) -> c_int;
    fn PyObject_GetAttr(object: Object, name: Object) -> Object;
    fn PyObject_GetAttrString(object: Object, name: *const c_char) -> Object;
    fn PyObject_GetItem(object: Object, key: Object) -> Object;
    fn PyObject_GetIter(object: Object) -> Object;
    fn PyObject_Hash(object: Object) -> Py_ssize_t;
    fn PyObject_IsTrue(object: Object) -> c_int;
    fn PyObject_LengthHint(object: Object, default: Py_ssize_t) -> Py_ssize_t;
    fn PyObject_Repr(object: Object) -> Object;
    fn PyObject_RichCompare(left: Object, right: Object, operation: c_int) -> Object;
    fn PyObject_RichCompareBool(left: Object, right: Object, operation: c_int) -> c_int;
    fn PyObject_SetAttr(object: Object, name: Object, value: Object) -> c_int;
    fn PyObject_SetAttrString(object: Object, name: *const c_char, value: Object) -> c_int;
    fn PyObject_SetItem(object: Object, key: Object, value: Object) -> c_int;
    fn PyObject_Size(object: Object) -> Py_ssize_t;
    fn PyObject_Str(object: Object) -> Object;
    fn PyObject_Vectorcall(callable: Object, arguments: Objects, count: usize, names: Object) -> Object;
    fn PyObject_VectorcallMethod(name: Object, arguments: Objects, count: usize, names: Object) -> Object;
    fn PyVectorcall_Call(callable: Object, arguments: Object, keywords: Object) -> Object;
    fn _PyObject_MakeTpCall(
        state: *mut c_void,
        callable: Object,
        arguments: Objects,
        count: Py_ssize_t,
        keywords: Object
    ) -> Object;
    fn _Py_Dealloc(object: Object);
    fn _Py_DecRef(object: Object);
}
