//! `Moka.get`, `set`, `remove` and `get_with`, as bare C functions. PyO3's way in and out of a method takes as long as the
//! look-up itself.
//!
//! # How it works
//! Each function reads the usual forms of its arguments in place; [`Signature::bind`] reads all others. Then it calls one
//! operation of [`CacheState`]. [`install`] puts the functions into the class at import.
//!
//! PyO3 believes in them that the thread is detached, so they return [`Raised`] and never touch a `PyErr`.
//!
//! # Invariants
//! - `called`: the interpreter calls these functions as methods of `Moka`: attached, with an instance first, then `count`
//!   positional arguments and a value for each of `names`. All are alive for the call.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::python::ffi::{Arg, Args, borrowed, is_callable, none, owned};
use crate::python::moka::class::Moka;
use crate::python::moka::convert::{self, Deadlines, Ttl};
use crate::python::moka::refresh::{Found, Loader, refresh};
use crate::python::moka::signature::Signature;
use crate::python::moka::state::CacheState;
use crate::python::object::{Object, builtin, coroutine};
use crate::python::raised::Raised;
use crate::python::runtime::race_cell::interned;

const GET: Signature<2> = Signature { function: "Moka.get()", parameters: ["key", "default"], required: 1 };
const SET: Signature<4> =
    Signature { function: "Moka.set()", parameters: ["key", "value", "ttl", "tti"], required: 2 };
const REMOVE: Signature<2> =
    Signature { function: "Moka.remove()", parameters: ["key", "default"], required: 1 };
const GET_WITH: Signature<4> =
    Signature { function: "Moka.get_with()", parameters: ["key", "initializer", "ttl", "tti"], required: 2 };

/// Puts the functions into the class.
pub(in crate::python) fn install(py: Python<'_>) -> PyResult<()> {
    deadline_names(py);
    let method = |name, function, doc: &'static str| add_method(py, name, function, doc);
    method(c"get", get, concat!("get($self, /, key, default=None)\n--\n\n", doc!("Moka.get"), "\0"))?;
    method(
        c"set",
        set,
        concat!("set($self, /, key, value, ttl=None, tti=None)\n--\n\n", doc!("Moka.set"), "\0"),
    )?;
    method(
        c"remove",
        remove,
        concat!("remove($self, /, key, default=None)\n--\n\n", doc!("Moka.remove"), "\0"),
    )?;
    method(
        c"get_with",
        get_with,
        concat!(
            "get_with($self, /, key, initializer, ttl=None, tti=None)\n--\n\n",
            doc!("Moka.get_with"),
            "\0"
        ),
    )
}

/// `doc` begins with the signature and ends with a zero byte.
pub(in crate::python) fn add_method(
    py: Python<'_>,
    name: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
    doc: &'static str,
) -> PyResult<()> {
    let class = py.get_type::<Moka>();
    // The interpreter keeps a pointer to it for as long as it runs.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: function },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr().cast(),
    }));
    // SAFETY: the class is alive, and the definition is never freed.
    let method = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: a new reference, or null with an exception set.
    let method = unsafe { owned(py, method) }?;
    class.setattr(&*name.to_string_lossy(), method)
}

// --- The functions ---

/// `Moka.get(key, default=None)`.
unsafe extern "C" fn get(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { Call::new(slf, arguments, count, names) };
    match call.key_and_default() {
        Some((key, default)) => match call.cache().get_fast(&key) {
            Some(found) => value_or_default(found, default, call.py),
            None => get_slow(&call, key, default),
        },
        None => match call.bind_key_and_default(&GET) {
            Ok((key, default)) => get_slow(&call, key, default),
            Err(_raised) => ptr::null_mut(),
        },
    }
}

/// `get`, also if the look-up needs a user's code or maintenance.
#[cold]
#[inline(never)]
fn get_slow(call: &Call<'_>, key: Arg<'_>, default: Option<Arg<'_>>) -> *mut PyObject {
    let cache = call.cache();
    let found = cache.key(&key).and_then(|query| cache.get(call.py, &query));
    found.map_or(ptr::null_mut(), |found| value_or_default(found, default, call.py))
}

/// `Moka.set(key, value, ttl=None, tti=None)`.
unsafe extern "C" fn set(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { Call::new(slf, arguments, count, names) };
    match call.two() {
        Some((key, value)) => set_bound(&call, key, value, &Deadlines::NONE),
        None => set_slow(&call),
    }
}

#[inline(never)]
fn set_slow(call: &Call<'_>) -> *mut PyObject {
    match call.two_and_deadlines(&SET, |_| true, |_| Ok(())) {
        Ok((key, value, deadlines)) => set_bound(call, key, value, &deadlines),
        Err(_raised) => ptr::null_mut(),
    }
}

#[inline(always)]
fn set_bound(call: &Call<'_>, key: Arg<'_>, value: Arg<'_>, deadlines: &Deadlines<'_>) -> *mut PyObject {
    let cache = call.cache();
    match cache.key(&key).and_then(|query| cache.set(query, &value, deadlines)) {
        Ok(()) => none(call.py).to_owned().into_ptr(),
        Err(_raised) => ptr::null_mut(),
    }
}

/// `Moka.remove(key, default=None)`.
unsafe extern "C" fn remove(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { Call::new(slf, arguments, count, names) };
    match call.key_and_default() {
        Some((key, default)) => remove_bound(&call, key, default),
        None => match call.bind_key_and_default(&REMOVE) {
            Ok((key, default)) => remove_bound(&call, key, default),
            Err(_raised) => ptr::null_mut(),
        },
    }
}

#[inline]
fn remove_bound(call: &Call<'_>, key: Arg<'_>, default: Option<Arg<'_>>) -> *mut PyObject {
    let cache = call.cache();
    match cache.key(&key).and_then(|query| cache.remove(call.py, &query)) {
        Ok(found) => value_or_default(found, default, call.py),
        Err(_raised) => ptr::null_mut(),
    }
}

/// `Moka.get_with(key, initializer, ttl=None, tti=None)`.
unsafe extern "C" fn get_with(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    count: ffi::Py_ssize_t,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `called`.
    let call = unsafe { Call::new(slf, arguments, count, names) };
    match call.two() {
        Some((key, initializer)) if is_callable(&initializer) => {
            get_with_bound(&call, key, initializer, &Deadlines::NONE)
        }
        _ => get_with_slow(&call),
    }
}

#[inline(never)]
fn get_with_slow(call: &Call<'_>) -> *mut PyObject {
    let check = |initializer: &Arg<'_>| convert::callable("initializer", initializer);
    match call.two_and_deadlines(&GET_WITH, |initializer| is_callable(initializer), check) {
        Ok((key, initializer, deadlines)) => get_with_bound(call, key, initializer, &deadlines),
        Err(_raised) => ptr::null_mut(),
    }
}

#[inline(always)]
fn get_with_bound(
    call: &Call<'_>,
    key: Arg<'_>,
    initializer: Arg<'_>,
    deadlines: &Deadlines<'_>,
) -> *mut PyObject {
    match call.cache().get_for_load_fast(&key) {
        Some(Some(value)) => value.into_ptr(),
        Some(None) => load(call, key, initializer, deadlines, true),
        None => load(call, key, initializer, deadlines, false),
    }
}

/// Apart, so that a hit does not make room for the frame of a load. `is_absent` says that a look-up has just found no value.
#[inline(never)]
fn load(
    call: &Call<'_>,
    key: Arg<'_>,
    initializer: Arg<'_>,
    deadlines: &Deadlines<'_>,
    is_absent: bool,
) -> *mut PyObject {
    let cache = call.cache();
    let args = Args::of(call.py, &[]);
    let load = || {
        let query = cache.key(&key)?;
        if !is_absent {
            let found = call.cache.get().get_for_load(call.py, &query)?;
            cache.counts().record_access(!matches!(found, Found::Absent));
            match found {
                Found::Absent => {}
                Found::Fresh(value) => return Ok(value),
                Found::Stale(value, claim) => {
                    let (function, deadlines) = (&*initializer, *deadlines);
                    let loader = Loader {
                        function,
                        args: &args,
                        deadlines,
                        refuses_coroutines: true,
                        after_write: None,
                    };
                    return refresh(&call.cache, &query, value, claim, &loader);
                }
            }
        }
        let compute = || cache.counts().time_load(|| args.call(&initializer).and_then(coroutine::refuse));
        cache.load(&query, deadlines, is_absent, compute)
    };
    load().map_or(ptr::null_mut(), |value: Object| value.into_ptr())
}

#[inline(always)]
fn value_or_default(found: Option<Object>, default: Option<Arg<'_>>, py: Python<'_>) -> *mut PyObject {
    match (found, default) {
        (Some(value), _) => value.into_ptr(),
        (None, Some(default)) => default.to_owned().into_ptr(),
        (None, None) => none(py).to_owned().into_ptr(),
    }
}

// --- Arguments ---

/// The arguments of a call, as the interpreter passes them.
pub(in crate::python) struct Call<'a> {
    pub py: Python<'a>,
    pub cache: Borrowed<'a, 'a, Moka>,
    arguments: *const *mut PyObject,
    count: usize,
    names: *mut PyObject,
}

impl<'a> Call<'a> {
    /// # Safety
    /// - `called`; and the result does not outlive the call.
    #[inline(always)]
    pub unsafe fn new(
        slf: *mut PyObject,
        arguments: *const *mut PyObject,
        count: ffi::Py_ssize_t,
        names: *mut PyObject,
    ) -> Self {
        // SAFETY: `called`.
        let py = unsafe { Python::assume_attached() };
        // SAFETY: `called`.
        let slf = unsafe { borrowed(py, slf) };
        // SAFETY: `called`; an instance of `Moka`.
        let cache = unsafe { slf.cast_unchecked::<Moka>() };
        Call { py, cache, arguments, count: count as usize, names }
    }

    #[inline(always)]
    fn cache(&self) -> &CacheState {
        self.cache.get()
    }

    #[inline(always)]
    pub fn args(&self) -> Args<'a> {
        // SAFETY: `called`.
        unsafe { Args::new(self.py, self.arguments, self.count, self.names) }
    }

    /// A key and a default, if they are given by position. Else [`Call::bind_key_and_default`] reads them.
    ///
    /// The usual forms of arguments do not pass through memory, as the result of `bind` does: that takes some ns.
    #[inline(always)]
    fn key_and_default(&self) -> Option<(Arg<'a>, Option<Arg<'a>>)> {
        if !self.names.is_null() {
            return None;
        }
        match *self.args().positional() {
            [key] => Some((key, None)),
            [key, default] => Some((key, Some(default))),
            _ => None,
        }
    }

    /// Two arguments, if they are all and given by position. Else [`Call::two_and_deadlines`] reads them.
    #[inline(always)]
    pub fn two(&self) -> Option<(Arg<'a>, Arg<'a>)> {
        match *self.args().positional() {
            [first, second] if self.names.is_null() => Some((first, second)),
            _ => None,
        }
    }

    #[cold]
    #[inline(never)]
    fn bind_key_and_default(&self, signature: &Signature<2>) -> Result<(Arg<'a>, Option<Arg<'a>>), Raised> {
        let args = self.args();
        Raised::catch(self.py, || {
            let [key, default] = signature.bind(args.positional(), args.named())?;
            Ok((required(self.py, key), default))
        })
    }

    /// Reads two arguments and the deadlines. `is_fine` says whether the second argument need not be given to `check`.
    #[inline]
    fn two_and_deadlines(
        &self,
        signature: &Signature<4>,
        is_fine: impl FnOnce(&Arg<'_>) -> bool,
        check: impl FnOnce(&Arg<'_>) -> PyResult<()>,
    ) -> Result<(Arg<'a>, Arg<'a>, Deadlines<'a>), Raised> {
        if let Some(deadlines) = self.deadlines_fast()
            && let [first, second, ..] = *self.args().positional()
            && is_fine(&second)
        {
            return Ok((first, second, deadlines));
        }
        self.bind_two_and_deadlines(signature, check)
    }

    #[cold]
    #[inline(never)]
    fn bind_two_and_deadlines(
        &self,
        signature: &Signature<4>,
        check: impl FnOnce(&Arg<'_>) -> PyResult<()>,
    ) -> Result<(Arg<'a>, Arg<'a>, Deadlines<'a>), Raised> {
        let args = self.args();
        Raised::catch(self.py, || {
            let [first, second, ttl, tti] = signature.bind(args.positional(), args.named())?;
            let second = required(self.py, second);
            check(&second)?;
            Ok((required(self.py, first), second, convert::deadlines(ttl, tti)?))
        })
    }

    /// The deadlines behind two positional arguments, if they are numbers or `None`, and named by interned strings, as those of
    /// a call in a program are. Else `None`; [`Signature::bind`] then finds what is wrong, if anything.
    #[inline]
    fn deadlines_fast(&self) -> Option<Deadlines<'a>> {
        let args = self.args();
        let positional = args.positional().get(2..).filter(|positional| positional.len() <= 2)?;
        let mut nanos = [None; 2];
        let mut put = |index: usize, value: Arg<'_>| {
            let value = if value.is_none() { 0 } else { convert::nanos(builtin::small_number(&value)?)? };
            // `None` if the argument was given twice.
            nanos[index].replace(value).is_none().then_some(())
        };
        for (index, &value) in positional.iter().enumerate() {
            put(index, value)?;
        }
        let names = deadline_names(self.py);
        for (name, value) in args.named() {
            put(names.iter().position(|known| known.as_ptr() == name.as_ptr())?, value)?;
        }
        let [ttl, tti] = nanos.map(Option::unwrap_or_default);
        Some(Deadlines { ttl: Ttl::Nanos(ttl), tti })
    }
}

/// A required argument, which [`Signature::bind`] has found.
fn required<'a>(py: Python<'a>, argument: Option<Arg<'a>>) -> Arg<'a> {
    argument.unwrap_or_else(|| none(py))
}

/// `ttl` and `tti`, as the interpreter interns them.
#[inline]
fn deadline_names(py: Python<'_>) -> [&Bound<'_, PyString>; 2] {
    [interned!(py, "ttl"), interned!(py, "tti")]
}
