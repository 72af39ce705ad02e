//! The naive model and its helpers from the tests of the core, which all fuzz targets share.

#[allow(dead_code)]
#[path = "../../tests/core/naive_model/mod.rs"]
mod naive_model;
#[allow(dead_code)]
#[path = "../../tests/core/support/mod.rs"]
mod support;

pub use naive_model::{FuzzTarget, check_input};
