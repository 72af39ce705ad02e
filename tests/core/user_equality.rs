//! Keys whose equality is a user's code, which may do anything: fail, use the cache, or change it.

use std::cell::Cell;
use std::time::Duration;

use moka_py::{Cause, Config, KeyQuery, Kind, Lifetime, NewValue, Removals};

use crate::support::{Asking, Error, Key, Plain, Subject, gone, must_end};

/// All keys of these tests have the same hash.
const HASH: u64 = 0xabcd_ef01_2345_6789;

fn plain(subject: &Subject, id: u64) -> Plain {
    Plain { hash: HASH, ..subject.query(id) }
}

fn asking<F: Fn(&Key) -> Result<bool, Error>>(subject: &Subject, id: u64, eq_slow: F) -> Asking<F> {
    Asking { key: Key::new(id, &subject.keys), hash: HASH, eq_slow }
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

/// A cache of keys 1 to 3, of equal hash, with values ten times as large.
fn three() -> Subject {
    let subject = Subject::lru(100);
    for id in 1..=3 {
        set(&subject, &plain(&subject, id), id * 10).expect("no failure");
    }
    subject
}

#[test]
fn a_users_equality_finds_its_key() {
    let subject = three();
    let query = |id| asking(&subject, id, move |key: &Key| Ok(key.id() == id));
    assert_eq!(get(&subject, &query(2)), Ok(Some(20)));
    assert_eq!(get(&subject, &query(4)), Ok(None));
    set(&subject, &query(4), 40).expect("no failure");
    set(&subject, &query(3), 33).expect("no failure");
    assert_eq!(remove(&subject, &query(1)), Ok(Some(10)));
    assert_eq!(subject.entries(), [(2, 20), (3, 33), (4, 40)]);
    subject.validate();
}

#[test]
fn each_key_is_compared_once_a_call() {
    let subject = three();
    let asked = Cell::new(0);
    let query = asking(&subject, 4, |_: &Key| {
        asked.set(asked.get() + 1);
        Ok(false)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(asked.take(), 3);
    set(&subject, &query, 40).expect("no failure");
    assert_eq!(asked.take(), 3);
}

#[test]
fn the_same_object_is_found_without_being_compared() {
    let subject = Subject::lru(10);
    let query = asking(&subject, 1, |_: &Key| Err("never equal"));
    set(&subject, &query, 10).expect("no failure");
    assert_eq!(get(&subject, &query), Ok(Some(10)));
    set(&subject, &query, 11).expect("no failure");
    assert_eq!(remove(&subject, &query), Ok(Some(11)));
}

#[test]
fn an_equality_that_fails_leaves_the_cache_unchanged() {
    let subject = three();
    let query = asking(&subject, 2, |key: &Key| if key.id() == 2 { Err("boom") } else { Ok(false) });
    assert_eq!(get(&subject, &query), Err("boom"));
    assert_eq!(set(&subject, &query, 99), Err("boom"));
    assert_eq!(remove(&subject, &query), Err("boom"));
    let kept = subject.call(|removed| subject.cache.set_if_absent(&query, subject.stored(99), removed));
    assert_eq!(kept.map(|_| ()), Err("boom"));
    assert_eq!(subject.call(|removed| subject.cache.expires_in(&query, removed)), Err("boom"));
    assert_eq!(subject.entries(), [(1, 10), (2, 20), (3, 30)]);
    assert_eq!(subject.told(), []);
    subject.cache.flush();
    drop(query);
    assert_eq!((subject.keys.alive(), subject.values.alive()), (3, 3));
    subject.validate();
}

#[test]
fn an_equality_may_clear_the_cache() {
    let subject = three();
    let query = asking(&subject, 3, |key: &Key| {
        subject.clear();
        subject.cache.flush();
        Ok(key.id() == 3)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.told().len(), 3);
    set(&subject, &plain(&subject, 1), 10).expect("no failure");
    set(&subject, &query, 30).expect("no failure");
    assert_eq!(subject.entries(), [(3, 30)]);
    assert_eq!(remove(&subject, &plain(&subject, 3)), Ok(Some(30)));
    subject.validate();
}

#[test]
fn an_equality_may_remove_what_it_compares() {
    let subject = three();
    let query = asking(&subject, 2, |key: &Key| {
        let is_equal = key.id() == 2;
        remove(&subject, &plain(&subject, key.id()))?;
        Ok(is_equal)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.told_keys(Cause::Explicit), [1, 2, 3]);
    subject.validate();
}

#[test]
fn an_equality_that_removes_what_it_compares_hides_no_other_key() {
    for asked in 2..=3 {
        let subject = three();
        let query = asking(&subject, asked, |key: &Key| {
            if key.id() + 1 == asked {
                remove(&subject, &plain(&subject, key.id()))?;
            }
            Ok(key.id() == asked)
        });
        assert_eq!(get(&subject, &query), Ok(Some(asked * 10)));
        subject.validate();
    }
}

#[test]
fn an_equality_may_put_another_entry_in_the_same_place() {
    // The number and the slot of the compared entry are given to another key meanwhile.
    let subject = three();
    let done = Cell::new(false);
    let query = asking(&subject, 1, |key: &Key| {
        if key.id() == 1 && !done.replace(true) {
            assert_eq!(remove(&subject, &plain(&subject, 1)), Ok(Some(10)));
            subject.cache.flush();
            set(&subject, &plain(&subject, 7), 70)?;
            return Ok(true);
        }
        Ok(key.id() == 1)
    });
    assert_eq!(get(&subject, &query), Ok(None));
    assert_eq!(subject.entries(), [(2, 20), (3, 30), (7, 70)]);
    done.set(false);
    set(&subject, &plain(&subject, 1), 10).expect("no failure");
    remove(&subject, &plain(&subject, 7)).expect("no failure");
    set(&subject, &query, 11).expect("no failure");
    assert_eq!(subject.entries(), [(1, 11), (2, 20), (3, 30), (7, 70)]);
    subject.validate();
}

#[test]
fn an_equality_may_insert_the_key_that_is_looked_for() {
    let subject = three();
    let done = Cell::new(false);
    let query = asking(&subject, 9, |key: &Key| {
        if !done.replace(true) {
            set(&subject, &plain(&subject, 9), 90)?;
        }
        Ok(key.id() == 9)
    });
    set(&subject, &query, 91).expect("no failure");
    assert_eq!(subject.entries(), [(1, 10), (2, 20), (3, 30), (9, 91)]);
    assert_eq!(subject.told(), [gone(9, 90, Cause::Replaced)]);
    subject.validate();
}

#[test]
fn an_equality_may_grow_and_shrink_the_table() {
    let subject = three();
    let query = asking(&subject, 3, |key: &Key| {
        (100..600).for_each(|id| subject.set(id, id));
        (100..600).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        subject.cache.flush();
        Ok(key.id() == 3)
    });
    // The cache holds 100, so the three have gone when the first comparison ends.
    assert_eq!(get(&subject, &query), Ok(None));
    let subject = Subject::new(Config::new(10_000, Kind::TinyLfu));
    (1..=3).for_each(|id| set(&subject, &plain(&subject, id), id * 10).expect("no failure"));
    let query = asking(&subject, 3, |key: &Key| {
        (100..600).for_each(|id| subject.set(id, id));
        (100..600).for_each(|id| assert!(subject.remove(id).is_none_or(|word| word == id)));
        Ok(key.id() == 3)
    });
    assert_eq!(get(&subject, &query), Ok(Some(30)));
    subject.validate();
}

#[test]
fn an_equality_that_changes_the_cache_each_time_still_ends() {
    must_end(|| {
        let subject = three();
        let next = Cell::new(100);
        let query = asking(&subject, 5, |_: &Key| {
            next.set(next.get() + 1);
            let other = plain(&subject, next.get());
            if next.get() < 150 {
                set(&subject, &other, 1)?;
            }
            Ok(false)
        });
        set(&subject, &query, 50).expect("no failure");
        assert_eq!(get(&subject, &plain(&subject, 5)), Ok(Some(50)));
        subject.validate();
    });
}

#[test]
fn an_equality_that_puts_a_new_key_behind_the_look_up_each_time_still_ends() {
    must_end(|| {
        let subject = Subject::lru(100);
        for id in [7, 1] {
            set(&subject, &plain(&subject, id), id * 10).expect("no failure");
        }
        let query = asking(&subject, 5, |key: &Key| {
            if key.id() == 1 {
                remove(&subject, &plain(&subject, 7))?;
                set(&subject, &plain(&subject, 7), 70)?;
            }
            Ok(false)
        });
        set(&subject, &query, 50).expect("no failure");
        assert_eq!(subject.entries(), [(1, 10), (5, 50), (7, 70)]);
        subject.validate();
    });
}

#[test]
fn what_another_look_up_found_unequal_is_compared_again() {
    // One list may serve many calls, each with a key of its own.
    let subject = Subject::lru(100);
    let old = asking(&subject, 1, |_: &Key| Ok(false));
    set(&subject, &old, 10).expect("no failure");
    set(&subject, &plain(&subject, 2), 20).expect("no failure");
    let mut removed = Removals::new();
    let stranger = asking(&subject, 3, |_: &Key| Ok(false));
    subject.cache.set(&stranger, subject.stored(30), &mut removed).expect("no failure");
    remove(&subject, &old).expect("no failure");
    let done = Cell::new(false);
    let equal_to_old = asking(&subject, 1, |key: &Key| {
        // The slot of the old key is free; the look-up is past it when the old key comes back.
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
fn time_that_passes_in_an_equality_counts() {
    type Call = fn(&Subject, &Asking<&dyn Fn(&Key) -> Result<bool, Error>>) -> Option<u64>;
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
        // The deadline is there before the call, or comes while it compares.
        for is_there_before in [true, false] {
            let subject = Subject::lru(10);
            let set_for_a_while = || {
                let stored = NewValue { lifetime: Lifetime { ttl: 10, tti: 0 }, ..subject.stored(1) };
                subject
                    .call(|removed| subject.cache.set(&plain(&subject, 1), stored, removed))
                    .expect("no failure");
            };
            match is_there_before {
                true => set_for_a_while(),
                false => set(&subject, &plain(&subject, 1), 1).expect("no failure"),
            }
            let eq_slow = |key: &Key| {
                if !is_there_before {
                    set_for_a_while();
                }
                subject.advance(10);
                Ok(key.id() == 1)
            };
            let query = asking(&subject, 1, &eq_slow as &dyn Fn(&Key) -> Result<bool, Error>);
            assert_eq!(call(&subject, &query), None, "{name}");
            subject.validate();
        }
    }
}

#[test]
fn a_life_begins_when_the_value_is_written() {
    let subject = Subject::lru(10);
    set(&subject, &plain(&subject, 1), 1).expect("no failure");
    let query = asking(&subject, 2, |_: &Key| {
        subject.advance(100);
        Ok(false)
    });
    let stored = NewValue { lifetime: Lifetime { ttl: 10, tti: 0 }, ..subject.stored(2) };
    subject.call(|removed| subject.cache.set(&query, stored, removed)).expect("no failure");
    let found = subject.call(|removed| subject.cache.expires_in(&plain(&subject, 2), removed));
    assert_eq!(found, Ok(Some(Duration::from_nanos(10))));
}
