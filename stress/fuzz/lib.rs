//! What the fuzz targets share: the naive model and its helpers, which are those of the core's tests.

#[allow(dead_code)]
#[path = "../../tests/core/naive_model.rs"]
mod naive_model;
#[allow(dead_code)]
#[path = "../../tests/core/support.rs"]
mod support;

pub use naive_model::{FuzzTarget, check_input};
