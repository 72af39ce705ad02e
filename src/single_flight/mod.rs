//! Single flight: one call computes a key's value, and calls for the same key at that time wait for the result.
//!
//! # How it works
//! A flight is a computation that is in progress. Each shard has a table of them, by the 64-bit hash of their key. A
//! user's `__eq__` that tells keys of equal hash apart runs outside all locks. A call that finds no flight of its key
//! becomes the leader. The leader looks into the cache once more, computes with no lock held, writes the value, and
//! completes the flight. Most flights have no waiter, so the first waiter makes the place of the result. Waiters park
//! in short pieces, so that their caller can check for signals in between.
//!
//! A write to the key during the computation wins (law 13). It marks the flight as superseded under the shard lock,
//! in one step with the write itself. The leader's own write checks the mark under the same lock. The mark
//! spares flights of other keys with the same hash, if the writer compared their keys before it took the lock. A call
//! that comes after the mark does not join the flight, because the computation may have read data from before the
//! write.
//!
//! A run is a computation that no call joins ([`Flights::begin`]): a cached function without `wait_concurrent` does
//! not wait. Several runs of one key may go on side by side, and writes mark them as they mark flights. The table
//! does not hold the key of a run: the collector does not see the table, and a run can be part of a reference cycle.
//! So a write to another key with the same hash marks the run, too, and its result is computed again.
//!
//! `waiters.rs` has the waiting, the search for deadlocks, and the generations: after a fork, the flights of the parent
//! count as absent. The first call in the child that uses a table empties it.
//!
//! # Invariants
//! - `one-completion`: a leader completes its flight exactly once, also when its code panics.
//! - `by-leader`: the leader takes the flight out of the table before it completes it, and after the value is in the
//!   cache.
//! - `inner-lock`: a table's lock is taken under a shard lock or under none, and no other lock is taken under it.
//!
//! # Why not a `DashMap`
//! One for all shards, keyed by the hash, was measured. On the GIL build the lock of a table is a flag, and the
//! atomic operations of a `DashMap` make a miss of `get_with` 10 to 13 % slower. On the free-threaded build, one
//! thread is 2 to 5 % faster.

mod table;
mod waiters;

#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;

use smallvec::SmallVec;

use table::{FlightTable, Joinable, TableState};
pub(crate) use waiters::FlightResult;
pub use waiters::after_fork_child;

use crate::map::query::KeyQuery;
use crate::shard::shards::shard_index;
use crate::sync::{Locked, OnceLock, Padded, shard_count, thread_id};

/// A step of a wait, which the waiting thread calls repeatedly.
///
/// - It gets a function that parks the thread for a short time.
/// - Its error ends the wait.
pub type WaitStep<'a, E> = dyn FnMut(&(dyn Fn() + Sync)) -> Result<(), E> + 'a;

/// How a flight ended.
#[derive(Clone)]
pub(crate) enum Outcome<V, E> {
    Value(V),
    Failed(E),
    /// The leader ended without a result for the waiters. Another call may compute.
    Abandoned,
}

/// Why a call got no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError<E> {
    /// The user's code failed.
    User(E),
    /// The computation of a key asked for the same key.
    OwnKey,
    /// Threads would wait for each other's computations for ever.
    Deadlock,
}

impl<E> From<E> for LoadError<E> {
    fn from(error: E) -> Self {
        LoadError::User(error)
    }
}

type Tables<K, V, E> = Box<[Padded<FlightTable<K, V, E>>]>;

/// The numbers of flights of other keys than the caller's.
pub(crate) type OtherFlights = SmallVec<[u64; 1]>;

/// The flights of one cache.
pub(crate) struct Flights<K, V, E> {
    /// One for each shard. They are made at the first flight, since most caches never have one.
    tables: OnceLock<Tables<K, V, E>>,
    capacity: u64,
}

/// Whether the caller computes or waits.
pub(crate) enum Role<'f, K, V, E> {
    Lead(Leader<'f, K, V, E>),
    Wait(Arc<FlightResult<V, E>>),
}

impl<K: Clone, V, E> Flights<K, V, E> {
    pub fn new(capacity: u64) -> Self {
        Flights { tables: OnceLock::new(), capacity }
    }

    /// Returns whether no computation is in flight for any key of the shard of this hash. A caller that must not miss
    /// one holds the shard lock, which a leader takes after it has registered.
    #[inline]
    pub fn has_no_flights(&self, hash: u64) -> bool {
        self.busy_table(hash).is_none()
    }

    /// Returns the table of a hash, unless it is empty.
    #[inline]
    fn busy_table(&self, hash: u64) -> Option<&FlightTable<K, V, E>> {
        let tables = self.tables.get()?;
        Some(&tables[shard_index(hash, tables)].0).filter(|table| !table.has_no_flights())
    }

    /// Returns the table of a hash, and makes all tables if there are none.
    #[inline]
    fn table(&self, hash: u64) -> &FlightTable<K, V, E> {
        let tables = self.tables.get().unwrap_or_else(|| self.make_tables());
        &tables[shard_index(hash, tables)].0
    }

    #[cold]
    #[inline(never)]
    fn make_tables(&self) -> &Tables<K, V, E> {
        let new = || (0..shard_count(self.capacity)).map(|_| Padded(FlightTable::new())).collect();
        self.tables.get_or_init(new)
    }

    /// Returns the flights of other keys with the hash of this one, for [`supersede`](Self::supersede) to spare. May
    /// run a user's `__eq__`.
    pub fn other_flights<Q: KeyQuery<K>>(&self, query: &Q) -> Result<OtherFlights, Q::Error> {
        let mut other_flights = OtherFlights::new();
        let Some(table) = self.busy_table(query.hash()) else { return Ok(other_flights) };
        let mut locked = table.lock_current();
        // Keys that need a user's `__eq__`, which runs after the unlock.
        let mut undecided = SmallVec::<[(u64, K); 1]>::new();
        for flight in locked.of_hash(query.hash()) {
            let Some(joinable) = &flight.joinable else { continue };
            match query.eq_builtin(&joinable.key) {
                Some(true) => {}
                Some(false) => other_flights.push(flight.number),
                None => undecided.push((flight.number, joinable.key.clone())),
            }
        }
        drop(locked);
        for (number, key) in undecided {
            if !query.eq_slow(&key)? {
                other_flights.push(number);
            }
        }
        Ok(other_flights)
    }

    /// Marks the flights of a hash, except the given ones, so that their values are not stored. The caller holds the
    /// shard lock, so no keys are compared here.
    #[inline]
    pub fn supersede(&self, hash: u64, other_flights: &OtherFlights) {
        if let Some(table) = self.busy_table(hash) {
            table.lock().supersede(hash, |number| !other_flights.contains(&number));
        }
    }

    /// Returns whether a computation of a hash is in flight, except the given ones. The caller holds the shard lock.
    pub fn is_in_flight(&self, hash: u64, other_flights: &OtherFlights) -> bool {
        let is_own = |number| !other_flights.contains(&number);
        self.busy_table(hash).is_some_and(|table| table.lock().has_flight(hash, is_own))
    }

    /// Marks the flights of a run's hash that began before the run, except the given ones. The caller holds the shard
    /// lock.
    pub fn supersede_before(&self, run: Run, other_flights: &OtherFlights) {
        if let Some(table) = self.busy_table(run.hash) {
            let is_target = |number| number < run.number && !other_flights.contains(&number);
            table.lock().supersede(run.hash, is_target);
        }
    }

    /// Marks all flights of a shard. The caller holds the shard lock.
    pub fn supersede_shard(&self, shard: usize) {
        if let Some(tables) = self.tables.get() {
            tables[shard].0.lock().supersede_all();
        }
    }

    /// Joins the flight of a key, or begins it.
    #[inline]
    pub fn join<Q: KeyQuery<K, Error = E>>(&self, query: &Q) -> Result<Role<'_, K, V, E>, LoadError<E>> {
        let table = self.table(query.hash());
        let strand = query.strand();
        let locked = table.lock_current();
        if locked.is_empty() {
            return Self::lead(query, strand, table, locked);
        }
        drop(locked);
        Self::join_beside_others(query, table)
    }

    /// Begins the flight of a key for which there is no flight to join.
    #[inline]
    fn lead<'f, Q: KeyQuery<K, Error = E>>(
        query: &Q,
        strand: usize,
        table: &'f FlightTable<K, V, E>,
        mut locked: Locked<'_, TableState<K, V, E>>,
    ) -> Result<Role<'f, K, V, E>, LoadError<E>> {
        let hash = query.hash();
        let joinable = || Some(Joinable { key: query.key(), leader: thread_id(), strand, result: None });
        let Some(number) = locked.add(hash, joinable) else {
            drop(locked);
            return Err(LoadError::User(query.no_memory()));
        };
        table.publish_count(&locked);
        drop(locked);
        Ok(Role::Lead(Leader { table, hash, number }))
    }

    #[inline(never)]
    fn join_beside_others<'f, Q: KeyQuery<K, Error = E>>(
        query: &Q,
        table: &'f FlightTable<K, V, E>,
    ) -> Result<Role<'f, K, V, E>, LoadError<E>> {
        let hash = query.hash();
        let me = thread_id();
        // Flights that this call does not join, and the one whose key is known to be equal.
        let mut other_flights = OtherFlights::new();
        let mut known_equal = None;
        loop {
            let strand = query.strand();
            let mut locked = table.lock_current();
            let generation = locked.generation;
            if let Some((number, flight)) = locked.find_joinable(hash, &other_flights) {
                let is_equal = known_equal == Some(number);
                match if is_equal { Some(true) } else { query.eq_builtin(&flight.key) } {
                    Some(true) if flight.leader == me => {
                        let strand = flight.strand;
                        drop(locked);
                        if query.is_strand(strand) {
                            return Err(LoadError::OwnKey);
                        }
                        // The leader cannot go on while its thread waits here, so this call computes the value itself.
                        other_flights.push(number);
                    }
                    Some(true) => {
                        let new = || Arc::new(FlightResult::new(flight.leader, generation));
                        return Ok(Role::Wait(Arc::clone(flight.result.get_or_insert_with(new))));
                    }
                    Some(false) => other_flights.push(number),
                    None => {
                        let key = flight.key.clone();
                        drop(locked);
                        if query.eq_slow(&key)? {
                            known_equal = Some(number);
                        } else {
                            other_flights.push(number);
                        }
                    }
                }
                continue;
            }
            return Self::lead(query, strand, table, locked);
        }
    }

    /// Begins a run.
    pub fn begin<Q: KeyQuery<K>>(&self, query: &Q) -> Result<Run, Q::Error> {
        let hash = query.hash();
        let table = self.table(hash);
        let mut locked = table.lock_current();
        let number = locked.add(hash, || None);
        table.publish_count(&locked);
        drop(locked);
        number.map(|number| Run { hash, number }).ok_or_else(|| query.no_memory())
    }

    /// Returns whether the result of a run must not be stored.
    pub fn is_superseded(&self, run: Run) -> bool {
        self.table(run.hash).lock().is_superseded(run.hash, run.number)
    }

    /// Lets a run stay registered after its computation has failed, so that a write to the key still supersedes it.
    pub fn hold(&self, run: Run) {
        self.table(run.hash).lock().hold(run.hash, run.number);
    }

    /// Ends a run, if it has not ended. Returns whether its result may be stored. The caller that stores it holds the
    /// shard lock.
    pub fn end(&self, run: Run) -> bool {
        let own = self.table(run.hash).take(run.hash, run.number);
        // A run that is not in the table began before a fork, and no write has marked it since.
        own.is_some_and(|own| !own.is_superseded)
    }
}

/// The name of a run. It does not say whether the run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    hash: u64,
    number: u64,
}

impl Run {
    /// Names the run of a hash that has this number.
    pub fn new(hash: u64, number: u64) -> Self {
        Run { hash, number }
    }

    pub fn number(self) -> u64 {
        self.number
    }
}

/// The call that computes. If it is dropped without an outcome, the flight is abandoned.
pub(crate) struct Leader<'f, K, V, E> {
    table: &'f FlightTable<K, V, E>,
    hash: u64,
    number: u64,
}

impl<K, V, E> Leader<'_, K, V, E> {
    /// Returns whether the key was written to since the flight began. The caller holds the shard lock.
    pub fn is_superseded(&self) -> bool {
        self.table.lock().is_superseded(self.hash, self.number)
    }

    /// Whether this is the address of the flight's result.
    pub fn has_result(&self, address: *const ()) -> bool {
        self.table.lock().has_result(self.hash, self.number, address)
    }

    /// Ends the flight with an outcome for all waiters.
    pub fn complete(self, outcome: Outcome<V, E>) {
        self.finish(outcome);
        // The drop would complete the flight again. A leader owns nothing else.
        mem::forget(self);
    }

    fn finish(&self, outcome: Outcome<V, E>) {
        let flight = self.table.take(self.hash, self.number);
        if let Some(result) = flight.and_then(|flight| flight.joinable?.result) {
            result.complete(outcome);
        }
    }
}

impl<K, V, E> Drop for Leader<'_, K, V, E> {
    fn drop(&mut self) {
        self.finish(Outcome::Abandoned);
    }
}
