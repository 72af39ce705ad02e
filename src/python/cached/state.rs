//! The state of a cached function: its options, and the cache, which counts for it too.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::python::cached::annotations;
use crate::python::cached::lookup;
use crate::python::cached::weak_self::Owner;
use crate::python::moka::stats::Load;
use crate::python::moka::{Moka, errors};
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::raised::Raised;
use crate::python::runtime::interpreter::RecursionGuard;
use crate::{KeyQuery, Lifetime, Run, RunStart};

/// Which call a key is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is kept or shared, so there are no keys.
    Keyless,
    /// A result is kept by whoever computed it.
    Alone,
    /// Calls of one key share a run.
    Shared,
}

#[pyclass(module = "moka_py", name = "_Memo", frozen, weakref)]
pub(crate) struct CachedState {
    pub function: Py<PyAny>,
    cache: Py<Moka>,
    pub typed: bool,
    pub mode: Mode,
    /// Whether a call without keywords has its positional arguments for a key.
    pub is_plain: bool,
    /// Makes the key from the arguments, in place of the arguments themselves.
    pub make_key: Option<Py<PyAny>>,
    pub weakly: Option<WeakSelf>,
    pub later: Option<AsyncHooks>,
    /// The key of a call without arguments.
    pub no_arguments: CallKey,
    /// Parts the positional arguments of a key from the keywords.
    pub mark: Py<PyAny>,
    info: Py<PyAny>,
}

/// For a method that does not keep its instances alive.
pub(crate) struct WeakSelf {
    /// The [`Owner`] of each instance, by address.
    pub owners: Py<PyDict>,
    /// Makes the owner of an instance.
    pub make_owner: Py<PyAny>,
}

/// For a coroutine function.
pub(crate) struct AsyncHooks {
    /// Makes a coroutine of an awaitable.
    pub awaited: Py<PyAny>,
    /// Makes a coroutine that shares the run of a key.
    pub share: Py<PyAny>,
}

/// A key, ready to be stored: its parts are hashed, and not again.
#[pyclass(module = "moka_py", name = "_Made", frozen)]
pub(crate) struct CallKey {
    pub object: Object,
    pub hash: u64,
}

impl CallKey {
    pub fn query<'a, 'py>(&'a self, py: Python<'py>) -> Key<'a, 'py> {
        Key::with_hash(self.object.bind(py), self.hash)
    }
}

#[pymethods]
impl CallKey {
    fn __hash__(&self) -> u64 {
        self.hash
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, CallKey>) -> PyResult<bool> {
        let other = other.get();
        Ok(self.hash == other.hash && self.object.bind(py).eq(other.object.bind(py))?)
    }

    /// The message if the computation of the key waits for its own result.
    fn own_key_error(&self, py: Python<'_>) -> PyResult<String> {
        errors::own_key_message(self.object.bind(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.object.visit(&visit)
    }
}

/// A run of a cached function, which ends with this object at the latest.
#[pyclass(module = "moka_py", name = "_Run", frozen)]
pub(crate) struct CachedRun {
    cache: Py<Moka>,
    run: Run,
}

#[pymethods]
impl CachedRun {
    /// Whether the key was written to since the run began.
    fn is_superseded(&self) -> bool {
        self.cache.get().core().is_superseded(self.run)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)
    }
}

impl Drop for CachedRun {
    fn drop(&mut self) {
        self.cache.get().core().end_run(self.run);
    }
}

impl CachedState {
    #[inline]
    pub fn hit(&self) {
        self.moka().counts().record_hit();
    }

    pub fn miss(&self) {
        self.moka().counts().record_miss();
    }

    pub fn moka(&self) -> &Moka {
        self.cache.get()
    }

    pub fn keep(&self, made: &CallKey, value: &Bound<'_, PyAny>, run: Run) -> Result<(), Raised> {
        let key = made.object.bind(value.py());
        if self.moka().keep_result(&made.query(value.py()), run, value)? {
            self.note(key, made.hash);
        }
        Ok(())
    }

    fn begin(&self, py: Python<'_>, made: &CallKey) -> Result<RunStart<Object>, Raised> {
        self.moka().begin_run(py, &made.query(py))
    }

    /// Has the owner of a key know of its entry.
    fn note(&self, key: &Bound<'_, PyAny>, hash: u64) {
        if self.weakly.is_some() {
            Owner::note(key, hash, self.moka());
        }
    }

    /// The key of a call whose arguments came as a tuple and a dict.
    fn make(&self, args: &Bound<'_, PyTuple>, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<CallKey> {
        let py = args.py();
        let named: Vec<_> = keywords.map(|keywords| keywords.iter().collect()).unwrap_or_default();
        let names = PyTuple::new(py, named.iter().map(|(name, _)| name))?;
        let all: Vec<_> = args.iter().chain(named.into_iter().map(|(_, value)| value)).collect();
        lookup::made_of(self, py, &all, &names)
    }
}

/// The one mark of the process.
fn mark(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static MARK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    MARK.get_or_try_init(py, || Ok(py.get_type::<PyAny>().call0()?.unbind()))
}

/// Whether a lone argument is its own key, as in `lru_cache`.
#[inline]
pub(crate) fn is_own_key(only: &Bound<'_, PyAny>) -> bool {
    use pyo3::types::{PyInt, PyString};
    only.is_exact_instance_of::<PyInt>() || only.is_exact_instance_of::<PyString>()
}

#[pymethods]
impl CachedState {
    #[new]
    #[pyo3(signature = (function, cache, info, *, typed, shared, make_key, owners, make_owner, awaited, share))]
    #[expect(clippy::too_many_arguments, reason = "all that a cached function is made of")]
    fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        cache: Py<Moka>,
        info: Py<PyAny>,
        typed: bool,
        shared: bool,
        make_key: Option<Py<PyAny>>,
        owners: Option<Py<PyDict>>,
        make_owner: Option<Py<PyAny>>,
        awaited: Option<Py<PyAny>>,
        share: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let keeps = cache.get().core().config().capacity > 0;
        let none = PyTuple::empty(py).into_any();
        let hash = Key::new(&none, cache.get().seed())?.hash();
        Ok(CachedState {
            mode: match (shared, keeps) {
                (true, _) => Mode::Shared,
                (false, true) => Mode::Alone,
                (false, false) => Mode::Keyless,
            },
            is_plain: !typed && make_key.is_none() && owners.is_none(),
            weakly: owners.zip(make_owner).map(|(owners, make_owner)| WeakSelf { owners, make_owner }),
            later: awaited.zip(share).map(|(awaited, share)| AsyncHooks { awaited, share }),
            no_arguments: CallKey { object: Object::of(&none), hash },
            mark: mark(py)?.clone_ref(py),
            function,
            cache,
            typed,
            make_key,
            info,
        })
    }

    /// Report hits, misses, maxsize and currsize.
    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let size = self.cache.bind(py).call_method0("weighted_size")?;
        let counts = self.moka().counts();
        self.info.bind(py).call1((counts.hits(), counts.misses(), size))
    }

    /// Forget all results, and count anew.
    fn cache_clear(&self, py: Python<'_>) -> PyResult<()> {
        self.cache.bind(py).call_method0("clear")?;
        self.moka().reset_stats(py);
        Ok(())
    }

    /// Forget the result of a call with these arguments; return whether there was one.
    #[pyo3(signature = (*args, **keywords))]
    fn cache_invalidate(
        &self,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<bool> {
        if self.mode == Mode::Keyless {
            return Ok(false);
        }
        let made = self.make(args, keywords)?;
        Ok(self.moka().remove(args.py(), &made.query(args.py()))?.is_some())
    }

    /// Return whether the result of a call with these arguments is kept. It is no use of it.
    #[pyo3(signature = (*args, **keywords))]
    fn cache_contains(
        &self,
        args: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<bool> {
        if self.mode == Mode::Keyless {
            return Ok(false);
        }
        let made = self.make(args, keywords)?;
        Ok(self.moka().peek(args.py(), &made.query(args.py()))?.is_some())
    }

    fn _hit(&self) {
        self.hit();
    }

    fn _miss(&self) {
        self.miss();
    }

    /// The instant at which a run begins.
    fn _begin_load(&self) -> u64 {
        Load::begin().start()
    }

    /// Counts a run that has ended.
    fn _end_load(&self, since: u64, is_failure: bool) {
        self.moka().counts().end_load(Load::from_start(since), is_failure);
    }

    /// Begins a run. Returns a tuple of the value, if there is one already.
    fn _begin(&self, py: Python<'_>, made: &Bound<'_, CallKey>) -> PyResult<Py<PyAny>> {
        match self.begin(py, made.get())? {
            RunStart::Present(value) => Ok((value.into_py(),).into_pyobject(py)?.into_any().unbind()),
            RunStart::Run(run) => {
                let run = CachedRun { cache: self.cache.clone_ref(py), run };
                Ok(Bound::new(py, run)?.into_any().unbind())
            }
        }
    }

    /// Ends a run and keeps its result, unless the key was written to meanwhile.
    fn _keep(
        &self,
        made: &Bound<'_, CallKey>,
        value: &Bound<'_, PyAny>,
        run: &Bound<'_, CachedRun>,
    ) -> PyResult<()> {
        Ok(self.keep(made.get(), value, run.get().run)?)
    }

    /// Begins a run, and returns its number; or a tuple of the value, if there is one already.
    fn _begin_hashed(&self, key: &Bound<'_, PyAny>, hash: u64) -> PyResult<Py<PyAny>> {
        let py = key.py();
        match self.begin(py, &CallKey { object: Object::of(key), hash })? {
            RunStart::Present(value) => Ok((value.into_py(),).into_pyobject(py)?.into_any().unbind()),
            RunStart::Run(run) => Ok(run.number().into_pyobject(py)?.into_any().unbind()),
        }
    }

    /// Ends a run and keeps its result, unless the key was written to meanwhile.
    fn _keep_hashed(
        &self,
        key: &Bound<'_, PyAny>,
        hash: u64,
        value: &Bound<'_, PyAny>,
        number: u64,
    ) -> PyResult<()> {
        Ok(self.keep(&CallKey { object: Object::of(key), hash }, value, Run::new(hash, number))?)
    }

    /// The result of a call, computed once for all threads that ask for it.
    fn _share<'py>(
        &self,
        key: &Bound<'py, PyAny>,
        hash: u64,
        args: &Bound<'py, PyTuple>,
        keywords: &Bound<'py, PyDict>,
    ) -> PyResult<Py<PyAny>> {
        // There is the frame of the call besides.
        let _deeper = RecursionGuard::enter(key.py())?;
        let mut leads = false;
        let compute = || {
            leads = true;
            self.miss();
            self.function
                .bind(key.py())
                .call(args, Some(keywords))
                .map_err(|error| Raised::set(key.py(), error))
        };
        let value = self.moka().load(&Key::with_hash(key, hash), Lifetime::default(), false, compute)?;
        if leads {
            self.note(key, hash);
        } else {
            self.hit();
        }
        Ok(value.into_py())
    }

    /// An attribute that every function has, of the wrapper whose own attributes these are.
    fn _like_a_function<'py>(
        &self,
        own: &Bound<'py, PyDict>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        annotations::attribute(self.function.bind(own.py()), own, name)
    }

    /// A coroutine of the result of a call, computed once for all that await it in one event loop.
    fn _share_later<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        hash: u64,
        args: &Bound<'py, PyTuple>,
        keywords: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let later = slf.get().later.as_ref().expect("a coroutine function's memo has it");
        let made = CallKey { object: Object::of(key), hash };
        later.share.bind(slf.py()).call1((slf, made, args, keywords))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.function, &self.mark, &self.info] {
            visit.call(object)?;
        }
        visit.call(&self.make_key)?;
        if let Some(WeakSelf { owners, make_owner }) = &self.weakly {
            visit.call(owners)?;
            visit.call(make_owner)?;
        }
        if let Some(AsyncHooks { awaited, share }) = &self.later {
            visit.call(awaited)?;
            visit.call(share)?;
        }
        visit.call(&self.cache)
    }
}
