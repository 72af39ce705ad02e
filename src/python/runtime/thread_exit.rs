//! Parks the threads that CPython before 3.14 would end while they run a user's code under a Rust frame.
//!
//! # How it works
//! When the interpreter ends, it ends a daemon thread where the thread next needs the interpreter: inside an initializer, a
//! listener, an `__eq__`. CPython before 3.14 does that by `pthread_exit`, which on glibc unwinds the stack. Rust treats
//! foreign unwinding of its frames as fatal, so the process would abort. From 3.14 on CPython parks such a thread for ever.
//! This file does the same before 3.14. Each function of CPython that may run a user's code, or wait, is called through a
//! wrapper here. The wrapper's guard parks the thread for ever when something unwinds the wrapper.
//!
//! The linker inserts the wrappers, for PyO3's calls, too: `build.rs` reads the names below and has it `--wrap` each. A call
//! costs one frame more.
//!
//! # Invariants
//! - `innermost`: no Rust frame is between a wrapper and CPython, so none is unwound.
//! - `same_signature`: each wrapper has the signature of the function in CPython's headers.

#![allow(unsafe_code, non_snake_case)]

use std::ffi::{c_char, c_double, c_int, c_void};

use pyo3::ffi::{Py_ssize_t, PyObject};

/// Parks its thread for ever when it is dropped. A function that returns forgets it instead.
struct ParkOnUnwind;

impl Drop for ParkOnUnwind {
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

        /// The linker keeps the name of a function that something refers to.
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
                let guard = ParkOnUnwind;
                // SAFETY: the caller meets the contract of this very function (`same_signature`).
                let result = unsafe { real::$name($($argument),*) };
                std::mem::forget(guard);
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
