//! Waiters: they park until the result of a flight is there.
//!
//! # How it works
//! A wait that closes a circle of waiting threads would last for ever. One table for all caches has the flight that
//! each waiting thread waits for. A thread follows the leaders in that table before it begins to wait, and refuses if
//! they lead back to it.
//!
//! The child of a fork has none of the other threads, so their flights would never complete. [`after_fork_child`]
//! begins a new generation, and a flight of an older generation counts as absent.
//!
//! # Invariants
//! - `real-locks`: waiters are detached, so they park on a real mutex and condition in the GIL build, too.
//!   These are the standard library's, which keep no global table that a fork could leave inconsistent.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `FlightResult::is_complete` | Release, in `complete` | Acquire, in the search for a deadlock | a thread does not wait for a complete flight, so the search ends there |
//! | `GENERATION` | Relaxed, in the child of a fork | Relaxed | the child has one thread when it writes |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::{LoadError, Outcome, WaitStep};
use crate::expiry;
use crate::reclaim::Handle;
use crate::sync::thread::ThreadId;
use crate::sync::{
    AtomicBool, Condvar, Mutex, Ordering, lock, process_wide, thread_id, try_lock, wait_timeout,
};

/// How long a waiter parks before its caller checks for signals.
const PARK_TIME: Duration = Duration::from_millis(50);

/// How often this process was forked. The parent and the child differ in it.
static GENERATION: AtomicU64 = AtomicU64::new(0);

process_wide! {
    /// The flight that each waiting thread waits for.
    static WAITS: Mutex<Option<HashMap<ThreadId, Arc<dyn HasLeader>>>> = Mutex::new(None);
}

/// Makes all flights, waits and claims of refreshes of the process stale, in the child of a fork. It waits for no lock
/// and allocates nothing.
pub fn after_fork_child() {
    // Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    expiry::after_fork_child();
    if let Some(mut waits) = try_lock(&WAITS)
        && waits.as_ref().is_some_and(|waits| !waits.is_empty())
    {
        // Leaked: the flights belong to threads that are gone, and their drop might run a user's code.
        std::mem::forget(waits.take());
    }
}

/// Returns the generation of a flight that begins now.
pub(super) fn generation() -> u64 {
    // Relaxed: only the only thread of a child changes it.
    GENERATION.load(Ordering::Relaxed)
}

/// Returns whether a flight of this generation began before a fork, in the parent.
pub(super) fn is_stale(generation: u64) -> bool {
    generation != self::generation()
}

/// The result of a flight, for its waiters.
pub(crate) struct FlightResult<V, E> {
    leader: ThreadId,
    generation: u64,
    state: Mutex<ResultState<V, E>>,
    completed: Condvar,
    is_complete: AtomicBool,
}

struct ResultState<V, E> {
    outcome: Option<Outcome<V, E>>,
    /// Whether a thread has ever parked. A notification is a system call, also if no thread sleeps.
    has_waiter: bool,
}

/// A flight, as the table of waits sees it.
pub(super) trait HasLeader: Send + Sync {
    fn leader(&self) -> ThreadId;
    fn is_complete(&self) -> bool;
}

impl<V: Send, E: Send> HasLeader for FlightResult<V, E> {
    fn leader(&self) -> ThreadId {
        self.leader
    }

    fn is_complete(&self) -> bool {
        // Acquire: pairs with the Release in `complete`.
        self.is_complete.load(Ordering::Acquire)
    }
}

impl<V, E> FlightResult<V, E> {
    pub fn new(leader: ThreadId, generation: u64) -> Self {
        FlightResult {
            leader,
            generation,
            state: Mutex::new(ResultState { outcome: None, has_waiter: false }),
            completed: Condvar::new(),
            is_complete: AtomicBool::new(false),
        }
    }

    fn park(&self) {
        let mut state = lock(&self.state);
        if state.outcome.is_none() {
            state.has_waiter = true;
            wait_timeout(&self.completed, state, PARK_TIME);
        }
    }

    /// Stores the outcome and wakes the waiters.
    pub fn complete(&self, outcome: Outcome<V, E>) {
        // Release: pairs with the Acquire in `is_complete`.
        self.is_complete.store(true, Ordering::Release);
        if is_stale(self.generation) {
            // No thread waits, and a waiter of the parent may have held the lock at the fork.
            return;
        }
        let mut state = lock(&self.state);
        state.outcome = Some(outcome);
        let has_waiter = state.has_waiter;
        drop(state);
        if has_waiter {
            self.completed.notify_all();
        }
    }
}

impl<V, E> FlightResult<V, E>
where
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Returns whether the leader waits for a flight of this thread, so that a wait for it would close a circle.
    ///
    /// `is_excluded` is asked whether the flight at this address ends before this thread waits.
    pub fn waits_for_this_thread(&self, is_excluded: impl FnOnce(*const ()) -> bool) -> bool {
        let waits = lock(&WAITS);
        let own = waits.as_ref().and_then(|waits| closing_flight(waits, self, thread_id())).cloned();
        // Outside the lock, since the caller takes other locks, and may drop the last reference.
        drop(waits);
        own.is_some_and(|own| !is_excluded(Arc::as_ptr(&own).cast()))
    }

    /// Waits for the outcome.
    pub fn wait(self: &Arc<Self>, step: &mut WaitStep<'_, E>) -> Result<Outcome<V, E>, LoadError<E>> {
        let flight = Arc::clone(self) as Arc<dyn HasLeader>;
        let _wait = RegisteredWait::begin(flight).ok_or(LoadError::Deadlock)?;
        // If a signal handler forks in `step`, the waiter in the child has no leader.
        while !is_stale(self.generation) {
            if let Some(outcome) = &lock(&self.state).outcome {
                return Ok(outcome.clone());
            }
            step(&|| self.park())?;
        }
        Ok(Outcome::Abandoned)
    }
}

/// A thread's entry in the table of waits, with the entry that it replaced: a signal handler may wait while its
/// thread waits.
pub(super) struct RegisteredWait(Option<Arc<dyn HasLeader>>);

impl RegisteredWait {
    /// Registers that this thread waits for a flight. Returns `None` if that would close a circle.
    pub fn begin(flight: Arc<dyn HasLeader>) -> Option<Self> {
        let me = thread_id();
        let mut waits = lock(&WAITS);
        let waits = waits.get_or_insert_default();
        if closing_flight(waits, &*flight, me).is_some() {
            return None;
        }
        Some(RegisteredWait(waits.insert(me, flight)))
    }
}

/// Returns the flight that a thread leads and that the leader of `flight` waits for, possibly through other threads.
fn closing_flight<'w>(
    waits: &'w HashMap<ThreadId, Arc<dyn HasLeader>>,
    flight: &dyn HasLeader,
    thread: ThreadId,
) -> Option<&'w Arc<dyn HasLeader>> {
    let mut leader = flight.leader();
    loop {
        let next = waits.get(&leader).filter(|next| !next.is_complete())?;
        leader = next.leader();
        if leader == thread {
            return Some(next);
        }
    }
}

impl Drop for RegisteredWait {
    fn drop(&mut self) {
        let me = thread_id();
        // Dropped after the unlock, since it may be the last reference to a user's value.
        let flight = lock(&WAITS).as_mut().and_then(|waits| match self.0.take() {
            Some(before) => waits.insert(me, before),
            None => waits.remove(&me),
        });
        drop(flight);
    }
}

/// Returns the flight that this thread waits for.
#[cfg(test)]
pub(super) fn waited_for() -> Option<Arc<dyn HasLeader>> {
    lock(&WAITS).as_ref().and_then(|waits| waits.get(&thread_id()).cloned())
}
