//! One computation a key: a leader runs it, the others wait for what comes of it.
//!
//! # How it works
//! A flight is a computation under way. Tables keep them by the 64-bit hash of their key; keys of equal hash are told
//! apart outside all locks, where that takes a user's code. Whoever finds none of its key becomes the leader, looks into the
//! cache once more, computes with nothing held, writes, and lands. Most flights are their leader's alone: what waiters need
//! is made by the first of them. They park on it, in short pieces, so that their caller can look at signals between them.
//!
//! A write to the key during the computation wins: it marks the flight as overtaken, under the shard lock
//! and so in one step with the write itself, and the leader's own write asks for the mark in the same way.
//! Flights of other keys with the same full hash are spared, if the writer saw them before its lock and so
//! could compare the keys. Whoever comes after the mark does not join: it was not asked for what was there
//! before the write.
//!
//! A computation may also be a run of its caller alone ([`Flights::begin`]): a cached function without `wait_concurrent`
//! does not wait. No call joins a run, and several runs of one key go on side by side. Writes mark a run as they mark
//! a flight. The table does not hold the key of a run, since the collector does not see what it holds, and a run can be part
//! of a cycle. So a write to another key with the same full hash marks the run too: its result is computed again.
//!
//! How they wait, and that no circle of them does, is `single_flight/landing.rs`, which also knows of forks: a flight
//! of before one is as good as none. The first call in a child that meets a table of before the fork empties it.
//!
//! # Invariants
//! - `lands`: a leader lands its flight exactly once, whatever happens to it.
//! - `by-leader`: a flight leaves its table before it lands, and after the value is in the cache.
//! - `inner-lock`: a table's lock is taken under a shard lock or under none, and nothing else is taken under it.

mod waiters;

use std::mem;
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

pub use waiters::after_fork_child;
use waiters::{Landing, generation, is_stale};

use crate::map::query::KeyQuery;
use crate::shard::shards::shard_index;
use crate::sync::thread::ThreadId;
use crate::sync::{AtomicUsize, Lock, Locked, OnceLock, Ordering, Padded, shard_count, thread_id};

/// What a waiting thread calls, again and again: it is given what parks for a while, and its error ends the
/// wait.
pub type WaitStep<'a, E> = dyn FnMut(&(dyn Fn() + Sync)) -> Result<(), E> + 'a;

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

/// A computation under way, as it stands in the table; `S` is what others need that wait for it.
struct Flight<S> {
    hash: u64,
    number: u64,
    is_superseded: bool,
    shared: S,
}

/// One that others may join, or a run, which no call joins.
type AnyFlight<K, V, E> = Flight<Option<SharedFlight<K, V, E>>>;

struct SharedFlight<K, V, E> {
    key: K,
    leader: ThreadId,
    /// The strand that ran on that thread, if several take turns on it.
    strand: usize,
    /// Made by the first waiter.
    landing: Option<Arc<Landing<V, E>>>,
}

/// The flights of the hashes of one shard.
struct Table<K, V, E> {
    /// How many there are, for who looks without the lock.
    under_way: AtomicUsize,
    listed: Lock<Listed<K, V, E>>,
}

struct Listed<K, V, E> {
    flights: HashTable<AnyFlight<K, V, E>>,
    /// A run beside the table. Mostly it is the only computation, and the table would cost it twice the time.
    lone_run: Option<Flight<()>>,
    /// The generation in which the flights began.
    generation: u64,
    /// Of the next flight: no two of a table have the same.
    number: u64,
}

/// Flights of before a fork.
type Lost<K, V, E> = HashTable<AnyFlight<K, V, E>>;

impl<K, V, E> Table<K, V, E> {
    fn new() -> Self {
        let listed =
            Listed { flights: HashTable::new(), lone_run: None, generation: generation(), number: 0 };
        Table { under_way: AtomicUsize::new(0), listed: Lock::new(listed) }
    }

    fn has_no_flights(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Takes the lock for a call that may begin a flight or compare keys. Flights of before a fork are taken out, into
    /// `lost`, which the caller drops after the unlock.
    fn lock_fresh(&self, lost: &mut Lost<K, V, E>) -> Locked<'_, Listed<K, V, E>> {
        let mut listed = self.listed.lock();
        if is_stale(listed.generation) {
            listed.generation = generation();
            *lost = mem::take(&mut listed.flights);
            listed.lone_run = None;
            self.tell(&listed);
        }
        listed
    }

    /// Takes a flight out. The caller drops it with no lock held.
    fn take(&self, hash: u64, number: u64) -> Option<AnyFlight<K, V, E>> {
        let mut listed = self.listed.lock();
        let flight = listed.take(hash, number);
        self.tell(&listed);
        flight
    }

    /// Tells how many there are now. Under the lock.
    fn tell(&self, listed: &Listed<K, V, E>) {
        let count = listed.flights.len() + usize::from(listed.lone_run.is_some());
        self.under_way.store(count, Ordering::Relaxed);
    }
}

impl<K, V, E> Listed<K, V, E> {
    /// The computations of a hash but for the lone run.
    fn of_hash(&mut self, hash: u64) -> impl Iterator<Item = &mut AnyFlight<K, V, E>> {
        self.flights.iter_hash_mut(hash).filter(move |flight| flight.hash == hash)
    }

    fn take(&mut self, hash: u64, number: u64) -> Option<AnyFlight<K, V, E>> {
        if let Some(Flight { is_superseded, .. }) = self.lone_run.take_if(|run| run.number == number) {
            return Some(Flight { hash, number, is_superseded, shared: None });
        }
        let found = self.flights.find_entry(hash, |flight| flight.number == number);
        Some(found.ok()?.remove().0)
    }

    /// Marks those computations of a hash that the predicate means by their numbers.
    fn supersede(&mut self, hash: u64, is_meant: impl Fn(u64) -> bool) {
        if let Some(run) = self.lone_run.as_mut().filter(|run| run.hash == hash && is_meant(run.number)) {
            run.is_superseded = true;
        }
        let meant = self.of_hash(hash).filter(|flight| is_meant(flight.number));
        meant.for_each(|flight| flight.is_superseded = true);
    }

    fn supersede_all(&mut self) {
        self.lone_run.iter_mut().for_each(|run| run.is_superseded = true);
        self.flights.iter_mut().for_each(|flight| flight.is_superseded = true);
    }

    /// Whether a flight was written to since it began. One that is gone began before a fork, and no write marked it since.
    fn is_superseded(&self, hash: u64, number: u64) -> bool {
        if let Some(run) = self.lone_run.as_ref().filter(|run| run.number == number) {
            return run.is_superseded;
        }
        let own = self.flights.find(hash, |flight| flight.number == number);
        own.is_none_or(|flight| flight.is_superseded)
    }

    /// Adds a flight, and returns its number; `None` if there is no memory.
    fn add(&mut self, hash: u64, shared: impl FnOnce() -> Option<SharedFlight<K, V, E>>) -> Option<u64> {
        self.flights.try_reserve(1, |flight| flight.hash).ok()?;
        let number = self.next_number();
        let flight = Flight { hash, number, is_superseded: false, shared: shared() };
        self.flights.insert_unique(hash, flight, |flight| flight.hash);
        Some(number)
    }

    /// Adds a run, and returns its number; `None` if there is no memory.
    fn add_run(&mut self, hash: u64) -> Option<u64> {
        if self.lone_run.is_some() {
            return self.add(hash, || None);
        }
        let number = self.next_number();
        self.lone_run = Some(Flight { hash, number, is_superseded: false, shared: () });
        Some(number)
    }

    fn next_number(&mut self) -> u64 {
        let number = self.number;
        self.number += 1;
        number
    }
}

type Tables<K, V, E> = Box<[Padded<Table<K, V, E>>]>;

/// Flights that are of other keys than the caller's, by their numbers.
pub(crate) type OtherFlights = SmallVec<[u64; 1]>;

/// The flights of one cache.
pub(crate) struct Flights<K, V, E> {
    /// One for each shard, made at the first flight: most caches never have one.
    tables: OnceLock<Tables<K, V, E>>,
    capacity: u64,
}

/// Whose turn it is to compute.
pub(crate) enum Role<'f, K, V, E> {
    Lead(Leader<'f, K, V, E>),
    Wait(Arc<Landing<V, E>>),
}

impl<K: Clone, V, E> Flights<K, V, E> {
    /// Of a cache of this capacity.
    pub fn new(capacity: u64) -> Self {
        Flights { tables: OnceLock::new(), capacity }
    }

    /// Whether no computation is under way for a key of the shard of this hash. A caller that must not miss one holds the shard
    /// lock, which a leader takes after it has begun.
    #[inline]
    pub fn has_no_flights(&self, hash: u64) -> bool {
        self.busy(hash).is_none()
    }

    /// The table of a hash, if there is anything in it.
    #[inline]
    fn busy(&self, hash: u64) -> Option<&Table<K, V, E>> {
        let tables = self.tables.get()?;
        Some(&tables[shard_index(hash, tables)].0).filter(|table| !table.has_no_flights())
    }

    /// The flights of other keys with the hash of this one, for [`supersede`](Self::supersede) to spare.
    pub fn other_flights<Q: KeyQuery<K>>(&self, query: &Q) -> Result<OtherFlights, Q::Error> {
        let mut other_flights = OtherFlights::new();
        let Some(table) = self.busy(query.hash()) else { return Ok(other_flights) };
        let mut lost = Lost::new();
        let mut listed = table.lock_fresh(&mut lost);
        // Keys that a user's code compares, which runs with nothing held.
        let mut unclear = SmallVec::<[(u64, K); 1]>::new();
        for flight in listed.of_hash(query.hash()) {
            let Some(shared) = &flight.shared else { continue };
            match query.eq_builtin(&shared.key) {
                Some(true) => {}
                Some(false) => other_flights.push(flight.number),
                None => unclear.push((flight.number, shared.key.clone())),
            }
        }
        drop(listed);
        drop(lost);
        for (number, key) in unclear {
            if !query.eq_slow(&key)? {
                other_flights.push(number);
            }
        }
        Ok(other_flights)
    }

    /// Marks the flights of a hash but for some: their values are not to be cached. Called under the shard
    /// lock, so keys are not compared here.
    #[inline]
    pub fn supersede(&self, hash: u64, other_flights: &OtherFlights) {
        if let Some(table) = self.busy(hash) {
            table.listed.lock().supersede(hash, |number| !other_flights.contains(&number));
        }
    }

    /// Marks all flights of a shard. Called under its lock.
    pub fn supersede_shard(&self, shard: usize) {
        if let Some(tables) = self.tables.get() {
            tables[shard].0.listed.lock().supersede_all();
        }
    }

    /// Joins the flight of a key, or begins it.
    pub fn join<Q: KeyQuery<K, Error = E>>(&self, query: &Q) -> Result<Role<'_, K, V, E>, LoadError<E>> {
        let hash = query.hash();
        let me = thread_id();
        let table = self.made(hash);
        // Whose keys have been compared, and the one that is equal.
        let mut other_flights = OtherFlights::new();
        let mut known_equal = None;
        loop {
            let strand = query.strand();
            // Before the lock, so that it is dropped after the unlock.
            let mut lost = Lost::new();
            let mut listed = table.lock_fresh(&mut lost);
            let generation = listed.generation;
            let is_open = |flight: &AnyFlight<K, V, E>| {
                flight.hash == hash && !flight.is_superseded && !other_flights.contains(&flight.number)
            };
            let open = listed.flights.find_mut(hash, |flight| flight.shared.is_some() && is_open(flight));
            let open = open.and_then(|flight| Some((flight.number, flight.shared.as_mut()?)));
            if let Some((number, flight)) = open {
                let is_equal = known_equal == Some(number);
                match if is_equal { Some(true) } else { query.eq_builtin(&flight.key) } {
                    Some(true) if flight.leader == me => {
                        let strand = flight.strand;
                        drop(listed);
                        if query.is_strand(strand) {
                            return Err(LoadError::OwnKey);
                        }
                        // Its leader cannot go on while this thread waits, so the caller computes for itself.
                        other_flights.push(number);
                    }
                    Some(true) => {
                        let new = || Arc::new(Landing::new(flight.leader, generation));
                        return Ok(Role::Wait(Arc::clone(flight.landing.get_or_insert_with(new))));
                    }
                    Some(false) => other_flights.push(number),
                    None => {
                        let key = flight.key.clone();
                        drop(listed);
                        if query.eq_slow(&key)? {
                            known_equal = Some(number);
                        } else {
                            other_flights.push(number);
                        }
                    }
                }
                continue;
            }
            let shared = || Some(SharedFlight { key: query.key(), leader: me, strand, landing: None });
            let Some(number) = listed.add(hash, shared) else {
                drop(listed);
                return Err(LoadError::User(query.no_memory()));
            };
            table.tell(&listed);
            drop(listed);
            return Ok(Role::Lead(Leader { table, hash, number }));
        }
    }

    /// Begins a run.
    pub fn begin<Q: KeyQuery<K>>(&self, query: &Q) -> Result<Run, Q::Error> {
        let hash = query.hash();
        let table = self.made(hash);
        let mut lost = Lost::new();
        let mut listed = table.lock_fresh(&mut lost);
        let number = listed.add_run(hash);
        table.tell(&listed);
        drop(listed);
        drop(lost);
        number.map(|number| Run { hash, number }).ok_or_else(|| query.no_memory())
    }

    /// Whether a run must not be kept.
    pub fn is_superseded(&self, run: Run) -> bool {
        self.made(run.hash).listed.lock().is_superseded(run.hash, run.number)
    }

    /// Ends a run, if it has not ended. Returns whether its result may be kept, which is asked under the shard lock.
    pub fn end(&self, run: Run) -> bool {
        let own = self.made(run.hash).take(run.hash, run.number);
        // One that is gone began before a fork, and no write marked it since. A run holds nothing that its end drops.
        own.is_some_and(|own| !own.is_superseded)
    }

    /// The table of a hash.
    fn made(&self, hash: u64) -> &Table<K, V, E> {
        let new = || (0..shard_count(self.capacity)).map(|_| Padded(Table::new())).collect();
        let tables = self.tables.get_or_init(new);
        &tables[shard_index(hash, tables)].0
    }
}

/// A computation that its caller keeps to itself, as a name: it says nothing about whether the run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    hash: u64,
    number: u64,
}

impl Run {
    /// The run of a hash that has this number.
    pub fn new(hash: u64, number: u64) -> Self {
        Run { hash, number }
    }

    pub fn number(self) -> u64 {
        self.number
    }
}

/// The one who computes. Dropped without landing, it leaves the flight abandoned.
pub(crate) struct Leader<'f, K, V, E> {
    table: &'f Table<K, V, E>,
    hash: u64,
    number: u64,
}

impl<K, V, E> Leader<'_, K, V, E> {
    /// Whether the key was written to since the flight began. Asked under the shard lock.
    pub fn is_superseded(&self) -> bool {
        self.table.listed.lock().is_superseded(self.hash, self.number)
    }

    pub fn land(self, outcome: Outcome<V, E>) {
        self.finish(outcome);
        // Its drop would land it again; it holds nothing else to be dropped.
        mem::forget(self);
    }

    fn finish(&self, outcome: Outcome<V, E>) {
        let flight = self.table.take(self.hash, self.number);
        if let Some(landing) = flight.and_then(|flight| flight.shared?.landing) {
            landing.land(outcome);
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
    use std::sync::{Mutex, MutexGuard};

    use super::waiters::{Led, Wait, waited_for};
    use super::*;
    use crate::sync::{lock, thread};

    type TestFlights = Flights<Arc<u64>, Arc<u64>, &'static str>;

    /// A key of its own hash; 0 to 9 share one.
    struct Query(u64);

    impl KeyQuery<Arc<u64>> for Query {
        type Error = &'static str;

        fn hash(&self) -> u64 {
            self.0 / 10
        }

        fn key(&self) -> Arc<u64> {
            Arc::new(self.0)
        }

        fn eq_builtin(&self, key: &Arc<u64>) -> Option<bool> {
            Some(self.0 == **key)
        }

        fn eq_slow(&self, _: &Arc<u64>) -> Result<bool, Self::Error> {
            unreachable!("numbers are compared quickly")
        }

        fn ptr_eq(a: &Arc<u64>, b: &Arc<u64>) -> bool {
            Arc::ptr_eq(a, b)
        }
    }

    fn lead(flights: &TestFlights, key: u64) -> Leader<'_, Arc<u64>, Arc<u64>, &'static str> {
        match flights.join(&Query(key)).expect("nobody computes it") {
            Role::Lead(leader) => leader,
            Role::Wait(_) => panic!("somebody computes it"),
        }
    }

    /// What another thread gets that asks for the key now, if it would wait.
    fn waits(flights: &TestFlights, key: u64) -> bool {
        let join = || matches!(flights.join(&Query(key)), Ok(Role::Wait(_)));
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
        let flights = TestFlights::new(100);
        assert!(flights.has_no_flights(0));
        let leader = lead(&flights, 1);
        assert!(!flights.has_no_flights(0));
        assert!(waits(&flights, 1));
        assert!(matches!(flights.join(&Query(1)), Err(LoadError::OwnKey)));
        assert!(!waits(&flights, 2), "another key of the same hash is its own flight");
        leader.land(Outcome::Value(Arc::new(5)));
        assert!(flights.has_no_flights(0));
        assert!(!waits(&flights, 1));
        assert!(flights.has_no_flights(0), "a leader that is dropped leaves nothing behind");
    }

    #[test]
    fn an_overtaken_flight_knows_it_and_is_not_joined() {
        let _alone = alone();
        let flights = TestFlights::new(100);
        let (first, other) = (lead(&flights, 1), lead(&flights, 11));
        let stranger = lead(&flights, 2);
        let other_flights = flights.other_flights(&Query(1)).expect("numbers do not fail");
        flights.supersede(0, &other_flights);
        assert!(first.is_superseded() && !other.is_superseded() && !stranger.is_superseded());
        drop((other_flights, stranger));
        let second = lead(&flights, 1);
        assert!(waits(&flights, 1) && !second.is_superseded());
        first.land(Outcome::Abandoned);
        assert!(!flights.has_no_flights(0) && waits(&flights, 1), "the second is still under way");
        flights.supersede_shard(0);
        assert!(other.is_superseded() && second.is_superseded());
        drop((second, other));
        assert!(flights.has_no_flights(0));
    }

    #[test]
    fn a_flight_of_before_a_fork_is_as_good_as_none() {
        let _alone = alone();
        let flights = TestFlights::new(100);
        let (lost, returned) = (lead(&flights, 1), lead(&flights, 11));
        after_fork_child();
        let fresh = lead(&flights, 1);
        assert!(waits(&flights, 1));
        assert!(lost.is_superseded() && returned.is_superseded(), "no write could mark them");
        assert!(!fresh.is_superseded());
        fresh.land(Outcome::Value(Arc::new(5)));
        // The thread that forked may itself have been a leader, and goes on.
        returned.land(Outcome::Value(Arc::new(6)));
        drop(lost);
        assert!(flights.has_no_flights(0));
        drop(lead(&flights, 1));
    }

    #[test]
    fn another_strand_of_the_thread_leads_for_itself() {
        /// One that asks in a strand.
        struct In(Query, usize);

        impl KeyQuery<Arc<u64>> for In {
            type Error = &'static str;

            fn hash(&self) -> u64 {
                self.0.hash()
            }

            fn key(&self) -> Arc<u64> {
                self.0.key()
            }

            fn eq_builtin(&self, key: &Arc<u64>) -> Option<bool> {
                self.0.eq_builtin(key)
            }

            fn eq_slow(&self, key: &Arc<u64>) -> Result<bool, Self::Error> {
                self.0.eq_slow(key)
            }

            fn ptr_eq(a: &Arc<u64>, b: &Arc<u64>) -> bool {
                Query::ptr_eq(a, b)
            }

            fn strand(&self) -> usize {
                self.1
            }

            fn is_strand(&self, strand: usize) -> bool {
                self.1 == strand
            }
        }

        let _alone = alone();
        let flights = TestFlights::new(100);
        let leader = |strand| match flights.join(&In(Query(1), strand)) {
            Ok(Role::Lead(leader)) => leader,
            _ => panic!("it does not lead"),
        };
        let (first, second) = (leader(1), leader(2));
        for strand in [1, 2] {
            assert!(matches!(flights.join(&In(Query(1), strand)), Err(LoadError::OwnKey)));
        }
        assert!(waits(&flights, 1), "another thread waits for either");
        drop(first);
        assert!(matches!(flights.join(&In(Query(1), 2)), Err(LoadError::OwnKey)));
        drop((leader(1), second));
        assert!(flights.has_no_flights(0));
    }

    #[test]
    fn the_first_call_in_a_child_empties_the_table() {
        let _alone = alone();
        let flights = TestFlights::new(100);
        let (lost, run) = (lead(&flights, 1), flights.begin(&Query(2)).expect("there is memory"));
        after_fork_child();
        assert!(!flights.has_no_flights(0), "the fork itself takes no lock");
        flights.other_flights(&Query(11)).expect("numbers do not fail");
        assert!(flights.has_no_flights(0), "a later `set` does without a lock of the table");
        assert!(lost.is_superseded() && flights.is_superseded(run));
        assert!(!flights.end(run));
        drop(lost);
        assert!(flights.has_no_flights(0));
    }

    #[test]
    fn a_wait_in_a_wait_gives_the_outer_one_back() {
        let _alone = alone();
        let flights = TestFlights::new(100);
        let _leaders = (lead(&flights, 1), lead(&flights, 11));
        let landing = |key| match flights.join(&Query(key)) {
            Ok(Role::Wait(landing)) => landing,
            _ => panic!("somebody computes it"),
        };
        let is_for = |landing: &Arc<Landing<_, _>>| {
            let landing: Arc<dyn Led> = landing.clone();
            waited_for().is_some_and(|line| Arc::ptr_eq(&line, &landing))
        };
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let (outer, inner) = (landing(1), landing(11));
                let first = Wait::begin(outer.clone()).expect("no circle");
                assert!(is_for(&outer));
                let second = Wait::begin(inner.clone()).expect("no circle");
                assert!(is_for(&inner));
                drop(second);
                assert!(is_for(&outer));
                drop(first);
                assert!(waited_for().is_none());
            });
            waiting.join().expect("no panic");
        });
    }
}
