//! [`CacheState`]: a cache and what Python adds to it, and its operations, each in one place.
//!
//! # How it works
//! The methods of `Moka`, in `fastcall.rs` and `methods.rs`, and cached functions read their arguments and call an operation here.
//! An operation makes one call into the core. Then [`CacheState::run`] processes the removals, with no lock held: it counts
//! each, calls the listener for each, and drops the references.
//!
//! An operation can be called from a slot or a bare C function, where PyO3 believes that the thread is detached. So it returns
//! [`Raised`], and calls CPython by `ffi.rs`.
use std::convert::Infallible;
use std::sync::OnceLock;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::cache::seed::Seed;
use crate::python::ffi::{self, New};
use crate::python::moka::convert::{Deadlines, Duration, Ttl};
use crate::python::moka::kept_errors::KeptErrors;
use crate::python::moka::listener::{self, Callback};
use crate::python::moka::stats::CacheStats;
use crate::python::moka::{clock, flights};
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::object::shared_error::SharedError;
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::python::runtime::shutdown;
use crate::{Cache, Config, Cursor, KeyQuery, Lifetime, NewValue, Removals};

type Core = Cache<Object, Object, SharedError>;

/// It is on the heap, because CPython aligns objects to 16 bytes and the core asks for whole cache lines.
pub(crate) struct CacheState {
    core: Core,
    seed: Seed,
    counts: CacheStats,
    listener: Callback,
    weigher: Callback,
    ttl_function: Callback,
    /// A `FlightTable`, made when a coroutine first needs it.
    flights: OnceLock<Object>,
    executor: Callback,
    /// The ttl, if it is not a function.
    pub(super) ttl: Duration,
    pub(super) tti: Duration,
    pub(super) refresh: Duration,
    /// Whether the cache lives as long as the program.
    pub(super) is_long_lived: bool,
    /// The failures that are kept, in the cache of a cached function with the option `errors`.
    kept_errors: OnceLock<KeptErrors>,
}

impl CacheState {
    pub fn new(
        config: Config,
        [listener, weigher, ttl_function, executor]: [Callback; 4],
        [ttl, tti, refresh]: [Duration; 3],
        is_long_lived: bool,
    ) -> Self {
        CacheState {
            core: Cache::new(config, clock::of_new_cache()),
            seed: Seed::of_process(),
            counts: CacheStats::new(),
            listener,
            weigher,
            ttl_function,
            flights: OnceLock::new(),
            executor,
            ttl,
            tti,
            refresh,
            is_long_lived,
            kept_errors: OnceLock::new(),
        }
    }

    /// Has no effect if there are kept errors already.
    pub(super) fn set_kept_errors(&self, kept_errors: KeptErrors) {
        // The other ones are empty, and are dropped.
        drop(self.kept_errors.set(kept_errors));
    }

    #[inline]
    pub fn kept_errors(&self) -> Option<&KeptErrors> {
        self.kept_errors.get()
    }

    /// The cache of the kept errors, if there is one, then this cache.
    pub fn with_error_store(&self) -> impl Iterator<Item = &CacheState> {
        self.kept_errors.get().map(KeptErrors::store).into_iter().chain([self])
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The function of key and value that returns the ttl of an entry, if the cache has one.
    pub fn ttl_function(&self) -> Option<Object> {
        if self.core.config().has_ttl_function { self.ttl_function.get() } else { None }
    }

    pub(super) fn listener(&self) -> &Callback {
        &self.listener
    }

    #[inline]
    pub fn counts(&self) -> &CacheStats {
        &self.counts
    }

    /// Hashes a key, which may run a user's code.
    #[inline]
    pub fn key<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> Result<Key<'a, 'py>, Raised> {
        Key::new(key, self.seed)
    }

    /// Hashes a key; `None` if a user's code must do it.
    #[inline]
    pub fn builtin_key<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> Option<Key<'a, 'py>> {
        Key::builtin(key, self.seed)
    }

    /// Returns the flight table, which has the computations that coroutines share.
    pub fn flights<'py>(&self, py: Python<'py>) -> Result<&Bound<'py, PyAny>, Raised> {
        if self.flights.get().is_none() {
            let table = flights::new_table(py)?;
            // If another thread was faster, its table counts.
            let _ = self.flights.set(Object::new(table.unbind()));
        }
        Ok(self.flights.get().expect("it was just set").bind(py))
    }
}

// --- Look-ups ---

impl CacheState {
    /// Like [`CacheState::get`], if that needs neither a user's code nor maintenance. Else returns `None` and counts nothing.
    #[inline(always)]
    pub fn get_fast(&self, key: &Bound<'_, PyAny>) -> Option<Option<Object>> {
        let found = self.core.try_get_fast(&self.builtin_key(key)?)?;
        self.counts.record_access(found.is_some());
        Some(found)
    }

    /// Like [`Moka::get_for_load`](super::Moka::get_for_load), if that needs neither a user's code nor maintenance, and the
    /// value is not to be computed anew. Else returns `None` and counts nothing.
    #[inline(always)]
    pub fn get_for_load_fast(&self, key: &Bound<'_, PyAny>) -> Option<Option<Object>> {
        let found = self.core.try_get_for_load_fast(&self.builtin_key(key)?)?;
        self.counts.record_access(found.is_some());
        Some(found)
    }

    /// Returns the value of a key. Counts a hit or a miss, and as a use of the entry.
    #[inline]
    pub fn get<Q: KeyQuery<Object>>(&self, py: Python<'_>, query: &Q) -> Result<Option<Object>, Q::Error> {
        let found = self.run(py, |removed| self.core.get(query, removed))?;
        self.counts.record_access(found.is_some());
        Ok(found)
    }

    /// Returns the value of a key. It does not count as an access, and no statistics change.
    pub fn peek<Q: KeyQuery<Object>>(&self, py: Python<'_>, query: &Q) -> Result<Option<Object>, Q::Error> {
        self.run(py, |removed| self.core.peek(query, removed))
    }
}

// --- Writes ---

impl CacheState {
    /// Stores a value, with deadlines of its own.
    #[inline]
    pub fn set(
        &self,
        query: Key<'_, '_>,
        value: &Bound<'_, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> Result<(), Raised> {
        match deadlines.ttl {
            Ttl::Nanos(ttl) if !self.has_functions_of_values() => {
                let lifetime = Lifetime { ttl, tti: deadlines.tti };
                self.set_plain(query, Object::for_cache(value), lifetime)
            }
            _ => self.set_by_functions(query, value, deadlines),
        }
    }

    /// Stores a value that no function of the user is asked about. The arguments come in registers.
    #[inline(never)]
    fn set_plain(&self, query: Key<'_, '_>, value: Object, lifetime: Lifetime) -> Result<(), Raised> {
        let py = query.object().py();
        let new = NewValue { lifetime, ..NewValue::plain(value) };
        self.run(py, |removed| self.core.set(&query, new, removed))
    }

    /// Stores a value after it has called the weigher and the ttl functions.
    #[inline(never)]
    fn set_by_functions(
        &self,
        query: Key<'_, '_>,
        value: &Bound<'_, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> Result<(), Raised> {
        let new = self.new_value(query.object(), value, deadlines)?;
        self.set_new(&query, new)
    }

    /// Stores a value. Apart, so that the user's functions do not run in a frame of this size.
    #[inline(never)]
    pub fn set_new(&self, query: &Key<'_, '_>, new: NewValue<Object>) -> Result<(), Raised> {
        self.run(query.object().py(), |removed| self.core.set(query, new, removed))
    }

    /// Stores a value if the key has none. Returns the value of the key, if it had one.
    pub fn set_if_absent(
        &self,
        query: &Key<'_, '_>,
        value: &Bound<'_, PyAny>,
    ) -> Result<Option<Object>, Raised> {
        let new = self.new_value(query.object(), value, &Deadlines::NONE)?;
        self.run(value.py(), |removed| self.core.set_if_absent(query, new, removed))
    }

    /// Sets what `function` returns for the value of a key, or for `default` if it has none, and returns that. Calls it again
    /// if the entry is no longer the one that it saw. Neither a hit nor a miss.
    ///
    /// The ttl function is called only if the key has no value, since a present entry keeps its deadlines.
    pub fn set_with<'py>(
        &self,
        query: &Key<'_, 'py>,
        function: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
        lifetime: Lifetime,
    ) -> New<'py> {
        let py = function.py();
        let _guard = RecursionGuard::enter(py)?;
        loop {
            let seen = self.peek(py, query)?;
            let value = ffi::call(function, [seen.as_ref().map_or(default, |seen| seen.bind(py))])?;
            let key = query.object();
            let new = match &seen {
                None => {
                    let deadlines = Deadlines { ttl: Ttl::Nanos(lifetime.ttl), tti: lifetime.tti };
                    self.new_value(key, &value, &deadlines)?
                }
                Some(_) => {
                    let weight = self.weigh(key, &value)?;
                    NewValue { weight, lifetime, ..NewValue::plain(Object::for_cache(&value)) }
                }
            };
            // `seen` is held, so no other object has its address.
            let is_same = |present: Option<&Object>| match (&seen, present) {
                (Some(seen), Some(present)) => seen.is(present),
                (None, None) => true,
                _ => false,
            };
            match self.run(py, |removed| self.core.set_if_same(query, new, is_same, removed))? {
                None => return Ok(value),
                Some(unwritten) => unwritten.record_drop(),
            }
        }
    }

    /// Starts the deadlines of a key's entry anew. Returns whether there is such an entry. A use of the entry, but neither a
    /// hit nor a miss.
    pub fn touch(&self, query: &Key<'_, '_>, lifetime: Lifetime) -> Result<bool, Raised> {
        self.run(query.object().py(), |removed| self.core.touch(query, lifetime, removed))
    }

    /// Removes a key and returns its value.
    #[inline]
    pub fn remove<Q: KeyQuery<Object>>(&self, py: Python<'_>, query: &Q) -> Result<Option<Object>, Q::Error> {
        self.run(py, |removed| self.core.remove(query, removed))
    }

    /// Makes a value to store: calls the weigher and the ttl functions, of the cache and of the call, each once. The
    /// shortest ttl counts.
    #[inline]
    pub fn new_value(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> Result<NewValue<Object>, Raised> {
        if let Ttl::Nanos(ttl) = deadlines.ttl
            && !self.has_functions_of_values()
        {
            let lifetime = Lifetime { ttl, tti: deadlines.tti };
            return Ok(NewValue { lifetime, ..NewValue::plain(Object::for_cache(value)) });
        }
        // Field by field, so that a value which is made above stays in registers. If it went through the memory where this
        // result is returned, a load would take 6 ns more.
        let NewValue { value, weight, lifetime, is_kept } =
            self.new_value_by_functions(key, value, deadlines)?;
        Ok(NewValue { value, weight, lifetime, is_kept })
    }

    #[inline(never)]
    fn new_value_by_functions(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        deadlines: &Deadlines<'_>,
    ) -> Result<NewValue<Object>, Raised> {
        let weight = self.weigh(key, value)?;
        let mut lifetime = Lifetime { ttl: 0, tti: deadlines.tti };
        let mut is_kept = true;
        let mut shorten = |ttl: Option<u64>| match ttl {
            Some(ttl) => lifetime = lifetime.min(Lifetime { ttl, tti: 0 }),
            None => is_kept = false,
        };
        if let Some(function) = self.ttl_function() {
            shorten(listener::ttl(function.bind(key.py()), key, value)?);
        }
        match deadlines.ttl {
            Ttl::Nanos(ttl) => shorten(Some(ttl)),
            Ttl::Function(function) => shorten(listener::ttl(&function, key, value)?),
        }
        Ok(NewValue { value: Object::for_cache(value), weight, lifetime, is_kept })
    }

    /// Whether the cache has a weigher or a ttl function, which each insert calls.
    #[inline]
    fn has_functions_of_values(&self) -> bool {
        let config = self.core.config();
        config.weighted | config.has_ttl_function
    }

    /// Returns the executor of refreshes, if there is one.
    pub fn executor(&self) -> Option<Object> {
        self.executor.get()
    }

    #[inline]
    fn weigh(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> Result<u32, Raised> {
        if self.core.config().weighted { listener::weigh(&self.weigher, key, value) } else { Ok(1) }
    }
}

// --- The garbage collector and the end ---

impl CacheState {
    /// Shows the collector each object that the cache holds.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.listener.visit(visit)?;
        self.weigher.visit(visit)?;
        self.ttl_function.visit(visit)?;
        self.flights.get().map_or(Ok(()), |flights| flights.visit(visit))?;
        self.executor.visit(visit)?;
        if let Some(kept_errors) = self.kept_errors.get() {
            kept_errors.visit(visit)?;
        }
        let mut result = Ok(());
        self.core.for_each(|key, value| {
            for object in key.into_iter().chain([value]) {
                if result.is_ok() {
                    result = object.visit(visit);
                }
            }
        });
        result
    }

    /// Drops all that the cache holds, without a call of the listener. Only the collector can reach the cache.
    pub fn clear_unreachable(&self) {
        self.listener.clear();
        self.weigher.clear();
        self.ttl_function.clear();
        self.executor.clear();
        for state in self.with_error_store() {
            let Ok(()) = state.clear_batches(|mut removed| {
                state.core.release(&mut removed);
                Ok::<(), Infallible>(())
            });
        }
    }
}

impl Drop for CacheState {
    fn drop(&mut self) {
        let mut cursor = Cursor::default();
        shutdown::drop_contents(|| {
            let mut removed = Removals::new();
            self.core.clear_batch(&mut cursor, &mut removed).then_some(removed)
        });
    }
}
