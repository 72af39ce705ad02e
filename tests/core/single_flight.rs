//! Single flight: one thread computes a key, and the others wait for its result.

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};
use std::thread;

use moka_py::{Cause, Config, Cursor, Failure, Kind, LoadError, NewValue, Removals};

use crate::single_flight_support::{Shared, shared_failure};
use crate::support::{
    BuiltinEqQuery, Error, Key, Subject, TestCache, UserEqQuery, Value, call, mix_hash, sized, validate,
    within_a_minute,
};

#[test]
fn one_thread_computes_for_all_waiters() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Ok(10));
        let waiters = shared.waiters(4, 99);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(10)));
        assert_eq!(shared.computed.load(SeqCst), 1);
        assert_eq!(shared.peek(1), Some(10));
        validate(&shared.caches[0]);
    });
}

#[test]
fn threads_that_begin_together_compute_once() {
    within_a_minute(|| {
        for _ in 0..sized(50, 1) {
            let shared = Shared::one();
            let barrier = Arc::new(Barrier::new(6));
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    let barrier = Arc::clone(&barrier);
                    shared.thread(move |shared| {
                        shared.detached(|| barrier.wait());
                        shared.load(0, 1, || {
                            shared.detached(thread::yield_now);
                            Ok(10)
                        })
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().expect("no panic"), Ok(10)));
            assert_eq!(shared.computed.load(SeqCst), 1);
        }
    });
}

#[test]
fn a_hit_computes_nothing_and_counts_as_an_access() {
    let subject = Subject::lru(2);
    subject.set(1, 10);
    subject.set(2, 20);
    let loaded = subject.call(|removed| {
        let compute = || -> Result<_, Failure<Error>> { unreachable!("the value is present") };
        let mut pause = |_: &(dyn Fn() + Sync)| unreachable!("no thread computes");
        subject.cache.get_with(&subject.query(1), compute, &mut pause, removed)
    });
    assert_eq!(loaded.map(|value| value.word()).ok(), Some(10));
    subject.set(3, 30);
    assert_eq!(subject.removed_keys(Cause::Size), [2]);
}

#[test]
fn a_failure_is_shared_with_waiters_and_not_cached() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(shared_failure("boom"));
        let waiters = shared.waiters(3, 99);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Err(LoadError::User("boom")));
        for waiter in waiters {
            assert_eq!(waiter.join().expect("no panic"), Err(LoadError::User("boom")));
        }
        assert_eq!(shared.computed.load(SeqCst), 1);
        shared.attach();
        assert_eq!(shared.load(0, 1, || Ok(11)), Ok(11));
        shared.detach();
    });
}

#[test]
fn waiters_get_a_value_that_the_leader_could_not_store() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader_by(|shared, wait| {
            let eq_slow = |key: &Key| if key.id() == 2 { Err("boom") } else { Ok(key.id() == 1) };
            let query = UserEqQuery { key: Key::new(1, &shared.tally), hash: mix_hash(1), eq_slow };
            shared.load_query(0, &query, || {
                let other = BuiltinEqQuery { key: Key::new(2, &shared.tally), hash: mix_hash(1) };
                let stored = NewValue::plain(Value::new(20, &shared.tally));
                call(&shared.caches[0], |removed| shared.caches[0].set(&other, stored, removed))
                    .0
                    .expect("no failure");
                wait();
                Ok(10)
            })
        });
        let waiters = shared.waiters(3, 99);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Err(LoadError::User("boom")));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(10)));
        assert_eq!((shared.computed.load(SeqCst), shared.peek(1)), (1, None));
    });
}

#[test]
fn one_waiter_takes_over_when_the_leader_gives_up() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Err(Failure { error: "my own", for_waiters: None }));
        let waiters = shared.waiters(3, 12);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Err(LoadError::User("my own")));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(12)));
        assert_eq!(shared.computed.load(SeqCst), 2);
    });
}

#[test]
fn a_leader_that_panics_leaves_no_thread_waiting() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader_by(|shared, wait| {
            let computation = std::panic::AssertUnwindSafe(|| {
                shared.load(0, 1, || {
                    wait();
                    panic!("on purpose")
                })
            });
            std::panic::catch_unwind(computation).is_err()
        });
        let waiters = shared.waiters(2, 12);
        drop(end);
        assert!(leader.join().expect("it was caught"));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(12)));
    });
}

#[test]
fn an_interrupted_wait_does_not_affect_other_waiters() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Ok(10));
        let waiter = shared.waiters(1, 99).pop().expect("there is one");
        shared.attached(|cache| {
            let mut pauses = 0;
            let mut pause = |_: &(dyn Fn() + Sync)| {
                pauses += 1;
                if pauses == 3 { Err("interrupted") } else { Ok(()) }
            };
            let compute = || -> Result<_, Failure<Error>> { unreachable!("another computes") };
            let query = BuiltinEqQuery::new(1, &shared.tally);
            let removed = &mut Removals::new();
            let loaded = cache.get_with(&query, compute, &mut pause, removed);
            assert_eq!(loaded.map(|value| value.word()), Err(LoadError::User("interrupted")));
        });
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        assert_eq!(waiter.join().expect("no panic"), Ok(10));
    });
}

#[test]
fn a_write_during_the_computation_wins() {
    type Call = fn(&TestCache, &Shared);
    let calls: [(Call, Option<u64>); 4] = [
        (|cache, shared| set(cache, shared, 1, 77), Some(77)),
        (
            |cache, shared| {
                drop(call(cache, |removed| cache.remove(&BuiltinEqQuery::new(1, &shared.tally), removed)))
            },
            None,
        ),
        (
            |cache, _| {
                let mut cursor = Cursor::default();
                while call(cache, |removed| cache.clear_batch(&mut cursor, removed)).0 {}
            },
            None,
        ),
        (
            |cache, shared| {
                let stored = NewValue::plain(Value::new(88, &shared.tally));
                drop(call(cache, |removed| {
                    cache.set_if_absent(&BuiltinEqQuery::new(1, &shared.tally), stored, removed)
                }));
            },
            Some(88),
        ),
    ];
    for capacity in [100, 5_000] {
        for (write, expected) in calls {
            within_a_minute(move || {
                let shared = Shared::new(Config::new(capacity, Kind::Lru), 1);
                let (leader, end) = shared.leader(Ok(10));
                let waiter = shared.waiters(1, 99).pop().expect("there is one");
                shared.attached(|cache| write(cache, &shared));
                drop(end);
                assert_eq!(leader.join().expect("no panic"), Ok(10), "the callers get the computed value");
                assert_eq!(waiter.join().expect("no panic"), Ok(10));
                assert_eq!(shared.peek(1), expected);
                validate(&shared.caches[0]);
            });
        }
    }
}

fn set(cache: &TestCache, shared: &Shared, id: u64, word: u64) {
    let stored = NewValue::plain(Value::new(word, &shared.tally));
    call(cache, |removed| cache.set(&BuiltinEqQuery::new(id, &shared.tally), stored, removed))
        .0
        .expect("no failure");
}

#[test]
fn a_write_to_another_key_does_not_supersede_the_computation() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Ok(10));
        shared.attached(|cache| set(cache, &shared, 2, 20));
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        assert_eq!(shared.peek(1), Some(10));
    });
}

#[test]
fn a_write_to_another_key_of_equal_hash_does_not_supersede_the_computation() {
    let shared = Shared::one();
    shared.attach();
    let query = |id: u64| BuiltinEqQuery { hash: mix_hash(5), ..BuiltinEqQuery::new(id, &shared.tally) };
    let cache = &shared.caches[0];
    let loaded = shared.load_query(0, &query(1), || {
        let stored = NewValue::plain(Value::new(20, &shared.tally));
        call(cache, |removed| cache.set(&query(2), stored, removed)).0.expect("no failure");
        call(cache, |removed| cache.remove(&query(3), removed)).0.expect("no failure");
        Ok(10)
    });
    assert_eq!(loaded, Ok(10));
    let found = call(cache, |removed| cache.peek(&query(1), removed)).0.expect("no failure");
    assert_eq!(found.map(|value| value.word()), Some(10));
}

#[test]
fn a_call_after_a_write_does_not_join_an_earlier_computation() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader(Ok(10));
        shared.attach();
        let cache = &shared.caches[0];
        call(cache, |removed| cache.remove(&BuiltinEqQuery::new(1, &shared.tally), removed))
            .0
            .expect("no failure");
        assert_eq!(shared.load(0, 1, || Ok(11)), Ok(11));
        shared.detach();
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        assert_eq!(shared.peek(1), Some(11));
        validate(&shared.caches[0]);
    });
}

#[test]
fn a_removal_that_began_before_the_computation_keeps_its_result_out() {
    within_a_minute(|| {
        let shared = Shared::one();
        let begun = Cell::new(None);
        let met = |key: &Key| {
            // The computation begins while the removal compares another key of the same hash.
            let computation = begun.take();
            begun.set(computation.or_else(|| Some(shared.detached(|| shared.leader(Ok(10))))));
            Ok(key.id() == 1)
        };
        let query = UserEqQuery { key: Key::new(1, &shared.tally), hash: mix_hash(1), eq_slow: met };
        let other = BuiltinEqQuery { key: Key::new(2, &shared.tally), hash: mix_hash(1) };
        shared.attached(|cache| {
            let stored = NewValue::plain(Value::new(20, &shared.tally));
            call(cache, |removed| cache.set(&other, stored, removed)).0.expect("no failure");
            let removed = call(cache, |removed| cache.remove(&query, removed)).0.expect("no failure");
            assert!(removed.is_none());
        });
        let (leader, end) = begun.take().expect("the other key was compared");
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(10));
        assert_eq!(shared.peek(1), None);
        validate(&shared.caches[0]);
    });
}

#[test]
fn keys_of_equal_hash_are_computed_separately() {
    let shared = Shared::one();
    shared.attach();
    let query = |id: u64| UserEqQuery {
        key: Key::new(id, &shared.tally),
        hash: mix_hash(5),
        eq_slow: move |key: &Key| Ok(key.id() == id),
    };
    let loaded = shared.load_query(0, &query(1), || {
        assert_eq!(shared.load_query(0, &query(1), || Ok(0)), Err(LoadError::OwnKey));
        let inner = shared.load_query(0, &query(2), || Ok(20));
        assert_eq!(inner, Ok(20));
        Ok(10)
    });
    assert_eq!(loaded, Ok(10));
    let failing =
        UserEqQuery { key: Key::new(3, &shared.tally), hash: mix_hash(5), eq_slow: |_: &Key| Err("boom") };
    assert_eq!(shared.load_query(0, &failing, || Ok(1)), Err(LoadError::User("boom")));
}
