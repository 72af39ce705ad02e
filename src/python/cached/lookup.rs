//! The look-up of a call: from the arguments where they lie to the value, or to the key under which a result is stored.
//!
//! # How it works
//! [`look_up_fast`] answers most calls: their positional arguments are the key, and neither a user's `__eq__` nor
//! maintenance is needed. It makes no key. [`look_up`] is its only fallback. It goes on from the answer of the fast
//! one, so no `__hash__` of a user runs twice. It makes the keys that need more than the positional arguments:
//! keywords, the types of the arguments, the result of a user's key function, or an owner in place of the instance.
//!
//! # Why two functions
//! From CPython 3.14 on, the bytes of the C stack limit how deep a program recurses. The fast look-up and the fallback
//! have returned, and their frames are gone, before the user's function runs. [`FastLookup`] fits into two registers,
//! so handing it from one to the other takes no space in the frame of the caller, which stays on the stack.

use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::KeyQuery;
use crate::python::cached::call_key::{ArgsKey, CallKey, is_own_key};
use crate::python::cached::state::CachedState;
use crate::python::ffi::{self, Arg, Args};
use crate::python::moka::refresh::{Found, HeldClaim};
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::raised::Raised;

/// The answer of [`look_up_fast`], in two registers.
pub(in crate::python) enum FastLookup<'py> {
    /// The value. The hit is counted.
    Hit(Bound<'py, PyAny>),
    /// The key has this hash, and is certainly absent.
    Absent(u64),
    /// The key has this hash. To find it takes a user's `__eq__` or maintenance.
    Unsure(u64),
    /// The key is still to be made, or to be hashed.
    NoKey,
    /// A `__hash__` raised.
    Raised,
}

/// A value that a call found and is to compute anew.
pub(in crate::python) struct StaleHit {
    pub value: Object,
    pub key: CallKey,
    pub claim: HeldClaim,
}

/// The answer of [`look_up`].
pub(in crate::python) enum Lookup<'py> {
    /// The value. The hit is counted.
    Hit(Bound<'py, PyAny>),
    /// A value that this call is to compute anew. The hit is counted.
    Stale(Box<StaleHit>),
    Miss(CallKey),
    /// Calls of this function have no keys.
    Keyless,
}

/// Looks a call up if its positional arguments are the key. [`look_up`] is the fallback.
#[inline(always)]
pub(in crate::python) fn look_up_fast<'py>(state: &CachedState, args: &Args<'py>) -> FastLookup<'py> {
    let (py, moka) = (args.py(), state.moka());
    if !state.has_plain_keys() || args.has_names() {
        FastLookup::NoKey
    } else if let Some(object) = args.single().filter(|object| is_own_key(object)) {
        match Key::builtin(&object, moka.seed()) {
            Some(query) => probe(py, state, &query),
            None => FastLookup::NoKey,
        }
    } else if args.all().is_empty() {
        probe(py, state, &state.no_arguments().query(py))
    } else {
        match ArgsKey::new(py, args.positional(), moka.seed()) {
            Ok(query) => probe(py, state, &query),
            Err(_raised) => FastLookup::Raised,
        }
    }
}

/// Looks for a key, as far as that needs neither a user's `__eq__` nor maintenance.
#[inline(always)]
fn probe<'py>(py: Python<'py>, state: &CachedState, query: &impl KeyQuery<Object>) -> FastLookup<'py> {
    match state.moka().core().try_get_for_load_fast(query) {
        Some(Some(value)) => {
            state.record_hit();
            FastLookup::Hit(value.into_py().into_bound(py))
        }
        Some(None) => FastLookup::Absent(query.hash()),
        None => FastLookup::Unsure(query.hash()),
    }
}

/// Looks a call up, beginning with the answer of [`look_up_fast`].
#[inline(always)]
pub(in crate::python) fn look_up<'py>(
    state: &CachedState,
    args: &Args<'py>,
    fast: FastLookup<'py>,
) -> Result<Lookup<'py>, Raised> {
    match fast {
        FastLookup::Hit(value) => Ok(Lookup::Hit(value)),
        FastLookup::Absent(hash) => plain_parts(args.positional()).into_miss(args.py(), hash),
        FastLookup::Unsure(hash) => look_up_slow(state, args, Some(hash)),
        FastLookup::NoKey => look_up_slow(state, args, None),
        FastLookup::Raised => Err(Raised::already_set(args.py())),
    }
}

/// Looks a call up by any key. `hash` is that of the key, if [`look_up_fast`] has found it.
#[inline(never)]
fn look_up_slow<'py>(
    state: &CachedState,
    args: &Args<'py>,
    hash: Option<u64>,
) -> Result<Lookup<'py>, Raised> {
    if state.is_keyless() {
        return Ok(Lookup::Keyless);
    }
    let (py, seed, is_probed) = (args.py(), state.moka().seed(), hash.is_some());
    with_key_parts(state, args, |parts| {
        let (hash, found) = match parts {
            KeyParts::Object(object) => {
                let query = match hash {
                    Some(hash) => Key::with_hash(&object, hash),
                    None => Key::new(&object, seed)?,
                };
                (query.hash(), get(py, state, &query, is_probed)?)
            }
            KeyParts::Tuple(parts) => {
                let query = match hash {
                    Some(hash) => ArgsKey::with_hash(py, parts, hash),
                    None => ArgsKey::new(py, parts, seed)?,
                };
                (query.hash(), get(py, state, &query, is_probed)?)
            }
        };
        match found {
            Found::Fresh(value) => {
                state.record_hit();
                Ok(Lookup::Hit(value.into_py().into_bound(py)))
            }
            Found::Stale(value, claim) => {
                state.record_hit();
                let key = CallKey::new(parts.into_object(py)?, hash);
                Ok(Lookup::Stale(Box::new(StaleHit { value, key, claim })))
            }
            Found::Absent => parts.into_miss(py, hash),
        }
    })
}

/// Looks up a key. `is_probed` says that the fast way was tried.
#[inline(always)]
fn get(
    py: Python<'_>,
    state: &CachedState,
    query: &impl KeyQuery<Object, Error = Raised>,
    is_probed: bool,
) -> Result<Found, Raised> {
    let moka = state.moka();
    if !is_probed && let Some(value) = moka.core().try_get_for_load_fast(query) {
        return Ok(value.map_or(Found::Absent, Found::Fresh));
    }
    moka.get_for_load(py, query)
}

/// Returns the key of a call.
pub(in crate::python) fn key_of(state: &CachedState, args: &Args<'_>) -> Result<CallKey, Raised> {
    let (py, seed) = (args.py(), state.moka().seed());
    with_key_parts(state, args, |parts| {
        let hash = match parts {
            KeyParts::Object(object) => Key::new(&object, seed)?.hash(),
            KeyParts::Tuple(parts) => ArgsKey::new(py, parts, seed)?.hash(),
        };
        Ok(CallKey::new(parts.into_object(py)?, hash))
    })
}

/// The parts from which the key of a call is made.
#[derive(Clone, Copy)]
enum KeyParts<'a> {
    /// The object is the key.
    Object(Arg<'a>),
    /// The key is a tuple of these.
    Tuple(&'a [Arg<'a>]),
}

impl<'a> KeyParts<'a> {
    /// Makes the key.
    #[inline]
    fn into_object(self, py: Python<'a>) -> Result<Object, Raised> {
        match self {
            KeyParts::Object(object) => Ok(Object::of(&object)),
            KeyParts::Tuple(parts) => Ok(Object::new(ffi::tuple(py, parts)?.into_any().unbind())),
        }
    }

    /// The answer that the key, which has this hash, is absent.
    #[inline]
    fn into_miss<'py>(self, py: Python<'a>, hash: u64) -> Result<Lookup<'py>, Raised> {
        Ok(Lookup::Miss(CallKey::new(self.into_object(py)?, hash)))
    }
}

/// Calls `use_parts` with the parts of the key of a call.
#[inline(always)]
fn with_key_parts<T>(
    state: &CachedState,
    args: &Args<'_>,
    use_parts: impl FnOnce(KeyParts<'_>) -> Result<T, Raised>,
) -> Result<T, Raised> {
    if state.has_plain_keys() && !args.has_names() {
        return use_parts(plain_parts(args.positional()));
    }
    let owner = state.owner(args)?;
    let made_key = state.make_key(args)?;
    let mut parts = SmallVec::<[Arg<'_>; 16]>::from_slice(args.positional());
    if let Some(made_key) = &made_key {
        if owner.is_none() {
            return use_parts(KeyParts::Object(made_key.as_borrowed()));
        }
        parts.truncate(1);
        parts.push(made_key.as_borrowed());
    } else {
        push_keywords_and_types(state, args, &mut parts);
    }
    match &owner {
        Some(owner) => {
            parts[0] = owner.as_borrowed();
            use_parts(KeyParts::Tuple(&parts))
        }
        None => use_parts(plain_parts(&parts)),
    }
}

/// The key of these parts alone.
#[inline(always)]
fn plain_parts<'a>(parts: &'a [Arg<'a>]) -> KeyParts<'a> {
    match parts {
        &[object] if is_own_key(&object) => KeyParts::Object(object),
        parts => KeyParts::Tuple(parts),
    }
}

fn push_keywords_and_types<'a>(state: &'a CachedState, args: &Args<'a>, parts: &mut SmallVec<[Arg<'a>; 16]>) {
    if args.positional().len() < args.all().len() {
        parts.push(state.keyword_mark(args.py()).as_borrowed());
        for (name, value) in args.named() {
            parts.push(name);
            parts.push(value);
        }
    }
    if state.is_typed() {
        parts.extend(args.all().iter().map(|&argument| ffi::type_of(argument)));
    }
}
