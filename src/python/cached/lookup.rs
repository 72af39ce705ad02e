//! A call of a cached function: its look-up, and the keeping of its result.
//!
//! # How it works
//! The arguments are looked up where they lie. Where they are no key by themselves the key is made of parts:
//! with keywords, where types count, where a user's function makes it, and where the cache knows its
//! instance by an [`Owner`] in its place.
//!
//! It runs in slots of types beside PyO3's ([`heap_type`](crate::python::runtime::heap_type)), where PyO3 takes the thread for detached;
//! and to tell it otherwise fails late in the interpreter's end. So what needs PyO3's errors and references is a
//! method of the memo, called through the interpreter; the rest goes without.
//!
//! # Invariants
//! - `attached`: all of this happens on an attached thread.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::cached::arguments::{ArgsKey, CallArgs, Parts, SingleArgKey};
use crate::python::cached::state::{CachedState, CallKey, Mode, WeakSelf, is_own_key};
use crate::python::cached::weak_self::Owner;
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::raised::Raised;
use crate::{KeyQuery, Run, RunStart};

/// Why the look-up of a call found no result.
pub(in crate::python) enum MissReason {
    Miss(CallKey),
    /// Calls have no keys.
    Keyless,
    /// With an exception set.
    Failed,
}

/// A new reference, or none.
type Found = Result<*mut ffi::PyObject, MissReason>;

/// How a call is looked up after the first, quick look: one byte, which fits into a register. `Absent` says that the key is
/// absent for certain.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(in crate::python) enum Rest {
    /// Calls have no keys.
    Keyless,
    /// With an exception set.
    Failed,
    /// The key is more than the positional arguments.
    Composed,
    /// The only argument is the key, and a user's code hashes it.
    SingleArgKey,
    /// The only argument is the key.
    Known,
    KnownAbsent,
    /// There are no arguments.
    Empty,
    EmptyAbsent,
    /// The positional arguments are the key.
    Parts,
    PartsAbsent,
}

impl Rest {
    /// The one that a word stands for; none for an address of an object.
    #[inline]
    pub fn of_word(word: usize) -> Option<Self> {
        const ALL: [Rest; 10] = [
            Rest::Keyless,
            Rest::Failed,
            Rest::Composed,
            Rest::SingleArgKey,
            Rest::Known,
            Rest::KnownAbsent,
            Rest::Empty,
            Rest::EmptyAbsent,
            Rest::Parts,
            Rest::PartsAbsent,
        ];
        ALL.get(word).copied()
    }
}

/// Looks a call up, as far as that needs neither a user's code nor maintenance. A hit ends at once: to hand its value on in a
/// [`Found`] took as long as the probe. For the others [`find_rest`] goes on, with the hash that `rest` gets.
#[inline(always)]
pub(in crate::python) fn find<R>(
    memo: &CachedState,
    given: &CallArgs<'_>,
    hit: impl FnOnce(*mut ffi::PyObject) -> R,
    rest: impl FnOnce(Rest, u64) -> R,
) -> R {
    // SAFETY: `attached`.
    let py = unsafe { Python::assume_attached() };
    let cache = memo.moka().core();
    if memo.mode == Mode::Keyless {
        rest(Rest::Keyless, 0)
    } else if !memo.is_plain || given.has_names() {
        rest(Rest::Composed, 0)
    } else if let Some(only) = given.only(py).filter(|only| is_own_key(only)) {
        match memo.moka().builtin_key(&only) {
            Some(query) => match cache.try_get_fast(&query) {
                Some(Some(value)) => hit(counted(memo, value)),
                None => rest(Rest::Known, query.hash()),
                Some(None) => rest(Rest::KnownAbsent, query.hash()),
            },
            None => rest(Rest::SingleArgKey, 0),
        }
    } else if given.positional().is_empty() {
        let query = memo.no_arguments.query(py);
        match cache.try_get_fast(&query) {
            Some(Some(value)) => hit(counted(memo, value)),
            None => rest(Rest::Empty, query.hash()),
            Some(None) => rest(Rest::EmptyAbsent, query.hash()),
        }
    } else {
        // SAFETY: the caller's.
        match unsafe { ArgsKey::new(py, given.positional(), memo.moka().seed()) } {
            Some(query) => match cache.try_get_fast(&query) {
                Some(Some(value)) => hit(counted(memo, value)),
                None => rest(Rest::Parts, query.hash()),
                Some(None) => rest(Rest::PartsAbsent, query.hash()),
            },
            None => rest(Rest::Failed, 0),
        }
    }
}

/// Goes on with a look-up.
#[inline(never)]
pub(in crate::python) fn find_rest(memo: &CachedState, given: &CallArgs<'_>, rest: Rest, hash: u64) -> Found {
    // SAFETY: `attached`.
    let py = unsafe { Python::assume_attached() };
    let only = || given.only(py).expect("the first look has found one argument");
    match rest {
        Rest::Keyless => Err(MissReason::Keyless),
        Rest::Failed => Err(MissReason::Failed),
        Rest::Composed => find_composed(memo, given),
        Rest::SingleArgKey => find_lone(memo, &only()),
        Rest::Known | Rest::KnownAbsent => find_known(memo, matches!(rest, Rest::KnownAbsent), hash, &only()),
        Rest::Empty | Rest::EmptyAbsent => {
            find_known(memo, matches!(rest, Rest::EmptyAbsent), hash, memo.no_arguments.object.bind(py))
        }
        Rest::Parts | Rest::PartsAbsent => {
            // SAFETY: the caller's.
            let query = unsafe { ArgsKey::hashed(py, given.positional(), hash) };
            find_arguments(memo, matches!(rest, Rest::PartsAbsent), &query)
        }
    }
}

/// The reference of a value that was found, with the hit counted.
#[inline]
pub(in crate::python) fn counted(memo: &CachedState, value: Object) -> *mut ffi::PyObject {
    memo.hit();
    value.into_ptr()
}

/// Goes on with an object that is a key by itself, after a glance.
fn find_known(memo: &CachedState, is_absent: bool, hash: u64, key: &Bound<'_, PyAny>) -> Found {
    if is_absent {
        return Err(MissReason::Miss(CallKey { object: Object::of(key), hash }));
    }
    find_lone(memo, key)
}

/// Goes on with parts that the caller holds, after a glance.
#[inline(never)]
fn find_arguments(memo: &CachedState, is_absent: bool, query: &ArgsKey<'_, '_>) -> Found {
    // A glance could not tell where a user's code or maintenance is needed.
    let value = if is_absent {
        Ok(None)
    } else {
        memo.moka().run(query.py(), |removed| memo.moka().core().get(query, removed))
    };
    match value {
        Err(_raised) => Err(MissReason::Failed),
        Ok(Some(value)) => Ok(counted(memo, value)),
        Ok(None) => {
            let object = query.tuple().ok_or(MissReason::Failed)?;
            Err(MissReason::Miss(CallKey { object, hash: query.hash() }))
        }
    }
}

/// A look-up of an object that is a key by itself.
#[cold]
fn find_lone(memo: &CachedState, key: &Bound<'_, PyAny>) -> Found {
    let query = SingleArgKey::new(key, memo.moka().seed()).ok_or(MissReason::Failed)?;
    match memo.moka().run(key.py(), |removed| memo.moka().core().get(&query, removed)) {
        Err(_raised) => Err(MissReason::Failed),
        Ok(None) => Err(MissReason::Miss(CallKey { object: Object::of(key), hash: query.hash() })),
        Ok(Some(value)) => Ok(counted(memo, value)),
    }
}

/// A look-up of parts that the caller holds.
fn find_parts(memo: &CachedState, parts: &[*mut ffi::PyObject]) -> Found {
    // SAFETY: `attached`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the caller's.
    let query = unsafe { ArgsKey::new(py, parts, memo.moka().seed()) }.ok_or(MissReason::Failed)?;
    match memo.moka().core().try_get_fast(&query) {
        Some(Some(value)) => Ok(counted(memo, value)),
        rest => find_arguments(memo, rest.is_some(), &query),
    }
}

/// A look-up of a call whose key is more than its positional arguments.
#[inline(never)]
fn find_composed(memo: &CachedState, given: &CallArgs<'_>) -> Found {
    let owner = owner_of(memo, given).map_err(|_raised| MissReason::Failed)?;
    if let Some(make_key) = &memo.make_key {
        return find_made(memo, make_key, owner, given);
    }
    let mut parts = given.parts(&memo.mark, memo.typed);
    if let Some(owner) = &owner {
        parts[0] = owner.as_ptr();
    }
    find_parts(memo, &parts)
}

/// A look-up of what the user's function makes of the arguments.
fn find_made(memo: &CachedState, make_key: &Py<PyAny>, owner: Option<Object>, given: &CallArgs<'_>) -> Found {
    // SAFETY: `attached`.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a new reference, or null with an exception set.
    let key = unsafe { Bound::from_owned_ptr_or_opt(py, given.call(make_key)) }.ok_or(MissReason::Failed)?;
    let key = Object::new(key.unbind());
    match owner {
        Some(owner) => find_parts(memo, &[owner.as_ptr(), key.as_ptr()]),
        None => find_lone(memo, key.bind(py)),
    }
}

/// Whether a weak reference leads to an object that is alive.
///
/// Without a reference of its own, which threads would count in one place: the free-threaded build takes a lock for it.
fn leads_to(reference: &Py<PyAny>, object: *mut ffi::PyObject) -> bool {
    /// The beginning of CPython's `PyWeakReference`.
    #[repr(C)]
    struct Layout {
        head: ffi::PyObject,
        object: *mut ffi::PyObject,
    }
    let reference = reference.as_ptr().cast::<Layout>();
    // SAFETY: a weak reference begins so; the owner holds it.
    let place = unsafe { &raw mut (*reference).object };
    // SAFETY: the field is aligned, and CPython writes it by atomics where threads run in parallel.
    let target = unsafe { AtomicPtr::from_ptr(place) };
    // Relaxed: a reference to an earlier object at this address was cleared before that was freed, and so before this
    // object was made, which the caller has.
    target.load(Ordering::Relaxed) == object
}

/// The owner, which stands for the instance in the keys of a method that does not keep it alive.
fn owner_of(memo: &CachedState, given: &CallArgs<'_>) -> Result<Option<Object>, Raised> {
    let Some(WeakSelf { owners, make_owner }) = &memo.weakly else { return Ok(None) };
    // SAFETY: `attached`.
    let py = unsafe { Python::assume_attached() };
    let Some(&instance) = given.positional().first() else {
        let text = c"weak_self needs the instance as the first positional argument";
        // SAFETY: `attached`.
        let kind = unsafe { ffi::PyExc_TypeError };
        // SAFETY: `attached`.
        unsafe { ffi::PyErr_SetString(kind, text.as_ptr()) };
        return Err(Raised::already_set(py));
    };
    // SAFETY: `attached`.
    let place = unsafe { ffi::PyLong_FromVoidPtr(instance.cast()) };
    if place.is_null() {
        return Err(Raised::already_set(py));
    }
    let mut owner = ptr::null_mut();
    // SAFETY: `attached`; all are live.
    let found = unsafe { ffi::compat::PyDict_GetItemRef(owners.as_ptr(), place, &mut owner) };
    // SAFETY: the reference made above.
    unsafe { ffi::Py_DECREF(place) };
    // The dict compares ints by a call of the interpreter, which fails at the recursion limit.
    if found < 0 {
        return Err(Raised::already_set(py));
    }
    // SAFETY: a new reference, or null where there is none.
    if let Some(owner) = unsafe { Bound::from_owned_ptr_or_opt(py, owner) } {
        // SAFETY: only owners are put into the dict.
        let owner = unsafe { owner.cast_into_unchecked::<Owner>() };
        if leads_to(owner.get().reference(), instance) {
            return Ok(Some(Object::new(owner.into_any().unbind())));
        }
    }
    // SAFETY: `attached`; both are live.
    let owner = unsafe { ffi::PyObject_CallOneArg(make_owner.as_ptr(), instance) };
    // SAFETY: a new reference, or null with an exception set.
    let owner = unsafe { Bound::from_owned_ptr_or_opt(py, owner) }.ok_or_else(|| Raised::already_set(py))?;
    Ok(Some(Object::new(owner.unbind())))
}

/// The key of a call with these arguments: the positional ones, then one for each name.
pub(in crate::python) fn made_of(
    memo: &CachedState,
    py: Python<'_>,
    all: &[Bound<'_, PyAny>],
    names: &Bound<'_, PyTuple>,
) -> PyResult<CallKey> {
    let all: Parts = all.iter().map(Bound::as_ptr).collect();
    // SAFETY: the caller holds them; so many are there.
    let given = unsafe { CallArgs::new(all.as_ptr(), all.len() - names.len(), names.as_ptr()) };
    let made = |object: Object| {
        let hash = Key::new(object.bind(py), memo.moka().seed())?.hash();
        Ok::<_, PyErr>(CallKey { object, hash })
    };
    let owner = owner_of(memo, &given).map_err(PyErr::from)?;
    let mut parts = given.parts(&memo.mark, memo.typed);
    let own;
    if let Some(make_key) = &memo.make_key {
        // SAFETY: a new reference, or null with an exception set.
        own = unsafe { Bound::from_owned_ptr_or_err(py, given.call(make_key)) }?;
        if owner.is_none() {
            return made(Object::of(&own));
        }
        parts.truncate(1);
        parts.push(own.as_ptr());
    }
    if let Some(owner) = &owner {
        parts[0] = owner.as_ptr();
    } else if let [only] = parts[..] {
        // SAFETY: the caller holds it.
        let only = unsafe { Borrowed::from_ptr(py, only) };
        if is_own_key(&only) {
            return made(Object::of(&only));
        }
    }
    // SAFETY: the caller holds them, or `own` or `owner` does.
    let query = unsafe { ArgsKey::new(py, &parts, memo.moka().seed()) };
    let query = query.ok_or_else(|| PyErr::fetch(py))?;
    let object = query.tuple().ok_or_else(|| PyErr::fetch(py))?;
    Ok(CallKey { object, hash: query.hash() })
}

/// Begins the run of a call that was not found. A value is one that another thread stored since. The frame of the caller
/// stays under the user's function, so this has one of its own.
#[inline(never)]
pub(in crate::python) fn begin(
    memo: &Borrowed<'_, '_, CachedState>,
    made: &CallKey,
) -> Result<RunStart<Object>, Raised> {
    memo.get().moka().begin_run(memo.py(), &made.query(memo.py()))
}

/// Ends a run and keeps its result, unless the key was written to meanwhile. Returns the result; or null with what the
/// weigher or an `__eq__` raised.
///
/// # Safety
/// - `memo` is live, and `value` a new reference.
#[inline(never)]
pub(in crate::python) unsafe fn keep(
    memo: &Borrowed<'_, '_, CachedState>,
    made: &CallKey,
    value: *mut ffi::PyObject,
    run: Run,
) -> *mut ffi::PyObject {
    let this = memo.get();
    // SAFETY: the caller's.
    let result = unsafe { Bound::from_owned_ptr(memo.py(), value) };
    match this.keep(made, &result, run) {
        Ok(()) => result.into_ptr(),
        Err(_raised) => {
            this.moka().core().end_run(run);
            ptr::null_mut()
        }
    }
}
