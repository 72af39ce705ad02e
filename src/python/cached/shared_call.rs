//! The coroutines by which a call shares a computation with others of its event loop, or computes a value anew.
//!
//! `moka/flights.rs` calls the Python code that has the tasks.

use pyo3::prelude::*;

use crate::KeyQuery;
use crate::python::cached::call_key::CallKey;
use crate::python::cached::lookup::StaleHit;
use crate::python::cached::state::CachedState;
use crate::python::ffi::{self, Arg, Args, New};
use crate::python::moka::Moka;
use crate::python::moka::convert::{self, Deadlines, HeldDeadlines};
use crate::python::moka::flights::Shared;
use crate::python::moka::refresh::{AfterWrite, CoroutineClaim, HeldClaim};
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::raised::Raised;

/// An initializer, and the ttl and the tti of a new entry.
pub(in crate::python) type Initializer<'py> = [Arg<'py>; 3];

/// Makes a coroutine that shares the run of a key of a cached function.
pub(in crate::python) fn share_call<'py>(
    state: &Bound<'py, CachedState>,
    key: CallKey,
    args: &Args<'py>,
) -> New<'py> {
    shared_call(state, key, args)?.share(state.get().moka().flights(state.py())?)
}

/// Makes a coroutine that shares the computation of a key by an initializer.
pub(in crate::python) fn share_load<'py>(
    cache: &Bound<'py, Moka>,
    query: &Key<'_, 'py>,
    initializer: Initializer<'py>,
) -> New<'py> {
    shared_load(cache, query, initializer)?.share(cache.get().flights(cache.py())?)
}

/// Begins to compute a stale result of a cached function anew. Returns a coroutine if the call itself computes.
pub(in crate::python) fn refresh_call<'py>(
    state: &Bound<'py, CachedState>,
    stale: StaleHit,
    args: &Args<'py>,
) -> Result<Refreshed<'py>, Raised> {
    let StaleHit { value, key, claim } = stale;
    let (cache, after_write) = (state.get().cache().bind(state.py()), state.get().after_write());
    let hashed_key = (key.object().clone(), key.hash());
    let claim = coroutine_claim(cache, hashed_key, claim, &Deadlines::NONE, after_write)?;
    begin(cache, &shared_call(state, key, args)?, &claim, value)
}

/// Begins to compute a stale value anew by an initializer. Returns a coroutine if the call itself computes.
pub(in crate::python) fn refresh_load<'py>(
    cache: &Bound<'py, Moka>,
    query: &Key<'_, 'py>,
    (value, claim): (Object, HeldClaim),
    initializer: Initializer<'py>,
) -> Result<Refreshed<'py>, Raised> {
    let [_, ttl, tti] = initializer;
    let deadlines = Raised::catch(cache.py(), || convert::deadlines(Some(ttl), Some(tti)))?;
    let key = (Object::of(query.object()), query.hash());
    let claim = coroutine_claim(cache, key, claim, &deadlines, None)?;
    begin(cache, &shared_load(cache, query, initializer)?, &claim, value)
}

/// How a call goes on that found a stale value.
pub(in crate::python) enum Refreshed<'py> {
    /// It returns the old value.
    Return(Bound<'py, PyAny>),
    /// It awaits this coroutine.
    Await(Bound<'py, PyAny>),
}

fn begin<'py>(
    cache: &Bound<'py, Moka>,
    shared: &Shared<'py>,
    claim: &Bound<'py, PyAny>,
    value: Object,
) -> Result<Refreshed<'py>, Raised> {
    let py = cache.py();
    let value = value.into_bound(py);
    let coroutine = shared.refresh(cache.get().flights(py)?, claim, &value)?;
    Ok(coroutine.map_or(Refreshed::Return(value), Refreshed::Await))
}

fn coroutine_claim<'py>(
    cache: &Bound<'py, Moka>,
    key: (Object, u64),
    claim: HeldClaim,
    deadlines: &Deadlines<'_>,
    after_write: Option<AfterWrite>,
) -> New<'py> {
    let py = cache.py();
    let deadlines = HeldDeadlines::of(deadlines);
    Raised::catch(py, || {
        let claim = CoroutineClaim::new(cache.clone().unbind(), key, claim, deadlines, after_write);
        Ok(Bound::new(py, claim)?.into_any())
    })
}

fn shared_call<'py>(
    state: &Bound<'py, CachedState>,
    key: CallKey,
    args: &Args<'py>,
) -> Result<Shared<'py>, Raised> {
    let py = state.py();
    let (positional, keywords) = args.to_tuple_and_dict()?;
    Ok(Shared {
        cache: state.get().cache().bind(py).clone().into_any(),
        state: state.clone().into_any(),
        key: Raised::catch(py, || Ok(Bound::new(py, key)?.into_any()))?,
        function: state.get().function(py).clone(),
        args: positional.into_any(),
        kwargs: keywords.into_any(),
        deadlines: [ffi::none(py).to_owned(), ffi::none(py).to_owned()],
    })
}

fn shared_load<'py>(
    cache: &Bound<'py, Moka>,
    query: &Key<'_, 'py>,
    [initializer, ttl, tti]: Initializer<'py>,
) -> Result<Shared<'py>, Raised> {
    let py = cache.py();
    let (args, kwargs) = Args::of(py, &[]).to_tuple_and_dict()?;
    let key = CallKey::new(Object::of(query.object()), query.hash());
    Ok(Shared {
        cache: cache.clone().into_any(),
        state: ffi::none(py).to_owned(),
        key: Raised::catch(py, || Ok(Bound::new(py, key)?.into_any()))?,
        function: initializer.to_owned(),
        args: args.into_any(),
        kwargs: kwargs.into_any(),
        deadlines: [ttl.to_owned(), tti.to_owned()],
    })
}
