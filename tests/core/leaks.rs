//! After many calls only the entries of the cache are alive, and nothing once the cache is dropped.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use moka_py::{Clock, Config, Kind, Lifetime, NewValue};

use crate::support::{
    BuiltinEqQuery, Error, LiveCount, MICRO, MILLI, Random, TestCache, Value, assert_alive_after_flushes,
    call, mix_hash, scope, seed, sized,
};

/// Makes `calls` calls in four threads, and counts the living keys and values. On the GIL build the threads take turns.
fn check_leaks_after(calls: u64) {
    const THREADS: u64 = 4;
    let seed = seed();
    let (keys, values) = (LiveCount::default(), LiveCount::default());
    let config = Config { weighted: true, has_listener: true, ..Config::new(3_000, Kind::TinyLfu) };
    let cache = TestCache::new(config, Clock::default());
    let (made, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = |thread: u64| {
        let mut random = Random::new(seed ^ mix_hash(thread));
        for _ in 0..calls / THREADS {
            let query = BuiltinEqQuery::new(random.below(6_000), &keys);
            let ttl = random.pick(&[0, 0, 20 * MICRO, 5 * MILLI]);
            let value = Value::new(0, &values);
            let stored = NewValue {
                weight: random.below(4) as u32,
                lifetime: Lifetime { ttl, tti: 0 },
                ..NewValue::plain(value)
            };
            let (result, event) = call(&cache, |removed| match random.below(8) {
                0..=2 => cache.get(&query, removed),
                3..=5 => cache.set(&query, stored, removed).map(|()| None),
                6 => cache.set_if_absent(&query, stored, removed),
                _ => cache.remove(&query, removed),
            });
            made.fetch_add(1, Relaxed);
            events.fetch_add(event.len() as u64, Relaxed);
            let _: Option<Value> = result.map_err(|error: Error| error).expect("no failure");
        }
    };
    if cfg!(moka_gil) {
        (0..THREADS).for_each(work);
    } else {
        let work = &work;
        scope(|scope| {
            let running: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
            running.into_iter().for_each(|one| one.join().expect("no panic"));
        });
    }
    let (held, _) = call(&cache, |removed| cache.count(removed));
    assert_alive_after_flushes(&cache, (held, held), || (keys.alive(), values.alive()));
    drop(cache);
    assert_eq!((keys.alive(), values.alive()), (0, 0));
    println!("{} calls, {} removals, no leak", made.into_inner(), events.into_inner());
}

#[test]
fn thousands_of_calls_leak_nothing() {
    check_leaks_after(sized(40_000, 80));
}

#[test]
#[ignore = "takes a minute or more; MOKA_TEST_CALLS says how many"]
fn ten_million_calls_leak_nothing() {
    let calls = std::env::var("MOKA_TEST_CALLS").map_or(10_000_000, |calls| calls.parse().expect("a number"));
    check_leaks_after(calls);
}
