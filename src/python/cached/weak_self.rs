//! `weak_self`: how a call finds the owner that stands for the instance in its key.
//!
//! # How it works
//! A look-up asks the registry for the owner of the instance's address. An address can be reused, so the owner must
//! refer to that very instance. If there is no such owner, `make_owner` of `_owners.py` makes and registers one.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi::PyObject;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::python::cached::owner_registry::OwnerRegistry;
use crate::python::ffi::{self, Args};
use crate::python::raised::Raised;

/// The option of a method that does not keep its instances alive.
pub(in crate::python) struct WeakSelf {
    pub owners: Py<OwnerRegistry>,
    /// Makes and registers the owner of an instance.
    pub make_owner: Py<PyAny>,
}

impl WeakSelf {
    /// Returns the owner of the instance, which is the first argument.
    pub fn owner<'a>(&self, args: &Args<'a>) -> Result<Bound<'a, PyAny>, Raised> {
        let py = args.py();
        let Some(instance) = args.positional().first() else {
            let text = c"weak_self needs the instance as the first positional argument";
            return Err(ffi::raise::<PyTypeError>(py, text));
        };
        if let Some(owner) = self.owners.get().get(py, instance.as_ptr().addr())
            && leads_to(owner.get().reference(), instance)
        {
            return Ok(owner.into_any());
        }
        ffi::call(self.make_owner.bind(py), [instance])
    }

    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owners)?;
        visit.call(&self.make_owner)
    }
}

/// Returns whether a weak reference leads to an object that is alive.
///
/// It takes no reference to the object. Threads that share an instance would all count it, which on the free-threaded
/// build is contended.
fn leads_to(reference: &Py<PyAny>, object: &Bound<'_, PyAny>) -> bool {
    /// The beginning of CPython's `PyWeakReference`.
    #[repr(C)]
    struct WeakReferenceLayout {
        head: PyObject,
        object: *mut PyObject,
    }
    let reference = reference.as_ptr().cast::<WeakReferenceLayout>();
    // SAFETY: a weak reference is laid out so. The owner holds it.
    let target = unsafe { &raw mut (*reference).object };
    // SAFETY: the field is aligned. On the free-threaded build CPython writes it by atomics.
    let target = unsafe { AtomicPtr::from_ptr(target) };
    // Relaxed: a weak reference to an earlier object at this address was cleared before that object was freed. So it
    // was cleared before this object was made, which the caller has.
    target.load(Ordering::Relaxed) == object.as_ptr()
}
