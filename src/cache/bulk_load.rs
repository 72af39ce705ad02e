//! Loads of many keys by one call, which computes all their values at once.
//!
//! # How it works
//! The call begins each key ([`BulkLoad::begin`]). A key has a value, or the call leads the flight of the key, or another call
//! does. The caller then computes the values of the keys that it leads, and ends their flights: by
//! [`BulkLoad::complete_next`] with the values, or by [`BulkLoad::fail`]. Only after that does it wait for the flights of other
//! calls ([`BulkLoad::into_waits`]). A computation may give values of more keys than it was asked for
//! ([`Cache::insert_unless_in_flight`]).
//!
//! # Invariants
//! - `lead-then-wait`: while the call waits, it leads no flight of the same load. So two bulk loads never wait for each other.
//!   A [`BulkWaits`] is made of a [`BulkLoad`], whose remaining flights end with that.
//!
//! # Orderings
//! Those of a single load: each flight is registered, passes through the shard lock, and looks the key up again (`load.rs`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::reclaim::Handle;
use crate::single_flight::{FlightResult, Leader, LoadError, Outcome, Role, WaitStep};

use super::{Cache, NewValue, WriteKind};

/// The part of a bulk load that concerns one key.
pub enum BulkKey<V> {
    /// Nothing: the key has this value.
    Present(V),
    /// Compute a value: the load leads the flight of the key.
    Lead,
    /// Wait: another call leads the flight of the key.
    Wait,
}

/// A load of many keys, before and during its computation. If it is dropped, its flights are abandoned.
pub struct BulkLoad<'c, K, V, E> {
    cache: &'c Cache<K, V, E>,
    /// The flights that the load leads, in the order in which they began.
    leaders: VecDeque<Leader<'c, K, V, E>>,
    /// The flights of other calls, in the order in which this load met them.
    waits: Vec<Arc<FlightResult<V, E>>>,
}

/// The flights that a bulk load waits for after it has ended its own.
pub struct BulkWaits<'c, K, V, E> {
    cache: &'c Cache<K, V, E>,
    waits: vec::IntoIter<Arc<FlightResult<V, E>>>,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Begins a load of many keys.
    pub fn begin_bulk_load(&self) -> BulkLoad<'_, K, V, E> {
        BulkLoad { cache: self, leaders: VecDeque::new(), waits: Vec::new() }
    }

    /// Stores a value, unless the key has one or a computation of it is in flight. Returns the value if it was not stored.
    ///
    /// It does not count as an access. A run does not name its key, so a run of any key with the same hash counts as one of
    /// this key.
    pub fn insert_unless_in_flight<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        // Compared now, since the lock forbids it later (law 1).
        let other_flights = self.flights.other_flights(query)?;
        let hash = query.hash();
        // A flight that begins later passes through the lock, and then finds the value.
        let may_insert =
            |present: Option<&V>| present.is_none() && !self.flights.is_in_flight(hash, &other_flights);
        self.update(query, new, may_insert, || (), removed)
    }
}

impl<K, V, E> BulkLoad<'_, K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Looks up a key, which counts as an access, and begins or joins its flight if it has no value.
    ///
    /// The load must not have begun an equal key. Refuses a key that is already computed by this thread, and one whose
    /// computation waits for this thread.
    pub fn begin<Q: KeyQuery<K, Error = E>>(
        &mut self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<BulkKey<V>, LoadError<E>> {
        let cache = self.cache;
        let found = match cache.try_get_fast(query) {
            Some(found) => found,
            None => cache.get(query, removed)?,
        };
        if let Some(value) = found {
            return Ok(BulkKey::Present(value));
        }
        // Reserved first, so that nothing can fail between the registration of a flight and the entry in the list.
        let has_memory = self.leaders.try_reserve(1).is_ok() && self.waits.try_reserve(1).is_ok();
        if !has_memory {
            return Err(LoadError::User(query.no_memory()));
        }
        match cache.flights.join(query)? {
            Role::Wait(flight) => {
                if flight.waits_for_this_thread(|own| self.leads(own)) {
                    return Err(LoadError::Deadlock);
                }
                self.waits.push(flight);
                Ok(BulkKey::Wait)
            }
            Role::Lead(leader) => {
                cache.fence_after_register(query);
                // Another thread, or a user's `__eq__`, may have stored a value since the first look.
                if let Some(value) = cache.peek(query, removed)? {
                    leader.complete(Outcome::Value(value.clone()));
                    return Ok(BulkKey::Present(value));
                }
                self.leaders.push_back(leader);
                Ok(BulkKey::Lead)
            }
        }
    }

    /// Whether the load leads this flight.
    fn leads(&self, flight: *const ()) -> bool {
        self.leaders.iter().any(|leader| leader.has_result(flight))
    }

    /// Ends the flight of the next key that the load leads, and stores its value, unless a write superseded the flight.
    ///
    /// Without a value the flight is abandoned. After an error the waiters have the value nevertheless.
    pub fn complete_next<Q: KeyQuery<K, Error = E>>(
        &mut self,
        query: &Q,
        new: Option<NewValue<V>>,
        removed: &mut Removals<K, V>,
    ) -> Result<(), E> {
        let leader = self.leaders.pop_front().expect("the load leads the flight of the key");
        let Some(new) = new else { return Ok(()) };
        // The cache keeps the computed reference itself, which may be counted in a special way for that.
        let value = new.value.clone();
        let written = self.cache.write(query, new, WriteKind::Set, || !leader.is_superseded(), removed);
        leader.complete(Outcome::Value(value));
        written.map(drop)
    }

    /// Ends all flights that the load leads with the error of a failure. With `None`, the calls that wait compute for
    /// themselves.
    pub fn fail(self, for_waiters: Option<E>) {
        let Some(error) = for_waiters else { return };
        for leader in self.leaders {
            leader.complete(Outcome::Failed(error.clone()));
        }
    }
}

impl<'c, K, V, E> BulkLoad<'c, K, V, E> {
    /// Returns the flights that the load waits for. Flights that it still leads are abandoned.
    pub fn into_waits(self) -> BulkWaits<'c, K, V, E> {
        BulkWaits { cache: self.cache, waits: self.waits.into_iter() }
    }
}

impl<K, V, E> BulkWaits<'_, K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    /// Waits for the flight of the next key for which the load has to wait, and returns the value of the key.
    ///
    /// If the leader of the flight gave up, it returns the value that the key has now, if any.
    pub fn wait_next<Q: KeyQuery<K, Error = E>>(
        &mut self,
        query: &Q,
        wait_step: &mut WaitStep<'_, E>,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, LoadError<E>> {
        let flight = self.waits.next().expect("the load waits for the flight of the key");
        match flight.wait(wait_step)? {
            Outcome::Value(value) => Ok(Some(value)),
            Outcome::Failed(error) => Err(LoadError::User(error)),
            Outcome::Abandoned => Ok(self.cache.get(query, removed)?),
        }
    }
}
