//! What a `Moka` holds, and its calls into the core, which its methods and cached functions make.
//!
//! Each is settled before it returns: what left is counted, the listener is told, and references are dropped.

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use crate::cache::seed::Seed;
use crate::python::moka::clock;
use crate::python::moka::construction::Construction;
use crate::python::moka::convert::{self, Duration};
use crate::python::moka::listener::{self, Callback};
use crate::python::moka::stats::CacheStats;
use crate::python::object::Object;
use crate::python::object::key::{Key, Sure, Unsure};
use crate::python::object::shared_error::SharedError;
use crate::python::runtime::interpreter::{RecursionGuard, with_pyo3_attached};
use crate::python::runtime::shutdown;
use crate::{
    Cache, Config, Cursor, Failure, KeyQuery, Lifetime, LoadError, NewValue, Removal, Removals, Run, RunStart,
};

type Core = Cache<Object, Object, SharedError>;
type Left = Removals<Object, Object>;

/// A cache bounded by weight, with deadlines, that threads use in parallel. It is a mutable mapping.
///
/// - capacity: the most that all entries may weigh together. An entry weighs 1 unless there is a weigher.
/// - ttl, tti: how long an entry lives after it was set, and after its last use: seconds or a timedelta.
/// - eviction_listener(key, value, cause): called once for each entry that leaves, after the fact. The cause is
///   "expired", "explicit" (removed by a call), "replaced" (set again) or "size" (no room).
/// - policy: what leaves when the cache is full: under "tiny_lfu" what is used rarely, under "lru" what was used
///   longest ago.
/// - weigher(key, value): called once for each insert; returns the entry's weight, an int of at least 0.
///
/// Keys are hashable; keys and values are held by reference. Durations that a method takes are seconds or a timedelta,
/// too. An empty cache is false, and a cache equals only itself.
#[pyclass(module = "moka_py", frozen, subclass, weakref, mapping)]
pub(crate) struct Moka {
    pub(in crate::python) made: Construction<CacheState>,
}

impl Deref for Moka {
    type Target = CacheState;

    #[inline(always)]
    fn deref(&self) -> &CacheState {
        self.made.get()
    }
}

/// All that a cache is. On the heap, because CPython aligns objects to 16 bytes and the core asks for whole cache lines.
pub(crate) struct CacheState {
    pub(in crate::python) core: Core,
    pub(in crate::python) seed: Seed,
    pub(in crate::python) counts: CacheStats,
    pub(in crate::python) listener: Callback,
    pub(in crate::python) weigher: Callback,
    pub(in crate::python) ttl: Duration,
    pub(in crate::python) tti: Duration,
}

/// How a call went that was made from a bare C function, where PyO3 takes the thread for detached.
pub(crate) enum FastOutcome {
    Done,
    /// An exception is set.
    Raised,
    /// Nothing was done: the plain method does it.
    Fallback,
}

impl FastOutcome {
    /// Runs code that needs PyO3.
    pub fn attached<T>(
        py: Python<'_>,
        code: impl FnOnce(Python<'_>) -> PyResult<T>,
    ) -> Result<T, FastOutcome> {
        with_pyo3_attached(py, |py| code(py).map_err(|error| FastOutcome::raise(py, error)))
    }

    fn raise(py: Python<'_>, error: PyErr) -> Self {
        with_pyo3_attached(py, |py| error.restore(py));
        FastOutcome::Raised
    }
}

const _: () = assert!(align_of::<Moka>() <= 16, "CPython aligns no object further");

/// How a computation failed. After an interrupt and the like those who wait try for themselves.
#[cold]
fn failure(py: Python<'_>, error: PyErr) -> Failure<SharedError> {
    with_pyo3_attached(py, |py| {
        let is_failure = |error: &PyErr| convert::is_failure(py, error);
        let (error, for_waiters) = match is_failure(&error).then(|| SharedError::for_others(py, &error)) {
            // A signal came while it was copied.
            Some(Err(interrupt)) if !is_failure(&interrupt) => (interrupt, None),
            for_waiters => (error, for_waiters.and_then(Result::ok)),
        };
        Failure { error: SharedError::new(py, error), for_waiters }
    })
}

/// The longest text of a key in a message, in characters.
const MAX_KEY_CHARS: usize = 100;

/// The key as a message shows it: by its `repr`, which is cut; by its type where `repr` raises. An interrupt of it is an error.
#[cold]
fn shown(key: &Bound<'_, PyAny>) -> PyResult<String> {
    match key.repr() {
        Ok(text) => {
            let text = text.to_string_lossy();
            let mut shown: String = text.chars().take(MAX_KEY_CHARS).collect();
            if shown.len() < text.len() {
                shown += "...";
            }
            Ok(shown)
        }
        Err(error) if convert::is_failure(key.py(), &error) => {
            Ok(format!("<{} object>", key.get_type().name()?.to_string_lossy()))
        }
        Err(interrupt) => Err(interrupt),
    }
}

/// The message if the computation of a key waits for its own result.
#[cold]
pub(in crate::python) fn own_key_error(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = shown(key)?;
    Ok(format!(
        "the initializer of a key asked for that very key, {key}: it would wait for itself for ever; \
         let it compute the value from other keys"
    ))
}

/// The message if threads wait for each other's computations.
#[cold]
fn circle_error(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let key = shown(key)?;
    Ok(format!(
        "threads would wait for each other's initializers in a circle: this one asked for key {key}; \
         let all initializers ask for further keys in one order, or ask for those keys before the call"
    ))
}

impl CacheState {
    /// The state of a new cache: of its listener and weigher, and its ttl and tti.
    pub fn new(config: Config, [listener, weigher]: [Callback; 2], [ttl, tti]: [Duration; 2]) -> Self {
        CacheState {
            core: Cache::new(config, clock::of_new_cache()),
            seed: Seed::of_process(),
            counts: CacheStats::new(),
            listener,
            weigher,
            ttl,
            tti,
        }
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn seed(&self) -> Seed {
        self.seed
    }

    #[inline]
    pub fn counts(&self) -> &CacheStats {
        &self.counts
    }

    /// What `get` finds, where that needs neither a user's code nor maintenance; else `None`. An answer is counted.
    #[inline]
    pub fn try_get_fast(&self, key: &Bound<'_, PyAny>) -> Option<Option<Object>> {
        let found = self.core.try_get_fast(&Key::known(key, self.seed)?)?;
        self.counts.access(found.is_some());
        Some(found)
    }

    /// What `get_with` returns, for a callable, where the key's code need not run.
    #[inline]
    pub fn get_with_fast<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        initializer: &Bound<'py, PyAny>,
        lifetime: Lifetime,
    ) -> Result<*mut ffi::PyObject, FastOutcome> {
        let query = Key::known(key, self.seed).ok_or(FastOutcome::Fallback)?;
        match self.core.try_get_fast(&query).ok_or(FastOutcome::Fallback)? {
            Some(value) => {
                self.counts.hit();
                Ok(value.into_ptr())
            }
            None => self.load_fast(&query, key, initializer, lifetime),
        }
    }

    /// Apart, so that a hit does not make room for what this needs.
    #[inline(never)]
    fn load_fast<'py>(
        &self,
        query: &Key<'_, 'py>,
        key: &Bound<'py, PyAny>,
        initializer: &Bound<'py, PyAny>,
        lifetime: Lifetime,
    ) -> Result<*mut ffi::PyObject, FastOutcome> {
        self.counts.miss();
        let loaded = self.load(query, key, lifetime, true, || initializer.call0());
        loaded.map(Py::into_ptr).map_err(|error| FastOutcome::raise(key.py(), error))
    }

    /// A key that needs no code of a user to be hashed.
    #[inline]
    pub fn known<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> Option<Key<'a, 'py>> {
        Key::known(key, self.seed)
    }

    /// What `get` finds. It is counted.
    #[inline]
    pub fn look_up(&self, py: Python<'_>, query: &Key<'_, '_>) -> PyResult<Option<Object>> {
        let found = self.call(py, |removed| self.core.get(query, removed))?;
        self.counts.access(found.is_some());
        Ok(found)
    }

    /// What `get` finds in a cache without a listener, with nothing asked of PyO3 and no access counted.
    pub fn look_up_unheard<Q: KeyQuery<Object>>(&self, query: &Q) -> Result<Option<Object>, Q::Error> {
        let mut removed = Removals::new();
        let found = self.core.get(query, &mut removed);
        self.release(&mut removed);
        found
    }

    /// Whether there is a key that needs no code of a user; it is no use. For a cache without a listener.
    pub fn has(&self, query: &impl KeyQuery<Object, Error = Infallible>) -> bool {
        let mut removed = Removals::new();
        let Ok(value) = self.core.peek(query, &mut removed);
        self.release(&mut removed);
        value.is_some()
    }

    /// Removes such a key; whether it was there.
    pub fn take_out(&self, query: &impl KeyQuery<Object, Error = Infallible>) -> bool {
        let mut removed = Removals::new();
        let Ok(value) = self.core.remove(query, &mut removed);
        self.release(&mut removed);
        value.is_some()
    }

    /// Whether a key is there; it is no use.
    pub fn holds(
        &self,
        py: Python<'_>,
        query: &impl KeyQuery<Object, Error = SharedError>,
    ) -> PyResult<bool> {
        Ok(self.call(py, |removed| self.core.peek(query, removed))?.is_some())
    }

    /// Removes a key; whether it was there.
    pub fn discard(
        &self,
        py: Python<'_>,
        query: &impl KeyQuery<Object, Error = SharedError>,
    ) -> PyResult<bool> {
        Ok(self.call(py, |removed| self.core.remove(query, removed))?.is_some())
    }

    /// Sets without a call of a user's code but the weigher, the listener, and what the drop of an old value runs.
    #[inline]
    pub fn set_fast(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> FastOutcome {
        let py = key.py();
        let Some(query) = Key::known(key, self.seed) else { return FastOutcome::Fallback };
        let mut weight = 1;
        if self.core.config().weighted {
            match listener::weigh_fast(&self.weigher, key, value) {
                Ok(weighed) => weight = weighed,
                Err(how) => return how,
            }
        }
        match self.set_sure(py, query, Object::kept(value), weight, lifetime) {
            Ok(()) => FastOutcome::Done,
            Err(_) if self.core.config().weighted => self.set_weighed(key, value, weight, lifetime),
            Err(_) => FastOutcome::Fallback,
        }
    }

    /// Sets what was weighed, where a user's code compares the key. The weigher is not asked twice.
    #[cold]
    fn set_weighed(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        weight: u32,
        lifetime: Lifetime,
    ) -> FastOutcome {
        FastOutcome::attached(key.py(), |py| {
            let query = self.key(key)?;
            let stored = NewValue { value: Object::kept(value), weight, lifetime };
            self.call(py, |removed| self.core.set(&query, stored, removed))
        })
        .map_or_else(|how| how, |()| FastOutcome::Done)
    }

    /// Removes a key, and returns what `remove` finds; `None`, with nothing done, where a user's code must hash or
    /// compare it.
    #[inline]
    pub fn remove_fast(&self, key: &Bound<'_, PyAny>) -> Option<Option<Object>> {
        let query = Key::known(key, self.seed)?;
        self.run(key.py(), |removed| self.core.remove(&Sure(query), removed)).ok()
    }

    /// Begins a run of a key that was looked for and not found, where no user's code compares it. For a cache without
    /// a listener.
    #[inline]
    pub fn begin_sure(&self, key: Key<'_, '_>) -> Result<RunStart<Object>, Unsure> {
        let mut removed = Removals::new();
        let begun = self.core.begin_run(&Sure(key), &mut removed);
        self.release(&mut removed);
        begun
    }

    /// Ends a run and stores its result, unless the key was written to meanwhile. It calls no code of a user but what the drop of
    /// an old value runs. Changes nothing if other code would be needed.
    #[inline]
    pub fn keep_fast(&self, key: Key<'_, '_>, run: Run, value: &Bound<'_, PyAny>) -> Result<(), Unsure> {
        let config = self.core.config();
        if config.has_listener || config.weighted {
            return Err(Unsure::Code);
        }
        let stored = NewValue { value: Object::kept(value), weight: 1, lifetime: Lifetime::default() };
        self.run(value.py(), |removed| self.core.complete_run(&Sure(key), run, stored, removed)).map(drop)
    }

    /// Ends a run and stores its result, unless the key was written to meanwhile. Returns whether it is stored.
    pub fn keep(
        &self,
        query: &Key<'_, '_>,
        run: Run,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let stored = self.stored(key, value, Lifetime::default())?;
        self.call(key.py(), |removed| self.core.complete_run(query, run, stored, removed))
    }

    /// Apart, so that the weigher does not run in a frame that has all this. What is to be stored comes in registers.
    #[inline(never)]
    fn set_sure(
        &self,
        py: Python<'_>,
        key: Key<'_, '_>,
        value: Object,
        weight: u32,
        lifetime: Lifetime,
    ) -> Result<(), Unsure> {
        let stored = NewValue { value, weight, lifetime };
        self.run(py, |removed| self.core.set(&Sure(key), stored, removed))
    }

    /// Sets without deadlines of its own.
    pub fn store(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.store_for(key, value, Lifetime::default())
    }

    /// Sets with deadlines of its own.
    pub fn store_for(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> PyResult<()> {
        self.store_as(&self.key(key)?, key, value, lifetime)
    }

    /// Sets a key that is hashed already.
    pub fn store_as(
        &self,
        query: &Key<'_, '_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> PyResult<()> {
        let stored = self.stored(key, value, lifetime)?;
        self.call(key.py(), |removed| self.core.set(query, stored, removed))
    }

    /// The value of a key that was looked up and not found, computed once for all threads that ask. `is_just_now` says
    /// that neither that look nor anything since has run code of a user. PyO3 need not know that the thread is attached.
    pub fn load<'py>(
        &self,
        query: &Key<'_, 'py>,
        key: &Bound<'py, PyAny>,
        lifetime: Lifetime,
        is_just_now: bool,
        compute: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let compute = |removed: &mut Left| {
            // A load may take its time.
            self.settle(py, std::mem::take(removed));
            let loaded = RecursionGuard::enter(py).and_then(|_deeper| self.counts.load(compute));
            let weighed = loaded.and_then(|value| Ok((self.weigh(key, &value)?, value)));
            weighed.map(|(weight, value)| (Object::kept(&value), weight)).map_err(|error| failure(py, error))
        };
        // Law 2: only the park itself runs detached.
        let mut pause = |park: &(dyn Fn() + Sync)| {
            shutdown::wait_detached(py, park);
            py.check_signals().map_err(|error| SharedError::new(py, error))
        };
        let load =
            |removed: &mut Left| self.core.load(query, lifetime, is_just_now, compute, &mut pause, removed);
        let loaded = self.run(py, load);
        loaded.map(Object::into_py).map_err(|error| match error {
            LoadError::User(raised) => raised.into_error(py),
            LoadError::OwnKey => own_key_error(key).map_or_else(|error| error, PyRuntimeError::new_err),
            LoadError::Deadlock => circle_error(key).map_or_else(|error| error, PyRuntimeError::new_err),
        })
    }

    #[inline]
    pub fn key<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> PyResult<Key<'a, 'py>> {
        Key::new(key, self.seed)
    }

    pub fn stored(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> PyResult<NewValue<Object>> {
        let weight = self.weigh(key, value)?;
        Ok(NewValue { value: Object::kept(value), weight, lifetime })
    }

    fn weigh(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<u32> {
        if !self.core.config().weighted {
            return Ok(1);
        }
        with_pyo3_attached(key.py(), |_| listener::weigh(&self.weigher, key, value))
    }

    /// One call into the core, settled also where it fails.
    #[inline]
    pub fn call<T>(
        &self,
        py: Python<'_>,
        code: impl FnOnce(&mut Left) -> Result<T, SharedError>,
    ) -> PyResult<T> {
        self.run(py, code).map_err(|raised| raised.into_error(py))
    }

    /// One call into the core, settled.
    #[inline]
    pub fn run<T>(&self, py: Python<'_>, code: impl FnOnce(&mut Left) -> T) -> T {
        // Mostly nothing leaves; then there is nothing to settle and nothing to drop.
        let mut removed = ManuallyDrop::new(Removals::new());
        let result = code(&mut removed);
        if !removed.is_untouched() {
            if self.core.config().has_listener || removed.is_truncated() {
                self.settle_all(py, ManuallyDrop::into_inner(removed));
            } else {
                // Where it lies, and dropped when nothing is in it.
                self.release(&mut removed);
                drop(ManuallyDrop::into_inner(removed));
            }
        }
        result
    }

    #[inline(never)]
    fn settle_all(&self, py: Python<'_>, removed: Left) {
        let is_truncated = removed.is_truncated();
        self.settle(py, removed);
        if is_truncated {
            self.finish_eviction(py);
        }
    }

    /// Lets go of what a call had no memory for to let go at once.
    #[cold]
    fn finish_eviction(&self, py: Python<'_>) {
        let mut is_truncated = true;
        while is_truncated {
            let mut removed = Removals::new();
            self.core.finish_eviction(&mut removed);
            is_truncated = removed.is_truncated();
            self.settle(py, removed);
        }
    }

    /// Counts what left, tells the listener of it, and lets go of it.
    pub fn settle(&self, py: Python<'_>, mut removed: Left) {
        if self.core.config().has_listener {
            self.count_gone(&removed);
            self.tell(py, removed);
        } else {
            self.release(&mut removed);
        }
    }

    #[inline]
    fn note(&self, departure: &Removal<Object, Object>) {
        self.counts.gone(departure.cause());
        departure.value().note_drop();
        departure.key().into_iter().for_each(Object::note_drop);
    }

    fn count_gone(&self, removed: &Left) {
        removed.iter().for_each(|departure| self.note(departure));
    }

    /// Tells the listener of what left and was counted, and lets go of it.
    fn tell(&self, py: Python<'_>, mut removed: Left) {
        if self.core.config().has_listener {
            listener::tell(py, &self.listener, &removed);
        }
        self.core.release(&mut removed);
    }

    /// Counts what left a cache without a listener, and lets go of it.
    #[inline]
    fn release(&self, removed: &mut Left) {
        self.core.release_each(removed, |departure| self.note(departure));
    }

    /// Runs code with the weight and the number of all entries, when all that is due has left and is counted, and
    /// before the listener is told, who may change it all.
    pub fn sum_up<T>(&self, py: Python<'_>, code: impl FnOnce(u64, usize) -> T) -> T {
        let mut removed = Removals::new();
        let (count, weight) = self.core.totals(&mut removed);
        self.count_gone(&removed);
        let result = code(weight, count);
        self.tell(py, removed);
        result
    }

    /// Removes everything, batch by batch, and gives the memory back. An error of `settle`, which gets each batch, ends it.
    pub fn empty<E>(
        &self,
        py: Python<'_>,
        settle: impl Fn(&Self, Python<'_>, Left) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = Cursor::default();
        loop {
            let mut removed = Removals::new();
            let goes_on = self.core.clear_batch(&mut cursor, &mut removed);
            settle(self, py, removed)?;
            if !goes_on {
                break;
            }
        }
        self.core.flush();
        Ok(())
    }
}

impl CacheState {
    /// Shows the collector each object that it holds.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.listener.visit(visit)?;
        self.weigher.visit(visit)?;
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

    /// Lets go of all that it holds, without a word to the listener. The collector alone can reach it.
    pub fn take_apart(&self, py: Python<'_>) {
        self.listener.clear();
        self.weigher.clear();
        let Ok(()) = self.empty(py, |this, _, mut removed| {
            this.core.release(&mut removed);
            Ok::<(), Infallible>(())
        });
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
