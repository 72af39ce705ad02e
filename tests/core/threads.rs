//! Threads that share caches: nothing leaks, nothing is dropped twice, and no call returns the value of another key.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;

use moka_py::{Cache, Clock, Config, Cursor, Kind, Lifetime, NewValue, SHARD_SHIFT};

use crate::support::{
    BuiltinEqQuery, Error, Key, LiveCount, MICRO, Random, TestCache, UserEqQuery, Value,
    assert_alive_after_flushes, call, mix_hash, scope, seed, sized, validate,
};

const THREADS: u64 = 4;

/// A cache that threads share, and counts of living keys and values.
struct SharedCache {
    cache: TestCache,
    keys: LiveCount,
    values: LiveCount,
}

/// Makes the word of a value, which contains its key.
fn word_for(id: u64, random: &mut Random) -> u64 {
    id << 32 | random.below(1 << 32)
}

fn assert_value_of(id: u64, value: &Value) {
    assert_eq!(value.word() >> 32, id, "a value of another key");
}

/// Checks that each key is in the cache once, and that only the cache's keys and values are alive.
fn assert_nothing_leaked(shared: &SharedCache) {
    let (held, _) = call(&shared.cache, |removed| shared.cache.count(removed));
    let mut cursor = Cursor::default();
    let next = || shared.cache.next_entry(&mut cursor).map(|(key, _)| key.id());
    let keys: Vec<u64> = std::iter::from_fn(next).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "each key is there once");
    assert_alive_after_flushes(&shared.cache, (held, held), || (shared.keys.alive(), shared.values.alive()));
}

impl SharedCache {
    fn new(config: Config) -> Self {
        let cache = Cache::new(Config { has_listener: true, ..config }, Clock::default());
        SharedCache { cache, keys: LiveCount::default(), values: LiveCount::default() }
    }

    fn stored(&self, id: u64, random: &mut Random) -> NewValue<Value> {
        let value = Value::new(word_for(id, random), &self.values);
        let weight = if self.cache.config().weighted { random.below(5) as u32 } else { 1 };
        let ttl = if random.one_in(4) { random.below(200 * MICRO) + 1 } else { 0 };
        let tti = if random.one_in(8) { random.below(200 * MICRO) + 1 } else { 0 };
        NewValue { value, weight, lifetime: Lifetime { ttl, tti }, is_kept: !random.one_in(16) }
    }

    /// Makes one call of a random kind.
    fn any_call(&self, id: u64, hash: u64, random: &mut Random) {
        let cache = &self.cache;
        let plain = BuiltinEqQuery { key: Key::new(id, &self.keys), hash };
        let asking = || UserEqQuery {
            key: Key::new(id, &self.keys),
            hash,
            eq_slow: |key: &Key| {
                thread::yield_now();
                Ok::<_, Error>(key.id() == id)
            },
        };
        let kind = random.below(40);
        let found = match kind {
            0..=9 => call(cache, |removed| cache.get(&plain, removed)).0,
            10 | 11 => call(cache, |removed| cache.get(&asking(), removed)).0,
            12 => call(cache, |removed| cache.peek(&plain, removed)).0,
            13..=23 => {
                call(cache, |removed| cache.set(&plain, self.stored(id, random), removed)).0.map(|()| None)
            }
            24 => {
                call(cache, |removed| cache.set(&asking(), self.stored(id, random), removed)).0.map(|()| None)
            }
            25 | 26 => call(cache, |removed| cache.set_if_absent(&plain, self.stored(id, random), removed)).0,
            27..=30 => call(cache, |removed| cache.remove(&plain, removed)).0,
            31 => call(cache, |removed| cache.remove(&asking(), removed)).0,
            32..=35 => {
                let stored = self.stored(id, random);
                let compute = || Ok(stored);
                let mut pause = |park: &(dyn Fn() + Sync)| {
                    park();
                    Ok(())
                };
                let (loaded, _) = call(cache, |removed| cache.get_with(&plain, compute, &mut pause, removed));
                Ok(Some(loaded.expect("no failure")))
            }
            36 => {
                if let Some((key, value)) = call(cache, |removed| cache.pop_any(removed)).0 {
                    assert_value_of(key.id(), &value);
                }
                Ok(None)
            }
            37 => {
                let (count, _) = call(cache, |removed| cache.count(removed));
                let capacity = cache.config().capacity;
                assert!(cache.config().weighted || count as u64 <= capacity.saturating_add(THREADS));
                Ok(None)
            }
            38 if random.one_in(50) => {
                let mut cursor = Cursor::default();
                while call(cache, |removed| cache.clear_batch(&mut cursor, removed)).0 {}
                cache.flush();
                Ok(None)
            }
            _ => {
                let mut cursor = Cursor::default();
                for _ in 0..random.below(30) {
                    let Some((key, value)) = cache.next_entry(&mut cursor) else { break };
                    assert_value_of(key.id(), &value);
                }
                Ok(None)
            }
        };
        if let Some(value) = found.expect("no failure") {
            assert_value_of(id, &value);
        }
    }
}

fn random_calls_by_threads(config: Config, keys: u64, hash: fn(u64) -> u64, steps: u64) {
    let seed = seed();
    let shared = SharedCache::new(config);
    scope(|scope| {
        for thread in 0..THREADS {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random::new(seed ^ mix_hash(thread));
                for _ in 0..steps {
                    let id = random.below(keys);
                    shared.any_call(id, hash(id), &mut random);
                }
            });
        }
    });
    validate(&shared.cache);
    let (weight, _) = call(&shared.cache, |removed| shared.cache.weight(removed));
    assert!(weight <= config.capacity);
    assert_nothing_leaked(&shared);
    let SharedCache { cache, keys, values } = shared;
    drop(cache);
    assert_eq!((keys.alive(), values.alive()), (0, 0));
}

#[test]
fn small_caches_survive_random_calls_by_threads() {
    for capacity in [0, 1, 2, 7, 16, 100] {
        for kind in [Kind::Lru, Kind::TinyLfu] {
            random_calls_by_threads(Config::new(capacity, kind), 2 * capacity + 3, mix_hash, sized(3_000, 3));
        }
    }
}

#[test]
fn large_caches_survive_random_calls_by_threads() {
    for kind in [Kind::Lru, Kind::TinyLfu] {
        random_calls_by_threads(Config::new(4_096, kind), 6_000, mix_hash, sized(20_000, 10));
        random_calls_by_threads(Config::new(u64::MAX, kind), 3_000, mix_hash, sized(20_000, 10));
    }
}

#[test]
fn weighted_caches_survive_random_calls_by_threads() {
    for (capacity, kind) in [(10, Kind::Lru), (50, Kind::TinyLfu), (3_000, Kind::TinyLfu)] {
        random_calls_by_threads(
            Config { weighted: true, ..Config::new(capacity, kind) },
            capacity,
            mix_hash,
            sized(10_000, 6),
        );
    }
}

#[test]
fn caches_whose_entries_expire_survive_random_calls_by_threads() {
    for lifetime in [Lifetime { ttl: 50 * MICRO, tti: 0 }, Lifetime { ttl: 0, tti: 50 * MICRO }] {
        for capacity in [30, 3_000] {
            random_calls_by_threads(
                Config { lifetime, ..Config::new(capacity, Kind::Lru) },
                200,
                mix_hash,
                sized(10_000, 6),
            );
        }
    }
}

#[test]
fn keys_of_equal_hash_survive_random_calls_by_threads() {
    random_calls_by_threads(Config::new(100, Kind::Lru), 12, |_| 0x1234_5678_9abc_def0, sized(2_000, 6));
    random_calls_by_threads(Config::new(10_000, Kind::TinyLfu), 30, |id| mix_hash(id % 3), sized(2_000, 6));
    random_calls_by_threads(
        Config::new(5_000, Kind::Lru),
        200,
        |id| mix_hash(id) << (SHARD_SHIFT + 6),
        sized(2_000, 6),
    );
}

#[test]
fn a_reader_never_sees_an_older_value_again() {
    // Each key has one writer, which counts up. Other keys are added and removed, so the table grows and shrinks.
    for capacity in [50, 1_000_000] {
        let shared = SharedCache::new(Config::new(capacity, Kind::TinyLfu));
        let is_done = AtomicBool::new(false);
        scope(|scope| {
            let (shared, is_done) = (&shared, &is_done);
            for reader in 0..2 {
                scope.spawn(move || {
                    let mut last = [0; 8];
                    let mut random = Random::new(reader);
                    while !is_done.load(SeqCst) {
                        let id = random.below(8);
                        let query = BuiltinEqQuery::new(id, &shared.keys);
                        let found = call(&shared.cache, |removed| shared.cache.get(&query, removed)).0;
                        if let Some(value) = found.expect("no failure") {
                            assert_value_of(id, &value);
                            assert!(value.word() >= last[id as usize], "an older value");
                            last[id as usize] = value.word();
                        }
                    }
                });
            }
            let writer = scope.spawn(move || {
                let mut random = Random::new(9);
                for round in 0..sized(30_000, 10) {
                    let id = random.below(8);
                    let query = BuiltinEqQuery::new(id, &shared.keys);
                    let value = Value::new(id << 32 | round, &shared.values);
                    if random.one_in(3) {
                        drop(call(&shared.cache, |removed| shared.cache.remove(&query, removed)));
                    }
                    call(&shared.cache, |removed| shared.cache.set(&query, NewValue::plain(value), removed))
                        .0
                        .expect("no failure");
                    let other = BuiltinEqQuery::new(100 + random.below(300), &shared.keys);
                    if random.one_in(2) {
                        let value = Value::new(0, &shared.values);
                        call(&shared.cache, |removed| {
                            shared.cache.set(&other, NewValue::plain(value), removed)
                        })
                        .0
                        .expect("no failure");
                    } else {
                        drop(call(&shared.cache, |removed| shared.cache.remove(&other, removed)));
                    }
                }
            });
            let ended = writer.join();
            is_done.store(true, SeqCst);
            ended.expect("no panic");
        });
        validate(&shared.cache);
        assert_nothing_leaked(&shared);
    }
}

#[test]
fn lasting_entries_are_found_while_the_table_grows_and_shrinks() {
    const STAY: u64 = sized(200, 10);
    const MOST: u64 = sized(6_000, 1_020);
    let shared = SharedCache::new(Config::new(u64::MAX, Kind::TinyLfu));
    let set = |id: u64| {
        let value = Value::new(id << 32, &shared.values);
        let query = BuiltinEqQuery::new(id, &shared.keys);
        call(&shared.cache, |removed| shared.cache.set(&query, NewValue::plain(value), removed))
            .0
            .expect("no failure");
    };
    (0..STAY).for_each(set);
    let is_done = AtomicBool::new(false);
    let walks = AtomicUsize::new(0);
    scope(|scope| {
        let (shared, is_done, walks, set) = (&shared, &is_done, &walks, &set);
        scope.spawn(move || {
            let mut random = Random::new(1);
            while !is_done.load(SeqCst) {
                let id = random.below(STAY);
                let found = call(&shared.cache, |removed| {
                    shared.cache.get(&BuiltinEqQuery::new(id, &shared.keys), removed)
                })
                .0;
                assert_value_of(id, &found.expect("no failure").expect("it stays"));
            }
        });
        scope.spawn(move || {
            while !is_done.load(SeqCst) {
                let mut cursor = Cursor::default();
                let mut seen = vec![0; STAY as usize];
                while let Some((key, value)) = shared.cache.next_entry(&mut cursor) {
                    assert_value_of(key.id(), &value);
                    if let Some(times) = seen.get_mut(key.id() as usize) {
                        *times += 1;
                    }
                }
                assert!(seen.iter().all(|&times| times == 1), "each that stays comes once");
                walks.fetch_add(1, SeqCst);
            }
        });
        let writer = scope.spawn(move || {
            let mut rounds = 0;
            while rounds < sized(15, 1) || walks.load(SeqCst) < sized(5, 1) {
                (1_000..MOST).for_each(set);
                for id in 1_000..MOST {
                    drop(call(&shared.cache, |removed| {
                        shared.cache.remove(&BuiltinEqQuery::new(id, &shared.keys), removed)
                    }));
                }
                shared.cache.flush();
                rounds += 1;
            }
        });
        let ended = writer.join();
        is_done.store(true, SeqCst);
        ended.expect("no panic");
    });
    validate(&shared.cache);
    assert_nothing_leaked(&shared);
}

#[test]
fn the_cache_survives_hostile_comparisons_in_threads() {
    // A comparison may fail or use the cache, so that any call can happen in the middle of a look-up.
    let shared = Arc::new(SharedCache::new(Config::new(30, Kind::Lru)));
    let failures = AtomicU64::new(0);
    scope(|scope| {
        for thread in 0..THREADS {
            let (shared, failures) = (&shared, &failures);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                for _ in 0..sized(3_000, 8) {
                    let id = random.below(20);
                    let seed = random.next();
                    let asked = Cell::new(0);
                    let eq_slow = |key: &Key| {
                        // A comparison that always inserts another key to compare with must not make the call endless.
                        asked.set(asked.get() + 1);
                        assert!(asked.get() < 1_000, "the call does not end");
                        let mut random = Random::new(seed ^ mix_hash(asked.get()));
                        match random.below(4) {
                            0 => {
                                let id = random.below(20);
                                shared.any_call(id, mix_hash(id % 2), &mut random);
                            }
                            1 if random.one_in(10) => return Err("boom"),
                            _ => {}
                        }
                        Ok(key.id() == id)
                    };
                    let query =
                        UserEqQuery { key: Key::new(id, &shared.keys), hash: mix_hash(id % 2), eq_slow };
                    let cache = &shared.cache;
                    let result = match random.below(4) {
                        0 => call(cache, |removed| cache.get(&query, removed)).0,
                        1 => call(cache, |removed| cache.remove(&query, removed)).0,
                        _ => {
                            let stored = shared.stored(id, &mut random);
                            call(cache, |removed| cache.set(&query, stored, removed)).0.map(|()| None)
                        }
                    };
                    match result {
                        Ok(found) => found.iter().for_each(|value| assert_value_of(id, value)),
                        Err(error) => {
                            assert_eq!(error, "boom");
                            failures.fetch_add(1, SeqCst);
                        }
                    }
                }
            });
        }
    });
    assert!(failures.load(SeqCst) > 0);
    validate(&shared.cache);
    assert_nothing_leaked(&shared);
}
