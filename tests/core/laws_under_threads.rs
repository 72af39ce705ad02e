//! Laws that only threads can break: the bound, deadlines in every shard, one computation per key.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use moka_py::{Cache, Cause, Clock, Config, Cursor, Kind, Lifetime, NewValue};

use crate::support::{
    BuiltinEqQuery, LiveCount, MILLI, Random, SECOND, TestCache, Value, call, mix_hash, scope, sized,
    validate, within_a_minute,
};

const THREADS: u64 = 4;

fn shared(config: Config) -> (TestCache, LiveCount) {
    (Cache::new(Config { has_listener: true, ..config }, Clock::default()), LiveCount::default())
}

fn set(cache: &TestCache, tally: &LiveCount, id: u64, stored: NewValue<Value>) -> usize {
    let (stored, events) = call(cache, |removed| cache.set(&BuiltinEqQuery::new(id, tally), stored, removed));
    stored.expect("no failure");
    events.len()
}

#[test]
fn the_excess_is_at_most_one_entry_per_thread() {
    for &capacity in sized(&[1, 10, 100, 2_048][..], &[5, 128][..]) {
        let (cache, tally) = shared(Config::new(capacity, Kind::TinyLfu));
        for id in 0..capacity {
            set(&cache, &tally, id, NewValue::plain(Value::new(id, &tally)));
        }
        let is_done = AtomicBool::new(false);
        scope(|scope| {
            let (cache, tally, is_done) = (&cache, &tally, &is_done);
            let watcher = scope.spawn(move || {
                while !is_done.load(SeqCst) {
                    let weight = call(cache, |removed| cache.weight(removed)).0;
                    assert!(weight <= capacity + THREADS, "{weight} of {capacity}");
                }
            });
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let mut random = Random::new(thread);
                        for word in 0..sized(10_000, 10) {
                            let id = random.below(3 * capacity);
                            set(cache, tally, id, NewValue::plain(Value::new(word, tally)));
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
            is_done.store(true, SeqCst);
            watcher.join().expect("no panic");
        });
        validate(&cache);
        let count = call(&cache, |removed| cache.count(removed)).0 as u64;
        assert!(count <= capacity);
        // Two concurrent evictions may free more room than needed, which later writes fill.
        assert!(count + THREADS >= capacity, "{count} of {capacity}");
    }
}

#[test]
fn each_removal_is_reported_once() {
    for (capacity, ttl) in [(50, 0), (50, MILLI / 20), (3_000, 0), (3_000, MILLI / 20)] {
        let lifetime = Lifetime { ttl, tti: 0 };
        let (cache, tally) = shared(Config { lifetime, ..Config::new(capacity, Kind::Lru) });
        let (written, events) = (AtomicU64::new(0), AtomicU64::new(0));
        scope(|scope| {
            let (cache, tally, written, events) = (&cache, &tally, &written, &events);
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    for word in 0..sized(10_000, 10) {
                        let id = random.below(2 * capacity);
                        let removed = match random.below(4) {
                            0 => {
                                call(cache, |removed| cache.remove(&BuiltinEqQuery::new(id, tally), removed))
                                    .1
                                    .len()
                            }
                            1 => call(cache, |removed| cache.get(&BuiltinEqQuery::new(id, tally), removed))
                                .1
                                .len(),
                            _ => {
                                written.fetch_add(1, SeqCst);
                                set(cache, tally, id, NewValue::plain(Value::new(word, tally)))
                            }
                        };
                        events.fetch_add(removed as u64, SeqCst);
                    }
                });
            }
        });
        let (held, last) = call(&cache, |removed| cache.count(removed));
        assert_eq!(events.load(SeqCst) + last.len() as u64 + held as u64, written.load(SeqCst));
        validate(&cache);
    }
}

#[test]
fn no_deadline_is_forgotten_between_threads() {
    // Threads write deadlines while others remove expired entries. At the end all entries are expired and removed.
    for capacity in [1_000, 100_000] {
        for round in 0..sized(5, 1) {
            let time = Arc::new(AtomicU64::new(0));
            let config = Config { has_listener: true, ..Config::new(capacity, Kind::TinyLfu) };
            let cache: TestCache = Cache::new(config, Clock::Manual(Arc::clone(&time)));
            let tally = LiveCount::default();
            scope(|scope| {
                for thread in 0..THREADS {
                    let (cache, tally, time) = (&cache, &tally, &time);
                    scope.spawn(move || {
                        let mut random = Random::new(thread ^ round << 8);
                        for word in 0..sized(3_000, 6) {
                            let id = random.below(capacity / 2);
                            let lifetime = Lifetime { ttl: random.below(20 * MILLI) + 1, tti: 0 };
                            let value = Value::new(word, tally);
                            set(cache, tally, id, NewValue { lifetime, ..NewValue::plain(value) });
                            if random.one_in(3) {
                                time.fetch_add(random.below(MILLI / 10), SeqCst);
                            }
                        }
                    });
                }
            });
            validate(&cache);
            time.fetch_add(SECOND, SeqCst);
            assert!(cache.next_entry(&mut Cursor::default()).is_none(), "no expired entry is returned");
            // Reads of any key remove all expired entries.
            for _ in 0..sized(5_000, 30) {
                let (_, events) = call(&cache, |removed| cache.get(&BuiltinEqQuery::new(1, &tally), removed));
                assert!(events.iter().all(|event| event.cause == Cause::Expired));
            }
            assert_eq!(
                call(&cache, |removed| cache.count(removed)),
                (0, vec![]),
                "all has left before the count"
            );
            validate(&cache);
        }
    }
}

#[test]
fn a_deadline_set_during_maintenance_is_not_forgotten() {
    let time = Arc::new(AtomicU64::new(0));
    let cache: TestCache = Cache::new(Config::new(100_000, Kind::Lru), Clock::Manual(Arc::clone(&time)));
    let tally = LiveCount::default();
    let set_with_lifetime = |id: u64, ttl: u64| {
        let lifetime = Lifetime { ttl, tti: 0 };
        set(&cache, &tally, id, NewValue { lifetime, ..NewValue::plain(Value::new(id, &tally)) });
    };
    // A late deadline keeps maintenance going.
    set_with_lifetime(0, 1_000_000 * SECOND);
    let round = AtomicU64::new(0);
    let next_round = |number: u64| {
        round.fetch_add(1, SeqCst);
        for spins in 0.. {
            if round.load(SeqCst) >= 2 * number {
                break;
            }
            if spins < 1_000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
    };
    const ROUNDS: u64 = sized(2_000, 5);
    scope(|scope| {
        scope.spawn(|| {
            for number in 0..ROUNDS {
                next_round(2 * number + 1);
                (0..3).for_each(|_| drop(call(&cache, |removed| cache.count(removed))));
                next_round(2 * number + 2);
            }
        });
        for number in 0..ROUNDS {
            next_round(2 * number + 1);
            (0..number % 64).for_each(|_| std::hint::spin_loop());
            set_with_lifetime(number + 1, MILLI);
            next_round(2 * number + 2);
            time.fetch_add(2 * MILLI, SeqCst);
            // A read of another key removes the expired entry.
            let (_, events) = call(&cache, |removed| cache.get(&BuiltinEqQuery::new(0, &tally), removed));
            assert_eq!(events.len(), 1, "round {number}");
        }
    });
    validate(&cache);
}

#[test]
fn the_first_deadline_of_a_cache_is_seen_by_all_threads() {
    for round in 0..sized(200, 2) {
        let time = Arc::new(AtomicU64::new(0));
        let cache: TestCache = Cache::new(Config::new(100_000, Kind::Lru), Clock::Manual(Arc::clone(&time)));
        let tally = LiveCount::default();
        let barrier = Barrier::new(2);
        scope(|scope| {
            for thread in 0..2 {
                let (cache, tally, barrier) = (&cache, &tally, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let lifetime = Lifetime { ttl: (thread + 1) * MILLI, tti: 0 };
                    let value = Value::new(thread, tally);
                    set(cache, tally, thread + round, NewValue { lifetime, ..NewValue::plain(value) });
                });
            }
        });
        time.fetch_add(MILLI, SeqCst);
        assert_eq!(call(&cache, |removed| cache.count(removed)).0, 1);
        time.fetch_add(MILLI, SeqCst);
        assert_eq!(call(&cache, |removed| cache.count(removed)).0, 0);
    }
}

#[test]
fn threads_that_load_the_same_keys_compute_each_key_once() {
    // All threads load the keys in the same order, so that one stores its value while another looks the key up.
    const KEYS: u64 = sized(10_000, 10);
    within_a_minute(|| {
        for capacity in [KEYS, u64::MAX] {
            let (cache, tally) = shared(Config::new(capacity, Kind::TinyLfu));
            let computed: Vec<AtomicU64> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
            scope(|scope| {
                for _ in 0..THREADS {
                    let (cache, tally, computed) = (&cache, &tally, &computed);
                    scope.spawn(move || {
                        for id in 0..KEYS {
                            let compute = || {
                                computed[id as usize].fetch_add(1, SeqCst);
                                Ok(NewValue::plain(Value::new(id, tally)))
                            };
                            let mut pause = |park: &(dyn Fn() + Sync)| {
                                park();
                                Ok(())
                            };
                            let query = BuiltinEqQuery::new(id, tally);
                            let load = |removed: &mut _| cache.get_with(&query, compute, &mut pause, removed);
                            assert_eq!(call(cache, load).0.expect("no failure").word(), id);
                        }
                    });
                }
            });
            let times = computed.iter().map(|times| times.load(SeqCst));
            assert_eq!(
                times.filter(|&times| times != 1).count(),
                0,
                "nothing leaves, so each is computed once"
            );
            validate(&cache);
        }
    });
}

#[test]
fn a_computed_value_never_overwrites_a_later_write() {
    // In each round one thread computes and another writes. The written value stays, whatever the order.
    within_a_minute(|| {
        for capacity in [100, 5_000] {
            let (cache, tally) = shared(Config::new(capacity, Kind::Lru));
            for round in 0..sized(2_000, 3) {
                let query = BuiltinEqQuery { hash: mix_hash(round % 7), ..BuiltinEqQuery::new(1, &tally) };
                let barrier = Barrier::new(2);
                scope(|scope| {
                    scope.spawn(|| {
                        let mut pause = |park: &(dyn Fn() + Sync)| {
                            park();
                            Ok(())
                        };
                        let compute = || {
                            barrier.wait();
                            Ok(NewValue::plain(Value::new(1, &tally)))
                        };
                        let load = |removed: &mut _| cache.get_with(&query, compute, &mut pause, removed);
                        call(&cache, load).0.expect("no failure");
                    });
                    barrier.wait();
                    let stored = NewValue::plain(Value::new(2, &tally));
                    call(&cache, |removed| cache.set(&query, stored, removed)).0.expect("no failure");
                });
                let (found, _) = call(&cache, |removed| cache.remove(&query, removed));
                assert_eq!(found.expect("no failure").map(|value| value.word()), Some(2));
            }
            validate(&cache);
        }
    });
}

#[test]
fn short_lived_threads_leave_nothing_behind() {
    let (cache, keys) = shared(Config::new(100, Kind::TinyLfu));
    let values = LiveCount::default();
    for round in 0..sized(500, 2) {
        scope(|scope| {
            for thread in 0..2 {
                let (cache, keys, values) = (&cache, &keys, &values);
                scope.spawn(move || {
                    for id in 0..20 {
                        set(
                            cache,
                            keys,
                            round * 10 + thread * 5 + id,
                            NewValue::plain(Value::new(id, values)),
                        );
                    }
                });
            }
        });
    }
    validate(&cache);
    drop(cache);
    assert_eq!((keys.alive(), values.alive()), (0, 0));
}
