//! Python objects as the core sees them: references, keys, errors.

pub(in crate::python) mod builtin;
pub(in crate::python) mod int_layout;
pub(in crate::python) mod key;
pub(in crate::python) mod reference;
#[cfg(Py_GIL_DISABLED)]
mod shared_count;
pub(in crate::python) mod shared_error;
pub(in crate::python) mod tuple;

pub(crate) use self::reference::Object;
