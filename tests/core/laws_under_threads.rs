//! Laws that only threads can break: the bound, deadlines in every shard, one computation a key.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use moka_py::{Cache, Cause, Clock, Config, Cursor, Kind, Lifetime, NewValue};

use crate::support::{
    MILLI, Plain, Random, SECOND, StripedCounter, TestCache, Value, call, mixed, must_end, scope, validate,
};

const THREADS: u64 = 4;

fn shared(config: Config) -> (TestCache, StripedCounter) {
    (Cache::new(Config { has_listener: true, ..config }, Clock::default()), StripedCounter::default())
}

fn set(cache: &TestCache, tally: &StripedCounter, id: u64, stored: NewValue<Value>) -> usize {
    let (stored, told) = call(cache, |removed| cache.set(&Plain::new(id, tally), stored, removed));
    stored.expect("no failure");
    told.len()
}

#[test]
fn the_excess_is_at_most_an_entry_a_thread() {
    for capacity in [1, 10, 100, 2_048] {
        let (cache, tally) = shared(Config::new(capacity, Kind::TinyLfu));
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
                        for word in 0..10_000 {
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
        // Two that evict at the same time may both make room, and a later write fills it again.
        assert!(count + THREADS >= capacity, "{count} of {capacity}");
    }
}

#[test]
fn each_leaving_is_told_once() {
    for (capacity, ttl) in [(50, 0), (50, MILLI / 20), (3_000, 0), (3_000, MILLI / 20)] {
        let lifetime = Lifetime { ttl, tti: 0 };
        let (cache, tally) = shared(Config { lifetime, ..Config::new(capacity, Kind::Lru) });
        let (written, told) = (AtomicU64::new(0), AtomicU64::new(0));
        scope(|scope| {
            let (cache, tally, written, told) = (&cache, &tally, &written, &told);
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    for word in 0..10_000 {
                        let id = random.below(2 * capacity);
                        let removed = match random.below(4) {
                            0 => call(cache, |removed| cache.remove(&Plain::new(id, tally), removed)).1.len(),
                            1 => call(cache, |removed| cache.get(&Plain::new(id, tally), removed)).1.len(),
                            _ => {
                                written.fetch_add(1, SeqCst);
                                set(cache, tally, id, NewValue::plain(Value::new(word, tally)))
                            }
                        };
                        told.fetch_add(removed as u64, SeqCst);
                    }
                });
            }
        });
        let (held, last) = call(&cache, |removed| cache.count(removed));
        assert_eq!(told.load(SeqCst) + last.len() as u64 + held as u64, written.load(SeqCst));
        validate(&cache);
    }
}

#[test]
fn no_deadline_is_forgotten_between_threads() {
    // Threads write deadlines while others drive out what is due; at the end all is due, and all leaves.
    for capacity in [1_000, 100_000] {
        for round in 0..5 {
            let time = Arc::new(AtomicU64::new(0));
            let config = Config { has_listener: true, ..Config::new(capacity, Kind::TinyLfu) };
            let cache: TestCache = Cache::new(config, Clock::Manual(Arc::clone(&time)));
            let tally = StripedCounter::default();
            scope(|scope| {
                for thread in 0..THREADS {
                    let (cache, tally, time) = (&cache, &tally, &time);
                    scope.spawn(move || {
                        let mut random = Random::new(thread ^ round << 8);
                        for word in 0..3_000 {
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
            assert!(cache.next_entry(&mut Cursor::default()).is_none(), "nothing is returned that is due");
            // Looks at any key drive everything out.
            for _ in 0..5_000 {
                let (_, told) = call(&cache, |removed| cache.get(&Plain::new(1, &tally), removed));
                assert!(told.iter().all(|gone| gone.cause == Cause::Expired));
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
fn a_deadline_that_is_set_beside_maintenance_is_not_forgotten() {
    let time = Arc::new(AtomicU64::new(0));
    let cache: TestCache = Cache::new(Config::new(100_000, Kind::Lru), Clock::Manual(Arc::clone(&time)));
    let tally = StripedCounter::default();
    let set_for = |id: u64, ttl: u64| {
        let lifetime = Lifetime { ttl, tti: 0 };
        set(&cache, &tally, id, NewValue { lifetime, ..NewValue::plain(Value::new(id, &tally)) });
    };
    // One is due late, so that there is something to maintain.
    set_for(0, 1_000_000 * SECOND);
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
    const ROUNDS: u64 = 2_000;
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
            set_for(number + 1, MILLI);
            next_round(2 * number + 2);
            time.fetch_add(2 * MILLI, SeqCst);
            // A look at another key drives out what is due.
            let (_, told) = call(&cache, |removed| cache.get(&Plain::new(0, &tally), removed));
            assert_eq!(told.len(), 1, "round {number}");
        }
    });
    validate(&cache);
}

#[test]
fn a_deadline_that_comes_to_a_cache_of_none_is_seen_by_all() {
    for round in 0..200 {
        let time = Arc::new(AtomicU64::new(0));
        let cache: TestCache = Cache::new(Config::new(100_000, Kind::Lru), Clock::Manual(Arc::clone(&time)));
        let tally = StripedCounter::default();
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
fn threads_that_load_the_same_keys_compute_each_once() {
    // All go through the keys in the same order, so that one lands while another looks.
    const KEYS: u64 = 10_000;
    must_end(|| {
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
                                Ok((Value::new(id, tally), 1))
                            };
                            let mut pause = |park: &(dyn Fn() + Sync)| {
                                park();
                                Ok(())
                            };
                            let query = Plain::new(id, tally);
                            let load = |removed: &mut _| {
                                cache.get_with(&query, Lifetime::default(), compute, &mut pause, removed)
                            };
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
fn a_computed_value_never_comes_over_a_later_write() {
    // Each round one thread computes, another writes: whatever the order, what is written stays.
    must_end(|| {
        for capacity in [100, 5_000] {
            let (cache, tally) = shared(Config::new(capacity, Kind::Lru));
            for round in 0..2_000 {
                let query = Plain { hash: mixed(round % 7), ..Plain::new(1, &tally) };
                let barrier = Barrier::new(2);
                scope(|scope| {
                    scope.spawn(|| {
                        let mut pause = |park: &(dyn Fn() + Sync)| {
                            park();
                            Ok(())
                        };
                        let compute = || {
                            barrier.wait();
                            Ok((Value::new(1, &tally), 1))
                        };
                        let load = |removed: &mut _| {
                            cache.get_with(&query, Lifetime::default(), compute, &mut pause, removed)
                        };
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
    let values = StripedCounter::default();
    for round in 0..500 {
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
