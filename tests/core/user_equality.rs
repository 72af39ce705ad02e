//! Keys with a user-defined comparison, which may fail, use the cache, or change it.

use std::cell::Cell;
use std::time::Duration;

use moka_py::{Cause, Config, KeyQuery, Kind, Lifetime, NewValue, Removals};

use crate::support::{BuiltinEqQuery, Error, Key, Subject, UserEqQuery, event, sized, within_a_minute};

/// All keys of these tests have the same hash.
const HASH: u64 = 0xabcd_ef01_2345_6789;

fn builtin_eq_query(subject: &Subject, id: u64) -> BuiltinEqQuery {
    BuiltinEqQuery { hash: HASH, ..subject.query(id) }
}

fn user_eq_query<F: Fn(&Key) -> Result<bool, Error>>(
    subject: &Subject,
    id: u64,
    eq_slow: F,
) -> UserEqQuery<F> {
    UserEqQuery { key: Key::new(id, &subject.keys), hash: HASH, eq_slow }
}

fn set<Q: KeyQuery<Key, Error = Error>>(subject: &Subject, query: &Q, word: u64) -> Result<(), Error> {
    subject.call(|removed| subject.cache.set(query, subject.stored(word), removed))
}

fn get<Q: KeyQuery<Key, Error = Error>>(subject: &Subject, query: &Q) -> Result<Option<u64>, Error> {
    Ok(subject.call(|removed| subject.cache.get(query, removed))?.map(|value| value.word()))
}

fn remove<Q: KeyQuery<Key, Error = Error>>(subject: &Subject, query: &Q) -> Result<Option<u64>, Error> {
    Ok(subject.call(|removed| subject.cache.remove(query, removed))?.map(|value| value.word()))
}

/// Makes a cache of keys 1 to 3, of equal hash, with values ten times as large.
fn cache_of_three() -> Subject {
    let subject = Subject::lru(100);
    for id in 1..=3 {
        set(&subject, &builtin_eq_query(&subject, id), id * 10).expect("no failure");
    }
    subject
}

#[test]
fn a_user_defined_comparison_finds_its_key() {
    let subject = cache_of_three();
    let query = |id| user_eq_query(&subject, id, move |key: &Key| Ok(key.id() == id));
    assert_eq!(get(&subject, &query(2)), Ok(Some(20)));
    assert_eq!(get(&subject, &query(4)), Ok(None));
    set(&subject, &query(4), 40).expect("no failure");
    set(&subject, &query(3), 33).expect("no failure");
    assert_eq!(remove(&subject, &query(1)), Ok(Some(10)));
    assert_eq!(subject.entries(), [(2, 20), (3, 33), (4, 40)]);
    subject.validate();
}

#[test]
fn each_key_is_compared_once_per_call() {
    let subject = cache_of_three();
    let asked = Cell::new(0);
    let query = user_eq_query(&subject, 4, |_: &Key| {
        asked.set(asked.get() + 1);
        Ok(false)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(asked.take(), 3);
    set(&subject, &query, 40).expect("no failure");
    assert_eq!(asked.take(), 3);
}

#[test]
fn the_same_key_object_is_found_without_a_comparison() {
    let subject = Subject::lru(10);
    let query = user_eq_query(&subject, 1, |_: &Key| Err("never equal"));
    set(&subject, &query, 10).expect("no failure");
    assert_eq!(get(&subject, &query), Ok(Some(10)));
    set(&subject, &query, 11).expect("no failure");
    assert_eq!(remove(&subject, &query), Ok(Some(11)));
}

#[test]
fn a_failing_comparison_leaves_the_cache_unchanged() {
    let subject = cache_of_three();
    let query = user_eq_query(&subject, 2, |key: &Key| if key.id() == 2 { Err("boom") } else { Ok(false) });
    assert_eq!(get(&subject, &query), Err("boom"));
    assert_eq!(set(&subject, &query, 99), Err("boom"));
    assert_eq!(remove(&subject, &query), Err("boom"));
    let kept = subject.call(|removed| subject.cache.set_if_absent(&query, subject.stored(99), removed));
    assert_eq!(kept.map(|_| ()), Err("boom"));
    assert_eq!(subject.call(|removed| subject.cache.expires_in(&query, removed)), Err("boom"));
    assert_eq!(subject.entries(), [(1, 10), (2, 20), (3, 30)]);
    assert_eq!(subject.events(), []);
    subject.cache.flush();
    drop(query);
    assert_eq!((subject.keys.alive(), subject.values.alive()), (3, 3));
    subject.validate();
}

#[test]
fn a_comparison_can_clear_the_cache() {
    let subject = cache_of_three();
    let query = user_eq_query(&subject, 3, |key: &Key| {
        subject.clear();
        subject.cache.flush();
        Ok(key.id() == 3)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.events().len(), 3);
    set(&subject, &builtin_eq_query(&subject, 1), 10).expect("no failure");
    set(&subject, &query, 30).expect("no failure");
    assert_eq!(subject.entries(), [(3, 30)]);
    assert_eq!(remove(&subject, &builtin_eq_query(&subject, 3)), Ok(Some(30)));
    subject.validate();
}

#[test]
fn a_comparison_can_remove_the_compared_entry() {
    let subject = cache_of_three();
    let query = user_eq_query(&subject, 2, |key: &Key| {
        let is_equal = key.id() == 2;
        remove(&subject, &builtin_eq_query(&subject, key.id()))?;
        Ok(is_equal)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.removed_keys(Cause::Explicit), [1, 2, 3]);
    subject.validate();
}

#[test]
fn a_comparison_that_removes_the_compared_entry_hides_no_other_key() {
    for asked in 2..=3 {
        let subject = cache_of_three();
        let query = user_eq_query(&subject, asked, |key: &Key| {
            if key.id() + 1 == asked {
                remove(&subject, &builtin_eq_query(&subject, key.id()))?;
            }
            Ok(key.id() == asked)
        });
        assert_eq!(get(&subject, &query), Ok(Some(asked * 10)));
        subject.validate();
    }
}

#[test]
fn a_comparison_can_put_another_entry_into_the_same_slot() {
    // During the comparison another key gets the index and the slot of the compared entry.
    let subject = cache_of_three();
    let done = Cell::new(false);
    let query = user_eq_query(&subject, 1, |key: &Key| {
        if key.id() == 1 && !done.replace(true) {
            assert_eq!(remove(&subject, &builtin_eq_query(&subject, 1)), Ok(Some(10)));
            subject.cache.flush();
            set(&subject, &builtin_eq_query(&subject, 7), 70)?;
            return Ok(true);
        }
        Ok(key.id() == 1)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.entries(), [(2, 20), (3, 30), (7, 70)]);
    done.set(false);
    set(&subject, &builtin_eq_query(&subject, 1), 10).expect("no failure");
    remove(&subject, &builtin_eq_query(&subject, 7)).expect("no failure");
    set(&subject, &query, 11).expect("no failure");
    assert_eq!(subject.entries(), [(1, 11), (2, 20), (3, 30), (7, 70)]);
    subject.validate();
}

#[test]
fn a_comparison_can_insert_the_key_that_is_looked_up() {
    let subject = cache_of_three();
    let done = Cell::new(false);
    let query = user_eq_query(&subject, 9, |key: &Key| {
        if !done.replace(true) {
            set(&subject, &builtin_eq_query(&subject, 9), 90)?;
        }
        Ok(key.id() == 9)
    });
    set(&subject, &query, 91).expect("no failure");
    assert_eq!(subject.entries(), [(1, 10), (2, 20), (3, 30), (9, 91)]);
    assert_eq!(subject.events(), [event(9, 90, Cause::Replaced)]);
    subject.validate();
}

#[test]
fn a_comparison_can_grow_and_shrink_the_table() {
    let subject = cache_of_three();
    let query = user_eq_query(&subject, 3, |key: &Key| {
        (100..sized(600, 210)).for_each(|id| subject.set(id, id));
        (100..sized(600, 210)).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        subject.cache.flush();
        Ok(key.id() == 3)
    });
    // The capacity is 100, so the three keys are evicted before the first comparison ends.
    assert_eq!(get(&subject, &query), Ok(None));
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    (1..=3).for_each(|id| set(&subject, &builtin_eq_query(&subject, id), id * 10).expect("no failure"));
    let query = user_eq_query(&subject, 3, |key: &Key| {
        (100..sized(600, 130)).for_each(|id| subject.set(id, id));
        (100..sized(600, 130)).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        Ok(key.id() == 3)
    });
    assert_eq!(get(&subject, &query), Ok(Some(30)));
    subject.validate();
}

#[test]
fn a_call_terminates_although_each_comparison_changes_the_cache() {
    within_a_minute(|| {
        let subject = cache_of_three();
        let next = Cell::new(100);
        let query = user_eq_query(&subject, 5, |_: &Key| {
            next.set(next.get() + 1);
            let other = builtin_eq_query(&subject, next.get());
            if next.get() < 150 {
                set(&subject, &other, 1)?;
            }
            Ok(false)
        });
        set(&subject, &query, 50).expect("no failure");
        assert_eq!(get(&subject, &builtin_eq_query(&subject, 5)), Ok(Some(50)));
        subject.validate();
    });
}

#[test]
fn a_call_terminates_although_each_comparison_inserts_a_key_further_on() {
    within_a_minute(|| {
        let subject = Subject::lru(100);
        for id in [7, 1] {
            set(&subject, &builtin_eq_query(&subject, id), id * 10).expect("no failure");
        }
        let query = user_eq_query(&subject, 5, |key: &Key| {
            if key.id() == 1 {
                remove(&subject, &builtin_eq_query(&subject, 7))?;
                set(&subject, &builtin_eq_query(&subject, 7), 70)?;
            }
            Ok(false)
        });
        set(&subject, &query, 50).expect("no failure");
        assert_eq!(subject.entries(), [(1, 10), (5, 50), (7, 70)]);
        subject.validate();
    });
}

#[test]
fn a_key_that_another_call_found_unequal_is_compared_again() {
    // One list of removals may serve many calls, each with its own key.
    let subject = Subject::lru(100);
    let old = user_eq_query(&subject, 1, |_: &Key| Ok(false));
    set(&subject, &old, 10).expect("no failure");
    set(&subject, &builtin_eq_query(&subject, 2), 20).expect("no failure");
    let mut removed = Removals::new();
    let stranger = user_eq_query(&subject, 3, |_: &Key| Ok(false));
    subject.cache.set(&stranger, subject.stored(30), &mut removed).expect("no failure");
    remove(&subject, &old).expect("no failure");
    let done = Cell::new(false);
    let equal_to_old = user_eq_query(&subject, 1, |key: &Key| {
        // The look-up has passed the free slot of the old key when that key is inserted again.
        if key.id() == 2 && !done.replace(true) {
            set(&subject, &old, 10)?;
        }
        Ok(key.id() == 1)
    });
    subject.cache.set(&equal_to_old, subject.stored(11), &mut removed).expect("no failure");
    subject.cache.release(&mut removed);
    assert_eq!(subject.entries(), [(1, 11), (2, 20), (3, 30)]);
    subject.validate();
}

#[test]
fn time_that_passes_during_a_comparison_counts() {
    type Call = fn(&Subject, &UserEqQuery<&dyn Fn(&Key) -> Result<bool, Error>>) -> Option<u64>;
    let calls: [(&str, Call); 4] = [
        ("get", |subject, query| get(subject, query).expect("no failure")),
        ("remove", |subject, query| remove(subject, query).expect("no failure")),
        ("set_if_absent", |subject, query| {
            let kept = subject.call(|removed| subject.cache.set_if_absent(query, subject.stored(9), removed));
            kept.expect("no failure").map(|value| value.word())
        }),
        ("expires_in", |subject, query| {
            let removed =
                subject.call(|removed| subject.cache.expires_in(query, removed)).expect("no failure");
            removed.map(|removed| removed.as_nanos() as u64)
        }),
    ];
    for (name, call) in calls {
        // The entry has its deadline before the call, or gets it during the comparison.
        for is_there_before in [true, false] {
            let subject = Subject::lru(10);
            let set_for_a_while = || {
                let stored = NewValue { lifetime: Lifetime { ttl: 10, tti: 0 }, ..subject.stored(1) };
                subject
                    .call(|removed| subject.cache.set(&builtin_eq_query(&subject, 1), stored, removed))
                    .expect("no failure");
            };
            match is_there_before {
                true => set_for_a_while(),
                false => set(&subject, &builtin_eq_query(&subject, 1), 1).expect("no failure"),
            }
            let eq_slow = |key: &Key| {
                if !is_there_before {
                    set_for_a_while();
                }
                subject.advance(10);
                Ok(key.id() == 1)
            };
            let query = user_eq_query(&subject, 1, &eq_slow as &dyn Fn(&Key) -> Result<bool, Error>);
            assert_eq!(call(&subject, &query), None, "{name}");
            subject.validate();
        }
    }
}

#[test]
fn a_duration_starts_when_the_value_is_written() {
    let subject = Subject::lru(10);
    set(&subject, &builtin_eq_query(&subject, 1), 1).expect("no failure");
    let query = user_eq_query(&subject, 2, |_: &Key| {
        subject.advance(100);
        Ok(false)
    });
    let stored = NewValue { lifetime: Lifetime { ttl: 10, tti: 0 }, ..subject.stored(2) };
    subject.call(|removed| subject.cache.set(&query, stored, removed)).expect("no failure");
    let found = subject.call(|removed| subject.cache.expires_in(&builtin_eq_query(&subject, 2), removed));
    assert_eq!(found, Ok(Some(Duration::from_nanos(10))));
}
