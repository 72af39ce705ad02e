//! [`CacheStats`]: the counts of a cache, and the `moka_py.Stats` made of them.
//!
//! # How it works
//! The operation that makes an access counts it, as a hit or a miss. A removal is counted by its cause after the shard lock is
//! released, before the listener is called. Inserts are not counted. Their number is that of the entries now, plus the entries
//! that were evicted, expired or removed, minus the entries at the last reset.
//!
//! The calls of a cached function are counted here, too, so its cache has one set of counts.

use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyTuple, PyType};

use crate::collections::striped_counter::StripedCounter;
use crate::python::runtime::race_cell::{RaceCell, interned};
use crate::sync::{AtomicU64, Ordering};
use crate::{Cause, Clock};

// A cause is counted at its own index.
const EVICTIONS: usize = Cause::Size as usize;
const EXPIRATIONS: usize = Cause::Expired as usize;
const REMOVALS: usize = Cause::Explicit as usize;
const REPLACEMENTS: usize = Cause::Replaced as usize;
const CAUSES: usize = 4;
const HITS: usize = CAUSES;
const MISSES: usize = CAUSES + 1;
const LOADS: usize = CAUSES + 2;
const LOAD_FAILURES: usize = CAUSES + 3;
const LOAD_TICKS: usize = CAUSES + 4;
const REFRESHES: usize = CAUSES + 5;
const ALL: usize = CAUSES + 6;

/// The counts of one cache.
pub(crate) struct CacheStats {
    counters: StripedCounter<ALL>,
    /// The number of entries at the last reset.
    entries_at_reset: AtomicU64,
}

/// A load in flight, by the processor's count at its start.
pub(crate) struct Load(u64);

impl Load {
    pub fn begin() -> Self {
        Load(Clock::ticks())
    }

    /// The count at the start, to pass through Python code; [`Load::from_start`] takes it back.
    pub fn start(self) -> u64 {
        self.0
    }

    pub fn from_start(start: u64) -> Self {
        Load(start)
    }
}

impl CacheStats {
    pub fn new() -> Self {
        CacheStats { counters: StripedCounter::new(), entries_at_reset: AtomicU64::new(0) }
    }

    #[inline]
    pub fn record_hit(&self) {
        self.counters.add(HITS);
    }

    #[inline]
    pub fn record_miss(&self) {
        self.counters.add(MISSES);
    }

    #[inline]
    pub fn record_access(&self, is_hit: bool) {
        self.counters.add(if is_hit { HITS } else { MISSES });
    }

    #[inline]
    pub fn record_removal(&self, cause: Cause) {
        self.counters.add(cause as usize);
    }

    /// Counts a load that has ended.
    pub fn end_load(&self, Load(start): Load, is_failure: bool) {
        let ticks = Clock::ticks_since(start);
        self.counters.add_all([(LOADS, 1), (LOAD_FAILURES, u64::from(is_failure)), (LOAD_TICKS, ticks)]);
    }

    /// Counts a load that has ended and computed a value anew.
    pub fn end_refresh(&self, load: Load, is_failure: bool) {
        self.end_load(load, is_failure);
        self.counters.add(REFRESHES);
    }

    /// Runs a load, and counts it.
    pub fn time_load<T, E>(&self, compute: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let load = Load::begin();
        let result = compute();
        self.end_load(load, result.is_err());
        result
    }

    pub fn hits(&self) -> u64 {
        self.counters.get(HITS)
    }

    pub fn misses(&self) -> u64 {
        self.counters.get(MISSES)
    }

    /// Sets all counts to 0, while the cache has `count` entries.
    pub fn reset(&self, count: usize) {
        self.counters.reset();
        // Relaxed: as in the counters, exact only while no call is in flight.
        self.entries_at_reset.store(count as u64, Ordering::Relaxed);
    }

    /// A `moka_py.Stats` of the counts, the weight and the number of all entries.
    pub fn to_python<'py>(&self, py: Python<'py>, weight: u64, count: usize) -> PyResult<Bound<'py, PyAny>> {
        let get = |which| self.counters.get(which);
        let int = |value: u64| -> Bound<'py, PyAny> {
            let Ok(value) = value.into_pyobject(py);
            value.into_any()
        };
        let float = |value| PyFloat::new(py, value).into_any();
        let (hits, misses) = (get(HITS), get(MISSES));
        let accesses = hits + misses;
        let hit_ratio = if accesses == 0 { 0.0 } else { hits as f64 / accesses as f64 };
        let (evictions, expirations, removals) = (get(EVICTIONS), get(EXPIRATIONS), get(REMOVALS));
        let entries = count as u64 + evictions + expirations + removals;
        let inserts = entries.saturating_sub(self.entries_at_reset.load(Ordering::Relaxed));
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
            float(Clock::nanos_of(get(LOAD_TICKS)) as f64 / 1e9),
            int(weight),
            int(count as u64),
            int(get(REFRESHES)),
        ];
        // By `tuple.__new__`. That of a named tuple runs Python code under a Rust frame, where a daemon thread must not be when
        // the interpreter ends.
        let arguments = (stats_class(py)?, PyTuple::new(py, fields)?);
        py.get_type::<PyTuple>().call_method1(interned!(py, "__new__"), arguments)
    }
}

fn stats_class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static STATS: RaceCell<Py<PyType>> = RaceCell::new();
    STATS.import(py, "moka_py._stats", "Stats")
}

/// Imports the class, so that no call ever waits for an import.
pub(in crate::python) fn import_stats(py: Python<'_>) -> PyResult<()> {
    stats_class(py).map(drop)
}
