//! The class `Moka`.

pub(in crate::python) mod bulk;
pub(in crate::python) mod clock;
pub(in crate::python) mod construction;
pub(in crate::python) mod convert;
pub(in crate::python) mod fastcall;
pub(in crate::python) mod listener;
pub(in crate::python) mod mapping;
pub(in crate::python) mod methods;
pub(in crate::python) mod state;
pub(in crate::python) mod stats;

pub(in crate::python) use self::state::{CacheState, Moka};
