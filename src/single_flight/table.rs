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

/// A computation in flight. `J` is the part that other calls need to join it.
pub(super) struct Flight<J> {
    hash: u64,
    pub number: u64,
    pub is_superseded: bool,
    /// Whether the computation has ended, and its failure is kept until a write supersedes it.
    pub is_held: bool,
    pub joinable: J,
}

/// A flight that other calls may join, or a run, which no call joins.
pub(super) type TableFlight<K, V, E> = Flight<Option<Joinable<K, V, E>>>;

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
    flights: HashTable<TableFlight<K, V, E>>,
    /// A run beside the hash table. Mostly it is the only computation, and the hash table would double its cost.
    lone_run: Option<Flight<()>>,
    /// The generation in which the flights began.
    pub generation: u64,
    /// The number of the next flight. No two flights of a table have the same.
    next_number: u64,
}

/// Flights that began before a fork.
pub(super) type StaleFlights<K, V, E> = HashTable<TableFlight<K, V, E>>;

impl<K, V, E> FlightTable<K, V, E> {
    pub fn new() -> Self {
        let state = TableState {
            flights: HashTable::new(),
            lone_run: None,
            generation: generation(),
            next_number: 0,
        };
        FlightTable { in_flight: AtomicUsize::new(0), state: Lock::new(state) }
    }

    pub fn has_no_flights(&self) -> bool {
        // Relaxed: the shard lock orders it, see the module doc.
        self.in_flight.load(Ordering::Relaxed) == 0
    }

    pub fn lock(&self) -> Locked<'_, TableState<K, V, E>> {
        self.state.lock()
    }

    /// Locks the table for a call that may begin a flight or compare keys. Flights from before a fork move into
    /// `stale`, which the caller drops after the unlock.
    pub fn lock_current(&self, stale: &mut StaleFlights<K, V, E>) -> Locked<'_, TableState<K, V, E>> {
        let mut state = self.state.lock();
        if is_stale(state.generation) {
            state.generation = generation();
            *stale = mem::take(&mut state.flights);
            state.lone_run = None;
            self.publish_count(&state);
        }
        state
    }

    /// Takes a flight out. The caller drops it after the unlock.
    pub fn take(&self, hash: u64, number: u64) -> Option<TableFlight<K, V, E>> {
        let mut state = self.state.lock();
        let flight = state.take(hash, number);
        if state.flights.is_empty() && state.flights.capacity() > MAX_IDLE_FLIGHTS {
            state.flights = HashTable::new();
        }
        self.publish_count(&state);
        flight
    }

    /// Publishes the number of flights. The caller holds the lock.
    pub fn publish_count(&self, state: &TableState<K, V, E>) {
        let count = state.flights.len() + usize::from(state.lone_run.is_some());
        // Relaxed: the shard lock orders it, see the module doc.
        self.in_flight.store(count, Ordering::Relaxed);
    }
}

impl<K, V, E> TableState<K, V, E> {
    /// The flights of a hash, without the lone run.
    pub fn of_hash(&mut self, hash: u64) -> impl Iterator<Item = &mut TableFlight<K, V, E>> {
        self.flights.iter_hash_mut(hash).filter(move |flight| flight.hash == hash)
    }

    /// Finds a flight of a hash that a call may join: it is not superseded, and its number is not one of `excluded`.
    #[inline]
    pub fn find_joinable(&mut self, hash: u64, excluded: &[u64]) -> Option<(u64, &mut Joinable<K, V, E>)> {
        let can_join = |flight: &TableFlight<K, V, E>| {
            flight.joinable.is_some()
                && flight.hash == hash
                && !flight.is_superseded
                && !excluded.contains(&flight.number)
        };
        let flight = self.flights.find_mut(hash, can_join)?;
        Some((flight.number, flight.joinable.as_mut()?))
    }

    fn take(&mut self, hash: u64, number: u64) -> Option<TableFlight<K, V, E>> {
        if let Some(run) = self.lone_run.take_if(|run| run.number == number) {
            let Flight { is_superseded, is_held, .. } = run;
            return Some(Flight { hash, number, is_superseded, is_held, joinable: None });
        }
        let found = self.flights.find_entry(hash, |flight| flight.number == number);
        Some(found.ok()?.remove().0)
    }

    /// Marks the flights of a hash whose numbers satisfy the predicate.
    pub fn supersede(&mut self, hash: u64, is_target: impl Fn(u64) -> bool) {
        if let Some(run) = self.lone_run.as_mut().filter(|run| run.hash == hash && is_target(run.number)) {
            run.is_superseded = true;
        }
        let targets = self.of_hash(hash).filter(|flight| is_target(flight.number));
        targets.for_each(|flight| flight.is_superseded = true);
    }

    /// Returns whether there is a flight of a hash whose computation has not ended, and whose number satisfies the
    /// predicate.
    pub fn has_flight(&mut self, hash: u64, is_own: impl Fn(u64) -> bool) -> bool {
        let lone_run = self.lone_run.as_ref();
        lone_run.is_some_and(|run| run.hash == hash && !run.is_held && is_own(run.number))
            || self.of_hash(hash).any(|flight| !flight.is_held && is_own(flight.number))
    }

    /// Marks a run whose failure is kept.
    pub fn hold(&mut self, hash: u64, number: u64) {
        if let Some(run) = self.lone_run.as_mut().filter(|run| run.number == number) {
            run.is_held = true;
        } else if let Some(run) = self.flights.find_mut(hash, |flight| flight.number == number) {
            run.is_held = true;
        }
    }

    /// Returns whether a flight has a result at this address.
    pub fn has_result(&self, hash: u64, number: u64, address: *const ()) -> bool {
        let own = self.flights.find(hash, |flight| flight.number == number);
        let result = own.and_then(|flight| flight.joinable.as_ref()?.result.as_ref());
        result.is_some_and(|result| Arc::as_ptr(result).cast() == address)
    }

    pub fn supersede_all(&mut self) {
        self.lone_run.iter_mut().for_each(|run| run.is_superseded = true);
        self.flights.iter_mut().for_each(|flight| flight.is_superseded = true);
    }

    /// Returns whether a flight is superseded. One that is not in the table began before a fork. No write has marked
    /// it since, so it counts as superseded.
    pub fn is_superseded(&self, hash: u64, number: u64) -> bool {
        if let Some(run) = self.lone_run.as_ref().filter(|run| run.number == number) {
            return run.is_superseded;
        }
        let own = self.flights.find(hash, |flight| flight.number == number);
        own.is_none_or(|flight| flight.is_superseded)
    }

    /// Adds a flight and returns its number, or `None` if there is no memory.
    pub fn add(&mut self, hash: u64, joinable: impl FnOnce() -> Option<Joinable<K, V, E>>) -> Option<u64> {
        self.flights.try_reserve(1, |flight| flight.hash).ok()?;
        let number = self.take_number();
        let flight = Flight { hash, number, is_superseded: false, is_held: false, joinable: joinable() };
        self.flights.insert_unique(hash, flight, |flight| flight.hash);
        Some(number)
    }

    /// Adds a run and returns its number, or `None` if there is no memory.
    pub fn add_run(&mut self, hash: u64) -> Option<u64> {
        if self.lone_run.is_some() {
            return self.add(hash, || None);
        }
        let number = self.take_number();
        self.lone_run = Some(Flight { hash, number, is_superseded: false, is_held: false, joinable: () });
        Some(number)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}
