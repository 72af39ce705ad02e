//! Cached functions: the callable, its keys, its look-up, its state, coroutines, owners held weakly.

pub(in crate::python) mod annotations;
pub(in crate::python) mod arguments;
pub(in crate::python) mod coroutine;
pub(in crate::python) mod coroutine_type;
pub(in crate::python) mod function;
pub(in crate::python) mod lookup;
pub(in crate::python) mod owner_registry;
pub(in crate::python) mod state;
pub(in crate::python) mod weak_self;
