//! A cache in one thread, and calls of the core as the Python layer makes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use moka_py::{
    BulkKey, Cache, Cause, Clock, Config, Cursor, Failure, Handle, KeyQuery, Kind, Lifetime, LoadError,
    NewValue, Removals, WaitStep,
};

use super::{BuiltinEqQuery, Error, Key, LiveCount, Value, is_same_value};

pub type TestCache = Cache<Key, Value, Error>;

/// One removal, as the listener gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Option<u64>,
    pub value: u64,
    pub cause: Cause,
}

pub fn event(key: u64, value: u64, cause: Cause) -> Event {
    Event { key: Some(key), value, cause }
}

/// Calls the core as the Python layer does: with a list of removals, which are reported and released afterwards.
pub fn call<R>(cache: &TestCache, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> (R, Vec<Event>) {
    let mut removed = Removals::new();
    let result = body(&mut removed);
    let events = removed
        .iter()
        .map(|one| Event { key: one.key().map(Key::id), value: one.value().word(), cause: one.cause() })
        .collect();
    cache.release(&mut removed);
    (result, events)
}

/// Loads many keys as the Python layer does. `load` gets the keys that the call leads, and returns values of any keys.
pub fn load_many<Q: KeyQuery<Key, Error = Error>>(
    cache: &TestCache,
    ids: &[u64],
    query: impl Fn(u64) -> Q,
    load: impl FnOnce(&[u64]) -> Result<BTreeMap<u64, NewValue<Value>>, Failure<Error>>,
    wait_step: &mut WaitStep<'_, Error>,
) -> Result<BTreeMap<u64, Value>, LoadError<Error>> {
    let mut removed = Removals::new();
    let mut values = BTreeMap::new();
    let run = || {
        let mut bulk = cache.begin_bulk_load();
        let (mut led, mut awaited) = (Vec::new(), Vec::new());
        for &id in ids {
            match bulk.begin(&query(id), &mut removed)? {
                BulkKey::Present(value) => drop(values.insert(id, value)),
                BulkKey::Lead => led.push(id),
                BulkKey::Wait => awaited.push(id),
            }
        }
        if !led.is_empty() {
            let mut loaded = match load(&led) {
                Ok(loaded) => loaded,
                Err(Failure { error, for_waiters }) => {
                    bulk.fail(for_waiters);
                    return Err(LoadError::User(error));
                }
            };
            for &id in &led {
                let new = loaded.remove(&id);
                values.extend(new.as_ref().map(|new| (id, new.value.clone())));
                bulk.complete_next(&query(id), new, &mut removed)?;
            }
            for (id, new) in loaded {
                values.entry(id).or_insert_with(|| new.value.clone());
                cache.insert_unless_in_flight(&query(id), new, &mut removed)?;
            }
        }
        let mut waits = bulk.into_waits();
        for id in awaited {
            let value = waits.wait_next(&query(id), wait_step, &mut removed)?;
            values.extend(value.map(|value| (id, value)));
        }
        Ok(())
    };
    let result = run();
    cache.release(&mut removed);
    result.map(|()| values)
}

/// Checks the invariants of a cache. Release builds have no such check.
pub fn validate<K: Handle, V: Handle, E: Clone + Send + Sync + 'static>(_cache: &Cache<K, V, E>) {
    #[cfg(debug_assertions)]
    _cache.validate();
}

/// A cache in one thread, with its clock, its events, and counts of living keys and values.
pub struct Subject {
    pub cache: TestCache,
    pub keys: LiveCount,
    pub values: LiveCount,
    time: Arc<AtomicU64>,
    events: RefCell<Vec<Event>>,
}

impl Subject {
    pub fn new(config: Config) -> Self {
        let time = Arc::new(AtomicU64::new(0));
        let cache = Cache::new(Config { has_listener: true, ..config }, Clock::Manual(time.clone()));
        Subject {
            cache,
            keys: LiveCount::default(),
            values: LiveCount::default(),
            time,
            events: RefCell::default(),
        }
    }

    pub fn lru(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::Lru))
    }

    pub fn tiny_lfu(capacity: u64) -> Self {
        Self::new(Config::new(capacity, Kind::TinyLfu))
    }

    pub fn call<R>(&self, body: impl FnOnce(&mut Removals<Key, Value>) -> R) -> R {
        let (result, events) = call(&self.cache, body);
        self.events.borrow_mut().extend(events);
        result
    }

    /// Returns the events since the last call.
    pub fn events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// Returns the keys of the events with this cause since the last call.
    pub fn removed_keys(&self, cause: Cause) -> Vec<u64> {
        let events = self.events().into_iter().filter(|event| event.cause == cause);
        events.map(|event| event.key.expect("the listener gets keys")).collect()
    }

    pub fn advance(&self, nanos: u64) {
        self.time.fetch_add(nanos, SeqCst);
    }

    pub fn query(&self, id: u64) -> BuiltinEqQuery {
        BuiltinEqQuery::new(id, &self.keys)
    }

    pub fn stored(&self, word: u64) -> NewValue<Value> {
        NewValue::plain(Value::new(word, &self.values))
    }

    pub fn get(&self, id: u64) -> Option<u64> {
        let found = self.call(|removed| self.cache.get(&self.query(id), removed));
        found.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn peek(&self, id: u64) -> Option<u64> {
        let found = self.call(|removed| self.cache.peek(&self.query(id), removed));
        found.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn set(&self, id: u64, word: u64) {
        self.store(id, self.stored(word));
    }

    pub fn set_with_weight(&self, id: u64, word: u64, weight: u32) {
        self.store(id, NewValue { weight, ..self.stored(word) });
    }

    pub fn set_with_lifetime(&self, id: u64, word: u64, ttl: u64, tti: u64) {
        self.store(id, NewValue { lifetime: Lifetime { ttl, tti }, ..self.stored(word) });
    }

    pub fn store(&self, id: u64, stored: NewValue<Value>) {
        let stored = self.call(|removed| self.cache.set(&self.query(id), stored, removed));
        stored.expect("plain keys do not fail");
    }

    pub fn set_if_absent(&self, id: u64, word: u64) -> Option<u64> {
        let kept = self.call(|removed| self.cache.set_if_absent(&self.query(id), self.stored(word), removed));
        kept.expect("plain keys do not fail").map(|value| value.word())
    }

    /// Sets a value if the key still has the value `seen`. Returns whether it did.
    pub fn set_if_same(&self, id: u64, seen: Option<&Value>, stored: NewValue<Value>) -> bool {
        let is_same = |present: Option<&Value>| is_same_value(seen, present);
        let set = |removed: &mut _| self.cache.set_if_same(&self.query(id), stored, is_same, removed);
        self.call(set).expect("plain keys do not fail").is_none()
    }

    pub fn touch(&self, id: u64, ttl: u64, tti: u64) -> bool {
        let touched = self.call(|removed| self.cache.touch(&self.query(id), Lifetime { ttl, tti }, removed));
        touched.expect("plain keys do not fail")
    }

    /// Returns the time until an entry may be due, in nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        self.cache.next_deadline().map(|remaining| remaining.as_nanos() as u64)
    }

    pub fn remove(&self, id: u64) -> Option<u64> {
        let removed = self.call(|removed| self.cache.remove(&self.query(id), removed));
        removed.expect("plain keys do not fail").map(|value| value.word())
    }

    pub fn pop_any(&self) -> Option<(u64, u64)> {
        self.call(|removed| self.cache.pop_any(removed)).map(|(key, value)| (key.id(), value.word()))
    }

    pub fn clear(&self) {
        let mut cursor = Cursor::default();
        while self.call(|removed| self.cache.clear_batch(&mut cursor, removed)) {}
    }

    pub fn resize(&self, capacity: u64) {
        let mut resize = self.cache.begin_resize(capacity);
        while self.call(|removed| resize.step(removed)) {}
    }

    pub fn count(&self) -> usize {
        self.call(|removed| self.cache.count(removed))
    }

    pub fn weight(&self) -> u64 {
        self.call(|removed| self.cache.weight(removed))
    }

    pub fn remaining_time(&self, id: u64) -> Option<Duration> {
        self.call(|removed| self.cache.expires_in(&self.query(id), removed)).expect("plain keys do not fail")
    }

    /// Returns the remaining time in nanoseconds.
    pub fn expires_in(&self, id: u64) -> Option<u64> {
        self.remaining_time(id).map(|removed| removed.as_nanos() as u64)
    }

    /// Returns keys and values by iteration, sorted by key.
    pub fn entries(&self) -> Vec<(u64, u64)> {
        let mut cursor = Cursor::default();
        let next = || self.cache.next_entry(&mut cursor).map(|(key, value)| (key.id(), value.word()));
        let mut entries: Vec<_> = std::iter::from_fn(next).collect();
        entries.sort_unstable();
        entries
    }

    pub fn held_keys(&self) -> Vec<u64> {
        self.entries().into_iter().map(|(key, _)| key).collect()
    }

    pub fn validate(&self) {
        validate(&self.cache);
    }
}
