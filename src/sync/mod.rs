//! Atomics, locks and padding: the one switch between threads, the GIL and a model of threads.
//!
//! # How it works
//! On the free-threaded build (and in plain Rust) these are the standard library's. With `cfg(moka_gil)`,
//! which `build.rs` sets for an extension of a GIL build, the GIL is the lock: atomics load and store but
//! never pay for a locked read-modify-write, and [`Lock`] is a flag.
//!
//! With `cfg(moka_loom)` they are those of loom, which tries all orders in which threads can run and all values
//! that a load may see; `tests/loom/` are the programs that it tries. What takes too many steps for that is
//! smaller there (see [`sized`]), and crossbeam-epoch is stood in for.
//!
//! # Invariants
//! - `one-at-a-time` (GIL build): a thread is inside the cache only while it holds the GIL, and nothing
//!   between lock and unlock can release it (laws 1 and 2). So no two threads touch an atomic or a lock
//!   at once, and a lock is never found taken.
//!
//! # Under ThreadSanitizer
//! It sees what is compiled with it, which the standard library is not, and no fences. With `cfg(moka_sanitize_thread)`
//! a lock is tried until it is free, since the try and the unlock are inlined here and the wait is not, and a fence is
//! a write that all threads make to one word.

#![allow(unsafe_code)]

pub(crate) use std::sync::atomic::Ordering;

#[cfg(not(any(moka_gil, moka_loom)))]
mod threads;

#[cfg(all(moka_gil, not(moka_loom)))]
mod gil;

#[cfg(any(not(moka_gil), moka_loom))]
mod mutex;

#[cfg(not(moka_loom))]
mod real;

#[cfg(moka_loom)]
mod loom;

#[cfg(not(moka_loom))]
mod zeroed;

#[cfg(moka_loom)]
pub(crate) use self::loom::*;
#[cfg(all(moka_gil, not(moka_loom)))]
pub(crate) use gil::*;
#[cfg(any(not(moka_gil), moka_loom))]
pub(crate) use mutex::*;
#[cfg(not(moka_loom))]
pub(crate) use real::*;
#[cfg(not(any(moka_gil, moka_loom)))]
pub(crate) use threads::*;
#[cfg(not(moka_loom))]
pub(crate) use zeroed::{Zeroed, zeroed};

/// Whether one thread is let in at a time, so that between two looks nothing happens unless a user's code runs.
pub(crate) const HAS_GIL: bool = cfg!(all(moka_gil, not(moka_loom)));

/// Whether what a shard of so many entries touches has mostly to be waited for: another core wrote it last, or there is too
/// much of it for this one's caches.
#[inline]
pub(crate) fn is_far(entries: usize) -> bool {
    has_company() || entries >= FAR
}

/// What a thread adds to the readers. The bit below is for the only one, while it lets no other in.
#[cfg(any(not(moka_gil), moka_loom))]
pub(crate) const ONE_READER: usize = 2;

/// Zeroed atomics, or `None` if there is no memory. `len` is not 0.
pub(crate) fn zeroed_atomics(len: usize) -> Option<Zeroed<AtomicU64>> {
    // SAFETY: all zero is 0, the default.
    unsafe { zeroed(len) }
}

/// Words that share a cache line.
#[repr(align(64))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Line(pub [u64; 8]);

/// Zeroed lines, or `None` if there is no memory. `len` is not 0.
pub(crate) fn zeroed_lines(len: usize) -> Option<Zeroed<Line>> {
    // SAFETY: all zero is zeros, the default.
    unsafe { zeroed(len) }
}
