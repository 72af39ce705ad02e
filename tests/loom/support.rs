//! Keys, queries and caches for the models.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Time, AtomicUsize as Count, Ordering::Relaxed as Beside};

use moka_py::{
    BulkKey, Cache, Cause, Clock, Config, Cursor, Failure, Handle, KeyQuery, Kind, Lifetime, LoadError,
    LoadLookup, NewValue, NextRefresh, RefreshClaim, Removals, RunStart, SHARD_SHIFT,
};

use crate::runner::{self, IS_INSIDE, JoinHandle, Shared};

pub use crate::runner::model;

pub type Error = &'static str;

impl Handle for Shared {}

/// A query for a key.
pub struct Query {
    key: Shared,
    hash: u64,
    /// Whether comparisons run a user's code.
    user_eq: bool,
    /// The number of user-defined comparisons before they fail.
    comparisons_left: Cell<usize>,
}

impl KeyQuery<Shared> for Query {
    type Error = Error;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn key(&self) -> Shared {
        self.key.clone()
    }

    fn eq_builtin(&self, key: &Shared) -> Option<bool> {
        (!self.user_eq).then_some(key.word() == self.key.word())
    }

    fn eq_slow(&self, key: &Shared) -> Result<bool, Error> {
        self.comparisons_left.set(self.comparisons_left.get().checked_sub(1).ok_or("no patience")?);
        Ok(key.word() == self.key.word())
    }

    fn ptr_eq(a: &Shared, b: &Shared) -> bool {
        a.is(b)
    }
}

/// One removal: key, value, cause. Without a listener, the key of a replaced value is 0.
pub type Event = (u64, u64, Cause);

/// A cache in a model.
pub struct World {
    cache: Cache<Shared, Shared, Error>,
    time: Arc<Time>,
    alive: Arc<Count>,
    hash: fn(u64) -> u64,
    user_eq: bool,
}

/// Gives keys separate home slots in the smallest table. Even and odd keys are in different shards.
pub fn separate_homes(id: u64) -> u64 {
    id << 62 | id << 32 | (id & 1) << SHARD_SHIFT
}

/// Gives all keys the same home slot, and so the same probe, with different tags.
pub fn one_home(id: u64) -> u64 {
    id << 32
}

/// Gives all keys the same hash.
pub fn one_hash(_: u64) -> u64 {
    0
}

impl World {
    pub fn new(capacity: u64, weighted: bool, hash: fn(u64) -> u64) -> Self {
        Self::of(Config { weighted, has_listener: true, ..Config::new(capacity, Kind::Lru) }, hash)
    }

    /// A cache without a listener.
    pub fn without_listener(capacity: u64, hash: fn(u64) -> u64) -> Self {
        Self::of(Config::new(capacity, Kind::Lru), hash)
    }

    /// A cache that computes values anew which were set longer ago than `refresh`.
    pub fn refreshing(capacity: u64, refresh: u64, hash: fn(u64) -> u64) -> Self {
        Self::of(Config { refresh, has_listener: true, ..Config::new(capacity, Kind::Lru) }, hash)
    }

    fn of(config: Config, hash: fn(u64) -> u64) -> Self {
        let time = Arc::new(Time::new(0));
        let cache = Cache::new(config, Clock::Manual(time.clone()));
        World { cache, time, alive: Arc::default(), hash, user_eq: false }
    }

    /// The same cache with user-defined comparisons.
    pub fn with_user_eq(self) -> Self {
        World { user_eq: true, ..self }
    }

    pub fn now(&self) -> u64 {
        self.time.load(Beside)
    }

    pub fn advance(&self, by: u64) {
        self.time.fetch_add(by, Beside);
    }

    fn query(&self, id: u64) -> Query {
        let comparisons_left = Cell::new(usize::MAX);
        Query {
            key: Shared::new(id, &self.alive),
            hash: (self.hash)(id),
            user_eq: self.user_eq,
            comparisons_left,
        }
    }

    fn stored(&self, word: u64) -> NewValue<Shared> {
        NewValue::plain(Shared::new(word, &self.alive))
    }

    /// Calls the core as the Python layer does. Returns the events, too.
    fn call<R>(
        &self,
        body: impl FnOnce(&Cache<Shared, Shared, Error>, &mut Removals<Shared, Shared>) -> R,
    ) -> (R, Vec<Event>) {
        let mut removed = Removals::new();
        IS_INSIDE.with(|inside| inside.set(true));
        let result = body(&self.cache, &mut removed);
        IS_INSIDE.with(|inside| inside.set(false));
        let has_listener = self.cache.config().has_listener;
        let to_event = |key: Option<&Shared>, value: &Shared, cause| {
            assert!(key.is_some() || !has_listener, "a listener gets the key");
            (key.map_or(0, Shared::word), value.word(), cause)
        };
        let events = removed.iter().map(|one| to_event(one.key(), one.value(), one.cause())).collect();
        self.cache.release(&mut removed);
        (result, events)
    }

    pub fn get_with_events(&self, id: u64) -> (Option<u64>, Vec<Event>) {
        let query = self.query(id);
        let (found, events) = self.call(|cache, removed| cache.get(&query, removed));
        (found.expect("no key fails").map(|value| value.word()), events)
    }

    pub fn get(&self, id: u64) -> Option<u64> {
        self.get_with_events(id).0
    }

    pub fn set(&self, id: u64, word: u64) -> Vec<Event> {
        self.store(id, self.stored(word))
    }

    pub fn set_with_weight(&self, id: u64, word: u64, weight: u32) -> Vec<Event> {
        self.store(id, NewValue { weight, ..self.stored(word) })
    }

    pub fn set_with_lifetime(&self, id: u64, word: u64, ttl: u64, tti: u64) -> Vec<Event> {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti }, ..self.stored(word) })
    }

    fn store(&self, id: u64, stored: NewValue<Shared>) -> Vec<Event> {
        let query = self.query(id);
        let (done, events) = self.call(|cache, removed| cache.set(&query, stored, removed));
        done.expect("no key fails");
        events
    }

    /// Returns the value of a key, as the same object.
    pub fn value_of(&self, id: u64) -> Shared {
        let query = self.query(id);
        self.call(|cache, removed| cache.peek(&query, removed))
            .0
            .expect("no key fails")
            .expect("the key is present")
    }

    pub fn set_value_with_lifetime(&self, id: u64, value: Shared, ttl: u64) -> Vec<Event> {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti: 0 }, ..NewValue::plain(value) })
    }

    /// Changes the capacity. Returns the events of all steps.
    pub fn resize(&self, capacity: u64) -> Vec<Event> {
        let mut resize = self.cache.begin_resize(capacity);
        let mut events = Vec::new();
        loop {
            let (has_more, more) = self.call(|_, removed| resize.step(removed));
            events.extend(more);
            if !has_more {
                return events;
            }
        }
    }

    pub fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    pub fn set_if_absent(&self, id: u64, word: u64) -> Option<u64> {
        let query = self.query(id);
        // The caller has a reference, too, even if the value is not stored.
        let value = Shared::new(word, &self.alive);
        let stored = NewValue::plain(value.clone());
        let kept = self.call(|cache, removed| cache.set_if_absent(&query, stored, removed)).0;
        kept.expect("no key fails").map(|value| value.word())
    }

    /// Adds to the value of a key, which is 0 if the key is absent. Returns the new value.
    pub fn add_with_events(&self, id: u64, more: u64) -> (u64, Vec<Event>) {
        let query = self.query(id);
        let mut events = Vec::new();
        loop {
            let (seen, before) = self.call(|cache, removed| cache.peek(&query, removed));
            let seen = seen.expect("no key fails");
            let word = seen.as_ref().map_or(0, Shared::word) + more;
            let is_same = |present: Option<&Shared>| match (&seen, present) {
                (Some(seen), Some(present)) => seen.is(present),
                (None, None) => true,
                _ => false,
            };
            let new = self.stored(word);
            let (unwritten, after) =
                self.call(|cache, removed| cache.set_if_same(&query, new, is_same, removed));
            events.extend(before.into_iter().chain(after));
            if unwritten.expect("no key fails").is_none() {
                return (word, events);
            }
        }
    }

    /// Starts the deadlines of a key anew. Returns whether it has a value.
    pub fn touch(&self, id: u64, ttl: u64, tti: u64) -> (bool, Vec<Event>) {
        let query = self.query(id);
        let (touched, events) =
            self.call(|cache, removed| cache.touch(&query, Lifetime { ttl, tti }, removed));
        (touched.expect("no key fails"), events)
    }

    /// Iterates, and removes each entry that still has this value.
    pub fn remove_all_if(&self, word: u64) {
        let mut cursor = Cursor::default();
        while let Some((_, value)) = self.cache.next_entry(&mut cursor) {
            if value.word() == word {
                let is_seen = |_: &Shared, now: &Shared| now.is(&value);
                self.call(|cache, removed| cache.remove_last_yielded(&cursor, is_seen, removed));
            }
        }
    }

    pub fn remove(&self, id: u64) -> (Option<u64>, Vec<Event>) {
        let query = self.query(id);
        let (removed, events) = self.call(|cache, removed| cache.remove(&query, removed));
        (removed.expect("no key fails").map(|value| value.word()), events)
    }

    /// Returns the value of a key, which `compute` makes if the key is absent. The last waiter of a computation drops
    /// its remains, inside its own call.
    pub fn get_with(
        &self,
        id: u64,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Result<u64, LoadError<Error>> {
        self.get_with_failing_eq(id, usize::MAX, compute)
    }

    /// The same, with user-defined comparisons that fail after a number of them.
    pub fn get_with_failing_eq(
        &self,
        id: u64,
        comparisons_left: usize,
        compute: impl FnOnce() -> Result<u64, Failure<Error>>,
    ) -> Result<u64, LoadError<Error>> {
        let query = self.query(id);
        query.comparisons_left.set(comparisons_left);
        let mut removed = Removals::new();
        let compute = || compute().map(|word| NewValue::plain(Shared::new(word, &self.alive)));
        let mut pause = |park: &(dyn Fn() + Sync)| {
            park();
            Ok(())
        };
        let got = self.cache.get_with(&query, compute, &mut pause, &mut removed);
        self.cache.release(&mut removed);
        got.map(|value| value.word())
    }

    /// Returns the values of keys, by key. `load` makes those of all keys that this call leads, and may make more.
    pub fn load_many(&self, ids: &[u64], load: impl FnOnce(&[u64]) -> Vec<(u64, u64)>) -> BTreeMap<u64, u64> {
        let mut removed = Removals::new();
        let mut bulk = self.cache.begin_bulk_load();
        let (mut values, mut led, mut awaited) = (BTreeMap::new(), Vec::new(), Vec::new());
        for &id in ids {
            match bulk.begin(&self.query(id), &mut removed).expect("no key fails") {
                BulkKey::Present(value) => drop(values.insert(id, value.word())),
                BulkKey::Lead => led.push(id),
                BulkKey::Wait => awaited.push(id),
            }
        }
        if !led.is_empty() {
            let mut loaded: BTreeMap<_, _> = load(&led).into_iter().collect();
            values.extend(&loaded);
            for id in led {
                let new = loaded.remove(&id).map(|word| self.stored(word));
                bulk.complete_next(&self.query(id), new, &mut removed).expect("no key fails");
            }
            for (id, word) in loaded {
                let inserted =
                    self.cache.insert_unless_in_flight(&self.query(id), self.stored(word), &mut removed);
                drop(inserted.expect("no key fails"));
            }
        }
        let mut waits = bulk.into_waits();
        for id in awaited {
            let mut pause = |park: &(dyn Fn() + Sync)| {
                park();
                Ok(())
            };
            let value = waits.wait_next(&self.query(id), &mut pause, &mut removed).expect("no key fails");
            values.extend(value.map(|value| (id, value.word())));
        }
        self.cache.release(&mut removed);
        values
    }

    /// Returns the value of a key. If it is absent, `compute` makes it in a run that no other call waits for.
    pub fn run(&self, id: u64, compute: impl FnOnce() -> u64) -> u64 {
        let query = self.query(id);
        if let Some(word) = self.get(id) {
            return word;
        }
        let run = match self.call(|cache, removed| cache.begin_run(&query, removed)).0.expect("no key fails")
        {
            RunStart::Present(value) => return value.word(),
            RunStart::Run(run) => run,
        };
        let word = compute();
        // The caller has a reference, too, even if the value is not stored.
        let value = Shared::new(word, &self.alive);
        let stored = NewValue::plain(value.clone());
        let kept = self.call(|cache, removed| cache.complete_run(&query, run, stored, removed)).0;
        kept.expect("no key fails");
        word
    }

    /// Calls with a loader: returns the value of a key, and claims its refresh if that is due.
    pub fn look_up(&self, id: u64) -> (Option<u64>, Option<RefreshClaim>) {
        let query = self.query(id);
        let found = self.call(|cache, removed| cache.get_for_load(&query, removed)).0;
        match found.expect("no key fails") {
            LoadLookup::Absent => (None, None),
            LoadLookup::Fresh(value) => (Some(value.word()), None),
            LoadLookup::Stale(value, claim) => (Some(value.word()), Some(claim)),
        }
    }

    /// Computes a value anew whose refresh was claimed, as a flight. Returns the new value, if there was anything to
    /// compute.
    pub fn refresh(&self, id: u64, claim: RefreshClaim, compute: impl FnOnce() -> u64) -> Option<u64> {
        let query = self.query(id);
        let mut removed = Removals::new();
        let compute = || Ok(self.stored(compute()));
        let new = self.cache.refresh(&query, claim, compute, &mut removed).expect("nothing fails");
        self.cache.release(&mut removed);
        self.cache.release_claim(claim, NextRefresh::Now);
        new.map(|value| value.word())
    }

    /// The same as a run, which no other call waits for.
    pub fn refresh_by_run(&self, id: u64, claim: RefreshClaim, compute: impl FnOnce() -> u64) -> Option<u64> {
        let query = self.query(id);
        let run = self.call(|cache, _| cache.begin_refresh_run(&query, claim)).0.expect("no key fails")?;
        let word = compute();
        // The caller has a reference, too, even if the value is not stored.
        let value = Shared::new(word, &self.alive);
        let new = NewValue::plain(value.clone());
        let kept = self.call(|cache, removed| cache.complete_refresh_run(&query, run, new, removed)).0;
        kept.expect("no key fails");
        self.cache.release_claim(claim, NextRefresh::Now);
        Some(word)
    }

    pub fn release_claim(&self, claim: RefreshClaim) {
        self.cache.release_claim(claim, NextRefresh::Now);
    }

    /// Supersedes all computations in flight, as `remove_if` does before it calls its predicate.
    pub fn supersede_all(&self) {
        self.cache.supersede_all();
    }

    /// Returns keys and values by iteration, sorted by key.
    pub fn entries(&self) -> Vec<(u64, u64)> {
        let mut cursor = Cursor::default();
        let next = || self.cache.next_entry(&mut cursor).map(|(key, value)| (key.word(), value.word()));
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable();
        entries
    }

    pub fn clear(&self) {
        let mut cursor = Cursor::default();
        while self.call(|cache, removed| cache.clear_batch(&mut cursor, removed)).0 {}
    }

    /// Returns the number of living keys and values, inside and outside the cache.
    pub fn alive(&self) -> usize {
        self.alive.load(Beside)
    }

    pub fn flush(&self) {
        self.cache.flush();
    }

    pub fn count(&self) -> usize {
        self.call(|cache, removed| cache.count(removed)).0
    }

    pub fn weight(&self) -> u64 {
        self.call(|cache, removed| cache.weight(removed)).0
    }

    /// Ends the model after its threads: checks the invariants, and that nothing outlives the cache.
    pub fn end(self: Arc<Self>) {
        let World { cache, alive, .. } = Arc::into_inner(self).expect("the threads have ended");
        cache.validate();
        cache.flush();
        drop(cache);
        assert_eq!(alive.load(Beside), 0, "nothing lives on");
    }
}

/// Starts a thread of the model.
pub fn spawn<R: Send + 'static>(
    world: &Arc<World>,
    body: impl FnOnce(&World) -> R + Send + 'static,
) -> JoinHandle<R> {
    let world = world.clone();
    runner::spawn(move || body(&world))
}

/// Replaces key 1's value 10 in the only thread, beside a second thread that reads it.
pub fn replace_beside_a_second_thread(world: &Arc<World>) {
    let second = spawn(world, |world| world.get(1));
    world.set(1, 11);
    world.set(1, 12);
    assert!([Some(10), Some(11), Some(12)].contains(&second.join().expect("no panic")));
}

/// Replaces key 1's value 10 by 11 beside its removal, and ends the model. One must come after the other.
pub fn replace_beside_a_removal(world: Arc<World>) {
    let writer = spawn(&world, |world| world.set(1, 11));
    let (removed, _) = world.remove(1);
    let replaced = writer.join().expect("no panic");
    end_after_a_removal(world, removed, &replaced);
}

/// Checks the same from the removed value and the events of the replacement, and ends the model.
pub fn end_after_a_removal(world: Arc<World>, removed: Option<u64>, replaced: &[Event]) {
    let expected = match removed {
        Some(10) => Some(11),
        Some(11) => None,
        other => panic!("{other:?} was never the value"),
    };
    assert_eq!(replaced.is_empty(), removed == Some(10), "{removed:?}, {replaced:?}");
    assert_eq!(world.get(1), expected);
    world.end();
}
