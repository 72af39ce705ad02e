//! What waiters have of a flight: they park until its outcome is there.
//!
//! # How it works
//! A wait that would close a circle of threads would last for ever. Each thread that waits is noted in one
//! table for all caches, and the circle is looked for before a wait begins.
//!
//! After a fork the other threads are gone, and their flights would never land. [`after_fork_child`] starts a new
//! generation; a flight of an older one is as good as none.
//!
//! # Invariants
//! - `real-locks`: waiters are detached, so the mutex and the condition that they park on are real in the GIL build too.
//!   They are the standard library's, which keep no table of their own that a fork could tear.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::{LoadError, Outcome, WaitStep};
use crate::reclaim::Handle;
use crate::sync::thread::ThreadId;
use crate::sync::{
    AtomicBool, Condvar, Mutex, Ordering, lock, process_wide, thread_id, try_lock, wait_a_while,
};

/// How long a waiter parks before its caller looks at signals.
const PARK: Duration = Duration::from_millis(50);

/// Forks of this process so far, as far as flights are concerned.
static GENERATION: AtomicU64 = AtomicU64::new(0);

process_wide! {
    /// Which flight a waiting thread waits for.
    static WAITS: Mutex<Option<HashMap<ThreadId, Arc<dyn Led>>>> = Mutex::new(None);
}

/// Forgets all flights and waits of this process: in a child, as its fork returns. It waits for nothing and allocates nothing.
pub fn after_fork_child() {
    // Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    if let Some(mut waits) = try_lock(&WAITS) {
        // What is in the table belongs to threads that are gone; to drop it might run code of theirs.
        std::mem::forget(waits.take());
    }
}

/// The generation of a flight that begins now.
pub(super) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// What a thread that waits has of a flight.
pub(crate) struct Landing<V, E> {
    leader: ThreadId,
    generation: u64,
    landed: Mutex<Landed<V, E>>,
    has_come: Condvar,
    has_landed: AtomicBool,
}

struct Landed<V, E> {
    outcome: Option<Outcome<V, E>>,
    /// Whether anybody ever parked: to wake takes a call of the system, also where nobody sleeps.
    is_awaited: bool,
}

/// What the table of waits needs to know of a flight.
pub(super) trait Led: Send + Sync {
    fn leader(&self) -> ThreadId;
    fn has_landed(&self) -> bool;
}

impl<V: Send, E: Send> Led for Landing<V, E> {
    fn leader(&self) -> ThreadId {
        self.leader
    }

    fn has_landed(&self) -> bool {
        // Acquire: pairs with the Release in `land`.
        self.has_landed.load(Ordering::Acquire)
    }
}

/// Whether it was begun before a fork, in a process that is another now.
pub(super) fn is_stale(generation: u64) -> bool {
    generation != self::generation()
}

impl<V, E> Landing<V, E> {
    pub fn new(leader: ThreadId, generation: u64) -> Self {
        Landing {
            leader,
            generation,
            landed: Mutex::new(Landed { outcome: None, is_awaited: false }),
            has_come: Condvar::new(),
            has_landed: AtomicBool::new(false),
        }
    }

    fn park(&self) {
        let mut landed = lock(&self.landed);
        if landed.outcome.is_none() {
            landed.is_awaited = true;
            wait_a_while(&self.has_come, landed, PARK);
        }
    }

    pub fn land(&self, outcome: Outcome<V, E>) {
        // Release: pairs with the Acquire in `has_landed`.
        self.has_landed.store(true, Ordering::Release);
        if is_stale(self.generation) {
            // Nobody waits. The fork may have left a waiter's lock behind.
            return;
        }
        let mut landed = lock(&self.landed);
        landed.outcome = Some(outcome);
        let is_awaited = landed.is_awaited;
        drop(landed);
        if is_awaited {
            self.has_come.notify_all();
        }
    }
}

impl<V, E> Landing<V, E>
where
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Waits for the outcome.
    pub fn wait(self: &Arc<Self>, pause: &mut WaitStep<'_, E>) -> Result<Outcome<V, E>, LoadError<E>> {
        let _wait = Wait::begin(Arc::clone(self) as Arc<dyn Led>).ok_or(LoadError::Circle)?;
        // A fork, in a signal's handler, leaves the waiter in the child without a leader.
        while !is_stale(self.generation) {
            if let Some(outcome) = &lock(&self.landed).outcome {
                return Ok(outcome.clone());
            }
            pause(&|| self.park())?;
        }
        Ok(Outcome::Abandoned)
    }
}

/// A thread's line in the table of waits, and the one that it had before: a signal's handler may wait while
/// its thread does.
pub(super) struct Wait(Option<Arc<dyn Led>>);

impl Wait {
    /// Notes that this thread waits for a flight, unless that closes a circle.
    pub fn begin(flight: Arc<dyn Led>) -> Option<Self> {
        let me = thread_id();
        let mut waits = lock(&WAITS);
        let waits = waits.get_or_insert_default();
        let mut leader = flight.leader();
        while let Some(next) = waits.get(&leader).filter(|next| !next.has_landed()) {
            leader = next.leader();
            if leader == me {
                return None;
            }
        }
        Some(Wait(waits.insert(me, flight)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let me = thread_id();
        let flight = lock(&WAITS).as_mut().and_then(|waits| match self.0.take() {
            Some(before) => waits.insert(me, before),
            None => waits.remove(&me),
        });
        drop(flight);
    }
}

/// What this thread waits for.
#[cfg(test)]
pub(super) fn waited_for() -> Option<Arc<dyn Led>> {
    lock(&WAITS).as_ref().and_then(|waits| waits.get(&thread_id()).cloned())
}
