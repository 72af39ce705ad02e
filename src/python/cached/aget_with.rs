//! `Moka.aget_with`, as a bare C function. Its awaitables are those of cached coroutine functions.

#![allow(unsafe_code)]

use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use crate::python::cached::async_call::Source;
use crate::python::cached::coroutine_type;
use crate::python::ffi::{Args, is_callable, none};
use crate::python::moka::fastcall::{self, Call};
use crate::python::moka::signature::Signature;
use crate::python::moka::{Moka, convert};
use crate::python::raised::Raised;
use crate::python::runtime::race_cell::RaceCell;

const AGET_WITH: Signature<4> =
    Signature { function: "Moka.aget_with()", parameters: ["key", "initializer", "ttl", "tti"], required: 2 };

static METHOD: RaceCell<Py<PyAny>> = RaceCell::new();

/// Puts the function into the class.
pub(in crate::python) fn install(py: Python<'_>) -> PyResult<()> {
    let doc = concat!(
        "aget_with($self, /, key, initializer, ttl=None, tti=None)\n--\n\n",
        doc!("Moka.aget_with"),
        "\0"
    );
    fastcall::add_method(py, c"aget_with", aget_with, doc)?;
    let method = || Ok::<_, PyErr>(py.get_type::<Moka>().getattr("aget_with")?.unbind());
    METHOD.get_or_try_init(method).map(drop)
}

/// The method, as the class has it.
pub(in crate::python) fn method(py: Python<'_>) -> &Bound<'_, PyAny> {
    METHOD.get().expect("it is installed at import").bind(py)
}

/// `Moka.aget_with(key, initializer, ttl=None, tti=None)`: makes an awaitable.
unsafe extern "C" fn aget_with(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interpreter calls it as a method of `Moka`, as `Call::new` asks.
    let call = unsafe { Call::new(slf, arguments, count, names) };
    match call.two() {
        Some((_key, initializer)) if is_callable(&initializer) && coroutine_type::is_prepared() => {
            coroutine_type::new(Source::Cache(&call.cache), &call.args())
        }
        _ => aget_with_slow(&call),
    }
}

/// `aget_with` with arguments in any form.
#[cold]
#[inline(never)]
fn aget_with_slow(call: &Call<'_>) -> *mut PyObject {
    let (py, args) = (call.py, call.args());
    let bound = Raised::catch(py, || {
        coroutine_type::prepare(py)?;
        let [key, initializer, ttl, tti] = AGET_WITH
            .bind(args.positional(), args.named())?
            .map(|argument| argument.unwrap_or_else(|| none(py)));
        convert::callable("initializer", &initializer)?;
        convert::deadlines(Some(ttl), Some(tti))?;
        Ok([key, initializer, ttl, tti])
    });
    match bound {
        Ok(bound) => coroutine_type::new(Source::Cache(&call.cache), &Args::of(py, &bound)),
        Err(_raised) => ptr::null_mut(),
    }
}
