//! Types beside PyO3's, which lack vectorcall and the slots of coroutines: made once from a spec.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(in crate::python) fn slot(slot: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc: function }
}

/// The place of a field that the interpreter looks for.
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

/// What a type is made of.
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
    /// Makes the type; it can't be changed, nor instantiated from Python. The collector sees its instances.
    pub fn make(mut self, py: Python<'_>) -> PyResult<Py<PyType>> {
        // SAFETY: all zero ends the list.
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
        // SAFETY: attached; the spec is whole.
        let class = unsafe { ffi::PyType_FromSpec(&mut spec) };
        // SAFETY: a new reference, or null with an exception set.
        let class = unsafe { Bound::from_owned_ptr_or_err(py, class) }?;
        Ok(class.cast_into::<PyType>()?.unbind())
    }
}
