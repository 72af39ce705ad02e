//! The class `Moka`, as Python sees it. Its full documentation, with types, is in `_moka_py.pyi`.

use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::python::moka::bulk;
use crate::python::moka::construction::Construction;
use crate::python::moka::convert::{self, Duration};
use crate::python::moka::listener::Callback;
use crate::python::moka::mapping::{self, EntryIterator, OptionalArg, Part};
use crate::python::moka::{CacheState, Moka};
use crate::python::object::Object;
use crate::{Config, Kind, Lifetime};

fn lifetime(ttl: Option<&Bound<'_, PyAny>>, tti: Option<&Bound<'_, PyAny>>) -> PyResult<Lifetime> {
    let ttl = convert::duration("ttl", ttl)?.nanos;
    Ok(Lifetime { ttl, tti: convert::duration("tti", tti)?.nanos })
}

fn default_or_none(py: Python<'_>, default: Option<&Bound<'_, PyAny>>) -> Py<PyAny> {
    default.map_or_else(|| py.None(), |default| default.clone().unbind())
}

/// The arguments of `Moka`, read as PyO3 reads those of a class of that name.
#[pyclass(name = "Moka", module = "moka_py", frozen)]
struct Construct(Mutex<Option<Arc<CacheState>>>);

const _: () = assert!(align_of::<Construct>() <= 16, "CPython aligns no object further");

#[pymethods]
impl Construct {
    #[new]
    #[pyo3(
        signature = (
            capacity, ttl=None, tti=None, eviction_listener=None, policy=OptionalArg::Missing, weigher=None
        )
    )]
    fn new(
        capacity: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
        eviction_listener: Option<&Bound<'_, PyAny>>,
        policy: OptionalArg<'_>,
        weigher: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let capacity = convert::capacity(capacity)?;
        let ttl = convert::duration("ttl", ttl)?;
        let tti = convert::duration("tti", tti)?;
        convert::callable_or_none("eviction_listener", eviction_listener)?;
        let policy = match policy {
            OptionalArg::Missing => Kind::TinyLfu,
            OptionalArg::Given(policy) => convert::policy(&policy)?,
        };
        convert::callable_or_none("weigher", weigher)?;
        let config = Config {
            lifetime: Lifetime { ttl: ttl.nanos, tti: tti.nanos },
            weighted: weigher.is_some(),
            has_listener: eviction_listener.is_some(),
            ..Config::new(capacity, policy)
        };
        let hooks = [eviction_listener, weigher].map(Callback::new);
        Ok(Construct(Mutex::new(Some(Arc::new(CacheState::new(config, hooks, [ttl, tti]))))))
    }
}

/// The state of a cache made with these arguments.
fn construct(
    py: Python<'_>,
    args: &Bound<'_, PyTuple>,
    keywords: Option<&Bound<'_, PyDict>>,
) -> PyResult<Arc<CacheState>> {
    let made = py.get_type::<Construct>().call(args, keywords)?;
    let state = made.cast_into::<Construct>()?.get().0.lock().ok().and_then(|mut state| state.take());
    state.ok_or_else(|| PyRuntimeError::new_err("the arguments of Moka were read twice"))
}

/// The weigher of a cache that `__init__` has not made yet.
#[pyfunction]
fn refuse_insert(_key: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>) -> PyResult<()> {
    Err(PyRuntimeError::new_err(
        "the cache was not made: the __init__ of a subclass of Moka must call super().__init__(capacity, ...)",
    ))
}

/// The state of a cache that `__init__` has not made yet. It is empty, and an insert raises.
fn unmade(py: Python<'_>) -> PyResult<Arc<CacheState>> {
    let refuse = wrap_pyfunction!(refuse_insert, py)?;
    let config = Config { weighted: true, ..Config::new(0, Kind::TinyLfu) };
    let hooks = [Callback::new(None), Callback::new(Some(refuse.as_any()))];
    Ok(Arc::new(CacheState::new(config, hooks, [Duration::default(); 2])))
}

#[pymethods]
impl Moka {
    /// The arguments are those of `Moka`. Where a subclass overrides `__init__`, they may be of any kind: `__init__` passes
    /// on what makes the cache, and until then it is what these arguments make, if they make one.
    #[new]
    #[classmethod]
    #[pyo3(
        signature = (*args, **keywords),
        text_signature = "(capacity, ttl=None, tti=None, eviction_listener=None, policy='tiny_lfu', weigher=None)"
    )]
    fn new(
        cls: &Bound<'_, PyType>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let py = cls.py();
        let base = py.get_type::<Moka>();
        let init = intern!(py, "__init__");
        let is_provisional = !cls.is(&base) && !cls.getattr(init)?.is(&base.getattr(init)?);
        let state = match construct(py, args, keywords) {
            Err(error) if is_provisional && convert::is_failure(py, &error) => unmade(py),
            state => state,
        };
        Ok(Moka { made: Construction::new(state?, is_provisional) })
    }

    /// Makes the cache where a subclass passes arguments on from its own `__init__`. Else they were read before.
    #[pyo3(signature = (*args, **keywords))]
    fn __init__(&self, args: &Bound<'_, PyTuple>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        if self.made.is_open() {
            self.made.replace(construct(args.py(), args, keywords)?);
        }
        Ok(())
    }

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
        self.store_for(key, value, lifetime(ttl, tti)?)
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
        let this = self.made.get();
        convert::callable("initializer", initializer)?;
        let lifetime = lifetime(ttl, tti)?;
        let query = this.key(key)?;
        match this.look_up(key.py(), &query)? {
            Some(value) => Ok(value.into_py()),
            None => this.load(&query, key, lifetime, false, || initializer.call0()),
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
        let this = self.made.get();
        let query = this.key(key)?;
        let value = this.call(py, |removed| this.core.remove(&query, removed))?;
        Ok(value.map_or_else(|| default_or_none(py, default), Object::into_py))
    }

    /// Remove everything.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        self.empty(py, |this, py, removed| {
            this.settle(py, removed);
            mapping::rest(py)
        })
    }

    /// Return the number of entries.
    fn count(&self, py: Python<'_>) -> usize {
        let this = self.made.get();
        this.run(py, |removed| this.core.count(removed))
    }

    /// Return the weight of all entries.
    fn weighted_size(&self, py: Python<'_>) -> u64 {
        let this = self.made.get();
        this.run(py, |removed| this.core.weight(removed))
    }

    /// Finish what is due: expire entries, and let go of values that have left.
    fn run_pending_tasks(&self, py: Python<'_>) {
        let this = self.made.get();
        this.run(py, |removed| this.core.expire_all(removed));
        this.core.flush();
    }

    /// Return a dict of those keys that have a value. Each counts as a use.
    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        bulk::get_many(self, keys)
    }

    /// Set each pair of a mapping or of an iterable of pairs; ttl and tti are of these alone.
    #[pyo3(signature = (entries, ttl=None, tti=None))]
    fn set_many(
        &self,
        entries: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let lifetime = lifetime(ttl, tti)?;
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
        let this = self.made.get();
        this.sum_up(py, |weight, count| this.counts.stats(py, weight, count))
    }

    /// Count anew.
    pub fn reset_stats(&self, py: Python<'_>) {
        let this = self.made.get();
        this.sum_up(py, |_, count| this.counts.reset(count));
    }

    /// Return the seconds that key has still to live, or None.
    fn expires_in(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let this = self.made.get();
        let query = this.key(key)?;
        let time_left = this.call(py, |removed| this.core.expires_in(&query, removed))?;
        Ok(time_left.map(|time_left| time_left.as_secs_f64()))
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
        let this = self.made.get();
        let query = this.key(key)?;
        let value = this.call(py, |removed| this.core.remove(&query, removed))?;
        value.map(drop).ok_or_else(|| mapping::key_error(key))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let this = self.made.get();
        let query = this.key(key)?;
        Ok(this.call(py, |removed| this.core.peek(&query, removed))?.is_some())
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
        let this = self.made.get();
        let query = this.key(key)?;
        let value = this.call(py, |removed| this.core.peek(&query, removed))?;
        Ok(value.map_or(default, Object::into_py))
    }

    /// Remove key and return its value, or default; without one, raise KeyError.
    #[pyo3(signature = (key, default=OptionalArg::Missing), text_signature = "($self, key, default=...)")]
    fn pop(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: OptionalArg<'_>) -> PyResult<Py<PyAny>> {
        let this = self.made.get();
        let query = this.key(key)?;
        match this.call(py, |removed| this.core.remove(&query, removed))? {
            Some(value) => Ok(value.into_py()),
            None => default.or_key_error(key),
        }
    }

    /// Remove some entry and return its key and value; raise KeyError if there is none.
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        let this = self.made.get();
        match this.run(py, |removed| this.core.pop_any(removed)) {
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
        let this = self.made.get();
        let query = this.key(key)?;
        if let Some(value) = this.look_up(py, &query)? {
            return Ok(value.into_py());
        }
        let default = default.unwrap_or_else(|| py.None()).into_bound(py);
        let stored = this.stored(key, &default, Lifetime::default())?;
        let kept = this.call(py, |removed| this.core.set_if_absent(&query, stored, removed))?;
        Ok(kept.map_or_else(|| default.unbind(), Object::into_py))
    }

    /// Set each pair of a mapping or of an iterable of pairs, then each keyword.
    #[pyo3(
        signature = (other=OptionalArg::Missing, /, **keywords),
        text_signature = "($self, other=(), /, **keywords)"
    )]
    fn update<'py>(&self, other: OptionalArg<'py>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<()> {
        mapping::update(self, &other, keywords)
    }

    /// Moka[K, V] is an alias of Moka: the parameters are for type checkers.
    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static ALIAS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        ALIAS.import(cls.py(), "types", "GenericAlias")?.call1((cls, parameters))
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
        self.made.each().try_for_each(|state| state.visit(&visit))
    }

    /// The collector takes the cache apart: nobody can reach it, and no listener is told.
    fn __clear__(&self, py: Python<'_>) {
        self.made.each().for_each(|state| state.take_apart(py));
    }
}
