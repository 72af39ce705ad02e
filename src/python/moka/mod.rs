//! The class `Moka`.

mod bulk;
mod class;
pub(in crate::python) mod clock;
pub(in crate::python) mod convert;
pub(in crate::python) mod errors;
pub(in crate::python) mod fastcall;
pub(in crate::python) mod listener;
pub(in crate::python) mod mapping;
mod methods;
mod signature;
pub(in crate::python) mod state;
pub(in crate::python) mod stats;

pub(in crate::python) use self::class::Moka;
