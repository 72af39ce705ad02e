//! moka_py: an in-process cache that threads hit in parallel.
//!
//! The core is generic and knows no Python. Only `src/python/` names PyO3, behind the feature `python`.
//!
//! # Flows
//! A `>` is a plain call into a lower room. Answers come back as return values.
//! ```text
//! get       python/moka > cache: the shard of the hash > shard, without the lock:
//!             map: pin, probe, compare the key; expiry: is it due?; policy: record the access
//! set       python/moka > cache > shard
//!             first, in python/moka/state: the weigher and the ttl functions run, with nothing held
//!             without the lock: a user's `__eq__` runs, if the key needs it
//!             without the lock: a value replaces another, if nothing else changes
//!             locked: find the key or check that it is still there; map, policy and deadlines change together;
//!                     evict until the total weight fits the capacity
//!             after the unlock: python/moka/removals counts the removed entries and calls python/moka/listener;
//!                     cache/maintenance drops the entries
//! set_with  python/moka/state: peek, then the user's function with nothing held > cache > shard/update
//!             locked: set if the entry still has the value that was seen, as in set; else it begins again
//! get_with  a hit is a get. A miss goes cache > single_flight: the leader computes with nothing held, then sets.
//!             Waiters detach and park, and wake to check for signals. A wait that would never end raises an error.
//! get_many_with  each key is looked up; cache/bulk_load > single_flight: the call leads the missing keys, or notes the
//!             leaders of others; computes all at once with nothing held, sets each, and only then waits for the others
//! aget_with  a hit is a get. After a miss python/moka/flights calls moka_py/_flight_table.py, which has one task for a key and
//!             event loop. The task registers a run, as a cached function does.
//! cached    a hit is a get. A miss goes cache > single_flight: it registers a run, which no other call waits for,
//!             computes with nothing held, then sets, unless a write to the key superseded the run.
//! refresh   a hit of a call with a loader, whose value was set too long ago: python/moka/refresh > cache/refresh
//!             > shard/refresh, without the lock: claim the refresh by a ticket (expiry/refresh_table)
//!             a flight or a run computes, in the call or in an executor, then sets, unless the claim is void
//!             for a coroutine, a task of moka_py/_flight_table.py computes
//! evict     shard/transaction: is the total weight over the capacity (shard/weights)? > policy: choose a victim
//!                     (admission: policy/tiny_lfu/segments/victim) > map: remove it. The rest is as in set.
//! expire    cache/maintenance > shard > expiry: take due entries from the queue > map, policy: remove them
//! resize    cache/resize: store the capacity, pass through each lock > shard: evict in steps, as in evict
//! fork      python/runtime > single_flight, reclaim: the child forgets the flights and threads of its parent
//! arguments python/moka/fastcall and methods read them, signature binds them, convert checks values such as a ttl
//! keys      python/object/key hashes a key, cache/seed mixes the hash; python/cached/call_key does so for a call
//! stats     python/moka/stats: an access is counted by the call that makes it, a removal by its cause after the unlock
//! ```
//!
//! # Rooms
//! Imports point down. Rooms of one line do not know each other.
//! ```text
//! python                    the Python face
//! simulate                  hit ratios of a trace at several capacities
//! cache                     all shards under one capacity; loads, maintenance, iteration
//! single_flight             one computation a key at a time
//! shard                     one lock: the write path, and all shards of a cache
//! config | map              the configuration of a cache | entries by key, without a lock for readers
//! policy | expiry           which entry is evicted | deadlines, and which are due
//! collections | reclaim     index lists, heap, counters, allocations that may fail | when unlinked memory is freed
//! sync                      atomics and locks: for threads, for the GIL, for loom
//! ```
//!
//! # Laws
//! 1. No Python under a lock: between lock and unlock no `__eq__`, no listener, no DECREF.
//! 2. No map while detached: a thread detaches only to wait for another thread's computation.
//! 3. No reference is dropped without a thread state: the epoch frees memory, attached threads drop references.
//! 4. No pin across Python code.
//! 5. Reads take no lock, allocate nothing, and write only what changes something.
//! 6. The bound is exact, for the whole cache.
//! 7. A value that was just set can be got, unless its ttl function says not to keep it.
//! 8. Time is exact: no call returns an entry past its deadline.
//! 9. Each removal is reported once, after the fact, with no lock held.
//! 10. Errors are the user's and leave unchanged. A wait that would never end raises an error.
//! 11. Prompt release: a removed value soon loses the cache's reference.
//! 12. The collector sees it all.
//!     Long-lived caches and functions on 3.13t are an exception to 11 and 12. `clear` releases what they hold.
//! 13. A later write wins: the result of a computation that began before a `set`, a removal or a `clear` is not cached.
//! 14. A near cache is bounded in staleness: a hit reflects every write that the server executed `max_staleness` before.

#[cfg(all(feature = "python", not(pyo3_disable_reference_pool)))]
compile_error!(
    "moka_py needs the flags `--cfg pyo3_disable_reference_pool`. Its .cargo/config.toml sets them. The variable RUSTFLAGS, \
     and the rustflags of a target in a cargo configuration, replace that setting: remove them, or add these flags to them."
);

mod cache;
mod collections;
mod config;
mod expiry;
mod map;
mod policy;
#[cfg(feature = "python")]
mod python;
mod reclaim;
mod shard;
mod simulate;
mod single_flight;
mod sync;

pub use cache::{
    BulkKey, BulkLoad, BulkWaits, Cache, Cursor, Failure, NewValue, NextRefresh, Ranking, Resize, RunStart,
};
pub use config::Config;
pub use expiry::{CacheClock, Clock, Lifetime, word_of_nanos};
pub use map::query::KeyQuery;
pub use map::removal::{Cause, Removal, Removals};
pub use policy::Kind;
pub use reclaim::Handle;
#[cfg(all(debug_assertions, not(moka_gil), not(moka_loom)))]
#[doc(hidden)]
pub use reclaim::is_pinned;
#[doc(hidden)]
pub use shard::SHARD_SHIFT;
pub use shard::{LoadLookup, RefreshClaim};
pub use simulate::{KeyLines, Limits, LineTooLong, Method, Trace};
pub use single_flight::{LoadError, Run, WaitStep, after_fork_child};
