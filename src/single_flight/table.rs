//! The computations in flight for the keys of one shard, by the 64-bit hash of the key.
//!
//! # Orderings
//! | field | writer | reader | why |
//! |---|---|---|---|
//! | `FlightTable::in_flight` | Relaxed, under the table's lock | Relaxed, under the shard lock | a leader takes the shard lock after it has registered, so a writer sees the count or comes first; see `Cache::fence_after_register` |

use std::mem;
use std::sync::Arc;

use hashbrown::HashTable;

use super::waiters::{FlightResult, generation, is_stale};
use crate::sync::thread::ThreadId;
use crate::sync::{AtomicUsize, Lock, Locked, Ordering};

/// An empty table with room for more flights than this is freed. Loads of many keys need such tables.
const MAX_IDLE_FLIGHTS: usize = 1_000;

/// A computation in flight.
pub(super) struct Flight<K, V, E> {
    hash: u64,
    pub number: u64,
    pub is_superseded: bool,
    /// Whether the computation has ended, and its failure is kept until a write supersedes it.
    pub is_held: bool,
    /// The part that other calls need to join it. A run has `None`, and no call joins it.
    pub joinable: Option<Joinable<K, V, E>>,
}

pub(super) struct Joinable<K, V, E> {
    pub key: K,
    pub leader: ThreadId,
    /// The strand that ran on the leader's thread, if several share that thread.
    pub strand: usize,
    /// Made by the first waiter.
    pub result: Option<Arc<FlightResult<V, E>>>,
}

/// The flights of one shard.
pub(super) struct FlightTable<K, V, E> {
    /// The number of flights, for readers without the lock.
    in_flight: AtomicUsize,
    state: Lock<TableState<K, V, E>>,
}

pub(super) struct TableState<K, V, E> {
    /// A flight beside the hash table. Mostly it is the only one, and the hash table would double its cost.
    lone: Option<Flight<K, V, E>>,
    flights: HashTable<Flight<K, V, E>>,
    /// The generation in which the flights began.
    pub generation: u64,
    /// The number of the next flight. No two flights of a table have the same.
    next_number: u64,
}

impl<K, V, E> FlightTable<K, V, E> {
    pub fn new() -> Self {
        FlightTable { in_flight: AtomicUsize::new(0), state: Lock::new(TableState::new(0)) }
    }

    pub fn has_no_flights(&self) -> bool {
        // Relaxed: the shard lock orders it, see the module doc.
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    pub fn lock(&self) -> Locked<'_, TableState<K, V, E>> {
        self.state.lock()
    }

    /// Locks the table for a call that may begin a flight or compare keys. It has no flights from before a fork.
    #[inline]
    pub fn lock_current(&self) -> Locked<'_, TableState<K, V, E>> {
        loop {
            let state = self.state.lock();
            if !is_stale(state.generation) {
                return state;
            }
            self.drop_stale(state);
        }
    }

    /// Drops the flights of the locked table, which are from before a fork, after the unlock.
    #[cold]
    fn drop_stale(&self, mut state: Locked<'_, TableState<K, V, E>>) {
        let first_number = state.next_number;
        let stale = mem::replace(&mut *state, TableState::new(first_number));
        self.publish_count(&state);
        drop(state);
        drop(stale);
    }

    /// Takes a flight out. The caller drops it after the unlock.
    #[inline]
    pub fn take(&self, hash: u64, number: u64) -> Option<Flight<K, V, E>> {
        let mut state = self.state.lock();
        let flight = state.take(hash, number);
        self.publish_count(&state);
        flight
    }

    /// Publishes the number of flights. The caller holds the lock.
    pub fn publish_count(&self, state: &TableState<K, V, E>) {
        let count = state.flights.len() + usize::from(state.lone.is_some());
        // Relaxed: the shard lock orders it, see the module doc.
        self.in_flight.store(count, Ordering::Relaxed);
    }
}

impl<K, V, E> TableState<K, V, E> {
    fn new(next_number: u64) -> Self {
        TableState { lone: None, flights: HashTable::new(), generation: generation(), next_number }
    }

    pub fn is_empty(&self) -> bool {
        self.lone.is_none() && self.flights.is_empty()
    }

    fn get(&self, hash: u64, number: u64) -> Option<&Flight<K, V, E>> {
        let lone = self.lone.as_ref().filter(|flight| flight.number == number);
        lone.or_else(|| self.flights.find(hash, |flight| flight.number == number))
    }

    /// The flights of a hash.
    pub fn of_hash(&mut self, hash: u64) -> impl Iterator<Item = &mut Flight<K, V, E>> {
        let others = self.flights.iter_hash_mut(hash);
        self.lone.iter_mut().chain(others).filter(move |flight| flight.hash == hash)
    }

    /// Finds a flight of a hash that a call may join: it is not superseded, and its number is not one of `excluded`.
    #[inline]
    pub fn find_joinable(&mut self, hash: u64, excluded: &[u64]) -> Option<(u64, &mut Joinable<K, V, E>)> {
        let can_join = |flight: &Flight<K, V, E>| {
            flight.joinable.is_some()
                && flight.hash == hash
                && !flight.is_superseded
                && !excluded.contains(&flight.number)
        };
        let flight = match self.lone.as_mut().filter(|flight| can_join(flight)) {
            Some(lone) => lone,
            None => self.flights.find_mut(hash, can_join)?,
        };
        Some((flight.number, flight.joinable.as_mut()?))
    }

    #[inline]
    fn take(&mut self, hash: u64, number: u64) -> Option<Flight<K, V, E>> {
        self.lone.take_if(|flight| flight.number == number).or_else(|| self.take_other(hash, number))
    }

    #[inline(never)]
    fn take_other(&mut self, hash: u64, number: u64) -> Option<Flight<K, V, E>> {
        let found = self.flights.find_entry(hash, |flight| flight.number == number);
        let flight = found.ok()?.remove().0;
        if self.flights.is_empty() && self.flights.capacity() > MAX_IDLE_FLIGHTS {
            self.flights = HashTable::new();
        }
        Some(flight)
    }

    /// Marks the flights of a hash whose numbers satisfy the predicate.
    pub fn supersede(&mut self, hash: u64, is_target: impl Fn(u64) -> bool) {
        let targets = self.of_hash(hash).filter(|flight| is_target(flight.number));
        targets.for_each(|flight| flight.is_superseded = true);
    }

    /// Returns whether there is a flight of a hash whose computation has not ended, and whose number satisfies the
    /// predicate.
    pub fn has_flight(&mut self, hash: u64, is_own: impl Fn(u64) -> bool) -> bool {
        self.of_hash(hash).any(|flight| !flight.is_held && is_own(flight.number))
    }

    /// Marks a run whose failure is kept.
    pub fn hold(&mut self, hash: u64, number: u64) {
        if let Some(run) = self.of_hash(hash).find(|flight| flight.number == number) {
            run.is_held = true;
        }
    }

    /// Returns whether a flight has a result at this address.
    pub fn has_result(&self, hash: u64, number: u64, address: *const ()) -> bool {
        let result = self.get(hash, number).and_then(|flight| flight.joinable.as_ref()?.result.as_ref());
        result.is_some_and(|result| Arc::as_ptr(result).cast() == address)
    }

    pub fn supersede_all(&mut self) {
        self.lone.iter_mut().chain(&mut self.flights).for_each(|flight| flight.is_superseded = true);
    }

    /// Returns whether a flight is superseded. One that is not in the table began before a fork. No write has marked
    /// it since, so it counts as superseded.
    #[inline]
    pub fn is_superseded(&self, hash: u64, number: u64) -> bool {
        self.get(hash, number).is_none_or(|flight| flight.is_superseded)
    }

    /// Adds a flight and returns its number, or `None` if there is no memory.
    #[inline]
    pub fn add(&mut self, hash: u64, joinable: impl FnOnce() -> Option<Joinable<K, V, E>>) -> Option<u64> {
        if self.lone.is_some() {
            self.flights.try_reserve(1, |flight| flight.hash).ok()?;
        }
        let number = self.next_number;
        self.next_number += 1;
        let flight = Flight { hash, number, is_superseded: false, is_held: false, joinable: joinable() };
        match &mut self.lone {
            None => self.lone = Some(flight),
            Some(_) => _ = self.flights.insert_unique(hash, flight, |flight| flight.hash),
        }
        Some(number)
    }
}
