//! The cache: it picks the shard of a key, reads the clock once, and keeps all shards within one capacity.
//!
//! # How it works
//! A call goes to the shard of the key's hash. Afterwards the cache does what concerns all shards:
//! - If the total weight is still over the capacity and that shard has no candidate left, it evicts from other shards.
//! - If the earliest deadline of all shards is due, which one relaxed load tells, it removes due entries.
//!
//! `load` and `bulk_load` have computations of values, `maintenance` eviction, expiry and release, `cursor` iterations and removals of
//! many entries, `ranking` the hottest and the coldest entries, `resize` changes of the capacity.
//!
//! Every call puts removed entries into the caller's [`Removals`], even if it fails. The caller calls the listener for
//! each of them. Then it hands the list to [`Cache::release`], attached and with no lock held.

mod bulk_load;
mod cursor;
mod load;
mod maintenance;
mod ranking;
mod refresh;
mod resize;
pub(crate) mod seed;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::Config;
use crate::expiry::{CacheClock, Clock, Lifetime, NEVER, time_left_of};
use crate::map::query::KeyQuery;
use crate::map::removal::Removals;
use crate::reclaim::Handle;
use crate::reclaim::StripedRetireLists;
use crate::shard::shards::Shards;
use crate::shard::{Budget, Durations, Shard, Write, WriteKind, WriteOutcome, may_be_due};
use crate::single_flight::{Flights, OtherFlights};
use crate::sync::{AtomicU64, Padded, last_set_replaced};

pub use bulk_load::{BulkKey, BulkLoad, BulkWaits};
pub use cursor::Cursor;
pub use load::{Failure, RunStart};
pub use ranking::Ranking;
pub use refresh::NextRefresh;
pub use resize::Resize;

/// An in-process cache. `K` and `V` are one word wide, as references are; `E` is the error of a user's code.
pub struct Cache<K, V, E = std::convert::Infallible> {
    shards: Shards<K, V>,
    budget: Budget,
    /// No entry is due before this instant. Its orderings are in `maintenance`.
    earliest_due: Padded<AtomicU64>,
    flights: Flights<K, V, E>,
    retired: StripedRetireLists<(Option<K>, V)>,
    clock: CacheClock,
    config: Config,
}

/// A value to store.
pub struct NewValue<V> {
    pub value: V,
    pub weight: u32,
    /// The entry's own durations. If the cache has durations too, the shorter one counts.
    pub lifetime: Lifetime,
    /// Whether the cache keeps the value. One that it does not keep counts as expired when it is written.
    pub is_kept: bool,
}

impl<V> NewValue<V> {
    /// Creates a value of weight 1 without durations of its own.
    pub fn plain(value: V) -> Self {
        NewValue { value, weight: 1, lifetime: Lifetime::default(), is_kept: true }
    }
}

impl<K, V, E> Cache<K, V, E>
where
    K: Handle,
    V: Handle,
    E: Clone + Send + Sync + 'static,
{
    pub fn new(config: Config, clock: Clock) -> Self {
        Cache {
            shards: Shards::new(),
            budget: Budget::new(config.capacity),
            earliest_due: Padded(AtomicU64::new(NEVER)),
            flights: Flights::new(config.capacity),
            retired: StripedRetireLists::new(),
            clock: CacheClock::new(clock),
            config,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn clock(&self) -> &CacheClock {
        &self.clock
    }

    /// Returns the most that all entries may weigh together.
    pub fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// Returns the value of a key. It counts as an access.
    #[inline]
    pub fn get<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let now = self.now();
        let Some(shard) = self.shards.get(query.hash()) else { return Ok(None) };
        let value = shard.get(query, true, now, &self.clock, removed);
        self.maintain(now, removed);
        value
    }

    /// Like [`Cache::get`], if that needs neither a user's code nor maintenance. Otherwise it returns `None`.
    #[inline(always)]
    pub fn try_get_fast<Q: KeyQuery<K>>(&self, query: &Q) -> Option<Option<V>> {
        self.try_get_fast_of::<false, Q>(query)
    }

    #[inline(always)]
    fn try_get_fast_of<const FOR_LOAD: bool, Q: KeyQuery<K>>(&self, query: &Q) -> Option<Option<V>> {
        let now = self.now_if_nothing_due()?;
        match self.shards.get(query.hash()) {
            Some(shard) => shard.try_get_fast::<FOR_LOAD, Q>(query, now, &self.clock),
            None => Some(None),
        }
    }

    /// Returns the value of a key. It does not count as an access.
    pub fn peek<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let now = self.now();
        let Some(shard) = self.shards.get(query.hash()) else { return Ok(None) };
        let value = shard.get(query, false, now, &self.clock, removed);
        self.maintain(now, removed);
        value
    }

    /// Returns the remaining time of a key's entry. It does not count as an access.
    pub fn expires_in<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<Duration>, Q::Error> {
        match self.shards.get(query.hash()) {
            Some(shard) => shard.expires_in(query, &self.clock, removed),
            None => Ok(None),
        }
    }

    /// Stores a value.
    #[inline]
    pub fn set<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        mut new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<(), Q::Error> {
        if last_set_replaced()
            && new.lifetime.is_endless()
            && new.is_kept
            && let Some(shard) = self.shards.get(query.hash())
        {
            let has_no_flights = || self.flights.has_no_flights(query.hash());
            match shard.replace_fast(query, new.value, has_no_flights, removed) {
                Ok(()) => {
                    self.maintain(self.now(), removed);
                    return Ok(());
                }
                Err(value) => new.value = value,
            }
        }
        if !self.flights.has_no_flights(query.hash()) {
            return self.set_beside_flights(query, new, removed);
        }
        // A flight that begins before the lock is taken is superseded, even if it is for another key of this hash.
        let hash = query.hash();
        let may_write = || {
            self.supersede_hash(hash);
            true
        };
        self.write(query, new, WriteKind::Set, may_write, removed).map(drop)
    }

    #[cold]
    fn set_beside_flights<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<(), Q::Error> {
        let supersede = self.superseder(query)?;
        let may_write = || {
            supersede();
            true
        };
        self.write(query, new, WriteKind::Set, may_write, removed).map(drop)
    }

    /// Stores a value if the key is absent. Otherwise it returns the present value, which counts as an access.
    pub fn set_if_absent<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let supersede = self.superseder(query)?;
        let may_write = || {
            supersede();
            true
        };
        match self.write(query, new, WriteKind::SetIfAbsent, may_write, removed)? {
            WriteOutcome::NotWritten(value) => Ok(value),
            WriteOutcome::Written => Ok(None),
        }
    }

    /// Stores a value if `is_same` holds for the present one, or for `None` if the key is absent. Returns the value if it
    /// was not stored.
    ///
    /// A present entry keeps its deadlines, unless `new.lifetime` has durations: then both deadlines start anew, and a
    /// duration that is not given stays the entry's own. `is_same` is called under the lock. It must not block, drop
    /// anything or run foreign code.
    pub fn set_if_same<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        is_same: impl Fn(Option<&V>) -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let supersede = self.superseder(query)?;
        self.update(query, new, is_same, supersede, removed)
    }

    /// Does what [`set_if_same`](Self::set_if_same) does. `supersede` is called under the lock before the value is
    /// stored.
    fn update<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        is_same: impl Fn(Option<&V>) -> bool,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let NewValue { value, weight, lifetime: given, is_kept } = new;
        let durations = Durations::new(given, &self.config);
        let lifetime = self.config.lifetime.min(given);
        let write = Write { value, weight, lifetime, is_kept, kind: WriteKind::Set };
        let now = || self.now_of_write(lifetime);
        let shard = self.shards.get_or_init(query.hash(), &self.config, &self.budget);
        let (unwritten, now) = shard.set_if_same(
            query,
            write,
            &durations,
            is_same,
            &self.budget,
            &self.clock,
            now,
            supersede,
            removed,
        )?;
        self.finish_write(query.hash(), shard, lifetime, now, removed);
        Ok(unwritten)
    }

    /// Starts the deadlines of a key's entry anew: with the durations of `given`, and else with the entry's own. It
    /// counts as an access. Returns whether there is such an entry.
    pub fn touch<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        given: Lifetime,
        removed: &mut Removals<K, V>,
    ) -> Result<bool, Q::Error> {
        let Some(shard) = self.shards.get(query.hash()) else { return Ok(false) };
        let durations = Durations::new(given, &self.config);
        let now = || if given.is_endless() { self.now() } else { self.clock.now() };
        let (is_present, now) = shard.touch(query, &durations, &self.budget, &self.clock, now, removed)?;
        if !given.is_endless() {
            self.schedule(shard.next_due());
        }
        self.maintain(now, removed);
        Ok(is_present)
    }

    /// Returns how long no entry becomes due, which is at most the time until one is; `None` if no entry has a deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        let due = self.shards.all().iter().map(Shard::earliest_deadline).min().filter(|&due| due != NEVER)?;
        let now = self.clock.now();
        // A bound within a tick may be late (`Shard::earliest_deadline`).
        Some(if may_be_due(due, now) { Duration::ZERO } else { time_left_of(now, 0, due) })
    }

    /// Removes the entry of a key and returns its value.
    #[inline]
    pub fn remove<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        if !self.flights.has_no_flights(query.hash()) {
            return self.remove_beside_flights(query, removed);
        }
        let hash = query.hash();
        self.remove_and_supersede(query, || self.supersede_hash(hash), removed)
    }

    #[cold]
    fn remove_beside_flights<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        let supersede = self.superseder(query)?;
        self.remove_and_supersede(query, supersede, removed)
    }

    /// Removes an entry. `supersede` is called under the shard lock.
    #[inline]
    fn remove_and_supersede<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        supersede: impl Fn(),
        removed: &mut Removals<K, V>,
    ) -> Result<Option<V>, Q::Error> {
        self.shards.fence_before_first_load();
        // Without a shard there is no entry, and no computation that began before.
        let Some(shard) = self.shards.get(query.hash()) else { return Ok(None) };
        let value = shard.remove(query, || self.now(), &self.budget, supersede, removed);
        self.maintain(self.now(), removed);
        value
    }

    /// Removes and returns some entry, preferably a cold one.
    pub fn pop_any(&self, removed: &mut Removals<K, V>) -> Option<(K, V)> {
        let now = self.now();
        self.shards
            .all()
            .iter()
            .find_map(|shard| shard.pop_any(now, &self.budget, |hash| self.supersede_hash(hash), removed))
    }

    /// Returns how many entries there are. All due entries are removed first.
    pub fn count(&self, removed: &mut Removals<K, V>) -> usize {
        self.totals(removed).0
    }

    /// Returns the weight of all entries. All due entries are removed first.
    pub fn weight(&self, removed: &mut Removals<K, V>) -> u64 {
        self.expire_all(removed);
        self.budget.used()
    }

    /// Returns how many entries there are, and their weight. All due entries are removed first.
    pub fn totals(&self, removed: &mut Removals<K, V>) -> (usize, u64) {
        self.expire_all(removed);
        self.totals_with_due()
    }

    /// Returns how many entries there are, and their weight. It removes nothing, so entries that are due count too.
    pub fn totals_with_due(&self) -> (usize, u64) {
        (self.shards.all().iter().map(Shard::count).sum(), self.budget.used())
    }

    /// Visits every key and value for the garbage collector, which calls while no thread is in a call.
    pub fn for_each(&self, mut visit: impl FnMut(Option<&K>, &V)) {
        for shard in self.shards.all() {
            shard.for_each(|key, value| visit(Some(key), value));
        }
        self.retired.each(|(key, value)| visit(key.as_ref(), value));
    }

    /// Returns a closure that supersedes the computations of a key that is written to. It is called under the shard
    /// lock.
    ///
    /// Computations of other keys with the same hash are compared now, since the lock forbids it later (law 1).
    fn superseder<Q: KeyQuery<K>>(&self, query: &Q) -> Result<impl Fn(), Q::Error> {
        let other_flights = self.flights.other_flights(query)?;
        let hash = query.hash();
        Ok(move || self.flights.supersede(hash, &other_flights))
    }

    /// Supersedes all computations of a hash. It is called under the shard lock.
    #[inline]
    fn supersede_hash(&self, hash: u64) {
        // A computation of another key with the same hash loses its result too. That is harmless.
        self.flights.supersede(hash, &OtherFlights::new());
    }

    /// Stores a value, unless `may_write` returns false under the shard lock.
    #[inline]
    fn write<Q: KeyQuery<K>>(
        &self,
        query: &Q,
        new: NewValue<V>,
        kind: WriteKind,
        may_write: impl Fn() -> bool,
        removed: &mut Removals<K, V>,
    ) -> Result<WriteOutcome<V>, Q::Error> {
        let NewValue { value, weight, lifetime, is_kept } = new;
        let lifetime = self.config.lifetime.min(lifetime);
        let now = || self.now_of_write(lifetime);
        let shard = self.shards.get_or_init(query.hash(), &self.config, &self.budget);
        let write = Write { value, weight, lifetime, is_kept, kind };
        let (outcome, now) = shard.set(query, write, &self.budget, now, may_write, removed)?;
        self.finish_write(query.hash(), shard, lifetime, now, removed);
        Ok(outcome)
    }

    /// Returns the instant of a write, or 0 if neither the write nor an entry needs one.
    #[inline(always)]
    fn now_of_write(&self, lifetime: Lifetime) -> u64 {
        if lifetime.is_endless() && self.config.refresh == 0 { self.now() } else { self.clock.now() }
    }

    /// Does what concerns all shards after a write to one of them.
    #[inline(always)]
    fn finish_write(
        &self,
        hash: u64,
        shard: &Shard<K, V>,
        lifetime: Lifetime,
        now: u64,
        removed: &mut Removals<K, V>,
    ) {
        if !lifetime.is_endless() {
            self.schedule(shard.next_due());
        }
        if self.budget.is_over(0) {
            self.evict_from_neighbours(hash, now, removed);
        }
        self.maintain(now, removed);
    }

    /// Checks all invariants, while no other thread is in a call. For tests.
    #[cfg(any(test, debug_assertions))]
    pub fn validate(&self) {
        let weight: u64 = self.shards.all().iter().map(Shard::validate).sum();
        assert_eq!(weight, self.budget.used(), "the budget has the weight of all shards");
        assert!(weight <= self.budget.capacity(), "the total weight fits the capacity");
    }
}
