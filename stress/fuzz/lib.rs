//! What the fuzz targets share: the naive model and its helpers, which are those of the core's tests.

#[allow(dead_code)]
#[path = "../../tests/rust/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../tests/rust/support.rs"]
mod support;

pub use model::{Room, play};
