//! An epoch for models, which ends each grace period as early as any epoch may.
//!
//! loom could run crossbeam-epoch itself. But then most steps of a model would be steps of the epoch. Frees would
//! come an epoch or two late, when some thread collects.
//!
//! # How it works
//! A deferred closure waits for the guards that exist at that moment, and for no others. The thread that drops the
//! last of them runs the closure.
//!
//! # Orderings
//! loom does not see the lists of guards and closures. Each change to them is one step with a change to one of these
//! fields:
//!
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `deferred` | Release, to defer | Acquire, to pin | a guard that the closure does not wait for sees the unlink |
//! | `unpinned` | Release, to unpin | Acquire, to run | the readers' accesses come before the free |

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem::transmute;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use ::loom::sync::atomic::AtomicUsize;

type Deferred = Box<dyn FnOnce()>;

#[derive(Default)]
struct Epoch {
    deferred: AtomicUsize,
    unpinned: AtomicUsize,
    state: Mutex<EpochState>,
}

#[derive(Default)]
struct EpochState {
    pins: usize,
    guards: BTreeSet<usize>,
    waiting: Vec<(BTreeSet<usize>, Deferred)>,
}

impl Epoch {
    fn state<R>(&self, change: impl FnOnce(&mut EpochState) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

::loom::lazy_static! {
    static ref EPOCH: Epoch = Epoch::default();
}

thread_local! {
    /// How many threads of the model run deferred closures. They all share one thread of the system.
    static FREEING: Cell<usize> = const { Cell::new(0) };
}

/// Returns whether a deferred closure is running, so that what is freed was deferred.
pub(super) fn is_freeing() -> bool {
    FREEING.get() > 0
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
        Guard(Guard::enter())
    }
}

pub(crate) struct Guard(usize);

impl Guard {
    fn enter() -> usize {
        // Acquire: pairs with the Release in `defer`. A read-modify-write, because a load could miss an earlier
        // `defer`.
        EPOCH.deferred.fetch_add(0, Acquire);
        EPOCH.state(|state| {
            state.pins += 1;
            state.guards.insert(state.pins);
            state.pins
        })
    }

    fn leave(&self) {
        // Release: pairs with the Acquire below, in the thread that drops the last guard.
        EPOCH.unpinned.fetch_add(0, Release);
        let due: Vec<Deferred> = EPOCH.state(|state| {
            state.guards.remove(&self.0);
            let wait = |(guards, _): &mut (BTreeSet<usize>, Deferred)| {
                guards.remove(&self.0);
                guards.is_empty()
            };
            state.waiting.extract_if(.., wait).map(|(_, run)| run).collect()
        });
        if !due.is_empty() {
            // Acquire: pairs with the Release above, in the other threads.
            EPOCH.unpinned.fetch_add(0, Acquire);
            FREEING.set(FREEING.get() + 1);
            due.into_iter().for_each(|run| run());
            FREEING.set(FREEING.get() - 1);
        }
    }

    pub fn repin_after<R>(&mut self, code: impl FnOnce() -> R) -> R {
        self.leave();
        let result = code();
        self.0 = Guard::enter();
        result
    }

    pub fn defer(&self, run: impl FnOnce() + 'static) {
        // Release: pairs with the Acquire in `enter`.
        EPOCH.deferred.fetch_add(0, Release);
        EPOCH.state(|state| state.waiting.push((state.guards.clone(), Box::new(run))));
    }

    /// # Safety
    /// - It is sound to call `run` when all guards of this moment are gone.
    pub unsafe fn defer_unchecked(&self, run: impl FnOnce()) {
        let run: Box<dyn FnOnce() + '_> = Box::new(run);
        // SAFETY: the caller promises that `run` may be called later.
        self.defer(unsafe { transmute::<Box<dyn FnOnce() + '_>, Deferred>(run) });
    }

    /// Does nothing: no closure waits longer than it must.
    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leave();
        }
    }
}
