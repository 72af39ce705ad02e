//! [`Spec`]: makes types without PyO3, whose classes lack vectorcall and the slots of coroutines.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::python::ffi::owned;

pub(in crate::python) fn slot(slot: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc: function }
}

/// The offset of a field that the interpreter uses.
pub(in crate::python) fn member(name: &'static CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

pub(in crate::python) fn method(
    name: &'static CStr,
    function: ffi::PyMethodDefPointer,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef { ml_name: name.as_ptr(), ml_meth: function, ml_flags: flags, ml_doc: ptr::null() }
}

pub(in crate::python) fn getter(
    name: &'static CStr,
    get: ffi::getter,
    set: Option<ffi::setter>,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef { name: name.as_ptr(), get: Some(get), set, doc: ptr::null(), closure: ptr::null_mut() }
}

/// The parts of a type.
pub(in crate::python) struct Spec {
    pub name: &'static CStr,
    pub size: usize,
    pub flags: c_ulong,
    pub members: Vec<ffi::PyMemberDef>,
    pub methods: Vec<ffi::PyMethodDef>,
    pub getters: Vec<ffi::PyGetSetDef>,
    pub slots: Vec<ffi::PyType_Slot>,
}

impl Spec {
    /// Makes the type. It is immutable, Python cannot instantiate it, and the collector tracks its instances.
    pub fn make(mut self, py: Python<'_>) -> PyResult<Py<PyType>> {
        // SAFETY: a member of zeros, which ends the list, is valid.
        self.members.push(unsafe { std::mem::zeroed() });
        self.methods.push(ffi::PyMethodDef::zeroed());
        self.getters.push(ffi::PyGetSetDef::default());
        // The interpreter keeps pointers to these for as long as it runs.
        self.slots.push(slot(ffi::Py_tp_members, self.members.leak().as_mut_ptr().cast()));
        self.slots.push(slot(ffi::Py_tp_methods, self.methods.leak().as_mut_ptr().cast()));
        self.slots.push(slot(ffi::Py_tp_getset, self.getters.leak().as_mut_ptr().cast()));
        self.slots.push(slot(0, ptr::null_mut()));
        let flags = self.flags
            | ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
            | ffi::Py_TPFLAGS_IMMUTABLETYPE;
        let mut spec = ffi::PyType_Spec {
            name: self.name.as_ptr(),
            basicsize: self.size as c_int,
            itemsize: 0,
            #[allow(clippy::unnecessary_cast, reason = "a long has 32 bits on Windows")]
            flags: flags as u32,
            slots: self.slots.as_mut_ptr(),
        };
        // SAFETY: attached; each list of the spec has its end.
        let class = unsafe { ffi::PyType_FromSpec(&mut spec) };
        // SAFETY: a new reference, or null with an exception set.
        let class = unsafe { owned(py, class) }?;
        Ok(class.cast_into::<PyType>()?.unbind())
    }
}
