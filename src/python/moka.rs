//! The class `Moka`. Its full documentation, with types, is in `_moka_py.pyi`.

use std::convert::Infallible;
use std::mem::ManuallyDrop;

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::bulk;
use super::convert::{self, Duration};
use super::counts::Counts;
use super::end;
use super::key::{Key, Raised, Sure};
use super::listener::{self, Hook};
use super::mapping::{self, EntryIterator, Fallback, Part};
use super::object::Object;
use crate::seed::Seed;
use crate::{Cache, Clock, Config, Cursor, Departures, Failure, Kind, Lifetime, LoadError, Lookup, Stored};

type Core = Cache<Object, Object, Raised>;
type Left = Departures<Object, Object>;

/// A cache bounded by weight, with deadlines, that threads use in parallel.
#[pyclass(module = "moka_py", frozen, subclass, weakref, mapping)]
pub(crate) struct Moka {
    /// Boxed, because CPython aligns objects to 16 bytes and the core asks for whole cache lines.
    core: Box<Core>,
    seed: Seed,
    counts: Counts,
    listener: Hook,
    weigher: Hook,
    ttl: Duration,
    tti: Duration,
}

const _: () = assert!(align_of::<Moka>() <= 16, "CPython aligns no object further");

impl Moka {
    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn seed(&self) -> Seed {
        self.seed
    }

    #[inline]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What `get` finds, where that needs neither a user's code nor maintenance; else `None`. An answer is counted.
    #[inline]
    pub fn glance(&self, key: &Bound<'_, PyAny>) -> Option<Option<Object>> {
        let found = self.core.glance(&Key::known(key, self.seed)?)?;
        self.counts.access(found.is_some());
        Some(found)
    }

    /// A key that needs no code of a user to be hashed.
    #[inline]
    pub fn known<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> Option<Key<'a, 'py>> {
        Key::known(key, self.seed)
    }

    /// What `get` finds. It is counted.
    #[inline]
    pub fn look_up(&self, py: Python<'_>, query: &Key<'_, '_>) -> PyResult<Option<Object>> {
        let found = self.call(py, |left| self.core.get(query, left))?;
        self.counts.access(found.is_some());
        Ok(found)
    }

    /// What `get` finds in a cache without a listener, with nothing asked of PyO3 and no access counted.
    pub fn look_up_unheard<Q: Lookup<Object>>(&self, query: &Q) -> Result<Option<Object>, Q::Error> {
        let mut left = Departures::new();
        let found = self.core.get(query, &mut left);
        self.release(&mut left);
        found
    }

    /// Whether there is a key that needs no code of a user; it is no use. For a cache without a listener.
    pub fn has(&self, query: &impl Lookup<Object, Error = Infallible>) -> bool {
        let mut left = Departures::new();
        let Ok(value) = self.core.peek(query, &mut left);
        self.release(&mut left);
        value.is_some()
    }

    /// Removes such a key; whether it was there.
    pub fn take_out(&self, query: &impl Lookup<Object, Error = Infallible>) -> bool {
        let mut left = Departures::new();
        let Ok(value) = self.core.remove(query, &mut left);
        self.release(&mut left);
        value.is_some()
    }

    /// Whether a key is there; it is no use.
    pub fn holds(&self, py: Python<'_>, query: &impl Lookup<Object, Error = Raised>) -> PyResult<bool> {
        Ok(self.call(py, |left| self.core.peek(query, left))?.is_some())
    }

    /// Removes a key; whether it was there.
    pub fn discard(&self, py: Python<'_>, query: &impl Lookup<Object, Error = Raised>) -> PyResult<bool> {
        Ok(self.call(py, |left| self.core.remove(query, left))?.is_some())
    }

    /// Sets without a call of any user's code but what the drop of an old value runs. False, with nothing
    /// done, where that does not go.
    #[inline]
    pub fn set_at_once(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> bool {
        Key::known(key, self.seed).is_some_and(|key| self.set_known_at_once(key, value))
    }

    /// The same, for a key that is hashed already.
    #[inline]
    pub fn set_known_at_once(&self, key: Key<'_, '_>, value: &Bound<'_, PyAny>) -> bool {
        let config = self.core.config();
        if config.listened || config.weighted {
            return false;
        }
        let mut left = Departures::new();
        let is_set = self.core.set(&Sure(key), Stored::plain(Object::of(value)), &mut left).is_ok();
        self.release(&mut left);
        is_set
    }

    /// Sets without deadlines of its own.
    pub fn store(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.store_as(&self.key(key)?, key, value)
    }

    /// Sets with deadlines of its own.
    pub fn store_for(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> PyResult<()> {
        let query = self.key(key)?;
        let stored = self.stored(key, value, lifetime)?;
        self.call(key.py(), |left| self.core.set(&query, stored, left))
    }

    /// Sets a key that is hashed already.
    pub fn store_as(
        &self,
        query: &Key<'_, '_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let stored = self.stored(key, value, Lifetime::default())?;
        self.call(key.py(), |left| self.core.set(query, stored, left))
    }

    /// The value of a key that was looked up and not found, computed once for all threads that ask.
    pub fn load<'py>(
        &self,
        query: &Key<'_, 'py>,
        key: &Bound<'py, PyAny>,
        lifetime: Lifetime,
        compute: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let compute = |left: &mut Left| {
            // A load may take its time.
            self.settle(py, std::mem::take(left));
            let weighed = self.counts.load(compute).and_then(|value| Ok((self.weigh(key, &value)?, value)));
            weighed.map(|(weight, value)| (Object::new(value.unbind()), weight)).map_err(|error| {
                let is_shared = convert::is_failure(py, &error);
                Failure { error: Raised::new(py, error), is_shared }
            })
        };
        // Law 2: only the park itself runs detached.
        let mut pause = |park: &(dyn Fn() + Sync)| {
            end::wait_detached(py, park);
            py.check_signals().map_err(|error| Raised::new(py, error))
        };
        let loaded = self.run(py, |left| self.core.load(query, lifetime, compute, &mut pause, left));
        loaded.map(Object::into_py).map_err(|error| match error {
            LoadError::User(raised) => raised.into_error(py),
            LoadError::OwnKey => PyRuntimeError::new_err("the initializer of a key asked for that very key"),
            LoadError::Circle => {
                PyRuntimeError::new_err("threads would wait for each other's initializers in a circle")
            }
        })
    }

    #[inline]
    pub fn key<'a, 'py>(&self, key: &'a Bound<'py, PyAny>) -> PyResult<Key<'a, 'py>> {
        Key::new(key, self.seed)
    }

    fn stored(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        lifetime: Lifetime,
    ) -> PyResult<Stored<Object>> {
        let weight = self.weigh(key, value)?;
        Ok(Stored { value: Object::of(value), weight, lifetime })
    }

    fn weigh(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<u32> {
        if self.core.config().weighted { listener::weigh(&self.weigher, key, value) } else { Ok(1) }
    }

    /// One call into the core, settled also where it fails.
    #[inline]
    fn call<T>(&self, py: Python<'_>, code: impl FnOnce(&mut Left) -> Result<T, Raised>) -> PyResult<T> {
        self.run(py, code).map_err(|raised| raised.into_error(py))
    }

    /// One call into the core, settled.
    #[inline]
    pub fn run<T>(&self, py: Python<'_>, code: impl FnOnce(&mut Left) -> T) -> T {
        // Mostly nothing leaves; then there is nothing to settle and nothing to drop.
        let mut left = ManuallyDrop::new(Departures::new());
        let result = code(&mut left);
        if !left.is_untouched() {
            self.settle(py, ManuallyDrop::into_inner(left));
        }
        result
    }

    /// Counts what left, tells the listener of it, and lets go of it.
    fn settle(&self, py: Python<'_>, mut left: Left) {
        if self.core.config().listened {
            self.count_gone(&left);
            self.tell(py, left);
        } else {
            self.release(&mut left);
        }
    }

    fn count_gone(&self, left: &Left) {
        left.iter().for_each(|departure| self.counts.gone(departure.cause()));
    }

    /// Tells the listener of what left and was counted, and lets go of it.
    fn tell(&self, py: Python<'_>, mut left: Left) {
        if self.core.config().listened {
            listener::tell(py, &self.listener, &left);
        }
        self.core.release(&mut left);
    }

    /// Counts what left a cache without a listener, and lets go of it.
    #[inline]
    fn release(&self, left: &mut Left) {
        self.core.release_each(left, |cause| self.counts.gone(cause));
    }

    /// Runs code with the weight and the number of all entries, when all that is due has left and is counted, and
    /// before the listener is told, who may change it all.
    fn sum_up<T>(&self, py: Python<'_>, code: impl FnOnce(u64, usize) -> T) -> T {
        let mut left = Departures::new();
        let (count, weight) = self.core.totals(&mut left);
        self.count_gone(&left);
        let result = code(weight, count);
        self.tell(py, left);
        result
    }

    fn lifetime(ttl: Option<&Bound<'_, PyAny>>, tti: Option<&Bound<'_, PyAny>>) -> PyResult<Lifetime> {
        let ttl = convert::duration("ttl", ttl)?.nanos;
        Ok(Lifetime { ttl, tti: convert::duration("tti", tti)?.nanos })
    }

    /// Removes everything, batch by batch, and gives the memory back.
    fn empty(&self, py: Python<'_>, settle: impl Fn(&Self, Python<'_>, Left)) {
        let mut cursor = Cursor::default();
        loop {
            let mut left = Departures::new();
            let goes_on = self.core.clear_batch(&mut cursor, &mut left);
            settle(self, py, left);
            if !goes_on {
                break;
            }
        }
        self.core.flush();
    }
}

impl Drop for Moka {
    fn drop(&mut self) {
        let mut cursor = Cursor::default();
        end::drop_contents(|| {
            let mut left = Departures::new();
            self.core.clear_batch(&mut cursor, &mut left).then_some(left)
        });
    }
}

fn default_or_none(py: Python<'_>, default: Option<&Bound<'_, PyAny>>) -> Py<PyAny> {
    default.map_or_else(|| py.None(), |default| default.clone().unbind())
}

#[pymethods]
impl Moka {
    #[new]
    #[pyo3(
        signature = (
            capacity, ttl=None, tti=None, eviction_listener=None, policy=Fallback::Missing, weigher=None
        ),
        text_signature = "(capacity, ttl=None, tti=None, eviction_listener=None, policy='tiny_lfu', weigher=None)"
    )]
    fn new(
        capacity: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
        eviction_listener: Option<&Bound<'_, PyAny>>,
        policy: Fallback<'_>,
        weigher: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let capacity = convert::capacity(capacity)?;
        let ttl = convert::duration("ttl", ttl)?;
        let tti = convert::duration("tti", tti)?;
        convert::callable_or_none("eviction_listener", eviction_listener)?;
        let policy = match policy {
            Fallback::Missing => Kind::TinyLfu,
            Fallback::Given(policy) => convert::policy(&policy)?,
        };
        convert::callable_or_none("weigher", weigher)?;
        let config = Config {
            lifetime: Lifetime { ttl: ttl.nanos, tti: tti.nanos },
            weighted: weigher.is_some(),
            listened: eviction_listener.is_some(),
            ..Config::new(capacity, policy)
        };
        Ok(Moka {
            core: Box::new(Cache::new(config, Clock::Process)),
            seed: Seed::of_process(),
            counts: Counts::new(),
            listener: Hook::new(eviction_listener),
            weigher: Hook::new(weigher),
            ttl,
            tti,
        })
    }

    /// The arguments were read when the object was made. A subclass may pass them on.
    #[pyo3(signature = (*_args, **_keywords))]
    fn __init__(&self, _args: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) {}

    /// Return the value of key, or default. Counts as a use.
    #[pyo3(signature = (key, default=None))]
    fn get(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let value = self.look_up(py, &self.key(key)?)?;
        Ok(value.map_or_else(|| default_or_none(py, default), Object::into_py))
    }

    /// Store a value; ttl and tti are of this entry alone, in seconds or as a timedelta.
    #[pyo3(signature = (key, value, ttl=None, tti=None))]
    fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.store_for(key, value, Self::lifetime(ttl, tti)?)
    }

    /// Return the value of key, computed by initializer() if absent, once for all threads that ask.
    #[pyo3(signature = (key, initializer, ttl=None, tti=None))]
    fn get_with<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        initializer: &Bound<'py, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        convert::callable("initializer", initializer)?;
        let lifetime = Self::lifetime(ttl, tti)?;
        let query = self.key(key)?;
        match self.look_up(key.py(), &query)? {
            Some(value) => Ok(value.into_py()),
            None => self.load(&query, key, lifetime, || initializer.call0()),
        }
    }

    /// Remove key and return its value, or default.
    #[pyo3(signature = (key, default=None))]
    fn remove(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let query = self.key(key)?;
        let value = self.call(py, |left| self.core.remove(&query, left))?;
        Ok(value.map_or_else(|| default_or_none(py, default), Object::into_py))
    }

    /// Remove everything.
    fn clear(&self, py: Python<'_>) {
        self.empty(py, Self::settle);
    }

    /// Return the number of entries.
    fn count(&self, py: Python<'_>) -> usize {
        self.run(py, |left| self.core.count(left))
    }

    /// Return the weight of all entries.
    fn weighted_size(&self, py: Python<'_>) -> u64 {
        self.run(py, |left| self.core.weight(left))
    }

    /// Finish what is due: expire entries, and let go of values that have left.
    fn run_pending_tasks(&self, py: Python<'_>) {
        self.run(py, |left| self.core.expire_all(left));
        self.core.flush();
    }

    /// Return a dict of those keys that have a value. Each counts as a use.
    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        bulk::get_many(self, keys)
    }

    /// Set each pair of a mapping or of an iterable of pairs; ttl and tti are the entries' own, in seconds.
    #[pyo3(signature = (entries, ttl=None, tti=None))]
    fn set_many(
        &self,
        entries: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let lifetime = Self::lifetime(ttl, tti)?;
        mapping::each_pair("entries", entries, |key, value| self.store_for(key, value, lifetime))
    }

    /// Remove each of the keys; return how many were there.
    fn remove_many(&self, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        bulk::remove_many(self, keys)
    }

    /// Remove each entry for which predicate(key, value) is true; return how many.
    fn remove_if(&self, predicate: &Bound<'_, PyAny>) -> PyResult<usize> {
        convert::callable("predicate", predicate)?;
        bulk::remove_if(self, predicate)
    }

    /// Return what was counted since the last reset.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.sum_up(py, |weight, count| self.counts.stats(py, weight, count))
    }

    /// Count anew.
    pub fn reset_stats(&self, py: Python<'_>) {
        self.sum_up(py, |_, count| self.counts.reset(count));
    }

    /// Return the seconds that key has still to live, or None.
    fn expires_in(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let query = self.key(key)?;
        let nanos = self.call(py, |left| self.core.expires_in(&query, left))?;
        Ok(nanos.map(|nanos| nanos as f64 / 1e9))
    }

    /// The most that the weights of all entries may add up to.
    #[getter]
    fn capacity(&self) -> u64 {
        self.core.config().capacity
    }

    /// The name of the policy, which says what leaves when the cache is full: "tiny_lfu" or "lru".
    #[getter]
    fn policy(&self) -> &'static str {
        match self.core.config().policy {
            Kind::TinyLfu => "tiny_lfu",
            Kind::Lru => "lru",
        }
    }

    /// The seconds that an entry may live since it was set, or None.
    #[getter]
    fn ttl(&self) -> Option<f64> {
        self.ttl.seconds
    }

    /// The seconds that an entry may live since it was used, or None.
    #[getter]
    fn tti(&self) -> Option<f64> {
        self.tti.seconds
    }

    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let value = self.look_up(py, &self.key(key)?)?;
        value.map(Object::into_py).ok_or_else(|| mapping::key_error(key))
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.store(key, value)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let query = self.key(key)?;
        let value = self.call(py, |left| self.core.remove(&query, left))?;
        value.map(drop).ok_or_else(|| mapping::key_error(key))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let query = self.key(key)?;
        Ok(self.call(py, |left| self.core.peek(&query, left))?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.count(py)
    }

    fn __iter__(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Key)
    }

    /// Return a live view of the keys.
    fn keys(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Key)
    }

    /// Return a live view of the values.
    fn values(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Value)
    }

    /// Return a live view of the pairs of key and value.
    fn items(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Item)
    }

    fn _values_iter(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Value)
    }

    fn _items_iter(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Item)
    }

    fn _peek(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let query = self.key(key)?;
        let value = self.call(py, |left| self.core.peek(&query, left))?;
        Ok(value.map_or(default, Object::into_py))
    }

    /// Remove key and return its value, or default; without one, raise KeyError.
    #[pyo3(signature = (key, default=Fallback::Missing), text_signature = "($self, key, default=...)")]
    fn pop(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: Fallback<'_>) -> PyResult<Py<PyAny>> {
        let query = self.key(key)?;
        match self.call(py, |left| self.core.remove(&query, left))? {
            Some(value) => Ok(value.into_py()),
            None => default.or_key_error(key),
        }
    }

    /// Remove some entry and return its key and value; raise KeyError if there is none.
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        match self.run(py, |left| self.core.pop_any(left)) {
            Some((key, value)) => Ok((key.into_py(), value.into_py())),
            None => Err(PyKeyError::new_err("popitem(): the cache is empty")),
        }
    }

    /// Return the value of key, after storing default if absent.
    #[pyo3(signature = (key, default=None))]
    fn setdefault(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let query = self.key(key)?;
        if let Some(value) = self.look_up(py, &query)? {
            return Ok(value.into_py());
        }
        let default = default.unwrap_or_else(|| py.None()).into_bound(py);
        let stored = self.stored(key, &default, Lifetime::default())?;
        let kept = self.call(py, |left| self.core.set_if_absent(&query, stored, left))?;
        Ok(kept.map_or_else(|| default.unbind(), Object::into_py))
    }

    /// Set each pair of a mapping or of an iterable of pairs, then each keyword.
    #[pyo3(
        signature = (other=Fallback::Missing, /, **keywords),
        text_signature = "($self, other=(), /, **keywords)"
    )]
    fn update<'py>(&self, other: Fallback<'py>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<()> {
        mapping::update(self, &other, keywords)
    }

    /// Moka[K, V] is Moka: the parameters are for type checkers.
    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        _parameters: &Bound<'py, PyAny>,
    ) -> Bound<'py, PyType> {
        cls.clone()
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let mut text = format!("<{}", slf.get_type().fully_qualified_name()?);
        text += &format!(" capacity={} policy={}", this.capacity(), this.policy());
        for (name, duration) in [("ttl", this.ttl), ("tti", this.tti)] {
            if let Some(seconds) = duration.seconds {
                text += &format!(" {name}={seconds}");
            }
        }
        Ok(text + &format!(" count={}>", this.count(slf.py())))
    }

    #[pyo3(signature = (*_args))]
    fn __reduce_ex__(slf: &Bound<'_, Self>, _args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let name = slf.get_type().fully_qualified_name()?;
        Err(PyTypeError::new_err(format!(
            "cannot pickle '{name}' object: a cache is not copied or pickled, its items can be"
        )))
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::__reduce_ex__(slf, &PyTuple::empty(slf.py()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.listener.visit(&visit)?;
        self.weigher.visit(&visit)?;
        let mut result = Ok(());
        self.core.each(|key, value| {
            for object in key.into_iter().chain([value]) {
                if result.is_ok() {
                    result = object.visit(&visit);
                }
            }
        });
        result
    }

    /// The collector takes the cache apart: nobody can reach it, and no listener is told.
    fn __clear__(&self, py: Python<'_>) {
        self.listener.clear();
        self.weigher.clear();
        self.empty(py, |this, _, mut left| this.core.release(&mut left));
    }
}
