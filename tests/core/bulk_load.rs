//! Loads of many keys by one call: which keys it leads, when it waits, and what is stored.

use std::cell::Cell;
use std::sync::{Arc, Barrier};

use moka_py::{BulkKey, Cause, Failure, LoadError, NewValue, RunStart};

use crate::single_flight_support::Shared;
use crate::support::{
    BuiltinEqQuery, Key, Subject, UserEqQuery, Value, call, mix_hash, sized, within_a_minute,
};

/// The pairs of a load that answers each key with ten times the key.
fn tenfold(ids: &[u64]) -> Vec<(u64, u64)> {
    ids.iter().map(|&id| (id, 10 * id)).collect()
}

#[test]
fn missing_keys_are_led_in_order_and_stored() {
    let shared = Shared::one();
    shared.attach();
    assert_eq!(shared.load(0, 2, || Ok(2)), Ok(2));
    let loaded = shared.load_many(&[3, 2, 1], |ids| {
        assert_eq!(ids, [3, 1]);
        Ok(tenfold(ids))
    });
    assert_eq!(loaded, Ok(vec![(1, 10), (2, 2), (3, 30)]));
    let again = shared.load_many(&[1, 2, 3], |_| unreachable!("no key is missing"));
    assert_eq!(again, loaded);
}

#[test]
fn two_loads_that_overlap_do_not_wait_for_each_other() {
    within_a_minute(|| {
        for _ in 0..sized(50, 1) {
            let shared = Shared::one();
            let barrier = Arc::new(Barrier::new(2));
            let begin = |ids: [u64; 2]| {
                let barrier = Arc::clone(&barrier);
                shared.thread(move |shared| {
                    let cache = &shared.caches[0];
                    let query = |id| BuiltinEqQuery::new(id, &shared.tally);
                    let mut pause = |park: &(dyn Fn() + Sync)| {
                        shared.detached(park);
                        Ok(())
                    };
                    let (value, _) = call(cache, |removed| {
                        let mut bulk = cache.begin_bulk_load();
                        assert!(matches!(bulk.begin(&query(ids[0]), removed), Ok(BulkKey::Lead)));
                        shared.detached(|| barrier.wait());
                        assert!(matches!(bulk.begin(&query(ids[1]), removed), Ok(BulkKey::Wait)));
                        // Both loads run at the same time.
                        shared.detached(|| barrier.wait());
                        let new = NewValue::plain(Value::new(10 * ids[0], &shared.tally));
                        bulk.complete_next(&query(ids[0]), Some(new), removed)
                            .expect("plain keys do not fail");
                        bulk.into_waits().wait_next(&query(ids[1]), &mut pause, removed)
                    });
                    value.map(|value| value.map(|value| value.word()))
                })
            };
            let (one, other) = (begin([1, 2]), begin([2, 1]));
            assert_eq!(one.join().expect("no panic"), Ok(Some(20)));
            assert_eq!(other.join().expect("no panic"), Ok(Some(10)));
        }
    });
}

#[test]
fn every_write_to_a_key_keeps_its_loaded_value_out() {
    type Write = fn(&Subject);
    let writes: [(Write, Option<u64>, Option<u64>); 5] = [
        (|subject| subject.set(1, 7), Some(7), Some(20)),
        (|subject| assert_eq!(subject.set_if_absent(1, 7), None), Some(7), Some(20)),
        (|subject| assert_eq!(subject.remove(1), None), None, Some(20)),
        (Subject::clear, None, None),
        (|subject| subject.cache.supersede_all(), None, None),
    ];
    for (write, first, second) in writes {
        let subject = Subject::lru(10);
        let mut bulk = subject.cache.begin_bulk_load();
        for id in [1, 2] {
            let begun = subject.call(|removed| bulk.begin(&subject.query(id), removed));
            assert!(matches!(begun, Ok(BulkKey::Lead)));
        }
        write(&subject);
        for id in [1, 2] {
            let new = Some(subject.stored(10 * id));
            let completed = subject.call(|removed| bulk.complete_next(&subject.query(id), new, removed));
            completed.expect("plain keys do not fail");
        }
        assert_eq!([subject.peek(1), subject.peek(2)], [first, second]);
        subject.validate();
    }
}

#[test]
fn waiters_of_an_unanswered_key_compute_it_themselves() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader_by(|shared, wait| {
            shared.load_many(&[1, 2], |_| {
                wait();
                Ok(vec![(2, 20)])
            })
        });
        let waiters = shared.waiters(3, 12);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Ok(vec![(2, 20)]));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(12)));
        assert_eq!([shared.peek(1), shared.peek(2)], [Some(12), Some(20)]);
    });
}

#[test]
fn a_failure_goes_to_the_waiters_of_all_keys() {
    for for_waiters in [Some("boom"), None] {
        within_a_minute(move || {
            let shared = Shared::one();
            let (leader, end) = shared.leader_by(move |shared, wait| {
                shared.load_many(&[2, 1], |_| {
                    wait();
                    Err(Failure { error: "boom", for_waiters })
                })
            });
            let waiters = shared.waiters(3, 12);
            drop(end);
            assert_eq!(leader.join().expect("no panic"), Err(LoadError::User("boom")));
            let expected = for_waiters.map_or(Ok(12), |error| Err(LoadError::User(error)));
            waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), expected));
            assert_eq!(shared.peek(2), None);
        });
    }
}

#[test]
fn waiters_get_a_value_that_the_load_could_not_store() {
    within_a_minute(|| {
        let shared = Shared::one();
        let (leader, end) = shared.leader_by(|shared, wait| {
            let cache = &shared.caches[0];
            let eq_slow = |key: &Key| if key.id() == 2 { Err("boom") } else { Ok(key.id() == 1) };
            let query = UserEqQuery { key: Key::new(1, &shared.tally), hash: mix_hash(1), eq_slow };
            let (completed, _) = call(cache, |removed| {
                let mut bulk = cache.begin_bulk_load();
                assert!(matches!(bulk.begin(&query, removed), Ok(BulkKey::Lead)));
                let other = BuiltinEqQuery { key: Key::new(2, &shared.tally), hash: mix_hash(1) };
                let stored = NewValue::plain(Value::new(20, &shared.tally));
                cache.set(&other, stored, removed).expect("no failure");
                wait();
                bulk.complete_next(&query, Some(NewValue::plain(Value::new(10, &shared.tally))), removed)
            });
            completed
        });
        let waiters = shared.waiters(3, 99);
        drop(end);
        assert_eq!(leader.join().expect("no panic"), Err("boom"));
        waiters.into_iter().for_each(|waiter| assert_eq!(waiter.join().expect("no panic"), Ok(10)));
        assert_eq!(shared.peek(1), None);
    });
}

#[test]
fn a_dropped_load_abandons_all_its_keys() {
    let subject = Subject::lru(10);
    let mut bulk = subject.cache.begin_bulk_load();
    for id in [1, 2] {
        assert!(matches!(subject.call(|removed| bulk.begin(&subject.query(id), removed)), Ok(BulkKey::Lead)));
    }
    // As long as the load leads the key, this thread cannot ask for it.
    let mut other = subject.cache.begin_bulk_load();
    let refused = subject.call(|removed| other.begin(&subject.query(1), removed));
    assert!(matches!(refused, Err(LoadError::OwnKey)));
    drop(bulk);
    for id in [1, 2] {
        assert!(matches!(
            subject.call(|removed| other.begin(&subject.query(id), removed)),
            Ok(BulkKey::Lead)
        ));
    }
    drop(other);
    assert_eq!(subject.keys.alive(), 0);
}

#[test]
fn a_look_up_counts_as_an_access() {
    let subject = Subject::lru(2);
    subject.set(1, 10);
    subject.set(2, 20);
    let mut bulk = subject.cache.begin_bulk_load();
    let begun = subject.call(|removed| bulk.begin(&subject.query(1), removed));
    assert!(matches!(begun, Ok(BulkKey::Present(value)) if value.word() == 10));
    drop(bulk);
    subject.set(3, 30);
    assert_eq!(subject.removed_keys(Cause::Size), [2]);
}

/// Inserts a value for a key that the load was not asked for. Returns whether it was stored.
fn insert(subject: &Subject, id: u64, new: NewValue<Value>) -> bool {
    let insert = |removed: &mut _| subject.cache.insert_unless_in_flight(&subject.query(id), new, removed);
    subject.call(insert).expect("plain keys do not fail").is_none()
}

#[test]
fn a_value_that_was_not_asked_for_is_stored_if_the_key_is_absent() {
    let subject = Subject::lru(2);
    assert!(insert(&subject, 1, subject.stored(10)));
    subject.set(2, 20);
    assert!(!insert(&subject, 1, subject.stored(11)));
    assert_eq!(subject.entries(), [(1, 10), (2, 20)]);
    // The refused insert is not an access.
    subject.set(3, 30);
    assert_eq!(subject.removed_keys(Cause::Size), [1]);
    subject.validate();
}

#[test]
fn a_value_that_was_not_asked_for_is_stored_in_place_of_an_expired_one() {
    let subject = Subject::lru(10);
    subject.set_with_lifetime(1, 10, 100, 0);
    subject.advance(100);
    let lifetime = moka_py::Lifetime { ttl: 50, tti: 0 };
    assert!(insert(&subject, 1, NewValue { lifetime, ..subject.stored(11) }));
    assert_eq!((subject.peek(1), subject.expires_in(1)), (Some(11), Some(50)));
    assert_eq!(subject.removed_keys(Cause::Expired), [1]);
    subject.validate();
}

#[test]
fn a_value_that_was_not_asked_for_is_not_stored_beside_a_computation_of_its_key() {
    let subject = Subject::lru(10);
    let mut bulk = subject.cache.begin_bulk_load();
    assert!(matches!(subject.call(|removed| bulk.begin(&subject.query(1), removed)), Ok(BulkKey::Lead)));
    assert!(!insert(&subject, 1, subject.stored(10)));
    subject.remove(1);
    assert!(!insert(&subject, 1, subject.stored(10)), "the superseded computation is still in flight");
    // Another key of the same hash.
    let other = BuiltinEqQuery { key: Key::new(2, &subject.keys), hash: mix_hash(1) };
    let new = subject.stored(20);
    let inserted = subject.call(|removed| subject.cache.insert_unless_in_flight(&other, new, removed));
    assert!(inserted.expect("plain keys do not fail").is_none());
    drop(bulk);
    assert!(insert(&subject, 1, subject.stored(10)));
    let run = match subject.call(|removed| subject.cache.begin_run(&subject.query(3), removed)) {
        Ok(RunStart::Run(run)) => run,
        _ => panic!("the key is absent"),
    };
    assert!(!insert(&subject, 3, subject.stored(30)));
    subject.cache.end_run(run);
    assert!(insert(&subject, 3, subject.stored(30)));
    subject.validate();
}

#[test]
fn a_circle_of_waiting_threads_is_refused_before_the_load() {
    within_a_minute(|| {
        let shared = Shared::one();
        let begun = Arc::new(Barrier::new(2));
        let other = {
            let begun = Arc::clone(&begun);
            shared.thread(move |shared| {
                shared.load(0, 2, || {
                    shared.detached(|| begun.wait());
                    // The first thread gives up this key.
                    assert_eq!(shared.load(0, 1, || Ok(11)), Ok(11));
                    Ok(20)
                })
            })
        };
        shared.attach();
        let first = shared.load(0, 1, || {
            shared.detached(|| {
                begun.wait();
                shared.until_waited(1);
            });
            let loaded = shared.load_many(&[3, 2], |_| panic!("the load would be in vain"));
            assert_eq!(loaded, Err(LoadError::Deadlock));
            Err(Failure { error: "deadlock", for_waiters: None })
        });
        assert_eq!(first, Err(LoadError::User("deadlock")));
        shared.detach();
        assert_eq!(other.join().expect("no panic"), Ok(20));
        assert_eq!(shared.peek(3), None);
    });
}

#[test]
fn a_computation_that_waits_for_a_key_of_this_load_is_no_circle() {
    within_a_minute(|| {
        let shared = Shared::one();
        let barrier = Arc::new(Barrier::new(2));
        let other = {
            let barrier = Arc::clone(&barrier);
            shared.thread(move |shared| {
                shared.load(0, 2, || {
                    shared.detached(|| barrier.wait());
                    shared.detached(|| barrier.wait());
                    let first = shared.load(0, 1, || unreachable!("the load answers it"));
                    Ok(first.expect("no failure") + 10)
                })
            })
        };
        barrier.wait();
        shared.attach();
        let cache = &shared.caches[0];
        let query = |id| BuiltinEqQuery::new(id, &shared.tally);
        let mut pause = |park: &(dyn Fn() + Sync)| {
            shared.detached(park);
            Ok(())
        };
        let (second, _) = call(cache, |removed| {
            let mut bulk = cache.begin_bulk_load();
            assert!(matches!(bulk.begin(&query(1), removed), Ok(BulkKey::Lead)));
            shared.detached(|| {
                barrier.wait();
                shared.until_waited(1);
            });
            assert!(matches!(bulk.begin(&query(2), removed), Ok(BulkKey::Wait)));
            let new = NewValue::plain(Value::new(10, &shared.tally));
            bulk.complete_next(&query(1), Some(new), removed).expect("plain keys do not fail");
            bulk.into_waits().wait_next(&query(2), &mut pause, removed)
        });
        shared.detach();
        assert_eq!(second.map(|value| value.map(|value| value.word())), Ok(Some(20)));
        assert_eq!(other.join().expect("no panic"), Ok(20));
    });
}

#[test]
fn a_key_whose_other_leader_gives_up_has_the_value_that_was_stored_meanwhile() {
    for stored in [None, Some(77)] {
        within_a_minute(move || {
            let shared = Shared::one();
            let (leader, end) = shared.leader_by(move |shared, wait| {
                shared.load(0, 1, || {
                    wait();
                    if let Some(word) = stored {
                        let cache = &shared.caches[0];
                        let new = NewValue::plain(Value::new(word, &shared.tally));
                        let query = BuiltinEqQuery::new(1, &shared.tally);
                        call(cache, |removed| cache.set(&query, new, removed)).0.expect("no failure");
                    }
                    Err(Failure { error: "my own", for_waiters: None })
                })
            });
            let bulk = shared.thread(|shared| shared.load_many(&[1, 2], |ids| Ok(tenfold(ids))));
            shared.until_waited(1);
            drop(end);
            assert_eq!(leader.join().expect("no panic"), Err(LoadError::User("my own")));
            let mut expected: Vec<_> = stored.map(|word| (1, word)).into_iter().collect();
            expected.push((2, 20));
            assert_eq!(bulk.join().expect("no panic"), Ok(expected));
        });
    }
}

#[test]
fn a_value_that_a_comparison_set_after_the_look_up_is_returned() {
    let shared = Shared::one();
    shared.attach();
    let cache = &shared.caches[0];
    let builtin = |id| BuiltinEqQuery { key: Key::new(id, &shared.tally), hash: mix_hash(5) };
    let loaded = shared.load_query(0, &builtin(2), || {
        let is_set = Cell::new(false);
        // The comparison with the key in flight comes after the look-up.
        let eq_slow = |key: &Key| {
            if !is_set.replace(true) {
                let new = NewValue::plain(Value::new(77, &shared.tally));
                call(cache, |removed| cache.set(&builtin(1), new, removed)).0?;
            }
            Ok(key.id() == 1)
        };
        let query = UserEqQuery { key: Key::new(1, &shared.tally), hash: mix_hash(5), eq_slow };
        let mut bulk = cache.begin_bulk_load();
        let (begun, _) = call(cache, |removed| bulk.begin(&query, removed));
        assert!(matches!(begun, Ok(BulkKey::Present(value)) if value.word() == 77));
        Ok(20)
    });
    assert_eq!(loaded, Ok(20));
}

#[test]
fn many_flights_of_one_load_end_together() {
    const KEYS: u64 = sized(5_000, 20);
    let subject = Subject::lru(10);
    let mut bulk = subject.cache.begin_bulk_load();
    for id in 0..KEYS {
        assert!(matches!(subject.call(|removed| bulk.begin(&subject.query(id), removed)), Ok(BulkKey::Lead)));
    }
    for id in 0..KEYS {
        let new = Some(subject.stored(id));
        subject.call(|removed| bulk.complete_next(&subject.query(id), new, removed)).expect("no failure");
    }
    assert_eq!((subject.count(), subject.peek(KEYS - 1)), (10, Some(KEYS - 1)));
    subject.validate();
}
