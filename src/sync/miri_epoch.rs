//! An epoch for Miri, which ends each grace period as early as any epoch may.
//!
//! crossbeam-epoch keeps pointers as integers, which Miri's aliasing models and strict provenance refuse. And its
//! frees come an epoch or two late, when some thread collects. Here a read that comes too late meets freed memory.
//!
//! # How it works
//! One word has a bit for each guard. A deferred closure waits for the guards whose bits are set at that moment, and
//! for no others. The thread that drops the last of them runs the closure.
//!
//! # Invariants
//! - `noticed`: while a closure waits, `ARE_WAITING` is set, so each guard that it waits for finds it at its end.
//!
//! # Orderings
//! A guard is not ordered after the end of an earlier one, as in any epoch. Otherwise Miri would miss data races
//! between writers and later readers.
//!
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `guards` | Release, to defer | Acquire, to pin | a guard that the closure does not wait for sees the unlink |
//! | `unpinned` | Release, to unpin | Acquire, to run | the readers' accesses come before the free |

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::transmute;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Deferred = Box<dyn FnOnce() + Send>;

/// The bit of `guards` that is set while a closure waits.
const ARE_WAITING: u64 = 1 << 63;

struct Epoch {
    /// A bit for each guard, and `ARE_WAITING`.
    guards: AtomicU64,
    unpinned: AtomicU64,
    /// The closures, each with the guards that it still waits for.
    waiting: Mutex<Vec<(u64, Deferred)>>,
}

static EPOCH: Epoch =
    Epoch { guards: AtomicU64::new(0), unpinned: AtomicU64::new(0), waiting: Mutex::new(Vec::new()) };

thread_local! {
    static GUARDS_OF_THREAD: Cell<usize> = const { Cell::new(0) };
}

impl Epoch {
    fn waiting(&self) -> MutexGuard<'_, Vec<(u64, Deferred)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the bit of a new guard, and returns the bit.
    fn enter(&self) -> u64 {
        // Relaxed: the exchange checks it.
        let mut seen = self.guards.load(Relaxed);
        loop {
            let guard = 1 << seen.trailing_ones();
            assert!(guard != ARE_WAITING, "there are at most 63 guards at a time");
            // Acquire: pairs with the Release in `defer`.
            match self.guards.compare_exchange(seen, seen | guard, Acquire, Relaxed) {
                Ok(_) => {
                    GUARDS_OF_THREAD.set(GUARDS_OF_THREAD.get() + 1);
                    return guard;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Clears the bit of a guard. Runs the closures that waited for it alone.
    fn leave(&self, guard: u64) {
        GUARDS_OF_THREAD.set(GUARDS_OF_THREAD.get() - 1);
        // Release: pairs with the Acquire below, in the thread that runs a closure.
        self.unpinned.fetch_add(1, Release);
        // Relaxed, here and below: `unpinned` orders the end of a guard.
        let mut seen = self.guards.load(Relaxed);
        while seen & ARE_WAITING == 0 {
            match self.guards.compare_exchange(seen, seen & !guard, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
        let mut waiting = self.waiting();
        waiting.iter_mut().for_each(|(guards, _)| *guards &= !guard);
        let due: Vec<_> = waiting.extract_if(.., |(guards, _)| *guards == 0).collect();
        let cleared = if waiting.is_empty() { guard | ARE_WAITING } else { guard };
        self.guards.fetch_and(!cleared, Relaxed);
        drop(waiting);
        if !due.is_empty() {
            // Acquire: pairs with the Release above, in the other threads.
            self.unpinned.fetch_add(1, Acquire);
            due.into_iter().for_each(|(_, run)| run());
        }
    }

    fn defer(&self, run: Deferred) {
        let mut waiting = self.waiting();
        // Release: pairs with the Acquire in `enter`.
        let guards = self.guards.fetch_or(ARE_WAITING, Release);
        waiting.push((guards & !ARE_WAITING, run));
    }
}

pub(crate) struct Collector;

pub(crate) struct LocalHandle;

pub(crate) fn default_collector() -> Collector {
    Collector
}

impl Collector {
    pub fn register(&self) -> LocalHandle {
        LocalHandle
    }
}

impl LocalHandle {
    pub fn pin(&self) -> Guard {
        Guard(EPOCH.enter(), PhantomData)
    }

    pub fn is_pinned(&self) -> bool {
        GUARDS_OF_THREAD.get() > 0
    }
}

/// The bit of a guard, which stays in its thread.
pub(crate) struct Guard(u64, PhantomData<*mut ()>);

impl Guard {
    pub fn repin_after<R>(&mut self, code: impl FnOnce() -> R) -> R {
        EPOCH.leave(self.0);
        let result = code();
        self.0 = EPOCH.enter();
        result
    }

    pub fn defer(&self, run: impl FnOnce() + Send + 'static) {
        EPOCH.defer(Box::new(run));
    }

    /// # Safety
    /// - It is sound to call `run` in any thread when all guards of this moment are gone.
    pub unsafe fn defer_unchecked(&self, run: impl FnOnce()) {
        let run: Box<dyn FnOnce() + '_> = Box::new(run);
        // SAFETY: the caller promises that `run` may be called later, and in another thread.
        EPOCH.defer(unsafe { transmute::<Box<dyn FnOnce() + '_>, Deferred>(run) });
    }

    /// Does nothing: no closure waits longer than it must.
    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        EPOCH.leave(self.0);
    }
}
