//! Atomics, locks and padding: the one switch between parallel threads, the GIL and loom.
//!
//! # How it works
//! | `cfg` | files | used for |
//! |---|---|---|
//! | none | `threads.rs`, `mutex.rs`, `common.rs`, `zeroed.rs` | the free-threaded build, and plain Rust |
//! | `moka_gil`, set by `build.rs` | `gil.rs`, `common.rs`, `zeroed.rs` | the GIL build |
//! | `moka_loom`, set by `ci/loom` | `loom/`, `mutex.rs` | the models in `tests/loom/` |
//!
//! On the GIL build the GIL is the lock. A read-modify-write is a load and a store, and [`Lock`] is a flag.
//!
//! loom runs a model in all orders of its threads, with all values that a load may see. Sizes that take too many steps
//! for that are smaller in a model (see [`sized`]), and a stand-in replaces crossbeam-epoch.
//!
//! Miri runs the threads of the standard library. `miri_epoch.rs` replaces crossbeam-epoch there, unless
//! `cfg(moka_crossbeam)` is set. With `cfg(moka_model)` sizes are those of a model, so `ci/miri` runs the models, too.
//!
//! # Invariants
//! - `one-at-a-time` (GIL build): a thread is inside the cache only while it holds the GIL. No code between lock and
//!   unlock releases the GIL (laws 1 and 2). So no two threads touch an atomic or a lock at the same time, and no
//!   thread finds a lock taken.
//!
//! # Under ThreadSanitizer
//! The sanitizer sees only code that is compiled with it, which the standard library is not, and it sees no fences.
//! With `cfg(moka_sanitize_thread)` a thread tries a lock until it is free, because `try_lock` and unlock are inlined
//! here and a wait is not. A fence is a write that all threads make to one word.

#![allow(unsafe_code)]

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(any(moka_gil, moka_loom)))]
mod threads;

#[cfg(all(miri, not(any(moka_gil, moka_loom, moka_crossbeam))))]
pub(crate) mod miri_epoch;

#[cfg(all(moka_gil, not(moka_loom)))]
mod gil;

#[cfg(any(not(moka_gil), moka_loom))]
mod mutex;

#[cfg(not(moka_loom))]
mod common;

#[cfg(moka_loom)]
mod loom;

#[cfg(not(moka_loom))]
mod zeroed;

#[cfg(moka_loom)]
pub(crate) use self::loom::*;
#[cfg(not(moka_loom))]
pub(crate) use common::*;
#[cfg(all(moka_gil, not(moka_loom)))]
pub(crate) use gil::*;
#[cfg(any(not(moka_gil), moka_loom))]
pub(crate) use mutex::*;
#[cfg(not(any(moka_gil, moka_loom)))]
pub(crate) use threads::*;
#[cfg(not(moka_loom))]
pub(crate) use zeroed::{Zeroed, zeroed};

/// Whether one thread runs at a time, so that nothing changes between two looks unless a user's code runs.
pub(crate) const HAS_GIL: bool = cfg!(all(moka_gil, not(moka_loom)));

/// Returns whether memory of a shard with so many entries mostly misses this core's caches: another core wrote it
/// last, or it is too large for them.
#[inline]
pub(crate) fn is_far(entries: usize) -> bool {
    has_other_threads() || entries >= FAR
}

/// Returns zeroed atomics, or `None` if there is no memory. `len` must not be 0.
pub(crate) fn zeroed_atomics(len: usize) -> Option<Zeroed<AtomicU64>> {
    // SAFETY: all bits zero are 0, the default.
    unsafe { zeroed(len) }
}

/// A cache line of words.
#[repr(align(64))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Line(pub [u64; 8]);

/// Returns zeroed lines, or `None` if there is no memory. `len` must not be 0.
pub(crate) fn zeroed_lines(len: usize) -> Option<Zeroed<Line>> {
    // SAFETY: all bits zero are zeros, the default.
    unsafe { zeroed(len) }
}
