//! The methods of `Moka` that PyO3 wraps. `get`, `set`, `remove` and `get_with` are in `fastcall.rs`.
//!
//! The docstrings are those of `moka_py/_moka_py.pyi`, by the macro `doc`.

use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyList, PyTuple, PyType};

use crate::python::moka::bulk;
use crate::python::moka::bulk_load;
use crate::python::moka::class::Moka;
use crate::python::moka::convert::{self, Duration};
use crate::python::moka::flights;
use crate::python::moka::listener::Callback;
use crate::python::moka::mapping::{self, EntryIterator, OptionalArg, Part};
use crate::python::moka::signature::Signature;
use crate::python::moka::state::CacheState;
use crate::python::object::{Object, long_lived, shared_error};
use crate::python::runtime::race_cell::{RaceCell, interned};
use crate::{Config, Kind, Lifetime, Ranking};

const NEW: Signature<9> = Signature {
    function: "Moka.__new__()",
    parameters: [
        "capacity",
        "ttl",
        "tti",
        "eviction_listener",
        "policy",
        "weigher",
        "long_lived",
        "refresh",
        "executor",
    ],
    required: 1,
};

/// The state of a cache made with these arguments.
fn new_state(args: &Bound<'_, PyTuple>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<CacheState> {
    let positional: Vec<_> = args.iter_borrowed().collect();
    let named: Vec<_> = keywords.map(|keywords| keywords.iter().collect()).unwrap_or_default();
    let named = named.iter().map(|(name, value)| (name.as_borrowed(), value.as_borrowed()));
    let [capacity, ttl, tti, listener, policy, weigher, long_lived, refresh, executor] =
        NEW.bind(&positional, named)?;
    let [listener, weigher, executor] =
        [listener, weigher, executor].map(|object| object.filter(|object| !object.is_none()));
    let capacity = capacity.map_or(Ok(0), |capacity| convert::capacity(&capacity))?;
    let (ttl, ttl_function) = convert::duration_or_function("ttl", ttl)?;
    let tti = convert::duration("tti", tti.as_deref())?;
    convert::callable_or_none("eviction_listener", listener.as_deref())?;
    let policy = policy.map_or(Ok(Kind::TinyLfu), |policy| convert::policy(&policy))?;
    convert::callable_or_none("weigher", weigher.as_deref())?;
    let is_long_lived = long_lived.map_or(Ok(false), |flag| convert::boolean("long_lived", &flag))?;
    let refresh = convert::refresh(convert::duration("refresh", refresh.as_deref())?, ttl)?;
    convert::executor_or_none(executor.as_deref(), refresh)?;
    let config = Config {
        lifetime: Lifetime { ttl: ttl.nanos, tti: tti.nanos },
        refresh: refresh.nanos,
        has_ttl_function: ttl_function.is_some(),
        weighted: weigher.is_some(),
        has_listener: listener.is_some(),
        ..Config::new(capacity, policy)
    };
    let callbacks =
        [listener, weigher, ttl_function, executor].map(|object| Callback::new(object.as_deref()));
    Ok(CacheState::new(config, callbacks, [ttl, tti, refresh], is_long_lived))
}

/// The weigher of a cache whose `__init__` has not run.
#[pyfunction]
fn refuse_insert(_key: &Bound<'_, PyAny>, _value: &Bound<'_, PyAny>) -> PyResult<()> {
    Err(PyRuntimeError::new_err(
        "the cache was not made: the __init__ of a subclass of Moka must call super().__init__(capacity, ...)",
    ))
}

/// The state of a cache whose `__init__` has not run. It is empty, and an insert raises.
fn refusing_state(py: Python<'_>) -> PyResult<CacheState> {
    let refuse = wrap_pyfunction!(refuse_insert, py)?;
    let config = Config { weighted: true, ..Config::new(0, Kind::TinyLfu) };
    let callbacks = [None, Some(refuse.as_any()), None, None].map(Callback::new);
    Ok(CacheState::new(config, callbacks, [Duration::default(); 3], false))
}

#[pymethods]
impl Moka {
    // A subclass that overrides `__init__` may take other arguments. If they make no cache, `__init__` has to.
    #[new]
    #[classmethod]
    #[pyo3(
        signature = (*args, **keywords),
        text_signature = "(capacity, ttl=None, tti=None, eviction_listener=None, policy='tiny_lfu', weigher=None, \
                          long_lived=False, refresh=None, executor=None)"
    )]
    fn new(
        cls: &Bound<'_, PyType>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let py = cls.py();
        let base = py.get_type::<Moka>();
        let init = interned!(py, "__init__");
        let is_provisional = !cls.is(&base) && !cls.getattr(init)?.is(&base.getattr(init)?);
        let state = match new_state(args, keywords) {
            Err(error) if is_provisional && shared_error::is_failure(error.value(py)) => refusing_state(py),
            state => state,
        };
        Ok(Moka::with_state(state?, is_provisional))
    }

    #[pyo3(signature = (*args, **keywords))]
    fn __init__(
        slf: &Bound<'_, Self>,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let this = slf.get();
        this.init(|| new_state(args, keywords))?;
        if this.is_long_lived {
            long_lived::stop_counting_references(slf.as_any());
        }
        Ok(())
    }

    #[doc = doc!("Moka.peek")]
    #[pyo3(signature = (key, default=None))]
    fn peek(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let value = CacheState::peek(self, py, &self.key(key)?)?;
        Ok(value.map(Object::into_py).or(default))
    }

    #[doc = doc!("Moka.set_with")]
    #[pyo3(signature = (key, function, default=None, ttl=None, tti=None))]
    fn set_with<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        function: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
        ttl: Option<&Bound<'py, PyAny>>,
        tti: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        convert::callable("function", function)?;
        let lifetime = convert::lifetime(ttl, tti)?;
        let default = default.unwrap_or_else(|| key.py().None().into_bound(key.py()));
        Ok(CacheState::set_with(self, &self.key(key)?, function, &default, lifetime)?)
    }

    #[doc = doc!("Moka.touch")]
    #[pyo3(signature = (key, ttl=None, tti=None))]
    fn touch(
        &self,
        key: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let lifetime = convert::lifetime(ttl, tti)?;
        Ok(CacheState::touch(self, &self.key(key)?, lifetime)?)
    }

    #[doc = doc!("Moka.clear")]
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        // The kept errors first: those that come now are superseded with the results.
        self.with_error_store().try_for_each(|state| {
            state.clear_batches(|removed| {
                state.process_removals(py, removed);
                mapping::yield_to_interpreter(py)
            })
        })
    }

    #[doc = doc!("Moka.resize")]
    fn resize(&self, py: Python<'_>, capacity: &Bound<'_, PyAny>) -> PyResult<()> {
        let capacity = convert::capacity(capacity)?;
        let resize =
            |state: &CacheState| state.resize_in_steps(py, capacity, || mapping::yield_to_interpreter(py));
        // An error of one resize does not end the other.
        self.with_error_store().map(resize).fold(Ok(()), Result::and)
    }

    #[doc = doc!("Moka.count")]
    fn count(&self, py: Python<'_>) -> usize {
        self.run(py, |removed| self.core().count(removed))
    }

    #[doc = doc!("Moka.weighted_size")]
    fn weighted_size(&self, py: Python<'_>) -> u64 {
        self.run(py, |removed| self.core().weight(removed))
    }

    #[doc = doc!("Moka.run_pending_tasks")]
    fn run_pending_tasks(&self, py: Python<'_>) {
        for state in self.with_error_store() {
            state.run(py, |removed| state.core().expire_all(removed));
            state.core().flush();
        }
    }

    #[doc = doc!("Moka.get_many")]
    fn get_many<'py>(&self, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        bulk::get_many(self, keys)
    }

    #[doc = doc!("Moka.get_many_with")]
    #[pyo3(signature = (keys, load, ttl=None, tti=None))]
    fn get_many_with<'py>(
        &self,
        keys: &Bound<'py, PyAny>,
        load: &Bound<'py, PyAny>,
        ttl: Option<&Bound<'py, PyAny>>,
        tti: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        convert::callable("load", load)?;
        let deadlines = convert::deadlines(ttl.map(Bound::as_borrowed), tti.map(Bound::as_borrowed))?;
        bulk_load::get_many_with(self, keys, load, &deadlines)
    }

    #[doc = doc!("Moka.aget_many_with")]
    #[pyo3(signature = (keys, load, ttl=None, tti=None))]
    fn aget_many_with<'py>(
        slf: &Bound<'py, Self>,
        keys: &Bound<'py, PyAny>,
        load: &Bound<'py, PyAny>,
        ttl: Option<&Bound<'py, PyAny>>,
        tti: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        convert::callable("load", load)?;
        convert::deadlines(ttl.map(Bound::as_borrowed), tti.map(Bound::as_borrowed))?;
        flights::import(py)?;
        let table = slf.get().flights(py)?;
        table.call_method1(interned!(py, "aget_many_with"), (slf, keys, load, ttl, tti))
    }

    #[doc = doc!("Moka.set_many")]
    #[pyo3(signature = (entries, ttl=None, tti=None))]
    fn set_many(
        &self,
        entries: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        tti: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let deadlines = convert::deadlines(ttl.map(Bound::as_borrowed), tti.map(Bound::as_borrowed))?;
        mapping::for_each_pair("entries", entries, |key, value| {
            Ok(self.set(self.key(key)?, value, &deadlines)?)
        })
    }

    #[doc = doc!("Moka.remove_many")]
    fn remove_many(&self, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        bulk::remove_many(self, keys)
    }

    #[doc = doc!("Moka.remove_if")]
    fn remove_if(&self, predicate: &Bound<'_, PyAny>) -> PyResult<usize> {
        convert::callable("predicate", predicate)?;
        bulk::remove_if(self, predicate)
    }

    #[doc = doc!("Moka.hottest")]
    #[pyo3(signature = (limit=None))]
    fn hottest<'py>(
        &self,
        py: Python<'py>,
        limit: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        bulk::ranked(self, py, Ranking::hottest(convert::limit(limit)?))
    }

    #[doc = doc!("Moka.coldest")]
    #[pyo3(signature = (limit=None))]
    fn coldest<'py>(
        &self,
        py: Python<'py>,
        limit: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        bulk::ranked(self, py, Ranking::coldest(convert::limit(limit)?))
    }

    #[doc = doc!("Moka.stats")]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.with_totals(py, |weight, count| self.counts().to_python(py, weight, count))
    }

    /// The result of `stats`, without maintenance: for metrics, whose readers must not run a listener.
    fn _counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (weight, count) = self.totals_with_due();
        self.counts().to_python(py, weight, count)
    }

    #[doc = doc!("Moka.reset_stats")]
    pub fn reset_stats(&self, py: Python<'_>) {
        self.with_totals(py, |_, count| self.counts().reset(count));
    }

    #[doc = doc!("Moka.expires_in")]
    fn expires_in(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let query = self.key(key)?;
        let remaining = self.run(py, |removed| self.core().expires_in(&query, removed))?;
        Ok(remaining.map(|remaining| remaining.as_secs_f64()))
    }

    #[doc = doc!("Moka.next_deadline")]
    fn next_deadline(&self) -> Option<f64> {
        self.core().next_deadline().map(|remaining| remaining.as_secs_f64())
    }

    #[doc = doc!("Moka.capacity")]
    #[getter]
    fn capacity(&self) -> u64 {
        self.core().capacity()
    }

    #[doc = doc!("Moka.policy")]
    #[getter]
    fn policy(&self) -> &'static str {
        match self.core().config().policy {
            Kind::TinyLfu => "tiny_lfu",
            Kind::Lru => "lru",
        }
    }

    #[doc = doc!("Moka.ttl")]
    #[getter]
    fn ttl<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self.ttl_function() {
            Some(function) => Some(function.into_bound(py)),
            None => self.ttl.seconds.map(|seconds| PyFloat::new(py, seconds).into_any()),
        }
    }

    #[doc = doc!("Moka.tti")]
    #[getter]
    fn tti(&self) -> Option<f64> {
        self.tti.seconds
    }

    #[doc = doc!("Moka.refresh")]
    #[getter]
    fn refresh(&self) -> Option<f64> {
        self.refresh.seconds
    }

    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let value = self.get(py, &self.key(key)?)?;
        value.map(Object::into_py).ok_or_else(|| mapping::key_error(key))
    }

    fn __setitem__(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        mapping::set(self, key, value)
    }

    fn __delitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = self.remove(py, &self.key(key)?)?;
        value.map(drop).ok_or_else(|| mapping::key_error(key))
    }

    fn __contains__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(CacheState::peek(self, py, &self.key(key)?)?.is_some())
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.count(py)
    }

    fn __iter__(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Key)
    }

    #[doc = doc!("Moka.keys")]
    fn keys(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Key)
    }

    #[doc = doc!("Moka.values")]
    fn values(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Value)
    }

    #[doc = doc!("Moka.items")]
    fn items(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        mapping::view(slf, Part::Item)
    }

    fn _values_iter(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Value)
    }

    fn _items_iter(slf: Bound<'_, Self>) -> EntryIterator {
        EntryIterator::new(slf.unbind(), Part::Item)
    }

    #[doc = doc!("Moka.pop")]
    #[pyo3(signature = (key, default=OptionalArg::Missing), text_signature = "($self, key, default=...)")]
    fn pop(&self, py: Python<'_>, key: &Bound<'_, PyAny>, default: OptionalArg<'_>) -> PyResult<Py<PyAny>> {
        match self.remove(py, &self.key(key)?)? {
            Some(value) => Ok(value.into_py()),
            None => default.or_key_error(key),
        }
    }

    #[doc = doc!("Moka.popitem")]
    fn popitem(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        match self.run(py, |removed| self.core().pop_any(removed)) {
            Some((key, value)) => Ok((key.into_py(), value.into_py())),
            None => Err(PyKeyError::new_err("popitem(): the cache is empty")),
        }
    }

    #[doc = doc!("Moka.setdefault")]
    #[pyo3(signature = (key, default=None))]
    fn setdefault(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let query = self.key(key)?;
        if let Some(value) = self.get(py, &query)? {
            return Ok(value.into_py());
        }
        let default = default.unwrap_or_else(|| py.None()).into_bound(py);
        let present = self.set_if_absent(&query, &default)?;
        Ok(present.map_or_else(|| default.unbind(), Object::into_py))
    }

    #[doc = doc!("Moka.update")]
    #[pyo3(
        signature = (other=OptionalArg::Missing, /, **keywords),
        text_signature = "($self, other=(), /, **keywords)"
    )]
    fn update<'py>(&self, other: OptionalArg<'py>, keywords: Option<&Bound<'py, PyDict>>) -> PyResult<()> {
        mapping::update(self, &other, keywords)
    }

    #[doc = doc!("Moka.__class_getitem__")]
    #[classmethod]
    fn __class_getitem__<'py>(
        cls: &Bound<'py, PyType>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static ALIAS: RaceCell<Py<PyType>> = RaceCell::new();
        ALIAS.import(cls.py(), "types", "GenericAlias")?.call1((cls, parameters))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let mut text = format!("<{}", slf.get_type().fully_qualified_name()?);
        text += &format!(" capacity={} policy={}", this.capacity(), this.policy());
        for (name, duration) in [("ttl", this.ttl), ("tti", this.tti), ("refresh", this.refresh)] {
            if let Some(seconds) = duration.seconds {
                text += &format!(" {name}={seconds}");
            }
        }
        // Not its `repr`, which may contain that of the cache.
        if let Some(function) = this.ttl_function() {
            text += &format!(" ttl=<{}>", convert::type_name(function.bind(slf.py())));
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
        self.states().try_for_each(|state| state.visit(&visit))
    }

    /// The cache is unreachable, so the listener is not called.
    fn __clear__(&self) {
        self.states().for_each(CacheState::clear_unreachable);
    }
}
