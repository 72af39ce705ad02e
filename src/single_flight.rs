//! One computation a key: a leader runs it, the others wait for what comes of it.
//!
//! # How it works
//! A flight is a computation under way. Flights are found by the 64-bit hash of their key, in a `dashmap`; keys
//! of equal hash share its slot and are compared outside all locks. Whoever finds none of its key becomes the
//! leader, looks into the cache once more, computes with nothing held, writes, and lands. Waiters park on the
//! flight, in short pieces, so that their caller can look at signals between them.
//!
//! A write to the key during the computation wins: it marks the flight as overtaken, under the shard lock
//! and so in one step with the write itself, and the leader's own write asks for the mark in the same way.
//! Flights of other keys with the same full hash are spared, if the writer saw them before its lock and so
//! could compare the keys. Whoever comes after the mark does not join: it was not asked for what was there
//! before the write.
//!
//! A wait that would close a circle of threads would last for ever. Each thread that waits is noted in one
//! table for all caches, and the circle is looked for before a wait begins.
//!
//! After a fork the other threads are gone, and their flights would never land. [`forget_all`] starts a new
//! generation; a flight of an older one is as good as none.
//!
//! # Invariants
//! - `lands`: a leader lands its flight exactly once, whatever happens to it.
//! - `by-leader`: a flight leaves the table before it lands, and after the value is in the cache.
//! - `real-locks`: waiters are detached, so a flight's mutex and condition are real in the GIL build too. They
//!   are the standard library's, which keep no table of their own that a fork could tear.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use smallvec::SmallVec;

use crate::entry::Reference;
use crate::lookup::Lookup;
use crate::seed::AsIs;
use crate::sync::dashmap::{self, DashMap};
use crate::sync::thread::ThreadId;
use crate::sync::{
    AtomicBool, AtomicUsize, Condvar, Mutex, OnceLock, Ordering, Padded, lock, process_wide, thread_id,
    try_lock, wait_a_while,
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
pub fn forget_all() {
    // Relaxed: the child has one thread.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    if let Some(mut waits) = try_lock(&WAITS) {
        // What is in the table belongs to threads that are gone; to drop it might run code of theirs.
        std::mem::forget(waits.take());
    }
}

/// What a waiting thread calls, again and again: it is given what parks for a while, and its error ends the
/// wait.
pub type Pause<'a, E> = dyn FnMut(&(dyn Fn() + Sync)) -> Result<(), E> + 'a;

/// What came of a flight.
#[derive(Clone)]
pub(crate) enum Outcome<V, E> {
    Value(V),
    Failed(E),
    /// The leader gave up for reasons of its own: somebody else may try.
    Abandoned,
}

/// Why a value could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError<E> {
    /// The user's code failed.
    User(E),
    /// The computation of a key asked for that very key.
    OwnKey,
    /// Threads would wait for each other's computations in a circle.
    Circle,
}

impl<E> From<E> for LoadError<E> {
    fn from(error: E) -> Self {
        LoadError::User(error)
    }
}

pub(crate) struct Flight<K, V, E> {
    key: K,
    hash: u64,
    generation: u64,
    leader: ThreadId,
    overtaken: AtomicBool,
    landing: Mutex<Landing<V, E>>,
    landed: Condvar,
    has_landed: AtomicBool,
}

struct Landing<V, E> {
    outcome: Option<Outcome<V, E>>,
    /// Whether anybody ever parked: to wake takes a call of the system, also where nobody sleeps.
    is_awaited: bool,
}

/// What the table of waits needs to know of a flight.
trait Led: Send + Sync {
    fn leader(&self) -> ThreadId;
    fn has_landed(&self) -> bool;
}

impl<K: Send + Sync, V: Send, E: Send> Led for Flight<K, V, E> {
    fn leader(&self) -> ThreadId {
        self.leader
    }

    fn has_landed(&self) -> bool {
        // Acquire: pairs with the Release in `land`.
        self.has_landed.load(Ordering::Acquire)
    }
}

impl<K, V, E> Flight<K, V, E> {
    fn is_stale(&self) -> bool {
        self.generation != GENERATION.load(Ordering::Relaxed)
    }

    /// Whether a newcomer may have its outcome: not of a thread that is gone, nor from before a write.
    fn is_joinable(&self) -> bool {
        !self.is_stale() && !self.overtaken.load(Ordering::Relaxed)
    }

    fn park(&self) {
        let mut landing = lock(&self.landing);
        if landing.outcome.is_none() {
            landing.is_awaited = true;
            wait_a_while(&self.landed, landing, PARK);
        }
    }
}

impl<K, V, E> Flight<K, V, E>
where
    K: Reference,
    V: Reference,
    E: Clone + Send + Sync + 'static,
{
    /// Waits for the outcome.
    pub fn wait(self: &Arc<Self>, pause: &mut Pause<'_, E>) -> Result<Outcome<V, E>, LoadError<E>> {
        let _wait = Wait::begin(Arc::clone(self) as Arc<dyn Led>).ok_or(LoadError::Circle)?;
        // A fork, in a signal's handler, leaves the waiter in the child without a leader.
        while !self.is_stale() {
            if let Some(outcome) = &lock(&self.landing).outcome {
                return Ok(outcome.clone());
            }
            pause(&|| self.park())?;
        }
        Ok(Outcome::Abandoned)
    }
}

/// A thread's line in the table of waits, and the one that it had before: a signal's handler may wait while
/// its thread does.
struct Wait(Option<Arc<dyn Led>>);

impl Wait {
    /// Notes that this thread waits for a flight, unless that closes a circle.
    fn begin(flight: Arc<dyn Led>) -> Option<Self> {
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

pub(crate) type SameHash<K, V, E> = SmallVec<[Arc<Flight<K, V, E>>; 1]>;
type Table<K, V, E> = DashMap<u64, SameHash<K, V, E>, BuildHasherDefault<AsIs>>;

/// The flights of one cache.
pub(crate) struct Flights<K, V, E> {
    /// Made at the first flight: most caches never have one.
    table: OnceLock<Table<K, V, E>>,
    /// Apart from what readers look at.
    under_way: Padded<AtomicUsize>,
}

/// Whose turn it is to compute.
pub(crate) enum Turn<'f, K, V, E> {
    Lead(Leader<'f, K, V, E>),
    Wait(Arc<Flight<K, V, E>>),
}

impl<K, V, E> Flights<K, V, E> {
    pub fn new() -> Self {
        Flights { table: OnceLock::new(), under_way: Padded(AtomicUsize::new(0)) }
    }

    /// Whether no computation is under way. A caller that must not miss one holds the shard lock, which a
    /// leader takes after it has begun.
    pub fn is_idle(&self) -> bool {
        self.under_way.0.load(Ordering::Relaxed) == 0
    }

    /// The flights of other keys with the hash of this one, for [`overtake`](Self::overtake) to spare.
    pub fn strangers<Q: Lookup<K>>(&self, query: &Q) -> Result<SameHash<K, V, E>, Q::Error> {
        let mut strangers = SameHash::new();
        if !self.is_idle() {
            for flight in self.known(query.hash()) {
                let equal = match query.quick(&flight.key) {
                    Some(equal) => equal,
                    None => query.equals(&flight.key)?,
                };
                if !equal {
                    strangers.push(flight);
                }
            }
        }
        Ok(strangers)
    }

    /// Marks the flights of a hash but for some: their values are not to be cached. Called under the shard
    /// lock, so keys are not compared here.
    pub fn overtake(&self, hash: u64, strangers: &SameHash<K, V, E>) {
        if let Some(flights) = self.table.get().and_then(|table| table.get(&hash)) {
            let is_meant = |flight: &&Arc<_>| !strangers.iter().any(|other| Arc::ptr_eq(other, flight));
            let meant = flights.iter().filter(is_meant);
            meant.for_each(|flight| flight.overtaken.store(true, Ordering::Relaxed));
        }
    }

    fn known(&self, hash: u64) -> SameHash<K, V, E> {
        let flights = self.table.get().and_then(|table| table.get(&hash));
        flights.map(|flights| flights.clone()).unwrap_or_default()
    }

    /// Marks all flights whose hashes are meant. Called under the shard lock of those hashes.
    pub fn overtake_where(&self, is_meant: impl Fn(u64) -> bool) {
        for flights in self.table.get().into_iter().flatten() {
            if is_meant(*flights.key()) {
                flights.iter().for_each(|flight| flight.overtaken.store(true, Ordering::Relaxed));
            }
        }
    }

    /// Joins the flight of a key, or begins it.
    pub fn join<Q: Lookup<K, Error = E>>(&self, query: &Q) -> Result<Turn<'_, K, V, E>, LoadError<E>> {
        let hash = query.hash();
        let me = thread_id();
        let table = self.table.get_or_init(DashMap::default);
        // Mostly there are none. One that has begun since is seen below.
        let mut known = if self.is_idle() { SameHash::new() } else { self.known(hash) };
        loop {
            for flight in known.iter().filter(|flight| flight.is_joinable()) {
                let equal = match query.quick(&flight.key) {
                    Some(equal) => equal,
                    None => query.equals(&flight.key)?,
                };
                if equal && flight.leader == me {
                    return Err(LoadError::OwnKey);
                }
                if equal {
                    return Ok(Turn::Wait(Arc::clone(flight)));
                }
            }
            let flight = Arc::new(Flight {
                key: query.key(),
                hash,
                generation: GENERATION.load(Ordering::Relaxed),
                leader: me,
                overtaken: AtomicBool::new(false),
                landing: Mutex::new(Landing { outcome: None, is_awaited: false }),
                landed: Condvar::new(),
                has_landed: AtomicBool::new(false),
            });
            let mut flights = match table.entry(hash) {
                dashmap::Entry::Vacant(place) => {
                    // Mostly there is none of this hash.
                    drop(place.insert(SameHash::from_iter([Arc::clone(&flight)])));
                    self.under_way.0.fetch_add(1, Ordering::Relaxed);
                    return Ok(Turn::Lead(Leader { flights: self, flight }));
                }
                dashmap::Entry::Occupied(flights) => flights.into_ref(),
            };
            // What nobody can join is carried out of the table's lock before it is dropped.
            let is_known = |new: &Arc<Flight<K, V, E>>| known.iter().any(|old| Arc::ptr_eq(old, new));
            if flights.iter().all(is_known) {
                let (joinable, gone): (SameHash<K, V, E>, SameHash<K, V, E>) =
                    flights.drain(..).partition(|flight| flight.is_joinable());
                *flights = joinable;
                flights.push(Arc::clone(&flight));
                drop(flights);
                self.under_way.0.fetch_add(1, Ordering::Relaxed);
                self.under_way.0.fetch_sub(gone.len(), Ordering::Relaxed);
                return Ok(Turn::Lead(Leader { flights: self, flight }));
            }
            drop(flights);
            known = self.known(hash);
        }
    }

    /// Takes a flight out of the table, if it is there.
    fn forget(&self, flight: &Arc<Flight<K, V, E>>) {
        let table = self.table.get().expect("a flight has a table");
        let mut found = None;
        if let dashmap::Entry::Occupied(mut flights) = table.entry(flight.hash) {
            let position = flights.get().iter().position(|other| Arc::ptr_eq(other, flight));
            found = position.map(|position| flights.get_mut().swap_remove(position));
            if flights.get().is_empty() {
                flights.remove();
            }
        }
        if found.is_some() {
            self.under_way.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The one who computes. Dropped without landing, it leaves the flight abandoned.
pub(crate) struct Leader<'f, K, V, E> {
    flights: &'f Flights<K, V, E>,
    flight: Arc<Flight<K, V, E>>,
}

impl<K, V, E> Leader<'_, K, V, E> {
    /// Whether the key was written to since the flight began. Asked under the shard lock.
    pub fn is_overtaken(&self) -> bool {
        self.flight.overtaken.load(Ordering::Relaxed)
    }

    pub fn land(self, outcome: Outcome<V, E>) {
        self.finish(outcome);
    }

    fn finish(&self, outcome: Outcome<V, E>) {
        if self.flight.has_landed.load(Ordering::Relaxed) {
            return;
        }
        self.flights.forget(&self.flight);
        // Release: pairs with the Acquire in `has_landed`.
        self.flight.has_landed.store(true, Ordering::Release);
        // Acquire: pairs with the Release in the drop of a waiter's. The table has none any more, so no more are made.
        let is_alone = Arc::strong_count(&self.flight) == 1;
        if is_alone || self.flight.is_stale() {
            // Nobody waits. A fork may have left a waiter's lock behind.
            return;
        }
        let mut landing = lock(&self.flight.landing);
        landing.outcome = Some(outcome);
        let is_awaited = landing.is_awaited;
        drop(landing);
        if is_awaited {
            self.flight.landed.notify_all();
        }
    }
}

impl<K, V, E> Drop for Leader<'_, K, V, E> {
    fn drop(&mut self) {
        self.finish(Outcome::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::MutexGuard;

    use super::*;
    use crate::sync::thread;

    type TestFlights = Flights<Arc<u64>, Arc<u64>, &'static str>;

    /// A key of its own hash; 0 to 9 share one.
    struct Query(u64);

    impl Lookup<Arc<u64>> for Query {
        type Error = &'static str;

        fn hash(&self) -> u64 {
            self.0 / 10
        }

        fn key(&self) -> Arc<u64> {
            Arc::new(self.0)
        }

        fn quick(&self, key: &Arc<u64>) -> Option<bool> {
            Some(self.0 == **key)
        }

        fn equals(&self, _: &Arc<u64>) -> Result<bool, Self::Error> {
            unreachable!("numbers are compared quickly")
        }

        fn same(a: &Arc<u64>, b: &Arc<u64>) -> bool {
            Arc::ptr_eq(a, b)
        }
    }

    fn lead(flights: &TestFlights, key: u64) -> Leader<'_, Arc<u64>, Arc<u64>, &'static str> {
        match flights.join(&Query(key)).expect("nobody computes it") {
            Turn::Lead(leader) => leader,
            Turn::Wait(_) => panic!("somebody computes it"),
        }
    }

    /// What another thread gets that asks for the key now, if it would wait.
    fn waits(flights: &TestFlights, key: u64) -> bool {
        let join = || matches!(flights.join(&Query(key)), Ok(Turn::Wait(_)));
        thread::scope(|scope| scope.spawn(join).join().expect("no panic"))
    }

    /// The tests of this file take turns: one of them forgets all flights of the process.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        lock(&ALONE)
    }

    #[test]
    fn a_flight_is_joined_until_it_lands() {
        let _alone = alone();
        let flights = TestFlights::new();
        assert!(flights.is_idle());
        let leader = lead(&flights, 1);
        assert!(!flights.is_idle());
        assert!(waits(&flights, 1));
        assert!(matches!(flights.join(&Query(1)), Err(LoadError::OwnKey)));
        assert!(!waits(&flights, 2), "another key of the same hash is its own flight");
        leader.land(Outcome::Value(Arc::new(5)));
        assert!(flights.is_idle());
        assert!(!waits(&flights, 1));
        assert!(flights.is_idle(), "a leader that is dropped leaves nothing behind");
    }

    #[test]
    fn an_overtaken_flight_knows_it_and_is_not_joined() {
        let _alone = alone();
        let flights = TestFlights::new();
        let (first, other) = (lead(&flights, 1), lead(&flights, 11));
        let stranger = lead(&flights, 2);
        let strangers = flights.strangers(&Query(1)).expect("numbers do not fail");
        flights.overtake(0, &strangers);
        assert!(first.is_overtaken() && !other.is_overtaken() && !stranger.is_overtaken());
        drop((strangers, stranger));
        let second = lead(&flights, 1);
        assert!(waits(&flights, 1) && !second.is_overtaken());
        first.land(Outcome::Abandoned);
        assert!(!flights.is_idle() && waits(&flights, 1), "the second is still under way");
        flights.overtake_where(|hash| hash == 1);
        assert!(other.is_overtaken() && !second.is_overtaken());
        drop((second, other));
        assert!(flights.is_idle());
    }

    #[test]
    fn a_flight_of_before_a_fork_is_as_good_as_none() {
        let _alone = alone();
        let flights = TestFlights::new();
        let (lost, returned) = (lead(&flights, 1), lead(&flights, 11));
        forget_all();
        let fresh = lead(&flights, 1);
        assert!(waits(&flights, 1));
        fresh.land(Outcome::Value(Arc::new(5)));
        // The thread that forked may itself have been a leader, and goes on.
        returned.land(Outcome::Value(Arc::new(6)));
        drop(lost);
        assert!(flights.is_idle());
        drop(lead(&flights, 1));
    }

    #[test]
    fn a_wait_in_a_wait_gives_the_outer_one_back() {
        let _alone = alone();
        let flights = TestFlights::new();
        let (outer, inner) = (lead(&flights, 1), lead(&flights, 11));
        let line = || lock(&WAITS).as_ref().and_then(|waits| waits.get(&thread::current().id()).cloned());
        let is_for = |leader: &Leader<'_, _, _, _>| {
            let flight: Arc<dyn Led> = leader.flight.clone();
            line().is_some_and(|line| Arc::ptr_eq(&line, &flight))
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let first = Wait::begin(outer.flight.clone()).expect("no circle");
                assert!(is_for(&outer));
                let second = Wait::begin(inner.flight.clone()).expect("no circle");
                assert!(is_for(&inner));
                drop(second);
                assert!(is_for(&outer));
                drop(first);
                assert!(line().is_none());
            });
            waiting.join().expect("no panic");
        });
    }
}
