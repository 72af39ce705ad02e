//! Python objects as the core sees them: references, keys, errors.
//!
//! # Files
//! | file | holds |
//! |---|---|
//! | `reference.rs`, `shared_count.rs` | [`Object`], and how its references are counted and dropped |
//! | `key.rs` | a key with its hash and its equality |
//! | `builtin.rs`, `int_layout.rs`, `str_layout.rs`, `tuple.rs` | hash and equality of builtin types, without a user's code |
//! | `coroutine.rs` | which objects are coroutines |
//! | `long_lived.rs` | objects that live as long as the program |
//! | `shared_error.rs` | an exception that threads share |

pub(in crate::python) mod builtin;
pub(in crate::python) mod coroutine;
pub(in crate::python) mod int_layout;
pub(in crate::python) mod key;
pub(in crate::python) mod long_lived;
pub(in crate::python) mod reference;
#[cfg(Py_GIL_DISABLED)]
mod shared_count;
pub(in crate::python) mod shared_error;
pub(in crate::python) mod str_layout;
pub(in crate::python) mod tuple;

pub(crate) use self::reference::Object;
