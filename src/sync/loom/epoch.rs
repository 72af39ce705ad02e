//! An epoch for models, which ends each grace as early as any epoch may.
//!
//! crossbeam-epoch can be modelled itself, but then its own steps are most of those that there are to try, and its
//! frees come late: an epoch or two behind, when some thread happens to collect.
//!
//! # How it works
//! What is deferred waits for the guards that there are at that moment, and no others. The thread that gives up the
//! last of them runs it.
//!
//! # Orderings
//! Guards and what waits for them are kept beside loom, in one step with these:
//!
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `deferred` | Release, to defer | Acquire, to pin | a guard that is not waited for sees what was unlinked |
//! | `unpinned` | Release, to unpin | Acquire, to run | what the readers did comes before the free |

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem::transmute;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use ::loom::sync::atomic::AtomicUsize;

type Run = Box<dyn FnOnce()>;

#[derive(Default)]
struct Epoch {
    deferred: AtomicUsize,
    unpinned: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pins: usize,
    guards: BTreeSet<usize>,
    waiting: Vec<(BTreeSet<usize>, Run)>,
}

impl Epoch {
    fn state<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

::loom::lazy_static! {
    static ref EPOCH: Epoch = Epoch::default();
}

thread_local! {
    /// How many threads of the model are at it: they all run in one of the system's.
    static FREEING: Cell<usize> = const { Cell::new(0) };
}

/// Whether what is freed now was deferred.
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
        // A change that adds nothing: it cannot miss what was deferred before.
        EPOCH.deferred.fetch_add(0, Acquire);
        EPOCH.state(|state| {
            state.pins += 1;
            state.guards.insert(state.pins);
            state.pins
        })
    }

    fn leave(&self) {
        EPOCH.unpinned.fetch_add(0, Release);
        let due: Vec<Run> = EPOCH.state(|state| {
            state.guards.remove(&self.0);
            let wait = |(guards, _): &mut (BTreeSet<usize>, Run)| {
                guards.remove(&self.0);
                guards.is_empty()
            };
            state.waiting.extract_if(.., wait).map(|(_, run)| run).collect()
        });
        if !due.is_empty() {
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
        EPOCH.deferred.fetch_add(0, Release);
        EPOCH.state(|state| state.waiting.push((state.guards.clone(), Box::new(run))));
    }

    /// # Safety
    /// - `run` may be called when all guards of now are gone.
    pub unsafe fn defer_unchecked(&self, run: impl FnOnce()) {
        let run: Box<dyn FnOnce() + '_> = Box::new(run);
        // SAFETY: the caller's.
        self.defer(unsafe { transmute::<Box<dyn FnOnce() + '_>, Run>(run) });
    }

    /// There is nothing to hasten.
    pub fn flush(&self) {}
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.leave();
        }
    }
}
