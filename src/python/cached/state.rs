//! The state of a cached function: its options, and the cache, which also counts its hits and misses.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::KeyQuery;
use crate::python::cached::call_key::CallKey;
use crate::python::cached::owner::Owner;
use crate::python::cached::weak_self::WeakSelf;
use crate::python::ffi::{self, Args};
use crate::python::moka::Moka;
use crate::python::moka::refresh::AfterWrite;
use crate::python::object::Object;
use crate::python::object::key::Key;
use crate::python::raised::Raised;
use crate::python::runtime::race_cell::RaceCell;

/// How the calls of a cached function use the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::python) enum Mode {
    /// Nothing is stored or shared, so calls have no keys, unless the cache was resized.
    Keyless,
    /// Each call that misses runs the function and stores its own result.
    Separate,
    /// Concurrent calls of one key share one run.
    Shared,
}

#[pyclass(module = "moka_py", name = "_CachedState", frozen, weakref)]
pub(in crate::python) struct CachedState {
    function: Py<PyAny>,
    cache: Py<Moka>,
    /// Makes a `CacheInfo`.
    info: Py<PyAny>,
    /// Makes the key from the arguments, in place of the arguments themselves.
    make_key: Option<Py<PyAny>>,
    weak_self: Option<WeakSelf>,
    /// The key of a call without arguments.
    no_arguments: CallKey,
    /// Separates the positional arguments of a key from the keywords.
    keyword_mark: Py<PyAny>,
    /// Whether a key has the types of the arguments.
    is_typed: bool,
    mode: Mode,
    /// Whether the function is a coroutine function.
    is_async: bool,
    /// Whether the positional arguments are the whole key of a call without keywords.
    has_plain_keys: bool,
}

/// The arguments of [`CachedState::new`].
pub(in crate::python) struct Options {
    pub is_typed: bool,
    pub is_shared: bool,
    pub make_key: Option<Py<PyAny>>,
    pub weak_self: Option<WeakSelf>,
    pub is_async: bool,
}

impl CachedState {
    pub fn new(
        py: Python<'_>,
        function: Py<PyAny>,
        cache: Py<Moka>,
        info: Py<PyAny>,
        options: Options,
    ) -> PyResult<Self> {
        let Options { is_typed, is_shared, make_key, weak_self, is_async } = options;
        let mode = match (is_shared, cache.get().core().capacity() > 0) {
            (true, _) => Mode::Shared,
            (false, true) => Mode::Separate,
            (false, false) => Mode::Keyless,
        };
        let has_plain_keys = mode != Mode::Keyless && !is_typed && make_key.is_none() && weak_self.is_none();
        let keyword_mark = keyword_mark(py)?.clone_ref(py);
        let empty = PyTuple::empty(py).into_any();
        let hash = Key::new(&empty, cache.get().seed())?.hash();
        let no_arguments = CallKey::new(Object::of(&empty), hash);
        Ok(CachedState {
            function,
            cache,
            info,
            make_key,
            weak_self,
            no_arguments,
            keyword_mark,
            is_typed,
            mode,
            is_async,
            has_plain_keys,
        })
    }

    pub fn function<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.function.bind(py)
    }

    pub fn cache(&self) -> &Py<Moka> {
        &self.cache
    }

    #[inline]
    pub fn moka(&self) -> &Moka {
        self.cache.get()
    }

    pub fn info<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.info.bind(py)
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether calls have no keys, since nothing is stored or shared.
    pub fn is_keyless(&self) -> bool {
        self.mode == Mode::Keyless && self.moka().core().capacity() == 0
    }

    /// Whether the positional arguments are the whole key of a call without keywords.
    #[inline]
    pub fn has_plain_keys(&self) -> bool {
        self.has_plain_keys
    }

    #[inline]
    pub fn no_arguments(&self) -> &CallKey {
        &self.no_arguments
    }

    /// Whether keys have the types of the arguments.
    pub fn is_typed(&self) -> bool {
        self.is_typed
    }

    /// Separates the positional arguments of a key from the keywords.
    pub fn keyword_mark<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.keyword_mark.bind(py)
    }

    pub fn is_async(&self) -> bool {
        self.is_async
    }
}

impl CachedState {
    #[inline]
    pub fn record_hit(&self) {
        self.moka().counts().record_hit();
    }

    pub fn record_miss(&self) {
        self.moka().counts().record_miss();
    }

    /// Calls the key function, if there is one.
    pub fn make_key<'a>(&self, args: &Args<'a>) -> Result<Option<Bound<'a, PyAny>>, Raised> {
        self.make_key.as_ref().map(|make_key| args.call(make_key.bind(args.py()))).transpose()
    }

    /// Returns the owner that stands for the instance in the keys, if instances are held weakly.
    pub fn owner<'a>(&self, args: &Args<'a>) -> Result<Option<Bound<'a, PyAny>>, Raised> {
        self.weak_self.as_ref().map(|weak_self| weak_self.owner(args)).transpose()
    }

    pub fn has_owners(&self) -> bool {
        self.weak_self.is_some()
    }

    /// Returns what is to be called after a result is stored outside the calls here: it tells the owner in the key, and
    /// removes the kept error.
    pub fn after_write(&self) -> Option<AfterWrite> {
        let is_due = self.has_owners() || self.moka().kept_errors().is_some();
        is_due.then_some(record_refresh)
    }

    /// Shows the collector each object that this holds.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in [&self.function, &self.keyword_mark, &self.info] {
            visit.call(object)?;
        }
        visit.call(&self.make_key)?;
        if let Some(weak_self) = &self.weak_self {
            weak_self.visit(visit)?;
        }
        visit.call(&self.cache)
    }
}

/// An exception of a user's `__eq__` goes to `sys.unraisablehook`: the result is stored.
fn record_refresh(key: &Bound<'_, PyAny>, hash: u64, cache: &Moka) {
    Owner::record_entry(key, hash, cache);
    if let Some(kept_errors) = cache.kept_errors()
        && let Err(raised) = kept_errors.remove(&Key::with_hash(key, hash))
    {
        ffi::write_unraisable(raised, key);
    }
}

/// The mark of this process that separates positional arguments from keywords.
fn keyword_mark(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static MARK: RaceCell<Py<PyAny>> = RaceCell::new();
    MARK.get_or_try_init(|| Ok(py.get_type::<PyAny>().call0()?.unbind()))
}
