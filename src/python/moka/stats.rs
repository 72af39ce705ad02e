//! What a cache counts of itself, and the `moka_py.Stats` that is made of it.
//!
//! # How it works
//! An access is counted by who makes it, as a hit or a miss, and what left by its cause when its call is settled,
//! before a listener hears of it. Inserts cost nothing: what came is what is there, and what has left but was not
//! replaced, less what was there at the last reset.
//!
//! The calls of a function that is cached are counted here too, so its cache has one set of counts.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyFloat, PyTuple, PyType};

use crate::collections::striped_counter::StripedCounter;
use crate::sync::{AtomicU64, Ordering};
use crate::{Cause, Clock};

// A cause is counted under its own number.
const EVICTIONS: usize = Cause::Size as usize;
const EXPIRATIONS: usize = Cause::Expired as usize;
const REMOVALS: usize = Cause::Explicit as usize;
const REPLACEMENTS: usize = Cause::Replaced as usize;
const CAUSES: usize = 4;
const HITS: usize = CAUSES;
const MISSES: usize = CAUSES + 1;
const LOADS: usize = CAUSES + 2;
const LOAD_FAILURES: usize = CAUSES + 3;
const LOAD_NANOS: usize = CAUSES + 4;
const ALL: usize = CAUSES + 5;

/// The counts of one cache.
pub(crate) struct CacheStats {
    tally: StripedCounter<ALL>,
    /// How many entries there were at the last reset.
    count_before: AtomicU64,
}

/// A load under way, since an instant.
pub(crate) struct Load(u64);

impl Load {
    pub fn begin() -> Self {
        Load(Clock::Process.now())
    }

    /// As a number, on its way through Python code and back.
    pub fn since(self) -> u64 {
        self.0
    }

    pub fn begun(since: u64) -> Self {
        Load(since)
    }
}

impl CacheStats {
    pub fn new() -> Self {
        CacheStats { tally: StripedCounter::new(), count_before: AtomicU64::new(0) }
    }

    #[inline]
    pub fn hit(&self) {
        self.tally.add(HITS);
    }

    #[inline]
    pub fn miss(&self) {
        self.tally.add(MISSES);
    }

    /// An access, by whether it found the value.
    #[inline]
    pub fn access(&self, is_hit: bool) {
        self.tally.add(if is_hit { HITS } else { MISSES });
    }

    /// A value that left.
    #[inline]
    pub fn gone(&self, cause: Cause) {
        self.tally.add(cause as usize);
    }

    /// Counts a load that has ended.
    pub fn end(&self, Load(began): Load, is_failure: bool) {
        let nanos = Clock::Process.now().saturating_sub(began);
        self.tally.add_all([(LOADS, 1), (LOAD_FAILURES, u64::from(is_failure)), (LOAD_NANOS, nanos)]);
    }

    /// Runs a load, and counts it.
    pub fn load<T>(&self, load: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let began = Load::begin();
        let loaded = load();
        self.end(began, loaded.is_err());
        loaded
    }

    pub fn hits(&self) -> u64 {
        self.tally.get(HITS)
    }

    pub fn misses(&self) -> u64 {
        self.tally.get(MISSES)
    }

    /// Counts anew, from so many entries on.
    pub fn reset(&self, count: usize) {
        self.tally.reset();
        // Relaxed: as in the tally.
        self.count_before.store(count as u64, Ordering::Relaxed);
    }

    /// A `moka_py.Stats`, beside the weight and the number of all entries.
    pub fn stats<'py>(&self, py: Python<'py>, weight: u64, count: usize) -> PyResult<Bound<'py, PyAny>> {
        let get = |which| self.tally.get(which);
        let int = |number: u64| -> Bound<'py, PyAny> {
            let Ok(number) = number.into_pyobject(py);
            number.into_any()
        };
        let float = |number| PyFloat::new(py, number).into_any();
        let (hits, misses) = (get(HITS), get(MISSES));
        let accesses = hits + misses;
        let hit_ratio = if accesses == 0 { 0.0 } else { hits as f64 / accesses as f64 };
        let (evictions, expirations, removals) = (get(EVICTIONS), get(EXPIRATIONS), get(REMOVALS));
        let there = count as u64 + evictions + expirations + removals;
        let inserts = there.saturating_sub(self.count_before.load(Ordering::Relaxed));
        let fields = [
            int(hits),
            int(misses),
            float(hit_ratio),
            int(inserts),
            int(get(REPLACEMENTS)),
            int(evictions),
            int(expirations),
            int(removals),
            int(get(LOADS)),
            int(get(LOAD_FAILURES)),
            float(get(LOAD_NANOS) as f64 / 1e9),
            int(weight),
            int(count as u64),
        ];
        // As a tuple is made: a named one's own `__new__` would run Python code under a Rust frame, where a daemon
        // thread must not be when the interpreter ends.
        let of_class = (stats_class(py)?, PyTuple::new(py, fields)?);
        py.get_type::<PyTuple>().call_method1(intern!(py, "__new__"), of_class)
    }
}

fn stats_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static STATS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    STATS.import(py, "moka_py._stats", "Stats")
}

/// Imports the class, so that no call ever waits for an import.
pub(in crate::python) fn import_stats(py: Python<'_>) -> PyResult<()> {
    stats_class(py).map(drop)
}
