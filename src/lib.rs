//! moka_py: an in-process cache that threads hit in parallel.
//!
//! The core is generic and knows no Python; `src/python/` alone does, behind the feature `python`.
//!
//! # Flows
//! ```text
//! get       python/moka > cache (shard by hash) > shard, no lock: map (pin, probe, match), entry (due? stamp), sketch
//! set       python/moka > cache > shard, no lock: map (find a key that has an `__eq__` of a user, which runs here; or put the
//!                                                 value in the place of another, if nothing else is to be done)
//!                                 locked: find the key, or same entry still there? publish, policy, deadline, evict to the budget
//!           then, unlocked: counts, listener, drops
//! get_with  a hit is get; a miss goes cache > single_flight: the leader computes with nothing held, then sets;
//!           waiters detach and wait, wake to check signals; a wait that would close a circle raises
//! cached    a hit is get; a miss goes cache > single_flight: it registers a run, which no other call waits for, computes with
//!           nothing held, then sets, unless a write to the key came meanwhile
//! stats     python/counts: each access was counted where it was made, what left by its cause after the unlock
//! ```
//! Every `>` is a plain call one room deeper; answers come back as return values.
//!
//! # Rooms
//! Imports point down, and rooms of one line do not know each other.
//! ```text
//! python                    the Python face
//! simulate                  hit ratios of a trace at several capacities
//! cache | single_flight     all shards, the budget, the earliest deadline | one computation a key
//! shards                    all of them, made when something is first stored
//! shard                     one lock: the write path, maintenance
//! map | policy | expiry     keys to entries | who leaves | what is due
//! entry, life | departure | lookup, seed | lists, lazy_queue | config
//! reclaim | memory          who frees what, when | memory that may be refused
//! tally                     counts without a shared line
//! sync                      threads or the GIL
//! ```
//!
//! # Laws
//! 1. No Python under a lock: no `__eq__`, no listener, no DECREF between lock and unlock.
//! 2. No map while detached: a thread detaches only to wait for another's computation.
//! 3. No reference is dropped where no thread state is: the epoch frees memory, attached threads drop.
//! 4. No pin across Python code.
//! 5. Reads take no lock, allocate nothing, and write only what changes something.
//! 6. The bound is exact, for the whole cache.
//! 7. What was just set can be got.
//! 8. No call returns an entry past its deadline.
//! 9. Each leaving is told once, after the fact, with no lock held.
//! 10. Errors are the user's and come out unchanged; what would hang for ever raises.
//! 11. What left is released promptly.
//! 12. The collector sees it all.
//! 13. A later write wins: what began before a `set`, a removal or a `clear` is not kept after it.

#[cfg(all(feature = "python", not(pyo3_disable_reference_pool)))]
compile_error!(
    "moka_py needs the flags `--cfg pyo3_disable_reference_pool`. Its .cargo/config.toml sets them. The variable RUSTFLAGS, \
     and rustflags of a target in a configuration of cargo, take the place of that: remove them, or add these flags to them."
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

pub use cache::{Cache, Cursor, Failure, NewValue, RunStart};
pub use config::Config;
pub use expiry::{Clock, Lifetime, word_of_nanos};
pub use map::query::KeyQuery;
pub use map::removal::{Cause, Removal, Removals};
pub use policy::Kind;
pub use reclaim::Handle;
#[cfg(all(debug_assertions, not(moka_gil), not(moka_loom)))]
#[doc(hidden)]
pub use reclaim::is_pinned;
pub use simulate::{Column, Limits, Lines, Method, Trace, Unreadable};
pub use single_flight::{LoadError, Run, WaitStep, after_fork_child};
